"""Pairs of LR and HR with exact truth: what any registration can be proved on.

The LR image is rendered in the Fourier domain: the scene is taken as the periodic,
band-limited function that its samples are, multiplied by the transfer functions of lens and
pixel, moved by a phase ramp and sampled. Nothing is interpolated, so the truth is the truth to
a millionth of a pixel. Where the geometry turns, scales or bends, the same function is
evaluated on a twofold finer grid with splines of order five (errors below 0.01 grey levels).

Positions are pixel edges: pixel ``i`` covers ``[i, i + 1)``.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import fft

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.errors import ConfigError
from wsisr.registration.certificate import Affine
from wsisr.registration.orientation import D4
from wsisr.testing.pair_scenes import EOSIN_OD, HEMATOXYLIN_OD, synthetic_tissue
from wsisr.testing.rendering import (
    FADE_PX,
    Displacement,
    FieldOfView,
    Objective,
    any_part,
    faded,
    jpeg,
    noisy,
    render,
    to_uint8,
)

SUITES = {
    "A0": "whole-pixel shifts of one scan",
    "A1": "two levels of one scan: sub-pixel shift, JPEG on both",
    "B1": "a second scanner: lens, defocus, noise, stain, gamma, JPEG",
    "B2": "B1 plus rotation to 0.35 degrees, scale to 0.6 % and radial distortion",
    "B3": "B2 plus local drift of up to 2.5 px",
    "C": "B1 in one of the eight flips and turns",
    "L": "B1 on low-texture tissue",
    "W": "wrong pairs: another place",
    "N": "blank glass",
    "P": "the right place, but outside the search region",
}

SEARCH_PX = 26
"""How much larger the region is than the patch; true offsets are its middle and up to ten px."""
MARGIN_PX = 48
"""Scene beyond the search region on every side; its outer part is faded so that it is periodic."""
PALE = 0.45
"""Contrast of low-texture tissue: its LR has a texture of about 3 grey levels per px, where the
palest 256-px crop of the real slides looked at has 3.9 and ordinary tissue 6 to 10."""


@dataclass(frozen=True, kw_only=True)
class PairCase:
    """One pair and what is true of it.

    Attributes
    ----------
    suite : str
        Key of `SUITES`.
    lr : ndarray, shape (h, w, 3), uint8
    hr_region : ndarray, shape (H, W, 3), uint8
    centre_x, centre_y : float
        True place of the LR patch's centre in the region, HR px (outside it in suite P).
    true_map : 2x3 nested tuple
        True affine part, LR px -> HR px, pixel edges.
    accept : bool or None
        True: must be accepted; False: must not be; None: may be.
    orientation : D4
        Operation that was applied to the LR (suite C).
    """

    suite: str
    seed: int
    scale: int
    lr: UInt8Array
    hr_region: UInt8Array
    centre_x: float
    centre_y: float
    true_map: Affine
    accept: bool | None
    orientation: D4 = D4.IDENTITY

    @property
    def dx(self) -> float:
        """True `dx` of a certificate: the crop around the true centre, HR px."""
        return self.centre_x - self.scale * self.lr.shape[1] / 2

    @property
    def dy(self) -> float:
        return self.centre_y - self.scale * self.lr.shape[0] / 2


def restain(image: Float64Array, rng: np.random.Generator) -> Float64Array:
    """Other stain, gain and gamma: stains +-30 %, gain +-12 %, gamma +-15 %."""
    residual = np.cross(HEMATOXYLIN_OD, EOSIN_OD)
    basis = np.stack([HEMATOXYLIN_OD, EOSIN_OD, residual / np.linalg.norm(residual)])
    density = -np.log10(np.clip(image, 1.0, None) / 245)
    stains = density @ np.linalg.inv(basis) * rng.uniform(0.7, 1.3, 3)
    changed = 245 * 10 ** -(stains @ basis) * rng.uniform(0.88, 1.12, 3)
    return cast(Float64Array, 255 * np.clip(changed / 255, 0, 1) ** rng.uniform(0.85, 1.15))


def sensor(image: Float64Array, rng: np.random.Generator) -> Float64Array:
    """The noise of a sensor that is drawn."""
    return noisy(image, rng.uniform(3000, 12000), rng.uniform(0.5, 2.0), rng)


def _bend(rng: np.random.Generator, half_px: float, drift: bool) -> Displacement:
    """Radial distortion of up to 1.5 px at the edge, and local drift of up to 2.5 px."""
    radial = rng.uniform(-1.5, 1.5)
    waves = rng.uniform(-1, 1, (2, 2))
    amplitude = rng.uniform(1.0, 2.5) if drift else 0.0
    phase = rng.uniform(0, 2 * np.pi, 2)

    def wave(u: Float64Array, v: Float64Array, axis: int) -> Float64Array:
        place = (waves[axis, 0] * u + waves[axis, 1] * v) / half_px
        return cast(Float64Array, amplitude * np.sin(np.pi * place + phase[axis]))

    def displacement(u: Float64Array, v: Float64Array) -> tuple[Float64Array, Float64Array]:
        # Pixels move along their radius, by `radial` at the middle of an edge.
        stretch = radial * (u * u + v * v) / half_px**3
        return stretch * u + wave(u, v, 0), stretch * v + wave(u, v, 1)

    return displacement


def make_pair(
    suite: str,
    seed: int,
    *,
    scene: Float64Array | None = None,
    lr_px: int = 256,
    scale: int = 4,
) -> PairCase:
    """A pair of one suite with its truth.

    Parameters
    ----------
    suite : str
        Key of `SUITES`.
    seed : int
        The same arguments give the same pair.
    scene : ndarray, shape (H, W, 3), optional
        HR image (0-255) to render from, at least `scene_px` a side; the place in it is drawn
        from the seed. Without it a synthetic tissue is made.
    lr_px : int
        Side of the LR patch, LR px.

    Raises
    ------
    ConfigError
        Unknown suite, or a scene that is too small.
    """
    if suite not in SUITES:
        raise ConfigError(f"{suite!r} is no suite of pairs; there are {', '.join(SUITES)}.")
    rng = np.random.default_rng([seed, list(SUITES).index(suite)])
    offset = _offset(suite, rng)
    centre = offset + scale * lr_px / 2
    linear, displacement = _geometry(suite, scale, lr_px, rng)
    region_px = scale * lr_px + SEARCH_PX
    if suite == "N":
        lr, hr = (_glass(rng, size) for size in (lr_px, region_px))
    else:
        tile = _tile(scene, scene_px(lr_px, scale), seed, rng, PALE if suite == "L" else 1.0)
        hr = to_uint8(tile[MARGIN_PX : MARGIN_PX + region_px, MARGIN_PX : MARGIN_PX + region_px])
        source = np.ascontiguousarray(np.rot90(tile, 2)) if suite == "W" else tile
        view = FieldOfView(
            linear=linear,
            centre=(float(centre[0] + MARGIN_PX), float(centre[1] + MARGIN_PX)),
            side_px=lr_px,
            displacement=displacement,
        )
        optics = None if suite.startswith("A") else Objective.draw(rng)
        image = render(source, view, optics)
        lr = _photograph(image, suite, rng)
    if displacement is not None:
        moved_x, moved_y = displacement(np.zeros(1), np.zeros(1))
        centre = centre + np.array([moved_x[0], moved_y[0]])
    if suite != "A0":
        low = 70 if suite == "A1" else 75
        hr = jpeg(hr, int(rng.integers(low, 96)), bool(rng.random() < 0.5))
    orientation = D4(int(rng.integers(8))) if suite == "C" else D4.IDENTITY
    shift = centre - linear @ [lr_px / 2, lr_px / 2]
    return PairCase(
        suite=suite,
        seed=seed,
        scale=scale,
        lr=np.ascontiguousarray(orientation.apply(lr)),
        hr_region=hr,
        centre_x=float(centre[0]),
        centre_y=float(centre[1]),
        true_map=(
            (float(linear[0, 0]), float(linear[0, 1]), float(shift[0])),
            (float(linear[1, 0]), float(linear[1, 1]), float(shift[1])),
        ),
        accept={"W": False, "N": False, "P": False, "B3": None}.get(suite, True),
        orientation=orientation,
    )


def _offset(suite: str, rng: np.random.Generator) -> Float64Array:
    """Corner of the LR footprint in the region, HR px; outside it in suite P."""
    offset = SEARCH_PX / 2 + rng.uniform(-10.0, 10.0, 2)
    if suite in ("A0", "W", "N"):
        return np.round(offset)
    if suite == "P":
        beyond = rng.uniform(1.5, MARGIN_PX - FADE_PX - 2)
        offset[rng.integers(2)] = -beyond if rng.random() < 0.5 else SEARCH_PX + beyond
    return offset


def _geometry(
    suite: str, scale: int, lr_px: int, rng: np.random.Generator
) -> tuple[Float64Array, Displacement | None]:
    """Linear part (LR px -> HR px) and bend."""
    if suite not in ("B2", "B3"):
        return scale * np.eye(2), None
    angle, stretch = np.deg2rad(rng.uniform(-0.35, 0.35)), 1 + rng.uniform(-0.006, 0.006)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * stretch * turn, _bend(rng, lr_px / 2, drift=suite == "B3")


def scene_px(lr_px: int, scale: int = 4) -> int:
    """Side of the scene that `make_pair` needs, HR px."""
    return fft.next_fast_len(scale * lr_px + SEARCH_PX + 2 * MARGIN_PX, real=True)


def _tile(
    scene: Float64Array | None, size: int, seed: int, rng: np.random.Generator, contrast: float
) -> Float64Array:
    if scene is None:
        return faded(synthetic_tissue(size, size, seed, contrast))
    if min(scene.shape[:2]) < size:
        raise ConfigError(
            f"A scene of {scene.shape[1]} x {scene.shape[0]} px is too small: {size} px are needed."
        )
    tile = any_part(scene, size, rng)
    mean = tile.mean(axis=(0, 1))
    return faded(mean + contrast * (tile - mean))


def _photograph(image: Float64Array, suite: str, rng: np.random.Generator) -> UInt8Array:
    if suite == "A0":
        return to_uint8(image)
    if suite == "A1":
        return jpeg(to_uint8(image), int(rng.integers(70, 96)), bool(rng.random() < 0.5))
    noisy = to_uint8(sensor(restain(image, rng), rng))
    return jpeg(noisy, int(rng.integers(60, 93)), bool(rng.random() < 0.5))


def _glass(rng: np.random.Generator, size: int) -> UInt8Array:
    """Empty glass: white, slightly shaded, with sensor noise and JPEG."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    shade = rng.uniform(225, 245) + rng.uniform(-6, 6) * x + rng.uniform(-6, 6) * y
    image = np.repeat(shade[..., None], 3, axis=2) + rng.uniform(-3, 3, 3)
    return jpeg(to_uint8(sensor(image, rng)), int(rng.integers(60, 93)))
