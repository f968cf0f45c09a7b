"""What stained tissue looks like close up: fibres, nuclei and the colours of H&E.

Tissue is described by the concentration of two stains, haematoxylin and eosin, each as a
number from 0 to 255. Three ingredients make it, all functions of the resolution alone, so
that every slide of a process shares them:

- periodic tiles of eosin (collagen fibres; granular cytoplasm), band-limited to what a 0.75 NA
  objective passes at 0.25 um/px (a Gaussian of about 0.6 px), so that registration has fine
  structure but no aliasing;
- an atlas of nuclei: small dark lymphocytes, long fibroblasts and large vesicular tumour nuclei;
- a table that turns two concentrations into RGB by Beer-Lambert's law.

Random numbers that belong to places are the same in whatever order they are asked for.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from wsisr.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from wsisr.selection.hashing import mix, unit_interval

STROMA_PERIOD_PX = 1024
CYTOPLASM_PERIOD_PX = 896
OPTICS_SIGMA_PX = 0.6
VARIANTS = 48
"""Nuclei of each kind in the atlas."""

# Optical density (natural log) of full concentration, per channel R, G, B.
HAEMATOXYLIN_OD = (1.55, 1.75, 0.78)
EOSIN_OD = (0.17, 1.05, 0.55)


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


def _filtered(rng: np.random.Generator, transfer: Float64Array) -> Float32Array:
    """Periodic noise of unit variance through a transfer function on the half FFT grid."""
    noise = rng.standard_normal((transfer.shape[0],) * 2, dtype=np.float32)
    spectrum = fft.rfft2(noise) * transfer.astype(np.float32)
    spectrum[0, 0] = 0.0
    field = fft.irfft2(spectrum, s=noise.shape)
    return np.asarray(field / field.std(), np.float32)


def _frequencies(size: int) -> tuple[Float64Array, Float64Array]:
    return fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]


def _smooth(rng: np.random.Generator, size: int, wavelength_px: float) -> Float32Array:
    """Periodic field without detail: made on an eightfold coarser grid and interpolated."""
    fy, fx = _frequencies(size // 8)
    coarse = _filtered(rng, np.exp(-((fx**2 + fy**2) * (wavelength_px / 8) ** 2) * 2.0))
    return np.asarray(ndimage.zoom(coarse, 8, order=1, mode="grid-wrap", grid_mode=True))


@lru_cache(maxsize=4)
def stroma_tile(um_per_px: float) -> UInt8Array:
    """Periodic eosin concentration of fibrous stroma.

    Parameters
    ----------
    um_per_px : float
        Resolution at which fibres are about 2-4 um thick.

    Returns
    -------
    ndarray, shape (1024, 1024), uint8
    """
    size = STROMA_PERIOD_PX
    rng = np.random.default_rng(20240)
    fy, fx = _frequencies(size)
    thick = 2.2 / um_per_px
    fibres = np.zeros((size, size), np.float32)
    total = np.zeros((size, size), np.float32)
    for angle in np.linspace(0.0, np.pi, 5, endpoint=False):
        along = fx * np.cos(angle) + fy * np.sin(angle)
        across = fy * np.cos(angle) - fx * np.sin(angle)
        band = np.exp(-0.5 * (along * thick * 7) ** 2) * np.exp(-0.5 * (across * thick) ** 2)
        strands = 1.0 - np.abs(_filtered(rng, band))
        weight = np.exp(3.0 * _smooth(rng, size, 28.0 / um_per_px))
        fibres += weight * strands
        total += weight
    fibres /= total
    grain = _filtered(rng, 1.0 / (0.03 + np.hypot(fx, fy)))
    clouds = _smooth(rng, size, 10.0 / um_per_px)
    tile = 0.50 + 0.20 * fibres + 0.055 * grain + 0.05 * clouds
    tile = ndimage.gaussian_filter(tile, OPTICS_SIGMA_PX, mode="wrap")
    return np.clip(np.rint(tile * 200.0), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def cytoplasm_tile(um_per_px: float) -> UInt8Array:
    """Periodic eosin concentration of granular tumour cytoplasm, shape (896, 896), uint8."""
    size = CYTOPLASM_PERIOD_PX
    rng = np.random.default_rng(20241)
    fy, fx = _frequencies(size)
    radius = np.hypot(fx, fy)
    granules = _filtered(rng, np.exp(-((radius - 0.12 * um_per_px / 0.25) ** 2) / (2 * 0.05**2)))
    grain = _filtered(rng, 1.0 / (0.03 + radius))
    clouds = _smooth(rng, size, 7.0 / um_per_px)
    tile = 0.42 + 0.05 * granules + 0.05 * grain + 0.07 * clouds
    tile = ndimage.gaussian_filter(tile, OPTICS_SIGMA_PX, mode="wrap")
    return np.clip(np.rint(tile * 200.0), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class NucleusKind:
    """How nuclei of one kind look.

    Attributes
    ----------
    radius_um : (low, high)
        Range of the geometric mean of the semi-axes.
    elongation : (low, high)
        Range of the ratio of the axes.
    body, rim, clumps : float
        Concentration inside, extra at the membrane, and amplitude of the chromatin texture,
        as fractions of full haematoxylin.
    nucleoli : (low, high)
        How many dark spots.
    """

    name: str
    radius_um: tuple[float, float]
    elongation: tuple[float, float]
    body: float
    rim: float
    clumps: float
    nucleoli: tuple[int, int]


KINDS = (
    NucleusKind(
        name="lymphocyte",
        radius_um=(3.0, 3.9),
        elongation=(1.0, 1.2),
        body=0.72,
        rim=0.12,
        clumps=0.16,
        nucleoli=(0, 1),
    ),
    NucleusKind(
        name="fibroblast",
        radius_um=(3.0, 3.8),
        elongation=(2.2, 3.6),
        body=0.55,
        rim=0.14,
        clumps=0.10,
        nucleoli=(0, 1),
    ),
    NucleusKind(
        name="tumour",
        radius_um=(4.2, 6.0),
        elongation=(1.0, 1.5),
        body=0.40,
        rim=0.26,
        clumps=0.14,
        nucleoli=(1, 3),
    ),
)
LYMPHOCYTE, FIBROBLAST, TUMOUR = range(3)


@dataclass(frozen=True, kw_only=True)
class NucleusAtlas:
    """Pictures of nuclei, to be laid over tissue by taking the larger haematoxylin value.

    Attributes
    ----------
    sprites : ndarray, shape (kinds, variants, size, size), uint8
        Haematoxylin concentration. The nucleus' centre is the corner between the four
        middle pixels, so a nucleus "at" a whole-pixel corner is exactly there.
    semi_axes_px : ndarray, shape (kinds, variants, 2), float64
        Long and short semi-axis.
    angle_rad : ndarray, shape (kinds, variants)
        Direction of the long axis, from x towards y.
    """

    sprites: UInt8Array
    semi_axes_px: Float64Array
    angle_rad: Float64Array

    @property
    def size_px(self) -> int:
        return int(self.sprites.shape[-1])


def _nucleus(
    rng: np.random.Generator, kind: NucleusKind, size: int, um_per_px: float
) -> tuple[UInt8Array, float, float, float]:
    radius = rng.uniform(*kind.radius_um) / um_per_px
    ratio = rng.uniform(*kind.elongation)
    long_axis, short_axis = radius * ratio**0.5, radius / ratio**0.5
    angle = rng.uniform(0.0, np.pi)
    centre = np.arange(size) + 0.5 - size / 2
    yy, xx = np.meshgrid(centre, centre, indexing="ij")
    u = xx * np.cos(angle) + yy * np.sin(angle)
    v = yy * np.cos(angle) - xx * np.sin(angle)
    theta = np.arctan2(v / short_axis, u / long_axis)
    wobble = np.ones_like(theta)
    for order in (2, 3, 4):
        wobble += 0.035 * rng.standard_normal() * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    rho = np.hypot(u / long_axis, v / short_axis) / wobble
    inside = 1.0 / (1.0 + np.exp(-(1.0 - rho) * short_axis / 0.55))
    clump_px = 0.45 / um_per_px
    texture = ndimage.gaussian_filter(rng.standard_normal((size, size)), clump_px)
    texture /= texture.std()
    value = kind.body * rng.uniform(0.9, 1.1) + kind.clumps * texture
    value += kind.rim * np.exp(-0.5 * ((rho - 0.93) * short_axis / (0.4 / um_per_px)) ** 2)
    for _ in range(int(rng.integers(kind.nucleoli[0], kind.nucleoli[1] + 1))):
        where = rng.uniform(-0.5, 0.5, 2) * (long_axis, short_axis)
        spot = np.hypot(u - where[0], v - where[1]) / (rng.uniform(0.6, 1.0) / um_per_px)
        value += 0.38 * np.exp(-0.5 * spot**4)
    picture = ndimage.gaussian_filter(np.clip(value, 0.1, 1.0) * inside, OPTICS_SIGMA_PX)
    picture[rho > 1.45] = 0.0
    return np.rint(picture * 255.0).astype(np.uint8), long_axis, short_axis, angle


@lru_cache(maxsize=4)
def nucleus_atlas(um_per_px: float) -> NucleusAtlas:
    """All nuclei at a resolution; the same for every slide of that resolution."""
    largest = max(kind.radius_um[1] * kind.elongation[1] ** 0.5 for kind in KINDS)
    size = 2 * int(np.ceil(largest / um_per_px * 1.2 + 3))
    sprites = np.zeros((len(KINDS), VARIANTS, size, size), np.uint8)
    axes = np.zeros((len(KINDS), VARIANTS, 2))
    angles = np.zeros((len(KINDS), VARIANTS))
    rng = np.random.default_rng(20242)
    for k, kind in enumerate(KINDS):
        for v in range(VARIANTS):
            sprites[k, v], axes[k, v, 0], axes[k, v, 1], angles[k, v] = _nucleus(
                rng, kind, size, um_per_px
            )
    return NucleusAtlas(sprites=sprites, semi_axes_px=axes, angle_rad=angles)


@lru_cache(maxsize=8)
def colour_table(glass_rgb: tuple[int, int, int], fluorescence: bool = False) -> NDArray[np.uint32]:
    """RGB of every pair of stain concentrations.

    Parameters
    ----------
    glass_rgb : (int, int, int)
        Colour of empty glass, 0-255.
    fluorescence : bool
        Blue-stained nuclei shining on black instead.

    Returns
    -------
    ndarray, shape (65536,), uint32
        Indexed by ``eosin * 256 + haematoxylin``; bytes R, G, B, 0 in memory order.
    """
    eosin, haematoxylin = np.meshgrid(np.arange(256) / 255.0, np.arange(256) / 255.0, indexing="ij")
    rgba = np.zeros((256, 256, 4), np.uint8)
    for channel in range(3):
        if fluorescence:
            glow = (4.0, 9.0, 14.0)[channel] * eosin + (6.0, 40.0, 225.0)[channel] * haematoxylin
            value = 3.0 + glow
        else:
            density = HAEMATOXYLIN_OD[channel] * haematoxylin**1.15 + EOSIN_OD[channel] * eosin
            value = glass_rgb[channel] * np.exp(-density)
        rgba[..., channel] = np.clip(np.rint(value), 0, 255)
    return np.ascontiguousarray(rgba.reshape(-1, 4)).view(np.uint32).ravel()
