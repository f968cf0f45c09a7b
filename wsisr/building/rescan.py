"""Pairs from two scans of one glass: the only LR that may be called real (origin `rescan`).

The LR scan decides about places: candidates lie on its grid and its pixels are never resampled. The
HR scan is registered to it once, and then every pair by itself. HR is cut out in whole pixels
where that is exact to half a pixel all over the patch, else resampled once and marked.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsisr.building.layout import SlideTask, find_task
from wsisr.building.manifest import Manifest
from wsisr.building.registering import WIDER
from wsisr.errors import MagnificationError, ManifestError, RegistrationError
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.magnification import nominal_magnification, parse_magnification
from wsisr.registration import (
    PATCH_MARGIN_PX,
    PairCertificate,
    PatchPlan,
    Reason,
    ScanRegistration,
    Verdict,
    register_pair,
    register_scans,
    take_hr,
)
from wsisr.slides import Slide, SlideInfo, open_slide
from wsisr.slides.protocol import UInt8Array

PAIR_COLUMNS = ("lr", "hr")


def pair_scans(
    tasks: Sequence[SlideTask], manifest: Manifest, source: Path
) -> tuple[SlideTask, ...]:
    """One task per LR scan, with the HR scan of the same glass where there is one.

    The table that the manifest names (columns `lr`, `hr`: file names or ids) comes first; without
    it the file names decide: the text that both patterns leave, their group `glass`, is
    the same. Other files are left out.

    Raises
    ------
    ManifestError
        A wrong table, or a glass with several LR or HR scans.
    """
    rule = manifest.rescan
    assert rule is not None
    table = (source if source.is_dir() else source.parent) / rule.table
    if table.is_file():
        return _from_table(tasks, table)
    found: dict[str, dict[str, SlideTask]] = {}
    for task in tasks:
        stem = task.source.path.name if task.source.path.is_dir() else task.source.path.stem
        for side, pattern in (("lr", rule.lr), ("hr", rule.hr)):
            match = re.fullmatch(pattern, stem, re.IGNORECASE)
            if match is None:
                continue
            glass = found.setdefault(match.group("glass").lower(), {})
            if side in glass:
                raise ManifestError(
                    f"{task.source.path}: the glass {match.group('glass')!r} has two "
                    f"{side.upper()} scans ({glass[side].slide_id} and {task.slide_id}); name the "
                    f"pairs in {rule.table} (columns lr,hr)."
                )
            glass[side] = task
            break
    pairs = [
        _paired(scans["lr"], scans.get("hr"), glass)
        for glass, scans in sorted(found.items())
        if "lr" in scans
    ]
    if not pairs:
        raise ManifestError(
            f"{source}: no file name fits the LR pattern {rule.lr!r}; rename the scans (e.g. "
            f"case1_10x.svs and case1_40x.svs) or name the pairs in {rule.table} (columns lr,hr)."
        )
    return tuple(sorted(pairs, key=lambda task: task.slide_id))


def _from_table(tasks: Sequence[SlideTask], table: Path) -> tuple[SlideTask, ...]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if sorted(reader.fieldnames or ()) != sorted(PAIR_COLUMNS):
            raise ManifestError(f"{table}: the columns must be lr,hr.")
        rows = list(reader)
    pairs = []
    for line, row in enumerate(rows, start=2):
        where = f"{table}, line {line}"
        lr = find_task(row["lr"] or "", tasks, where)
        pairs.append(_paired(lr, find_task(row["hr"] or "", tasks, where), lr.slide_id))
    if len({task.slide_id for task in pairs}) < len(pairs):
        raise ManifestError(f"{table}: an LR scan stands in two lines.")
    return tuple(sorted(pairs, key=lambda task: task.slide_id))


def _paired(lr: SlideTask, hr: SlideTask | None, glass: str) -> SlideTask:
    # Whoever is not named as a patient is the glass, so that all scans of it stay together.
    patient = lr.patient if lr.patient != lr.slide_id else glass
    group = lr.group if lr.group != lr.slide_id else glass
    return replace(
        lr,
        patient=patient,
        group=group,
        fixed=None if hr is None else hr.source,
        fixed_mpp=None if hr is None else hr.mpp,
    )


def rescan_geometry(
    lr: SlideInfo, hr: SlideInfo, manifest: Manifest, slide_id: str
) -> PatchGeometry:
    """The LR layer on the LR scan's level 0; HR is planned patch by patch.

    Raises
    ------
    MagnificationError
        If a scan does not have its magnification at level 0.
    """
    for info, wanted in ((lr, manifest.lr[0]), (hr, manifest.hr)):
        nominal = None if info.mpp is None else nominal_magnification(info.mpp.value)
        if nominal != parse_magnification(wanted):
            have = "no known resolution" if info.mpp is None else f"{info.mpp.value:.4g} um/px"
            raise MagnificationError(
                f"{slide_id}: {info.path.name} has {have}, which is not {wanted}; set --hr and "
                "--lr to what the two scans are."
            )
    scale = parse_magnification(manifest.hr) / parse_magnification(manifest.lr[0])
    layer = Layer(
        name=manifest.lr[0],
        factor=1.0,
        size_px=round(manifest.size / scale),
        level=0,
        reduction=1.0,
    )
    return patch_geometry((layer,), (1,))


def register_glass(task: SlideTask, lr: Slide, hr: Slide, manifest: Manifest) -> ScanRegistration:
    """Register the HR scan to the LR scan.

    Raises
    ------
    RegistrationError
        If they do not show the same section, or have another scale than the manifest says.
    """
    found = register_scans(lr, hr, manifest.seed % 2**32)
    scale = parse_magnification(manifest.hr) / parse_magnification(manifest.lr[0])
    if not found.same_glass:
        raise RegistrationError(
            f"{task.slide_id}: {lr.info.path.name} and {hr.info.path.name} do not show the same "
            f"section ({found.reason}); sections of a block hold different cells and make no pairs."
        )
    if found.scale != scale:
        raise RegistrationError(
            f"{task.slide_id}: the scans differ by {found.scale}, the manifest asks for {scale:g}."
        )
    return found


@dataclass(frozen=True, kw_only=True)
class RescanPair:
    """One registered pair.

    Attributes
    ----------
    index : int
        Row of the origins.
    lr, hr : ndarray, uint8, or None
        None where nothing could be stored (`drop` says why).
    certificate : PairCertificate or None
    resampled : bool
        Whether HR was interpolated.
    drop : {"", "unscanned", "seam"}
    """

    index: int
    lr: UInt8Array | None = None
    hr: UInt8Array | None = None
    certificate: PairCertificate | None = None
    resampled: bool = False
    drop: Literal["", "unscanned", "seam"] = ""


def read_rescan_pairs(
    lr: Slide,
    hr: Slide,
    registration: ScanRegistration,
    geometry: PatchGeometry,
    origins: NDArray[np.int64],
) -> Iterator[RescanPair]:
    """Read and register pairs, in the order that reads the LR scan row by row."""
    size = geometry.hr.size_px
    for index in np.lexsort((origins[:, 0], origins[:, 1])).tolist():
        x, y = origins[index].tolist()
        plan = registration.plan_patch(x, y, size, size)
        box = plan.box
        if plan.straddles_seam:
            yield RescanPair(index=index, drop="seam")
            continue
        if not (
            lr.read_validity(0, x, y, size, size).all()
            and hr.read_validity(0, box.x, box.y, box.width, box.height).all()
        ):
            yield RescanPair(index=index, drop="unscanned")
            continue
        small = lr.read_level(0, x, y, size, size)
        region, certificate = _register(hr, registration, plan, small)
        if certificate.reason == Reason.OUTSIDE:
            # The field was off by more than the search region: look once more, further out.
            wide = registration.plan_patch(x, y, size, size, WIDER * PATCH_MARGIN_PX)
            box = wide.box
            if hr.read_validity(0, box.x, box.y, box.width, box.height).all():
                second = _register(hr, registration, wide, small)
                if second[1].accepted:
                    region, certificate = second
        pixels, certificate, resampled = _hr_patch(region, certificate, size)
        yield RescanPair(
            index=index, lr=small, hr=pixels, certificate=certificate, resampled=resampled
        )


def _register(
    hr: Slide, registration: ScanRegistration, plan: PatchPlan, small: UInt8Array
) -> tuple[UInt8Array, PairCertificate]:
    """The planned region of the HR scan as the LR scan sees it, and the pair's certificate."""
    box = plan.box
    stored = hr.read_level(0, box.x, box.y, box.width, box.height)
    region = np.ascontiguousarray(plan.orientation.apply(stored))
    found = register_pair(small, region, registration.scale, "affine", initial=plan.initial)
    return region, found


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
    side = size * certificate.scale
    top, left = (region.shape[0] - side) // 2, (region.shape[1] - side) // 2
    middle = region[top : top + side, left : left + side]
    return np.ascontiguousarray(middle), certificate, False


def open_fixed(task: SlideTask, manifest: Manifest) -> Slide:
    """The HR scan of a task.

    Raises
    ------
    ManifestError
        If it has none.
    """
    if task.fixed is None:
        raise ManifestError(
            f"{task.slide_id}: no HR scan of this glass was found; name the files alike "
            "(case1_10x.svs, case1_40x.svs) or list them in the pair table (columns lr,hr)."
        )
    return open_slide(task.fixed.path, mpp=task.fixed_mpp, icc=manifest.icc)
