"""The low-resolution plane that is upscaled: a stored level, or one made by exact reduction."""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.errors import ConfigError, MagnificationError, MppError
from wsisr.geometry import Box
from wsisr.magnification import nominal_magnification
from wsisr.slides.protocol import Level, Slide, SlideInfo
from wsisr.slides.resample import read_resampled

STORED_TOLERANCE = 0.01
"""A stored level this near to the resolution asked for is read as it is."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """What is read, and from where.

    Attributes
    ----------
    level : int
        Stored level.
    reduction : float
        Level px per plane px; 1 means stored pixels.
    factor : float
        Level-0 px per plane px.
    um_per_px : (float, float) or None
        Of the plane, x and y.
    """

    level: int
    reduction: float
    factor: float
    width_px: int
    height_px: int
    um_per_px: tuple[float, float] | None

    @property
    def origin(self) -> str:
        """What its pixels are, in the words of a store: ``"stored-level"`` or ``"reduced"``."""
        return "stored-level" if self.reduction == 1.0 else "reduced"


def plan_plane(
    info: SlideInfo,
    *,
    magnification: float | None = None,
    level_um_per_px: float | None = None,
) -> Plane:
    """Choose the plane to upscale.

    Parameters
    ----------
    magnification : float, optional
        Nominal, e.g. 10: level 0's nominal magnification divided by it is the exact factor.
    level_um_per_px : float, optional
        Physical resolution instead. Neither: level 0.

    Returns
    -------
    Plane
        A stored exact level where there is one, else a reduction of the next finer one.

    Raises
    ------
    MppError
        If the slide states no resolution.
    MagnificationError
        If the slide is coarser than what is asked for.
    ConfigError
        If both are given.
    """
    if magnification is not None and level_um_per_px is not None:
        raise ConfigError("Give either --from or --level-mpp, not both.")
    factor = 1.0
    if magnification is not None or level_um_per_px is not None:
        if info.mpp is None:
            raise MppError(
                f"{info.path}: it states no resolution, so it is not known where "
                f"{_wanted(magnification, level_um_per_px)} lies; give --mpp (um per level-0 px)."
            )
        um = info.mpp.value
        if magnification is not None:
            nominal = nominal_magnification(um)
            if nominal is None:
                raise MagnificationError(
                    f"{info.path}: {um:g} um/px is no usual magnification; say what to read with "
                    "--level-mpp."
                )
            factor = nominal / magnification
        else:
            assert level_um_per_px is not None
            factor = level_um_per_px / um
        if factor < 1 - STORED_TOLERANCE:
            raise MagnificationError(
                f"{info.path}: its finest level has {um:g} um/px, which is coarser than "
                f"{_wanted(magnification, level_um_per_px)}; ask for what it has, or leave --from "
                "and --level-mpp out to read its finest level."
            )
    return _plane(info, max(1.0, factor))


def _wanted(magnification: float | None, um_per_px: float | None) -> str:
    return f"{um_per_px:g} um/px" if magnification is None else f"{magnification:g}x"


def _plane(info: SlideInfo, factor: float) -> Plane:
    usable: list[tuple[int, Level]] = [
        (level.factor, level) for level in info.levels if level.exact and level.factor is not None
    ] or [(1, info.levels[0])]
    near = [p for p in usable if abs(p[0] / factor - 1) <= STORED_TOLERANCE]
    if near:
        own, level = min(near, key=lambda p: abs(p[0] / factor - 1))
        reduction = 1.0
    else:
        own, level = max((p for p in usable if p[0] < factor), key=lambda p: p[0])
        reduction = factor / own
    return plane_that_is(info, level.index, reduction)


def plane_that_is(info: SlideInfo, level: int, reduction: float = 1.0) -> Plane:
    """A level, or an exact reduction of it, as a plane.

    Raises
    ------
    IndexError
        There is no such level.
    ValueError
        It is no exact one, or the reduction is below 1.
    """
    stored = info.levels[level]
    own = 1 if level == 0 else stored.factor
    if own is None or not (level == 0 or stored.exact) or not reduction >= 1.0:
        raise ValueError(f"{info.path}: level {level} reduced {reduction:g} times is no plane")
    factor = own * reduction
    um = None if info.mpp is None else (info.mpp.x * factor, info.mpp.y * factor)
    return Plane(
        level=level,
        reduction=reduction,
        factor=factor,
        width_px=max(1, floor(stored.width_px / reduction + 1e-9)),
        height_px=max(1, floor(stored.height_px / reduction + 1e-9)),
        um_per_px=um,
    )


def plane_region(plane: Plane, level0: Box) -> Box:
    """The plane pixels that a level-0 box touches, cut at its edge; ConfigError for none."""
    x0, y0 = max(0, floor(level0.x / plane.factor)), max(0, floor(level0.y / plane.factor))
    x1 = min(plane.width_px, ceil(level0.right / plane.factor - 1e-9))
    y1 = min(plane.height_px, ceil(level0.bottom / plane.factor - 1e-9))
    if x0 >= x1 or y0 >= y1:
        raise ConfigError(
            f"--region {level0} (level-0 px) lies outside the slide of "
            f"{plane.width_px * plane.factor:.0f} x {plane.height_px * plane.factor:.0f} px."
        )
    return Box.between(x0, y0, x1, y1)


def read_plane(slide: Slide, plane: Plane, box: Box) -> UInt8Array:
    """Plane pixels, (box.height, box.width, 3)."""
    if plane.reduction == 1.0:
        return slide.read_level(plane.level, box.x, box.y, box.width, box.height)
    r = plane.reduction
    return read_resampled(slide, plane.level, (box.x * r, box.y * r), r, (box.width, box.height))


def read_plane_validity(slide: Slide, plane: Plane, box: Box) -> BoolArray:
    """Which plane pixels were scanned, by the level pixel under each one's centre."""
    if plane.reduction == 1.0:
        return slide.read_validity(plane.level, box.x, box.y, box.width, box.height)
    r = plane.reduction
    xs = np.floor((np.arange(box.x, box.right) + 0.5) * r).astype(np.int64)
    ys = np.floor((np.arange(box.y, box.bottom) + 0.5) * r).astype(np.int64)
    valid = slide.read_validity(
        plane.level, int(xs[0]), int(ys[0]), int(xs[-1] - xs[0]) + 1, int(ys[-1] - ys[0]) + 1
    )
    result: BoolArray = valid[np.ix_(ys - ys[0], xs - xs[0])]
    return result
