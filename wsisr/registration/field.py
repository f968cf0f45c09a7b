"""What is left of the map between two scans after its affine part: drift of the stage, seams.

A residual that changes smoothly is drift and is interpolated; one that jumps between
neighbours is a seam of the stitching, and one that agrees with no neighbour is a mistake.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from wsisr.arrays import Float64Array, Int64Array

JUMP_PX = 2.0
"""Difference between neighbouring nodes that is a seam, fixed level-0 px."""
LONELY = 0.75
"""Share of jumping neighbours that makes a node a mistake."""
MIN_PIECE = 5
"""Fewest nodes of a piece of the field."""
SMOOTHING = 0.5
"""Of the thin plates, with positions in units of the node spacing."""
NEIGHBOURS = 40


@dataclass(frozen=True, kw_only=True)
class Seam:
    """A rectangle of the moving scan, level-0 px, in which the stitching jumps."""

    left: float
    top: float
    right: float
    bottom: float
    jump_px: float

    def touches(self, x: float, y: float, width: float, height: float) -> bool:
        """Whether a patch of the moving scan may hold the seam."""
        beside = self.left >= x + width or self.right <= x
        return not (beside or self.top >= y + height or self.bottom <= y)


def split_pieces(positions: Float64Array, residuals: Float64Array, spacing_px: float) -> Int64Array:
    """Sort the nodes of a grid into smooth pieces: that of each node, -1 for mistakes.

    Parameters
    ----------
    positions : ndarray, shape (n, 2)
        Moving level-0 px.
    residuals : ndarray, shape (n, 2)
        Fixed level-0 px.
    spacing_px : float
        Distance of neighbours, moving px.
    """
    label = np.full(len(positions), -1, np.int64)
    if len(positions) < 2:
        return label
    pairs = cKDTree(positions).query_pairs(1.6 * spacing_px, output_type="ndarray")
    jump = np.linalg.norm(residuals[pairs[:, 0]] - residuals[pairs[:, 1]], axis=1)
    high = jump > JUMP_PX
    alive = np.ones(len(positions), bool)
    # Worst first, because a mistake makes its neighbours look bad as well.
    while True:
        use = alive[pairs].all(axis=1)
        degree = np.bincount(pairs[use].ravel(), minlength=len(positions))
        bad = np.bincount(pairs[use & high].ravel(), minlength=len(positions))
        share = np.where(degree > 0, bad / np.maximum(degree, 1), 0.0)
        worst = int(np.argmax(np.where(alive, share, -1.0)))
        if share[worst] <= LONELY:
            break
        alive[worst] = False
    use = alive[pairs].all(axis=1)
    smooth = pairs[use & ~high]
    count = len(positions)
    graph = coo_matrix((np.ones(len(smooth)), (smooth[:, 0], smooth[:, 1])), (count, count))
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component[alive], minlength=component.max() + 1)
    next_label = 0
    for piece in np.argsort(-sizes, kind="stable"):
        if sizes[piece] >= MIN_PIECE:
            label[alive & (component == piece)] = next_label
            next_label += 1
    return label


class ResidualField:
    """Smooth interpolation of node residuals, piece by piece.

    Parameters
    ----------
    positions : ndarray, shape (n, 2)
        Moving level-0 px.
    residuals : ndarray, shape (n, 2)
        Fixed level-0 px.
    label : ndarray, shape (n,)
        Piece of each node, -1 = not used.
    """

    def __init__(
        self, positions: Float64Array, residuals: Float64Array, label: Int64Array, spacing_px: float
    ) -> None:
        self.spacing_px = spacing_px
        used = label >= 0
        self._label = label[used]
        self._tree = cKDTree(positions[used]) if used.any() else None
        self._plates = {}
        for piece in np.unique(self._label):
            mine = label == piece
            self._plates[int(piece)] = RBFInterpolator(
                positions[mine] / spacing_px,
                residuals[mine],
                neighbors=NEIGHBOURS if mine.sum() > NEIGHBOURS else None,
                smoothing=SMOOTHING,
                **(
                    {"kernel": "thin_plate_spline", "degree": 1}
                    if _spans_plane(positions[mine])
                    else {"kernel": "linear", "degree": 0}
                ),
            )

    def __call__(self, points: Float64Array) -> Float64Array:
        """Residual at points of shape (n, 2), moving px -> (n, 2), fixed px."""
        result = np.zeros_like(points)
        if self._tree is None:
            return result
        _, nearest = self._tree.query(points)
        pieces = self._label[nearest]
        for piece in np.unique(pieces):
            mine = pieces == piece
            result[mine] = self._plates[int(piece)](points[mine] / self.spacing_px)
        return result


def _spans_plane(positions: Float64Array) -> bool:
    spread = np.linalg.svd(positions - positions.mean(axis=0), compute_uv=False)
    return len(positions) >= 4 and bool(spread[-1] > 1e-3 * spread[0])
