"""How a chart is laid out and painted; matplotlib is imported inside functions alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import Float64Array, Int64Array
from wsisr.drawing.axes import axis_ends, fitting, label_rows, tick_labels, ticks_between
from wsisr.drawing.style import LIGHT, MARKERS, SERIES, TEXT_PX, TITLE_PX
from wsisr.drawing.vector import Readout, put, text_width_px, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["line", "points", "bars"]

MAX_LINE_POINTS = 800
"""Longer lines are drawn by the lowest and highest value of each stretch."""
FEW_POINTS = 40
LABEL_ROW_PX, MARK_ROW_PX = 15.0, 16.0
APART_PX = 9.0
"""Points of several series at one place stand so far from each other."""


@dataclass(frozen=True)
class PlotData:
    """A series as finite numbers."""

    name: str
    x: Float64Array
    y: Float64Array
    low: Float64Array | None
    high: Float64Array | None
    kind: Kind
    index: int

    @property
    def colour(self) -> str:
        return SERIES[self.index % len(SERIES)]

    @property
    def line(self) -> dict[str, Any]:
        """Past the palette's end the colours come again with dashes."""
        dash = "-" if self.index < len(SERIES) else (0, (5, 3))
        return {"color": self.colour, "linestyle": dash if self.kind == "line" else "none"}

    @property
    def mark(self) -> dict[str, Any]:
        """Colour and a shape of its own, with the rim of the style."""
        shape = MARKERS[self.index % len(MARKERS)]
        return {"color": self.colour, "marker": shape, "linestyle": "none"}


@dataclass(frozen=True)
class Plot:
    """What a chart shows, before it has a size."""

    title: str
    x_label: str
    y_label: str
    series: tuple[PlotData, ...]
    log_x: bool = False
    categories: tuple[str, ...] = ()
    edges: Float64Array | None = None
    marks: tuple[tuple[str, float], ...] = ()


def paint(plot: Plot, figure: "Figure", width: float, height: float) -> list[Readout]:
    """Title and legend in rows above the plot, where they hide nothing, then the plot."""
    top = _head(plot, figure, width) + MARK_ROW_PX * len(plot.marks)
    rows = label_rows(plot.categories, width - 80.0)
    below = 46.0 if plot.x_label else 28.0
    bottom = height - below - LABEL_ROW_PX * max(0, rows - 1)
    low, high, y_ticks = _y_axis(plot, bottom - top)
    y_labels = tick_labels(y_ticks)
    left = 35.0 + max((text_width_px(label) for label in y_labels), default=0.0)
    right = width - 16.0
    wide, tall = (right - left) / width, (bottom - top) / height
    axes = figure.add_axes((left / width, 1 - bottom / height, wide, tall))
    axes.set_ylim(low, high)
    x_ticks, x_labels = _x_axis(plot, axes, right - left, rows)
    _frame(axes, y_ticks, () if plot.categories else x_ticks)

    def place(x: ArrayLike, y: ArrayLike) -> Float64Array:
        """Data to px of the drawing, y downwards."""
        points = np.column_stack(np.broadcast_arrays(np.atleast_1d(x), np.atleast_1d(y)))
        return np.asarray(axes.transData.transform(points) * [1, -1] + [0, height], np.float64)

    for tick, label in zip(y_ticks, y_labels, strict=True):
        y = float(place(1.0, tick)[0, 1])
        put(figure, left - 8, y + 4.5, label, colour="muted", ha="right")
    ends = [-1e9] * max(1, rows)
    for index, (tick, label) in enumerate(zip(x_ticks, x_labels, strict=True)):
        row, half = index % max(1, rows), text_width_px(label) / 2
        x = max(half + 2, min(float(place(tick, low)[0, 0]), width - half - 2))
        if label and x - half > ends[row]:
            y = bottom + 18 + LABEL_ROW_PX * row
            put(figure, x, y, label, colour="muted", ha="center")
            ends[row] = x + half + (4 if rows else 12)
    if plot.x_label:
        wide = text_width_px(plot.x_label)
        size = max(9.0, min(TEXT_PX, TEXT_PX * (width - 8.0) / wide))
        centre = (left + right) / 2 if wide < right - left else width / 2
        put(figure, centre, height - 8.0, plot.x_label, size=size, ha="center")
    if plot.y_label:
        put(figure, 15.0, (top + bottom) / 2, plot.y_label, ha="center", va="center", rotation=90)
    if not any(len(data.x) for data in plot.series):
        middle = (left + right) / 2, (top + bottom) / 2
        put(figure, *middle, "no data", colour="muted", ha="center")
        return []
    readouts = [*_bars(plot, axes, place), *_points(plot, axes, place)]
    for data in plot.series:
        if data.kind == "line" and len(data.x):
            readouts.append(_line(data, axes, place, alone=len(plot.series) == 1))
    _marks(plot, figure, axes, width, top, place)
    return readouts


