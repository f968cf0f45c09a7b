"""Outlines on a slide: making smooth random ones, and asking how far a point is inside.

A ring is an array of vertices, shape (n, 2), x and y in level-0 pixels (pixel edges), closed
implicitly. Everything that has an outline (tissue, holes, tumour, pen, folds) is a ring, so the
truth is exact and can be handed out as polygons.

The renderer needs a signed distance per pixel. It is evaluated at lattice points every
`LATTICE_PX` level-0 pixels, clipped to `CLIP_PX`, and interpolated linearly in between; the lattice
is fixed to the slide, so the result does not depend on how a region is cut into blocks.
"""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

from wsisr.arrays import Float32Array, Float64Array

Bounds = tuple[float, float, float, float]

LATTICE_PX = 8
CLIP_PX = 24.0


def blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: tuple[float, float],
    roughness: float = 0.12,
    vertices: int = 160,
    power: float = 2.0,
) -> Float64Array:
    """A smooth closed outline around a centre.

    Parameters
    ----------
    centre : (x, y)
        Level-0 px.
    radius : (rx, ry)
        Mean radii of the ellipse that is deformed, level-0 px.
    roughness : float
        Relative amplitude of the deformation.
    power : float
        2 deforms an ellipse, 4 a rounded rectangle, which fills a slide better.
    """
    theta = np.arange(vertices) * (2 * np.pi / vertices)
    factor = (np.abs(np.cos(theta)) ** power + np.abs(np.sin(theta)) ** power) ** (-1 / power)
    for order in range(2, 8):
        amplitude = roughness * rng.uniform(0.3, 1.0) / (order - 0.5)
        factor += amplitude * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    x = centre[0] + radius[0] * factor * np.cos(theta)
    y = centre[1] + radius[1] * factor * np.sin(theta)
    return np.stack([x, y], axis=1)


def stroke(points: Sequence[tuple[float, float]], width_px: float) -> Float64Array:
    """Outline of a line drawn with a round pen of a given width (level-0 px)."""
    line = shapely.LineString(points).buffer(width_px / 2, quad_segs=8)
    return np.asarray(line.exterior.coords, np.float64)[:-1]


def polygon_of(rings: Sequence[ArrayLike], holes: Sequence[ArrayLike] = ()) -> shapely.Geometry:
    """Union of rings minus the union of holes, as a shapely geometry in level-0 px."""
    area = shapely.union_all([shapely.make_valid(shapely.Polygon(r)) for r in rings])
    if len(holes):
        area = area.difference(
            shapely.union_all([shapely.make_valid(shapely.Polygon(r)) for r in holes])
        )
    return area


