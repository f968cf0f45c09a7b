"""Nodes: places all over two scans that are matched at full resolution, and whether they show one
glass.
"""

from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np

from wsisr.arrays import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array
from wsisr.errors import RegistrationError
from wsisr.geometry import Box
from wsisr.progress import ProgressEvent, Reporter
from wsisr.registration import affine as aff
from wsisr.registration import correlation as corr
from wsisr.registration.certificate import TWO_SCANS, Affine
from wsisr.registration.focus import own_focus, relative_focus
from wsisr.registration.orientation import D4, nearest_orientation
from wsisr.registration.parts import MIDDLE, part_shifts
from wsisr.slides.protocol import Slide

NODE_PX = 160
"""Side of a node's patch, moving px."""
UNKNOWN_ERROR_PX = 10.0
"""Standard error of a node whose quarters have too little texture to be asked."""
NODE_SPACING_UM = 500.0
MAX_NODES = 400
TISSUE = 0.25
"""Share of a scan's usual structure below which a place counts as bare glass."""
NODE_REACH_PX = 20.0
"""How far the overview's map may be off at a node, moving px."""
MIN_SCALE, MAX_SCALE = 0.95, 8.4
"""Ratios of two scans: 1 to 8, and a little for scanners that state it wrongly."""
MIN_NODES = 8
NODE_NCC_BAND = 0.6
"""Nodes of one glass measure 0.8 and more; of neighbouring sections 0.3 and less."""
SAME_GLASS_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Nodes:
    """All nodes of two scans, as they were measured.

    Attributes
    ----------
    positions : ndarray, shape (n, 2)
        Centres, moving level-0 px.
    places : ndarray, shape (n, 2)
        Where they lie, fixed level-0 px.
    ncc_band : ndarray, shape (n,)
    errors : ndarray, shape (n,)
        Standard error of a place as the quarters of the node disagree, fixed px.
    focus : ndarray, shape (n, 2)
        Fine detail of the moving scan against the fixed one seen through its pixels
        (`wsisr.registration.focus.relative_focus`), and of the fixed one against its own coarse
        (`own_focus`).
    texture : ndarray, shape (n,)
        Structure of the fixed scan there as the moving one's pixels see it, grey levels per px
        (`wsisr.registration.correlation.texture`), of the poorest quarter of the node.
    """

    positions: Float64Array
    places: Float64Array
    ncc_band: Float64Array
    errors: Float64Array
    focus: Float64Array
    texture: Float64Array

    def __len__(self) -> int:
        return len(self.positions)

    def which(self, chosen: BoolArray) -> "Nodes":
        """Those of a mask of shape (n,)."""
        return Nodes(**{name: values[chosen] for name, values in vars(self).items()})


def stated_scale(moving: Slide, fixed: Slide) -> float:
    """Fixed px per moving px as the stated resolutions have it.

    Raises
    ------
    RegistrationError
        If a resolution is missing, or the ratio is none of `MIN_SCALE` to `MAX_SCALE`.
    """
    first, second = moving.info.mpp, fixed.info.mpp
    if first is None or second is None:
        raise RegistrationError("Both scans need a resolution.")
    ratio = first.value / second.value
    if ratio < MIN_SCALE:
        raise RegistrationError(
            f"{moving.info.path.name} ({first.value:g} um/px) is finer than "
            f"{fixed.info.path.name} ({second.value:g} um/px): MOVING must be the coarse scan. "
            "Give the two the other way round."
        )
    if ratio > MAX_SCALE:
        raise RegistrationError(
            f"{moving.info.path.name} ({first.value:g} um/px) is {ratio:.1f} times as coarse as "
            f"{fixed.info.path.name} ({second.value:g} um/px); scans can be registered up to 8. "
            "Check both resolutions, or give them (--mpp-moving, --mpp-fixed)."
        )
    return ratio


