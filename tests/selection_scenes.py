"""Pictures with known tissue, and a slide that lives in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import cv2
import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.geometry import Layer, PatchGeometry, level_factor
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides.protocol import (
    Level,
    SlideInfo,
)

GLASS = (243, 242, 244)


class ArraySlide:
    """A slide whose levels are arrays; counts what is read."""

    def __init__(
        self,
        levels: Sequence[UInt8Array],
        um_per_px: float | None,
        valid: Sequence[BoolArray] | None = None,
        tile_px: int = 64,
    ) -> None:
        self.levels = list(levels)
        self.valid = list(valid) if valid is not None else None
        self.reads: list[tuple[int, int, int]] = []
        height, width = levels[0].shape[:2]
        self._info = SlideInfo(
            path=Path("memory.tif"),
            vendor="memory",
            backend="memory",
            mpp=make_mpp(um_per_px, um_per_px, MppSource.OVERRIDE) if um_per_px else None,
            mpp_problem="" if um_per_px else "the picture states no resolution",
            levels=tuple(
                Level(
                    index=i,
                    width_px=a.shape[1],
                    height_px=a.shape[0],
                    factor=level_factor(width, height, a.shape[1], a.shape[0]),
                    tile_width_px=tile_px,
                    tile_height_px=tile_px,
                )
                for i, a in enumerate(levels)
            ),
            bytes=0,
            fingerprint="",
        )

    @property
    def info(self) -> SlideInfo:
        return self._info

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> UInt8Array:
        self.reads.append((level, width, height))
        return self.levels[level][y : y + height, x : x + width]

    def read_validity(self, level: int, x: int, y: int, width: int, height: int) -> BoolArray:
        if self.valid is None:
            return np.ones((height, width), np.bool_)
        return self.valid[level][y : y + height, x : x + width]

    def icc_profile(self) -> bytes | None:
        return None

    def close(self) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def info_of(width: int, height: int, um_per_px: float = 0.25, factors: Sequence[int] = (1,)):
    """What is known of a slide of a size, without pixels (levels cut off, not rounded)."""
    levels = [np.broadcast_to(np.uint8(0), (height // f, width // f, 3)) for f in factors]
    return ArraySlide(levels, um_per_px).info


def geometry_of(field_px: int = 1024, factor: int = 4, level: int = 0) -> PatchGeometry:
    """HR at level 0 and LR by `factor`, read from `level`."""
    return PatchGeometry(
        layers=(
            Layer(name="40x", factor=1, size_px=field_px, level=0, reduction=1.0),
            Layer(
                name="10x",
                factor=factor,
                size_px=field_px // factor,
                level=level,
                reduction=1.0 if level else float(factor),
            ),
        ),
        step_px=factor,
        field_px=field_px,
    )


def disk(shape: tuple[int, int], x: float, y: float, radius: float) -> BoolArray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2


def paint_tissue(
    picture: UInt8Array,
    where: BoolArray,
    seed: int = 0,
    colour: tuple[int, int, int] = (196, 120, 168),
    contrast: float = 26.0,
) -> None:
    """Textured H&E colours inside a mask, in place (8 um/px: nuclei are single dark pixels)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, where.shape).astype(np.float32)
    noise = noise + 0.7 * cv2.GaussianBlur(noise, (0, 0), 1.5) * 3
    shade = np.asarray(colour, np.float32) + noise[..., None] * np.array([1, 1.1, 0.7]) * contrast
    # Even the brightest tissue keeps a tint; equal limits would make it white.
    highest = np.minimum(np.asarray(colour) + 45, (240, 222, 234))
    picture[where] = np.clip(shade, 20, highest).astype(np.uint8)[where]


def glass(shape: tuple[int, int], colour: tuple[int, int, int] = GLASS, seed: int = 9):
    """Bare glass with the noise of a scanner."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1.2, (*shape, 1))
    return np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
