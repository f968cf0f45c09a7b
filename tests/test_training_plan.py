"""What a run trains on: origin of LR, splits, symmetries, and what a store lacks."""

from pathlib import Path

import numpy as np
import pytest
from training_samples import make_store

from wsisr.errors import ConfigError, StoreError
from wsisr.store import open_pairs
from wsisr.training.plan import DataPlan, plan_data


def planned(path: Path, **options: object) -> DataPlan:
    settings = {"scale": 4, "lr_source": "auto", **options}
    return plan_data(open_pairs(path), **settings)  # type: ignore[arg-type]


def test_auto_takes_native_lr_where_the_scale_has_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", factors=(2, 4))
    plan = planned(store)
    assert (plan.lr, plan.origin, plan.degradation) == ("10x", "stored-level", None)
    assert planned(store, scale=2).lr == "20x"
    assert plan.origins == {"40x": "stored-level", "20x": "stored-level", "10x": "stored-level"}
    rescan = make_store(tmp_path / "b.zarr", origin="rescan")
    assert planned(rescan).origin == "rescan"


def test_auto_simulates_where_the_scale_has_none(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr")
    plan = planned(store, scale=2)
    assert (plan.lr, plan.origin, plan.degradation) == (None, "simulated:bicubic", "bicubic")
    assert any("no LR at x2" in note for note in plan.notes)
    assert planned(store, scale=None).origin == "simulated:bicubic"


def test_reduced_lr_is_not_native(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", origin="reduced")
    assert planned(store).origin == "simulated:bicubic"
    with pytest.raises(ConfigError, match=r"10x .* is not native .* --lr-source bicubic"):
        planned(store, lr_source="native")


def test_slides_of_several_origins_are_never_mixed(tmp_path: Path) -> None:
    def origin(slide: str) -> str:
        return "reduced" if slide == "b" else "stored-level"

    store = make_store(tmp_path / "a.zarr", origin=origin)
    plan = planned(store)
    assert plan.lr is None and any("not native in every slide" in note for note in plan.notes)
    native = planned(store, lr_source="native")
    assert native.lr == "10x" and set(native.train[:, 0].tolist()) == {0, 2}
    assert any("1 slides without" in note for note in native.notes)


def test_a_named_degradation_wins_and_the_manifest_may_name_one(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", manifest={"degradation": "iste"})
    assert planned(store, lr_source="area").origin == "simulated:area"
    assert planned(store, scale=None).origin == "simulated:iste"
    with pytest.raises(ConfigError, match="did you mean 'bicubic'"):
        planned(store, lr_source="bicubc")


def test_what_a_store_lacks_is_said(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr")
    with pytest.raises(ConfigError, match=r"no array x8 below 40x; it has 40x .* 10x"):
        planned(store, scale=8, lr_source="native")
    with pytest.raises(ConfigError, match="any scale needs LR at all scales"):
        planned(store, scale=None, lr_source="native")
    unfinished = make_store(tmp_path / "b.zarr", commit=False)
    with pytest.raises(StoreError, match="no splits yet"):
        planned(unfinished)
    empty = make_store(tmp_path / "c.zarr", splits={"a": "test", "b": "test"})
    with pytest.raises(ConfigError, match="no pairs to train on"):
        planned(empty)


def test_validation_is_the_val_split_and_test_is_never_touched(tmp_path: Path) -> None:
    plan = planned(make_store(tmp_path / "a.zarr"))
    assert set(plan.train[:, 0].tolist()) == {0, 1, 2} and set(plan.val[:, 0].tolist()) == {3}
    assert plan.patients == tuple(f"patient {name}" for name in "abcd")
    assert "glass e" not in plan.groups and len(plan.groups) == 4
    assert plan.assumed == () and plan.files


def test_without_a_val_split_patients_are_held_out(tmp_path: Path) -> None:
    splits = dict.fromkeys("abcd", "train") | {"e": "test"}
    store = make_store(tmp_path / "a.zarr", splits=splits)
    plan = planned(store)
    assert not set(plan.train[:, 0].tolist()) & set(plan.val[:, 0].tolist())
    assert len(plan.val) == 6 and any("1 of 4 training patients" in n for n in plan.notes)
    assert np.array_equal(plan.val, planned(store).val)
    single = planned(make_store(tmp_path / "b.zarr", splits={"a": "train"}))
    assert (len(single.train), len(single.val)) == (5, 1)
    assert any("validation flatters" in note for note in single.notes)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"residual_x": np.full(6, 0.4, np.float32)}, "which a flip would reverse"),
        ({"residual_y": np.full(6, np.nan, np.float32)}, "no measured alignment"),
        ({"verdict": np.zeros(6, np.int8)}, "registration rejects them"),
    ],
)
def test_flips_are_not_drawn_where_alignment_forbids(
    tmp_path: Path, columns: dict[str, object], said: str
) -> None:
    store = make_store(tmp_path / "a.zarr", columns=columns)
    plan = planned(store)
    assert not plan.flips and any(
        said.replace("a flip", "flip") in n or said in n for n in plan.notes
    )
    assert planned(store, lr_source="bicubic").flips


def test_the_finer_image_of_cwtnet_is_stored_where_it_can_be(tmp_path: Path) -> None:
    both = make_store(tmp_path / "a.zarr", factors=(2, 4))
    assert planned(both, reference=True).reference == "20x"
    assert planned(both, reference=True, scale=2).reference == "40x"
    assert planned(both, reference=True, lr_source="bicubic").reference is None
    assert planned(make_store(tmp_path / "b.zarr"), reference=True).reference is None


def test_the_content_hash_follows_pixels_and_splits(tmp_path: Path) -> None:
    first = planned(make_store(tmp_path / "a.zarr"))
    assert planned(make_store(tmp_path / "b.zarr")).content == first.content
    assert planned(make_store(tmp_path / "c.zarr", count=5)).content != first.content
    splits = {"a": "train", "b": "train", "c": "val", "d": "train", "e": "test"}
    assert planned(make_store(tmp_path / "d.zarr", splits=splits)).content != first.content
