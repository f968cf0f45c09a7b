"""How far off an accepted pair may be: the certificate's numbers, calibrated on exact truth.

The parts of a patch ask for different shifts by what noise, blur and JPEG do to each of them, and
the whole patch is surer than its parts by how many of them it holds. The error's length follows
Rayleigh's law with a parameter that was fitted by maximum likelihood to 245 accepted pairs with
exact truth (two levels of one scan, second scanners with and without rotation, distortion and
drift, pale tissue; patches of 64 and 128 LR px, x2 and x4): ``benchmarks/scans.py calibration``
repeats the measurement on other pairs. On those, larger patches were no surer than ones of 128 px
with the same spread, and none surer than a fiftieth of a pixel: the law ends there.
"""

from math import log, sqrt

SHARE = 0.95
"""Probability with which the true place lies within the bound."""
SIGMA, POWER, SIZE = 0.29, 0.90, 1.1
"""Rayleigh's parameter of 64-px patches at a spread of 1 px; its powers of spread and size."""
REFERENCE_PX = 64
LARGEST_PX = 128
"""Largest patch of the fit: what is alike in all parts, a bias of JPEG or stain, does not average
out in larger ones."""
FLOOR_PX = 0.01
BENT_PX = 0.5
"""Spread from which parts do not differ by noise alone: what bends a patch by this much may
move its middle by as much."""
UNSEEN_PX = 1.0
"""Least bound of a patch with tissue at one edge alone: its middle is bare glass."""
UNKNOWN_PX = 1000.0
"""Of a pair whose place was not found."""


def error_bound(spread_px: float, side_px: int) -> float:
    """Distance within which the true place of a matched patch lies, with probability `SHARE`.

    Parameters
    ----------
    spread_px : float
        `PairCertificate.spread`, HR px.
    side_px : int
        Shorter side of the LR patch, LR px.

    Returns
    -------
    float
        HR px.
    """
    sigma = SIGMA * spread_px**POWER * (REFERENCE_PX / min(side_px, LARGEST_PX)) ** SIZE
    bound = max(sigma, FLOOR_PX) * sqrt(-2 * log(1 - SHARE))
    return max(bound, spread_px) if spread_px > BENT_PX else bound
