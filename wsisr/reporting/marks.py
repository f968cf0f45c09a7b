"""What charts are made of: title and legend, frame, lines, markers, whiskers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, pi, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsisr.reporting.drawing import Drawing, Point, text_width_px
from wsisr.reporting.scales import Axis

FloatArray = NDArray[np.float64]
Kind = Literal["line", "points", "bars"]

MAX_LINE_POINTS = 800
"""Longer lines are drawn by the lowest and highest value of each stretch."""
FEW_POINTS = 40
COLOURS = 8
TEXT_PX = 12.5
LABEL_ROW_PX = 15.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a chart says and how large it is."""

    title: str
    x_label: str
    y_label: str
    log_x: bool
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True)
class Data:
    """A series as finite numbers."""

    name: str
    x: FloatArray
    y: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    kind: Kind
    colour: str
    index: int


def head(canvas: Drawing, options: Options, series: Sequence[Data]) -> float:
    """Title and legend in rows above the plot, where they hide nothing; returns the plot's top."""
    y = 20.0
    for line in _wrapped(options.title, options.width_px - 20.0):
        canvas.text((10.0, y), line, size_px=15.0, bold=True)
        y += 20.0
    if len(series) < 2:
        return y
    x = 10.0
    for data in series:
        wide = 34.0 + text_width_px(data.name, TEXT_PX) + 14.0
        if x > 10.0 and x + wide > options.width_px:
            x, y = 10.0, y + 19.0
        if data.kind == "bars":
            canvas.boxes([(x + 6, y - 10, x + 20, y + 1)], fill=data.colour, opacity=0.9)
        else:
            if data.kind == "line":
                canvas.path(
                    ((x, y - 4.5), (x + 26, y - 4.5)),
                    stroke=data.colour,
                    width_px=2.0,
                    dash=_dash(data.index),
                )
            _markers(canvas, [(x + 13, y - 4.5)], data)
        canvas.text((x + 32, y), data.name, size_px=TEXT_PX)
        x += wide
    return y + 16.0


