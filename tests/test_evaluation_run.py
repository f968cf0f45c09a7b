"""Evaluations end to end: resumable, without leaks, and equal to what the parts say."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_samples import settings, write_run, write_store

from wsisr.degradation import crop_to_scale, degrade
from wsisr.errors import ConfigError, DegradationError
from wsisr.evaluation import Task, evaluate, of_image
from wsisr.evaluation.columns import read_pair
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.plan import prepare
from wsisr.evaluation.results import read_results, read_rows
from wsisr.evaluation.run import run
from wsisr.inference.engine import WindowBatch
from wsisr.inference.network import Network
from wsisr.metrics import psnr
from wsisr.models import create_model, load_model, save_model
from wsisr.models.swinir import Swinir
from wsisr.models.weights import load_model_and_config
from wsisr.progress import ProgressEvent
from wsisr.reporting.evaluation_page import write_evaluation_report
from wsisr.reporting.writing import write_report
from wsisr.store import open_pairs
from wsisr.training.plan import plan_data


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        write_store(folder / "pairs.zarr")
        write_run(folder / "runs/srcnn-x4")
        write_run(folder / "runs/srcnn-x2", scale=2, origin="simulated:bicubic")

    return made_once("evaluation-run", make)


@pytest.fixture
def workplace(made: Path, tmp_path: Path) -> Path:
    (tmp_path / "pairs.zarr").symlink_to(made / "pairs.zarr")
    shutil.copytree(made / "runs", tmp_path / "runs")
    return tmp_path


def test_every_model_stands_in_its_own_columns_and_origins_never_mix(workplace: Path) -> None:
    results = evaluate(settings(workplace, scales=(2.0, 2.4, 4.0)))
    shown = {
        (t.origin, g.label): sorted(cells)
        for t in results.tables
        if t.score["name"] == "psnr_rgb"
        for g, cells in t.lines
    }
    assert shown == {
        ("simulated:bicubic", "bicubic"): [2.0, 2.4, 4.0],
        ("simulated:bicubic", "srcnn-x2"): [2.0],
        ("simulated:bicubic", "srcnn-x4"): [4.0],
        ("stored-level", "bicubic"): [2.0, 4.0],
        ("stored-level", "srcnn-x2"): [2.0],
        ("stored-level", "srcnn-x4"): [4.0],
    }
    marks = {(t.origin, g.label): c.marks for t in results.tables for g, cs in t.lines
             for c in cs.values()}  # fmt: skip
    assert "†" in marks["simulated:bicubic", "srcnn-x4"]
    assert "†" not in marks["stored-level", "srcnn-x4"]
    assert "†" in marks["stored-level", "srcnn-x2"]
    assert any("srcnn-x2 was trained on LR of origin" in n for n in results.document["notes"])


def test_x1_is_evaluated_where_there_is_something_to_restore(workplace: Path) -> None:
    save_model(create_model("esrgan", scale=1, preset="tiny", unshuffle=True), workplace / "x1")
    wanted = {"scales": (1.0,), "models": (str(workplace / "x1"),), "limit": 1}
    results = evaluate(settings(workplace, lr_source="jpeg:quality=40", **wanted))
    assert not results.failed
    shown = {g.label: cells[1.0] for g, cells in results.tables[0].lines}
    assert set(shown) == {"bicubic", "x1"}
    store = open_pairs(workplace / "pairs.zarr")
    plan = prepare(settings(workplace, lr_source="jpeg:quality=40", **wanted))
    lr, hr = read_pair(store, plan.columns[0], plan.samples, 0)
    assert lr.shape == hr.shape and not lr.equal(hr)
    with pytest.raises(DegradationError, match="x1 by bicubic: LR is HR itself"):
        prepare(settings(workplace, **wanted))


def test_bicubic_scores_are_those_of_the_parts(workplace: Path) -> None:
    evaluate(settings(workplace, scales=(2.4,), models=("bicubic",)))
    _, rows = read_rows(workplace / "eval/images.csv")
    assert [(r.slide, r.row) for r in rows] == [(s, i) for s in "cd" for i in range(3)]
    hr = torch.from_numpy(open_pairs(workplace / "pairs.zarr").patch("c", 1, "40x"))
    hr = hr.permute(2, 0, 1)[None]
    lr, target = degrade(hr, "bicubic", 2.4), crop_to_scale(hr, 2.4)
    sr = create_model("bicubic")(lr.float() / 255, size=tuple(target.shape[-2:]))
    # Single pixels whose value is a half may be rounded the other way by another summation.
    assert rows[1].scores["psnr_rgb"] == pytest.approx(psnr(sr, target, crop=3)[0], abs=1e-3)


def test_an_interrupted_run_goes_on_to_the_same_bytes(workplace: Path) -> None:
    wanted = settings(workplace, output=workplace / "whole")
    run(prepare(wanted))

    def stop(event: ProgressEvent) -> None:
        if event.stage == "eval" and event.done >= 7:
            raise KeyboardInterrupt

    partly = settings(workplace)
    with pytest.raises(KeyboardInterrupt):
        run(prepare(partly), stop)
    path = workplace / "eval/images.csv"
    before = path.read_bytes()
    assert before.endswith(b"\n") and 7 <= before.count(b"\n") - 1 < 24
    with path.open("ab") as file:
        file.write(b"c,patient-c,gla")
    run(prepare(partly))
    assert path.read_bytes() == (workplace / "whole/images.csv").read_bytes()
    assert path.read_bytes().startswith(before)


def test_several_devices_share_out_the_batches_and_change_no_byte(workplace: Path) -> None:
    one, two = (
        settings(workplace, output=workplace / name, device=device)
        for name, device in (("one", "cpu"), ("two", "cpu,cpu"))
    )
    for wanted in (one, two):
        run(prepare(wanted))
    assert (two.output / "images.csv").read_bytes() == (one.output / "images.csv").read_bytes()
    assert read_results(two.output)["tiling"] == read_results(one.output)["tiling"]


def test_what_is_done_is_not_done_again(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(prepare(settings(workplace)))
    import wsisr.evaluation.run as module

    def never(*args: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(module, "score_batch", never)
    run(prepare(settings(workplace)))


def test_a_retrained_model_is_scored_again_alone(workplace: Path) -> None:
    run(prepare(settings(workplace)))
    _, before = read_rows(workplace / "eval/images.csv")
    write_run(workplace / "runs/srcnn-x4", seed=5)
    said: list[str] = []
    run(prepare(settings(workplace)), lambda event: said.append(event.message))
    _, after = read_rows(workplace / "eval/images.csv")
    assert any("srcnn-x4: other weights than before; 12 rows again" in text for text in said)
    kept = [r for r in before if r.run == "bicubic"]
    assert [r for r in after if r.run == "bicubic"] == kept and len(after) == len(before)
    assert {r.key for r in after if r.run == "srcnn-x4"}.isdisjoint(r.key for r in before)


def test_other_settings_or_a_foreign_folder_are_refused(workplace: Path) -> None:
    run(prepare(settings(workplace, models=("bicubic",))))
    with pytest.raises(ConfigError, match=r"self_ensemble False -> True.*--overwrite"):
        run(prepare(settings(workplace, models=("bicubic",), self_ensemble=True)))
    run(prepare(settings(workplace, models=("bicubic",), limit=2, overwrite=True)))
    assert len(read_rows(workplace / "eval/images.csv")[1]) == 4
    with pytest.raises(ConfigError, match="no evaluation"):
        run(prepare(settings(workplace, output=workplace / "runs")))
    with pytest.raises(ConfigError, match="no evaluation and is not replaced"):
        run(prepare(settings(workplace, output=workplace / "runs", overwrite=True)))


@pytest.mark.parametrize("model", ["srcnn", "cwtnet"])
def test_nothing_of_hr_but_the_lr_reaches_a_network(made: Path, tmp_path: Path, model: str) -> None:
    """LR fixed, HR exchanged: the same SR, bit for bit."""
    write_store(tmp_path / "pairs.zarr", hr_seed=7, lr_of=made / "pairs.zarr")
    write_run(tmp_path / "runs/net", model)
    outputs = []
    for data in (made, tmp_path):
        plan = prepare(settings(tmp_path, data=data / "pairs.zarr", lr_source="native", limit=2))
        column = plan.columns[0]
        lr, hr = read_pair(plan.store, column, column.samples[:1], 0)
        outputs.append((lr, hr, Engines(plan).predict(plan.entries[1], column, lr)))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert not torch.equal(outputs[0][1], outputs[1][1])
    assert torch.equal(outputs[0][2], outputs[1][2])


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_a_run_that_diverged_is_a_row_with_its_reason(
    made: Path, tmp_path: Path, value: float
) -> None:
    """Clamped, infinite output is white: perfect on white HR, and better than none elsewhere."""
    write_run(tmp_path / "runs/bad")
    model = load_model(tmp_path / "runs/bad/best")
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.fill_(3e38)  # finite weights, whose sums are not
        model.net.conv3.weight.fill_(value)
    save_model(model, tmp_path / "runs/bad/best")
    results = evaluate(settings(tmp_path, data=made / "pairs.zarr", lr_source="native"))
    assert [g.label for g, _ in results.tables[0].lines] == ["bicubic"] and not results.pairs
    assert results.failed["bad"].startswith("output with inf or NaN on 6 of 6 images, the first c")
    assert results.tables[0].columns[4.0].images == 6
    text = (tmp_path / "eval/tables.md").read_text()
    assert "| bad | failed |" in text and "bad failed and has no part in any mean" in text
    _, rows = read_rows(tmp_path / "eval/images.csv")
    lost = [row for row in rows if row.run == "bad"]
    assert len(lost) == 6 and all(np.isnan(list(row.scores.values())).all() for row in lost)
    page = write_evaluation_report(tmp_path / "eval", tmp_path / "page.html").read_text()
    assert "bad failed and has no part" in page


def test_weights_that_are_no_numbers_are_a_row_without_a_path(made: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "runs/bad")
    model = load_model(tmp_path / "runs/bad/best")
    with torch.no_grad():
        next(model.net.parameters()).fill_(float("nan"))
    save_model(model, tmp_path / "runs/bad/best")
    results = evaluate(settings(tmp_path, data=made / "pairs.zarr", lr_source="native"))
    assert results.failed["bad"].startswith("bad/best/model.safetensors: net.conv1.weight holds")
    assert str(tmp_path) not in (tmp_path / "eval/tables.md").read_text()


def test_an_oracle_is_computed_apart_and_no_table_counts_it(workplace: Path) -> None:
    shutil.rmtree(workplace / "runs")
    write_run(workplace / "runs/cwt", "cwtnet")
    results = evaluate(
        settings(workplace, reference="oracle", limit=1, lr_source="native"),
    )
    _, rows = read_rows(workplace / "eval/images.csv")
    fed = [r for r in rows if r.reference == "oracle"]
    plain = [r for r in rows if r.run == "cwt"]
    assert len(fed) == 1 and fed[0].run == "cwt (oracle)"
    assert fed[0].scores != plain[0].scores
    assert all("oracle" not in g.label for t in results.tables for g, _ in t.lines)
    assert any(note.startswith("ORACLE") for note in results.document["notes"])


def test_training_patients_in_the_test_are_refused_by_name(workplace: Path) -> None:
    write_run(workplace / "runs/bad", patients=("patient-a", "patient-c"), groups=("glass-d",))
    with pytest.raises(
        ConfigError, match=r"bad was trained on patients patient-c and groups glass"
    ):
        prepare(settings(workplace))
    results = evaluate(settings(workplace, allow_leak=True, models=("bad",)))
    assert any(text.startswith("LEAKY") for text in results.document["stamps"])
    for name in ("tables.md", "tables.tex"):
        assert "LEAKY" in (workplace / "eval" / name).read_text()
    prepare(settings(workplace, models=("srcnn-x4",)))


def test_a_random_patch_split_is_stamped(tmp_path: Path) -> None:
    write_store(tmp_path / "pairs.zarr", manifest={"split": {"kind": "paper-random"}})
    plan = prepare(settings(tmp_path))
    assert plan.stamps[0].startswith("LEAKY: the manifest splits patches at random")
    assert any("bicubic alone" in note for note in plan.notes)


def test_a_store_without_a_test_says_what_is_missing(tmp_path: Path) -> None:
    write_store(tmp_path / "pairs.zarr", test=())
    with pytest.raises(
        ConfigError, match=r"nothing in its test split.*three patients.*--split val"
    ):
        prepare(settings(tmp_path))
    plan = prepare(settings(tmp_path, split="train"))
    assert plan.stamps == ("TRAINING: models have seen these patches; this is no test",)


def test_a_task_is_one_more_column(workplace: Path) -> None:
    tasks = [
        of_image("brightness", lambda image: float(image.mean())),
        Task(name="place", score=lambda image, sample: float(sample.row), higher_is_better=False),
    ]
    results = evaluate(settings(workplace, models=("bicubic",), lr_source="native"), tasks=tasks)
    names, rows = read_rows(workplace / "eval/images.csv")
    assert names[-2:] == ("brightness", "place")
    assert [r.scores["place"] for r in rows] == [0.0, 1.0, 2.0] * 2
    assert all(100 < r.scores["brightness"] < 180 for r in rows)
    assert results.tables[-1].score["title"] == "place"


def test_results_say_everything_that_was_resolved(workplace: Path) -> None:
    evaluate(settings(workplace, scales=(4.0,), protocols=("wsisr", "pirm")))
    document = read_results(workplace / "eval")
    column = next(c for c in document["columns"] if c["origin"] == "simulated:bicubic")
    assert column["scores"]["psnr_y"] == "wsisr: psnr_y[crop=4,uint8]"
    assert column["scores"]["psnr_y_rounded@pirm"] == "pirm: psnr_y_rounded[crop=4,uint8]"
    assert column["degradation"]["stages"][0]["kind"] == "bicubic"
    net = next(e for e in document["entries"] if e["name"] == "srcnn-x4")
    assert len(net["weights_sha256"]) == 64
    assert document["ceilings"]["jpeg"]["scores"]["psnr_rgb"] > 20
    assert document["state"] == "complete"
    text = (workplace / "eval/results.json").read_text()
    assert "NaN" not in text and "Infinity" not in text and json.loads(text)


def test_the_csv_is_plain_and_whole(workplace: Path) -> None:
    evaluate(settings(workplace, models=("srcnn-x4",)))
    with (workplace / "eval/images.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * 2 * 6
    first = lines[0]
    assert (first["slide"], first["patient"], first["label"]) == ("c", "patient-c", "normal")
    assert (first["model"], first["seed"], first["scale"]) == ("bicubic", "", "4")
    assert np.isfinite([float(line["ssim_y"]) for line in lines]).all()


def test_metrics_that_patches_are_too_small_for_are_refused_at_once(workplace: Path) -> None:
    with pytest.raises(ConfigError, match=r"96 px.*blocks"):
        prepare(settings(workplace, metrics=("niqe",)))
    with pytest.raises(ConfigError, match="no metric 'sharpnes'"):
        prepare(settings(workplace, metrics=("sharpnes",)))
    plan = prepare(settings(workplace, metrics=("sharpness", "spectrum", "colour")))
    assert [c.name for c in plan.scorer.columns[-3:]] == [
        "sharpness_error",
        "spectrum_error",
        "colour_error",
    ]


def _without_numbers(folder: Path) -> None:
    """A run that diverged: its weights are there, its output is not."""
    write_run(folder, "edsr")
    model, config = load_model_and_config(folder / "best")
    last = next(name for name in reversed(model.state_dict()) if name.endswith("bias"))
    with torch.no_grad():
        model.get_parameter(last).fill_(torch.inf)
    save_model(model, folder / "best", config["extra"])


def test_broken_runs_are_rows_with_their_reason_and_the_others_go_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = workplace / "runs"
    (runs / "cut").mkdir()
    (runs / "cut/run.json").write_text('{"format": "wsisr-run", "format_ver')
    stranger = write_run(runs / "stranger")
    for name in ("run.json", "best/config.json"):
        text = (stranger / name).read_text().replace("srcnn", "mynet")
        (stranger / name).write_text(text)
    (write_run(runs / "empty") / "best/model.safetensors").write_bytes(b"")
    _without_numbers(runs / "diverged")
    write_run(runs / "raising", "swinir", seed=3)
    monkeypatch.setattr(Swinir, "forward", lambda net, x: list(x)[99])
    said: list[str] = []
    wanted = settings(workplace, lr_source="native", limit=2)
    results = evaluate(wanted, lambda event: said.append(event.message))
    failed = dict(results.failed)
    assert sorted(failed) == ["cut", "diverged", "empty", "raising", "stranger"]
    assert "run.json cannot be read" in failed["cut"]
    assert "mynet, a network that is not known here" in failed["stranger"]
    assert "breaks down (IndexError: list index out of range)" in failed["raising"]
    assert "no numbers; its training diverged" in failed["diverged"]
    labels = [g.label for g, _ in results.tables[0].lines]
    assert labels == ["bicubic", "srcnn-x4"]
    # All of them were tried before the first score.
    first_left_out = [text for text in said if "is left out" in text]
    assert len(first_left_out) == 5
    for name in ("tables.md", "tables.tex", "index.html"):
        path = workplace / "eval" / name
        if name == "index.html":
            write_report(workplace / "eval")
        assert "diverged" in path.read_text() and "IndexError" in path.read_text()
    assert [p.name for p in (workplace / "eval").glob("*.html")] == ["index.html"]


def test_a_cpu_out_of_memory_takes_smaller_parts_and_says_so(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(workplace, lr_source="native", limit=2, models=("srcnn-x4",))
    whole = evaluate(wanted)
    render, most = Network.render, 400

    def cramped(self: Any, batch: WindowBatch) -> Any:
        if sum(part.shape[0] * part.shape[1] for part in batch.lr) > most:
            torch.empty(1 << 62, dtype=torch.uint8)  # a real allocation that fails
        return render(self, batch)

    monkeypatch.setattr(Network, "render", cramped)
    said: list[str] = []
    again = replace(wanted, output=workplace / "cramped")
    results = evaluate(again, lambda event: said.append(event.message))
    assert any("Memory ran out: going on with tiles of" in text for text in said)
    assert "memory ran out" in results.document["tiling"]["srcnn-x4 x4"]
    assert "memory" not in whole.document["tiling"]["srcnn-x4 x4"]
    for a, b in zip(whole.rows, results.rows, strict=True):  # srcnn's halo is exact
        assert a.scores["psnr_rgb"] == pytest.approx(b.scores["psnr_rgb"], abs=1e-4)

    most = 1
    results = evaluate(replace(wanted, output=workplace / "none"))
    assert "Memory runs out even for the smallest tile" in results.failed["srcnn-x4"]


def test_time_left_is_told_with_every_batch(workplace: Path) -> None:
    items: list[str] = []
    run(prepare(settings(workplace, limit=4)), lambda event: items.append(event.item))
    left = [item for item in items if item]
    assert left and all(re.search(r", \d+:\d\d:\d\d left$", item) for item in left)
    assert left[-1].endswith(" 0:00:00 left")


def test_a_store_has_one_digest_everywhere(workplace: Path) -> None:
    results = evaluate(settings(workplace, models=("bicubic",), limit=1))
    digest = open_pairs(workplace / "pairs.zarr").content_digest()
    assert results.document["store"]["digest"] == digest
    page = write_report(workplace / "pairs.zarr", workplace / "page.html").read_text()
    assert page.count(digest) == 2 and len(set(re.findall(r"\b[0-9a-f]{32}\b", page))) == 1
    plan = plan_data(open_pairs(workplace / "pairs.zarr"), scale=None, lr_source="bicubic")
    assert plan.digest == digest


def test_whole_images_are_how_papers_evaluate(workplace: Path) -> None:
    """Pooling over the whole image, against pooling over the size of the training crops."""
    shutil.rmtree(workplace / "runs")
    write_run(workplace / "runs/rcan", "rcan")
    document = json.loads((workplace / "runs/rcan/run.json").read_text())
    document["config"]["data"] = {"crop_lr_px": 8}
    (workplace / "runs/rcan/run.json").write_text(json.dumps(document))
    found = []
    for tile in ("auto", "off"):
        wanted = settings(workplace, lr_source="native", limit=1, tile=tile)
        plan = prepare(wanted)
        column = plan.columns[0]
        lr, _ = read_pair(plan.store, column, column.samples, 0)
        found.append(Engines(plan).predict(plan.entries[1], column, lr))
        model = load_model(workplace / "runs/rcan/best")
        with torch.inference_mode():
            whole = model(lr.float() / 255).clamp(0, 1).double()
    local, own = ((sr - whole).abs().max() for sr in found)
    assert own < 1e-6 and local > 3 * own  # an untrained network's gates differ little
