"""How the command line reads: help, warnings, progress, hints, and what doctor finds."""

import json
import logging
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import ROOT
from test_cli import Command, command
from training_samples import make_store, small_request
from typer.testing import CliRunner
from wsisr_cli.main import Sentences, app
from wsisr_cli.progress import console_reporter
from wsisr_cli.usage import MORE

from wsisr import __version__
from wsisr.checkup import doctor
from wsisr.progress import ProgressEvent
from wsisr.testing import SlideSpec, write_slide
from wsisr.training import train

__all__ = ["command"]


def every_command() -> list[tuple[str, Any]]:
    """Words and command of all that can be run."""
    program: Any = typer.main.get_command(app)
    found = [("wsisr", program)]
    program.list_commands(None)  # each is imported when it is asked for
    for name, one in program.commands.items():
        found += [(f"wsisr {name}", one)]
        found += [(f"wsisr {name} {n}", c) for n, c in getattr(one, "commands", {}).items()]
    return found


def test_help_is_a_screen_of_options_in_words_that_people_write() -> None:
    commands = every_command()
    assert len(commands) > 35
    for words, one in commands:
        result = CliRunner().invoke(app, [*words.split()[1:], "-h"])
        assert result.exit_code == 0, words
        shown = result.output.partition("\nOptions:\n")[2]
        options = re.findall(r"^  -\S+", shown.partition("\n\n")[0], re.MULTILINE)
        assert 1 <= len(options) <= 15, (words, len(options))
        more = [p for p in one.params if getattr(p, "rich_help_panel", None) == MORE]
        assert ("\nMore:\n" in result.output) == bool(more), words
        assert not re.search(r"<[a-zA-Z]|range>|x>=|list\[|\bTEXT\b", result.output), words


def test_one_command_has_all_its_options_under_three_headings() -> None:
    said = CliRunner().invoke(app, ["train", "--help"]).output
    parts = re.findall(r"^(\S[\w -]*):$", said, re.MULTILINE)
    assert parts == ["Options", "With --task", "More"]
    assert re.search(r"--steps N +Optimiser steps\.\s+\[from 1\]", said)
    assert re.search(r"--set KEY=VALUE", said)


def test_the_program_says_its_version_and_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wsisr", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_a_shell_completes_commands_and_choices() -> None:
    def complete(line: str) -> list[str]:
        env = {"_WSISR_COMPLETE": "complete_bash", "COMP_WORDS": line}
        env["COMP_CWORD"] = str(len(line.split()) - (not line.endswith(" ")))
        return CliRunner().invoke(app, [], env=env, prog_name="wsisr").output.split()

    assert complete("wsisr build") == ["build-pairs"]
    assert complete("wsisr build-pairs --phase f") == ["finish"]


def test_warnings_are_sentences_and_say_whose_they_are() -> None:
    def said(name: str, level: int) -> str:
        record = logging.LogRecord(name, level, "f.py", 1, "%d of 3 are lost.", (2,), None)
        return Sentences().format(record)

    assert said("wsisr.locks", logging.WARNING) == "wsisr: warning: 2 of 3 are lost."
    assert said("tifffile", logging.ERROR) == "wsisr: error: tifffile says: 2 of 3 are lost."
    assert said("wsisr.locks", logging.INFO) == "wsisr.locks: 2 of 3 are lost."


def test_lines_of_progress_tell_how_much_time_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([100.0, 101.0, 160.0, 220.0])
    monkeypatch.setattr("wsisr_cli.progress.time.monotonic", lambda: next(times))
    with console_reporter() as report:
        # Two were there when it began: two more take a minute.
        for done, item in ((2, ""), (3, "b"), (4, "c"), (8, "d")):
            report(ProgressEvent(stage="scan", done=done, total=8, unit="slide", item=item))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "scan: 2/8 slides",
        "scan: 4/8 slides, c, about 2 min left",
        "scan: 8/8 slides, d",
    ]


def test_any_key_of_a_manifest_is_set_from_the_command_line(
    tmp_path: Path, command: Command
) -> None:
    write_slide(tmp_path / "a.tiff", SlideSpec(width_px=1024, height_px=1024))
    options = ["--hr", "40x", "--lr", "10x", "--size", "128", "-o", "p.zarr"]
    more = ["--set", "tissue.min_fraction=0.25", "--set", "patient_from=(.)[.]tiff"]
    code, said, told = command("build-pairs", "a.tiff", *options, *more)
    assert code in (0, 1, 2) and "by --patient-from" in said, told
    _, said, _ = command("manifests", "show", "default")
    assert json.loads(said)["tissue"]["min_fraction"] == 0.5
    for wrong, why in (
        (["--set", "tissue.min_fractoin=1"], "did you mean 'min_fraction'"),
        (["--set", "size"], "write key=value"),
        (["--set", "size=64", "--set", "size=32"], "given twice"),
        (["--size", "64", "--set", "size=32"], "say the same"),
    ):
        code, _, told = command("build-pairs", "a.tiff", "-o", "q.zarr", *wrong)
        assert code == 2 and why in " ".join(told.split()), told


def test_inspect_tells_a_run_from_a_folder_of_slides(tmp_path: Path, command: Command) -> None:
    store = make_store(tmp_path / "pairs.zarr")
    train(small_request(store, tmp_path / "run", steps=1))
    code, said, _ = command("inspect", "run")
    assert code == 0 and "srcnn x4" in said and "finished, step 1 of 1" in said
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "results.json").write_text("{}")
    code, _, told = command("inspect", "eval")
    assert code == 2 and "wsisr report eval" in told


def test_two_installations_of_opencv_fail_with_their_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"opencv-python-headless": "4.10", "opencv-contrib-python": "4.9"}
    monkeypatch.setattr(doctor, "installed_version", there.get)
    check = doctor._opencv()
    assert check.status == "FAIL"
    assert check.fix == (
        "pip uninstall -y opencv-python-headless opencv-contrib-python && "
        "pip install opencv-python-headless==4.10"
    )
    monkeypatch.setattr(doctor, "installed_version", {"opencv-python": "4.9"}.get)
    assert doctor._opencv().status == "PASS"


def test_install_hints_name_extras_that_there_are() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    places = [*(ROOT / "wsisr").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = set()
    for path in places:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r"wsisr\[([\w-]+)\]", text))
        named |= set(re.findall(r"extras? `([\w-]+)`", text))
    assert len(named) > 6 and named <= extras, named - extras
