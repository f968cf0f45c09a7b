"""Nodes: places all over two scans that are matched at full resolution."""

from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import RegistrationError
from wsisr.geometry import Box
from wsisr.registration import affine as aff
from wsisr.registration import correlation as corr
from wsisr.registration.certificate import TWO_SCANS, Affine
from wsisr.registration.orientation import D4, nearest_orientation
from wsisr.slides.protocol import Slide

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NODE_PX = 160
"""Side of a node's patch, moving px."""
NODE_SPACING_UM = 500.0
MAX_NODES = 400
NODE_REACH_PX = 20.0
"""How far the overview's map may be off at a node, moving px."""


def whole_scale(moving: Slide, fixed: Slide) -> int:
    """Fixed px per moving px as the stated resolutions have it, a whole number of 2 or more."""
    first, second = moving.info.mpp, fixed.info.mpp
    if first is None or second is None:
        raise RegistrationError("Both scans need a resolution.")
    ratio = first.value / second.value
    scale = round(ratio)
    if scale < 2 or abs(ratio / scale - 1) > 0.1:
        raise RegistrationError(
            f"{moving.info.path.name} ({first.value:g} um/px) is {ratio:.2f} times as coarse as "
            f"{fixed.info.path.name} ({second.value:g} um/px): that is no scale of 2, 3, 4, ... "
            "MOVING must be the coarse scan."
        )
    return scale


def node_grid(
    moving: Slide, overview: NDArray[np.uint8], factor: float, spacing_um: float
) -> tuple[float, IntArray]:
    """Spacing (moving px) and top-left corners of patches with structure on a regular grid."""
    info = moving.info
    if info.mpp is None:
        raise RegistrationError(f"{info.path.name}: no resolution.")
    base = info.levels[0]
    area = base.width_px * base.height_px
    # Small scans get enough nodes for a field, large ones not more than it needs.
    spacing = min(spacing_um / info.mpp.value, (area / 64) ** 0.5)
    contrast = np.abs(corr.band_pass(corr.grey(overview)))
    while True:
        xs = np.arange(spacing / 2, base.width_px, spacing) - NODE_PX / 2
        ys = np.arange(spacing / 2, base.height_px, spacing) - NODE_PX / 2
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).round().astype(np.int64)
        grid = np.clip(grid, 0, np.maximum([base.width_px - NODE_PX, base.height_px - NODE_PX], 0))
        strength = np.array([_mean_over(contrast, corner, factor) for corner in grid])
        textured = grid[strength > max(1.0, 0.25 * float(np.percentile(strength, 90)))]
        if len(textured) <= MAX_NODES:
            return float(spacing), np.unique(textured, axis=0)
        spacing *= (len(textured) / MAX_NODES) ** 0.5 * 1.02


def _mean_over(image: NDArray[np.float32], corner: IntArray, factor: float) -> float:
    left, top = (floor(value / factor) for value in corner)
    side = max(1, ceil(NODE_PX / factor))
    cut = image[top : top + side, left : left + side]
    return float(cut.mean()) if cut.size else 0.0


def corners_of(x: float, y: float, width: float, height: float) -> FloatArray:
    """Corners of a rectangle, shape (4, 2)."""
    return np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]], float)


def oriented_region(
    local: FloatArray, corners: FloatArray, x: int, y: int
) -> tuple[Box, D4, Affine]:
    """Box of the fixed scan around mapped corners, its orientation and the map into it."""
    mapped = aff.apply(local, corners)
    left, top = (floor(value) for value in mapped.min(axis=0))
    right, bottom = (ceil(value) for value in mapped.max(axis=0))
    box = Box(x=left, y=top, width=right - left, height=bottom - top)
    turn = nearest_orientation(local[:, :2]).inverse()
    to_patch = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    to_box = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
    to_region = aff.to_matrix(turn.matrix(box.width, box.height))
    initial = aff.compose(to_region, aff.compose(to_box, aff.compose(local, to_patch)))
    return box, turn, aff.to_affine(initial)


def measure_node(
    moving: Slide, fixed: Slide, matrix: FloatArray, scale: int, x: int, y: int
) -> tuple[float, float, float] | None:
    """Fixed place of the centre of a node's patch and its band NCC; None without texture."""
    lr = corr.grey(moving.read_level(0, x, y, NODE_PX, NODE_PX))
    if corr.texture(lr) < TWO_SCANS.min_texture:
        return None
    reach = int(NODE_REACH_PX)
    corners = corners_of(x - reach, y - reach, NODE_PX + 2 * reach, NODE_PX + 2 * reach)
    box, turn, initial = oriented_region(matrix, corners, x, y)
    pixels = fixed.read_level(0, box.x, box.y, box.width, box.height)
    hr = corr.grey(np.ascontiguousarray(turn.apply(pixels)))
    found = aff.prealign(lr, hr, scale, aff.to_matrix(initial), NODE_REACH_PX)
    sampled = aff.sample_through(hr, scale, found, NODE_PX, NODE_PX)
    band = corr.ncc(corr.band_pass(lr), corr.band_pass(sampled))
    centre = aff.apply(found, np.array([NODE_PX / 2, NODE_PX / 2]))
    back = aff.invert(aff.to_matrix(turn.matrix(box.width, box.height)))
    place = aff.apply(back, centre) + np.array([box.x, box.y])
    return float(place[0]), float(place[1]), band
