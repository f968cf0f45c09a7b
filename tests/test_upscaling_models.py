"""Which model, at which scale, and what is said when it does not fit the input."""

import json
from pathlib import Path

import pytest

from wsisr.errors import ConfigError, ModelError
from wsisr.models import create_model, save_model
from wsisr.upscaling.models import LoadedModel, doubts, load, settle_scale

DOCUMENT = {
    "format": "wsisr-run",
    "format_version": 1,
    "model": "srcnn",
    "preset": "tiny",
    "kind": "fixed",
    "scale": 2,
    "scale_range": [2, 2],
    "seed": 0,
    "state": "finished",
    "step": 1,
    "steps": 1,
    "lr_origin": "simulated:bicubic",
    "degradation": "bicubic",
    "store": {},
    "patients": [],
    "groups": [],
    "arrays": {"hr": "40x", "lr": "20x"},
    "config": {"data": {"crop_lr_px": 16}},
}


def _saved(folder: Path, name: str = "srcnn", scale: int | None = 2) -> Path:
    model = create_model(name, scale=scale, preset="tiny")
    extra = {
        "lr_origin": "simulated:bicubic",
        "degradation": "bicubic",
        "scale_range": [2, 2] if scale else [1, 4],
    }
    return save_model(model, folder, extra=extra)


def test_a_saved_model_brings_its_provenance(tmp_path: Path) -> None:
    model = load(str(_saved(tmp_path / "m")), device="cpu")
    assert (model.name, model.scale, model.preset) == ("srcnn", 2, "tiny")
    facts = model.provenance()
    assert len(facts["weights_sha256"]) == 64
    assert facts["trained_on_degradation"] == "bicubic"
    assert load(str(tmp_path / "m" / "model.safetensors")).weights_sha256 == model.weights_sha256


def test_a_run_is_taken_by_its_best_weights(tmp_path: Path) -> None:
    _saved(tmp_path / "run" / "best")
    (tmp_path / "run" / "run.json").write_text(json.dumps(DOCUMENT))
    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        model = load(str(folder))
        assert (model.lr_origin, model.hr_magnification) == ("simulated:bicubic", 40.0)
        assert "pooling" not in model.provenance()


def test_pools_take_the_training_size_where_a_run_records_it(tmp_path: Path) -> None:
    _saved(tmp_path / "run" / "last", "rcan")
    (tmp_path / "run" / "run.json").write_text(json.dumps(DOCUMENT | {"model": "rcan"}))
    run = load(str(tmp_path / "run"))
    assert run.provenance()["pooling"] == "local, 16 px (the size of its training crops)"
    assert (run.engine.needs.halo_px, run.engine.needs.tile_px) == (32, 192)
    alone = load(str(_saved(tmp_path / "alone", "rcan")))
    assert alone.pooling == "local, 192 px (the size of its recommended tile)"
    # A large window needs more context than the network's own 32 px, and a core to match.
    assert (alone.engine.needs.halo_px, alone.engine.needs.tile_px) == (112, 448)
    tile = load(str(tmp_path / "run"), pool="tile")
    assert (tile.pooling, tile.engine.needs.halo_px) == ("over each tile", 32)
    # Where attention sees the whole tile all the same, tiles stay near the training size.
    mihatp = load(str(_saved(tmp_path / "mihatp", "mihatp")))
    assert mihatp.pooling.startswith("local") and mihatp.engine.needs.halo_px == 32
    with pytest.raises(ConfigError, match="local or tile"):
        load("bicubic", pool="everything")


def test_a_fixed_scale_is_kept_to_and_an_arbitrary_one_is_asked_for(tmp_path: Path) -> None:
    fixed = load(str(_saved(tmp_path / "f")))
    assert settle_scale(fixed, None) == settle_scale(fixed, 2.0) == 2.0
    with pytest.raises(ConfigError, match="trained for x2 and cannot do x4"):
        settle_scale(fixed, 4.0)
    with pytest.raises(ConfigError, match="give one with --scale"):
        settle_scale(load("bicubic"), None)


def test_doubts_are_one_sentence_and_only_where_there_are_any() -> None:
    model = LoadedModel(
        engine=load("bicubic").engine,
        name="iste",
        weights_sha256="0",
        scale_range=(1.0, 4.0),
        lr_origin="stored-level",
        hr_magnification=40.0,
    )
    assert doubts(model, 4.0, "stored-level", 0.243) == ""
    found = doubts(model, 8.0, "reduced", 0.5)
    assert found.count(".") == 1 and found.endswith("missed.")
    for word in (
        "for scales 1 to 4, not 8",
        "on LR that was stored-level, while this input is reduced",
        "to give 40x, while this gives 20x",
    ):
        assert word in found
    assert doubts(load("bicubic"), 32.0, "reduced", 9.0) == ""


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such run or model folder"):
        load(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="--precision"):
        load("bicubic", precision="float8")
