"""What an output shows by itself: detail that its input cannot carry, patterns, tile borders.

None of it needs a degradation to be known. Detail beyond the input's band is the model's own, right
or wrong: it is measured and drawn, and on empty glass, where there is none to be had, it is called
invented. A pattern that repeats with the scale (of a pixel shuffle or a transposed convolution) and
steps along straight lines (borders of tiles) are faults wherever they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import log

import numpy as np
from scipy.fft import dctn, idctn
from scipy.special import stdtrit

from wsisr.arrays import BoolArray, Float32Array, Float64Array
from wsisr.geometry import Box
from wsisr.upscaling.seams import NEIGHBOURS

BINS = 48
"""Of a spectrum, from 0 to half a cycle a px."""
ROLL_OFF = 0.1
"""Half-width of the step at the end of the input's band, as a share of it."""
INVENTED = 2.0
"""Grey levels (rms) of detail beyond the input's band from which a place of glass is not empty;
JPEG of quality 90 leaves some 0.2 there."""
PATTERN = 0.5
"""Grey levels by which px of one phase lie off the others; below it nothing is seen."""
LARGEST_PERIOD = 8
SEGMENT_PX = 32
"""Length of the pieces of a line that are looked at for themselves, output px."""
FEWEST_SEGMENTS = 12
PART_PX = 512
"""Length of the parts of a line that are looked at besides the whole, output px."""
SEAM_RATIO = 1.3
"""Energy of steps across a line over that of lines nearby, from which it is a border."""
SEAM_STEP = 1.0
"""Grey levels by which the two sides differ in the mean, from which a line is a border."""
BY_CHANCE = 1e-7
"""Chance of a line without a border to be called one: thousands are looked at."""
_ROUNDING = 1.0
"""Added to energies, grey levels squared, so that flat fields have no ratio."""


