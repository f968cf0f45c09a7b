"""The commands: help, exit codes, and one sentence for every mistake."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wsisr_cli.main import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line of this process in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wsisr", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run


@pytest.mark.parametrize(
    "name",
    [
        "build-pairs",
        "keep",
        "inspect",
        "verify",
        "export",
        "doctor",
        "demo",
        "bench",
        "manifests",
        "tissue",
        "register",
        "degrade",
        "models",
    ],
)
def test_every_command_has_help(name: str, command: Command) -> None:
    code, said, _ = command(name, "--help")
    assert code == 0
    assert "Usage: " in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build-pairs", "nowhere"), "no such file or folder"),
        (("build-pairs", ".", "--part", "4/3"), "no share"),
        (("build-pairs", "."), "no slides here"),
        (("inspect", "nowhere.svs"), "nowhere.svs"),
        (("verify", "nowhere"), "nowhere"),
        (("manifests", "show", "pathimgs"), "did you mean 'pathimgsr'"),
        (("manifests", "check", "nowhere.yaml"), "no such manifest"),
        (("no-such-command",), "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, command: Command, arguments: tuple[str, ...], words: str
) -> None:
    code, _, told = command(*arguments)
    assert code == 2
    assert words in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_real_slides_build_with_rows_for_the_unusable_ones(
    shared_data: Path, tmp_path: Path, command: Command
) -> None:
    """The folder of real slides as a user would build it."""
    table = tmp_path / "one-patient.csv"
    table.write_text(
        "slide,patient,group\n"
        "CMU-1-Small-Region.svs,CMU-1,CMU-1\n"
        "derived_cmu_generic_3level.tif,CMU-1,CMU-1\n"
        "cmu-1-small-region_dicom,CMU-1,CMU-1\n"
        "cmu-1-small-region_dicom_wrongcolour,CMU-1,CMU-1\n"
    )
    slides = shared_data / "slides"
    options = ["--hr", "20x", "--lr", "5x", "--size", "512", "-o", "real.zarr"]
    options += ["--mpp-override", str(table)]
    # First, since the build takes its scans.
    _, said, _ = command("build-pairs", str(slides), *options, "--dry-run")
    assert "5x 128 px made from level 0 / 4" in said
    assert "5x 128 px stored (level 2)" in said
    code, _, _ = command("build-pairs", str(slides), *options)
    assert code == 1
    failures = (tmp_path / "real.report" / "failures.csv").read_text()
    for slide, words in {
        "broken": "not a slide that can be read",
        "camelyon16_lowres_dicom": "28.97 um/px",
        "kidney-48-5_ihc_flat": "--mpp-override",
        "test3-DAPI": "fluorescence slide",
    }.items():
        (row,) = [line for line in failures.splitlines() if f",{slide}" in line]
        assert words in row
    code, said, _ = command("verify", "real.zarr")
    assert code == 0, said
    code, _, told = command("build-pairs", str(slides / "CMU-1-Small-Region.svs"))
    assert code == 2
    assert "is 20x, so 40x does not exist on it; ask for 20x or less" in told


def test_without_the_table_verify_finds_the_same_tissue_under_four_names(
    shared_data: Path, tmp_path: Path, command: Command
) -> None:
    source = tmp_path / "slides"
    source.mkdir()
    for path in (shared_data / "slides").iterdir():
        if "cmu" in path.name.lower():
            (source / path.name).symlink_to(path)
    options = ["--hr", "20x", "--lr", "5x", "--size", "512", "-o", "leaky.zarr"]
    command("build-pairs", str(source), *options)
    code, said, _ = command("verify", "leaky.zarr")
    assert code == 1
    assert said.count("show the same tissue") == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ["build-pairs", "s", "-o", "s3://user:secret@bucket/p.zarr"],
        ["build-pairs", "s", "-os3://user:secret@bucket/p.zarr"],
        ["upscale", "a.png", "--output=gs://bucket/a.ome.tiff"],
        ["upscale", "a.png", "--output", "s3://bucket/a.png"],
        ["export", "p.zarr", "s3://bucket/out", "--to", "png"],
    ],
)
def test_a_url_is_no_local_output(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsisr", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "writes to local disks alone" in said and "secret" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "m/p.zarr"), "m/p.zarr: Read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "m"), "ask for the permission"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), "make room"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n"), "choose a shorter one"),
        (FileNotFoundError(errno.ENOENT, "No such file", "https://u:p@h/a?b"), "https://***@h/a"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_in_every_command(
    fault: OSError,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused() -> None:
        raise fault

    monkeypatch.setattr("wsisr_cli.main.app", refused)
    monkeypatch.setattr(sys, "argv", ["wsisr", "tissue"])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tissue", "mask"], "is a URL"),
        (["keep"], "is a URL"),
        (["train", "--model", "edsr", "--init-from"], "is a URL"),
        (["train", "--model", "edsr", "--data"], "do not belong into an address"),
        (["inspect"], "do not belong into an address"),
        (["verify", "--quick"], "do not belong into an address"),
        (["verify", "p.zarr", "--against"], "no zarr.json here"),
        (["report"], "do not belong into an address"),
    ],
)
def test_a_url_is_read_where_stores_are_and_never_a_local_file(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsisr", *words, "https://me:hush@host/a.svs?sig=quiet"])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and said in error
    assert "hush" not in error and "quiet" not in error


def test_a_command_imports_no_other_command_and_nothing_that_it_does_not_use() -> None:
    code = (
        "import sys; from wsisr_cli.main import main; sys.argv = ['wsisr', 'build-pairs', '/none'];"
        "\ntry: main()\nexcept SystemExit: pass\n"
        "print(*(m for m in sys.modules if m.startswith('wsisr_cli.')), 'MODULES',"
        "*({'tqdm', 'scipy.fft', 'zarr', 'skimage', 'rich', 'wsisr.store.verify', 'torch'}"
        " & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands, others = run.stdout.split("MODULES")
    used = {"main", "build_pairs", "options", "progress", "usage"}
    assert {name.removeprefix("wsisr_cli.") for name in commands.split()} == used
    assert others.split() == []