def node_grid(
    moving: Slide,
    fixed: Slide,
    matrix: Float64Array,
    overview: UInt8Array,
    factor: float,
    spacing_um: float,
) -> tuple[float, Int64Array]:
    """Spacing (moving px) and top-left corners of patches with structure on a regular grid.

    Only where the fixed scan reaches, as the rough map (moving px -> fixed px) has it: scanners
    take different parts of a glass, and what one did not scan says nothing about the other.
    """
    info = moving.info
    assert info.mpp is not None  # or `stated_scale` had refused it
    base, other = info.levels[0], fixed.info.levels[0]
    # Small overlaps get enough nodes for a field, large ones not more than it needs.
    area = _shared_area(matrix, (base.width_px, base.height_px), (other.width_px, other.height_px))
    if area <= 0:
        return 1.0, np.empty((0, 2), np.int64)
    spacing = min(spacing_um / info.mpp.value, (area / 64) ** 0.5)
    contrast = np.abs(corr.band_pass(corr.grey(overview)))
    while True:
        xs = np.arange(spacing / 2, base.width_px, spacing) - NODE_PX / 2
        ys = np.arange(spacing / 2, base.height_px, spacing) - NODE_PX / 2
        grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).round().astype(np.int64)
        grid = np.clip(grid, 0, np.maximum([base.width_px - NODE_PX, base.height_px - NODE_PX], 0))
        place = aff.apply(matrix, (grid + NODE_PX / 2).astype(np.float64))
        grid = grid[((place >= 0) & (place <= [other.width_px, other.height_px])).all(axis=1)]
        if not len(grid):
            return float(spacing), grid
        strength = np.array([_mean_over(contrast, corner, factor) for corner in grid])
        textured = grid[strength > max(1.0, TISSUE * float(np.percentile(strength, 90)))]
        if len(textured) <= MAX_NODES:
            return float(spacing), np.unique(textured, axis=0)
        spacing *= (len(textured) / MAX_NODES) ** 0.5 * 1.02


def _shared_area(matrix: Float64Array, moving: tuple[int, int], fixed: tuple[int, int]) -> float:
    """Area of the moving scan that the fixed one holds too, moving px^2."""
    mine = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    theirs = aff.apply(aff.invert(matrix), mine * fixed)
    area, _ = cv2.intersectConvexConvex(
        (mine * moving).astype(np.float32), theirs.astype(np.float32)
    )
    return float(area)


def _mean_over(image: Float32Array, corner: Int64Array, factor: float) -> float:
    left, top = (floor(value / factor) for value in corner)
    side = max(1, ceil(NODE_PX / factor))
    cut = image[top : top + side, left : left + side]
    return float(cut.mean()) if cut.size else 0.0


@dataclass(frozen=True, kw_only=True)
class OrientedRegion:
    """What is read of the fixed scan for a patch of the moving scan.

    Attributes
    ----------
    box : Box
        Fixed level-0 px.
    orientation : D4
        To be applied to the pixels of `box`; it brings them into the moving scan's
        orientation without resampling. The LR stays as it is.
    initial : 2x3 nested tuple
        Predicted map, LR px of the patch -> px of the oriented region, pixel edges.
    """

    box: Box
    orientation: D4
    initial: Affine

    def read(self, fixed: Slide) -> UInt8Array:
        """The pixels in the moving scan's orientation, shape (h, w, 3)."""
        box = self.box
        pixels = fixed.read_level(0, box.x, box.y, box.width, box.height)
        return np.ascontiguousarray(self.orientation.apply(pixels))

    def place(self, point: Float64Array) -> Float64Array:
        """Fixed level-0 place of a point of the oriented pixels, both (2,)."""
        turn = aff.to_matrix(self.orientation.matrix(self.box.width, self.box.height))
        return aff.apply(aff.invert(turn), point) + np.array([self.box.x, self.box.y])


def oriented_region(
    local: Float64Array, patch: Box, margin_px: int, bounds: tuple[int, int] | None = None
) -> OrientedRegion:
    """The region of the fixed scan that a patch with a margin (moving px) is mapped to.

    With `bounds`, the fixed scan's width and height, the box ends where the scan does.
    """
    around = patch.grown(margin_px)
    corners = aff.corners_of(around.x, around.y, around.width, around.height)
    mapped = aff.apply(local, corners)
    left, top = (floor(value) for value in mapped.min(axis=0))
    right, bottom = (ceil(value) for value in mapped.max(axis=0))
    if bounds is not None:
        left, right = (min(max(value, 0), bounds[0]) for value in (left, right))
        top, bottom = (min(max(value, 0), bounds[1]) for value in (top, bottom))
    box = Box.between(left, top, right, bottom)
    turn = nearest_orientation(local[:, :2]).inverse()
    to_patch = np.array([[1.0, 0.0, patch.x], [0.0, 1.0, patch.y]])
    to_box = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]])
    to_region = aff.to_matrix(turn.matrix(box.width, box.height))
    initial = aff.compose(to_region, aff.compose(to_box, aff.compose(local, to_patch)))
    return OrientedRegion(box=box, orientation=turn, initial=aff.to_affine(initial))


