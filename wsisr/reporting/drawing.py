"""One drawing, two outputs: inline SVG that follows the page's theme, and PNG drawn with Pillow.

A drawing is a list of simple shapes in px, y downwards. Colours are roles, not values: the page
decides what ``c1`` or ``grid`` looks like in light and in dark; PNG files use the light values.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from html import escape
from math import ceil, hypot
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from wsisr.files import replace_file, save_picture

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

LIGHT = {
    "ink": "#1c2430",
    "muted": "#5a6472",
    "grid": "#dde2e8",
    "paper": "#ffffff",
    "tissue": "#e9c9d4",
    "c1": "#0067a8",
    "c2": "#c24e00",
    "c3": "#007d5c",
    "c4": "#a13d86",
    "c5": "#7a6200",
    "c6": "#5548b8",
    "c7": "#b3203f",
    "c8": "#4c5561",
}
"""Colour roles on white: every series has a contrast of at least 4.5 : 1. Blue and vermilion
come first, since they stay apart in every common colour blindness; shapes tell the rest apart."""

DARK = {
    "ink": "#e6eaf0",
    "muted": "#a2adba",
    "grid": "#333c48",
    "paper": "#161b22",
    "tissue": "#5e3a49",
    "c1": "#5db7f2",
    "c2": "#ff9b52",
    "c3": "#3fcea1",
    "c4": "#ec8fcb",
    "c5": "#e0c24c",
    "c6": "#aca2f6",
    "c7": "#ff8093",
    "c8": "#b9c2cd",
}
"""The same roles on a dark page."""

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
SUPERSAMPLING = 2


@dataclass(frozen=True, kw_only=True)
class _Path:
    parts: tuple[tuple[Point, ...], ...]
    stroke: str | None
    fill: str | None
    width_px: float
    opacity: float
    dash: tuple[float, ...]
    closed: bool


@dataclass(frozen=True, kw_only=True)
class _Label:
    place: Point
    text: str
    size_px: float
    colour: str
    anchor: Anchor
    turned: bool
    bold: bool


@dataclass(kw_only=True)
class Drawing:
    """Shapes on a canvas.

    Attributes
    ----------
    width_px, height_px : float
    title, description : str
        What a screen reader says; every drawing must have both.
    """

    width_px: float
    height_px: float
    title: str
    description: str
    shapes: list[_Path | _Label] = field(default_factory=list)

    def path(
        self,
        *parts: Iterable[Point],
        stroke: str | None = None,
        fill: str | None = None,
        width_px: float = 1.0,
        opacity: float = 1.0,
        dash: Sequence[float] = (),
        closed: bool = False,
    ) -> None:
        """Lines or areas of one style; each part is a sequence of points."""
        kept = tuple(tuple(part) for part in parts)
        kept = tuple(part for part in kept if part)
        if kept:
            self.shapes.append(
                _Path(
                    parts=kept,
                    stroke=stroke,
                    fill=fill,
                    width_px=width_px,
                    opacity=opacity,
                    dash=tuple(dash),
                    closed=closed or fill is not None,
                )
            )

    def boxes(
        self,
        boxes: Iterable[tuple[float, float, float, float]],
        *,
        stroke: str | None = None,
        fill: str | None = None,
        width_px: float = 1.0,
        opacity: float = 1.0,
    ) -> None:
        """Rectangles (left, top, right, bottom) of one style."""
        self.path(
            *(((a, b), (c, b), (c, d), (a, d)) for a, b, c, d in boxes),
            stroke=stroke,
            fill=fill,
            width_px=width_px,
            opacity=opacity,
            closed=True,
        )

    def text(
        self,
        place: Point,
        text: str,
        *,
        size_px: float = 12.0,
        colour: str = "ink",
        anchor: Anchor = "start",
        turned: bool = False,
        bold: bool = False,
    ) -> None:
        """One line of text with its baseline at `place`; `turned` reads upwards."""
        self.shapes.append(
            _Label(
                place=place,
                text=text,
                size_px=size_px,
                colour=colour,
                anchor=anchor,
                turned=turned,
                bold=bold,
            )
        )

    def svg(self) -> str:
        """Inline SVG: ``role="img"``, title and description, theme colours by CSS variables."""
        body = "".join(
            _svg_label(shape) if isinstance(shape, _Label) else _svg_path(shape)
            for shape in self.shapes
        )
        key = blake2b((self.title + self.description + body).encode(), digest_size=5).hexdigest()
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="t{key} d{key}" '
            f'viewBox="0 0 {_n(self.width_px)} {_n(self.height_px)}" width="{_n(self.width_px)}" '
            f'height="{_n(self.height_px)}" style="font-family:{escape(FONT)};'
            f'color:var(--ink,{LIGHT["ink"]})">'
            f'<title id="t{key}">{escape(self.title)}</title>'
            f'<desc id="d{key}">{escape(self.description)}</desc>{body}</svg>'
        )

    def image(self, scale: float = 2.0) -> Image.Image:
        """The drawing as a picture with `scale` px per px of the drawing, on white."""
        zoom = scale * SUPERSAMPLING
        size = (ceil(self.width_px * zoom), ceil(self.height_px * zoom))
        canvas = Image.new("RGB", size, LIGHT["paper"])
        for shape in self.shapes:
            if isinstance(shape, _Label):
                _draw_label(canvas, shape, zoom)
            else:
                _draw_path(canvas, shape, zoom)
        final = (ceil(self.width_px * scale), ceil(self.height_px * scale))
        return canvas.resize(final, Image.Resampling.BOX)

    def save_png(self, path: Path, scale: float = 2.0) -> None:
        """Write `image` as PNG; the folder is made."""
        save_picture(path, self.image(scale))

    def save_svg(self, path: Path) -> None:
        """Write a file of its own, on white, for papers and slides."""
        white = f'<rect width="100%" height="100%" fill="{LIGHT["paper"]}"/>'
        replace_file(path, self.svg().replace("</desc>", f"</desc>{white}", 1).encode())


def text_width_px(text: str, size_px: float, bold: bool = False) -> float:
    """Width that a text takes, with room for the browser's font being wider than ours."""
    return _font(size_px).getlength(text) * (1.28 if bold else 1.08)


