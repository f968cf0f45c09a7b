"""Synthetic scenes for pairs: textures whose spectrum is like that of H&E at 40x."""

import cv2
import numpy as np

from wsisr.arrays import Float64Array

HEMATOXYLIN_OD = np.array([0.65, 0.70, 0.29])
EOSIN_OD = np.array([0.07, 0.99, 0.11])
"""Optical density per unit of stain, RGB (Ruifrok and Johnston, 2001)."""


def _noise(rng: np.random.Generator, height: int, width: int, slope: float) -> Float64Array:
    """Periodic noise of unit variance whose power falls as frequency to the minus `slope`."""
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * radius ** (-slope / 2)
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray(field / field.std())


def _nuclei(rng: np.random.Generator, height: int, width: int, density: float) -> Float64Array:
    """Soft-edged ellipses of 24-44 px (6-11 um at 40x), 0 to 1, with chromatin inside."""
    canvas = np.zeros((height, width), np.float32)
    shift = 4  # fractional bits of OpenCV's drawing coordinates
    for _ in range(int(density * height * width)):
        centre = rng.uniform(0, [width, height])
        axes = rng.uniform(12, 22, 2)
        cv2.ellipse(
            canvas,
            (round(centre[0] * 2**shift), round(centre[1] * 2**shift)),
            (round(axes[0] * 2**shift), round(axes[1] * 2**shift)),
            float(rng.uniform(0, 180)),
            0,
            360,
            float(rng.uniform(0.6, 1.0)),
            -1,
            cv2.LINE_AA,
            shift,
        )
    return cv2.GaussianBlur(canvas, (0, 0), 1.0).astype(np.float64)


def synthetic_tissue(
    height_px: int, width_px: int, seed: int, contrast: float = 1.0
) -> Float64Array:
    """A scene that looks and correlates like stained tissue at 40x.

    Parameters
    ----------
    seed : int
        The same seed gives the same scene.
    contrast : float
        Scale of all structure about its mean; 0.1 to 0.3 gives low-texture tissue.

    Returns
    -------
    ndarray, shape (height_px, width_px, 3), float64, RGB, 0-255
        Band-limited like a 0.75 NA objective at 0.25 um/px.
    """
    rng = np.random.default_rng(seed)
    nuclei = _nuclei(rng, height_px, width_px, density=1 / 2600)
    chromatin = 1 + 0.35 * _noise(rng, height_px, width_px, 2.0)
    stroma = np.clip(1 + 0.45 * _noise(rng, height_px, width_px, 2.6), 0, 3)
    lumen = 1 / (1 + np.exp(-4 * (_noise(rng, height_px, width_px, 4.0) + 1.4)))
    fine = 0.10 * _noise(rng, height_px, width_px, 1.8)
    hematoxylin = 0.6 * nuclei * chromatin + 0.06 * stroma
    eosin = 0.28 * stroma * lumen * (1 - 0.5 * nuclei) + fine
    density = hematoxylin[..., None] * HEMATOXYLIN_OD + eosin[..., None] * EOSIN_OD
    mean = density.mean(axis=(0, 1))
    density = np.clip(mean + contrast * (density - mean), 0, 3)
    scene = 245 * 10**-density
    blurred = [cv2.GaussianBlur(scene[..., c], (0, 0), 0.62) for c in range(3)]
    return np.stack(blurred, axis=-1)