def measure_nodes(
    moving: Slide, fixed: Slide, matrix: Float64Array, corners: Int64Array, report: Reporter
) -> Nodes:
    """Match the patches whose top-left corners are given, shape (n, 2), moving px; those without
    texture are left out."""
    rows = []
    for done, (x, y) in enumerate(corners.tolist(), start=1):
        row = _measure_node(moving, fixed, matrix, Box(x=x, y=y, width=NODE_PX, height=NODE_PX))
        if row is not None:
            rows.append(row)
        report(ProgressEvent(stage="nodes", done=done, total=len(corners), unit="node"))
    table = np.asarray(rows, dtype=np.float64).reshape(-1, 9)
    return Nodes(
        positions=table[:, :2],
        places=table[:, 2:4],
        ncc_band=table[:, 4],
        errors=table[:, 5],
        focus=table[:, 6:8],
        texture=table[:, 8],
    )


def _measure_node(
    moving: Slide, fixed: Slide, matrix: Float64Array, patch: Box
) -> tuple[float, ...] | None:
    """Centre, place, band NCC, error, both sharpnesses and texture as `Nodes` has them; None
    without texture."""
    lr = corr.grey(moving.read_level(0, patch.x, patch.y, NODE_PX, NODE_PX))
    texture = corr.texture(lr)
    if texture < TWO_SCANS.min_texture:
        return None
    region = oriented_region(matrix, patch, int(NODE_REACH_PX))
    hr = corr.grey(region.read(fixed))
    found = aff.prealign(lr, hr, aff.to_matrix(region.initial), NODE_REACH_PX)
    sampled = aff.sample_through(hr, found, NODE_PX, NODE_PX)
    shifts = part_shifts(lr, sampled, aff.pixel_side(found), 2, texture)
    quarters = (part for half in np.split(sampled, 2) for part in np.split(half, 2, axis=1))
    return (
        patch.x + NODE_PX / 2,
        patch.y + NODE_PX / 2,
        *region.place(aff.apply(found, np.array([NODE_PX / 2, NODE_PX / 2]))).tolist(),
        corr.ncc(corr.band_pass(lr), corr.band_pass(sampled)),
        _standard_error(shifts[:MIDDLE]),
        relative_focus(lr, sampled),
        own_focus(hr),
        min(corr.texture(np.ascontiguousarray(part)) for part in quarters),
    )


def _standard_error(shifts: Float64Array) -> float:
    """Of the mean of the quarters' shifts; without two of them that say something, unknown."""
    known = shifts[np.isfinite(shifts).all(axis=1)]
    if len(known) < 2:
        return UNKNOWN_ERROR_PX
    variance = float(np.sum(np.var(known, axis=0, ddof=1)))
    return float(np.sqrt(variance / len(known)))


def shown_by_both(nodes: Nodes) -> Nodes:
    """Nodes that say something about the glass: they match, or the fixed scan has tissue there.

    Tissue that came off between the scans, or that one scanner took for glass, is no sign of
    another section.
    """
    if not len(nodes):
        return nodes
    usual = TISSUE * float(np.percentile(nodes.texture, 90))
    bare = nodes.texture < max(TWO_SCANS.min_texture, usual)
    return nodes.which(~bare | (nodes.ncc_band >= NODE_NCC_BAND))


def why_not_one_glass(nodes: Nodes) -> str:
    """Why nodes that both scans show are no proof of one glass; empty if they are."""
    good = int(np.sum(nodes.ncc_band >= NODE_NCC_BAND))
    if len(nodes) < MIN_NODES:
        return (
            f"too little in common: only {len(nodes)} places show tissue in both scans, and "
            f"{MIN_NODES} are needed to tell whether they are of one glass"
        )
    if good < MIN_NODES or good / len(nodes) < SAME_GLASS_SHARE:
        return (
            f"not the same glass: only {good} of {len(nodes)} places match in detail "
            f"(median band NCC {float(np.median(nodes.ncc_band)):.2f}); sections of one block hold "
            "other cells"
        )
    return ""


def why_not_one_piece(piece: Int64Array) -> str:
    """Why places that match in detail give no map between them; empty if some do.

    `piece` says which of the pieces that move together each belongs to, -1 for none.
    """
    if (piece >= 0).any():
        return ""
    return (
        "places match in detail, but no neighbours agree on where: the tissue is bent between them "
        "more than can be followed"
    )
