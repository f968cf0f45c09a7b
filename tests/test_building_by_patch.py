"""Splits by patch: exact counts, the same whoever builds, whatever is rejected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsisr.building.manifest import Manifest, parse_manifest
from wsisr.building.plan import SPLITS, patch_numbers, plan_build
from wsisr.building.scan_records import RankedCandidates, ScanRecord
from wsisr.geometry import Layer, PatchGeometry
from wsisr.magnification import MppSource, make_mpp
from wsisr.selection.splits import divide_patches, patch_draws, random_patch_splits
from wsisr.slides.protocol import Level, SlideInfo

WEIGHTS = {"train": 320.0, "val": 40.0, "test": 40.0}


def manifest(**more: object) -> Manifest:
    quotas = {"train": {"any": 32}, "val": {"any": 4}, "test": {"any": 4}}
    return parse_manifest(
        {"name": "random", "quotas": quotas, "split": {"kind": "paper-random"}, **more}
    )


def record(slide_id: str, count: int) -> ScanRecord:
    level = Level(
        index=0, width_px=9999, height_px=9999, factor=1, tile_width_px=64, tile_height_px=64
    )
    info = SlideInfo(
        path=__file__,  # type: ignore[arg-type]
        vendor="none",
        backend="image",
        mpp=make_mpp(0.25, 0.25, MppSource.OVERRIDE),
        levels=(level,),
        bytes=1,
        fingerprint=slide_id,
    )
    layer = Layer(name="40x", factor=1.0, size_px=64, level=0, reduction=1.0)
    places = tuple(range(count))
    return ScanRecord(
        slide_id=slide_id,
        draw_key=slide_id,
        identity="",
        info=info,
        geometry=PatchGeometry(layers=(layer,), step_px=1, field_px=64),
        icc="keep",
        candidates=RankedCandidates(
            x=places,
            y=places,
            label=(-1,) * count,
            label_fraction=(0.0,) * count,
            tissue=(1.0,) * count,
            texture=(0.0,) * count,
        ),
    )


def test_every_quota_is_met_exactly_over_all_slides() -> None:
    slides = {f"s{n}": record(f"s{n}", 30) for n in range(5)}
    plan = plan_build(slides, dict.fromkeys(slides, ""), manifest(), {s: s for s in slides})
    assert not plan.warnings
    assert all(share.split == "" for share in plan.shares.values())
    by_patch = [share.by_patch or {} for share in plan.shares.values()]
    assert {split: sum(counts[split] for counts in by_patch) for split in SPLITS} == {
        "train": 32, "val": 4, "test": 4,
    }  # fmt: skip
    for share in plan.shares.values():
        assert sum((share.by_patch or {}).values()) == (share.wanted or {})["any"] == 8


def test_too_few_candidates_are_a_warning() -> None:
    slides = {"a": record("a", 6)}
    plan = plan_build(slides, {"a": ""}, manifest(), {"a": "a"})
    (warning,) = plan.warnings
    assert "on 1 slide(s)" in warning and "(any 6 of 40)" in warning


def test_without_quotas_all_patches_are_divided_by_the_weights() -> None:
    slides = {f"s{n}": record(f"s{n}", 20) for n in range(3)}
    free = manifest(quotas={}, split={"kind": "paper-random", "weights": {"train": 4, "test": 1}})
    plan = plan_build(slides, dict.fromkeys(slides, ""), free, {s: s for s in slides})
    total = [sum((s.by_patch or {})[name] for s in plan.shares.values()) for name in SPLITS]
    assert total == [43, 5, 12]
    assert all(share.wanted is None for share in plan.shares.values())


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.integers(0, 2**32),
)
def test_slides_one_by_one_agree_with_the_draw_over_all(
    counts: list[int], seed: int, origin_seed: int
) -> None:
    rng = np.random.default_rng(origin_seed)
    draws = [
        patch_draws(f"slide {n}", rng.integers(0, 10**6, (count, 2)), seed)
        for n, count in enumerate(counts)
    ]
    whole = np.split(
        random_patch_splits(np.concatenate(draws), WEIGHTS), np.cumsum(counts)[:-1].tolist()
    )
    for own, names in zip(draws, whole, strict=True):
        share = {name: int((names == name).sum()) for name in SPLITS}
        kept = np.ones(len(own), bool)
        assert divide_patches(own, kept, share, WEIGHTS).tolist() == names.tolist()


def test_replaced_patches_leave_the_counts_as_they_were() -> None:
    origins = np.stack([np.arange(50), np.arange(50)], axis=1)
    kept = np.arange(50) % 3 > 0
    numbers = patch_numbers("s", origins, kept, {"train": 25, "val": 3, "test": 5}, manifest())
    assert np.bincount(numbers[kept], minlength=3).tolist() == [25, 3, 5]
    # What is not kept has a split too, for a rule that keeps it later.
    assert set(numbers[~kept].tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("missing", [3, 30])
def test_a_shortfall_is_taken_from_training(missing: int) -> None:
    origins = np.stack([np.arange(33 - missing)] * 2, axis=1)
    kept = np.ones(len(origins), bool)
    numbers = patch_numbers("s", origins, kept, {"train": 25, "val": 3, "test": 5}, manifest())
    assert np.bincount(numbers, minlength=3)[2] == min(5, len(origins))
