"""Downstream tasks in an evaluation: HR, bicubic and models seen by one reference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.io import loadmat

from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.degradation import degrade
from wsisr.drawing.overlays import FOUND, TRUTH, outlined
from wsisr.errors import ConfigError
from wsisr.evaluation import EvalSettings, evaluate
from wsisr.evaluation.downstream import _within, downstream_tables
from wsisr.evaluation.pipeline import load_results
from wsisr.evaluation.results import read_rows
from wsisr.evaluation.tables import overview
from wsisr.evaluation.tasks import of_image
from wsisr.metrics.objects import aji, overlap
from wsisr.metrics.statistics import compare
from wsisr.models import create_model, save_model
from wsisr.models.bicubic import BicubicModel
from wsisr.reporting.evaluation_page import write_evaluation_report
from wsisr.resize import crop_to_scale
from wsisr.runners import SerialRunner
from wsisr.store import open_pairs
from wsisr.tasks import TaskRequest, register_segmenter, train_task
from wsisr.tasks.truth import Truth
from wsisr.testing import image_sets


@register_segmenter("dark")
def dark(image: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Dark areas, each a nucleus, as a program around HoVer-Net would give them."""
    labels, count = ndimage.label(image.mean(2) < 130)
    return labels, dict.fromkeys(range(1, count + 1), "any")


@register_segmenter("brightness")
def brightness(image: np.ndarray) -> dict[str, float]:
    share = float(image.mean()) / 255.0
    return {"benign": share, "malignant": 1.0 - share}


@pytest.fixture(scope="session")
def labelled(made_once: Callable[..., Path]) -> Path:
    """Eight fields of eight patients, the last one without single outlines; two models."""

    def make(folder: Path) -> None:
        image_sets.write_monuseg_like(folder / "set" / "test", 8, side_px=96, unions=1)
        request = BuildRequest(
            source=folder / "set", output=folder / "pairs.zarr", manifest="monuseg",
            overrides={"size": 96, "split": {"kind": "official"}},
        )  # fmt: skip
        assert build_pairs(prepare(request), runner=SerialRunner()) is not None
        for seed, scale in ((1, 4), (2, 8)):
            torch.manual_seed(seed)
            save_model(create_model("edsr", scale=scale, preset="tiny"), folder / f"edsr-x{scale}")

    return made_once("labelled", make)


def settings(root: Path, output: Path, **more: Any) -> EvalSettings:
    given: dict[str, Any] = {
        "scales": (4.0, 8.0), "data": root / "pairs.zarr", "output": output, "figures": 0,
        "models": (str(root / "edsr-x4"), str(root / "edsr-x8")), "cost": False,
        "lr_source": "bicubic", "device": "cpu", "truth": (root / "set",),
        "tasks": ("nuclei=dark",),
    } | more  # fmt: skip
    return EvalSettings(**given)


