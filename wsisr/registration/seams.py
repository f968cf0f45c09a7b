"""Where seams run between two registered scans: neighbouring nodes that differ are looked at strip
by strip, which tells a step from drift and says where it is.
"""

from math import ceil

import numpy as np
from scipy.spatial import cKDTree

from wsisr.arrays import Float64Array
from wsisr.geometry import Box
from wsisr.registration import affine as aff
from wsisr.registration import correlation as corr
from wsisr.registration.field import Seam
from wsisr.registration.nodes import Nodes, oriented_region
from wsisr.registration.steps import (
    MIN_STEP_PX,
    REACH_PX,
    SIGNIFICANT,
    STRIP_PX,
    find_step,
    profile,
)
from wsisr.slides.protocol import Slide

ACROSS_PX = 128
"""Width of the region between two nodes in which a seam is looked for, moving px."""
MAX_SEARCHES = 240
"""Neighbouring nodes that are searched for a seam, those that differ most first."""


def locate_seams(
    moving: Slide,
    fixed: Slide,
    matrix: Float64Array,
    nodes: Nodes,
    residuals: Float64Array,
    spacing_px: float,
) -> tuple[Seam, ...]:
    """Seams between neighbouring nodes whose residuals differ, each narrowed to a strip.

    Parameters
    ----------
    matrix : ndarray, shape (2, 3)
        Affine part, moving px -> fixed px.
    nodes : Nodes
        Those that agree with the map.
    residuals : ndarray, shape (n, 2)
        How far they lie off it, fixed px.

    Returns
    -------
    tuple of Seam
        Rectangles of the moving scan. A seam is known where it was looked for; its rectangle
        reaches half a node spacing to either side along the seam.
    """
    if len(nodes) < 2:
        return ()
    positions = nodes.positions
    pairs = cKDTree(positions).query_pairs(1.2 * spacing_px, output_type="ndarray")
    apart = np.abs(positions[pairs[:, 1]] - positions[pairs[:, 0]])
    # Neighbours along one axis; those of the border may have been moved a little.
    pairs = pairs[apart.min(axis=1) < 0.25 * apart.max(axis=1)]
    jump = np.linalg.norm(residuals[pairs[:, 0]] - residuals[pairs[:, 1]], axis=1)
    # The usual error, not that of these two: a seam in a node raises its own.
    doubtful = jump > max(MIN_STEP_PX, SIGNIFICANT * np.sqrt(2) * float(np.median(nodes.errors)))
    order = np.argsort(-jump[doubtful], kind="stable")[:MAX_SEARCHES]
    found = []
    for first, second in pairs[doubtful][order].tolist():
        seam = _between(
            moving, fixed, matrix, positions[[first, second]], residuals[first], spacing_px
        )
        if seam is not None:
            found.append(seam)
    return tuple(found)


def _between(
    moving: Slide,
    fixed: Slide,
    matrix: Float64Array,
    ends: Float64Array,
    residual: Float64Array,
    spacing_px: float,
) -> Seam | None:
    """The seam between two nodes, at `ends` (2, 2) moving px, or None where it is drift."""
    axis = int(np.argmax(np.abs(ends[1] - ends[0])))
    low, high = ends.min(axis=0), ends.max(axis=0)
    base = moving.info.levels[0]
    size = np.array([base.width_px, base.height_px])
    # Half a strip beyond both nodes, so that there are strips on both sides of any seam.
    along = np.clip([low[axis] - 2 * STRIP_PX, high[axis] + 2 * STRIP_PX], 0, size[axis])
    across = float(ends[:, 1 - axis].mean()) + np.array([-0.5, 0.5]) * ACROSS_PX
    across = np.clip(across, 0, size[1 - axis])
    spans = (along, across) if axis == 0 else (across, along)
    (x, right), (y, bottom) = ((int(span[0]), int(span[1])) for span in spans)
    width, height = right - x, bottom - y
    if min(width, height) < STRIP_PX:
        return None
    lr = corr.grey(moving.read_level(0, x, y, width, height))
    shifted = np.column_stack([matrix[:, :2], matrix[:, 2] + residual])
    patch = Box(x=x, y=y, width=width, height=height)
    region = oriented_region(shifted, patch, ceil(REACH_PX) + 4)
    hr = corr.grey(region.read(fixed))
    sampled = aff.sample_through(hr, aff.to_matrix(region.initial), width, height)
    step = find_step(*profile(lr, sampled, axis, aff.pixel_side(matrix)), axis)
    if step is None or not step.significant:
        return None
    at = (x if axis == 0 else y) + step.at_px
    middle = float(ends[:, 1 - axis].mean())
    # A scanner's rows lie askew in the other's frame by the turn of the glass between them.
    turned = abs(np.arctan2(matrix[1, 0], matrix[0, 0])) % (np.pi / 2)
    askew = np.tan(min(turned, np.pi / 2 - turned)) * spacing_px / 2
    half = STRIP_PX / 2 + min(askew, spacing_px / 2)
    thin, long = (at - half, at + half), (middle - spacing_px / 2, middle + spacing_px / 2)
    columns, rows = (thin, long) if axis == 0 else (long, thin)
    return Seam(
        left=float(columns[0]),
        right=float(columns[1]),
        top=float(rows[0]),
        bottom=float(rows[1]),
        jump_px=step.jump_px,
    )
