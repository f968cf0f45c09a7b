"""Whether SR, degraded again, is the LR that it was made from.

It says where SR contradicts its input: a nucleus that appeared or vanished, a texture swapped, a
shift, a cast. It cannot see what the degradation removes: detail of a few px that its low pass
takes away is free, so that agreement is necessary and not enough.

The difference is smoothed (a nucleus covers many px, noise does not) and divided by what the LR's
own texture would make of a small error of kernel or place, which is everywhere and no invention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from wsisr.arrays import BoolArray, Float32Array, UInt8Array
from wsisr.degradation import Degradation, degrade, parse_degradation
from wsisr.errors import ConfigError, DegradationError
from wsisr.inference.trust import PLACE_PX

CELL_PX = PLACE_PX
"""Side of a place, LR px."""
MARGIN_PX = 24
"""Context that is read around a block and cut off again, LR px."""
SMOOTHING_PX = 1.5
TEXTURE_WEIGHT = 0.3
"""Grey levels of misfit that are allowed for a grey level per px of LR gradient."""
CANDIDATES = ("bicubic", "area", "bilinear")
"""Tried beside the recorded one: nobody may know how the LR came about."""
AS_GOOD = 1.1
"""The recorded one is taken where its misfit is at most so many times that of the best."""
LARGEST_TERM = 64
FAR = 6.0
"""Robust standard deviations beyond which a place is outside of what its slide does elsewhere."""
MOST_THRESHOLD = 4.0
"""From here on a place contradicts its input, however bad the rest of the slide is."""
LEAST_THRESHOLD = 1.5
"""Below it, rounding and the compression of the output are seen, however quiet a slide is."""


def step_of(scale: float) -> Fraction:
    """SR px over LR px as a fraction, so that blocks of both begin at the same place; ConfigError
    for no ratio of small whole numbers."""
    step = Fraction(scale).limit_denominator(LARGEST_TERM)
    if step < 1 or abs(float(step) - scale) > 1e-6 * scale:
        raise ConfigError(
            f"x{scale:g} is no ratio of whole numbers up to {LARGEST_TERM}, and only there blocks "
            "of input and output px begin together; audit an output of x2, x2.4, x4 or the like."
        )
    return step


def known_part(degradation: Degradation) -> Degradation | None:
    """What of a degradation is the same for every image; None where nothing of it can be said.

    Noise and compression of LR stay away: they belong to the LR that was stored, and are what a
    perfect SR differs from it by.
    """
    stages = [stage for stage in degradation.stages if stage.samples or stage.rank < 30]
    if any(stage.random for stage in stages):
        return None
    return Degradation(name=degradation.name, stages=tuple(stages))


def degraded(sr: UInt8Array, size: tuple[int, int], scale: float, by: Degradation) -> UInt8Array:
    """SR as LR of a size; both (h, w, 3)."""
    image = torch.from_numpy(np.ascontiguousarray(sr)).permute(2, 0, 1)
    made: UInt8Array = degrade(image, by, scale, size=size).permute(1, 2, 0).numpy()
    return made


def misfit(again: UInt8Array, lr: UInt8Array) -> Float32Array:
    """How far degraded SR is from LR at every px, in grey levels where LR has no texture.

    Parameters
    ----------
    again, lr : ndarray, shape (h, w, 3), uint8

    Returns
    -------
    ndarray, shape (h, w), float32
        The largest of the three channels.
    """
    apart = again.astype(np.float32) - lr
    smooth = [
        ndimage.gaussian_filter(apart[..., channel], SMOOTHING_PX, mode="nearest")
        for channel in range(3)
    ]
    luma = lr.mean(axis=2, dtype=np.float32)
    slope = ndimage.gaussian_gradient_magnitude(luma, 1.0, mode="nearest")
    allowed = 1.0 + TEXTURE_WEIGHT * ndimage.gaussian_filter(slope, 2 * SMOOTHING_PX)
    found: Float32Array = (np.abs(np.stack(smooth)).max(0) / allowed).astype(np.float32)
    return found


def cells_of(values: Float32Array) -> Float32Array:
    """The largest value of each place of `CELL_PX` px; the last ones of a side may be narrower."""
    rows = np.arange(0, values.shape[0], CELL_PX)
    columns = np.arange(0, values.shape[1], CELL_PX)
    rows_of_places = np.maximum.reduceat(values, rows, axis=0)
    found: Float32Array = np.maximum.reduceat(rows_of_places, columns, axis=1)
    return found


def outside(cells: Float32Array, tissue: BoolArray) -> float:
    """The misfit from which a place of a slide is unlike its others: median and 6 deviations.

    The deviation is 1.4826 times the median distance from the median (normal-consistent), of the
    upper half alone: misfits are skewed.
    """
    seen = cells[tissue] if tissue.any() else cells.ravel()
    middle = float(np.median(seen))
    above = seen[seen >= middle] - middle
    found = middle + FAR * 1.4826 * float(np.median(above))
    return min(MOST_THRESHOLD, max(LEAST_THRESHOLD, found))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The degradation that SR is looked at through.

    Attributes
    ----------
    why : str
        A sentence for people.
    rms : float
        Of degraded SR against LR, grey levels, over the blocks that were tried.
    """

    degradation: Degradation
    why: str
    rms: float


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What all of an output has in common against its input, and no place shows by itself.

    Attributes
    ----------
    shift_px : (float, float) or None
        How far it lies from it, x and y, LR px: the median over textured blocks; None without any.
    cast : (float, float, float)
        How much brighter it is, grey levels of R, G, B.
    """

    shift_px: tuple[float, float] | None
    cast: tuple[float, float, float]

    @property
    def wrong(self) -> bool:
        """Whether either is beyond what rounding and compression make."""
        return max(map(abs, self.cast)) > CAST or (
            self.shift_px is not None and max(map(abs, self.shift_px)) > MOVED_PX
        )

    def sentence(self) -> str:
        """For people."""
        told = "Its place as a whole could not be measured (too little texture)"
        if self.shift_px is not None:
            x, y = self.shift_px
            told = f"As a whole it lies {x:+.2f}, {y:+.2f} input px (x, y) from its input"
        shades = ", ".join(f"{value:+.1f}" for value in self.cast)
        told += f" and differs by {shades} grey levels (R, G, B)."
        return f"WRONG AS A WHOLE: {told}" if self.wrong else told


MOVED_PX = 0.15
CAST = 1.5
TEXTURED = 5.0
"""Standard deviation of luma, grey levels, from which a block's shift can be measured."""