def test_one_reference_sees_hr_bicubic_and_every_model(labelled: Path, tmp_path: Path) -> None:
    results = evaluate(settings(labelled, tmp_path / "eval", figures=1))
    names, rows = read_rows(tmp_path / "eval" / "images.csv")
    store = open_pairs(labelled / "pairs.zarr")
    truth = Truth(store, [labelled / "set"])
    seen = {(row.run, row.scale, row.slide): row.scores for row in rows}
    outlined = 0
    for slide in store.slides:
        labels = truth.patch(slide, 0)
        assert labels is not None
        scores = seen["HR", 4.0, slide]
        found, _ = dark(store.patch(slide, 0, "40x"))
        pair = overlap(labels.map, found)
        outlined += labels.instances
        if labels.instances:
            assert scores["nuclei_aji"] == pytest.approx(aji(pair), abs=1e-9)
            expected = len(pair.found_area) / len(pair.truth_area) - 1
            assert scores["nuclei_count"] == pytest.approx(expected)
        else:  # all nuclei are known, and no single one
            assert np.isnan(scores["nuclei_aji"]) and scores["nuclei_dice"] > 0.8
        np.testing.assert_equal(dict(seen["HR", 8.0, slide]), dict(scores))
        assert seen["bicubic", 8.0, slide]["nuclei_dice"] < scores["nuclei_dice"]
    assert outlined == 7

    # HR is in no table of pixels, and its parts in none at all.
    shown = {s["name"] for s in results.document["scores"]}
    assert (
        "nuclei_aji" in shown and "nuclei_found_hits" in names and "nuclei_found_hits" not in shown
    )
    assert all("HR" not in [g.label for g, _ in table.lines] for table in results.tables)
    assert results.headline["name"] == "psnr_rgb"

    tables = {table.title: table for table in downstream_tables(results)}
    (beside,) = (t for title, t in tables.items() if title == "DOWNSTREAM, nuclei: AJI")
    lines = {row[:2]: row for row in beside.rows}
    own = [seen["bicubic", 4.0, s]["nuclei_aji"] - seen["HR", 4.0, s]["nuclei_aji"]
           for s in store.slides]  # fmt: skip
    assert lines["x4", "bicubic"][3].startswith(f"{np.nanmean(own):+.4f} [")
    assert lines["x8", "bicubic"][3].endswith(", worse")
    assert float(lines["x8", "bicubic"][4]) > 0
    assert {key[1] for key in lines} == {"HR", "bicubic", "edsr-x4", "edsr-x8"}
    assert beside.header[:3] == ("scale", "seen", "AJI")
    assert "LR: simulated:bicubic." in beside.notes  # one for all lines: no column

    alike = [replace(row, run="bicubic") for row in results.hr_rows]
    told = downstream_tables(replace(results, rows=tuple(alike)))[0].rows[1]
    assert told[1] == "bicubic" and told[3:5] == ("the same for every patient", "-")

    few = evaluate(settings(labelled, tmp_path / "few", limit=6, models=("bicubic",)))
    assert ", too few patients" in downstream_tables(few)[0].rows[1][3]

    (pooled,) = (t for title, t in tables.items() if title.endswith("all images at once"))
    (hr,) = (row for row in pooled.rows if row[:2] == ("x4", "HR"))
    hits, extra, missed = (
        sum(row.scores[f"nuclei_found_{part}"] for row in rows
            if row.run == "HR" and row.scale == 4 and not np.isnan(row.scores["nuclei_aji"]))
        for part in ("hits", "extra", "missed")
    )  # fmt: skip
    assert hr[2] == f"{2 * hits / (2 * hits + extra + missed):.4f}"
    assert "7 patients are too few for an interval" in pooled.notes[0]

    (agreement,) = (t for title, t in tables.items() if title.startswith("AGREEMENT"))
    psnr = next(row for row in agreement.rows if row[0].startswith("PSNR-RGB"))
    assert psnr[2] == "4" and psnr[4].endswith("of 2")
    assert "DOWNSTREAM, nuclei" in (tmp_path / "eval" / "tables.md").read_text()
    page = write_evaluation_report(tmp_path / "eval").read_text()
    assert "Does it help?" in page and "nuclei, LR simulated:bicubic x8" in page
    figures = tmp_path / "eval" / "figures"
    drawn = np.asarray(Image.open(figures / "nuclei-simulated-bicubic-x4.png"))
    for colour in (TRUTH, FOUND):
        assert (drawn == colour).all(-1).sum() > 200
    assert (figures / "agreement-nuclei.png").is_file()
    assert "AGREEMENT" in overview(load_results(tmp_path / "eval"))


def test_a_reference_is_never_tested_on_whom_it_was_fitted_on(
    labelled: Path, tmp_path: Path
) -> None:
    asked = TaskRequest(
        task="nuclei", data=labelled / "pairs.zarr", truth=(labelled / "set",), split="test",
        preset="tiny", output=tmp_path / "fitted", device="cpu", steps=1,
    )  # fmt: skip
    train_task(asked)
    given = {"models": ("bicubic",), "scales": (4.0,), "tasks": (str(tmp_path / "fitted"),)}
    with pytest.raises(ConfigError, match="was fitted on TCGA-AA-0001"):
        evaluate(settings(labelled, tmp_path / "eval", **given))
    with pytest.raises(ConfigError, match="--truth FOLDER"):
        evaluate(settings(labelled, tmp_path / "eval", truth=()))
    with pytest.raises(ConfigError, match="no function of that name is registered"):
        evaluate(settings(labelled, tmp_path / "eval", tasks=("nuclei=nothing",)))
    with pytest.raises(ConfigError, match="tasks are nuclei, glands, classes"):
        evaluate(settings(labelled, tmp_path / "eval", tasks=("cells=dark",)))


