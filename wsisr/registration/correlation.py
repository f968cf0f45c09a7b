"""Numerical core of registration: whitening, correlation peaks and scores on the LR grid.

All images here are grey float32 of shape (height, width), rows first.
"""

from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy import fft  # bit for bit the transforms of scipy.fft, which is long to import
from numpy.typing import NDArray

from wsisr.arrays import Float32Array, Float64Array, UInt8Array

LOG_SIGMA_PX = 1.0
"""Width of the Laplacian of Gaussian in LR px: it whitens the spectrum of tissue and leaves
the aliased band near Nyquist out."""

BAND_SIGMAS_PX = (0.8, 4.0)
"""Difference of Gaussians of the band-passed correlation, LR px."""

FLAT = 1e-6
"""Standard deviation in grey levels below which an image has no content at all."""


def grey(rgb: UInt8Array) -> Float32Array:
    """Luma (BT.601) of an RGB image, float32 in grey levels."""
    return cast(Float32Array, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32))


def box_reduce(image: Float32Array, scale: int) -> Float32Array:
    """Mean of `scale` x `scale` blocks: what an ideal pixel aperture sees."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    cut = image[: height * scale, : width * scale]
    return cast(Float32Array, cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA))


def box_reduce_at(
    image: Float32Array, x: float, y: float, width: int, height: int, scale: int
) -> Float32Array:
    """Block means of a crop at a fractional place.

    Parameters
    ----------
    image : ndarray, shape (H, W), float32
    x, y : float
        Top-left corner, px of `image`, pixel edges. Moved inside where the crop would leave
        the image.

    Notes
    -----
    A box at a fractional place is the weighted mean of the boxes at its whole neighbours; a
    single pixel (`scale` 1) has a spline through them, because their mean would blur it.
    """
    x = min(max(x, 0.0), float(image.shape[1] - width * scale))
    y = min(max(y, 0.0), float(image.shape[0] - height * scale))
    x0, y0 = int(x), int(y)
    fx, fy = x - x0, y - y0
    if scale == 1 and (fx > 0 or fy > 0):
        from scipy import ndimage  # late: a tenth of a second that pairs of one slide do not need

        return ndimage.affine_transform(
            image, [1.0, 1.0], [y, x], output_shape=(height, width), order=3, mode="reflect"
        )
    cut = image[y0 : y0 + height * scale + (fy > 0), x0 : x0 + width * scale + (fx > 0)]
    if fx > 0:
        cut, right = (1 - fx) * cut[:, :-1], cut[:, 1:]
        cut += fx * right
    if fy > 0:
        cut, below = (1 - fy) * cut[:-1], cut[1:]
        cut += fy * below
    return box_reduce(np.ascontiguousarray(cut, dtype=np.float32), scale)


def laplacian_of_gaussian(image: Float32Array) -> Float32Array:
    """Whitened image; constant and linear parts vanish."""
    smooth = cv2.GaussianBlur(image, (0, 0), LOG_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    return cast(Float32Array, cv2.Laplacian(smooth, cv2.CV_32F, borderType=cv2.BORDER_REFLECT))


def band_pass(image: Float32Array, sigmas_px: tuple[float, float] = BAND_SIGMAS_PX) -> Float32Array:
    """Difference of Gaussians: what is neither noise nor slow shading."""
    fine, coarse = (
        cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for sigma in sigmas_px
    )
    return cast(Float32Array, fine - coarse)


def ncc(a: Float32Array, b: Float32Array) -> float:
    """Normalised cross-correlation of two images of one size; 0 where one of them is flat."""
    da = a - a.mean(dtype=np.float64)
    db = b - b.mean(dtype=np.float64)
    norm = float(np.sqrt(np.mean(da * da) * np.mean(db * db)))
    if not norm > FLAT * FLAT:
        return 0.0
    return float(np.clip(np.mean(da * db) / norm, -1.0, 1.0))


def texture(image: Float32Array) -> float:
    """Root of the smaller eigenvalue of the mean structure tensor, grey levels per px.

    Small where the image is flat or has edges of one direction only: then its shift along
    them cannot be known.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    values = smooth.astype(np.float64)
    # What `np.gradient` gives to the last bit, in half its time.
    gy, gx = np.empty_like(values), np.empty_like(values)
    for slope, along in ((gy, values), (gx.T, values.T)):
        np.subtract(along[2:], along[:-2], out=slope[1:-1])
        slope[1:-1] /= 2
        slope[0], slope[-1] = along[1] - along[0], along[-1] - along[-2]
    xx, yy, xy = float(np.mean(gx * gx)), float(np.mean(gy * gy)), float(np.mean(gx * gy))
    smaller = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    return float(np.sqrt(max(smaller, 0.0)))


def band_scores(lr: Float32Array, reference: Float32Array) -> tuple[float, float]:
    """`ncc` of the band-passed images, and the sharpness of `lr`: its fine against its coarse
    structure, relative to the same of `reference`."""
    ours, theirs = band_pass(lr), band_pass(reference)

    def fine_share(image: Float32Array, band: Float32Array) -> float:
        coarse = float(np.var(band))
        return float(np.var(cv2.Laplacian(image, cv2.CV_32F))) / coarse if coarse > FLAT else 0.0

    sharp, ideal = fine_share(lr, ours), fine_share(reference, theirs)
    return ncc(ours, theirs), sharp / ideal if ideal > FLAT else 0.0


