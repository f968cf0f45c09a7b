"""Reference networks: fitted by the common trainer, gone on with exactly, read as objects."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.errors import ConfigError
from wsisr.metrics.objects import aji, gland_detection, overlap
from wsisr.runners import SerialRunner
from wsisr.selection.image_labels import ImageLabels
from wsisr.store import open_pairs
from wsisr.tasks import KINDS, TaskRequest, train_task
from wsisr.tasks.data import folds_of
from wsisr.tasks.kinds import Maps
from wsisr.tasks.networks import build_network
from wsisr.tasks.reference import fold_folders, open_reference, read_record
from wsisr.tasks.truth import Truth
from wsisr.testing import image_sets
from wsisr.training.config import parse_config
from wsisr.training.state import read_state

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def monuseg(made_once: Callable[..., Path]) -> Path:
    """Six images of six patients with dark nuclei, and their store."""

    def make(folder: Path) -> None:
        image_sets.write_monuseg_like(folder / "set" / "test", 6, side_px=96, unions=1)
        request = BuildRequest(
            source=folder / "set", output=folder / "pairs.zarr", manifest="monuseg",
            overrides={"size": 96, "split": {"kind": "official"}},
        )  # fmt: skip
        assert build_pairs(prepare(request), runner=SerialRunner()) is not None

    return made_once("monuseg-like", make)


def request(root: Path, output: Path, **more: Any) -> TaskRequest:
    given: dict[str, Any] = {
        "task": "nuclei", "data": root / "pairs.zarr", "truth": (root / "set",), "split": "test",
        "preset": "tiny", "output": output, "device": "cpu",
    } | more  # fmt: skip
    return TaskRequest(**given)


def weights(run: Path) -> bytes:
    return (run / "last" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["nuclei", "glands"])
def test_perfect_maps_are_read_as_the_objects_they_were_drawn_from(name: str) -> None:
    """Two objects that touch along a side are two."""
    labels = np.zeros((96, 128), np.int32)
    y, x = np.mgrid[:96, :128]
    for label, (cy, cx) in enumerate(((40, 30), (40, 63), (60, 110)), start=1):
        labels[np.hypot(y - cy, x - cx) <= 16.5] = label
    kind = KINDS[name]
    assert isinstance(kind, Maps)
    drawn = kind.target(ImageLabels(labels, instances=True)).astype(np.float32) / 255.0
    answer = kind.read(8.0 * drawn[:2] - 4.0, ())
    assert answer.labels is not None
    pair = overlap(labels, answer.labels)
    assert gland_detection(pair).f1 == 1.0 and len(pair.found_area) == 3
    assert aji(pair) > 0.85
    nothing = kind.read(np.full((2, 40, 40), -5.0, np.float32), ())
    assert nothing.labels is not None and nothing.labels.max() == 0


def test_distances_of_merged_nuclei_are_not_learnt() -> None:
    kind = KINDS["nuclei"]
    assert isinstance(kind, Maps)
    labels = np.zeros((32, 32), np.int32)
    labels[4:20, 4:20] = 1
    drawn = kind.target(ImageLabels(labels, instances=False))
    assert drawn[1].max() == drawn[2].max() == 0 < drawn[0].max()
    target = torch.from_numpy(drawn).float()[None] / 255.0
    out = torch.zeros(1, 2, 32, 32, requires_grad=True)
    kind.loss(out, target).backward()  # type: ignore[no-untyped-call]
    assert out.grad is not None
    assert out.grad[:, 0].abs().sum() > 0 and out.grad[:, 1].abs().sum() == 0


def test_networks_take_any_size_and_start_as_their_seed_says() -> None:
    for name, shape in (("unet", (2, 3, 37, 50)), ("resnet18", (2, 3, 70, 61))):
        model = build_network(name, 2, {"width": 8, "levels": 3}, seed=3)
        out = model(torch.rand(shape))
        assert out.shape == ((2, 2, 37, 50) if name == "unet" else (2, 2))
        again = build_network(name, 2, {"width": 8, "levels": 3}, seed=3)
        for a, b in zip(model.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)


def test_folds_divide_patients_evenly_within_classes() -> None:
    patients = {f"p{n}": "benign" if n < 8 else "malignant" for n in range(20)}
    fold = folds_of(patients, 4)
    assert folds_of(dict(reversed(patients.items())), 4) == fold
    for at in range(4):
        mine = [p for p, f in fold.items() if f == at]
        assert len(mine) == 5 and sum(patients[p] == "benign" for p in mine) == 2
    with pytest.raises(ConfigError, match="give 2 to 20"):
        folds_of(patients, 21)


def test_a_reference_learns_and_goes_on_exactly(monuseg: Path, tmp_path: Path) -> None:
    whole = request(monuseg, tmp_path / "whole", folds=2, steps=40)
    (first, second), folder = train_task(whole)
    assert first.state == second.state == "finished"
    runs = fold_folders(folder)
    records = [read_record(run) for run in runs]
    assert set(records[0]["patients"]) & set(records[1]["patients"]) == set()
    assert len(set(records[0]["patients"]) | set(records[1]["patients"])) == 6
    assert str(tmp_path) not in json.dumps(records)

    # Every patient is answered by the network that has not seen it, better than by chance.
    reference, truth = (
        open_reference(f"nuclei={folder}", CPU),
        Truth(store := open_pairs(monuseg / "pairs.zarr"), [monuseg / "set"]),
    )
    assert "out of fold (2 networks)" in reference.words
    found = []
    for slide, view in store.slides.items():
        labels = truth.patch(slide, 0)
        assert labels is not None
        answer = reference.answer(store.patch(slide, 0, "40x"), view.attributes["patient"])
        if labels.instances:
            assert answer.labels is not None
            found.append(aji(overlap(labels.map, answer.labels)))
    assert np.mean(found) > 0.6
    assert reference.seen(view.attributes["patient"] for view in store.slides.values()) == []
    (alone,) = (open_reference(str(runs[0]), CPU),)
    assert alone.seen(["TCGA-XX-0000", *records[0]["patients"]]) == records[0]["patients"]

    # Stopped half way and gone on with: the same weights to the last bit.
    half = replace(whole, output=tmp_path / "half")
    shutil.copytree(folder, half.output or Path())
    run = (half.output or Path()) / "fold-1"
    for path in run.glob("checkpoints/step-*40.*"):
        path.unlink()
    state = read_state(run / "checkpoints")
    assert state is not None and state.scalars["step"] == 20
    record = read_record(run) | {"state": "interrupted", "step": 20}
    (run / "task.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="--resume"):
        train_task(half)
    train_task(replace(half, resume=True))
    assert weights(run) == weights(runs[0])
    assert (run / "log.csv").read_text().count("\n") == (runs[0] / "log.csv").read_text().count(
        "\n"
    )

    with pytest.raises(ConfigError, match=r"optim\.lr was"):
        train_task(replace(half, resume=True, assignments=("optim.lr=0.1",)))
    with pytest.raises(ConfigError, match="images were HR, not bicubic x2"):
        train_task(replace(half, resume=True, images="bicubic", scale=2.0))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no reference"):
        train_task(replace(half, folds=0, output=tmp_path / "file"))


def test_labels_are_found_by_content_and_refused_where_they_changed(
    monuseg: Path, tmp_path: Path
) -> None:
    store = open_pairs(monuseg / "pairs.zarr")
    slide = next(s for s in store.slides if "0001" in s)
    with pytest.raises(ConfigError, match="--truth FOLDER"):
        Truth(store, []).patch(slide, 0)
    with pytest.raises(ConfigError, match="are not there"):
        Truth(store, [tmp_path]).patch(slide, 0)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    name = "TCGA-AA-0001-01Z-00-DX1.xml"
    shutil.copy(monuseg / "set" / "test" / "Annotations" / name, moved / "renamed.xml")
    found = Truth(store, [moved]).patch(slide, 0)
    assert found is not None and found.map.max() > 3
    (tmp_path / "test" / "Annotations").mkdir(parents=True)
    text = (moved / "renamed.xml").read_text()
    (tmp_path / "test" / "Annotations" / name).write_text(text + " ")
    with pytest.raises(ConfigError, match="has changed since"):
        Truth(store, [tmp_path]).patch(slide, 0)


def test_a_reference_learns_on_what_bicubic_makes_of_lr(monuseg: Path, tmp_path: Path) -> None:
    asked = request(monuseg, tmp_path / "run", images="bicubic", scale=4.0, steps=2)
    with pytest.raises(ConfigError, match="say at which --scale"):
        train_task(replace(asked, scale=None))
    train_task(asked)
    record = read_record(tmp_path / "run")
    assert record["images"] == "bicubic x4 of bicubic LR"
    assert parse_config(record["config"]).data.lr_source == "bicubic x4 of bicubic LR"
    train_task(replace(asked, images="hr", output=tmp_path / "hr"))
    assert weights(tmp_path / "hr") != weights(tmp_path / "run")


def test_classes_are_learnt_from_whole_images(tmp_path: Path) -> None:
    names = [
        f"SOB_{kind}_{'F' if kind == 'B' else 'DC'}-14-{number}-400-001"
        for number in range(6) for kind in "BM"
    ]  # fmt: skip
    for at, name in enumerate(names):
        pixels = image_sets.tissue_image(at, 70, 46).astype(np.float64)
        pixels = pixels * (0.5 if "_M_" in name else 1.0)
        image_sets.write_image(tmp_path / "set" / f"{name}.png", pixels.astype(np.uint8))
    build = BuildRequest(
        source=tmp_path / "set", output=tmp_path / "pairs.zarr", manifest="breakhis",
        overrides={"size": 32, "split": {"kind": "patient", "weights": {"train": 3, "test": 1}}},
    )  # fmt: skip
    assert build_pairs(prepare(build), runner=SerialRunner()) is not None
    asked = TaskRequest(
        task="classes", data=tmp_path / "pairs.zarr", preset="tiny", output=tmp_path / "run",
        device="cpu", steps=24, split="train,val",
    )  # fmt: skip
    train_task(asked)
    reference = open_reference(str(tmp_path / "run"), CPU)
    assert reference.classes == ("benign", "malignant")
    store = open_pairs(tmp_path / "pairs.zarr")
    right = []
    for slide in store.slides:
        answer = reference.answer(store.patch(slide, 0, "40x"), "")
        assert sum(answer.classes.values()) == pytest.approx(1.0)
        said = max(answer.classes, key=lambda name: answer.classes[name])
        right.append(said == ("malignant" if "_M_" in slide else "benign"))
    assert np.mean(right) > 0.9
    with pytest.raises(ConfigError, match="was fitted for classes"):
        open_reference(f"nuclei={tmp_path / 'run'}", CPU)