def test_classes_have_an_auc_over_all_images(tmp_path: Path) -> None:
    for at in range(12):
        kind = "BM"[at % 2]
        pixels = image_sets.tissue_image(at, 70, 46).astype(np.float64) * (1.0 if at % 2 else 0.4)
        name = f"SOB_{kind}_{'F' if kind == 'B' else 'DC'}-14-{at}-400-001"
        image_sets.write_image(tmp_path / "set" / f"{name}.png", pixels.astype(np.uint8))
    table = tmp_path / "t.csv"
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    table.write_text("slide,split\n" + "".join(f"{name},test\n" for name in names))
    request = BuildRequest(
        source=tmp_path / "set", output=tmp_path / "pairs.zarr", manifest="breakhis",
        overrides={"size": 32, "lr": ["20x"]}, mpp_override=table,
    )  # fmt: skip
    assert build_pairs(prepare(request), runner=SerialRunner()) is not None
    results = evaluate(
        settings(
            tmp_path, tmp_path / "eval", models=("bicubic",), scales=(2.0,), truth=(),
            tasks=("classes=brightness",),
        )
    )  # fmt: skip
    (pooled,) = (t for t in downstream_tables(results) if t.title.endswith("at once"))
    assert pooled.header[-1] == "AUC (malignant)"
    (hr,) = (row for row in pooled.rows if row[1] == "HR")
    # The darker ones are benign here, and the function says the opposite.
    assert hr[-1].startswith("0.0000 [0.0000, 0.0000]")


