"""Patients, not slides or patches, are counted, resampled and tested."""

import math

import numpy as np
import pytest
import scipy.stats

from wsisr.metrics import MetricError
from wsisr.metrics.statistics import (
    bootstrap,
    compare,
    holm,
    least_units,
    slide_means,
    summarise,
    unit_means,
    unit_of,
)


def test_slides_weigh_alike_whatever_their_patches() -> None:
    values, slides = [30.0, 30.0, 30.0, 20.0], ["a", "a", "a", "b"]
    assert slide_means(values, slides) == {"a": 30.0, "b": 20.0}
    summary = summarise(slide_means(values, slides))
    assert summary.mean == 25.0 and summary.units == 2
    assert math.isnan(summary.low)


def test_patients_weigh_alike_whatever_their_slides() -> None:
    values = [30.0, 32.0, 20.0, 10.0]
    slides = ["a", "a", "b", "c"]
    units = {"a": unit_of("a", "p"), "b": unit_of("b", "p"), "c": unit_of("c", "")}
    assert unit_means(values, slides, units) == {("patient", "p"): 25.5, ("slide", "c"): 10.0}


def test_what_a_slide_counts_for() -> None:
    # A slide is not its namesake of a patient, and its own name is no patient.
    assert unit_of("x", "y") != unit_of("y", "")
    assert unit_of("x", "x", "glass") == unit_of("x", "", "glass") == ("slide", "glass")
    assert unit_of("x", "p", "glass") == ("patient", "p")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_mean_never_leaves_a_score_out(value: float) -> None:
    with pytest.raises(MetricError, match="1 of 2 scores are not finite"):
        slide_means([value, 30.0], ["a", "b"])
    assert math.isnan(summarise({}).mean)


@pytest.mark.parametrize("count", [6, 12])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        low, high = bootstrap(rng.normal(5.0, 2.0, count), draws=400, seed=trial)
        hits += low <= 5.0 <= high
    assert 0.915 <= hits / 400 <= 0.98
    assert all(math.isnan(v) for v in bootstrap(np.arange(5.0)))


def test_comparison_is_paired_over_common_units() -> None:
    rng = np.random.default_rng(1)
    base = {f"s{i}": float(v) for i, v in enumerate(rng.normal(28, 4, 12))}
    better = {slide: value + 0.2 + 0.02 * i for i, (slide, value) in enumerate(base.items())}
    result = compare({**better, "extra": 1.0}, base)
    assert result.units == 12 and result.distinguishable and result.low > 0.2
    differences = [better[s] - base[s] for s in base]
    assert result.p_value == pytest.approx(scipy.stats.wilcoxon(differences).pvalue)
    assert compare(base, base).p_value == 1.0 and not compare(base, base).distinguishable


@pytest.mark.parametrize(("units", "most"), [(5, 0.0), (6, 0.05), (9, 0.065)])
def test_equal_models_are_rarely_told_apart(units: int, most: float) -> None:
    # The exact rates of 10,000 draws are in benchmarks/verdicts.py.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        a = dict(enumerate(rng.normal(26, 1, units).tolist()))
        b = {i: v + float(rng.normal(0, 0.2)) for i, v in a.items()}
        hits += compare(a, b, draws=200).distinguishable
    assert hits / 400 <= most


def test_no_p_value_and_no_interval_below_six_units() -> None:
    few = {f"s{i}": float(i) for i in range(5)}
    result = compare({s: v + 1 for s, v in few.items()}, few)
    assert result.p_value is None and math.isnan(result.low) and not result.distinguishable
    with pytest.raises(MetricError):
        compare({"a": 1.0}, {"b": 1.0})
    with pytest.raises(MetricError):
        slide_means([1.0], ["a", "b"])


def test_slides_without_any_difference_do_not_make_a_test() -> None:
    # The normal approximation would say 0.043 of five signs, which cannot reach 0.05.
    base = dict.fromkeys(range(25), 0.0)
    assert compare({**base, **{i: i + 1.0 for i in range(5)}}, base).p_value == 0.0625


def test_holm() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.01, 0.02], family=6) == pytest.approx([0.06, 0.1])
    assert (least_units(1), least_units(3), least_units(45)) == (6, 7, 11)
