"""Registration of one LR patch against a slightly larger HR region.

The LR patch is compared on its own grid with block means of the HR region, because that is
how a camera pixel sees the tissue: the aliasing of the LR is then part of the model and not
an error. The LR itself is never resampled.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.errors import RegistrationError
from wsisr.registration import affine as aff
from wsisr.registration import correlation as corr
from wsisr.registration.certificate import (
    ONE_SLIDE,
    TWO_SCANS,
    Affine,
    Gate,
    Method,
    PairCertificate,
    Reason,
    Verdict,
    translation_affine,
)
from wsisr.registration.colour import in_colours_of
from wsisr.registration.orientation import D4
from wsisr.registration.parts import (
    MIDDLE,
    UNKNOWN_PX,
    UNSEEN_PX,
    error_bound,
    leverage,
    one_sided,
    part_shifts,
    spread_of,
)
from wsisr.registration.steps import largest_step

MIN_LR_PX = 16
"""Smallest side of an LR patch that can be registered."""

UNRELATED_NCC_BAND = 0.3
"""Unrelated patches measured 0.14 or less."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _GreyPair:
    """Both images of a pair as they are correlated, and what is known of them before."""

    lr: Float32Array
    hr: Float32Array
    hr_rgb: UInt8Array | None
    scale: float
    method: Method
    texture: float


def register_pair(
    lr: UInt8Array,
    hr_region: UInt8Array,
    scale: float = 4,
    method: str = "subpixel",
    *,
    gate: Gate | None = None,
    initial: Affine | None = None,
    side_px: float | None = None,
    match_colours: bool = True,
) -> PairCertificate:
    """Find an LR patch in an HR region that is slightly larger than its field of view.

    A pair that cannot be matched has a certificate too: ``verdict == "reject"``, and a reason.

    Parameters
    ----------
    lr : ndarray, shape (h, w, 3), uint8, RGB
        At least 16 px a side.
    hr_region : ndarray, shape (H, W, 3), uint8, RGB
        ``H > scale * h`` and ``W > scale * w``; the rest is the search range.
    scale : float
        HR px per LR px, 1 or more; a whole number, but for ``"affine"``.
    method : {"subpixel", "ncc-integer", "affine"}
        See `Method`.
    gate : Gate, optional
        Thresholds; by default `ONE_SLIDE`, for ``"affine"`` `TWO_SCANS`.
    initial : 2x3 nested tuple, optional
        First guess of the map LR px -> HR px (pixel edges); ``"affine"`` only. Without it the
        translation is found first.
    side_px : float, optional
        Side of an LR pixel that the refinement takes, HR px; by default that of the first guess.
    match_colours : bool
        Whether the place is refined once more on the HR in the colours of the LR
        (`wsisr.registration.colour`). Of no use for levels or focal planes of one scan.

    Raises
    ------
    RegistrationError
        Wrong shapes, types, scale or method. Never for what the pixels show.

    Notes
    -----
    ``subpixel``: block means of the region at the LR scale, band-passed normalised
    correlation for the whole-pixel place, then the peak of the Hann-windowed,
    Laplacian-of-Gaussian-whitened cross-correlation, repeated at the place that was found.
    ``ncc-integer``: bicubic enlargement of the LR and `TM_CCOEFF_NORMED` over the region
    (PathImgSR); the crop is its argmax, and the residual is what ``subpixel`` finds from there.
    """
    method = _check(lr, hr_region, scale, method, initial)
    gate = gate or (TWO_SCANS if method == Method.AFFINE else ONE_SLIDE)
    lr_grey = corr.grey(lr)
    pair = _GreyPair(
        lr=lr_grey,
        hr=corr.grey(hr_region),
        hr_rgb=hr_region if match_colours else None,
        scale=scale,
        method=method,
        texture=corr.texture(lr_grey),
    )
    if pair.texture < gate.min_texture or float(np.std(pair.hr)) < corr.FLAT:
        return _blank(pair, Reason.TEXTURE)
    try:
        if method == Method.AFFINE:
            return _affine(pair, gate, initial, side_px)
        return _translation(pair, gate)
    except cv2.error:
        # OpenCV raises where its iteration finds no correlation to climb.
        return _blank(pair, Reason.NO_CONVERGENCE)