def whole_of(
    samples: Sequence[tuple[UInt8Array, UInt8Array]], scale: float, by: Degradation
) -> Whole:
    """Shift and cast of (SR, LR) blocks."""
    shifts, casts = [], []
    for sr, lr in samples:
        again = degraded(sr, lr.shape[:2], scale, by).astype(np.float32)
        casts.append((again - lr).mean((0, 1)))
        first, second = lr.mean(axis=2, dtype=np.float32), again.mean(2)
        if first.std() >= TEXTURED:
            # Moved by the negative of what would bring the second onto the first.
            moved, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
                first, second, upsample_factor=50, normalization=None
            )
            shifts.append(-moved[::-1])
    x, y, z = np.mean(casts, axis=0)
    place = None if not shifts else tuple(float(v) for v in np.median(shifts, axis=0))
    return Whole(shift_px=place, cast=(float(x), float(y), float(z)))  # type: ignore[arg-type]


def choose(
    samples: Sequence[tuple[UInt8Array, UInt8Array]], scale: float, given: str, recorded: str
) -> Chosen:
    """The degradation that was given, else the recorded one, unless another fits far better.

    Parameters
    ----------
    samples : sequence of (SR, LR)
        Blocks of one field, uint8.
    given : str
        By the user; empty for none.
    recorded : str
        What the model was trained on; empty where that is not known.

    Raises
    ------
    DegradationError
        The given one is random or unknown.
    """
    if given:
        known = known_part(parse_degradation(given))
        if known is None:
            raise DegradationError(
                f"{given} draws its kernel anew for every image, so that SR cannot be degraded "
                "again by it; name one that is always the same, e.g. area, or a fitted file."
            )
        return Chosen(degradation=known, why="as given", rms=_rms(samples, scale, known))
    tried = {name: parse_degradation(name) for name in CANDIDATES}
    if recorded and recorded not in tried:
        try:
            known = known_part(parse_degradation(recorded))
        except DegradationError:  # a file, or a plug-in's
            known = None
        if known is not None:
            tried[recorded] = known
    rms = {}
    for name, spec in tried.items():
        try:
            rms[name] = _rms(samples, scale, spec)
        except DegradationError:  # not computable at this scale
            continue
    best = min(rms, key=rms.__getitem__)
    if recorded in rms and rms[recorded] <= AS_GOOD * rms[best]:
        why = f"what the model was trained on ({recorded})"
        return Chosen(degradation=tried[recorded], why=why, rms=rms[recorded])
    others = ", ".join(f"{name} {value:.2f}" for name, value in rms.items())
    why = (
        f"assumed: {best} brings the output nearest to its input (rms in grey levels: {others}); "
        "--degradation names another, e.g. a fitted scanner"
    )
    return Chosen(degradation=tried[best], why=why, rms=rms[best])


def _rms(samples: Sequence[tuple[UInt8Array, UInt8Array]], scale: float, by: Degradation) -> float:
    squares = [
        float(np.square(degraded(sr, lr.shape[:2], scale, by).astype(np.float32) - lr).mean())
        for sr, lr in samples
    ]
    return float(np.sqrt(np.mean(squares)))
