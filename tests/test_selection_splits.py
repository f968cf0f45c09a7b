"""Patients and glasses stay together, ratios hold, and nothing that was assigned moves."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsisr.errors import ManifestError
from wsisr.selection.splits import Cohort, patch_draws, plan_splits, random_patch_splits
from wsisr.store.verify_splits import overlapping

FIVE_TO_ONE = {"train": 5, "test": 1}


def splits_of(patients, fractions, seed, existing=None, *, group=None, site=None, exact=None):
    cohort = Cohort(patients=patients, groups=group or {}, sites=site)
    return plan_splits(cohort, fractions, seed, existing, exact=exact).splits


def _fields(origins, side):
    return np.concatenate([origins, origins + side], axis=1).astype(np.float64)


def _cohort(count, slides_each=2):
    return {f"s{p:03d}_{k}": f"p{p:03d}" for p in range(count) for k in range(slides_each)}


@settings(max_examples=60, deadline=None)
@given(
    patients=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=4), st.sampled_from("PQRSTUVW"), max_size=25
    ),
    groups=st.lists(st.sampled_from(["", "g1", "g2", "g3"]), min_size=25, max_size=25),
    seed=st.integers(0, 1000),
    exact=st.booleans(),
)
def test_no_patient_and_no_glass_is_divided(patients, groups, seed, exact):
    group = dict(zip(sorted(patients), groups, strict=False))
    splits = splits_of(patients, FIVE_TO_ONE, seed, group=group, exact=exact)
    assert set(splits) == set(patients)
    for key in (patients, {s: g for s, g in group.items() if g}):
        places: dict[str, set[str]] = {}
        for slide, name in key.items():
            places.setdefault(name, set()).add(splits[slide])
        assert all(len(found) == 1 for found in places.values())


@settings(max_examples=30, deadline=None)
@given(st.permutations(sorted(_cohort(12))), st.booleans())
def test_order_of_files_does_not_matter(order, exact):
    cohort = _cohort(12)
    shuffled = {slide: cohort[slide] for slide in order}
    assert splits_of(shuffled, FIVE_TO_ONE, 4, exact=exact) == splits_of(
        cohort, FIVE_TO_ONE, 4, exact=exact
    )


def test_exact_ratio_is_exact_and_seeded():
    cohort = _cohort(60, 1)
    counts = Counter(splits_of(cohort, FIVE_TO_ONE, 1, exact=True).values())
    assert counts == {"train": 45, "val": 5, "test": 10}
    assert splits_of(cohort, FIVE_TO_ONE, 1, exact=True) != splits_of(
        cohort, FIVE_TO_ONE, 2, exact=True
    )


def test_hash_ratio_holds_in_the_long_run_and_ignores_who_else_is_there():
    cohort = _cohort(3_000, 1)
    splits = splits_of(cohort, FIVE_TO_ONE, 1)
    counts = Counter(splits.values())
    assert counts["test"] / 3_000 == pytest.approx(1 / 6, abs=0.02)
    assert counts["val"] / 3_000 == pytest.approx(5 / 6 / 10, abs=0.02)
    part = {slide: cohort[slide] for slide in sorted(cohort)[::3]}
    assert splits_of(part, FIVE_TO_ONE, 1) == {slide: splits[slide] for slide in part}


def test_validation_share_is_as_asked_when_asked():
    counts = Counter(
        splits_of(_cohort(50, 1), {"train": 0.6, "val": 0.2, "test": 0.2}, 0, exact=True).values()
    )
    assert counts == {"train": 30, "val": 10, "test": 10}


def test_every_site_is_divided_in_the_same_ratio():
    cohort = _cohort(120, 1)
    site = {slide: "ABC"[i % 3] for i, slide in enumerate(sorted(cohort))}
    splits = splits_of(cohort, {"train": 3, "val": 1, "test": 1}, 5, site=site)
    for name in "ABC":
        counts = Counter(splits[s] for s in cohort if site[s] == name)
        assert counts == {"train": 24, "val": 8, "test": 8}


def test_many_small_sites_add_up_to_the_ratio():
    cohort = _cohort(100, 1)
    site = {slide: f"site{i // 2}" for i, slide in enumerate(sorted(cohort))}
    splits = splits_of(cohort, {"train": 8, "val": 1, "test": 1}, 5, site=site)
    counts = Counter(splits.values())
    assert abs(counts["test"] - 10) <= 1
    assert abs(counts["val"] - 10) <= 1


@pytest.mark.parametrize("exact", [False, True])
def test_new_slides_append_and_old_ones_never_move(exact):
    cohort = _cohort(40)
    old = {slide: cohort[slide] for slide in sorted(cohort)[:31]}
    before = splits_of(old, FIVE_TO_ONE, 3, exact=exact)
    after = splits_of(cohort, FIVE_TO_ONE, 3, existing=before, exact=exact)
    assert {slide: after[slide] for slide in old} == before
    # Slide 31 belongs to the patient of slide 30, who is already placed.
    assert after[sorted(cohort)[31]] == before[sorted(cohort)[30]]


def test_new_slide_that_connects_two_splits_is_refused():
    patients = {f"s{i}": f"p{i}" for i in range(4)}
    existing = {"s0": "train", "s1": "test"}
    with pytest.raises(ManifestError, match="s0: train, s1: test"):
        splits_of(patients, FIVE_TO_ONE, 0, group={"s0": "g", "s1": "g"}, existing=existing)


def test_fewer_than_three_patients_all_train_with_one_note():
    plan = plan_splits(Cohort(patients=_cohort(2, 5)), FIVE_TO_ONE, 0)
    assert set(plan.splits.values()) == {"train"}
    assert len(plan.notes) == 1
    assert "fewer than 3" in plan.notes[0]
    patients, glass = {"a": "p1", "b": "p2", "c": "p3"}, dict.fromkeys("abc", "glass")
    same_glass = splits_of(patients, FIVE_TO_ONE, 0, group=glass)
    assert set(same_glass.values()) == {"train"}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("exact", [False, True])
def test_three_patients_fill_three_splits(seed, exact):
    assert sorted(splits_of(_cohort(3, 1), FIVE_TO_ONE, seed, exact=exact).values()) == [
        "test", "train", "val",
    ]  # fmt: skip


def test_wrong_weights_are_refused():
    for wrong in ({"train": 1, "tset": 1}, {"train": 0, "test": 1}, {"train": 1, "test": -1},
                  {"train": float("nan")}):  # fmt: skip
        with pytest.raises(ManifestError):
            splits_of(_cohort(5), wrong, 0)
    with pytest.raises(ManifestError, match="holdout"):
        splits_of(_cohort(5), FIVE_TO_ONE, 0, existing={"s000_0": "holdout"})


def test_random_patch_split_leaks_and_the_leak_is_measured():
    grid = np.stack(np.meshgrid(np.arange(0, 20_000, 512), np.arange(0, 20_000, 512)), axis=-1)
    origins = grid.reshape(-1, 2)[:1200]
    ratio = {"train": 5, "val": 0, "test": 1}
    draws = patch_draws("slide", origins, 1)
    splits = random_patch_splits(draws, ratio)
    assert Counter(splits.tolist()) == {"train": 1000, "test": 200}
    test, train = origins[splits == "test"], origins[splits == "train"]
    assert overlapping(_fields(test, 1024), _fields(train, 1024)).mean() > 0.95
    assert not overlapping(_fields(test, 512), _fields(train, 512)).any()
    order = np.random.default_rng(0).permutation(len(origins))
    again = random_patch_splits(patch_draws("slide", origins[order], 1), ratio)
    assert np.array_equal(again, splits[order])
    assert not np.array_equal(patch_draws("other", origins, 1), draws)
    assert random_patch_splits(draws[:0], ratio).shape == (0,)


def test_overlaps_equal_the_plain_definition():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3_000, (60, 2)), rng.integers(0, 3_000, (40, 2))
    dx, dy = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    expected = ((dx > -200) & (dx < 300) & (dy > -200) & (dy < 300)).any(axis=1)
    assert 0 < expected.sum() < len(expected)
    assert np.array_equal(overlapping(_fields(a, 200), _fields(b, 300)), expected)
    assert overlapping(_fields(a[:0], 200), _fields(b, 300)).shape == (0,)
    assert not overlapping(_fields(a, 200), _fields(b[:0], 300)).any()
