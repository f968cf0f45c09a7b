"""Charts without a plotting library: `chart` and `histogram` give SVG for pages and PNG for files.

Needs numpy and Pillow only. Values that are not finite (a PSNR of identical images, a step whose
loss was skipped) are left out, never drawn as something else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsisr.errors import ConfigError
from wsisr.reporting.drawing import Drawing, text_width_px
from wsisr.reporting.marks import (
    COLOURS,
    LABEL_ROW_PX,
    TEXT_PX,
    Data,
    Kind,
    Options,
    bar_unit,
    draw_line,
    fitting,
    frame,
    head,
    label_rows,
    whiskers,
)
from wsisr.reporting.scales import Axis, axis

FloatArray = NDArray[np.float64]

NARROW_PX = 380
"""Width of the drawing that narrow screens get."""
MARK_ROW_PX = 16.0


@dataclass(frozen=True)
class Series:
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


class Chart:
    """A finished chart; made by `chart` or `histogram`.

    Attributes
    ----------
    title, description : str
        For captions and screen readers.
    """

    def __init__(
        self,
        series: Sequence[Data],
        options: Options,
        *,
        categories: Sequence[str] = (),
        edges: FloatArray | None = None,
        marks: Mapping[str, float] | None = None,
    ) -> None:
        self._series = tuple(series)
        self._options = options
        self._categories = tuple(categories)
        self._edges = edges
        self._marks = {k: v for k, v in (marks or {}).items() if np.isfinite(v)}
        self.title = options.title
        self.description = self._describe()

    def svg(self, width_px: int | None = None) -> str:
        """Inline SVG; `width_px` lays the chart out anew for a wider or narrower place."""
        return self.drawing(width_px).svg()

    def save_png(self, path: Path | str, scale: float = 2.0) -> None:
        """Write the same drawing as PNG with `scale` px per px of the chart, on white."""
        self.drawing().save_png(Path(path), scale)

    def save_svg(self, path: Path | str) -> None:
        """Write an SVG file of its own, on white."""
        self.drawing().save_svg(Path(path))

    def drawing(self, width_px: int | None = None) -> Drawing:
        """The shapes of the chart, laid out for a width."""
        options = self._options
        if width_px is not None:
            ratio = max(0.74, options.height_px / options.width_px)
            height = options.height_px if width_px >= options.width_px else round(width_px * ratio)
            options = replace(options, width_px=width_px, height_px=height)
        canvas = Drawing(
            width_px=options.width_px,
            height_px=options.height_px,
            title=self.title,
            description=self.description,
        )
        top = head(canvas, options, self._series) + MARK_ROW_PX * len(self._marks)
        rows = label_rows(self._categories, options.width_px - 80.0)
        y_axis, left = self._y_axis(options, top, LABEL_ROW_PX * (rows - 1))
        x_axis = self._x_axis(options, left, rows)
        frame(canvas, options, x_axis, y_axis, rows if self._categories else 0)
        if not any(len(data.x) for data in self._series):
            middle = ((x_axis.start_px + x_axis.end_px) / 2, (y_axis.start_px + y_axis.end_px) / 2)
            canvas.text(middle, "no data", colour="muted", anchor="middle", size_px=TEXT_PX)
        self._draw_bars(canvas, x_axis, y_axis)
        for data in self._series:
            if data.kind != "bars":
                draw_line(canvas, data, x_axis, y_axis, len(self._series) == 1)
        self._draw_marks(canvas, x_axis, y_axis)
        return canvas

    def _y_axis(self, options: Options, top: float, below_px: float) -> tuple[Axis, float]:
        values = [
            part
            for data in self._series
            for part in (data.y, data.low, data.high)
            if part is not None and len(part)
        ]
        together = np.concatenate([*values, np.empty(0)])
        bars = any(data.kind == "bars" for data in self._series)
        bottom = options.height_px - below_px - (46.0 if options.x_label else 28.0)
        whole = bars and bool((together == np.rint(together)).all())
        found = axis(together.tolist(), bottom, top, zero=bars, whole=whole, per_tick_px=52.0)
        widest = max((text_width_px(label, TEXT_PX) for label in found.labels), default=0.0)
        return found, 35.0 + widest

    def _x_axis(self, options: Options, left: float, rows: int) -> Axis:
        right = options.width_px - 16.0
        if self._categories:
            count = len(self._categories)
            return Axis(
                low=-0.5,
                high=count - 0.5,
                start_px=left,
                end_px=right,
                ticks=tuple(float(index) for index in range(count)),
                labels=fitting(self._categories, rows * (right - left) / count),
            )
        if self._edges is not None:
            low, high = float(self._edges[0]), float(self._edges[-1])
            return axis([low, high], left, right, tight=True)
        values = np.concatenate([*(data.x for data in self._series), np.empty(0)])
        points = any(data.kind != "line" for data in self._series)
        return axis(values.tolist(), left, right, log=options.log_x, tight=not points)

    def _draw_bars(self, canvas: Drawing, x_axis: Axis, y_axis: Axis) -> None:
        bars = [data for data in self._series if data.kind == "bars"]
        base = y_axis.place(0.0) if bars else 0.0
        for place, data in enumerate(bars):
            if self._edges is not None:
                ends = [x_axis.place(float(edge)) for edge in self._edges]
                spans = [(a + 0.5, b - 0.5) for a, b in pairwise(ends)]
            else:
                unit = bar_unit(x_axis, data.x)
                wide = min(0.8 * unit / len(bars), 56.0)
                first = -wide * len(bars) / 2 + place * wide
                spans = [
                    (x_axis.place(x) + first + 0.5, x_axis.place(x) + first + wide - 0.5)
                    for x in data.x
                ]
            canvas.boxes(
                ((a, y_axis.place(y), b, base) for (a, b), y in zip(spans, data.y, strict=True)),
                fill=data.colour,
                opacity=0.9,
            )
            whiskers(canvas, data, [(a + b) / 2 for a, b in spans], y_axis)

    def _draw_marks(self, canvas: Drawing, x_axis: Axis, y_axis: Axis) -> None:
        """Named lines; the names stand above the plot, one row each."""
        ordered = sorted(self._marks.items(), key=lambda item: -item[1])
        for row, (name, value) in enumerate(ordered):
            if not x_axis.low <= value <= x_axis.high:
                continue
            x, top = x_axis.place(value), y_axis.end_px - MARK_ROW_PX * (len(ordered) - row)
            canvas.path(
                ((x, top), (x, y_axis.start_px)), stroke="ink", width_px=1.2, dash=(4.0, 3.0)
            )
            # Lines of larger values run through this row, on the right.
            wide = text_width_px(name, TEXT_PX) + 6
            right = x - wide < 8.0 or (row == 0 and x + wide < x_axis.end_px)
            place = (x + 5, top + 11) if right else (x - 5, top + 11)
            canvas.text(place, name, size_px=TEXT_PX, anchor="start" if right else "end")

    def _describe(self) -> str:
        x, y = self._options.x_label or "x", self._options.y_label or "y"
        words = [f"{y} over {x}."]
        for data in self._series:
            if len(data.y):
                words.append(
                    f"{data.name or 'values'}: {len(data.y)} "
                    f"{'bars' if data.kind == 'bars' else 'points'}, lowest {data.y.min():.4g}, "
                    f"highest {data.y.max():.4g}, last {data.y[-1]:.4g}."
                )
            else:
                words.append(f"{data.name or 'values'}: no data.")
        words += [f"{name} at {value:.4g}." for name, value in self._marks.items()]
        return " ".join(words)


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    width_px: int = 720,
    height_px: int = 380,
) -> Chart:
    """Draw series on common axes.

    Parameters
    ----------
    series : sequence of Series
        Bars start at zero and stand side by side. An x axis of names needs names in all.
    title, x_label, y_label : str
        Labels say units.
    log_x : bool
        Logarithmic x axis; values that are not positive are left out.
    width_px, height_px : int
        Of the drawing; a page shows it at most this wide.

    Raises
    ------
    ConfigError
        If x, y, low and high of a series differ in length.
    """
    options = Options(
        title=title,
        x_label=x_label,
        y_label=y_label,
        log_x=log_x,
        width_px=width_px,
        height_px=height_px,
    )
    named = [_names(one.x) for one in series]
    categories: list[str] = list(dict.fromkeys(name for names in named if names for name in names))
    if categories and not all(named):
        raise ConfigError(f"chart {title!r}: either all series have names on x, or none.")
    data = []
    for index, (one, names) in enumerate(zip(series, named, strict=True)):
        x = np.array([categories.index(n) for n in names]) if names else one.x
        data.append(_finite(one, np.asarray(x, np.float64), index, log_x, title))
    return Chart(data, options, categories=categories)


def histogram(
    counts: ArrayLike,
    edges: ArrayLike,
    *,
    title: str,
    x_label: str,
    y_label: str,
    marks: Mapping[str, float] | None = None,
    width_px: int = 720,
    height_px: int = 320,
) -> Chart:
    """Bars between edges, as `numpy.histogram` counts them.

    Parameters
    ----------
    counts : array, shape (n,)
    edges : array, shape (n + 1,)
        Finite and increasing.
    title, x_label, y_label : str
    marks : mapping of str to float, optional
        Named places on x, e.g. ``{"median 0.08": 0.08}``.
    width_px, height_px : int

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
    data = Data(
        name=y_label,
        x=(ends[1:] + ends[:-1]) / 2,
        y=np.nan_to_num(heights),
        low=None,
        high=None,
        kind="bars",
        colour="c1",
        index=0,
    )
    options = Options(
        title=title,
        x_label=x_label,
        y_label=y_label,
        log_x=False,
        width_px=width_px,
        height_px=height_px,
    )
    return Chart([data], options, edges=ends, marks=marks)


def _names(x: ArrayLike | Sequence[str]) -> list[str] | None:
    values = np.asarray(x)
    return [str(value) for value in values] if values.dtype.kind in "UO" and values.size else None


def _finite(series: Series, x: FloatArray, index: int, log_x: bool, title: str) -> Data:
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

    def band(part: FloatArray | None) -> FloatArray | None:
        if part is None or low is None or high is None:
            return None
        return np.where(np.isfinite(part), part, y)[good]

    return Data(
        name=series.name,
        x=x[good],
        y=y[good],
        low=band(low),
        high=band(high),
        kind=series.kind,
        colour=f"c{index % COLOURS + 1}",
        index=index,
    )
