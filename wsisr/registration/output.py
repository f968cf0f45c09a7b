"""The HR patch of a registered pair: cut out where that is exact enough, else resampled once.

The LR is never resampled: it is what a network will see, with its noise and aliasing.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from wsisr.arrays import UInt8Array
from wsisr.errors import RegistrationError
from wsisr.registration import affine as aff
from wsisr.registration.certificate import PairCertificate

CROP_LIMIT_PX = 0.5
"""Largest displacement anywhere in a patch that a whole-pixel crop may leave, HR px."""
SPLINE_ORDER = 5


@dataclass(frozen=True, kw_only=True)
class HrPatch:
    """HR pixels on the LR's grid times `scale`.

    Attributes
    ----------
    pixels : ndarray, shape (scale * h, scale * w, 3), uint8
    resampled : bool
        Whether they were interpolated (recorded as `hr_resampled`).
    """

    pixels: UInt8Array
    resampled: bool


def crop_residual_px(certificate: PairCertificate, width: int, height: int) -> float:
    """Largest distance between the map and the whole-pixel crop, over an LR patch of that size,
    HR px.
    """
    matrix, corners = aff.to_matrix(certificate.affine), aff.corners_of(0, 0, width, height)
    crop = certificate.scale * corners + [certificate.offset_x, certificate.offset_y]
    return float(np.linalg.norm(aff.apply(matrix, corners) - crop, axis=1).max())


def take_hr(
    region: UInt8Array,
    certificate: PairCertificate,
    width: int,
    height: int,
    *,
    allow_resampling: bool = True,
) -> HrPatch:
    """HR patch for an LR patch of ``width x height`` px.

    Parameters
    ----------
    region : ndarray, shape (H, W, 3), uint8
        The search region that the certificate speaks of.
    allow_resampling : bool
        False: always crop, as the paper does.

    Raises
    ------
    RegistrationError
        If the region does not hold the patch.

    Notes
    -----
    Resampling is one pass of quintic splines on floats. OpenCV's warps quantise coordinates
    to 1/32 px.
    """
    scale = round(certificate.scale)
    if scale != certificate.scale:
        raise RegistrationError(
            f"A ratio of {certificate.scale:g} has no crop: pairs have a whole factor."
        )
    residual = crop_residual_px(certificate, width, height)
    left, top = certificate.offset_x, certificate.offset_y
    if residual < CROP_LIMIT_PX or not allow_resampling:
        crop = region[top : top + scale * height, left : left + scale * width]
        if crop.shape[:2] != (scale * height, scale * width):
            raise RegistrationError("The HR region does not hold the whole crop.")
        return HrPatch(pixels=crop, resampled=False)
    matrix = aff.to_matrix(certificate.affine)
    mapped = aff.apply(matrix, aff.corners_of(0, 0, width, height))
    if mapped.min() < 0 or (mapped > [region.shape[1], region.shape[0]]).any():
        raise RegistrationError("The HR region does not hold the whole mapped patch.")
    u, v = np.meshgrid(
        (np.arange(scale * width) + 0.5) / scale, (np.arange(scale * height) + 0.5) / scale
    )
    # Where the HR scan is the finer one, its pixel grows by what it is reduced by.
    seen, origin = aff.through_pixel(
        region.astype(np.float32), aff.pixel_side(matrix) / certificate.scale
    )
    x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2] - origin
    y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2] - origin
    channels = [
        ndimage.map_coordinates(seen[..., channel], [y, x], order=SPLINE_ORDER, mode="mirror")
        for channel in range(3)
    ]
    pixels = np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)
    return HrPatch(pixels=pixels, resampled=True)