class RingSet:
    """Signed distance to the union of rings, positive inside.

    Parameters
    ----------
    rings : sequence of ring
    """

    def __init__(self, rings: Sequence[ArrayLike]) -> None:
        self.rings = tuple(np.asarray(r, np.float64) for r in rings)
        self.bounds = np.array([[*r.min(0), *r.max(0)] for r in self.rings]).reshape(-1, 4)
        self._polygons = [shapely.Polygon(r) for r in self.rings]
        for polygon in self._polygons:
            shapely.prepare(polygon)

    def __len__(self) -> int:
        return len(self.rings)

    def touching(self, box: Bounds) -> NDArray[np.intp]:
        """Indices of the rings whose bounds come within `CLIP_PX` of a box (x0, y0, x1, y1)."""
        b = self.bounds
        near = (
            (b[:, 0] <= box[2] + CLIP_PX)
            & (b[:, 2] >= box[0] - CLIP_PX)
            & (b[:, 1] <= box[3] + CLIP_PX)
            & (b[:, 3] >= box[1] - CLIP_PX)
        )
        return np.flatnonzero(near)

    def distance(self, xs: Float64Array, ys: Float64Array) -> Float32Array:
        """Signed distance on the grid of sorted coordinates, clipped to +-`CLIP_PX`.

        Returns
        -------
        ndarray, shape (len(ys), len(xs)), float32
        """
        out = np.full((len(ys), len(xs)), -CLIP_PX, np.float32)
        for index in self.touching((xs[0], ys[0], xs[-1], ys[-1])):
            x0, y0, x1, y1 = self.bounds[index]
            cols = slice(
                int(np.searchsorted(xs, x0 - CLIP_PX)), int(np.searchsorted(xs, x1 + CLIP_PX))
            )
            rows = slice(
                int(np.searchsorted(ys, y0 - CLIP_PX)), int(np.searchsorted(ys, y1 + CLIP_PX))
            )
            if cols.start >= cols.stop or rows.start >= rows.stop:
                continue
            part = self._one(int(index), xs[cols], ys[rows])
            np.maximum(out[rows, cols], part, out=out[rows, cols])
        return out

    def _one(self, index: int, xs: Float64Array, ys: Float64Array) -> Float32Array:
        """Signed distance to one ring."""
        ring = self.rings[index]
        start, end = ring, np.roll(ring, -1, axis=0)
        low, high = np.minimum(start, end), np.maximum(start, end)
        near = (
            (low[:, 0] <= xs[-1] + CLIP_PX)
            & (high[:, 0] >= xs[0] - CLIP_PX)
            & (low[:, 1] <= ys[-1] + CLIP_PX)
            & (high[:, 1] >= ys[0] - CLIP_PX)
        )
        polygon = self._polygons[index]
        if not near.any():
            inside = shapely.contains_xy(polygon, xs[0], ys[0])
            return np.full((len(ys), len(xs)), CLIP_PX if inside else -CLIP_PX, np.float32)
        gx, gy = np.meshgrid(xs, ys)
        squared = np.full(gx.shape, CLIP_PX**2)
        for (ax, ay), (bx, by) in zip(start[near], end[near], strict=True):
            c0, c1 = np.searchsorted(xs, (min(ax, bx) - CLIP_PX, max(ax, bx) + CLIP_PX))
            r0, r1 = np.searchsorted(ys, (min(ay, by) - CLIP_PX, max(ay, by) + CLIP_PX))
            if c0 >= c1 or r0 >= r1:
                continue
            px, py = xs[c0:c1] - ax, (ys[r0:r1] - ay)[:, None]
            dx, dy = bx - ax, by - ay
            length = dx * dx + dy * dy
            t = np.clip((px * dx + py * dy) / length, 0.0, 1.0) if length > 0 else 0.0
            ex, ey = px - t * dx, py - t * dy
            window = squared[r0:r1, c0:c1]
            np.minimum(window, ex * ex + ey * ey, out=window)
        inside = shapely.contains_xy(polygon, gx, gy)
        distance = np.sqrt(squared)
        return np.where(inside, distance, -distance).astype(np.float32)


def lattice_axis(start_px: int, length_px: int) -> Float64Array:
    """Lattice coordinates that enclose the pixel centres of ``[start, start + length)``."""
    first = start_px // LATTICE_PX
    last = (start_px + length_px - 1) // LATTICE_PX + 1
    return np.arange(first, last + 1, dtype=np.float64) * LATTICE_PX


def upsample(lattice: Float32Array, x: int, y: int, width: int, height: int) -> Float32Array:
    """Linear interpolation of lattice values at the pixel centres of a region.

    Parameters
    ----------
    lattice : ndarray, float32
        Values at ``lattice_axis(y, height)`` by ``lattice_axis(x, width)``.
    x, y, width, height : int
        Level-0 region.
    """
    ix, tx = _weights(x, width)
    iy, ty = _weights(y, height)
    wide = lattice[:, ix] * (1.0 - tx) + lattice[:, ix + 1] * tx
    out = wide[iy] * (1.0 - ty)[:, None]
    out += wide[iy + 1] * ty[:, None]
    return out


def _weights(start: int, length: int) -> tuple[NDArray[np.intp], Float32Array]:
    position = np.arange(start, start + length)
    index = position // LATTICE_PX
    fraction = (position - index * LATTICE_PX + 0.5) / LATTICE_PX
    return index - start // LATTICE_PX, fraction.astype(np.float32)
