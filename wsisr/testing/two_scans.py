"""Two scans of one glass in memory, with exact truth: any ratio, turn and mirroring, stripes of
the stitching, drift of the stage, a tilted focus, other stain, noise and JPEG.

The moving scan is rendered in the Fourier domain (`wsisr.testing.rendering`), so that the map
between both is known to a hundredth of a pixel at every point.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from wsisr.arrays import BoolArray, Float64Array, UInt8Array
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides.protocol import SlideInfo
from wsisr.slides.tiles import TileGrid
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import restain, sensor
from wsisr.testing.rendering import FieldOfView, Objective, faded, jpeg, render, to_uint8

GLASS = 240.0
FIXED_UM_PER_PX = 0.25


class MemorySlide:
    """A slide of one level in memory; beyond its edges there is white.

    Parameters
    ----------
    image : ndarray, shape (h, w, 3), uint8
    """

    def __init__(self, image: UInt8Array, um_per_px: float | None, name: str = "memory") -> None:
        self.image = image
        height, width = image.shape[:2]
        grid = TileGrid.square(width, height, 256)
        self.info = SlideInfo(
            path=Path(name),
            vendor="none",
            backend="memory",
            mpp=make_mpp(um_per_px, um_per_px, MppSource.OVERRIDE) if um_per_px else None,
            levels=(grid.level(0, grid),),
            bytes=0,
            fingerprint="",
        )

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> UInt8Array:
        out = np.full((height, width, 3), 255, np.uint8)
        top, left = max(y, 0), max(x, 0)
        bottom = min(y + height, self.image.shape[0])
        right = min(x + width, self.image.shape[1])
        if bottom > top and right > left:
            out[top - y : bottom - y, left - x : right - x] = self.image[top:bottom, left:right]
        return out

    def read_validity(self, level: int, x: int, y: int, width: int, height: int) -> BoolArray:
        return np.ones((height, width), bool)


@dataclass(frozen=True, kw_only=True)
class ScanSpec:
    """How the moving scan differs from the fixed one; lengths are fixed px unless said.

    Attributes
    ----------
    ratio : float
        Fixed px per moving px.
    side_px : int
        Of the moving scan, moving px.
    stripe_px : float
        Height of the stripes of the moving scanner, moving px; 0: none.
    jump_px : float
        Largest offset of a stripe on either axis.
    drift_px : float
        Amplitude of the stage's drift.
    blur_px : (float, float)
        Sigma of the moving scanner's lens at the left and at the right edge: a tilted focus
        where they differ.
    other_look : bool
        Other stain and gamma, shot and read noise.
    quality : int or None
        JPEG quality of both; None: none.
    """

    ratio: float = 4.0
    rotation_deg: float = 0.0
    mirrored: bool = False
    side_px: int = 480
    stripe_px: float = 0.0
    jump_px: float = 0.0
    drift_px: float = 0.0
    blur_px: tuple[float, float] = (0.7, 0.7)
    other_look: bool = True
    quality: int | None = 85
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanPair:
    """Two scans and the map between them."""

    spec: ScanSpec
    moving: MemorySlide
    fixed: MemorySlide
    linear: Float64Array
    middle: Float64Array

    @cached_property
    def offsets(self) -> Float64Array:
        """Offset of every stripe, fixed px, shape (stripes, 2); the first is none."""
        return _offsets(self.spec)

    def seams(self) -> list[float]:
        """Rows of the moving scan at which a stripe begins."""
        if not self.spec.stripe_px:
            return []
        return [float(v) for v in np.arange(1, len(self.offsets)) * self.spec.stripe_px]

    def place(self, points: Float64Array) -> Float64Array:
        """True fixed places of moving points, both (n, 2), level-0 px, pixel edges."""
        half = self.spec.side_px / 2
        centred = np.asarray(points, np.float64) - half
        moved = _displacement(self.spec, self.offsets, centred[:, 0], centred[:, 1])
        return centred @ self.linear.T + self.middle + np.column_stack(moved)


def _offsets(spec: ScanSpec) -> Float64Array:
    count = int(spec.side_px // spec.stripe_px) + 1 if spec.stripe_px else 1
    rng = np.random.default_rng([spec.seed, 5])
    # Neighbours differ by at least half the range, so that every seam is one.
    sign = np.where(np.arange(count) % 2 == 0, 1.0, -1.0)[:, None]
    return sign * rng.uniform(0.25, 0.5, (count, 2)) * spec.jump_px


def _displacement(
    spec: ScanSpec, offsets: Float64Array, u: Float64Array, v: Float64Array
) -> tuple[Float64Array, Float64Array]:
    reach = 0.45 * spec.side_px
    dx = spec.drift_px * np.sin(u / reach + 0.4)
    dy = spec.drift_px * np.cos(v / reach + 1.1)
    if spec.stripe_px:
        stripe = np.floor((v + spec.side_px / 2) / spec.stripe_px).astype(np.int64)
        chosen = offsets[np.clip(stripe, 0, len(offsets) - 1)]
        dx, dy = dx + chosen[..., 0], dy + chosen[..., 1]
    return dx, dy


def make_scans(spec: ScanSpec, scene: Float64Array | None = None) -> ScanPair:
    """Render both scans.

    Parameters
    ----------
    scene : ndarray, shape (H, W, 3), optional
        What the fixed scanner sees, 0-255; its edges are faded to glass. Without it synthetic
        tissue is made, a tenth larger than the moving scan's field.
    """
    if scene is None:
        side = int(1.1 * spec.side_px * spec.ratio)
        scene = synthetic_tissue(side, side, seed=spec.seed + 31)
    scene = faded(scene.astype(np.float64), GLASS)
    rng = np.random.default_rng([spec.seed, 6])
    angle = np.deg2rad(spec.rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = spec.ratio * turn @ np.diag([-1.0 if spec.mirrored else 1.0, 1.0])
    middle = np.array([scene.shape[1], scene.shape[0]]) / 2 + rng.uniform(-9, 9, 2)
    offsets = _offsets(spec)

    def displacement(u: Float64Array, v: Float64Array) -> tuple[Float64Array, Float64Array]:
        return _displacement(spec, offsets, u, v)

    view = FieldOfView(
        linear=linear,
        centre=(float(middle[0]), float(middle[1])),
        side_px=spec.side_px,
        displacement=displacement,
    )
    blurs = np.linspace(*spec.blur_px, 1 if spec.blur_px[0] == spec.blur_px[1] else 4)
    seen = [
        render(scene, view, Objective(na=0.75, defocus_um=0.0, sigma_px=float(sigma)))
        for sigma in blurs
    ]
    image = _across(seen)
    if spec.other_look:
        image = sensor(restain(np.clip(image, 0, 255), rng), rng)
    pixels, fixed = to_uint8(image), to_uint8(scene)
    if spec.quality is not None:
        pixels, fixed = jpeg(pixels, spec.quality), jpeg(fixed, spec.quality)
    return ScanPair(
        spec=spec,
        moving=MemorySlide(pixels, FIXED_UM_PER_PX * spec.ratio, "moving.tif"),
        fixed=MemorySlide(fixed, FIXED_UM_PER_PX, "fixed.tif"),
        linear=linear,
        middle=middle,
    )


def _across(images: list[Float64Array]) -> Float64Array:
    """From the first image at the left to the last at the right, neighbours mixed in between."""
    if len(images) == 1:
        return images[0]
    at = np.linspace(0, len(images) - 1, images[0].shape[1])
    mixed = np.zeros_like(images[0])
    for index, image in enumerate(images):
        mixed += np.clip(1 - np.abs(at - index), 0, 1)[None, :, None] * image
    return mixed
