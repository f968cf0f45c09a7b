"""Notice slides that open without error in false colour.

A wrong photometric tag makes every decoder show YCbCr as RGB (white glass turns red) or RGB as
YCbCr (it turns magenta). Empty glass in a brightfield scan is nearly neutral, whatever the stain;
so colours are called wrong only if the brightest areas are strongly coloured *and* become neutral
and flat when the mix-up is undone. Fluorescence, pen marks and slides without empty glass pass.
"""

import numpy as np

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.slides.decode import ycbcr_to_rgb
from wsisr.slides.jpeg import Space
from wsisr.slides.protocol import Slide

BRIGHT_SHARE = 0.05
STRONG_CHROMA = 60.0
"""Spread of the channels (grey levels) of the brightest areas that no glass has."""
NEUTRAL_CHROMA = 30.0
FLAT_GLASS = 12.0
"""Deviation of bare glass, grey levels (2 on real slides). The bright ends of tissue vary more:
a field without glass says nothing of its colours."""
SAMPLE_PX = 256
SAMPLES = 25
MIN_PIXELS = 256
QUIET_CHROMA, LOUD_CHROMA = 0.6, 0.8
"""Spread of the second and third plane against the first: chroma below, colours above."""


def colour_check(slide: Slide) -> str | None:
    """A sentence if the colours of a slide look wrong, else None.

    Looks at up to 25 regions spread over a coarse level.
    """
    pixels = _sample(slide)
    verdict = judge_colours(pixels)
    if verdict is None:
        return None
    how = slide.info.levels[0].compression
    if how.colour_by == "photometric tag":
        blame = "the photometric tag is probably wrong, correct it in the file."
    else:
        blame = (
            f"its stream says {how.photometric} ({how.colour_by}), so the colours were probably "
            "mixed up before it was written."
        )
    return f"{slide.info.path.name}: {verdict}; {blame}"


def judge_colours(pixels: UInt8Array) -> str | None:
    """The same for pixels, shape (n, 3) uint8: the beginning of a sentence, or None."""
    if len(pixels) < MIN_PIXELS:
        return None
    shown = np.median(_brightest(pixels), axis=0)
    if _chroma(shown) < STRONG_CHROMA:
        return None
    plane = pixels[None]
    mixups = (
        ("YCbCr shown as RGB", ycbcr_to_rgb(plane)[0]),
        ("RGB shown as YCbCr", rgb_to_ycbcr(plane)[0]),
    )
    for name, undone in mixups:
        bright = _brightest(undone)
        colour = np.median(bright, axis=0)
        glassy = _chroma(colour) <= NEUTRAL_CHROMA and colour.mean() >= 150
        # Glass is flat, tissue is not.
        if glassy and bright.astype(np.float64).std(axis=0).max() <= FLAT_GLASS:
            red, green, blue = (round(float(value)) for value in shown)
            return (
                f"colours look wrong: the brightest areas are ({red}, {green}, {blue}) and turn "
                f"neutral if this is {name}"
            )
    return None


def planes_look_like(planes: UInt8Array) -> Space | None:
    """Whether three stored planes are RGB or YCbCr, shape (height, width, 3); None if unclear.

    Chroma lies about 128 and varies less than luma; the planes of stained tissue vary alike.
    Bare glass tells too: its chroma is 128, its red, green and blue are as bright as each other.
    """
    first, *others = (planes[..., i].astype(np.float64) for i in range(3))
    centred = all(abs(float(np.median(plane)) - 128) <= 48 for plane in others)
    spread = float(first.std())
    if spread >= 4:
        ratio = sum(float(plane.std()) for plane in others) / (2 * spread)
        if ratio <= QUIET_CHROMA and centred:
            return "ycbcr"
        return "rgb" if ratio >= LOUD_CHROMA or not centred else None
    if float(np.median(first)) < 180:
        return None
    flat = [float(np.median(plane)) for plane in others]
    if all(abs(value - 128) <= 16 for value in flat):
        return "ycbcr"
    return "rgb" if min(flat) >= 160 else None


def rgb_to_ycbcr(image: UInt8Array) -> UInt8Array:
    """JFIF RGB to YCbCr, shape (height, width, 3) uint8."""
    matrix = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    values = image.astype(np.float64) @ matrix.T + np.array([0.0, 128.0, 128.0])
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _brightest(pixels: UInt8Array) -> UInt8Array:
    """The brightest 5 % by luma."""
    luma = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return pixels[luma >= np.quantile(luma, 1 - BRIGHT_SHARE)]


def _chroma(colour: Float64Array) -> float:
    return float(colour.max() - colour.min())


def _sample(slide: Slide) -> UInt8Array:
    """Valid pixels of regions on a regular lattice over the coarsest level that is large enough."""
    levels = [level for level in slide.info.levels if min(level.width_px, level.height_px) >= 256]
    level = levels[-1] if levels else slide.info.levels[0]
    side = round(SAMPLES**0.5)
    width, height = min(SAMPLE_PX, level.width_px), min(SAMPLE_PX, level.height_px)
    found = []
    for row in range(side):
        for column in range(side):
            x = (level.width_px - width) * column // (side - 1)
            y = (level.height_px - height) * row // (side - 1)
            pixels = slide.read_level(level.index, x, y, width, height)
            valid = slide.read_validity(level.index, x, y, width, height)
            found.append(pixels[::4, ::4][valid[::4, ::4]])
    return np.concatenate(found)