def _wrapped(text: str, width_px: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width_px(longer, 15.0, bold=True) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def frame(canvas: Drawing, options: Options, x_axis: Axis, y_axis: Axis, rows: int) -> None:
    """Grid, ticks and labels; `rows` of names below an axis of categories, 0 for numbers."""
    left, right, bottom, top = x_axis.start_px, x_axis.end_px, y_axis.start_px, y_axis.end_px
    canvas.path(*(((left, y), (right, y)) for y in map(y_axis.place, y_axis.ticks)), stroke="grid")
    if not rows:
        canvas.path(
            *(((x, bottom), (x, bottom + 5)) for x in map(x_axis.place, x_axis.ticks)),
            stroke="muted",
        )
    canvas.path(((left, bottom), (right, bottom)), stroke="muted", width_px=1.2)
    for tick, label in zip(y_axis.ticks, y_axis.labels, strict=True):
        place = (left - 8, y_axis.place(tick) + 4.5)
        canvas.text(place, label, size_px=TEXT_PX, colour="muted", anchor="end")
    edges = [-1e9] * max(1, rows)
    for index, (tick, label) in enumerate(zip(x_axis.ticks, x_axis.labels, strict=True)):
        row = index % max(1, rows)
        half = text_width_px(label, TEXT_PX) / 2
        x = max(half + 2, min(x_axis.place(tick), options.width_px - half - 2))
        if label and x - half > edges[row]:
            place = (x, bottom + 18 + LABEL_ROW_PX * row)
            canvas.text(place, label, size_px=TEXT_PX, colour="muted", anchor="middle")
            edges[row] = x + half + (4 if rows else 12)
    if options.x_label:
        wide = text_width_px(options.x_label, TEXT_PX)
        size = max(9.0, min(TEXT_PX, TEXT_PX * (options.width_px - 8.0) / wide))
        centre = (left + right) / 2 if wide < right - left else options.width_px / 2
        place = (centre, options.height_px - 8.0)
        canvas.text(place, options.x_label, size_px=size, anchor="middle")
    if options.y_label:
        place = (15.0, (top + bottom) / 2)
        canvas.text(place, options.y_label, size_px=TEXT_PX, anchor="middle", turned=True)


def draw_line(canvas: Drawing, data: Data, x_axis: Axis, y_axis: Axis, alone: bool) -> None:
    """A band, a line with markers, or points with whiskers."""
    if not len(data.x):
        return
    xs = [x_axis.place(x) for x in data.x]
    points: list[Point] = [(x, y_axis.place(y)) for x, y in zip(xs, data.y, strict=True)]
    if data.kind == "points":
        whiskers(canvas, data, xs, y_axis)
        _markers(canvas, points, data)
        return
    if data.low is not None and data.high is not None:
        upper = _thinned([(x, y_axis.place(y)) for x, y in zip(xs, data.high, strict=True)])
        lower = _thinned([(x, y_axis.place(y)) for x, y in zip(xs, data.low, strict=True)])
        canvas.path([*upper, *reversed(lower)], fill=data.colour, opacity=0.18)
    width = 2.0 if len(points) <= 5 * FEW_POINTS else 1.4
    canvas.path(_thinned(points), stroke=data.colour, width_px=width, dash=_dash(data.index))
    if len(points) <= FEW_POINTS:
        _markers(canvas, points, data)
    elif not alone:
        # A few marks along a long line tell it apart without hiding it; they are staggered.
        step = len(points) // 8
        _markers(canvas, points[(data.index * step // 4) % step :: step], data)


def _thinned(points: list[Point]) -> list[Point]:
    """A long line by the extremes of each stretch: spikes stay, files stay small."""
    if len(points) <= MAX_LINE_POINTS:
        return points
    parts = np.array_split(np.arange(len(points)), MAX_LINE_POINTS // 2)
    chosen = {0, len(points) - 1}
    for part in parts:
        heights = [points[index][1] for index in part]
        chosen |= {int(part[int(np.argmin(heights))]), int(part[int(np.argmax(heights))])}
    return [points[index] for index in sorted(chosen)]


def _dash(index: int) -> tuple[float, ...]:
    """Past the palette's end the colours come again with dashes."""
    return () if index < COLOURS else (7.0, 4.0)


def _markers(canvas: Drawing, points: Sequence[Point], data: Data) -> None:
    """A shape per series, with a rim of the page's colour so that overlaps can be seen."""
    shape = _SHAPES[data.index % len(_SHAPES)]
    canvas.path(
        *([(x + dx, y + dy) for dx, dy in shape] for x, y in points),
        fill=data.colour,
        stroke="paper",
        width_px=1.0,
    )


def _polygon(corners: int, radius: float, turn: float) -> list[Point]:
    angles = [turn + 2 * pi * k / corners for k in range(corners)]
    return [(radius * cos(a), radius * sin(a)) for a in angles]


_SHAPES = (
    _polygon(16, 4.2, 0.0),
    _polygon(4, 5.4, pi / 4),
    _polygon(3, 5.8, -pi / 2),
    _polygon(4, 5.6, 0.0),
    _polygon(3, 5.8, pi / 2),
    _polygon(6, 5.0, 0.0),
    _polygon(5, 5.2, -pi / 2),
    _polygon(3, 5.8, 0.0),
)


def whiskers(canvas: Drawing, data: Data, xs: Sequence[float], y_axis: Axis) -> None:
    if data.low is None or data.high is None:
        return
    lines: list[tuple[Point, Point]] = []
    for x, low, high in zip(xs, data.low, data.high, strict=True):
        a, b = y_axis.place(low), y_axis.place(high)
        lines += [((x, a), (x, b)), ((x - 4, a), (x + 4, a)), ((x - 4, b), (x + 4, b))]
    colour = "ink" if data.kind == "bars" else data.colour
    canvas.path(*lines, stroke=colour, width_px=1.4)


def bar_unit(x_axis: Axis, x: FloatArray) -> float:
    """Canvas px between neighbouring bars."""
    gaps = np.diff(np.unique(x))
    step = float(gaps.min()) if len(gaps) else 1.0
    return abs(x_axis.place(x_axis.low + step) - x_axis.place(x_axis.low))


def label_rows(names: Sequence[str], width_px: float) -> int:
    """In how many staggered rows, at most three, names of categories can be read."""
    room = width_px / max(1, len(names))
    widest = max((text_width_px(name, TEXT_PX) + 4 for name in names), default=0.0)
    return min(3, max(1, ceil(widest / room)))


def fitting(names: Sequence[str], room_px: float) -> tuple[str, ...]:
    """Names of categories, shortened to the room that each has."""
    short = []
    for name in names:
        text = name
        while len(text) > 3 and text_width_px(text, TEXT_PX) > room_px - 4:
            text = text.removesuffix("…")[:-1] + "…"
        short.append(text)
    return tuple(short)
