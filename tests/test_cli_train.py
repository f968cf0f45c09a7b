"""`wsisr train` and `wsisr bench STORE` as a user types them; every wrong input is one sentence."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from training_samples import QUICK, SMALL, make_store
from wsisr_cli import main as cli

from wsisr.degradation import parse_degradation
from wsisr.inference import open_run

torch.set_num_threads(1)
Command = Callable[..., tuple[int, str, str]]
FAST = [part for setting in (*SMALL, *QUICK) for part in ("--set", setting)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("cli") / "pairs.zarr")


@pytest.fixture
def wsisr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line in an empty working folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["wsisr", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


def test_train_needs_nothing_but_a_model(built: Path, wsisr: Command) -> None:
    shutil.copytree(built, "pairs.zarr")
    code, out, err = wsisr("train", "--model", "srcnn", "--steps", "3", "--device", "cpu", *FAST)
    assert code == 0, err
    first = err.splitlines()[0]
    assert first.startswith("Preset tiny (chosen: no GPU here)") and "times the arithmetic" in first
    assert "paper:" in first and "recommended:" in first
    run = open_run("runs/srcnn-x4")
    assert run.state == "finished" and run.store["path"] == "pairs.zarr"
    assert "LR 10x (stored-level)" in err and "patches in memory" in err
    assert "runs/srcnn-x4: 3 steps, best PSNR-RGB" in out and "card.md" in out
    again, _, err = wsisr("train", "--model", "srcnn", *FAST)
    assert again == 2 and "go on with it by --resume" in err and err.count("\n") == 1
    code, out, err = wsisr("train", "--model", "srcnn", "--resume", "--steps", "5")
    assert code == 0 and "Going on with runs/srcnn-x4" in err
    assert open_run("runs/srcnn-x4").step == 5


def test_no_file_of_a_run_or_an_evaluation_says_where_anything_lay(
    built: Path, wsisr: Command, tmp_path: Path
) -> None:
    place = tmp_path / "Kowalska"
    shutil.copytree(built, place / "pairs.zarr")
    profile = parse_degradation("jpeg:quality=40").model_copy(update={"name": "our-scanner"})
    profile.write(place / "scanner.json")
    shared = ["train", "--model", "srcnn", "--data", str(place / "pairs.zarr"), "--device", "cpu"]
    lr = ["--lr-source", str(place / "scanner.json")]
    for name, more in (("a", []), ("b", [*lr, "--init-from", str(place / "runs/a")])):
        folder = str(place / "runs" / name)
        code, _, err = wsisr(*shared, "-o", folder, "--steps", "1", *more, *FAST)
        assert code == 0, err
    assert open_run(place / "runs/b").lr_origin == "simulated:our-scanner"
    (place / "scanner.json").rename(place / "moved.json")
    again = [*shared, "-o", str(place / "runs/b"), "--resume"]
    code, _, err = wsisr(*again, "--steps", "2")
    assert code == 0, err
    code, _, err = wsisr(*again, "--steps", "3", "--lr-source", str(place / "moved.json"))
    assert code == 0 and open_run(place / "runs/b").step == 3, err
    parse_degradation("jpeg:quality=41").write(place / "other.json")
    code, _, err = wsisr(*again, "--steps", "4", "--lr-source", str(place / "other.json"))
    assert code == 2 and "lr_source" in err
    code, _, err = wsisr(
        "eval", "--scales", "4", "--data", str(place / "pairs.zarr"), "--model",
        str(place / "runs/b"), "--lr-source", str(place / "moved.json"), "-o", str(place / "eval"),
        "--no-cost", "--figures", "0",
    )  # fmt: skip
    assert code == 0, err
    results = json.loads((place / "eval/results.json").read_text())
    assert (results["store"]["path"], results["lr_source"]) == ("pairs.zarr", "moved.json")
    for file in sorted([*(place / "runs").rglob("*"), *(place / "eval").rglob("*")]):
        if file.is_file():
            assert b"Kowalska" not in file.read_bytes(), file


def test_arbitrary_scale_models_have_no_scale_in_their_name(built: Path, wsisr: Command) -> None:
    code, _, err = wsisr(
        "train", "--model", "liif", "--data", str(built), "--preset", "tiny", "--steps", "1",
        "--set", "data.crop_lr_px=8", "--set", "data.sample_px=16", "--set", "val.count=1",
    )  # fmt: skip
    assert code == 0, err
    run = open_run("runs/liif")
    assert run.scale is None and run.scale_range == (1.0, 4.0)
    assert run.lr_origin == "simulated:bicubic"


def test_show_config_and_schema_print_what_they_say(wsisr: Command) -> None:
    code, out, _ = wsisr("train", "--model", "masrnet", "--preset", "paper", "--show-config")
    assert code == 0 and "# warning: masrnet: the paper halves the rate" in out
    assert yaml.safe_load(out)["optim"]["every_steps"] == 2000
    code, out, _ = wsisr("train", "--json-schema")
    assert code == 0 and json.loads(out)["title"] == "TrainConfig"


def test_a_shown_config_is_a_config_file(built: Path, wsisr: Command) -> None:
    _, out, _ = wsisr("train", "--model", "srcnn", "--preset", "tiny", "--show-config", *FAST)
    Path("mine.yaml").write_text(out)
    code, _, err = wsisr(
        "train", "--model", "srcnn", "--config", "mine.yaml", "--data", str(built), "--dry-run"
    )
    assert code == 0, err
    assert not Path("runs").exists()


def test_synthetic_times_the_model_alone(wsisr: Command) -> None:
    code, out, err = wsisr("train", "--model", "srcnn", "--synthetic", "--steps", "2", *FAST)
    assert code == 0, err
    assert "srcnn, model alone:" in out and "samples/s" in out and not Path("runs").exists()


def test_bench_times_a_store(built: Path, wsisr: Command) -> None:
    code, out, err = wsisr("bench", str(built))
    assert code == 0, err
    assert "crops, this thread" in out and "zarr-python" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "none.zarr"], "none.zarr is not there: build it with wsisr build-pairs"),
        (["--data", "."], r"\. is no pair store, for it holds no zarr\.json"),
        (["--data", "file"], "file is no pair store"),
        (["--scale", "8", "--lr-source", "native"], "has no array x8 below 40x; it has 40x"),
        (["--scale", "5"], "scale 5: .* products of 2 and 3 only"),
        (["--set", "data.crop_lr_px=48"], "needs HR patches of 192 px; .* set data.crop_lr_px=16"),
        (["--set", "data.crop=8"], "did you mean 'crop_lr_px'"),
        (["--lr-source", "bicubc"], "did you mean 'bicubic'"),
        (["--preset", "tinny"], "did you mean 'tiny'"),
        (["--model", "srcn"], "did you mean 'srcnn'"),
        (["--config", "none.yaml"], "no such configuration file"),
        (["--init-from", "none"], "nothing of that name"),
        (["--device", "cuda"], "no GPU here"),
        (["--device", "gpu"], "no such device"),
        (["--set", "train.precision=fp16"], "needs a GPU"),
        (["-o", "file/run"], r"file/run cannot be written \(Not a directory\)"),
        (["-o", "full"], "is there and is no run"),
    ],
)
def test_bad_input_is_one_sentence(
    built: Path, wsisr: Command, words: list[str], said: str
) -> None:
    Path("file").touch()
    Path("full").mkdir()
    Path("full/note.txt").touch()
    code, _, err = wsisr(
        "train", "--model", "srcnn", "--preset", "tiny", "--data", str(built),
        "--set", "data.crop_lr_px=8", *words,
    )  # fmt: skip
    assert code == 2
    import re

    last = err.splitlines()[-1]
    assert last.startswith("wsisr: ") and re.search(said, last), err
    assert "Traceback" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_said(built: Path, wsisr: Command) -> None:
    Path("closed").mkdir(mode=0o500)
    code, _, err = wsisr("train", "--model", "srcnn", "--data", str(built), "-o", "closed/run")
    assert code == 2 and "cannot be written" in err


def test_an_interrupt_exits_with_130(
    built: Path, wsisr: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsisr.training import engine

    monkeypatch.setattr(engine, "_figures", lambda _: __import__("signal").raise_signal(2) or "")
    code, out, err = wsisr("train", "--model", "srcnn", "--data", str(built), *FAST)
    assert code == 130 and "with --resume goes on" in out, err
    assert open_run("runs/srcnn-x4").state == "interrupted"
