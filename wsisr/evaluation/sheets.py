"""Example sheets: LR, bicubic, every model and HR of one field, with error maps on one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsisr.errors import ConfigError

UInt8Array = NDArray[np.uint8]
VIEW_PX = 192
ZOOM = 4
_GAP, _HEAD, _SIDE, _BAR = 6, 40, 64, 72
_INK, _PAPER = (28, 32, 38), (255, 255, 255)
# Black over purple and orange to pale yellow: even in lightness, and readable without colour.
_HEAT = np.array(
    [
        (0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99),
        (212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164),
    ],
    np.float64,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One column of a sheet.

    Attributes
    ----------
    title : str
    note : str
        E.g. its PSNR.
    image : ndarray, (h, w, 3), uint8
        On the HR grid.
    error : bool
        Whether its difference from HR is shown.
    """

    title: str
    note: str
    image: UInt8Array
    error: bool = True


def detail_window(hr: UInt8Array, side: int, step: int = 16) -> tuple[int, int]:
    """Top left corner (y, x) of the window with the strongest edges; found in HR alone."""
    height, width = hr.shape[:2]
    if side > min(height, width):
        raise ConfigError(f"A view of {side} px does not fit into {width} x {height} px.")
    luma = hr.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    edges = np.zeros((height + 1, width + 1))
    energy = np.abs(np.diff(luma, axis=0, append=luma[-1:])) + np.abs(
        np.diff(luma, axis=1, append=luma[:, -1:])
    )
    edges[1:, 1:] = energy.cumsum(0).cumsum(1)
    ys = np.arange(0, height - side + 1, step)
    xs = np.arange(0, width - side + 1, step)
    total = (
        edges[np.ix_(ys + side, xs + side)]
        - edges[np.ix_(ys, xs + side)]
        - edges[np.ix_(ys + side, xs)]
        + edges[np.ix_(ys, xs)]
    )
    y, x = np.unravel_index(int(total.argmax()), total.shape)
    return int(ys[y]), int(xs[x])


def enlarge(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Nearest neighbour: pixels stay visible as pixels."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))


def heat(error: NDArray[np.float64], top: float) -> UInt8Array:
    """Grey levels of error -> colours; `top` and above is the lightest."""
    place = np.clip(error / max(top, 1e-9), 0.0, 1.0) * (len(_HEAT) - 1)
    low = np.minimum(place.astype(int), len(_HEAT) - 2)
    share = (place - low)[..., None]
    return np.round(_HEAT[low] * (1 - share) + _HEAT[low + 1] * share).astype(np.uint8)


def draw_sheet(hr: UInt8Array, panels: Sequence[Panel]) -> Image.Image:
    """Three rows: the view, a part of it enlarged, and errors on one colour scale.

    Parameters
    ----------
    hr : ndarray, (h, w, 3), uint8
        The view of HR.
    panels : sequence of Panel
        Columns from left to right, HR's own not among them; it comes last.
    """
    height, width = hr.shape[:2]
    every = [*panels, Panel(title="HR", note="", image=hr, error=False)]
    errors = {
        i: np.abs(panel.image.astype(np.float64) - hr).mean(axis=2)
        for i, panel in enumerate(every)
        if panel.error
    }
    # One scale for the whole sheet: the errors' 99th percentile, in whole grey levels.
    joined = np.concatenate([e.ravel() for e in errors.values()]) if errors else np.ones(1)
    top = float(max(4.0, np.ceil(np.percentile(joined, 99.0))))
    zoom_y, zoom_x = detail_window(hr, min(height, width) // ZOOM, step=4)
    part = min(height, width) // ZOOM
    total = _SIDE + len(every) * (width + _GAP) + _BAR
    sheet = Image.new("RGB", (total, _HEAD + 3 * (height + _GAP)), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, word in enumerate(("1 : 1", f"zoom {ZOOM}", "error")):
        pen.text((4, _HEAD + row * (height + _GAP) + 4), word, _INK, font)
    for at, panel in enumerate(every):
        left = _SIDE + at * (width + _GAP)
        pen.text((left, 2), _fit(panel.title, width, font), _INK, font)
        pen.text((left, 20), panel.note, _INK, font)
        whole = Image.fromarray(panel.image)
        sheet.paste(whole, (left, _HEAD))
        box = (left + zoom_x, _HEAD + zoom_y, left + zoom_x + part, _HEAD + zoom_y + part)
        pen.rectangle(box, outline=(255, 255, 0))
        cut = panel.image[zoom_y : zoom_y + part, zoom_x : zoom_x + part]
        closer = Image.fromarray(enlarge(cut, part * ZOOM, part * ZOOM))
        sheet.paste(closer, (left, _HEAD + height + _GAP))
        if panel.error:
            coloured = Image.fromarray(heat(errors[at], top))
            sheet.paste(coloured, (left, _HEAD + 2 * (height + _GAP)))
    _colour_bar(sheet, pen, font, _SIDE + len(every) * (width + _GAP), height, top)
    return sheet


def _colour_bar(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    left: int,
    height: int,
    top: float,
) -> None:
    start = _HEAD + 2 * (height + _GAP)
    ramp = heat(np.linspace(top, 0.0, height)[:, None].repeat(14, axis=1), top)
    sheet.paste(Image.fromarray(ramp), (left, start))
    for share in (0.0, 0.5, 1.0):
        y = start + round((1 - share) * (height - 14))
        pen.text((left + 18, y), f"{share * top:g}", _INK, font)
    pen.text((left, start - 20), "grey levels", _INK, font)


def _fit(text: str, width_px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width_px:
        return text
    while len(text) > 1 and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"


def choose_examples(
    scores: Mapping[str, Mapping[tuple[str, int], float]], better: str, kinds: int
) -> dict[tuple[str, int], list[str]]:
    """Best, median and worst images of every model.

    Parameters
    ----------
    scores : mapping of label to mapping of (slide, row) to score
    better : {"high", "low", "zero"}
    kinds : int
        1: median; 2: best and worst; 3: all.

    Returns
    -------
    dict
        (slide, row) -> why it was chosen, e.g. ``["worst of edsr-x4"]``.
    """
    chosen: dict[tuple[str, int], list[str]] = {}
    for label, by_place in scores.items():
        finite = {place: v for place, v in by_place.items() if np.isfinite(v)}
        if not finite or kinds < 1:
            continue
        sign = -1.0 if better == "high" else 1.0
        value = {p: abs(v) if better == "zero" else sign * v for p, v in finite.items()}
        order = sorted(finite, key=lambda place: (value[place], place))
        places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
        wanted = {1: ("median",), 2: ("best", "worst")}.get(kinds, ("best", "median", "worst"))
        for kind in wanted:
            chosen.setdefault(places[kind], []).append(f"{kind} of {label}")
    return chosen