def _head(plot: Plot, figure: "Figure", width: float) -> float:
    """Returns the plot's top."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    height = figure.get_size_inches()[1] * 72
    y = 20.0
    for line in wrapped(plot.title, width - 20.0):
        put(figure, 10.0, y, line, size=TITLE_PX, weight="bold")
        y += 20.0
    if len(plot.series) < 2:
        return y
    x = 10.0
    for data in plot.series:
        wide = 34.0 + text_width_px(data.name) + 14.0
        if x > 10.0 and x + wide > width:
            x, y = 10.0, y + 19.0
        if data.kind == "bars":
            corner = ((x + 6) / width, 1 - (y + 1) / height)
            box = Rectangle(corner, 14 / width, 11 / height, color=data.colour, linewidth=0)
            box.set_transform(figure.transFigure)
            figure.add_artist(box)
        else:
            at = [(x + d) / width for d in (0, 13, 26)], [1 - (y - 4.5) / height] * 3
            look = {**data.mark, **data.line, "markevery": [1]}
            figure.add_artist(Line2D(*at, linewidth=2, **look))
        put(figure, x + 32, y, data.name)
        x += wide
    return y + 16.0


def _y_axis(plot: Plot, room_px: float) -> tuple[float, float, list[float]]:
    parts = [part for one in plot.series for part in (one.y, one.low, one.high)]
    together = np.concatenate([part for part in parts if part is not None] or [np.empty(0)])
    bars = any(data.kind == "bars" for data in plot.series)
    whole = bars and bool((together == np.rint(together)).all())
    low, high = axis_ends(together, zero=bars)
    return low, high, ticks_between(low, high, max(2, round(room_px / 52)), whole=whole)


def _x_axis(
    plot: Plot, axes: "Axes", room_px: float, rows: int
) -> tuple[Sequence[float], Sequence[str]]:
    """Set the limits; returns ticks and their labels."""
    if plot.categories:
        count = len(plot.categories)
        axes.set_xlim(-0.5, count - 0.5)
        return range(count), [fitting(n, rows * room_px / count) for n in plot.categories]
    if plot.edges is not None:
        low, high = axis_ends(plot.edges[[0, -1]], tight=True)
    else:
        values = np.concatenate([*(data.x for data in plot.series), np.empty(0)])
        tight = all(data.kind == "line" for data in plot.series)
        low, high = axis_ends(values, log=plot.log_x, tight=tight)
        if any(data.kind == "bars" for data in plot.series):
            low, high = low - _gap(values) / 2, high + _gap(values) / 2
    if plot.log_x:
        axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = ticks_between(low, high, max(2, round(room_px / 70)), log=plot.log_x)
    if plot.log_x:
        return ticks, [tick_labels([tick])[0] if tick >= 1e4 else f"{tick:g}" for tick in ticks]
    return ticks, tick_labels(ticks)


def _gap(values: Float64Array) -> float:
    gaps = np.diff(np.unique(values))
    return float(gaps.min()) if len(gaps) else 1.0


def _frame(axes: "Axes", y_ticks: Sequence[float], x_ticks: Sequence[float]) -> None:
    """A light grid, a line below, and small ticks on it."""
    from matplotlib.ticker import NullLocator

    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(x_ticks), labels=[""] * len(x_ticks))
    axes.set_yticks(list(y_ticks), labels=[""] * len(y_ticks))
    for line in axes.get_ygridlines():
        line.set_clip_on(False)
    axes.patch.set_visible(False)


Place = Callable[[ArrayLike, ArrayLike], Float64Array]


def _read(data: PlotData, points: Float64Array, names: Sequence[str] = ()) -> Readout:
    """At most 200 places of a series for the pointer."""
    some = slice(None, None, ceil(len(points) / 200))
    x = names[some] if names else [f"{value:,.6g}" for value in data.x[some]]
    rows = zip(points[some].round(1).tolist(), x, data.y[some].tolist(), strict=True)
    found = tuple((*point, name, f"{value:,.4g}") for point, name, value in rows)
    return Readout(name=data.name, colour=data.colour, points=found)


def _bars(plot: Plot, axes: "Axes", place: Place) -> list[Readout]:
    bars, found = [data for data in plot.series if data.kind == "bars"], []
    for number, data in enumerate(bars):
        middle, names = data.x, [plot.categories[int(x)] for x in data.x] if plot.categories else []
        if plot.edges is not None:
            wide = np.diff(plot.edges)
            names = [f"{a:.3g} to {b:.3g}" for a, b in pairwise(plot.edges.tolist())]
        else:
            left, right = place([0.0, 1.0], 0.0)[:, 0]
            gap = _gap(np.concatenate([one.x for one in bars]))
            one = min(0.8 * gap / len(bars), 56.0 / (right - left))
            middle, wide = data.x + (number - (len(bars) - 1) / 2) * one, np.full(len(data.x), one)
        rim = LIGHT["paper"]
        axes.bar(middle, data.y, wide, color=data.colour, edgecolor=rim, linewidth=1, zorder=2)
        _whiskers(axes, data, middle, LIGHT["ink"])
        found.append(_read(data, place(middle, data.y), names))
    return found


def _points(plot: Plot, axes: "Axes", place: Place) -> list[Readout]:
    """Points with whiskers; those that share a place on x stand side by side."""
    clouds = [data for data in plot.series if data.kind == "points" and len(data.x)]
    if not clouds:
        return []
    pixels = np.concatenate([place(data.x, data.y)[:, 0] for data in clouds])
    owner = np.repeat(np.arange(len(clouds)), [len(data.x) for data in clouds])
    moved = pixels + _apart(pixels, owner)
    back = axes.transData.inverted()
    found = []
    for number, data in enumerate(clouds):
        own = moved[owner == number]
        x = back.transform(np.column_stack([own, np.zeros(len(own))]))[:, 0]
        _whiskers(axes, data, x, data.colour)
        axes.plot(x, data.y, **data.mark)
        found.append(_read(data, place(x, data.y)))
    return found


def _apart(pixels: Float64Array, owner: Int64Array) -> Float64Array:
    """How far each point is moved, px: neighbours of different series closer than a marker part."""
    shift = np.zeros(len(pixels))
    order = np.argsort(pixels, kind="stable")
    breaks = np.flatnonzero(np.diff(pixels[order]) > APART_PX) + 1
    for group in np.split(order, breaks):
        members = sorted(set(owner[group].tolist()))
        if len(members) > 1:
            offsets = (np.arange(len(members)) - (len(members) - 1) / 2) * APART_PX
            shift[group] = offsets[np.searchsorted(members, owner[group])]
    return shift


def _whiskers(axes: "Axes", data: PlotData, x: Float64Array, colour: str) -> None:
    if data.low is not None and data.high is not None and len(x):
        both = np.abs(np.stack([data.y - data.low, data.high - data.y]))
        look: dict[str, Any] = {"elinewidth": 1.4, "capsize": 4, "capthick": 1.4}
        axes.errorbar(x, data.y, both, fmt="none", ecolor=colour, **look)


def _line(data: PlotData, axes: "Axes", place: Place, *, alone: bool) -> Readout:
    """A band and a line, with markers where they are few."""
    if data.low is not None and data.high is not None:
        axes.fill_between(data.x, data.low, data.high, color=data.colour, alpha=0.18, linewidth=0)
    kept, few = _thinned(data.y), len(data.x) <= FEW_POINTS
    width = 2.0 if len(data.x) <= 5 * FEW_POINTS else 1.4
    look = {**data.mark, **data.line} if few else data.line
    axes.plot(data.x[kept], data.y[kept], linewidth=width, **look)
    if not few and not alone:
        # A few marks along a long line tell it apart without hiding it; they are staggered.
        step = len(data.x) // 8
        some = slice((data.index * step // 4) % step, None, step)
        axes.plot(data.x[some], data.y[some], **data.mark)
    return _read(data, place(data.x, data.y))


def _thinned(y: Float64Array) -> Int64Array:
    """A long line by the extremes of each stretch: spikes stay, files stay small."""
    if len(y) <= MAX_LINE_POINTS:
        return np.arange(len(y))
    chosen = {0, len(y) - 1}
    for part in np.array_split(np.arange(len(y)), MAX_LINE_POINTS // 2):
        chosen |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    return np.array(sorted(chosen))


def _marks(
    plot: Plot, figure: "Figure", axes: "Axes", width: float, top: float, place: Place
) -> None:
    """Named lines; the names stand above the plot, one row each."""
    tall = axes.get_window_extent().height
    for row, (name, value) in enumerate(plot.marks):
        x, above = float(place(value, 0.0)[0, 0]), MARK_ROW_PX * (len(plot.marks) - row)
        axes.axvline(value, 0, 1 + above / tall, color=LIGHT["ink"], linewidth=1.2, dashes=(3, 2))
        # Lines of larger values run through this row, on the right.
        wide = text_width_px(name) + 6
        right = x - wide < 8.0 or (row == 0 and x + wide < width - 16)
        side = "left" if right else "right"
        put(figure, x + (5 if right else -5), top - above + 11, name, ha=side)