def _check(
    lr: UInt8Array, hr: UInt8Array, scale: float, method: str, initial: Affine | None
) -> Method:
    for name, image in (("LR", lr), ("HR", hr)):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise RegistrationError(
                f"The {name} image must be uint8 RGB of shape (height, width, 3), "
                f"not {image.dtype} of shape {image.shape}."
            )
    # Two scans of one nominal resolution, or two sections, may differ either way.
    fits = scale > 0.5 if method == Method.AFFINE else scale >= 1 and scale == int(scale)
    if not fits:
        raise RegistrationError(
            f"The scale must be a whole number of 1 or more, not {scale:g}; only the affine "
            "method takes others."
        )
    if min(lr.shape[:2]) < MIN_LR_PX:
        raise RegistrationError(
            f"An LR patch of {lr.shape[1]} x {lr.shape[0]} px is too small: "
            f"{MIN_LR_PX} px a side are needed."
        )
    if initial is None and (
        hr.shape[0] <= scale * lr.shape[0] or hr.shape[1] <= scale * lr.shape[1]
    ):
        raise RegistrationError(
            f"The HR region of {hr.shape[1]} x {hr.shape[0]} px leaves nothing to search: it must "
            f"be larger than {scale} x the LR patch of {lr.shape[1]} x {lr.shape[0]} px."
        )
    try:
        chosen = Method(method)
    except ValueError:
        names = ", ".join(Method)
        raise RegistrationError(f"{method!r} is no registration method; use {names}.") from None
    if initial is not None and chosen != Method.AFFINE:
        raise RegistrationError("A first guess of the map is for the affine method only.")
    if initial is not None:
        first = np.asarray(initial, dtype=np.float64)
        if first.shape != (2, 3) or not np.isfinite(first).all():
            raise RegistrationError("A first guess of the map must be 2 x 3 finite numbers.")
    return chosen


