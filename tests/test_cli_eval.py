"""`wsisr eval` as it is typed."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from evaluation_samples import write_run, write_store
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr.errors import WsisrError


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        write_store(folder / "pairs.zarr", per_slide=1)
        write_run(folder / "runs/srcnn-x4")
        write_run(folder / "runs/liif", "liif", scale=None, origin="simulated:bicubic")

    return made_once("cli-eval", make)


def test_the_command_of_the_mission_word_for_word(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    result = CliRunner().invoke(app, ["eval", "--scales", "2,3,4,6,8"], catch_exceptions=False)
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.strip()}
    simulated = result.stdout.partition("LR stored-level")[0].splitlines()
    table = {line.split("  ")[0]: re.split(r"  +", line)[1:] for line in simulated if line.strip()}
    assert all(cell != "-" for cell in table["bicubic"]) and len(table["bicubic"]) == 5
    assert all(cell != "-" for cell in table["liif"])
    assert [cell == "-" for cell in table["srcnn-x4"]] == [True, True, False, True, True]
    assert "‡" in table["liif"][3] and "‡" not in table["liif"][1]
    assert "†" in lines and "‡" in lines
    names = {path.name for path in (made / "eval").iterdir()}
    assert {"images.csv", "results.json", "tables.md", "tables.tex", "index.html", "cost.csv",
            "figures"} <= names  # fmt: skip


def test_one_model_one_source_no_extras(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(made)
    words = ["eval", "--scales", "4", "--model", "srcnn-x4", "--lr-source", "native"]
    words += ["--figures", "0", "--no-cost", "--limit", "1", "--protocol", "hat-y"]
    words += ["--protocol", "wsisr", "--metrics", "colour, spectrum", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0 and "PSNR-Y, dB" in result.stdout
    document = json.loads((tmp_path / "out/results.json").read_text())
    assert [c["origin"] for c in document["columns"]] == ["stored-level"]
    assert [s["name"] for s in document["scores"]][:4] == [
        "psnr_y",
        "ssim_y",
        "psnr_rgb@wsisr",
        "ssim_rgb@wsisr",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scales", "two"], "give numbers"),
        (["--model", "nobody"], "no such run"),
        (["--split", "val"], "nothing in its val split"),
        (["--data", "none.zarr"], "none.zarr"),
        (["--device", "tpu"], "--device tpu"),
    ],
)
def test_bad_usage_is_said_in_a_sentence(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.chdir(made)
    result = CliRunner().invoke(app, ["eval", *words, "-o", str(tmp_path / "out")])
    assert result.exit_code != 0 and message in str(result.exception)
    assert not (tmp_path / "out").exists()
    assert isinstance(result.exception, (WsisrError, OSError))