@register_segmenter("typed")
def typed(image: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Dark areas; large ones are called epithelial."""
    labels, count = ndimage.label(image.mean(2) < 130)
    return labels, {k: ("spindle", "epithelial")[k % 2] for k in range(1, count + 1)}


def test_types_of_nuclei_have_an_f1_each_over_all_images(tmp_path: Path) -> None:
    image_sets.write_consep_like(tmp_path / "set", 0, 6, side_px=96)
    for path in sorted((tmp_path / "set").rglob("*.mat")):
        content = loadmat(path)
        dark_where = content["inst_map"] > 0
        image = path.parents[1] / "Images" / f"{path.stem}.png"
        pixels = np.full((96, 96, 3), 220, np.uint8)
        pixels[dark_where] = 60
        image_sets.write_image(image, pixels)
    request = BuildRequest(
        source=tmp_path / "set", output=tmp_path / "pairs.zarr", manifest="consep",
        overrides={"size": 96, "expect": None},
    )  # fmt: skip
    assert build_pairs(prepare(request), runner=SerialRunner()) is not None
    given = {"models": ("bicubic",), "scales": (2.0,), "tasks": ("nuclei=typed",)}
    results = evaluate(settings(tmp_path, tmp_path / "eval", **given))
    (table,) = (t for t in downstream_tables(results) if t.title.endswith("at once"))
    (hr,) = (row for row in table.rows if row[1] == "HR")
    cells = dict(zip(table.header, hr, strict=True))

    store = open_pairs(tmp_path / "pairs.zarr")
    truth = Truth(store, [tmp_path / "set"])
    both: list[tuple[str, str]] = []
    for slide in store.slides:
        labels = truth.image(slide)
        assert labels is not None and labels.types is not None
        found, said = typed(store.patch(slide, 0, "40x"))
        # Discs apart are found as they are: the pixel in the middle names the partner.
        for label, name in labels.types.items():
            inside = found[labels.map == label]
            both.append((name, said[int(np.bincount(inside).argmax())]))
    for kind in ("epithelial", "spindle"):
        right = sum(a == b == kind for a, b in both)
        wrong = sum((a == kind) != (b == kind) for a, b in both)
        assert cells[f"F1c, {kind}"].startswith(f"{2 * right / (2 * right + 2 * wrong):.4f}")
    share = sum(a == b for a, b in both) / len(both)
    assert cells["types right"].startswith(f"{share:.4f}")
    assert cells["F1 of detection"].startswith("1.0000")

    # One that names none has everything but that; two stand side by side.
    two = ("nuclei=plain", "nuclei=typed")
    plain = evaluate(settings(tmp_path, tmp_path / "plain", **given | {"tasks": two}))
    named = {t.title: t for t in downstream_tables(plain)}
    assert "DOWNSTREAM, typed: all images at once" in named
    table = named["DOWNSTREAM, plain: all images at once"]
    (hr,) = (row for row in table.rows if row[1] == "HR")
    cells = dict(zip(table.header, hr, strict=True))
    assert cells["types right"] == "-" and cells["F1 of detection"].startswith("1.0000")


@register_segmenter("plain")
def plain(image: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.label(image.mean(2) < 130)[0])


def test_glas_is_learnt_and_scored_in_whole_images(tmp_path: Path) -> None:
    """Glands from the folder to the table: what is scored is the image, not its patches."""
    image_sets.write_glas_like(tmp_path / "set", {"train": 4}, width_px=150, height_px=110)
    table = tmp_path / "all.csv"
    images = [p for p in sorted((tmp_path / "set").glob("*.bmp")) if "_anno" not in p.stem]
    table.write_text("slide,split\n" + "".join(f"{p.name},test\n" for p in images))
    request = BuildRequest(
        source=tmp_path / "set", output=tmp_path / "pairs.zarr", manifest="glas-patients",
        overrides={"size": 64}, mpp_override=table,
    )  # fmt: skip
    assert build_pairs(prepare(request), runner=SerialRunner()) is not None
    store = open_pairs(tmp_path / "pairs.zarr")
    assert max(len(view) for view in store.slides.values()) > 1
    asked = TaskRequest(
        task="glands", data=tmp_path / "pairs.zarr", truth=(tmp_path / "set",), split="test",
        preset="tiny", output=tmp_path / "glands", device="cpu", steps=2, folds=2,
    )  # fmt: skip
    said: list[str] = []
    train_task(asked, lambda event: said.append(event.message))
    assert any("whole images (HR)" in line for line in said), said
    given = {
        "models": ("bicubic",), "scales": (4.0,), "tasks": (f"glands={tmp_path / 'glands'}",),
        "whole": True, "margin": 0.05,
    }  # fmt: skip
    results = evaluate(settings(tmp_path, tmp_path / "eval", **given))
    _, rows = read_rows(tmp_path / "eval" / "images.csv")
    assert len(rows) == 2 * len(images)  # HR and bicubic of each image
    for path in images:
        with Image.open(path) as image:
            pixels = np.asarray(image)[:108, :148]  # patches begin on the grid of 5x
        (row,) = (r for r in rows if r.run == "bicubic" and path.stem in r.slide)
        hr = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
        kept = crop_to_scale(hr, 4.0)
        lr = degrade(hr, "bicubic", 4.0)
        sr = BicubicModel()(lr.float() / 255.0, scale=4.0)
        error = ((sr.clamp(0, 1) - kept / 255.0)[..., 4:-4, 4:-4] ** 2).mean()
        assert row.scores["psnr_rgb"] == pytest.approx(float(-10 * error.log10()), abs=0.02)
    (beside,) = (t for t in downstream_tables(results) if t.title == "DOWNSTREAM, glands: F1")
    assert "loses less than 0.05" in beside.header
    page = write_evaluation_report(tmp_path / "eval").read_text()
    assert "whole images, put together from the patches that cover them" in page
    with pytest.raises(ConfigError, match=r"other settings .*whole True -> None"):
        evaluate(settings(tmp_path, tmp_path / "eval", **given | {"whole": False}))
    (tmp_path / "pairs.zarr").rename(tmp_path / "cover.zarr")
    grid = replace(request, overrides={"size": 64, "sampling": {"kind": "grid"}})
    assert build_pairs(prepare(grid), runner=SerialRunner()) is not None
    with pytest.raises(ConfigError, match="not the whole image; build with sampling"):
        evaluate(settings(tmp_path, tmp_path / "grid", **given))


def test_pcam_as_published_is_learnt_and_scored(tmp_path: Path) -> None:
    """From the HDF5 files to accuracy and AUC of the published test part."""
    import h5py

    image_sets.write_pcam_hdf5(tmp_path / "pcam", {"train": 16, "valid": 6, "test": 12}, slides=3)
    for path in (tmp_path / "pcam").glob("*_x.h5"):
        with h5py.File(path, "r+") as file:  # tumour is darker
            file["x"][1::2] = file["x"][1::2] // 2
    request = BuildRequest(
        source=tmp_path / "pcam", output=tmp_path / "pairs.zarr", manifest="pcam",
        overrides={"expect": None},
    )  # fmt: skip
    assert build_pairs(prepare(request), runner=SerialRunner()) is not None
    asked = TaskRequest(
        task="classes", data=tmp_path / "pairs.zarr", preset="tiny", output=tmp_path / "run",
        device="cpu", steps=24,
    )  # fmt: skip
    train_task(asked)
    given = {"models": ("bicubic",), "scales": (2.0,), "tasks": (str(tmp_path / "run"),)}
    results = evaluate(settings(tmp_path, tmp_path / "eval", truth=(), **given))
    found = results.document["samples"]
    assert found["images"] == 12 and found["patients"] == 3
    (pooled,) = (t for t in downstream_tables(results) if t.title.endswith("at once"))
    assert pooled.header[-1] == "AUC (tumor)" and "3 patients are too few" in pooled.notes[0]
    (hr,) = (row for row in pooled.rows if row[1] == "HR")
    assert hr[-1] == "1.0000"  # at 24 steps they are in order, and not yet beside 0.5


def test_processes_make_the_same_rows_of_a_task(labelled: Path, tmp_path: Path) -> None:
    asked = TaskRequest(
        task="nuclei", data=labelled / "pairs.zarr", truth=(labelled / "set",), split="test",
        preset="tiny", output=tmp_path / "fitted", device="cpu", steps=2, folds=2,
    )  # fmt: skip
    train_task(asked)
    given = {"scales": (4.0,), "tasks": (f"nuclei={tmp_path / 'fitted'}",), "models": ("bicubic",)}
    evaluate(settings(labelled, tmp_path / "one", **given))
    runner = SerialRunner()  # opens everything anew, as a process of its own does
    evaluate(settings(labelled, tmp_path / "two", **given), runner=runner)
    one, two = ((tmp_path / name / "images.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    with pytest.raises(ConfigError, match="computed on one device"):
        evaluate(
            settings(labelled, tmp_path / "three", **given), runner=runner,
            tasks=[of_image("mean", np.mean)],
        )  # fmt: skip


def test_a_loss_that_would_not_matter_is_shown_or_not() -> None:
    """By the unfavourable end of the interval, whichever way a score is turned."""
    here = {n: 0.8 + 0.001 * n for n in range(12)}
    there = {n: v + 0.01 * (-1) ** n - 0.01 for n, v in here.items()}
    found = compare(there, here)
    assert -0.02 < found.low < -0.01 < found.high < 0
    assert _within(found, 0.02, "high") == "shown" and _within(found, 0.005, "high") == "not shown"
    turned = compare(here, there)  # the same as distances: more is a loss
    assert _within(turned, 0.02, "low") == "shown" and _within(turned, 0.005, "low") == "not shown"
    few = compare({n: there[n] for n in range(5)}, here)
    assert _within(few, 0.5, "high") == "too few patients"


def test_outlines_run_inside_every_object() -> None:
    labels = np.zeros((6, 9), np.int32)
    labels[1:5, 1:5], labels[1:5, 5:8] = 1, 2
    drawn = outlined(np.zeros((6, 9, 3), np.uint8), labels, (9, 9, 9))
    marked = drawn[..., 0] == 9
    assert not marked[labels == 0].any()
    # Everything but the two cores; the side that they share has two lines.
    assert (~marked & (labels > 0)).sum() == 2 * 2 + 2 * 1
