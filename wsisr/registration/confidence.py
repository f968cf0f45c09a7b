"""How far off an accepted pair may be: the certificate's numbers, calibrated on exact truth.

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

SHARE = 0.95
"""Probability with which the true place lies within the bound."""
SIGMA, POWER, SIZE = 0.20, 0.75, 0.80
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


def error_bound(spread_px: float, side_px: int, leverage: float = 0.0) -> float:
    """Distance within which the true place of a matched patch lies, with probability `SHARE`.

    Parameters
    ----------
    spread_px : float
        `PairCertificate.spread`, HR px.
    side_px : int
        Shorter side of the LR patch, LR px.
    leverage : float
        Of affine maps: `wsisr.registration.parts.leverage`.

    Returns
    -------
    float
        HR px.
    """
    sigma = SIGMA * spread_px**POWER * (REFERENCE_PX / min(side_px, LARGEST_PX)) ** SIZE
    bound = max(sigma, FLOOR_PX) * sqrt(-2 * log(1 - SHARE)) * hypot(1, LEVER * leverage)
    return max(bound, BENT_SHARE * spread_px) if spread_px > BENT_PX else bound
