"""HR of one patch: cut out of its search region, which is read wider where it was too small."""

from dataclasses import replace
from functools import partial

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.geometry import PatchGeometry
from wsisr.registration.certificate import PairCertificate, Reason, translation_affine
from wsisr.registration.pair import register_pair
from wsisr.slides import Slide, read_layer, read_layer_validity

WIDER = 3
"""Times the margin of the search region, for the second look."""


class SearchRegion:
    """The pixels in which the HR of one patch lies; offsets count from its corner.

    Parameters
    ----------
    geometry : PatchGeometry
        Its finest layer has the margin of the search region.
    origin : (int, int)
        Of the patch, level-0 px.
    pixels : ndarray, uint8, RGB
        The finest layer with its margin.
    """

    def __init__(
        self, slide: Slide, geometry: PatchGeometry, origin: tuple[int, int], pixels: UInt8Array
    ) -> None:
        self.pixels = pixels
        self._slide, self._geometry, self._origin = slide, geometry, origin
        self._wide = replace(geometry.hr, margin_px=WIDER * geometry.hr.margin_px)
        self._wider: UInt8Array | None = None

    @property
    def hr_size_px(self) -> int:
        return self._geometry.hr.size_px

    @property
    def widening_px(self) -> int:
        """How much further out the corner of the wider region lies, HR px."""
        return self._wide.margin_px - self._geometry.hr.margin_px

    def wider(self) -> UInt8Array | None:
        """The region with three times the margin; None where the slide does not have it."""
        if self._wider is None and self._inside():
            where = (self._slide, self._geometry, self._wide)
            if read_layer_validity(*where, *self._origin):
                self._wider = read_layer(*where, *self._origin)
        return self._wider

    def _inside(self) -> bool:
        margin = self._wide.margin_px * self._wide.factor
        base = self._slide.info.levels[0]
        return all(
            start >= margin and start + self._geometry.field_px + margin <= size
            for start, size in zip(self._origin, (base.width_px, base.height_px), strict=True)
        )

    def cut(self, offset_x: int, offset_y: int, *, accepted: bool) -> UInt8Array:
        """The HR patch at an offset; of a rejected pair that matched nowhere in the region its
        middle, to be looked at."""
        hr = self._geometry.hr
        region, x, y = self.pixels, offset_x, offset_y
        room = region.shape[0] - hr.size_px
        if not (0 <= x <= room and 0 <= y <= room):
            wide = self.wider() if accepted else None
            if wide is None:
                x = y = hr.margin_px
            else:
                region, x, y = wide, x + self.widening_px, y + self.widening_px
        return np.ascontiguousarray(region[y : y + hr.size_px, x : x + hr.size_px])


def register_patch(region: SearchRegion, lr: UInt8Array, method: str) -> PairCertificate:
    """Certificate of one place; `region.cut` takes its offsets.

    A match that lies outside the search region is looked for once more, in a region with three
    times the margin, where the slide has it. The certificate counts from the corner of the
    *first* region, whichever was used.

    Parameters
    ----------
    lr : ndarray, uint8, RGB
        The coarsest layer.
    method : str
        See `wsisr.registration.register_pair`.
    """
    scale = region.hr_size_px // lr.shape[0]
    # Levels of one scan have its colours.
    register = partial(register_pair, lr, scale=scale, method=method, match_colours=False)
    certificate = register(region.pixels)
    if certificate.reason == Reason.OUTSIDE and (wide := region.wider()) is not None:
        second = register(wide)
        if second.accepted:
            return _moved(second, -region.widening_px)
    return certificate


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