def _blank(pair: _GreyPair, reason: str) -> PairCertificate:
    """The certificate of a pair without a match: the middle of the search range."""
    lr, hr, scale = pair.lr, pair.hr, pair.scale
    x, y = (max(0, int(hr.shape[i] - scale * lr.shape[i]) // 2) for i in (1, 0))
    return PairCertificate(
        method=pair.method,
        scale=scale,
        dx=float(x),
        dy=float(y),
        offset_x=x,
        offset_y=y,
        residual_x=0.0,
        residual_y=0.0,
        ncc=0.0,
        ncc_band=0.0,
        spread=0.0,
        error=UNKNOWN_PX,
        sharpness=0.0,
        texture=pair.texture,
        affine=translation_affine(scale, x, y),
        verdict=Verdict.REJECT,
        reason=reason,
    )


def find_orientation(
    lr: UInt8Array, hr_region: UInt8Array, scale: int = 4
) -> tuple[D4, PairCertificate]:
    """Which flip or quarter turn of the LR fits the HR region, and the pair's certificate.

    Parameters
    ----------
    lr, hr_region, scale
        As for `register_pair`; both images are square, or orientations that do not fit the
        region are left out.

    Returns
    -------
    (D4, PairCertificate)
        The operation to apply to the LR; the certificate is that of the turned LR. Where
        nothing fits, the most alike orientation with its rejected certificate.
    """
    best: tuple[float, D4, PairCertificate] | None = None
    for op in D4:
        turned = np.ascontiguousarray(op.apply(lr))
        if any(hr_region.shape[i] <= scale * turned.shape[i] for i in (0, 1)):
            continue
        certificate = register_pair(turned, hr_region, scale)
        score = certificate.ncc_band + certificate.accepted
        if best is None or score > best[0]:
            best = (score, op, certificate)
    if best is None:
        raise RegistrationError("The HR region is too small for every orientation of the LR.")
    return best[1], best[2]


def _translation(pair: _GreyPair, gate: Gate) -> PairCertificate:
    lr, hr, method, scale = pair.lr, pair.hr, pair.method, int(pair.scale)
    range_x = hr.shape[1] - scale * lr.shape[1]
    range_y = hr.shape[0] - scale * lr.shape[0]
    plain: float | None = None
    if method == Method.NCC_INTEGER:
        offset_x, offset_y, plain = corr.integer_ncc_offset(lr, hr, scale)
        dx, dy = corr.refine_translation(lr, hr, scale, offset_x, offset_y)
    else:
        dx, dy = corr.refine_translation(lr, hr, scale, *corr.coarse_offset(lr, hr, scale))
    alike = hr
    if pair.hr_rgb is not None:
        size = (lr.shape[1], lr.shape[0], scale)
        alike = in_colours_of(
            lr, pair.hr_rgb, lambda plane: corr.box_reduce_at(plane, dx, dy, *size)
        )
        dx, dy = corr.refine_translation(lr, alike, scale, dx, dy)
    if method != Method.NCC_INTEGER:
        offset_x = min(max(round(dx), 0), range_x)
        offset_y = min(max(round(dy), 0), range_y)
    reduced = corr.box_reduce_at(hr, dx, dy, lr.shape[1], lr.shape[0], scale)
    if plain is None:
        plain = corr.ncc(lr, reduced)
    band, sharpness = corr.band_scores(lr, reduced)
    seen = reduced
    if alike is not hr:
        seen = corr.box_reduce_at(alike, dx, dy, lr.shape[1], lr.shape[0], scale)
    shifts = part_shifts(lr, seen, scale, 2, pair.texture)
    spread = spread_of(shifts)
    unseen = one_sided(shifts) and not np.isfinite(shifts[MIDDLE]).all()
    outside = max(-dx, -dy, dx - range_x, dy - range_y)
    verdict, reason = _judge(band, spread, outside, gate)
    return PairCertificate(
        method=method,
        scale=scale,
        dx=dx,
        dy=dy,
        offset_x=offset_x,
        offset_y=offset_y,
        residual_x=dx - offset_x,
        residual_y=dy - offset_y,
        ncc=plain,
        ncc_band=band,
        spread=spread,
        error=max(_error(reason, spread, lr), UNSEEN_PX if unseen else 0.0),
        sharpness=sharpness,
        texture=pair.texture,
        affine=translation_affine(scale, dx, dy),
        verdict=verdict,
        reason=reason,
    )


def _judge(band: float, spread: float, outside: float, gate: Gate) -> tuple[Verdict, str]:
    """The gate, most telling fault first."""
    if outside > gate.max_edge_px:
        # Cut-off patches still correlate; unrelated ones land anywhere.
        return Verdict.REJECT, Reason.OUTSIDE if band > UNRELATED_NCC_BAND else Reason.PLACE
    if band < gate.min_ncc_band:
        return Verdict.REJECT, Reason.PLACE
    if spread > gate.max_spread_px:
        return Verdict.REJECT, Reason.SPREAD
    return Verdict.ACCEPT, ""


def _error(reason: str, spread: float, lr: Float32Array, off_centre: float = 0.0) -> float:
    found = reason in ("", Reason.SPREAD, Reason.SEAM)
    return error_bound(spread, min(lr.shape), off_centre) if found else UNKNOWN_PX


def _affine(
    pair: _GreyPair, gate: Gate, initial: Affine | None, side_px: float | None
) -> PairCertificate:
    lr, hr, scale = pair.lr, pair.hr, pair.scale
    height, width = lr.shape
    if initial is None:
        whole = max(1, round(scale))
        x, y = corr.coarse_offset(lr, hr, whole)
        middle = whole * np.array([width, height]) / 2 + [x, y]
        corner = middle - scale * np.array([width, height]) / 2
        first = aff.to_matrix(translation_affine(scale, *corner))
        first = aff.prealign(lr, hr, first, max(4.0, min(height, width) / 8))
    else:
        reach = max(4.0, min(height, width) / 8)
        first = aff.prealign(lr, hr, aff.to_matrix(initial), reach)
    matrix = aff.refine_affine(lr, hr, first, side_px)
    alike = hr
    if pair.hr_rgb is not None and np.isfinite(matrix).all():
        through = matrix
        alike = in_colours_of(
            lr, pair.hr_rgb, lambda plane: aff.sample_through(plane, through, width, height)
        )
        matrix = aff.refine_affine(lr, alike, matrix, side_px)
    if not np.isfinite(matrix).all():
        return _blank(pair, Reason.NO_CONVERGENCE)
    sampled = aff.sample_through(hr, matrix, width, height)
    band, sharpness = corr.band_scores(lr, sampled)
    # A small middle, so that a bend does not average out in it: the crop is centred there.
    seen = aff.sample_through(alike, matrix, width, height)
    shifts = part_shifts(lr, seen, scale, 4, pair.texture)
    spread = max(spread_of(shifts), 2 * float(np.nan_to_num(np.abs(shifts[MIDDLE])).max()))
    # The crop whose centre is the image of the LR patch's centre.
    centre = aff.apply(matrix, np.array([width / 2, height / 2]))
    dx, dy = float(centre[0] - scale * width / 2), float(centre[1] - scale * height / 2)
    offset_x = min(max(round(dx), 0), max(0, int(hr.shape[1] - scale * width)))
    offset_y = min(max(round(dy), 0), max(0, int(hr.shape[0] - scale * height)))
    outside = max(-dx, -dy, dx + scale * width - hr.shape[1], dy + scale * height - hr.shape[0])
    verdict, reason = _judge(band, spread, outside, gate)
    if verdict is Verdict.ACCEPT and one_sided(shifts):
        # Tissue at one edge says neither how the patch turns nor how it stretches.
        verdict, reason = Verdict.REJECT, Reason.TEXTURE
    if verdict is Verdict.ACCEPT or reason == Reason.SPREAD:
        step = largest_step(lr, seen, aff.pixel_side(matrix))
        if step is not None:
            verdict, reason = Verdict.REJECT, Reason.SEAM
    return PairCertificate(
        method=Method.AFFINE,
        scale=scale,
        dx=dx,
        dy=dy,
        offset_x=offset_x,
        offset_y=offset_y,
        residual_x=dx - offset_x,
        residual_y=dy - offset_y,
        ncc=corr.ncc(lr, sampled),
        ncc_band=band,
        spread=spread,
        error=_error(reason, spread, lr, leverage(lr)),
        sharpness=sharpness,
        texture=pair.texture,
        affine=aff.to_affine(matrix),
        verdict=verdict,
        reason=reason,
    )
