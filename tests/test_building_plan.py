"""Splits and quotas are pure: the same whatever the order, append-only, and never tear a glass."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import load_manifest
from wsisr.building.plan import decide_splits, fill_evenly, plan_build, resolved_quotas
from wsisr.building.scan_records import RankedCandidates, ScanRecord
from wsisr.building.sources.geometry import plan_geometry
from wsisr.errors import ManifestError
from wsisr.magnification import MppSource, make_mpp
from wsisr.selection.patients import own_patient
from wsisr.slides import Level, SlideInfo, SlideSource

INFO = SlideInfo(
    path=Path("a.tif"),
    vendor="x",
    backend="direct",
    mpp=make_mpp(0.25, 0.25, MppSource.VENDOR),
    levels=tuple(
        Level(
            index=index,
            width_px=8192 // factor,
            height_px=8192 // factor,
            factor=factor,
            tile_width_px=256,
            tile_height_px=256,
        )
        for index, factor in enumerate((1, 2, 4))
    ),
    bytes=1,
    fingerprint="f",
)


def task(name: str, **more: Any) -> SlideTask:
    source = SlideSource(
        path=Path(f"{name}.tif"), slide_id=name, files=(), kind="tiff", relative=f"{name}.tif"
    )
    patient = own_patient(str(more.pop("patient", name)))
    return SlideTask(source=source, patient=patient, **{"group": name, **more})


def record(name: str, labels: tuple[int, ...]) -> ScanRecord:
    manifest = load_manifest("pathimgsr")
    count = len(labels)
    return ScanRecord(
        slide_id=name,
        draw_key=name,
        identity="",
        info=INFO,
        geometry=plan_geometry(INFO, manifest, name),
        icc="keep",
        candidates=RankedCandidates(x=(0,) * count, y=(0,) * count, label=labels),
    )


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=1),
    st.integers(0, 300),
)
def test_a_quota_is_filled_as_far_and_as_evenly_as_supplies_allow(
    supply: dict[str, int], total: int
) -> None:
    share = fill_evenly(supply, total, seed=3)
    assert sum(share.values()) == min(total, sum(supply.values()))
    assert all(0 <= share[name] <= supply[name] for name in supply)
    short = [share[name] for name in supply if share[name] < supply[name]]
    if short:
        assert max(share.values()) <= min(short) + 1
    assert fill_evenly(dict(reversed(supply.items())), total, seed=3) == share


def test_without_a_val_quota_a_tenth_of_train_validates() -> None:
    quotas = resolved_quotas(load_manifest("pathimgsr"))
    assert quotas["train"] == {"normal": 4500, "tumor": 4500}
    assert quotas["val"] == {"normal": 500, "tumor": 500}
    assert quotas["test"] == {"normal": 1000, "tumor": 1000}


def test_official_splits_count_and_a_tenth_of_training_validates() -> None:
    tasks = [task(f"n{i}", split="train") for i in range(20)]
    tasks += [task(f"t{i}", split="test") for i in range(5)]
    splits, notes = decide_splits(tasks, load_manifest("mlcamsr"), {})
    assert {splits[f"t{i}"] for i in range(5)} == {"test"}
    assert sorted(splits[f"n{i}"] for i in range(20)).count("val") == 2
    assert notes == ()
    shuffled, _ = decide_splits(tasks[::-1], load_manifest("mlcamsr"), {})
    assert shuffled == splits


def test_slides_that_come_later_never_move_the_others() -> None:
    manifest = load_manifest("default", {"split.exact": True})
    first = [task(f"s{i}") for i in range(9)]
    before, _ = decide_splits(first, manifest, {})
    after, _ = decide_splits([*first, *(task(f"x{i}") for i in range(9))], manifest, before)
    assert {name: after[name] for name in before} == before


def test_a_patient_or_glass_is_never_torn_apart() -> None:
    tasks = [
        task("a", patient="p", split="train", split_is_override=True),
        task("b", patient="p", split="test", split_is_override=True),
        task("c"),
    ]
    with pytest.raises(ManifestError, match="patient 'p' would lie in two splits"):
        decide_splits(tasks, load_manifest("default"), {})


def test_fewer_than_three_patients_all_train_with_one_note() -> None:
    splits, notes = decide_splits([task("a"), task("b")], load_manifest("default"), {})
    assert set(splits.values()) == {"train"}
    assert len(notes) == 1


def test_quotas_follow_supply_and_a_shortfall_is_said_in_numbers() -> None:
    manifest = load_manifest(
        "pathimgsr", {"quotas": {"train": {"normal": 10, "tumor": 10}, "val": {}}}
    )
    records = {
        "a": record("a", (0,) * 3 + (1,) * 2),
        "b": record("b", (0,) * 30),
        "c": record("c", (0,) * 30),
    }
    splits = {"a": "train", "b": "train", "c": "test"}
    patients = {name: name for name in records}
    plan = plan_build(records, splits, manifest, patients)
    assert plan.shares["a"].wanted == {"normal": 3, "tumor": 2}
    assert plan.shares["b"].wanted == {"normal": 7, "tumor": 0}
    assert plan.shares["c"].wanted == {}
    assert any("train/tumor 2 of 10" in w for w in plan.warnings)
    less = plan_build(records, splits, manifest, patients, {"train": {"normal": 6}})
    assert sum((less.shares[n].wanted or {}).get("normal", 0) for n in "ab") == 4


def test_caps_per_slide_and_patient() -> None:
    manifest = load_manifest(
        "default", {"sampling.max_per_slide": 8, "sampling.max_per_patient": 10}
    )
    records = {name: record(name, (0,) * 20) for name in "abc"}
    patients = {"a": "p", "b": "p", "c": "q"}
    plan = plan_build(records, dict.fromkeys("abc", "train"), manifest, patients)
    wanted = {name: sum((plan.shares[name].wanted or {}).values()) for name in "abc"}
    assert wanted == {"a": 5, "b": 5, "c": 8}
