"""Applying a slide's level calibration: where each layer is read, and what is left over.

A level of factor F with the measured shift s covers level 0 from ``F k + s`` with its pixel k.
The coarsest stored LR is the reference: it is read where the grid says, and everything else
moves by whole pixels to meet it, because no pixel may be interpolated. What whole pixels cannot do
is the residual, stored with every pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wsisr.arrays import Float64Array, Int64Array
from wsisr.geometry import Layer, PatchGeometry
from wsisr.registration.calibration import LevelTransform

MAX_RESIDUAL_PX = 0.75
"""HR px. Rounding leaves half a pixel; more means that a level drifts over the slide."""


def reference_layer(geometry: PatchGeometry) -> Layer | None:
    """The coarsest LR that is stored in the file; None where every LR is made."""
    stored = [layer for layer in geometry.layers[1:] if layer.native]
    return stored[-1] if stored else None


def aligned(
    geometry: PatchGeometry, transforms: Sequence[LevelTransform], width_px: int, height_px: int
) -> PatchGeometry:
    """The geometry with every layer moved by whole pixels to where the reference looks.

    Parameters
    ----------
    transforms : sequence of LevelTransform
        Of the levels in use.
    width_px, height_px : int
        Size of level 0; shifts are taken in its middle.
    """
    reference = reference_layer(geometry)
    if reference is None:
        return geometry
    by_level = {transform.level: transform for transform in transforms}
    middle = (width_px / 2.0, height_px / 2.0)
    wanted = _shift(by_level, reference.level, *middle)
    layers = []
    for layer in geometry.layers:
        own = _shift(by_level, layer.level, *middle)
        level_factor = layer.factor / layer.reduction
        # A made layer follows the level that it is made from, in that level's pixels.
        move = [round((w - o) / level_factor) for w, o in zip(wanted, own, strict=True)]
        layers.append(replace(layer, shift_x_px=move[0], shift_y_px=move[1]))
    return replace(geometry, layers=tuple(layers))


def residuals(
    geometry: PatchGeometry,
    transforms: Sequence[LevelTransform],
    origins: Int64Array,
) -> Mapping[str, Float64Array]:
    """Sub-pixel shift of every stored LR against its HR patch, by layer name, shape (n, 2).

    x, y in HR px: where the LR's footprint begins relative to the HR patch.

    Parameters
    ----------
    geometry : PatchGeometry
        From `aligned`.
    origins : ndarray, shape (n, 2)
        Level-0 origins.
    """
    by_level = {transform.level: transform for transform in transforms}
    hr = geometry.layers[0]
    centre = np.asarray(origins + geometry.field_px / 2.0, np.float64)
    found = {}
    for layer in geometry.layers[1:]:
        if layer.native:
            place = _places(by_level, layer, centre) - _places(by_level, hr, centre)
            found[layer.name] = place / hr.factor
    return found


def _places(
    by_level: Mapping[int, LevelTransform], layer: Layer, centre: Float64Array
) -> Float64Array:
    """True level-0 position of a layer's corner relative to its patch's origin, (n, 2)."""
    moved = np.array([layer.shift_x_px, layer.shift_y_px]) * (layer.factor / layer.reduction)
    shifts = [_shift(by_level, layer.level, float(x), float(y)) for x, y in centre]
    return np.asarray(shifts, np.float64).reshape(-1, 2) + moved


def _shift(
    by_level: Mapping[int, LevelTransform], level: int, x: float, y: float
) -> tuple[float, float]:
    transform = by_level.get(level)
    return (0.0, 0.0) if transform is None else transform.shift_px(x, y)
