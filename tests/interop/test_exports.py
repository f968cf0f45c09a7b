"""Exports and model folders in the field's own loaders: Hugging Face, offline."""

from pathlib import Path

import numpy as np
import pytest
from store_samples import make_store, patches

from wsisr.store import export_store
from wsisr.training.model_card import hub_card


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "a.zarr"
    make_store(path, {"a.b": 5, "c": 3})
    return path


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.mark.parametrize(("to", "kind"), [("huggingface", ""), ("png", "imagefolder")])
def test_pairs_not_single_pictures(store: Path, tmp_path: Path, to: str, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    export_store(store, to, tmp_path / "out")
    cache = str(tmp_path / "cache")
    if kind:
        found = datasets.load_dataset(kind, data_dir=str(tmp_path / "out"), cache_dir=cache)
    else:
        found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=cache)
    train = found["train"]
    assert len(train) == 8 and {"hr", "lr", "patient", "10x_origin", "digest"} <= set(
        train.column_names
    )
    for row in train:
        truth = patches(0, 5) if row["slide"] == "a.b" else patches(1, 3)
        assert np.array_equal(np.asarray(row["hr"]), truth["40x"][row["row"]])
        assert np.array_equal(np.asarray(row["lr"]), truth["10x"][row["row"]])


def test_webdataset(store: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export_store(store, "webdataset", tmp_path / "out")
    files = str(tmp_path / "out/train-*.tar")
    found = datasets.load_dataset(
        "webdataset", data_files={"train": files}, cache_dir=str(tmp_path / "cache")
    )
    assert len(found["train"]) == 8
    row = found["train"][0]
    assert row["json"]["patient"] == "patient of a.b"
    assert np.asarray(row["40x.png"]).shape == (32, 32, 3)


def test_the_card_of_a_model_is_one_of_the_hub(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    row = {"step": 4, "scale": 4.0, "psnr_rgb": 29.5, "ssim_rgb": 0.8, "psnr_y": 30.0}
    row |= {"bicubic_psnr_rgb": 28.0, "bicubic_psnr_y": 28.5}
    record = {
        "model": "edsr",
        "preset": "tiny",
        "parameters": 1,
        "citation": "x",
        "scale": 4,
        "state": "finished",
        "step": 4,
        "steps": 4,
        "seed": 0,
        "created_with": "wsisr",
        "store": {"manifest": "default", "digest": "0"},
        "pairs": {"train": 1, "val": 1},
        "patients": ["a"],
        "lr_origin": "stored-level",
        "config": {"data": {"crop_lr_px": 48}},
        "batch": 1,
        "notes": [],
        "readings": [],
        "warnings": [],
    }
    card = hub.ModelCard(hub_card(record, [row]))
    assert card.data.library_name == "wsisr" and card.data.pipeline_tag == "image-to-image"
    found = {(r.metric_type, r.metric_value) for r in card.data.eval_results}
    assert found == {("psnr", 29.5), ("ssim", 0.8)}
