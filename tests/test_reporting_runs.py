"""Pages of training runs: whatever state they are in."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reporting_samples import write_run

from wsisr.errors import ConfigError
from wsisr.inference.trained import open_run
from wsisr.reporting.run_facts import read_run
from wsisr.reporting.run_page import flatten, write_run_report
from wsisr.reporting.runs_page import validation_charts, write_runs_report
from wsisr.training.curves import read_columns, run_curves, write_curves
from wsisr.words import duration


def page(folder: Path) -> str:
    return write_run_report(folder).read_text(encoding="utf-8")


def test_a_finished_run_shows_its_best_step_against_bicubic(tmp_path: Path) -> None:
    html = page(write_run(tmp_path / "edsr-x4"))
    assert "<dd>29.00</dd>" in html and "<dd>+3.00</dd>" in html  # step 400, bicubic 26
    assert "<dd>158,979</dd>" in html
    assert "<dd>50 s</dd>" in html  # 500 steps of 98 + 2 ms
    assert "simulated:bicubic" in html
    assert "few &lt;pairs&gt;" in html and "p2 &lt;b&gt;" in html
    assert "Not for &lt;diagnosis&gt;." in html
    assert "train.lr" in html and "0.002" in html
    assert html.count("<img ") == 3
    assert "Interrupted." not in html


def test_curves_are_saved_as_pictures_with_the_terms_of_the_recipe(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "edsr-x4")
    page(folder)
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names == {
        "psnr-rgb", "psnr-y", "ssim-rgb", "loss", "learning-rate", "gradient", "speed", "times",
        "memory", "term-perceptual", "charts",
    }  # fmt: skip
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".pdf", ".svg"}


def test_skipped_and_interrupted_runs_say_what_to_do(tmp_path: Path) -> None:
    html = page(write_run(tmp_path / "a", state="interrupted", step=300))
    assert "It stopped at step 300 of 500" in html and "--resume" in html
    assert "1 steps had a loss or gradient that was not finite" in html
    assert "the 200 steps that are left take" in html
    assert "No model has been saved yet." in html


def test_a_model_below_bicubic_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", rows=0, best=None)
    assert "worse than bicubic" in page(folder)


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", state="running", step=0, best=None)
    for name in ("log.csv", "validation.csv", "card.md"):
        (folder / name).unlink()
    for path in (folder / "samples").iterdir():
        path.unlink()
    html = page(folder)
    assert "Nothing has been logged yet." in html and "No samples have been drawn yet." in html


def test_half_lines_and_words_in_logs_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,0.5\n2,nan\n3,x\n4,0.")
    columns = read_columns(path)
    assert columns["step"].tolist() == [1, 2, 3, 4]
    assert np.isnan(columns["loss"][1:3]).all()
    path.write_text("step,loss\n1,0.5\n2")
    assert read_columns(path)["step"].tolist() == [1]
    assert read_columns(tmp_path / "none.csv") == {}


def test_curves_leave_out_the_untrained_model(tmp_path: Path) -> None:
    facts = read_run(open_run(write_run(tmp_path / "a")))
    found = run_curves("edsr", facts.log, facts.validation)
    assert "edsr x4: 5 points" in found["psnr-rgb"].description
    assert "The untrained model of step 0 is not drawn." in page(tmp_path / "a")
    early = read_run(open_run(write_run(tmp_path / "b", rows=1, step=100)))
    alone = run_curves("edsr", early.log, early.validation)["psnr-rgb"].description
    assert "edsr x4: 1 points, lowest 26" in alone  # step 100; that of step 0 is 25
    at_start = read_run(open_run(write_run(tmp_path / "c", rows=0, step=0, best=None)))
    assert (
        "lowest 25" in run_curves("edsr", at_start.log, at_start.validation)["psnr-rgb"].description
    )
    assert "step 0 is not drawn" not in page(tmp_path / "c")


def test_the_run_has_its_curves_in_one_picture(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    write_curves(folder, "edsr")
    with Image.open(folder / "curves.png") as picture:
        assert picture.size == (840, 2 * 580)


def test_a_folder_of_runs_is_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "edsr-x4")
    write_run(tmp_path / "runs" / "rcan-x4", model="rcan", lr_origin="stored-level")
    html = write_runs_report(tmp_path / "runs").read_text(encoding="utf-8")
    assert "2 training runs" in html and "Different data." in html
    assert ">edsr-x4<" in html and ">rcan-x4<" in html and ">+3.00<" in html
    runs = [read_run(open_run(tmp_path / "runs" / name)) for name in ("edsr-x4", "rcan-x4")]
    origins = [one.title.rpartition(" ")[2] for one in validation_charts(runs)]
    assert origins == ["simulated:bicubic", "stored-level"]  # never in one chart
    with pytest.raises(ConfigError, match="no training run"):
        write_runs_report(tmp_path)


def test_settings_are_flat_and_durations_short() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": None}) == [
        ("a.b", "1"),
        ("a.c", "{}"),
        ("d", "None"),
    ]
    assert duration(50) == "50 s" and duration(600) == "10 min" and duration(36000) == "10.0 h"
    assert duration(float("nan")) is None and duration(0) is None
