"""Random numbers that belong to places: the same in whatever order they are asked for."""

import numpy as np

from wsisr.arrays import Float64Array, Int64Array
from wsisr.selection.hashing import mix, unit_interval


def hash_unit(seed: int, stream: int, ix: Int64Array, iy: Int64Array) -> Float64Array:
    """Reproducible numbers in [0, 1) for integer places (splitmix64)."""
    start = (seed * 0x9E3779B97F4A7C15 + stream * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    z = np.asarray(ix, np.int64).astype(np.uint64) * np.uint64(0x8CB92BA72F3D8DD7)
    z = z + np.asarray(iy, np.int64).astype(np.uint64) * np.uint64(0xA24BAED4963EE407)
    return unit_interval(mix(z + np.uint64(start)))


def value_noise(
    seed: int,
    stream: int,
    x: Float64Array | Int64Array,
    y: Float64Array | Int64Array,
    cell_px: float,
) -> Float64Array:
    """Smooth random field in [0, 1] with features of a given size; x and y broadcast."""
    u, v = np.asarray(x) / cell_px, np.asarray(y) / cell_px
    iu, iv = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    fu, fv = u - iu, v - iv
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    iu, iv = np.broadcast_arrays(iu, iv)
    corners = [[hash_unit(seed, stream, iu + a, iv + b) for a in (0, 1)] for b in (0, 1)]
    top = corners[0][0] * (1 - fu) + corners[0][1] * fu
    bottom = corners[1][0] * (1 - fu) + corners[1][1] * fu
    return np.asarray(top * (1 - fv) + bottom * fv)
