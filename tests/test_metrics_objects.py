"""Instance metrics: golden numbers, hand-made cases, and a double loop over sets of pixels."""

import math

import numpy as np
import pytest

from wsisr.metrics.classes import accuracy, auc, balanced_accuracy, f1
from wsisr.metrics.images import MetricError
from wsisr.metrics.object_distances import centroid_detection, object_hausdorff
from wsisr.metrics.objects import (
    aji,
    aji_plus,
    binary_dice,
    ensemble_dice,
    gland_detection,
    object_dice,
    overlap,
    panoptic,
)
from wsisr.metrics.statistics import bootstrap_of, compare, smallest_difference


def boxes(shape, *places):
    labels = np.zeros(shape, np.int32)
    for label, (top, bottom, left, right) in enumerate(places, start=1):
        labels[top:bottom, left:right] = label
    return labels


TRUTH = boxes((40, 60), (2, 12, 2, 14), (2, 12, 20, 32), (20, 34, 5, 25), (20, 30, 40, 55))
FOUND = boxes(
    (40, 60), (3, 13, 3, 15), (2, 12, 18, 25), (2, 12, 25, 33), (22, 34, 8, 24), (35, 39, 50, 58)
)
TOUCHING = boxes((20, 30), (2, 8, 2, 10), (2, 8, 10, 18))
MERGED = boxes((20, 30), (2, 8, 2, 18), (12, 16, 20, 26))
NOTHING = np.zeros((20, 30), np.int32)


def test_golden_numbers_of_touching_split_and_missed_objects():
    pair, found = overlap(TRUTH, FOUND), object_hausdorff(TRUTH, FOUND)
    assert gland_detection(pair).f1 == pytest.approx(2 / 3, abs=1e-12)
    assert object_dice(pair).value == pytest.approx(0.6588374028, abs=1e-10)
    assert found.value == pytest.approx(5.7029838105, abs=1e-10)
    assert binary_dice(pair) == pytest.approx(0.7061855670, abs=1e-10)
    assert ensemble_dice(pair) == pytest.approx(0.7459165154, abs=1e-10)
    assert aji(pair) == pytest.approx(0.4495641345, abs=1e-10)
    assert aji_plus(pair) == pytest.approx(0.4495641345, abs=1e-10)
    quality = panoptic(pair)
    assert quality.dq == pytest.approx(2 / 3, abs=1e-12)
    assert quality.sq == pytest.approx(0.6421011613, abs=1e-10)
    assert quality.pq == pytest.approx(0.4280674408, abs=1e-10)


def test_golden_numbers_of_two_glands_merged_into_one():
    # Separates AJI from AJI+; its IoU is one half exactly, which is no match.
    pair = overlap(TOUCHING, MERGED)
    assert binary_dice(pair) == pytest.approx(0.888889, abs=1e-6)
    assert ensemble_dice(pair) == pytest.approx(2 / 3, abs=1e-12)
    assert aji(pair) == pytest.approx(0.444444, abs=1e-6)
    assert aji_plus(pair) == pytest.approx(0.285714, abs=1e-6)
    assert panoptic(pair).pq == 0.0
    assert gland_detection(pair).f1 == 0.5
    assert object_dice(pair).value == pytest.approx(0.6, abs=1e-12)
    assert object_hausdorff(TOUCHING, MERGED).value == pytest.approx(8.6142135624, abs=1e-10)


def test_empty_maps_have_defined_answers():
    both, missed, extra = (
        overlap(*pair) for pair in ((NOTHING, NOTHING), (TOUCHING, NOTHING), (NOTHING, TOUCHING))
    )
    for metric in (aji, aji_plus, binary_dice, ensemble_dice):
        assert math.isnan(metric(both)) and metric(missed) == 0.0 and metric(extra) == 0.0
    assert math.isnan(panoptic(both).pq) and panoptic(missed).pq == 0.0
    assert gland_detection(both).f1 == 1.0 and gland_detection(extra).f1 == 0.0
    assert math.isnan(object_dice(both).value)
    assert math.isnan(object_hausdorff(TOUCHING, NOTHING).value)
    # An image without a distance changes no pooled one.
    known = object_hausdorff(TOUCHING, MERGED)
    assert (known + object_hausdorff(NOTHING, MERGED)).value == known.value
    perfect = overlap(TRUTH, TRUTH)
    assert aji(perfect) == aji_plus(perfect) == panoptic(perfect).pq == 1.0
    assert object_hausdorff(TRUTH, TRUTH).value == 0.0


def test_pooled_values_weight_by_the_areas_of_all_images():
    first, second = overlap(TRUTH, FOUND), overlap(TOUCHING, MERGED)
    pooled = object_dice(first) + object_dice(second)
    mean = (object_dice(first).value + object_dice(second).value) / 2
    by_hand = 0.5 * sum(
        sum(getattr(object_dice(p), f"{side}_sum") for p in (first, second))
        / sum(getattr(p, f"{side}_area").sum() for p in (first, second))
        for side in ("truth", "found")
    )
    assert pooled.value == pytest.approx(by_hand, abs=1e-12) != pytest.approx(mean, abs=1e-3)
    # 3 of 4 glands with 2 extra objects, and 1 of 2 with 1.
    assert (gland_detection(first) + gland_detection(second)).f1 == pytest.approx(8 / 13)