@lru_cache(maxsize=16)
def hann(height: int, width: int) -> Float32Array:
    """Separable Hann window."""
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    return window.astype(np.float32)


class _Plane:
    """Frequencies of the half-plane of a real FFT: angles, multiplicity, radial rings."""

    RINGS = 32

    def __init__(self, height: int, width: int) -> None:
        self.wy = 2 * np.pi * fft.fftfreq(height)[:, None]
        self.wx = 2 * np.pi * fft.rfftfreq(width)[None, :]
        multiplicity = np.full((height, self.wx.shape[1]), 2.0)
        multiplicity[:, 0] = 1.0
        # The sign of a shift is not defined at Nyquist itself.
        if height % 2 == 0:
            multiplicity[height // 2] = 0.0
        if width % 2 == 0:
            multiplicity[:, -1] = 0.0
        self.multiplicity = multiplicity
        radius = np.hypot(self.wx, self.wy) / np.pi
        self.ring = np.minimum((radius * self.RINGS).astype(np.intp), self.RINGS)
        self.ring_size = self.over_rings(np.ones(self.ring.shape))
        self.turn_y, self.turn_x = -1j * self.wy, -1j * self.wx
        self.shift_y, self.shift_x = fft.fftfreq(height, 1 / height), fft.fftfreq(width, 1 / width)

    def over_rings(self, values: Float64Array) -> Float64Array:
        """Sum over each ring; the last one holds the corners beyond Nyquist."""
        weighted = (values * self.multiplicity).ravel()
        return np.bincount(self.ring.ravel(), weighted, self.RINGS + 1).astype(np.float64)


@lru_cache(maxsize=16)
def _plane(height: int, width: int) -> _Plane:
    return _Plane(height, width)


def correlation_peak(
    a: Float32Array, b: Float32Array, max_shift_px: float = np.inf
) -> tuple[float, float]:
    """Shift (x, y), px, at which two whitened, windowed images correlate best; (0, 0) where there
    is no peak.

    Parameters
    ----------
    a, b : ndarray, shape (h, w), float32
        ``a(x) ~ b(x + shift)``. Any windowing and filtering is done already.
    max_shift_px : float
        Largest shift on either axis that the whole-pixel search considers.

    Notes
    -----
    The cross-correlation is a finite Fourier series; its whole-pixel maximum is refined on
    that series by Newton's method, so there is no grid. It is what scikit-image's
    `phase_cross_correlation(normalization=None)` tends to with a growing upsampling factor
    (Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008)). Dividing by the magnitude, that
    function's default, amplifies noise and aliased frequencies and costs a factor of 30.
    With the shift known, the coherence of both images is measured ring by ring and the peak
    refined once more under the maximum-likelihood weights that follow from it (Knapp and
    Carter, IEEE Trans. ASSP 24, 320 (1976)): frequencies that noise, JPEG or aliasing have
    spoiled lose their say. That halves the error on one scan's levels and on pale tissue.
    """
    return _peak(_spectrum(a), _spectrum(b), a.shape, max_shift_px)


def _spectrum(image: Float32Array) -> NDArray[np.complex128]:
    return fft.rfft2(image.astype(np.float64))


def _peak(
    fa: NDArray[np.complex128],
    fb: NDArray[np.complex128],
    shape: tuple[int, int],
    max_shift_px: float,
) -> tuple[float, float]:
    plane = _plane(*shape)
    cross = fa * np.conj(fb)
    surface = fft.irfft2(np.conj(cross), s=shape)
    near_y, near_x = (np.abs(s) <= max_shift_px for s in (plane.shift_y, plane.shift_x))
    near = surface[near_y][:, near_x]
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    if not np.isfinite(near[row, column]) or near[row, column] <= 0:
        return 0.0, 0.0
    cross *= plane.multiplicity
    whole = float(plane.shift_x[near_x][column]), float(plane.shift_y[near_y][row])
    first = _climb(plane, cross, whole)
    weights = _likelihood_weights(plane, fa, fb, cross, first)
    return _climb(plane, cross * weights, first)


def _climb(
    plane: _Plane, cross: NDArray[np.complex128], start: tuple[float, float]
) -> tuple[float, float]:
    """Newton's method to the top of the correlation near a start; the start if there is none."""
    ux, uy = start
    for _ in range(12):
        turned = cross * (np.exp(plane.turn_y * uy) * np.exp(plane.turn_x * ux))
        along_x, along_y = turned.sum(axis=0), turned.sum(axis=1)
        wx, wy = plane.wx[0], plane.wy[:, 0]
        gx, gy = float(along_x.imag @ wx), float(along_y.imag @ wy)
        hxx, hyy = -float(along_x.real @ wx**2), -float(along_y.real @ wy**2)
        hxy = -float(wy @ turned.real @ wx)
        determinant = hxx * hyy - hxy * hxy
        if determinant <= 0 or hxx >= 0:
            return start  # not on a hill
        step_x = min(max(-(hyy * gx - hxy * gy) / determinant, -0.5), 0.5)
        step_y = min(max(-(hxx * gy - hxy * gx) / determinant, -0.5), 0.5)
        ux, uy = ux + step_x, uy + step_y
        if abs(ux - start[0]) > 1 or abs(uy - start[1]) > 1:
            return start
        if abs(step_x) < 1e-5 and abs(step_y) < 1e-5:
            break
    return ux, uy


def _likelihood_weights(
    plane: _Plane,
    fa: NDArray[np.complex128],
    fb: NDArray[np.complex128],
    cross: NDArray[np.complex128],
    shift: tuple[float, float],
) -> Float64Array:
    """Weights ``coherence / (1 - coherence) / |cross spectrum|`` of each ring."""
    turn = np.exp(plane.turn_y * shift[1]) * np.exp(plane.turn_x * shift[0])
    aligned = (cross * turn).real.ravel()  # `cross` carries the multiplicity already
    together = np.bincount(plane.ring.ravel(), aligned, plane.RINGS + 1)
    power = np.sqrt(plane.over_rings(np.abs(fa) ** 2) * plane.over_rings(np.abs(fb) ** 2))
    coherence = np.clip(together, 0, None) ** 2 / np.maximum(power, 1e-30) ** 2
    coherence = np.minimum(coherence, 0.9999)
    weights = coherence / (1 - coherence) * plane.ring_size / np.maximum(power, 1e-30)
    weights[0] = weights[-1] = 0.0  # the mean, and what lies beyond Nyquist
    return cast(Float64Array, weights[plane.ring])


def whitened_shift(
    a: Float32Array, b: Float32Array, max_shift_px: float = np.inf
) -> tuple[float, float]:
    """`correlation_peak` of two plain images after whitening and windowing."""
    window = hann(*a.shape)
    return correlation_peak(
        laplacian_of_gaussian(a) * window, laplacian_of_gaussian(b) * window, max_shift_px
    )


def coarse_offset(lr: Float32Array, hr: Float32Array, scale: int) -> tuple[int, int]:
    """Whole-LR-pixel place of the LR patch in the region, HR px (x, y)."""
    height, width = lr.shape
    range_x, range_y = hr.shape[1] - scale * width, hr.shape[0] - scale * height
    # Centre the coarse grid in the range, so that its ends are equally far from the borders.
    phase_x, phase_y = (range_x % scale) // 2, (range_y % scale) // 2
    reduced = box_reduce(np.ascontiguousarray(hr[phase_y:, phase_x:]), scale)
    surface = cv2.matchTemplate(band_pass(reduced), band_pass(lr), cv2.TM_CCOEFF_NORMED)
    surface = np.nan_to_num(surface, nan=-1.0, posinf=-1.0, neginf=-1.0)
    row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return phase_x + scale * int(column), phase_y + scale * int(row)


def integer_ncc_offset(lr: Float32Array, hr: Float32Array, scale: int) -> tuple[int, int, float]:
    """Argmax of the paper's normalised cross-correlation and its value: x, y (HR px), NCC.

    Whole grey levels on both sides and OpenCV's bicubic enlargement, as a straightforward
    reading of PathImgSR has them.
    """
    size = (lr.shape[1] * scale, lr.shape[0] * scale)
    enlarged = cv2.resize(lr, size, interpolation=cv2.INTER_CUBIC)
    surface = cv2.matchTemplate(hr, enlarged, cv2.TM_CCOEFF_NORMED)
    surface = np.nan_to_num(surface, nan=-1.0, posinf=-1.0, neginf=-1.0)
    row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return int(column), int(row), float(np.clip(surface[row, column], -1.0, 1.0))


def refine_translation(
    lr: Float32Array, hr: Float32Array, scale: int, x: float, y: float, iterations: int = 3
) -> tuple[float, float]:
    """Sub-pixel place of the LR patch near a first guess, HR px.

    The estimate may lie outside the search range, where the patch is cut off; the caller
    decides what that means.
    """
    height, width = lr.shape
    range_x, range_y = hr.shape[1] - scale * width, hr.shape[0] - scale * height
    window = hann(height, width)
    white = _spectrum(laplacian_of_gaussian(lr) * window)
    max_shift = max(4.0, min(height, width) / 8)
    for _ in range(iterations):
        at_x, at_y = min(max(x, 0.0), float(range_x)), min(max(y, 0.0), float(range_y))
        reduced = box_reduce_at(hr, at_x, at_y, width, height, scale)
        other = _spectrum(laplacian_of_gaussian(reduced) * window)
        shift_x, shift_y = _peak(white, other, lr.shape, max_shift)
        new_x, new_y = at_x + scale * shift_x, at_y + scale * shift_y
        moved = max(abs(new_x - x), abs(new_y - y))
        x, y = new_x, new_y
        if moved < 0.02:
            break
        max_shift = 2.0  # the place is known; only the neighbourhood counts now
    return x, y
