"""Slides, not patches, are counted, resampled and tested."""

import math

import numpy as np
import pytest
import scipy.stats

from wsisr.metrics import MetricError
from wsisr.metrics.statistics import bootstrap, compare, holm, slide_means, summarise


def test_slides_weigh_alike_whatever_their_patches() -> None:
    values, slides = [30.0, 30.0, 30.0, 20.0], ["a", "a", "a", "b"]
    assert slide_means(values, slides) == {"a": 30.0, "b": 20.0}
    summary = summarise(values, slides)
    assert summary.mean == 25.0 and summary.slides == 2 and summary.images == 4


def test_identical_images_are_counted_and_left_out() -> None:
    summary = summarise([math.inf, 30.0, math.inf], ["a", "a", "b"])
    assert (summary.mean, summary.slides, summary.infinite) == (30.0, 1, 2)
    assert math.isnan(summary.low) and math.isnan(summary.deviation)
    assert math.isnan(summarise([math.inf], ["a"]).mean)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap(rng.normal(5.0, 2.0, 30), draws=400, seed=trial)
        hits += low <= 5.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_comparison_is_paired_over_common_slides() -> None:
    rng = np.random.default_rng(1)
    base = {f"s{i}": float(v) for i, v in enumerate(rng.normal(28, 4, 12))}
    better = {slide: value + 0.2 + 0.02 * i for i, (slide, value) in enumerate(base.items())}
    result = compare({**better, "extra": 1.0}, base)
    assert result.slides == 12 and result.distinguishable and result.low > 0.2
    differences = [better[s] - base[s] for s in base]
    assert result.p_value == pytest.approx(scipy.stats.wilcoxon(differences).pvalue)
    assert compare(base, base).p_value == 1.0 and not compare(base, base).distinguishable


def test_no_p_value_below_six_slides() -> None:
    few = {f"s{i}": float(i) for i in range(5)}
    assert compare({s: v + 1 for s, v in few.items()}, few).p_value is None
    with pytest.raises(MetricError):
        compare({"a": 1.0}, {"b": 1.0})
    with pytest.raises(MetricError):
        slide_means([1.0], ["a", "b"])


def test_holm() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