def naive(truth, found):
    """AJI, PQ and object Hausdorff from sets of pixels, one pair after the other."""
    sets = [
        {k: {tuple(p) for p in np.argwhere(m == k).tolist()} for k in np.unique(m) if k}
        for m in (truth, found)
    ]
    g, s = sets
    shared, union, used = 0, 0, set()
    for pixels in g.values():
        best, where = 0.0, None
        for k, others in s.items():
            iou = len(pixels & others) / len(pixels | others)
            if iou > best:
                best, where = iou, k
        if where is None:
            union += len(pixels)
        else:
            used.add(where)
            shared += len(pixels & s[where])
            union += len(pixels | s[where])
    union += sum(len(p) for k, p in s.items() if k not in used)
    ious = [len(a & b) / len(a | b) for a in g.values() for b in s.values()]
    hits = [x for x in ious if x > 0.5]
    pq = sum(hits) / (len(hits) + 0.5 * (len(s) - len(hits)) + 0.5 * (len(g) - len(hits)))

    def hausdorff(a, b):
        a, b = np.array(sorted(a), float), np.array(sorted(b), float)
        d = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
        return max(d.min(1).max(), d.min(0).max())

    def side(mine, theirs):
        total = sum(map(len, mine.values()))
        value = 0.0
        for pixels in mine.values():
            most = max(theirs.values(), key=lambda other: len(pixels & other))
            if pixels & most:
                far = hausdorff(pixels, most)
            else:
                far = min(hausdorff(pixels, other) for other in theirs.values())
            value += len(pixels) / total * far
        return value

    return shared / union, pq, 0.5 * (side(g, s) + side(s, g))


def test_a_double_loop_over_sets_of_pixels_says_the_same():
    rng = np.random.default_rng(4)
    for _ in range(6):
        # Labels with gaps, objects in several pieces, some without any partner.
        truth, found = (
            np.where(rng.random((24, 28)) < 0.6, 3 * np.kron(blocks, np.ones((4, 4), int)), 0)
            for blocks in rng.integers(0, 5, (2, 6, 7))
        )
        found[:, :14] = 0
        pair = overlap(truth, found)
        expected = naive(truth, found)
        assert aji(pair) == pytest.approx(expected[0], abs=1e-12)
        assert panoptic(pair).pq == pytest.approx(expected[1], abs=1e-12)
        assert object_hausdorff(truth, found).value == pytest.approx(expected[2], abs=1e-10)


def test_nuclei_are_found_by_their_centroids_once_each():
    truth = boxes((40, 60), (4, 8, 4, 8), (4, 8, 20, 24), (20, 24, 30, 34))
    found = boxes((40, 60), (4, 8, 6, 10), (5, 9, 4, 8), (20, 24, 40, 44))
    near = centroid_detection(truth, found, radius_px=6)
    assert (near.hits, near.extra, near.missed) == (1, 2, 2)
    # One pair is just 10 px apart; the extra one beside the first nucleus stays extra.
    assert centroid_detection(truth, found, radius_px=10).hits == 2
    assert centroid_detection(truth, np.zeros_like(found), radius_px=10).f1 == 0.0


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(MetricError, match="do not fit"):
        overlap(TRUTH, TOUCHING)
    with pytest.raises(MetricError, match="float64"):
        overlap(TRUTH, TRUTH.astype(float))
    with pytest.raises(MetricError, match="negative"):
        overlap(TRUTH, FOUND - 1)


def test_classifiers_scores_with_ties_and_missing_classes():
    rng = np.random.default_rng(1)
    positive, score = rng.random(40) < 0.3, rng.integers(0, 6, 40).astype(float)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in score[positive] for b in score[~positive]
    ]
    assert auc(positive, score) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert math.isnan(auc([True, True], [0.1, 0.2]))
    with pytest.raises(MetricError, match="no numbers"):
        auc([True, False], [0.1, math.nan])
    truth, said = ["a", "a", "a", "b"], ["a", "a", "b", "b"]
    assert accuracy(truth, said) == 0.75
    assert balanced_accuracy(truth, said) == pytest.approx((2 / 3 + 1) / 2)
    assert f1(truth, said, "b") == pytest.approx(2 / 3)


def test_patients_are_resampled_whole_and_few_of_them_not_at_all():
    units = [n // 2 for n in range(40)]
    values = np.repeat(np.arange(20.0), 2)
    low, high, again = bootstrap_of(lambda at: float(values[at].mean()), units)
    # Twice the images of each patient are no more patients.
    assert again == 0 and high - low == pytest.approx(
        2 * 1.96 * np.std(np.arange(20)) / 20**0.5, rel=0.1
    )
    low, high, again = bootstrap_of(lambda at: math.nan if at[0] % 4 == 0 else 1.0, units, draws=50)
    assert (low, high) == (1.0, 1.0) and again > 0
    assert math.isnan(bootstrap_of(lambda at: 1.0, units[:18])[0])


def test_the_smallest_difference_that_would_have_shown_grows_with_scatter_and_tests():
    rng = np.random.default_rng(0)
    scatter = rng.normal(0, 1, 12)
    smallest = smallest_difference(scatter)
    told = 0
    for _ in range(400):
        moved = rng.normal(0, np.std(scatter, ddof=1), 12) + smallest
        t = moved.mean() / (moved.std(ddof=1) / 12**0.5)
        told += abs(t) > 2.201
    assert 0.72 < told / 400 < 0.88
    assert smallest_difference(scatter, tests=10) > smallest
    assert math.isnan(smallest_difference(scatter[:5]))
    assert math.isnan(smallest_difference(np.zeros(20)))  # no scatter: nothing to learn it from
    worse = compare(dict(enumerate(scatter * 0.01 - 0.02)), dict.fromkeys(range(12), 0.0))
    assert worse.not_worse_by(0.05) and not worse.not_worse_by(0.01)