def _font(size_px: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size_px)


def _n(value: float) -> str:
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def _colour(role: str) -> str:
    return "currentColor" if role == "ink" else f"var(--{role},{LIGHT[role]})"


def _svg_path(shape: _Path) -> str:
    end = "z" if shape.closed else ""
    way = "".join("M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in part) + end for part in shape.parts)
    style = [f"fill:{_colour(shape.fill) if shape.fill else 'none'}"]
    if shape.stroke:
        style += [f"stroke:{_colour(shape.stroke)}", f"stroke-width:{shape.width_px:g}"]
        style += ["stroke-linejoin:round", "stroke-linecap:round"]
    if shape.opacity < 1:
        style.append(f"opacity:{shape.opacity:g}")
    if shape.dash:
        style.append("stroke-dasharray:" + " ".join(f"{value:g}" for value in shape.dash))
    return f'<path d="{way}" style="{";".join(style)}"/>'


def _svg_label(label: _Label) -> str:
    x, y = label.place
    turn = f' transform="rotate(-90 {_n(x)} {_n(y)})"' if label.turned else ""
    weight = ";font-weight:600" if label.bold else ""
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{label.anchor}"{turn} '
        f'style="font-size:{label.size_px:g}px;fill:{_colour(label.colour)}{weight}">'
        f"{escape(label.text)}</text>"
    )


def _draw_path(canvas: Image.Image, shape: _Path, zoom: float) -> None:
    parts = [[(x * zoom, y * zoom) for x, y in part] for part in shape.parts]
    if shape.closed:
        parts = [[*part, part[0]] for part in parts]
    mask = Image.new("L", canvas.size, 0) if shape.opacity < 1 else None
    draw = ImageDraw.Draw(canvas if mask is None else mask)
    level = round(255 * shape.opacity)
    if shape.fill:
        for part in parts:
            if len(part) > 2:
                draw.polygon(part, fill=LIGHT[shape.fill] if mask is None else level)
    if shape.stroke:
        colour = LIGHT[shape.stroke] if mask is None else level
        width = max(1, round(shape.width_px * zoom))
        for part in parts:
            for piece in _dashes(part, [value * zoom for value in shape.dash]):
                draw.line(piece, fill=colour, width=width, joint="curve")
    if mask is not None:
        colour = LIGHT[shape.fill or shape.stroke or "ink"]
        canvas.paste(Image.new("RGB", canvas.size, colour), mask=mask)


def _dashes(part: list[Point], dash: list[float]) -> list[list[Point]]:
    """A line cut into its dashes; Pillow draws none."""
    if not dash:
        return [part]
    pieces: list[list[Point]] = []
    at, left, index = part[0], dash[0], 0
    current = [at]
    for end in part[1:]:
        length = hypot(end[0] - at[0], end[1] - at[1])
        while length > left:
            share = left / length
            at = (at[0] + share * (end[0] - at[0]), at[1] + share * (end[1] - at[1]))
            length -= left
            if index % 2 == 0:
                pieces.append([*current, at])
            index += 1
            left, current = dash[index % len(dash)], [at]
        left -= length
        at = end
        current.append(at)
    if index % 2 == 0 and len(current) > 1:
        pieces.append(current)
    return pieces


def _draw_label(canvas: Image.Image, label: _Label, zoom: float) -> None:
    font = _font(label.size_px * zoom)
    x, y = label.place[0] * zoom, label.place[1] * zoom
    anchor = {"start": "ls", "middle": "ms", "end": "rs"}[label.anchor]
    stroke = max(1, round(label.size_px * zoom / 60)) if label.bold else 0
    colour = LIGHT[label.colour]
    if not label.turned:
        ImageDraw.Draw(canvas).text(
            (x, y), label.text, fill=colour, font=font, anchor=anchor,
            stroke_width=stroke, stroke_fill=colour,
        )  # fmt: skip
        return
    box = ImageDraw.Draw(canvas).textbbox((0, 0), label.text, font=font, anchor=anchor)
    left, top, right, bottom = (int(value) for value in box)
    tile = Image.new("L", (right - left + 2, bottom - top + 2), 0)
    ImageDraw.Draw(tile).text((1 - left, 1 - top), label.text, fill=255, font=font, anchor=anchor)
    turned = tile.transpose(Image.Transpose.ROTATE_90)
    ink = Image.new("RGB", turned.size, colour)
    canvas.paste(ink, (round(x + top - 1), round(y - right - 1)), mask=turned)