@dataclass(frozen=True, kw_only=True)
class OutputSeam:
    """A line along which an output jumps, px of the output file.

    Attributes
    ----------
    ratio : float
        Energy of the steps across it over that of lines nearby; of the input's own divided out.
    step : float
        Grey levels by which one side is brighter, as the input is not; the most of the channels.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    ratio: float
    step: float

    def inside(self, box: Box, margin_px: float) -> bool:
        """Whether it lies off both sides of a box that it runs along."""
        if self.x0 == self.x1:
            return box.x + margin_px < self.x0 < box.right - margin_px
        return box.y + margin_px < self.y0 < box.bottom - margin_px


@dataclass(kw_only=True)
class Spectrum:
    """Mean power of luma by spatial frequency, of the output and of its enlarged input.

    Attributes
    ----------
    output, plain : ndarray, shape (`BINS`,)
        Sums of squares; `count` coefficients each.
    """

    output: Float64Array = field(default_factory=lambda: np.zeros(BINS))
    plain: Float64Array = field(default_factory=lambda: np.zeros(BINS))
    count: Float64Array = field(default_factory=lambda: np.zeros(BINS))

    def beyond(self, scale: float) -> tuple[float, float]:
        """Shares of the variance beyond the input's band: of the output, and of the enlarged one.

        NaN where nothing was looked at.
        """
        inside = self.cycles < 0.5 / scale
        parts = [(float(p[~inside].sum()), float(p.sum())) for p in (self.output, self.plain)]
        first, second = (part / whole if whole else float("nan") for part, whole in parts)
        return first, second

    @property
    def cycles(self) -> Float64Array:
        """Middle of each bin, cycles an output px."""
        middles: Float64Array = (np.arange(BINS) + 0.5) * 0.5 / BINS
        return middles

    def record(self) -> dict[str, list[float]]:
        """Mean power of each bin, for ``audit.json``."""
        seen = np.maximum(self.count, 1)
        return {
            "cycles_per_px": [round(float(v), 5) for v in self.cycles],
            "output": [float(f"{v:.5g}") for v in self.output / seen],
            "enlarged_input": [float(f"{v:.5g}") for v in self.plain / seen],
        }


@dataclass(kw_only=True)
class Pattern:
    """Means of output minus enlarged input for each place within a period, over all blocks.

    Attributes
    ----------
    step : Fraction
        Output px over input px.
    sums : ndarray, shape (period, period, 3)
    count : int
        Px of each phase.
    squares : float
        Of all differences.
    """

    step: Fraction
    sums: Float64Array = field(init=False)
    count: int = 0
    squares: float = 0.0

    def __post_init__(self) -> None:
        period = self.step.numerator
        self.sums = np.zeros((period, period, 3))

    @property
    def looked(self) -> bool:
        """Whether the period is small enough for means to tell anything, and px were seen."""
        return 1 < self.step.numerator <= LARGEST_PERIOD and self.count > 0

    def add(self, apart: Float32Array) -> None:
        """A block of differences (h, w, 3) that begins at phase 0."""
        period = self.step.numerator
        if period > LARGEST_PERIOD:
            return
        height, width = (side // period for side in apart.shape[:2])
        whole = apart[: height * period, : width * period]
        phases = whole.reshape(height, period, width, period, 3)
        self.sums += phases.sum(axis=(0, 2), dtype=np.float64)
        self.count += height * width
        self.squares += float(np.square(whole, dtype=np.float64).sum())

    @property
    def amplitude(self) -> float:
        """How far the px of one phase lie off all of them, grey levels; the largest."""
        means = self.sums / max(self.count, 1)
        return float(np.abs(means - means.mean(axis=(0, 1))).max())

    @property
    def wrong(self) -> bool:
        """Whether that is more than chance leaves of so few px, and can be seen."""
        if not self.looked:
            return False
        spread = (self.squares / (self.count * self.sums.size)) ** 0.5
        return self.amplitude > PATTERN + 6.0 * spread / self.count**0.5


def split_bands(
    luma: Float32Array, plain: Float32Array, scale: float, spectrum: Spectrum
) -> Float32Array:
    """What of an image lies beyond the band of its input; its powers go into `spectrum`.

    The band is half a cycle an input px along each axis. The cosine transform has no jump at the
    border of a block.

    Parameters
    ----------
    luma, plain : ndarray, shape (h, w), float32
        Of the output and of the enlarged input.

    Returns
    -------
    ndarray, shape (h, w), float32
        Grey levels, mean 0.
    """
    rows, columns = (np.arange(side, dtype=np.float32) / (2 * side) for side in luma.shape)
    radius = np.hypot(rows[:, None], columns[None, :])
    # Corners beyond half a cycle, which a square grid has and a circle has not, count as the last.
    bins = np.minimum((radius * (2 * BINS)).astype(np.int64), BINS - 1).ravel()
    transforms = [dctn(image, norm="ortho") for image in (luma, plain)]
    for target, found in zip((spectrum.output, spectrum.plain), transforms, strict=True):
        power = np.square(found, dtype=np.float64)
        power[0, 0] = 0.0
        target += np.bincount(bins, power.ravel(), minlength=BINS)
    spectrum.count += np.bincount(bins, minlength=BINS)
    end = 0.5 / scale
    keep = [
        np.clip((end * (1 + ROLL_OFF) - axis) / (2 * ROLL_OFF * end), 0, 1)
        for axis in (rows, columns)
    ]
    high: Float32Array = idctn(
        transforms[0] * (1 - keep[0][:, None] * keep[1][None, :]), norm="ortho"
    ).astype(np.float32)
    return high


def find_seams(
    sr: Float32Array, plain: Float32Array, step: Fraction, at: Box
) -> list[OutputSeam] | None:
    """Lines across which a block of output jumps as its input does not; None: it is too small.

    Parameters
    ----------
    sr, plain : ndarray, shape (h, w, 3), float32
        Output and enlarged input.
    step : Fraction
        Output px over input px.
    at : Box
        Where the block lies, px of the output file.
    """
    if max(sr.shape[:2]) < FEWEST_SEGMENTS * SEGMENT_PX:
        return None
    # Places compared with have the same phase as the line itself, and as JPEG's blocks.
    unit = step.numerator if step.denominator > 1 else int(step)
    away = sorted({round(k * unit) for k in NEIGHBOURS})
    upright = [
        OutputSeam(x0=at.x + i, x1=at.x + i, y0=at.y + a, y1=at.y + b, ratio=ratio, step=jump)
        for (i, a, b), (ratio, jump) in _lines(sr, plain, away).items()
    ]
    level = [
        OutputSeam(x0=at.x + a, x1=at.x + b, y0=at.y + i, y1=at.y + i, ratio=ratio, step=jump)
        for (i, a, b), (ratio, jump) in _lines(
            sr.transpose(1, 0, 2), plain.transpose(1, 0, 2), away
        ).items()
    ]
    return upright + level


def _lines(
    sr: Float32Array, plain: Float32Array, away: Sequence[int]
) -> dict[tuple[int, int, int], tuple[float, float]]:
    """Column and rows of borders, with the two numbers of an `OutputSeam`.

    Along the whole block, where most can be seen, and along parts of it, for smaller tiles.
    """
    height = sr.shape[0]
    found = {(i, 0, height): values for i, *values in _jumps(sr, plain, away)}
    whole = {i for i, _, _ in found}
    parts = height // PART_PX
    ends = [height * part // parts for part in range(parts + 1)] if parts > 1 else []
    for first, last in pairwise(ends):
        for i, *values in _jumps(sr[first:last], plain[first:last], away):
            if i not in whole:
                found[i, first, last] = values
    return {place: (ratio, jump) for place, (ratio, jump) in found.items()}


def _jumps(
    sr: Float32Array, plain: Float32Array, away: Sequence[int]
) -> list[tuple[int, float, float]]:
    """Columns where a border begins, with the two numbers of an `OutputSeam`."""
    count = sr.shape[0] // SEGMENT_PX
    if count < FEWEST_SEGMENTS:
        return []
    pieces = (count, SEGMENT_PX, sr.shape[1] - 1, 3)
    steps = [np.diff(image[: count * SEGMENT_PX], axis=1) for image in (sr, plain)]
    energies = [
        np.log(np.square(part).sum(axis=2).reshape(pieces[:3]).mean(axis=1) + _ROUNDING)
        for part in steps
    ]
    # (segments, columns): how much of each step the output has over its input.
    rough, sure = _peaks(_over_lines_nearby(energies[0] - energies[1], away))
    border = sure & (rough > log(SEAM_RATIO))
    # (segments, columns, channels): how much brighter the output gets than its input.
    signed = (steps[0] - steps[1]).reshape(pieces).mean(axis=1)
    jumps = np.zeros(len(rough))
    for side in (-1, 1):
        for channel in range(3):
            jump, sure = _peaks(_over_lines_nearby(side * signed[..., channel], away))
            border |= sure & (jump > SEAM_STEP)
            jumps = np.fmax(jumps, jump)
    # Step i leads onto column i + 1.
    return [(int(i) + 1, float(np.exp(rough[i])), float(jumps[i])) for i in np.flatnonzero(border)]


def _over_lines_nearby(more: Float32Array, away: Sequence[int]) -> Float32Array:
    """Values (segments, columns) over the median of those some columns away; NaN where too few."""
    count, width = more.shape
    beside = np.full((len(away), count, width), np.nan, np.float32)
    for row, shift in zip(beside, away, strict=True):
        first, last = max(0, -shift), min(width, width - shift)
        if first < last:
            row[:, first:last] = more[:, first + shift : last + shift]
    # At the border of a block three of them may be missing; with fewer, chance would decide.
    seen = (~np.isnan(beside[:, 0])).sum(axis=0) >= min(3, len(away))
    found = np.full_like(more, np.nan)
    found[:, seen] = more[:, seen] - np.nanmedian(beside[:, :, seen], axis=0)
    return found


def _peaks(values: Float32Array) -> tuple[Float64Array, BoolArray]:
    """Means over segments of what a column has over both columns beside it, and which are sure.

    A border lies between two px; an edge of tissue is wider, and has steps on both sides of it.
    """
    over = np.full_like(values, np.nan)
    beside = np.maximum(values[:, :-2], values[:, 2:])
    over[:, 1:-1] = values[:, 1:-1] - np.maximum(beside, 0.0)
    mean = over.mean(axis=0, dtype=np.float64)
    error = over.std(axis=0, ddof=1, dtype=np.float64) / len(over) ** 0.5 + 1e-6
    return np.nan_to_num(mean), mean > _far(len(over) - 1) * error


@lru_cache
def _far(freedom: int) -> float:
    """Student's t that chance exceeds `BY_CHANCE` of the time."""
    return float(stdtrit(freedom, 1.0 - BY_CHANCE))
