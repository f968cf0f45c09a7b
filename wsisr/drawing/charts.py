"""Charts: lines, points, bars and histograms, as what they show.

Values that are not finite (a PSNR of identical images, a step whose loss was skipped) are left
out, never drawn as something else. `wsisr.drawing.painting` paints them once they have a size:
what only names a chart does not pay for matplotlib.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import Float64Array
from wsisr.drawing.painting import Kind, Plot, PlotData, paint
from wsisr.drawing.vector import Chart
from wsisr.errors import ConfigError

__all__ = ["Chart", "ChartSeries", "chart", "histogram"]


@dataclass(frozen=True)
class ChartSeries:
    """One line, cloud of points or set of bars.

    Attributes
    ----------
    name : str
        Shown in the legend where there are several series.
    x : array, shape (n,), or sequence of str
        Names make an axis of categories, in the order of their first appearance.
    y : array, shape (n,)
    low, high : array, shape (n,), optional
        An interval around `y`: a band around lines, whiskers on points and bars.
    kind : {"line", "points", "bars"}
    """

    name: str
    x: ArrayLike | Sequence[str]
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    kind: Kind = "line"


def chart(
    series: Sequence[ChartSeries],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    size_px: tuple[int, int] = (720, 380),
) -> Chart:
    """Draw series on common axes.

    Parameters
    ----------
    series : sequence of ChartSeries
        Bars start at zero and stand side by side. An x axis of names needs names in all.
    title, x_label, y_label : str
        Labels say units.
    log_x : bool
        Logarithmic x axis; values that are not positive are left out.
    size_px : (int, int)
        Width and height; a page shows it at most this wide.

    Raises
    ------
    ConfigError
        If x, y, low and high of a series differ in length.
    """
    named = [_names(one.x) for one in series]
    categories: list[str] = list(dict.fromkeys(name for names in named if names for name in names))
    if categories and not all(named):
        raise ConfigError(f"chart {title!r}: either all series have names on x, or none.")
    data = []
    for index, (one, names) in enumerate(zip(series, named, strict=True)):
        x = np.array([categories.index(n) for n in names]) if names else one.x
        data.append(_finite(one, np.asarray(x, np.float64), index, log_x, title))
    plot = Plot(title, x_label, y_label, tuple(data), log_x, tuple(categories))
    return Chart(title, _describe(plot), *size_px, partial(paint, plot))


def histogram(
    counts: ArrayLike,
    edges: ArrayLike,
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Mapping[str, float] | None = None,
) -> Chart:
    """Bars between edges, as `numpy.histogram` counts them.

    Parameters
    ----------
    counts : array, shape (n,)
    edges : array, shape (n + 1,)
        Finite and increasing.
    marks : mapping of str to float, optional
        Named places on x, e.g. ``{"median 0.08": 0.08}``.

    Raises
    ------
    ConfigError
        If the edges do not fit the counts.
    """
    heights = np.asarray(counts, np.float64).ravel()
    ends = np.asarray(edges, np.float64).ravel()
    if len(ends) != len(heights) + 1 or not np.isfinite(ends).all() or (np.diff(ends) <= 0).any():
        raise ConfigError(
            f"histogram {title!r}: {len(heights)} counts need {len(heights) + 1} finite, "
            "increasing edges."
        )
    middles = (ends[1:] + ends[:-1]) / 2
    data = PlotData(y_label, middles, np.nan_to_num(heights), None, None, "bars", 0)
    ordered = sorted((marks or {}).items(), key=lambda item: -item[1])
    inside = tuple((name, value) for name, value in ordered if ends[0] <= value <= ends[-1])
    plot = Plot(title, x_label, y_label, (data,), edges=ends, marks=inside)
    return Chart(title, _describe(plot), 720, 320, partial(paint, plot))


def histogram_of(
    values: ArrayLike,
    *,
    title: str,
    x_label: str,
    y_label: str,
    start: float | None = None,
    low_is_bad: bool = False,
) -> Chart | None:
    """Values counted into 8 to 40 bars, with their median and the end of 95 % of them; None where
    no value is finite.

    Parameters
    ----------
    values : array
        What is not finite is left out.
    start : float, optional
        Where the axis begins; by default the lowest value.
    low_is_bad : bool
        The 95 % lie above their end instead of below.
    """
    found = np.asarray(values, np.float64).ravel()
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    first, last = float(found.min()) if start is None else start, float(found.max())
    if last - first < 1e-3:  # all alike: one bar in the middle of a small axis
        first, last = first - (0.0 if start == first else 0.005), last + 0.005
    bins = min(40, max(8, len(found) // 4))
    counts, edges = np.histogram(found, bins=bins, range=(first, last))
    median, end = np.percentile(found, [50, 5 if low_is_bad else 95])
    side = "above" if low_is_bad else "below"
    return histogram(
        counts,
        edges,
        title=title,
        x_label=x_label,
        y_label=y_label,
        marks={f"median {median:.3g}": median, f"95 % {side} {end:.3g}": end},
    )


def _names(x: ArrayLike | Sequence[str]) -> list[str] | None:
    values = np.asarray(x)
    return [str(value) for value in values] if values.dtype.kind in "UO" and values.size else None


def _finite(series: ChartSeries, x: Float64Array, index: int, log_x: bool, title: str) -> PlotData:
    """The drawable points of a series."""
    parts = [
        None if part is None else np.asarray(part, np.float64).ravel()
        for part in (series.y, series.low, series.high)
    ]
    y, low, high = parts
    if y is None or any(part is not None and len(part) != len(x) for part in parts):
        raise ConfigError(f"chart {title!r}: the parts of {series.name!r} differ in length.")
    good = np.isfinite(x) & np.isfinite(y)
    if log_x:
        good &= x > 0

    def band(part: Float64Array | None) -> Float64Array | None:
        if part is None or low is None or high is None:
            return None
        return np.where(np.isfinite(part), part, y)[good]

    return PlotData(series.name, x[good], y[good], band(low), band(high), series.kind, index)


def _describe(plot: Plot) -> str:
    words = [f"{plot.y_label or 'y'} over {plot.x_label or 'x'}."]
    for one in plot.series:
        name, kind, y = one.name or "values", "bars" if one.kind == "bars" else "points", one.y
        if len(y):
            ends = f"lowest {y.min():.4g}, highest {y.max():.4g}, last {y[-1]:.4g}"
            words.append(f"{name}: {len(y)} {kind}, {ends}.")
        else:
            words.append(f"{name}: no data.")
    words += [f"{name} at {value:.4g}." for name, value in plot.marks]
    return " ".join(words)
