"""Which pairs two scans give: whole factors between HR and a level of the LR scan (pure).

The LR is never resampled: it is a stored level, or a whole reduction of one. What does not fit is
taken up by the HR, which is reduced, once, by at most a quarter: it is never enlarged, because
that would invent the detail that a network is to learn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsisr.registration import affine as aff
from wsisr.registration.certificate import Affine

FACTORS = (1, 2, 3, 4, 6, 8)
"""HR px per LR px of pairs; 1 are two scanners of one resolution, which are no SR pairs."""
MAX_REDUCTION = 1.25
CALIBRATION = 0.01
"""How far apart true and stated pixel sizes of two scanners may be, relative: HR may be resampled
at that much less than its own size."""
MAX_LR_REDUCTION = 16
GRID_MOST = 40_000
"""Fields of a grid that are looked at for the largest that fits."""


@dataclass(frozen=True, kw_only=True)
class PairChoice:
    """How pairs of one factor come about.

    Attributes
    ----------
    factor : int
        HR px per LR px.
    lr_factor : int
        Level-0 px of the LR scan per LR px.
    level, level_factor : int
        The level of the LR scan that is read.
    hr_reduction : float
        Stored HR px per HR px of the pair; 1 within the scanners' calibration.
    """

    factor: int
    lr_factor: int
    level: int
    level_factor: int
    hr_reduction: float

    @property
    def stored(self) -> bool:
        """Whether the LR is a stored level."""
        return self.lr_factor == self.level_factor

    def __str__(self) -> str:
        lr = (
            f"level {self.level}"
            if self.stored
            else f"level {self.level} reduced by {self.lr_factor // self.level_factor}"
        )
        hr = f", HR reduced by {self.hr_reduction:.3f}" if self.hr_reduction > 1.001 else ""
        return f"x{self.factor} (LR: {lr}{hr})"


def reducible(reduction: float) -> bool:
    """Whether HR may be reduced by this much."""
    return 1 - CALIBRATION <= reduction <= MAX_REDUCTION


def pair_choices(
    ratio: float, level_factors: Sequence[int | None], factor: int
) -> tuple[PairChoice, ...]:
    """Ways to pairs of one factor, best first: stored LR before reduced, then least HR loss.

    Parameters
    ----------
    ratio : float
        HR px per LR level-0 px.
    level_factors : sequence of int or None
        Exact downsample of each level of the LR scan.
    """
    levels = [(index, whole) for index, whole in enumerate(level_factors) if whole is not None]
    found = []
    for lr_factor in range(1, MAX_LR_REDUCTION + 1):
        reduction = ratio * lr_factor / factor
        below = [(whole, index) for index, whole in levels if lr_factor % whole == 0]
        if not below or not reducible(reduction):
            continue
        # The coarsest level that it divides is the one that needs least work, or is stored.
        whole, index = max(below)
        found.append(
            PairChoice(
                factor=factor,
                lr_factor=lr_factor,
                level=index,
                level_factor=whole,
                hr_reduction=reduction,
            )
        )
    return tuple(sorted(found, key=lambda c: (not c.stored, abs(c.hr_reduction - 1), c.lr_factor)))


def largest_field(
    matrix: Affine, moving: tuple[int, int], fixed: tuple[int, int], unit: int
) -> int:
    """Side of the largest field of whole units that a grid of touching fields has in both scans.

    Parameters
    ----------
    matrix : 2x3 nested tuple
        Moving level-0 px -> fixed level-0 px, pixel edges.
    moving, fixed : (int, int)
        Width and height of the scans, level-0 px.
    unit : int
        Moving px.

    Returns
    -------
    int
        Moving px; 0 where not even fields of `GRID_MOST` a grid fit. Sides are tried in steps of
        a hundredth, so that a slightly larger one may do as well.
    """
    side = min(moving) // unit * unit
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float64)
    while side >= unit and (moving[0] // side) * (moving[1] // side) <= GRID_MOST:
        rows, columns = np.indices((moving[1] // side, moving[0] // side))
        fields = np.stack([columns.ravel(), rows.ravel()], axis=1)[:, None] + corners
        places = aff.apply(aff.to_matrix(matrix), (side * fields).reshape(-1, 2))
        held = ((places >= 0) & (places <= fixed)).all(axis=1).reshape(-1, len(corners))
        if held.all(axis=1).any():
            return side
        side -= max(unit, side // (100 * unit) * unit)
    return 0


def describe_choices(ratio: float, level_factors: Sequence[int | None]) -> str:
    """The factors that two scans have, for a refusal."""
    best = [
        choices[0] for factor in FACTORS if (choices := pair_choices(ratio, level_factors, factor))
    ]
    if best:
        return "these scans give " + ", ".join(map(str, best))
    return (
        f"a ratio of {ratio:.3f} gives no factor of {', '.join(map(str, FACTORS))} at any level: "
        f"HR would have to be enlarged, or reduced by more than {MAX_REDUCTION:g}"
    )
