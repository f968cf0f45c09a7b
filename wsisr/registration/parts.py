"""What the parts of a patch say by themselves: how far they disagree, which are bare glass, and how
far off an accepted pair may be.

The parts of a patch ask for different shifts by what noise, blur and JPEG do to each of them, and
the whole patch is surer than its parts by how many of them it holds. The error's length follows
Rayleigh's law. Its parameter was fitted by maximum likelihood to 840 accepted pairs with exact
truth (two levels of one scan, second scanners with and without rotation, distortion and drift,
pale tissue; patches of 64 to 256 LR px, x1 to x4), on synthetic tissue and on three real ones, and
made as large as the tissue needs that fits least, so that 95 % hold on that too. Focal planes set
the end of the law. ``benchmarks/scans.py calibration`` measures it on pairs and tissue that no
number was fitted to.
"""

from math import hypot, log, sqrt

import numpy as np

from wsisr.arrays import Float32Array, Float64Array
from wsisr.registration import correlation as corr

MIN_PART_PX = 48
"""Smallest side of a part of a patch whose own shift says something; parts may overlap."""
PART_TEXTURE = 0.4
"""Least texture of a part over that of the whole patch, for its shift to count."""
MIDDLE = 4
"""Row of the middle part in `part_shifts`."""
SHARE = 0.95
"""Probability with which the true place lies within the bound."""
SIGMA, SPREAD_POWER, SIZE_POWER = 0.20, 0.75, 0.80
"""Rayleigh's parameter of 64-px patches at a spread of 1 px; its powers of spread and size."""
REFERENCE_PX = 64
LARGEST_PX = 160
"""Larger patches were no surer: a bias of JPEG or lens is alike in all parts."""
FLOOR_PX = 0.0075
BENT_PX = 0.3
"""Spread from which parts do not differ by noise alone: a bend. The map is the best for the whole
patch then, and its middle may be off by as much as its parts differ."""
BENT_SHARE = 1.1
"""That error over the spread (measured: 95 % below 0.92)."""
LEVER = 2.0
"""Growth of an affine map's error with the distance of the middle from the structure: noise alone
would make it 1, and bends of the tissue add to it."""
UNSEEN_PX = 1.0
"""Least bound of a patch with tissue at one edge alone: its middle is bare glass."""
UNKNOWN_PX = 1000.0
"""Of a pair whose place was not found."""


def part_shifts(
    lr: Float32Array, reduced: Float32Array, scale: float, middle_share: int, texture: float
) -> Float64Array:
    """Shift that each part of a patch asks for against its aligned HR, HR px.

    Parameters
    ----------
    lr, reduced : ndarray, shape (h, w), float32
    middle_share : int
        Side of the patch over that of its middle part.
    texture : float
        Of the whole `lr` (`wsisr.registration.correlation.texture`).

    Returns
    -------
    ndarray, shape (5, 2), float64
        x and y shifts; rows: top left, top right, bottom left, bottom right quarter, and the
        middle of the patch, which a bend moves although the quarters agree. NaN for parts
        that have too little texture of their own, such as bare glass beside tissue.
    """
    height, width = (min(size, max(size // 2, MIN_PART_PX)) for size in lr.shape)
    down, right = lr.shape[0] - height, lr.shape[1] - width
    parts = [(y, x, height, width) for y in (0, down) for x in (0, right)]
    height, width = (min(size, max(size // middle_share, MIN_PART_PX)) for size in lr.shape)
    parts.append(((lr.shape[0] - height) // 2, (lr.shape[1] - width) // 2, height, width))
    enough = PART_TEXTURE * texture
    shifts = np.full((len(parts), 2), np.nan)
    for row, (top, left, height, width) in enumerate(parts):
        part = (slice(top, top + height), slice(left, left + width))
        if corr.texture(lr[part]) >= enough:
            shifts[row] = corr.whitened_shift(lr[part], reduced[part], 4.0)
    return scale * shifts


def spread_of(shifts: Float64Array) -> float:
    """Range of the shifts that are known, px; of one, its distance from the whole patch's 0."""
    known = shifts[np.isfinite(shifts).all(axis=1)]
    if len(known) < 2:
        known = np.concatenate([known, np.zeros((1, 2))])
    return float(np.max(np.ptp(known, axis=0)))


def one_sided(shifts: Float64Array) -> bool:
    """Whether no two opposite quarters have texture: the patch is seen from one side alone."""
    seen = np.isfinite(shifts[:MIDDLE, 0])
    return not ((seen[0] and seen[3]) or (seen[1] and seen[2]))


def leverage(lr: Float32Array) -> float:
    """How far the middle of a patch lies from where its structure is, in standard deviations of
    that structure: 0 where it is all over the patch, above 1 where the patch is seen from a side.

    An affine map is known best at the centre of what it was fitted to; its error elsewhere grows
    with this distance (leverage of a linear regression).
    """
    power = corr.band_pass(lr).astype(np.float64) ** 2
    total = float(power.sum())
    if not total > 0:
        return 0.0
    y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in lr.shape)
    over_x, over_y = power.sum(axis=0) / total, power.sum(axis=1) / total
    middle = np.array([over_x @ x, over_y @ y])
    x, y = x - middle[0], y - middle[1]
    mixed = float(y @ power @ x) / total
    spread = np.array([[over_x @ x**2, mixed], [mixed, over_y @ y**2]])
    return float(np.sqrt(middle @ np.linalg.pinv(spread) @ middle))


def error_bound(spread_px: float, side_px: int, leverage: float = 0.0) -> float:
    """HR px within which the true place of a matched patch lies, with probability `SHARE`.

    Parameters
    ----------
    spread_px : float
        `PairCertificate.spread`, HR px.
    side_px : int
        Shorter side of the LR patch, LR px.
    leverage : float
        Of affine maps: `leverage` of the LR patch.
    """
    sigma = (
        SIGMA * spread_px**SPREAD_POWER * (REFERENCE_PX / min(side_px, LARGEST_PX)) ** SIZE_POWER
    )
    bound = max(sigma, FLOOR_PX) * sqrt(-2 * log(1 - SHARE)) * hypot(1, LEVER * leverage)
    return max(bound, BENT_SHARE * spread_px) if spread_px > BENT_PX else bound
