"""What a run writes as it goes: CSV, JSON lines, TensorBoard where it is installed."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_samples import make_store, small_request

from wsisr.errors import ConfigError
from wsisr.plugins import load_plugins
from wsisr.training import TrainRequest, train
from wsisr.training.curves import KNOWN_COLUMNS
from wsisr.training.logs import RowLog, read_rows
from wsisr.training.state import state_path, state_steps
from wsisr.training.trackers import TRACKERS

torch.set_num_threads(1)


def written(path: Path, steps: range, from_step: int = 0, **more: float) -> RowLog:
    log = RowLog(path, ("step", "loss"), from_step, lines=True)
    for step in steps:
        log.write({"step": step, "loss": step / 3, **more})
    return log


def test_rows_come_back_as_numbers_and_json_has_null_for_none(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    written(path, range(1, 3), colour=0.25).write({"step": 3, "loss": math.nan, "colour": 1.0})
    rows = read_rows(path)
    assert [row["step"] for row in rows] == [1, 2, 3] and rows[1]["loss"] == 0.666667
    assert rows[0]["colour"] == 0.25 and math.isnan(rows[2]["loss"])
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 1, "loss": 0.333333, "colour": 0.25} and lines[2]["loss"] is None


def test_rows_beyond_the_state_are_cut_and_written_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    written(path, range(1, 8), colour=0.5)
    with path.open("a") as file:
        file.write("8,2.6")
    written(path, range(5, 7), from_step=4, colour=0.5)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 5, 6]
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    written(path, range(3), from_step=0)
    written(path, range(2), from_step=0)
    assert [row["step"] for row in read_rows(path)] == [0, 1]
    written(path, range(0), from_step=0)
    assert not path.exists() and path.with_suffix(".jsonl").read_text() == ""
    with pytest.raises(ValueError, match="colour"):
        written(path, range(1, 2)).write({"step": 2, "loss": 1.0, "colour": 1.0})


@pytest.fixture
def request_with_board(tmp_path: Path) -> TrainRequest:
    store = make_store(tmp_path / "pairs.zarr", count=3)
    more = ("train.tensorboard=true", "train.log_every=2")
    return small_request(store, tmp_path / "run", *more, steps=10)


def test_without_tensorboard_nothing_is_left_in_the_way(
    request_with_board: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'wsisr\[tensorboard\]'"):
        train(request_with_board)
    without = (*request_with_board.assignments, "train.tensorboard=false")
    outcome, _ = train(replace(request_with_board, assignments=without, steps=1))
    assert outcome.state == "finished"


def test_tensorboard_gets_every_row_once_over_a_resume(request_with_board: TrainRequest) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, folder = train(request_with_board)
    last = state_path(folder / "checkpoints", state_steps(folder / "checkpoints")[0])
    for suffix in (".json", ".safetensors"):
        last.with_suffix(suffix).unlink()
    train(replace(request_with_board, resume=True, assignments=()))
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    found = {
        tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]
    }
    log = read_rows(folder / "log.csv")
    assert [step for step, _ in found["train/loss"]] == [2, 4, 6, 8, 10]
    assert [v for _, v in found["train/loss"]] == pytest.approx([r["loss"] for r in log], rel=1e-5)
    rows = read_rows(folder / "validation.csv")
    assert [step for step, _ in found["val-x4/psnr_rgb"]] == [row["step"] for row in rows]
    assert {tag.partition("/")[2] for tag in found} | {"step"} >= KNOWN_COLUMNS


MINE = """
from wsisr.training import Tracker, register_tracker

@register_tracker
class Mine(Tracker):
    name = "mine"

    def __init__(self, folder, from_step, config):
        assert config["model"]["name"] == "srcnn"
        self.file = open(folder / "mine.tsv", "a")

    def write(self, group, step, values):
        if BREAKS and step > 2:
            raise OSError("no network")
        print(group, step, sorted(values), sep="\\t", file=self.file)

    def close(self):
        self.file.close()
"""


@pytest.mark.parametrize("breaks", [False, True])
def test_a_tracker_of_ones_own_gets_the_rows_and_cannot_end_a_run(
    tmp_path: Path,
    breaks: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wsisr.plugins._GIVEN", {})
    file = tmp_path / "mine.py"
    file.write_text(MINE.replace("BREAKS", str(breaks)), encoding="utf-8")
    load_plugins([str(file)])
    try:
        store = make_store(tmp_path / "pairs.zarr", count=3)
        more = ("train.trackers=mine", "train.log_every=2")
        outcome, folder = train(small_request(store, tmp_path / "run", *more, steps=4))
    finally:
        TRACKERS.remove("mine")
    assert outcome.state == "finished"
    lines = (folder / "mine.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines if line.startswith("train")] == (
        [["train", "2"]] if breaks else [["train", "2"], ["train", "4"]]
    )
    assert ("tracker mine broke" in caplog.text) == breaks and "'loss'" in lines[-2 + breaks]


def test_an_unknown_tracker_is_named_before_anything_is_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "pairs.zarr", count=2)
    with pytest.raises(ConfigError, match=r"no tracker is named 'minee'.*--plugin"):
        train(small_request(store, tmp_path / "run", "train.trackers=minee", steps=1))
    assert not (tmp_path / "run").exists()
