"""Pairs from two scans of one glass: the only LR that may be called real (origin `rescan`).

Where the LR scan stores no level that the factor needs, LR is reduced from a finer one by a whole
number (`rescan-reduced`); two scanners of one resolution give pairs of x1 (`cross-scanner`), which
are for comparing and fitting scanners and not for super-resolution.
The LR scan decides about places: candidates lie on its grid and its pixels are never resampled. The
HR scan is registered to it once, and then every pair by itself. HR is cut out in whole pixels
where that is exact to half a pixel all over the patch, else resampled once and marked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from wsisr.arrays import AnyArray, Int64Array, UInt8Array
from wsisr.building.layout import Layout, SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import Reading
from wsisr.building.sources.levels import Levels, confirmed, list_slides
from wsisr.building.sources.places import survey_glass
from wsisr.building.sources.protocol import ReadPair, Survey, layer_spec, recorded_origins
from wsisr.building.sources.scan_pairs import hr_scan, pair_scans
from wsisr.errors import MagnificationError, RegistrationError
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.registration import (
    PATCH_MARGIN_PX,
    LevelTransform,
    PairCertificate,
    Reason,
    ScanRegistration,
    Verdict,
    register_pair,
    register_scans,
    take_hr,
)
from wsisr.registration.factors import (
    CALIBRATION,
    FACTORS,
    PairChoice,
    describe_choices,
    pair_choices,
    reducible,
)
from wsisr.registration.patch import WIDER
from wsisr.slides import Slide, read_layer, read_layer_validity
from wsisr.slides.streams import LevelStreams, NotKept
from wsisr.store import ArraySpec

RESCAN = "rescan"
RESCAN_REDUCED = "rescan-reduced"
CROSS_SCANNER = "cross-scanner"


class Rescan:
    """An LR scan and the HR scan of the same glass; implements `Source`."""

    def __init__(
        self,
        task: SlideTask,
        manifest: Manifest,
        slides: tuple[Slide, Slide],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.task, self.manifest = task, manifest
        self.slides: tuple[Slide, ...] = slides
        self.notes = notes
        self._lr, self._hr = slides

    @staticmethod
    def list(source: Path, manifest: Manifest) -> Layout:
        return list_slides(source)

    @staticmethod
    def join(tasks: Sequence[SlideTask], manifest: Manifest, source: Path) -> tuple[SlideTask, ...]:
        return pair_scans(tasks, manifest, source)

    @classmethod
    def open(cls, task: SlideTask, manifest: Manifest, backend: str | None = None) -> Self:
        return cls._beside(Levels.open(task, manifest, backend))

    @classmethod
    def open_checked(cls, task: SlideTask, manifest: Manifest) -> Self:
        opened = cls._beside(Levels.open_checked(task, manifest))
        try:
            opened.notes += confirmed(opened.slides[1].info, manifest)
        except BaseException:
            opened.close()
            raise
        return opened

    @classmethod
    def _beside(cls, lr: Levels) -> Self:
        """Open the HR scan beside the LR scan."""
        try:
            task = replace(lr.task, source=hr_scan(lr.task).source, mpp=hr_scan(lr.task).mpp)
            (hr,) = Levels.open(task, lr.manifest).slides
        except BaseException:
            lr.close()
            raise
        return cls(lr.task, lr.manifest, (lr.slides[0], hr), lr.notes)

    def geometry(self) -> PatchGeometry:
        """The LR layer on the LR scan's grid; HR is planned patch by patch.

        Raises
        ------
        MagnificationError
            If a resolution is missing, or the two scans have no such factor.
        """
        choice = self._choice
        layer = Layer(
            name=self.manifest.lr_arrays[0],
            factor=float(choice.lr_factor),
            size_px=self.manifest.size // choice.factor,
            level=choice.level,
            reduction=choice.lr_factor / choice.level_factor,
        )
        return patch_geometry((layer,), tuple(level.factor for level in self._lr.info.levels))

    @cached_property
    def _choice(self) -> PairChoice:
        """Which level of the LR scan gives the factor that the manifest asks for."""
        first, second = self._lr.info, self._hr.info
        for info in (first, second):
            if info.mpp is None:
                raise MagnificationError(
                    f"{self.task.slide_id}: {info.path.name} has no known resolution; give it with "
                    "--mpp-override."
                )
        assert first.mpp is not None and second.mpp is not None
        ratio = first.mpp.value / second.mpp.value
        levels = [level.factor for level in first.levels]
        wanted = self.manifest.scale_of(self.manifest.lr[0])
        factor = round(wanted)
        choices = pair_choices(ratio, levels, factor) if factor in FACTORS else ()
        if factor != wanted or not choices:
            raise MagnificationError(
                f"{self.task.slide_id}: {first.path.name} ({first.mpp.value:.4g} um/px) and "
                f"{second.path.name} ({second.mpp.value:.4g} um/px) make no pairs of x{wanted:g} "
                f"(--hr {self.manifest.hr}, --lr {self.manifest.lr[0]}): "
                f"{describe_choices(ratio, levels)}."
            )
        return choices[0]

    def places(self, geometry: PatchGeometry, root: Path) -> Survey:
        def fit(evidence: object) -> tuple[Reading, tuple[LevelTransform, ...]]:
            return Reading(geometry=geometry, scans=self._registered().to_json()), ()

        return survey_glass(self._lr, self.task, self.manifest, root, fit)

    def _registered(self) -> ScanRegistration:
        """Register the HR scan to the LR scan.

        Raises
        ------
        RegistrationError
            If they do not show the same section, or have another scale than the manifest says.
        """
        found = register_scans(self._lr, self._hr, self.manifest.seed % 2**32)
        if not found.same_glass:
            names = f"{self._lr.info.path.name} and {self._hr.info.path.name}"
            raise RegistrationError(
                f"{self.task.slide_id}: {names} do not show the same section ({found.reason}); "
                "sections of a block hold different cells and make no pairs."
            )
        choice = self._choice
        measured = found.scale * choice.lr_factor / choice.factor
        if not reducible(measured / (1 + CALIBRATION if measured > 1 else 1 - CALIBRATION)):
            raise RegistrationError(
                f"{self.task.slide_id}: the scans measure {found.scale:.4f} px on a px, their "
                f"files say {found.stated_scale:.4f}: HR would be reduced by {measured:.3f}. Give "
                "the true resolutions with --mpp-override."
            )
        return found

    def arrays(self, reading: Reading) -> tuple[ArraySpec, ...]:
        small = reading.geometry.layers[0]
        mpp = None if self._lr.info.mpp is None else self._lr.info.mpp.value
        scale = self.manifest.size // small.size_px
        hr = ArraySpec(
            name=self.manifest.hr,
            size_px=self.manifest.size,
            factor=small.factor / scale,
            origin=RESCAN,
            level=0,
            um_per_px=None if mpp is None else mpp * small.factor / scale,
            extra={"scan": "fixed"},
        )
        origin = CROSS_SCANNER if scale == 1 else RESCAN if small.native else RESCAN_REDUCED
        return hr, layer_spec(small, mpp, origin)

    def keep_tiles(self, reading: Reading) -> LevelStreams:
        raise NotKept("its HR is cut from another scan, pair by pair")

    def read(self, reading: Reading, origins: Int64Array) -> Iterator[ReadPair]:
        found = reading.scans or {}
        registration = ScanRegistration.from_json(found)
        # The first stores measured pairs with the whole scale, and looked beyond the HR scan.
        first = "stated_scale" not in found
        scans = (self._lr, self._hr)
        return read_pairs(scans, registration, reading.geometry, origins, self.manifest, first)

    def read_recorded(
        self, reading: Reading, columns: Mapping[str, AnyArray], rows: Int64Array
    ) -> Iterator[ReadPair]:
        # Columns hold transforms in single precision: pairs are registered again.
        for pair in self.read(reading, recorded_origins(columns, rows)):
            if not pair.drop:
                yield replace(pair, index=int(rows[pair.index]))

    def attributes(self, reading: Reading, root: Path) -> dict[str, Any]:
        info = self._hr.info
        scans = ScanRegistration.from_json(reading.scans or {})
        small = reading.geometry.layers[0]
        return {
            # Places are of the HR scan, and so is their frame.
            **({"origin_px": list(info.origin_px)} if any(info.origin_px) else {}),
            "hr_scan": {
                "source": hr_scan(self.task).source.relative,
                "fingerprint": info.fingerprint,
                "vendor": info.vendor,
                "backend": info.backend,
                "mpp": None if info.mpp is None else asdict(info.mpp),
                "levels": [asdict(level) for level in info.levels],
                "reduction": scans.scale * small.factor * small.size_px / self.manifest.size,
                "registration": scans.summary(),
            },
        }

    def close(self) -> None:
        for slide in self.slides:
            slide.close()


def read_pairs(
    scans: tuple[Slide, Slide],
    registration: ScanRegistration,
    geometry: PatchGeometry,
    origins: Int64Array,
    manifest: Manifest,
    first_rules: bool = False,
) -> Iterator[ReadPair]:
    """Read and register pairs of an LR and an HR scan, in the order that reads the LR row by row.

    With `first_rules`, as stores of rules 1 did, so that their records give the same pixels.
    """
    lr, hr = scans
    layer = geometry.hr
    factor, field = manifest.size // layer.size_px, geometry.field_px
    margin = round(PATCH_MARGIN_PX * layer.factor)
    base = hr.info.levels[0]
    bounds = None if first_rules else (base.width_px, base.height_px)
    side_px = factor if first_rules else None

    def look(x: int, y: int, margin_px: int) -> tuple[UInt8Array, PairCertificate] | None:
        """The region of the HR scan as the LR scan sees it, and the pair's certificate."""
        plan = registration.plan_patch(x, y, field, field, margin_px, bounds)
        box = plan.box
        if not hr.read_validity(0, box.x, box.y, box.width, box.height).all():
            return None
        region = plan.read(hr)
        # The plan counts level-0 px of the LR scan; a coarser level has fewer.
        (a, b, tx), (c, d, ty) = plan.initial
        f = layer.factor
        initial = ((a * f, b * f, tx), (c * f, d * f, ty))
        found = register_pair(
            small,
            region,
            factor,
            "affine",
            initial=initial,
            side_px=side_px,
            match_colours=registration.match_colours,
        )
        return region, found

    for index in np.lexsort((origins[:, 0], origins[:, 1])).tolist():
        x, y = origins[index].tolist()
        plan = registration.plan_patch(x, y, field, field, margin, bounds)
        if not plan.inside:
            yield ReadPair(index=index, drop="outside")
            continue
        if plan.straddles_seam or plan.out_of_focus:
            yield ReadPair(index=index, drop="seam" if plan.straddles_seam else "focus")
            continue
        if not read_layer_validity(lr, geometry, layer, x, y):
            yield ReadPair(index=index, drop="unscanned")
            continue
        small = read_layer(lr, geometry, layer, x, y)
        first = look(x, y, margin)
        if first is None:
            yield ReadPair(index=index, drop="unscanned")
            continue
        region, certificate = first
        if certificate.reason == Reason.OUTSIDE:
            # The field was off by more than the search region: look once more, further out.
            second = look(x, y, WIDER * margin)
            if second is not None and second[1].accepted:
                region, certificate = second
        pixels, certificate, resampled = _hr_patch(region, certificate, layer.size_px)
        yield ReadPair(
            index=index,
            arrays={manifest.hr: pixels, layer.name: small},
            certificate=certificate,
            resampled=resampled,
        )


def _hr_patch(
    region: UInt8Array, certificate: PairCertificate, size: int
) -> tuple[UInt8Array, PairCertificate, bool]:
    """HR of an accepted pair; of a rejected one the middle of the region, to be looked at."""
    if certificate.accepted:
        try:
            patch = take_hr(region, certificate, size, size)
            return np.ascontiguousarray(patch.pixels), certificate, patch.resampled
        except RegistrationError as error:
            certificate = replace(certificate, verdict=Verdict.REJECT, reason=str(error))
    side = size * round(certificate.scale)
    top, left = (max(0, length - side) // 2 for length in region.shape[:2])
    middle = region[top : top + side, left : left + side]
    missing = [(0, side - length) for length in middle.shape[:2]]
    return np.pad(middle, [*missing, (0, 0)], mode="edge"), certificate, False
