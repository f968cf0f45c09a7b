"""Registering the patches of one slide: the search region, widened once where it was too small."""

from dataclasses import replace

import numpy as np

from wsisr.geometry import PatchGeometry
from wsisr.registration import PairCertificate, Reason, register_pair, translation_affine
from wsisr.slides import Slide, read_layer, read_layer_validity
from wsisr.slides.protocol import UInt8Array

WIDER = 3
"""Times the margin of the search region, for the second look."""


def register_patch(
    slide: Slide,
    geometry: PatchGeometry,
    origin: tuple[int, int],
    lr: UInt8Array,
    region: UInt8Array,
    method: str,
) -> tuple[PairCertificate, UInt8Array]:
    """Certificate and HR patch of one place.

    A match that lies outside the search region is looked for once more, in a region with three
    times the margin, where the slide has it.

    Parameters
    ----------
    slide : Slide
    geometry : PatchGeometry
        Its finest layer has the margin of the search region.
    origin : (int, int)
        Of the patch, level-0 px.
    lr, region : ndarray, uint8, RGB
        The coarsest layer, and the finest with its margin.
    method : str
        See `wsisr.registration.register_pair`.

    Returns
    -------
    (PairCertificate, ndarray)
        The certificate counts from the corner of the *first* region, whichever was used. HR of a
        pair without a match is the middle of that region, to be looked at.
    """
    hr = geometry.hr
    scale = hr.size_px // geometry.layers[-1].size_px
    certificate = register_pair(lr, region, scale=scale, method=method)
    if certificate.reason == Reason.OUTSIDE:
        wide = replace(hr, margin_px=WIDER * hr.margin_px)
        if _inside(slide, geometry, wide.margin_px, origin) and read_layer_validity(
            slide, geometry, wide, *origin
        ):
            again = read_layer(slide, geometry, wide, *origin)
            second = register_pair(lr, again, scale=scale, method=method)
            if second.accepted:
                x, y = second.offset_x, second.offset_y
                patch = again[y : y + hr.size_px, x : x + hr.size_px]
                moved = _moved(second, hr.margin_px - wide.margin_px)
                return moved, np.ascontiguousarray(patch)
    x, y = certificate.offset_x, certificate.offset_y
    room = region.shape[0] - hr.size_px
    if not (0 <= x <= room and 0 <= y <= room):
        x = y = hr.margin_px
    patch = region[y : y + hr.size_px, x : x + hr.size_px]
    return certificate, np.ascontiguousarray(patch)


def _inside(slide: Slide, geometry: PatchGeometry, margin_px: int, origin: tuple[int, int]) -> bool:
    """Whether the region lies on the slide with this margin (HR px) around the field of view."""
    margin = margin_px * geometry.hr.factor
    sizes = (slide.info.levels[0].width_px, slide.info.levels[0].height_px)
    return all(
        start >= margin and start + geometry.field_px + margin <= size
        for start, size in zip(origin, sizes, strict=True)
    )


def _moved(certificate: PairCertificate, by_px: int) -> PairCertificate:
    """The same match, counted from a corner `by_px` further in on both axes."""
    dx, dy = certificate.dx + by_px, certificate.dy + by_px
    return replace(
        certificate,
        dx=dx,
        dy=dy,
        offset_x=certificate.offset_x + by_px,
        offset_y=certificate.offset_y + by_px,
        affine=translation_affine(certificate.scale, dx, dy),
    )
