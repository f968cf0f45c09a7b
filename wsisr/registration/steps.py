"""Steps of the shift across a patch: the mark of a seam between two stripes of a scanner.

Seams run along a scanner's rows or columns, and drift of its stage changes slowly. So the shift
is measured strip by strip along one axis, and the profile is asked for a step that a smooth line
does not explain.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wsisr.arrays import Float32Array, Float64Array
from wsisr.registration import correlation as corr

STRIP_PX = 32
"""Width of a strip, LR px."""
MIN_STRIPS = 4
LONG = 7
"""Strips from which on a profile may also bend."""
STRIP_TEXTURE = 0.4
"""Least texture of a strip over that of the whole, for its shift to count."""
REACH_PX = 6.0
"""Largest shift of a strip that is looked for, LR px."""
SIGNIFICANT = 4.0
"""Standard errors that a step must reach."""
MIN_STEP_PX = 0.5
"""Smallest step that is called a seam, fixed px: half of it is what a patch across may be off."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the shift along one axis.

    Attributes
    ----------
    axis : int
        0: the shift changes along x (the seam is a column), 1: along y.
    at_px : float
        Where, LR px.
    jump_px : float
        Length of the step, in the px of `scale`.
    error_px : float
        Its standard error.
    """

    axis: int
    at_px: float
    jump_px: float
    error_px: float

    @property
    def significant(self) -> bool:
        return self.jump_px >= max(MIN_STEP_PX, SIGNIFICANT * self.error_px)


def profile(
    lr: Float32Array, sampled: Float32Array, axis: int, scale: float
) -> tuple[Float64Array, Float64Array]:
    """Middle of each strip across one axis, LR px, shape (n,), and its shift, HR px, shape (n, 2).

    Strips without texture are left out.

    Parameters
    ----------
    lr, sampled : ndarray, shape (h, w), float32
        The LR and the HR as its pixels see it.
    axis : int
        0: strips follow each other along x, 1: along y.
    scale : float
        HR px per LR px.
    """
    if axis == 0:
        lr, sampled = lr.T, sampled.T
    count = max(1, lr.shape[0] // STRIP_PX)
    edges = np.linspace(0, lr.shape[0], count + 1).round().astype(int).tolist()
    white = [corr.laplacian_of_gaussian(np.ascontiguousarray(image)) for image in (lr, sampled)]
    enough = STRIP_TEXTURE * float(np.std(white[0]))
    places, shifts = [], []
    for first, last in pairwise(edges):
        if float(np.std(white[0][first:last])) < enough:
            continue
        window = corr.hann(last - first, lr.shape[1])
        x, y = corr.correlation_peak(
            white[0][first:last] * window, white[1][first:last] * window, REACH_PX
        )
        places.append((first + last) / 2)
        shifts.append((y, x) if axis == 0 else (x, y))
    return np.asarray(places, float), scale * np.asarray(shifts, float).reshape(-1, 2)


def find_step(places: Float64Array, shifts: Float64Array, axis: int) -> Step | None:
    """The step that explains most of a profile beyond a smooth line; None for short ones."""
    count = len(places)
    if count < MIN_STRIPS:
        return None
    middle = (places - places.mean()) / max(float(np.ptp(places)), 1.0)
    # Drift and distortion bend a long profile, which a step could take for its own.
    smooth = [middle**power for power in range(3 if count >= LONG else 2)]
    best: tuple[float, int, Float64Array, float] | None = None
    for after in range(1, count):
        design = np.column_stack([*smooth, np.arange(count) >= after])
        solution, *_ = np.linalg.lstsq(design, shifts, rcond=None)
        left = float(np.sum((shifts - design @ solution) ** 2))
        if best is None or left < best[0]:
            variance = np.linalg.pinv(design.T @ design)[-1, -1]
            best = (left, after, solution[-1], float(variance))
    assert best is not None
    left, after, jump, variance = best
    freedom = max(1, 2 * (count - len(smooth) - 1))
    return Step(
        axis=axis,
        at_px=float(places[after - 1] + places[after]) / 2,
        jump_px=float(np.linalg.norm(jump)),
        # Two axes share in the length of the jump.
        error_px=float(np.sqrt(2 * variance * left / freedom)),
    )


def largest_step(lr: Float32Array, sampled: Float32Array, scale: float) -> Step | None:
    """The larger of the significant steps along x and y of a patch, or None."""
    steps = [find_step(*profile(lr, sampled, axis, scale), axis) for axis in (0, 1)]
    found = [step for step in steps if step is not None and step.significant]
    return max(found, key=lambda step: step.jump_px, default=None)
