"""How sharp two scans of one place are, one against the other and each by itself.

Noise and JPEG add fine detail of their own, so that the variance of a Laplacian calls a noisy
blur sharp. What both scans see is in their cross-spectrum, where noise of the one scan that the
other lacks averages out.
"""

import numpy as np
from scipy import fft

from wsisr.arrays import Float32Array
from wsisr.registration import correlation as corr

FINE = (0.20, 0.30)
COARSE = (0.03, 0.10)
"""Bands whose transfer is compared, cycles per LR px."""
OWN_SIGMAS_PX = ((0.7, 1.4), (2.8, 5.6))
"""Fine and coarse band of one image, differences of Gaussians, px."""
OUT_OF_FOCUS = 0.5
"""Share of the scan's median sharpness below which a place is out of focus: a quarter of a
cycle per pixel keeps half its contrast, which is what a further blur of 0.75 px does to it."""


def relative_focus(lr: Float32Array, reference: Float32Array) -> float:
    """Transfer of `lr` against an aligned reference: fine band over coarse band.

    Parameters
    ----------
    lr, reference : ndarray, shape (h, w), float32
        Two scans of one place on one grid.

    Returns
    -------
    float
        1 where both are equally sharp, below 1 where `lr` is blurred, above 1 where the
        reference is; 0 where they have nothing in common.
    """
    window = corr.hann(*lr.shape)
    ours, theirs = (fft.rfft2((image - image.mean()) * window) for image in (lr, reference))
    frequency = np.hypot(fft.fftfreq(lr.shape[0])[:, None], fft.rfftfreq(lr.shape[1])[None, :])
    transfer = []
    for low, high in (FINE, COARSE):
        band = (frequency >= low) & (frequency < high)
        power = float(np.sum(np.abs(theirs[band]) ** 2))
        shared = float(np.sum((ours[band] * np.conj(theirs[band])).real))
        transfer.append(max(0.0, shared / power) if power > 0 else 0.0)
    return transfer[0] / transfer[1] if transfer[1] > 0 else 0.0


def own_focus(image: Float32Array) -> float:
    """Amplitude of fine over coarse detail of one image; compare places of one scan only."""
    fine, coarse = (float(np.std(corr.band_pass(image, sigmas))) for sigmas in OWN_SIGMAS_PX)
    return fine / coarse if coarse > corr.FLAT else 0.0
