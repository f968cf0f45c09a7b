"""Read the layers of a patch: stored pixels where a level has them, antialiased where not."""

from math import ceil

from wsisr.arrays import UInt8Array
from wsisr.errors import GeometryError
from wsisr.geometry import Layer, PatchGeometry
from wsisr.slides.protocol import Slide
from wsisr.slides.resample import read_resampled


def source_origin_px(geometry: PatchGeometry, layer: Layer, x0: int, y0: int) -> tuple[int, int]:
    """Origin of a layer's source region with margin and shift, in whole pixels of its level.

    Raises
    ------
    GeometryError
        If the level-0 origin is off the grid that the layers share.
    """
    step = geometry.step_px
    if x0 % step or y0 % step:
        raise GeometryError(f"Origin ({x0}, {y0}) is off the patch grid of {step} level-0 px.")
    factor = round(layer.factor / layer.reduction)
    margin = layer.margin_px * layer.reduction
    if not float(margin).is_integer():
        raise GeometryError(
            f"{layer.name}: a margin of {layer.margin_px} px is {margin:g} px of level "
            f"{layer.level}, not a whole number."
        )
    return (
        x0 // factor - int(margin) + layer.shift_x_px,
        y0 // factor - int(margin) + layer.shift_y_px,
    )


def source_size_px(layer: Layer) -> int:
    """Side of the region of the read level that a layer's patch covers with its margin."""
    return max(1, ceil(layer.read_size_px * layer.reduction - 1e-6))


def read_layer(slide: Slide, geometry: PatchGeometry, layer: Layer, x0: int, y0: int) -> UInt8Array:
    """Read one layer of one patch.

    Parameters
    ----------
    layer : Layer
        One of `geometry.layers`.
    x0, y0 : int
        Level-0 origin of the patch, a multiple of `geometry.step_px`.

    Returns
    -------
    ndarray, shape (read_size, read_size, 3), uint8
        Stored pixels, bit for bit, where ``layer.native``; else an antialiased bicubic reduction
        of the level with its real surroundings as context.

    Raises
    ------
    GeometryError
        If the origin is off the grid.
    SlideError
        If the file cannot be read.
    """
    x, y = source_origin_px(geometry, layer, x0, y0)
    size = layer.read_size_px
    if layer.native:
        return slide.read_level(layer.level, x, y, size, size)
    return read_resampled(slide, layer.level, (x, y), layer.reduction, (size, size))


def read_layer_validity(
    slide: Slide, geometry: PatchGeometry, layer: Layer, x0: int, y0: int
) -> bool:
    """Whether every source pixel of a layer of a patch was scanned.

    Asks for the field of view itself; what only the resampling kernel sees around it may be
    missing.
    """
    x, y = source_origin_px(geometry, layer, x0, y0)
    size = source_size_px(layer)
    return bool(slide.read_validity(layer.level, x, y, size, size).all())
