"""Sheets of images: tiles in rows, with words above them, over Pillow.

Pixels are never smoothed where they are enlarged: the reader must see pixels, not another
interpolation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.drawing.overlays import fitted_size
from wsisr.drawing.style import LIGHT
from wsisr.errors import ConfigError

GAP_PX = 6
TEXT_PX = 13
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, kw_only=True)
class SheetImage:
    """One image of a sheet.

    Attributes
    ----------
    image : ndarray, shape (h, w, 3), uint8
    text : str
        Lines above it.
    """

    image: UInt8Array
    text: str = ""


def sheet(
    rows: Sequence[Sequence[SheetImage | None]],
    *,
    labels: Sequence[str] = (),
    side_px: int | None = None,
    text_px: int = TEXT_PX,
) -> UInt8Array:
    """Tiles in rows and columns on white, shape (height, width, 3).

    Parameters
    ----------
    rows : sequence of sequences of SheetImage or None
        None leaves a place free.
    labels : sequence of str
        A word at the left of each row.
    side_px : int, optional
        Bring every image to this longer side: enlarged by nearest neighbour, reduced by area. By
        default no pixel is resampled.
    text_px : int
        Size of letters; text is shortened to its tile.

    Raises
    ------
    ConfigError
        There is no tile.
    """
    tiles = [[None if tile is None else _Placed(tile, side_px) for tile in row] for row in rows]
    if not any(tile for row in tiles for tile in row):
        raise ConfigError("A sheet needs at least one image.")
    font = ImageFont.load_default(size=text_px)
    line = text_px + 5
    left = GAP_PX + max((round(font.getlength(label)) + 12 for label in labels), default=0)
    count = max(map(len, tiles))
    columns = [[row[at] for row in tiles if at < len(row)] for at in range(count)]
    widths = [max((tile.width for tile in column if tile), default=0) for column in columns]
    heights = [max((tile.height for tile in row if tile), default=0) for row in tiles]
    bands = [line * max((tile.lines for tile in row if tile), default=0) for row in tiles]
    width = left + sum(widths) + GAP_PX * count
    height = GAP_PX + sum(heights) + sum(bands) + GAP_PX * len(tiles)
    made = Image.new("RGB", (width, height), LIGHT["paper"])
    pen, y = ImageDraw.Draw(made), GAP_PX
    for number, (row, band, tall) in enumerate(zip(tiles, bands, heights, strict=True)):
        x = left
        if number < len(labels):
            pen.text((GAP_PX, y + band + 4), labels[number], LIGHT["ink"], font)
        for tile, wide in zip(row, widths, strict=False):
            if tile is not None:
                for at, words in enumerate(tile.words):
                    text = _fit(words, wide, font)
                    pen.text((x, y + band - line * (tile.lines - at)), text, LIGHT["ink"], font)
                made.paste(tile.image, (x, y + band))
            x += wide + GAP_PX
        y += band + tall + GAP_PX
    return np.asarray(made)


class _Placed:
    """A tile at the size that it is drawn in."""

    def __init__(self, tile: SheetImage, side_px: int | None) -> None:
        image = Image.fromarray(np.ascontiguousarray(tile.image))
        if side_px is not None:
            larger = side_px >= max(image.size)
            how = Image.Resampling.NEAREST if larger else Image.Resampling.BOX
            image = image.resize(fitted_size(tile.image.shape, side_px), how)
        self.image, (self.width, self.height) = image, image.size
        self.words = tile.text.splitlines()
        self.lines = len(self.words)


def _fit(text: str, width_px: int, font: Font) -> str:
    if font.getlength(text) <= width_px:
        return text
    while len(text) > 1 and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"


def contact_sheet(
    pairs: Sequence[tuple[UInt8Array, UInt8Array]],
    *,
    captions: Sequence[str] = (),
    side_px: int = 256,
    columns: int = 4,
) -> UInt8Array:
    """Pairs side by side: LR enlarged, beside HR.

    Parameters
    ----------
    pairs : sequence of (lr, hr)
        uint8 RGB; both show the same field of view.
    captions : sequence of str
        One per pair; may be empty.
    side_px : int
        Of each image.
    columns : int
        Of pairs.
    """
    if side_px < 16 or columns < 1:
        raise ConfigError(f"Cells of {side_px} px in {columns} columns make no contact sheet.")
    words = [*captions, *[""] * (len(pairs) - len(captions))]
    tiles = [
        tile
        for (lr, hr), text in zip(pairs, words, strict=True)
        for tile in (SheetImage(image=lr, text=text), SheetImage(image=hr))
    ]
    step = 2 * columns
    rows = [tiles[at : at + step] for at in range(0, len(tiles), step)]
    return sheet(rows, side_px=side_px)


def enlarged(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """By nearest neighbour: pixels stay visible as pixels."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))


def framed(image: UInt8Array, box: tuple[int, int, int, int]) -> UInt8Array:
    """An image with a yellow frame at (left, top, right, bottom)."""
    drawn = Image.fromarray(np.ascontiguousarray(image)).copy()
    ImageDraw.Draw(drawn).rectangle(box, outline=(255, 255, 0))
    return np.asarray(drawn)


# Black over purple and orange to pale yellow: even in lightness, and readable without colour.
_HEAT = np.array(
    [
        (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99),
        (212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164),
    ],
    np.float64,
)  # fmt: skip


def heat(error: Float64Array, top: float) -> UInt8Array:
    """Grey levels of error as colours; `top` and above is the lightest."""
    place = np.clip(error / max(top, 1e-9), 0.0, 1.0) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(int), len(_HEAT) - 2)
    share = (place - low)[..., None]
    return np.round(_HEAT[low] * (1 - share) + _HEAT[low + 1] * share).astype(np.uint8)


def heat_scale(top: float, height: int) -> UInt8Array:
    """The colours of `heat` from `top` down to zero, with their numbers."""
    made = Image.new("RGB", (64, height), LIGHT["paper"])
    ramp = heat(np.linspace(top, 0.0, height)[:, None].repeat(14, axis=1), top)
    made.paste(Image.fromarray(ramp), (0, 0))
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(size=TEXT_PX)
    for share in (0.0, 0.5, 1.0):
        place = (18, round((1 - share) * (height - TEXT_PX - 2)))
        pen.text(place, f"{share * top:g}", LIGHT["ink"], font)
    return np.asarray(made)
