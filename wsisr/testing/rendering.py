"""Rendering of a scene as a coarser camera sees it, in the Fourier domain: the truth is exact."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, special

from wsisr.arrays import Float64Array, UInt8Array

Displacement = Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]]

HR_UM_PER_PX = 0.25
WAVELENGTHS_UM = (0.62, 0.55, 0.45)
FADE_PX = 24


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A low-power objective in front of the LR camera.

    Attributes
    ----------
    na : float
        Numerical aperture.
    sigma_px : float
        Extra Gaussian blur, HR px.
    """

    na: float
    defocus_um: float
    sigma_px: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Objective":
        """NA 0.25-0.45, defocus 0-5 um, extra blur 0.4-1.2 px."""
        na, defocus_um = rng.uniform(0.25, 0.45), rng.uniform(0, 5)
        return cls(na=na, defocus_um=defocus_um, sigma_px=rng.uniform(0.4, 1.2))

    def transfer(self, frequency: Float64Array, wavelength_um: float) -> Float64Array:
        """Incoherent transfer function; Stokseth's approximation of defocus (1969).

        Parameters
        ----------
        frequency : ndarray
            Cycles per HR px.
        """
        rho = np.clip(frequency / HR_UM_PER_PX * wavelength_um / (2 * self.na), 0, 1)
        focused = 2 / np.pi * (np.arccos(rho) - rho * np.sqrt(1 - rho**2))
        path_um = 0.5 * self.defocus_um * self.na**2
        argument = 8 * np.pi * path_um / wavelength_um * rho * (1 - rho)
        near = np.abs(argument) < 1e-9
        safe = np.where(near, 1.0, argument)
        defocus = np.where(near, 1.0, 2 * special.j1(safe) / safe)
        blur = np.exp(-2 * (np.pi * self.sigma_px * frequency) ** 2)
        return focused * defocus * blur


@dataclass(frozen=True, kw_only=True)
class FieldOfView:
    """Where the pixels of a coarser camera lie in a scene.

    Attributes
    ----------
    linear : ndarray, shape (2, 2)
        Columns are the sides of one LR pixel in HR px.
    centre : (float, float)
        Where the LR image's centre lies in the scene, HR px, pixel edges.
    side_px : int
        Side of the LR image, LR px.
    displacement : callable, optional
        HR px added to the mapped places, as a function of LR coordinates about the centre.
    """

    linear: Float64Array
    centre: tuple[float, float]
    side_px: int
    displacement: Displacement | None = None


def render(scene: Float64Array, view: FieldOfView, optics: Objective | None = None) -> Float64Array:
    """What a coarser camera sees of a periodic, band-limited scene.

    Parameters
    ----------
    scene : ndarray, shape (H, W, 3), float64
        HR samples, 0-255.

    Returns
    -------
    ndarray, shape (side, side, 3), float64

    Notes
    -----
    The scene's samples already contain the HR pixel, so the LR pixel enters as the ratio of
    both apertures. For an upright pixel of whole `scale` that ratio is exactly the mean of
    ``scale x scale`` HR samples.
    """
    rows, columns = scene.shape[:2]
    linear, centre, side = view.linear, view.centre, view.side_px
    fy, fx = fft.fftfreq(rows)[:, None], fft.rfftfreq(columns)[None, :]
    radius = np.hypot(fx, fy)
    aperture = np.sinc(linear[0, 0] * fx + linear[1, 0] * fy)
    aperture = aperture * np.sinc(linear[0, 1] * fx + linear[1, 1] * fy)
    aperture = aperture / (np.sinc(fx) * np.sinc(fy))
    step = int(linear[0, 0])
    upright = view.displacement is None and np.array_equal(linear, step * np.eye(2))
    # Index coordinates of the first LR sample, where it is upright.
    x0 = centre[0] - step * side / 2 + step / 2 - 0.5
    y0 = centre[1] - step * side / 2 + step / 2 - 0.5
    result = np.empty((side, side, 3))
    for channel, wavelength in enumerate(WAVELENGTHS_UM):
        spectrum = fft.rfft2(scene[..., channel]) * aperture
        if optics is not None:
            spectrum *= optics.transfer(radius, wavelength)
        if upright:
            ix, iy = int(np.floor(x0)), int(np.floor(y0))
            spectrum *= np.exp(2j * np.pi * (fx * (x0 - ix) + fy * (y0 - iy)))
            seen = fft.irfft2(spectrum, s=(rows, columns))
            iy_all = (iy + step * np.arange(side)) % rows
            ix_all = (ix + step * np.arange(side)) % columns
            result[..., channel] = seen[np.ix_(iy_all, ix_all)]
        else:
            result[..., channel] = _evaluate(spectrum, (rows, columns), view)
    return result


