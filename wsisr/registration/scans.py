"""Two scans of one glass: where every patch of the coarse one lies in the fine one.

The overview gives the rough map, whatever the turn and mirroring; nodes all over the tissue,
matched at full resolution, give the exact one with its drift and seams; each patch is then
registered on its own (`register_pair(..., "affine", initial=plan.initial)`).

"Moving" is the coarse scan (the LR), "fixed" the fine one. Positions are level-0 px of either
scan, pixel edges.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from wsisr.arrays import Float64Array, Int64Array
from wsisr.geometry import Box
from wsisr.progress import Reporter, silent
from wsisr.registration import affine as aff
from wsisr.registration.certificate import Affine
from wsisr.registration.field import ResidualField, Seam, split_pieces
from wsisr.registration.focus import OUT_OF_FOCUS
from wsisr.registration.nodes import (
    NODE_NCC_BAND,
    NODE_SPACING_UM,
    OrientedRegion,
    measure_nodes,
    node_grid,
    oriented_region,
    shown_by_both,
    stated_scale,
    why_not_one_glass,
    why_not_one_piece,
)
from wsisr.registration.overview import OverviewMatch
from wsisr.registration.rough import rough_map
from wsisr.registration.seams import locate_seams
from wsisr.slides.protocol import Slide

NEAREST = 4
"""Nodes that say how sharp and how certain a place is."""
EDGE_PX = 2.0
"""How far beyond the fixed scan a patch may seem to lie before it is looked at, fixed px."""
PATCH_MARGIN_PX = 12
"""Room around a patch for its own registration, moving px."""


@dataclass(frozen=True, kw_only=True)
class PatchPlan(OrientedRegion):
    """What to read of the fixed scan for one patch, and whether that will do.

    Attributes
    ----------
    inside : bool
        Whether the fixed scan holds all of the patch, as far as the map tells.
    straddles_seam : bool
        Whether a seam of the stitching may run through the patch.
    out_of_focus : bool
        Whether either scan is less than half as sharp here as it is elsewhere.
    """

    inside: bool
    straddles_seam: bool
    out_of_focus: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanRegistration:
    """The map between two scans.

    Attributes
    ----------
    matrix : 2x3 nested tuple
        Affine part, moving level-0 px -> fixed level-0 px, pixel edges.
    stated_scale : float
        Fixed px per moving px as the files' resolutions have it.
    positions : ndarray, shape (n, 2)
        Centres of the nodes, moving px.
    residuals : ndarray, shape (n, 2)
        Measured minus affine place of the nodes, fixed px.
    ncc_band : ndarray, shape (n,)
    errors : ndarray, shape (n,)
        Standard error of each node, fixed px.
    focus : ndarray, shape (n, 2)
        Sharpness of the moving scan against the fixed one, and of the fixed one by itself.
    piece : ndarray, shape (n,), int64
        Smooth piece that a node belongs to; -1 for nodes that are not used.
    spacing_px : float
        Node spacing, moving px.
    reason : str
        Why both scans do not show the same section, or empty.
    match_colours : bool
        Whether its patches are measured in matched colours (see `register_pair`), which the first
        stores did not: their records give the same pixels.
    """

    matrix: Affine
    stated_scale: float
    positions: Float64Array
    residuals: Float64Array
    ncc_band: Float64Array
    errors: Float64Array
    focus: Float64Array
    piece: Int64Array
    spacing_px: float
    seams: tuple[Seam, ...]
    reason: str
    overview: OverviewMatch
    match_colours: bool

    @property
    def mirrored(self) -> bool:
        return float(np.linalg.det(aff.to_matrix(self.matrix)[:, :2])) < 0

    @property
    def scale(self) -> float:
        """Measured fixed px per moving px."""
        return aff.pixel_side(aff.to_matrix(self.matrix))

    @property
    def rotation_deg(self) -> float:
        """Turn of the affine part, after undoing a mirroring."""
        linear = aff.to_matrix(self.matrix)[:, :2]
        if self.mirrored:
            linear = linear @ np.diag([-1.0, 1.0])
        turn = np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])
        return float(np.degrees(turn))

    @property
    def same_glass(self) -> bool:
        """Whether both scans show the same section: else they are no pairs for SR."""
        return not self.reason

    @property
    def field_rms_px(self) -> float:
        """Distance of the used nodes from the smooth field, fixed px, root mean square."""
        used = self.piece >= 0
        return _rms(self.residuals[used] - self.field(self.positions[used]))

    @cached_property
    def field(self) -> ResidualField:
        """Smooth residual of the map, moving px -> fixed px."""
        return ResidualField(self.positions, self.residuals, self.piece, self.spacing_px)

    def place(self, points: Float64Array) -> Float64Array:
        """Fixed level-0 places of moving level-0 points, both (n, 2)."""
        return aff.apply(aff.to_matrix(self.matrix), points) + self.field(points)

    def predict(self, x: float, y: float) -> Affine:
        """Local affine map around a moving level-0 point, moving px -> fixed px."""
        step = self.spacing_px / 8
        offsets = step * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)
        here, right, left, down, up = self.place(np.array([x, y]) + offsets)
        linear = np.column_stack([(right - left) / (2 * step), (down - up) / (2 * step)])
        return aff.to_affine(np.column_stack([linear, here - linear @ [x, y]]))

    def plan_patch(
        self,
        x: int,
        y: int,
        width: int,
        height: int,
        margin_px: int = PATCH_MARGIN_PX,
        bounds: tuple[int, int] | None = None,
    ) -> PatchPlan:
        """What to read for the LR patch ``[x, x + width) x [y, y + height)`` (moving px).

        `bounds` are the fixed scan's width and height, where the margin is to end with it.
        """
        local = aff.to_matrix(self.predict(x + width / 2, y + height / 2))
        patch = Box(x=x, y=y, width=width, height=height)
        footprint = aff.apply(local, aff.corners_of(x, y, width, height))
        inside = bounds is None or bool(
            (footprint.min(axis=0) >= -EDGE_PX).all()
            and (footprint.max(axis=0) <= np.add(bounds, EDGE_PX)).all()
        )
        return PatchPlan(
            **vars(oriented_region(local, patch, margin_px, bounds)),
            inside=inside,
            straddles_seam=any(seam.touches(x, y, width, height) for seam in self.seams),
            out_of_focus=bool(
                self.focus_share(np.array([[x + width / 2, y + height / 2]])).min() < OUT_OF_FOCUS
            ),
        )

    @cached_property
    def _used(self) -> cKDTree:
        return cKDTree(self.positions[self.piece >= 0])

    def _near(self, points: Float64Array) -> Int64Array:
        """The used nodes nearest to each point, shape (n, at most `NEAREST`)."""
        count = min(NEAREST, int(np.sum(self.piece >= 0)))
        _, found = self._used.query(points, k=[*range(1, count + 1)])
        return np.flatnonzero(self.piece >= 0)[found]

    def focus_share(self, points: Float64Array) -> Float64Array:
        """Sharpness around points over the median of the scan, shape (n, 2): moving, fixed.

        The moving scan is compared with the fixed one, the fixed one with itself.
        """
        if not np.any(self.piece >= 0):
            return np.ones((len(points), 2))
        logs = np.log(np.maximum(self.focus, 1e-3))
        middle = np.median(logs[self.piece >= 0], axis=0)
        return np.exp(logs[self._near(points)].mean(axis=1) - middle)

    def uncertainty(self, points: Float64Array) -> Float64Array:
        """Standard error of `place` at points, shape (n,), fixed px.

        What the nodes around say of their own error, and how far they lie off the field.
        """
        if not np.any(self.piece >= 0):
            return np.full(len(points), np.inf)
        off = np.linalg.norm(self.residuals - self.field(self.positions), axis=1)
        return np.sqrt(np.mean((self.errors**2 + off**2)[self._near(points)], axis=1))

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings from which `from_json` makes the same registration."""
        return {
            "matrix": self.matrix,
            "stated_scale": self.stated_scale,
            "places": np.column_stack([self.positions, self.residuals]).tolist(),
            "ncc_band": self.ncc_band.tolist(),
            "errors": self.errors.tolist(),
            "focus": self.focus.tolist(),
            "piece": self.piece.tolist(),
            "spacing_px": self.spacing_px,
            "seams": [asdict(seam) for seam in self.seams],
            "same_glass": self.same_glass,
            "reason": self.reason,
            "match_colours": self.match_colours,
            "overview": {**asdict(self.overview), "matrix": self.overview.matrix.tolist()},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ScanRegistration":
        """The registration that `to_json` wrote, also the first versions of it: those knew whole
        scales alone, and neither errors nor sharpness."""
        table = np.asarray(values["places"], dtype=np.float64).reshape(-1, 4)
        even = {"errors": np.zeros(len(table)), "focus": np.ones((len(table), 2))}
        values = even | {"stated_scale": values.get("scale")} | values
        overview = values["overview"]
        return cls(
            matrix=aff.to_affine(np.asarray(values["matrix"], dtype=np.float64)),
            stated_scale=float(values["stated_scale"]),
            positions=table[:, :2],
            residuals=table[:, 2:],
            ncc_band=np.asarray(values["ncc_band"], dtype=np.float64),
            errors=np.asarray(values["errors"], dtype=np.float64),
            focus=np.asarray(values["focus"], dtype=np.float64).reshape(-1, 2),
            piece=np.asarray(values["piece"], dtype=np.int64),
            spacing_px=float(values["spacing_px"]),
            seams=tuple(Seam(**seam) for seam in values["seams"]),
            reason=str(values["reason"]),
            overview=OverviewMatch(**{**overview, "matrix": np.asarray(overview["matrix"])}),
            match_colours=bool(values.get("match_colours", False)),
        )

    def summary(self) -> dict[str, Any]:
        """Plain values for the store and for `inspect`."""
        return {
            "matrix": self.matrix,
            "mirrored": self.mirrored,
            "scale": self.scale,
            "stated_scale": self.stated_scale,
            "rotation_deg": self.rotation_deg,
            "nodes": len(self.positions),
            "nodes_used": int(np.sum(self.piece >= 0)),
            "ncc_band": float(np.median(self.ncc_band)) if len(self.ncc_band) else 0.0,
            "seams": len(self.seams),
            "out_of_focus": int(
                np.sum(self.focus_share(self.positions).min(axis=1) < OUT_OF_FOCUS)
            ),
            "error_px": float(np.median(self.uncertainty(self.positions)))
            if self.same_glass
            else None,
            "field_rms_px": self.field_rms_px,
            "residual_rms_px": _rms(self.residuals[self.piece >= 0]),
            "same_glass": self.same_glass,
            "reason": self.reason,
            "overview_inliers": self.overview.inliers,
            "overview_rms_px": self.overview.rms_px,
        }


def register_scans(
    moving: Slide,
    fixed: Slide,
    seed: int = 0,
    *,
    spacing_um: float = NODE_SPACING_UM,
    report: Reporter = silent,
) -> ScanRegistration:
    """Register a coarse scan of a glass to a fine scan of it.

    Parameters
    ----------
    moving, fixed : Slide
        Coarse and fine scan; both need a resolution. Any ratio from 1 to 8, any turn, mirrored
        or not, up to 3 % error of scale, drift of the stage.
    spacing_um : float
        Distance of the nodes.

    Raises
    ------
    RegistrationError
        If a resolution is missing, the ratio is outside 1 to 8, or the scans have nothing in
        common. Neighbouring sections of one block are no error: the map is returned with
        ``same_glass=False``.
    """
    scale = stated_scale(moving, fixed)
    match, matrix, overview, factor, not_unique = rough_map(moving, fixed, seed, report)
    spacing_px, candidates = node_grid(moving, fixed, matrix, overview, factor, spacing_um)
    nodes = shown_by_both(measure_nodes(moving, fixed, matrix, candidates, report))
    reason = why_not_one_glass(nodes) or not_unique
    good = nodes.ncc_band >= NODE_NCC_BAND
    if not reason:
        matrix = aff.robust_least_squares(nodes.positions[good], nodes.places[good])
    residuals = nodes.places - aff.apply(matrix, nodes.positions)
    piece = np.full(len(nodes), -1, np.int64)
    seams: tuple[Seam, ...] = ()
    if not reason:
        used = nodes.which(good)
        piece[good] = split_pieces(used.positions, residuals[good], spacing_px)
        reason = why_not_one_piece(piece)
    if not reason:
        seams = locate_seams(moving, fixed, matrix, used, residuals[good], spacing_px)
    return ScanRegistration(
        matrix=aff.to_affine(matrix),
        stated_scale=scale,
        positions=nodes.positions,
        residuals=residuals,
        ncc_band=nodes.ncc_band,
        errors=nodes.errors,
        focus=nodes.focus,
        piece=piece,
        spacing_px=spacing_px,
        seams=seams,
        reason=reason,
        overview=match,
        match_colours=True,
    )


def _rms(values: Float64Array) -> float:
    return float(np.sqrt(np.mean(np.sum(values**2, axis=-1)))) if len(values) else 0.0
