"""The commands: help, exit codes, and one sentence for every mistake."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from wsisr_cli.main import main


def wsisr(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "wsisr_cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
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
def test_every_command_has_help(command: str) -> None:
    result = wsisr(command, "--help")
    assert result.returncode == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build-pairs", "nowhere"), "no such file or folder"),
        (("build-pairs", ".", "--part", "4/3"), "no share"),
        (("build-pairs", "."), "no slides here"),
        (("inspect", "nowhere.svs"), "nowhere.svs"),
        (("verify", "nowhere"), "nowhere"),
        (("manifests", "show", "pathimgs"), "Did you mean 'pathimgsr'"),
        (("manifests", "check", "nowhere.yaml"), "no such manifest"),
        (("no-such-command",), "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = wsisr(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_real_slides_build_with_rows_for_the_unusable_ones(
    shared_data: Path, tmp_path: Path
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
    store = tmp_path / "real.zarr"
    options = ["--hr", "20x", "--lr", "5x", "--size", "512", "-o", store, "--workers", "2"]
    result = wsisr("build-pairs", shared_data / "slides", *options, "--mpp-override", table)
    assert result.returncode == 1
    failures = (tmp_path / "real.report" / "failures.csv").read_text()
    for slide, words in {
        "broken": "not a slide that can be read",
        "camelyon16_lowres_dicom": "28.97 um/px",
        "kidney-48-5_ihc_flat": "--mpp-override",
        "test3-DAPI": "fluorescence slide",
    }.items():
        (row,) = [line for line in failures.splitlines() if f",{slide}" in line]
        assert words in row
    checked = wsisr("verify", store)
    assert checked.returncode == 0, checked.stdout
    dry = wsisr("build-pairs", shared_data / "slides", *options, "--dry-run")
    assert "5x 128 px made from level 0 / 4" in dry.stdout
    assert "5x 128 px stored (level 2)" in dry.stdout
    refused = wsisr("build-pairs", shared_data / "slides" / "CMU-1-Small-Region.svs", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is 20x, so 40x does not exist on it; ask for 20x or less" in refused.stderr


def test_without_the_table_verify_finds_the_same_tissue_under_four_names(
    shared_data: Path, tmp_path: Path
) -> None:
    store = tmp_path / "leaky.zarr"
    options = ["--hr", "20x", "--lr", "5x", "--size", "512", "-o", store, "--workers", "2"]
    wsisr("build-pairs", shared_data / "slides", *options)
    result = wsisr("verify", store)
    assert result.returncode == 1
    assert result.stdout.count("show the same tissue") == 6


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


def test_a_url_is_no_local_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wsisr", "inspect", "https://me:pw@host/a.svs?sig=1"])
    with pytest.raises(SystemExit) as stop:
        main()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "is a URL" in error
    assert "pw" not in error and "sig" not in error
