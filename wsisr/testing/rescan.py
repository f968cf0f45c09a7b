"""A second scan of the same glass: turned, mirrored, coarser, softer, with other colours and noise.

The second scanner sees the first scan's level-0 picture through a Gaussian point spread function,
sampled at its own pixels by splines of order three (the blur leaves nothing that they could not
interpolate: errors below a grey level for scales of 2 and more). The truth is the exact map
between the two scans' level-0 pixels.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, cos, radians, sin
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter
from scipy import ndimage

from wsisr.arrays import Float32Array, Float64Array, UInt8Array
from wsisr.testing.scene import Outline, Pen, Scene
from wsisr.testing.slides import write_picture
from wsisr.testing.spec import Layout, SlideSpec, outline, plan_truth
from wsisr.testing.texture import hash_unit
from wsisr.testing.truth import SlideTruth

Affine = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class RescanSpec:
    """How the second scan differs.

    Attributes
    ----------
    um_per_px : float
        True resolution of the second scan.
    rotation_deg : float
        Turn of the glass, from x towards y.
    mirrored : bool
        Glass put in upside down.
    shift_px : (x, y)
        Displacement of the centre, first scan's level-0 px.
    stretch : (x, y)
        Relative error of the stage's scale.
    psf_um : float
        Sigma of optics and pixel together.
    gain : (r, g, b)
        On transmitted light; empty glass keeps its colour.
    gamma : float
        On transmitted light.
    noise : float
        Standard deviation in dense tissue, grey levels; none on empty glass.
    layout : {"philips", "aperio", "generic"}
    quality : int
        JPEG quality.
    seed : int
        Decides the noise.
    """

    um_per_px: float = 0.972
    rotation_deg: float = 1.3
    mirrored: bool = False
    shift_px: tuple[float, float] = (37.3, -21.8)
    stretch: tuple[float, float] = (1.0, 1.0)
    psf_um: float = 0.5
    gain: tuple[float, float, float] = (0.99, 0.95, 0.97)
    gamma: float = 1.05
    noise: float = 1.5
    layout: Layout = "generic"
    factors: tuple[int, ...] | None = None
    quality: int = 85
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RescanTruth:
    """A second scan and its exact relation to the first.

    Attributes
    ----------
    slide : SlideTruth
        The second scan; its outlines are the first scan's, mapped into its own pixels. Its scene
        holds these outlines only: the pixels come from `SecondScan`.
    first : str
        File name of the first scan.
    affine : 2x3 tuple
        Level-0 px of the second scan -> level-0 px of the first, pixel edges.
    """

    slide: SlideTruth
    first: str
    affine: Affine

    def to_first(self, points: ArrayLike) -> Float64Array:
        """Map points of shape (..., 2), x first, from the second scan to the first."""
        matrix = np.asarray(self.affine)
        return np.asarray(np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2])

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(TypeAdapter(RescanTruth).dump_json(self).decode() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "RescanTruth":
        """Read a file that `save` wrote."""
        return TypeAdapter(RescanTruth).validate_json(path.read_bytes())


@dataclass(frozen=True, kw_only=True)
class SecondScan:
    """The second scan's level-0 picture, rendered region by region.

    Attributes
    ----------
    scene : Scene
        What the first scan shows.
    affine : 2x3 tuple
        Second scan -> first scan, level-0 px, pixel edges.
    """

    scene: Scene
    affine: Affine
    spec: RescanSpec

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        return self.scene.background_rgb

    @cached_property
    def _sigma_px(self) -> float:
        return self.spec.psf_um / self.scene.um_per_px

    def _source_box(self, x: int, y: int, width: int, height: int) -> tuple[int, int, int, int]:
        """First scan's pixels that a region needs."""
        matrix = np.asarray(self.affine)
        corners = np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]])
        at = corners @ matrix[:, :2].T + matrix[:, 2]
        margin = ceil(4 * self._sigma_px) + 4
        left, top = (int(v) - margin for v in np.floor(at.min(0)))
        right, bottom = (int(v) + margin for v in np.ceil(at.max(0)))
        return left, top, right - left, bottom - top

    def is_background(self, x: int, y: int, width: int, height: int) -> bool:
        return self.scene.is_background(*self._source_box(x, y, width, height))

    def render(self, x: int, y: int, width: int, height: int) -> UInt8Array:
        """Pixels of the second scan, shape (height, width, 3), uint8."""
        out = np.empty((height, width, 3), np.uint8)
        step = 256
        for top in range(0, height, step):
            for left in range(0, width, step):
                part = out[top : top + step, left : left + step]
                part[:] = self._part(x + left, y + top, part.shape[1], part.shape[0])
        return out

    def _part(self, x: int, y: int, width: int, height: int) -> UInt8Array:
        if self.is_background(x, y, width, height):
            return np.broadcast_to(np.array(self.background_rgb, np.uint8), (height, width, 3))
        left, top, wide, high = self._source_box(x, y, width, height)
        source = self.scene.render(left, top, wide, high)
        matrix = np.asarray(self.affine)
        cols, rows = np.meshgrid(np.arange(x, x + width) + 0.5, np.arange(y, y + height) + 0.5)
        at_x = matrix[0, 0] * cols + matrix[0, 1] * rows + matrix[0, 2] - left - 0.5
        at_y = matrix[1, 0] * cols + matrix[1, 1] * rows + matrix[1, 2] - top - 0.5
        out = np.empty((height, width, 3), np.uint8)
        for channel, glass in enumerate(self.background_rgb):
            plane = source[..., channel].astype(np.float32)
            soft = ndimage.gaussian_filter(plane, self._sigma_px, truncate=4.0)
            value = ndimage.map_coordinates(soft, (at_y, at_x), order=3, mode="nearest")
            out[..., channel] = self._develop(value, glass, channel, x, y)
        return out

    def _develop(self, value: Float32Array, glass: int, channel: int, x: int, y: int) -> UInt8Array:
        """Colour and noise of the second camera."""
        passed = np.clip(value / max(glass, 1), 0.0, 1.0)
        dense = np.clip((1.0 - passed) / 0.1, 0.0, 1.0)
        gain = 1.0 + (self.spec.gain[channel] - 1.0) * dense
        light = glass * passed**self.spec.gamma * gain
        if self.spec.noise > 0:
            cols = np.arange(x, x + value.shape[1])[None, :]
            rows = np.arange(y, y + value.shape[0])[:, None]
            draws = [hash_unit(self.spec.seed, 90 + 3 * channel + k, cols, rows) for k in range(3)]
            # Three uniform numbers make a bell of variance 1/4.
            light = light + 2.0 * self.spec.noise * dense * (sum(draws) - 1.5)
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def plan_rescan(first: SlideTruth, spec: RescanSpec, file: str) -> tuple[RescanTruth, SecondScan]:
    """Geometry and picture of the second scan (pure): all of the first is on it."""
    scale = spec.um_per_px / first.um_per_px
    turn = radians(spec.rotation_deg)
    linear = scale * np.array([[cos(turn), -sin(turn)], [sin(turn), cos(turn)]])
    linear = linear @ np.diag([-1.0 if spec.mirrored else 1.0, 1.0]) @ np.diag(spec.stretch)
    inverse = np.linalg.inv(linear)
    reach = np.abs(inverse) @ np.array([first.width_px, first.height_px], np.float64)
    width, height = (ceil(v) + 64 for v in reach)
    middle = np.array([first.width_px, first.height_px]) / 2 + spec.shift_px
    move = middle - linear @ np.array([width / 2, height / 2])
    affine: Affine = (
        (float(linear[0, 0]), float(linear[0, 1]), float(move[0])),
        (float(linear[1, 0]), float(linear[1, 1]), float(move[1])),
    )

    def mapped(rings: tuple[Outline, ...]) -> tuple[Outline, ...]:
        return tuple(outline((np.asarray(r) - move) @ inverse.T) for r in rings)

    scene = first.scene
    second = plan_truth(
        SlideSpec(
            seed=scene.seed,
            layout=spec.layout,
            width_px=width,
            height_px=height,
            um_per_px=spec.um_per_px,
            factors=spec.factors,
            glass_rgb=scene.glass_rgb,
            kind=scene.kind,
            tissue=mapped(scene.tissue),
            holes=mapped(scene.holes),
            tumour=mapped(scene.tumour),
            exclusions=mapped(scene.exclusions),
            pens=tuple(Pen(colour=p.colour, outline=mapped((p.outline,))[0]) for p in scene.pens),
            quality=spec.quality,
            background="shared",
        ),
        file,
    )
    truth = RescanTruth(slide=second, first=first.file, affine=affine)
    return truth, SecondScan(scene=replace(scene, frame=None), affine=affine, spec=spec)


def write_rescan(path: Path, first: SlideTruth, spec: RescanSpec | None = None) -> RescanTruth:
    """Write a second scan of a generated slide's glass.

    Parameters
    ----------
    path : Path
        File to write.
    first : SlideTruth
        Truth of the first scan.
    """
    truth, picture = plan_rescan(first, spec or RescanSpec(), path.name)
    write_picture(path, truth.slide, picture)
    return truth