def _evaluate(
    spectrum: NDArray[np.complex128], shape: tuple[int, int], view: FieldOfView
) -> Float64Array:
    """A periodic band-limited function at mapped places: twofold zero padding, then splines."""
    rows, columns = shape
    padded = np.zeros((2 * rows, columns + 1), np.complex128)
    half = rows // 2
    padded[:half, : spectrum.shape[1]] = spectrum[:half]
    padded[-(rows - half) :, : spectrum.shape[1]] = spectrum[half:]
    fine = 4 * fft.irfft2(padded, s=(2 * rows, 2 * columns))
    linear, centre = view.linear, view.centre
    along = np.arange(view.side_px) + 0.5 - view.side_px / 2
    u, v = np.meshgrid(along, along)
    x = centre[0] + linear[0, 0] * u + linear[0, 1] * v
    y = centre[1] + linear[1, 0] * u + linear[1, 1] * v
    if view.displacement is not None:
        move_x, move_y = view.displacement(u, v)
        x, y = x + move_x, y + move_y
    places = [2 * (y - 0.5), 2 * (x - 0.5)]
    return cast(Float64Array, ndimage.map_coordinates(fine, places, order=5, mode="grid-wrap"))


def jpeg(rgb: UInt8Array, quality: int, full_chroma: bool = False) -> UInt8Array:
    """The image after one JPEG pass (4:2:0, or 4:4:4 with `full_chroma`)."""
    sampling = (
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        if full_chroma
        else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    )
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), flags)
    decoded = cast(UInt8Array, cv2.imdecode(data, cv2.IMREAD_COLOR))
    return cast(UInt8Array, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def faded(
    tile: Float64Array, colour: Float64Array | float | None = None, fade_px: int = FADE_PX
) -> Float64Array:
    """The tile with its outer `fade_px` faded to a colour, its mean by default.

    A smooth periodic scene, as rendering wants it.
    """
    base = tile.mean(axis=(0, 1)) if colour is None else colour

    def ramp(size: int) -> Float64Array:
        edge = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade_px) + 0.5) / fade_px)
        return np.concatenate([edge, np.ones(size - 2 * fade_px), edge[::-1]])

    window = np.outer(ramp(tile.shape[0]), ramp(tile.shape[1]))[..., None]
    return base + window * (tile - base)


def any_part(scene: Float64Array, size_px: int, rng: np.random.Generator) -> Float64Array:
    """A square of a scene at a place that is drawn."""
    top = int(rng.integers(scene.shape[0] - size_px + 1))
    left = int(rng.integers(scene.shape[1] - size_px + 1))
    return scene[top : top + size_px, left : left + size_px].astype(np.float64)


def noisy(
    image: Float64Array, full_well_e: float, read_levels: float, rng: np.random.Generator
) -> Float64Array:
    """Shot and read noise: variance ``x * 255 / full well + read^2``, grey levels."""
    variance = np.clip(image, 0, 255) * 255 / full_well_e + read_levels**2
    return image + rng.standard_normal(image.shape) * np.sqrt(variance)


def to_uint8(image: Float64Array) -> UInt8Array:
    """Rounded and clipped to 0-255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
