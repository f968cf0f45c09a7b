"""What every chart is: a drawing with a title and a description, as SVG, PNG or PDF."""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from wsisr.arrays import UInt8Array
from wsisr.drawing.style import FONT, LIGHT, MATPLOTLIB, TEXT_PX, TITLE_PX
from wsisr.errors import ConfigError
from wsisr.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PX_PER_INCH = 72.0
_ROLES = {value: f"var(--{name},{value})" for name, value in LIGHT.items()}


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What a page shows beside the pointer: places in px of the drawing with their values.

    Attributes
    ----------
    points : tuple of (x px, y px, x in words, y in words)
    """

    name: str
    colour: str
    points: tuple[tuple[float, float, str, str], ...]


Paint = Callable[["Figure", float, float], list[Readout]]


@dataclass(frozen=True)
class Chart:
    """A chart that has not been drawn yet.

    Attributes
    ----------
    title, description : str
        For captions and screen readers; every chart has both.
    width_px, height_px : int
        Of the drawing.
    paint : callable
        Draws it on a figure of a width and height in px, and says what the pointer may read.
    fixed : bool
        The height is that of the content and stays where the drawing gets narrower.
    """

    title: str
    description: str
    width_px: int
    height_px: int
    paint: Paint
    fixed: bool = False

    def sized(self, size_px: tuple[int, int]) -> "Chart":
        """The same chart drawn at another width and height."""
        return replace(self, width_px=size_px[0], height_px=size_px[1])

    def svg(self, width_px: int | None = None) -> str:
        """Inline SVG with colours of the page's theme; `width_px` lays it out for another width."""
        if width_px is None or width_px == self.width_px:
            return _cleaned(self, self._printed, self._drawn[1], self._size, themed=True)
        height = self.height_px
        if width_px < self.width_px and not self.fixed:
            height = round(width_px * max(0.74, height / self.width_px))
        size = (width_px, height)
        # Pointers that hover belong to wide screens: no readouts.
        return _cleaned(self, _print(_draw(self.paint, size)[0]), (), size, themed=True)

    def image(self, scale: float = 2.0) -> UInt8Array:
        """The drawing as pixels, `scale` of them per px, on white; shape (h, w, 3)."""
        out = io.BytesIO(self._written("png", scale))
        return np.asarray(Image.open(out).convert("RGB"))

    def save(self, *paths: Path | str, scale: float = 2.0) -> None:
        """Write files: PNG with `scale` px per px, PDF or SVG for papers, as their suffixes say.

        Raises
        ------
        ConfigError
            A suffix is another one.
        """
        for path in map(Path, paths):
            kind = path.suffix.lower().removeprefix(".")
            if kind not in ("png", "pdf", "svg"):
                raise ConfigError(f"{path}: charts are written as .png, .pdf or .svg.")
            replace_file(path, self._written(kind, scale))

    def _written(self, kind: str, scale: float) -> bytes:
        if kind == "svg":
            return _cleaned(self, self._printed, (), self._size, themed=False).encode()
        out = io.BytesIO()
        # No date: the same chart is the same file.
        stamp = {"CreationDate": None} if kind == "pdf" else {"Software": None}
        with _styled():
            self._drawn[0].savefig(out, format=kind, dpi=PX_PER_INCH * scale, metadata=stamp)
        return out.getvalue()

    @property
    def _size(self) -> tuple[int, int]:
        return self.width_px, self.height_px

    @cached_property
    def _drawn(self) -> "tuple[Figure, list[Readout]]":
        return _draw(self.paint, self._size)

    @cached_property
    def _printed(self) -> str:
        return _print(self._drawn[0])


def save_charts(folder: Path, charts: Mapping[str, Chart]) -> None:
    """Write each chart as ``NAME.png`` and ``NAME.svg``, and all as pages of ``charts.pdf``.

    One PDF, since most of its cost are the fonts in it.
    """
    if not charts:
        return
    from matplotlib.backends.backend_pdf import PdfPages

    out = io.BytesIO()
    for name, one in charts.items():
        one.save(folder / f"{name}.png", folder / f"{name}.svg")
    with _styled(), PdfPages(out, metadata={"CreationDate": None}) as pages:
        for one in charts.values():
            pages.savefig(one._drawn[0])
    replace_file(folder / "charts.pdf", out.getvalue())


@contextmanager
def _styled() -> Iterator[None]:
    """Our style, whatever a user's own settings of matplotlib are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(MATPLOTLIB)  # type: ignore[arg-type]
        yield


def _draw(paint: Paint, size: tuple[int, int]) -> "tuple[Figure, list[Readout]]":
    from matplotlib.figure import Figure

    inches = (size[0] / PX_PER_INCH, size[1] / PX_PER_INCH)
    with _styled():
        figure = Figure(figsize=inches, dpi=PX_PER_INCH, facecolor=LIGHT["paper"])
        readouts = paint(figure, float(size[0]), float(size[1]))
    # Axes hold all that is drawn on them, and markers at their ends stay whole.
    for artist in (one for axes in figure.axes for one in axes.get_children()):
        artist.set_clip_on(False)
    return figure, readouts


def _print(figure: "Figure") -> str:
    """matplotlib's SVG, without the sheet."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    figure.patch.set_visible(False)
    with _styled():
        printer = FigureCanvasSVG(figure)
        printer.print_svg(out, metadata={"Date": None})  # type: ignore[no-untyped-call]
    figure.patch.set_visible(True)
    return out.getvalue()


