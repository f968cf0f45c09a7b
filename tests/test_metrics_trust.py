"""What the audit measures: nuclei that come and go, the three classes, and the promised bound."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from wsisr.metrics.conformal import patients_needed, trust_threshold
from wsisr.metrics.correctness import correctness, optical_density
from wsisr.metrics.images import MetricError
from wsisr.metrics.nuclei import find_blobs, match_points, nuclei_change

PINK, BLUE = (228, 180, 208), (96, 72, 140)


def tissue(centres_um: list[tuple[float, float]], um: float = 0.5, across: float = 8.0) -> NDArray:
    """A pink field of 100 um with round nuclei, a little noise on all of it."""
    side = round(100 / um)
    y, x = np.mgrid[:side, :side] * um
    image = np.full((side, side, 3), PINK, np.float64)
    for cy, cx in centres_um:
        soft = np.clip((across / 2 - np.hypot(y - cy, x - cx)) / um + 0.5, 0, 1)[..., None]
        image = image * (1 - soft) + np.array(BLUE) * soft
    noise = np.random.default_rng(1).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("um", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("across", [6.0, 8.0, 11.0])
def test_blobs_are_where_nuclei_are_and_as_large(um: float, across: float) -> None:
    wanted = [(20.0, 30.0), (50.0, 60.0), (80.0, 25.0)]
    found = find_blobs(tissue(wanted, um, across), um)
    pairs = match_points(np.array(wanted), found.centres_um, 1.0)
    assert len(found) == len(pairs) == 3
    assert np.abs(found.diameters_um - across).max() <= 2.0
    assert find_blobs(tissue([], um), um).responses.size == 0
    most, texture = find_blobs(tissue(wanted, um, across), um, 1e-4), found.responses.min()
    fewer, same = most.above(texture / 2), find_blobs(tissue(wanted, um, across), um, texture / 2)
    assert len(most) > len(fewer) and np.array_equal(fewer.centres_um, same.centres_um)


def test_a_pasted_nucleus_appears_and_a_removed_one_vanishes() -> None:
    both = [(20.0, 30.0), (50.0, 60.0)]
    hr, sr = tissue([*both, (80.0, 25.0)]), tissue([*both, (75.0, 75.0)])
    change = nuclei_change(sr, hr, 0.5)
    assert change.vanished == change.appeared == pytest.approx(1 / 3)
    assert np.abs(change.vanished_um[0, :2] - (80.0, 25.0)).max() < 1.0
    assert np.abs(change.appeared_um[0, :2] - (75.0, 75.0)).max() < 1.0
    # Paler, yet there: it has not gone.
    pale = np.clip(tissue(both) * 0.8 + 0.2 * np.array(PINK), 0, 255).astype(np.uint8)
    assert nuclei_change(pale, tissue(both), 0.5).vanished == 0.0
    glass = np.full_like(hr, 240)
    assert math.isnan(nuclei_change(glass, glass, 0.5).vanished)
    assert nuclei_change(glass, hr, 0.5).vanished == 1.0
    with pytest.raises(MetricError, match="too small"):
        find_blobs(hr, 2.0)
    with pytest.raises(MetricError, match="different fields"):
        nuclei_change(sr[1:], hr, 0.5)


def test_the_most_points_are_matched_not_the_nearest_first() -> None:
    # The nearest pair first would leave one of both alone.
    first, second = np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 1.5], [0.0, 4.0]])
    assert match_points(first, second, 2.1).tolist() == [[0, 0], [1, 1]]
    assert match_points(first, second, 0.1).shape == (0, 2)
    assert match_points(first[:0], second, 9.0).shape == (0, 2)


def test_hr_is_improvement_the_enlarged_lr_omission_and_else_hallucination() -> None:
    draws = np.random.default_rng(0)
    hr = draws.integers(60, 200, (40, 40, 3)).astype(np.uint8)
    low = np.full_like(hr, 120)
    invented = np.where(hr > 120, 30, 250).astype(np.uint8)
    for image, name in ((hr, "improvement"), (low, "omission"), (invented, "hallucination")):
        means = correctness(image, hr, low).means()
        parts = {k: v for k, v in means.items() if k != "seen"}
        assert max(parts, key=parts.__getitem__) == name and sum(parts.values()) == pytest.approx(1)
    # Nothing to win and nothing done has no class; a nucleus invented on glass is a hallucination.
    glass = np.full_like(hr, 240)
    assert math.isnan(correctness(glass, glass, glass).means()["improvement"])
    pasted = glass.copy()
    pasted[10:20, 10:20] = BLUE
    found = correctness(pasted, glass, glass)
    assert found.hallucination[15, 15] > 0.9 and np.isnan(found.hallucination[0, 0])
    assert found.means()["seen"] == pytest.approx(100 / 1600)
    assert optical_density(np.array([255, 0], np.uint8)) == pytest.approx([0, 2.40824], abs=1e-5)
    with pytest.raises(MetricError, match="one shape"):
        correctness(hr, hr, low[1:])


def patients(draws: np.random.Generator, count: int) -> tuple[list[NDArray], list[NDArray]]:
    """Places whose chance of being wrong grows with doubt, by a factor of the patient's own."""
    doubts, errors = [], []
    for _ in range(count):
        doubt = draws.uniform(0, 1, 100)
        worse = draws.uniform(0.1, 1.0)
        doubts.append(doubt)
        errors.append((draws.uniform(0, 1, 100) < worse * doubt).astype(np.float64))
    return doubts, errors


def test_the_bound_holds_in_the_mean_over_draws_of_patients() -> None:
    draws = np.random.default_rng(3)
    losses, trusted = [], []
    for _ in range(400):
        doubts, errors = patients(draws, 21)
        found = trust_threshold(doubts[:20], errors[:20], 0.1)
        losses.append(float((errors[20] * (doubts[20] <= found.threshold)).mean()))
        trusted.append(found.trusted)
    assert np.mean(losses) <= 0.1
    # Not by trusting nothing: twenty patients lose less than 1 / 21 of the bound.
    assert np.mean(losses) > 0.03 and np.mean(trusted) > 0.2


def test_the_threshold_is_the_largest_that_keeps_the_bound() -> None:
    doubts, errors = patients(np.random.default_rng(5), 30)

    def corrected(threshold: float) -> float:
        losses = [(e * (d <= threshold)).mean() for d, e in zip(doubts, errors, strict=True)]
        return (sum(losses) + 1.0) / 31

    found = trust_threshold(doubts, errors, 0.15)
    beyond = np.sort(np.concatenate(doubts))
    beyond = beyond[beyond > found.threshold]
    assert corrected(found.threshold) <= 0.15
    # The first error beyond it breaks the bound.
    assert any(corrected(t) > 0.15 for t in beyond[:40])
    assert found.smallest_alpha == pytest.approx(1 / 31)
    # Equal doubts stand and fall together.
    same = [np.zeros(4)] * 30, [np.array([1.0, 1.0, 0.0, 0.0])] * 30
    with pytest.raises(MetricError, match="No place can be trusted"):
        trust_threshold(*same, 0.15)


def test_too_few_patients_are_refused_with_what_they_could_promise() -> None:
    assert [patients_needed(a) for a in (0.2, 0.1, 0.05, 0.02)] == [4, 9, 19, 49]
    doubts, errors = patients(np.random.default_rng(0), 8)
    with pytest.raises(MetricError, match=r"takes 9 .*0\.111"):
        trust_threshold(doubts, errors, 0.1)
    with pytest.raises(MetricError, match="between 0 and 1"):
        trust_threshold(doubts, [e * 2 for e in errors], 0.5)