def put(
    figure: "Figure",
    x: float,
    y: float,
    text: str,
    colour: str = "ink",
    **properties: Any,
) -> None:
    """One line of text with its baseline at a place in px, y downwards.

    `properties` are those of matplotlib's `Text`.
    """
    width, height = (value * PX_PER_INCH for value in figure.get_size_inches())
    style = {"size": TEXT_PX, "color": LIGHT[colour], "ha": "left", **properties}
    figure.text(x / width, 1 - y / height, text, **style)


def canvas(figure: "Figure") -> "Axes":
    """Axes over the whole figure whose unit is its px, y downwards, without a frame."""
    width, height = (value * PX_PER_INCH for value in figure.get_size_inches())
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


@lru_cache(4096)
def text_width_px(text: str, size_px: float = TEXT_PX, bold: bool = False) -> float:
    """Width that a text takes in files; fonts of browsers are narrower."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(
        family=MATPLOTLIB["font.family"], size=size_px, weight="bold" if bold else "normal"
    )
    return float(text_to_path.get_text_width_height_descent(text, font, False)[0])


def wrapped(text: str, width_px: float) -> list[str]:
    """A title in lines."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width_px(longer, TITLE_PX, bold=True) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cleaned(
    chart: Chart,
    text: str,
    readouts: Iterable[Readout],
    size_px: tuple[int, int],
    *,
    themed: bool,
) -> str:
    """matplotlib's SVG as a page carries it.

    Groups without a meaning go, and ids that nothing refers to; the others get a prefix of their
    figure's own, so that figures of one page do not meet. Its style sheet, which would reach all
    of the page, goes. Title and description come on top. Colours become the page's where
    `themed`; a file of its own has a white sheet instead, and colours that every program knows.
    """
    body = text[text.index("</metadata>") + len("</metadata>") : text.rindex("</svg>")]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r">\s+<", "><", body.strip())
    named = set(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    title, description = escape(chart.title), escape(chart.description)
    key = blake2b((title + description + body).encode(), digest_size=5).hexdigest()
    kept: list[bool] = []
    parts = []
    for tag, words in re.findall(r"(<[^>]+>)([^<]*)", body):
        if tag == "</g>":
            parts.append(tag if kept.pop() else "")
        elif tag.startswith("<g"):
            group = re.sub(r' id="[^"]*"', "", tag).removesuffix("/>")
            if not tag.endswith("/>"):
                kept.append(group.rstrip(">") != "<g")
                parts.append(_tag(group, key, named, themed) if kept[-1] else "")
        else:
            parts.append(_tag(tag, key, named, themed) + words)
    width, height = size_px
    size = f'width="{width}" height="{height}"'
    rows = [
        [one.name, _ROLES.get(one.colour, one.colour), [[*one_point] for one_point in one.points]]
        for one in readouts
    ]
    data = f' data-read="{escape(json.dumps(rows, separators=(",", ":")))}"' if rows else ""
    sheet = "" if themed else f'<rect {size} fill="{LIGHT["paper"]}"/>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'role="img" aria-labelledby="t{key} d{key}" viewBox="0 0 {width} {height}" {size} '
        f'style="font-family:{escape(FONT)};stroke-linejoin:round"{data}>'
        f'<title id="t{key}">{title}</title><desc id="d{key}">{description}</desc>'
        f"{sheet}{''.join(parts)}</svg>"
    )


def _tag(tag: str, key: str, named: set[str], themed: bool) -> str:
    """One tag: ids, numbers, fonts and colours."""
    # Markers are small, and drawn many times.
    digits = 2 if ' id="m' in tag else 1
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{key}{m[1]}"' if m[1] in named else "", tag)
    tag = re.sub(r'(url\(|href=")#', rf"\1#{key}", tag)
    tag = re.sub(r"\d+\.\d\d+", lambda m: f"{float(m[0]):.{digits}f}".rstrip("0").rstrip("."), tag)
    tag = re.sub(r"\s+(?=[LCQz\"])|(?<=[MLCQz])\s+", "", tag)
    tag = re.sub(r"font-family: [^;\"]+; ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0[^"]*"', "", tag)
    if themed:
        tag = re.sub(r"#[0-9a-f]{6}\b", lambda m: _ROLES.get(m[0], m[0]), tag)
    return tag.replace("; ", ";").replace(": ", ":")
