"""Pairs from the levels of one slide.

What is native is read, what is missing is made, and what would be inexact is refused. Usually a
missing level is reduced from the level's own pixels, those around the patch included
(`wsisr.slides.iter_patches`). Papers that start from patches cannot see around them, and some take
every n-th pixel or reduce by 2 over and over: there LR is made from the HR patch alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsisr.building.layout import Layout, SlideTask, recognise
from wsisr.building.manifest import Manifest
from wsisr.building.records import Reading
from wsisr.building.sources.places import survey_glass
from wsisr.building.sources.protocol import Pair, Survey, layer_spec, recorded_origins
from wsisr.errors import BuildError, MagnificationError, MppError, SlideError
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.magnification import downsample_factor, nominal_magnification, parse_magnification
from wsisr.registration import LevelTransform, calibrate_levels
from wsisr.registration.alignment import aligned, reference_layer
from wsisr.registration.patch import SearchRegion, register_patch
from wsisr.slides import (
    Slide,
    SlideInfo,
    describe_left_out,
    iter_patches,
    list_source,
    open_slide,
    reduce_image,
)
from wsisr.slides.protocol import UInt8Array
from wsisr.store import ArraySpec

STORED = "stored-level"
REDUCED = "reduced"
UPSAMPLING_TOLERANCE = 1e-3
"""A slide this much coarser than a physical resolution still counts as having it."""


class Levels:
    """One slide; implements `Source`."""

    def __init__(
        self, task: SlideTask, manifest: Manifest, slide: Slide, notes: tuple[str, ...] = ()
    ) -> None:
        self.task, self.manifest = task, manifest
        self.slides: tuple[Slide, ...] = (slide,)
        self.notes = notes

    @staticmethod
    def list(source: Path, manifest: Manifest) -> Layout:
        return list_slides(source)

    @staticmethod
    def join(tasks: Sequence[SlideTask], manifest: Manifest, source: Path) -> tuple[SlideTask, ...]:
        return tuple(tasks)

    @classmethod
    def open(cls, task: SlideTask, manifest: Manifest, backend: str | None = None) -> Self:
        slide = open_slide(
            task.source.path,
            backend=backend,
            mpp=task.mpp,
            icc=manifest.icc,
            focal_plane=manifest.focal_plane,
        )
        return cls(task, manifest, slide)

    @classmethod
    def open_checked(cls, task: SlideTask, manifest: Manifest) -> Self:
        opened = cls.open(task, manifest)
        try:
            opened.notes = confirmed(opened.slides[0].info, manifest)
        except BaseException:
            opened.close()
            raise
        return opened

    def geometry(self) -> PatchGeometry:
        return plan_geometry(self.slides[0].info, self.manifest, self.task.slide_id)

    def places(self, geometry: PatchGeometry, root: Path) -> Survey:
        def fit() -> tuple[Reading, tuple[LevelTransform, ...]]:
            return self._calibrated(geometry)

        return survey_glass(self.slides[0], self.task, self.manifest, root, fit)

    def _calibrated(self, geometry: PatchGeometry) -> tuple[Reading, tuple[LevelTransform, ...]]:
        """Where the levels in use lie; nothing to measure where no LR is stored in the file."""
        slide = self.slides[0]
        if reference_layer(geometry) is None:
            return Reading(geometry=geometry), ()
        used = {layer.level for layer in geometry.layers if layer.level > 0}
        transforms = calibrate_levels(slide, self.manifest.seed % 2**32, only=used)
        if self.manifest.registration.method == "levels":
            base = slide.info.levels[0]
            geometry = aligned(geometry, transforms, base.width_px, base.height_px)
        return Reading(geometry=geometry), transforms

    @property
    def _from_patch(self) -> bool:
        """Whether missing LR is made from the patch that was read."""
        return self.manifest.reduction != "bicubic"

    def arrays(self, reading: Reading) -> tuple[ArraySpec, ...]:
        info = self.slides[0].info
        mpp = None if info.mpp is None else info.mpp.value
        hr = reading.geometry.hr
        return tuple(
            layer_spec(
                layer,
                mpp,
                STORED if layer.native or layer is hr else REDUCED,
                {} if layer.native else self._kernel(layer),
            )
            for layer in reading.geometry.layers
        )

    def _kernel(self, layer: Layer) -> dict[str, object]:
        """What the store says of how a made LR was made."""
        if self.manifest.reduction == "nearest":
            return {"kernel": "nearest", "from": "patch"}
        kernel: dict[str, object] = {"kernel": "bicubic-antialias", "a": -0.5}
        if self.manifest.reduction == "bicubic-repeated":
            kernel["steps"] = int(np.log2(layer.reduction) + 0.5)
        return kernel | ({"from": "patch"} if self._from_patch else {})

    def read(self, reading: Reading, origins: NDArray[np.int64]) -> Iterator[Pair]:
        registration = self.manifest.registration
        lr = reading.geometry.layers[-1].name
        for index, arrays, valid in self._patches(reading.geometry, origins):
            if not valid:
                yield Pair(index=index, drop="unscanned")
            elif registration.per_pair:
                region = self._region(reading.geometry, origins[index], arrays)
                found = register_patch(region, arrays[lr], registration.method)
                crop = region.cut(found.offset_x, found.offset_y, accepted=found.accepted)
                yield Pair(
                    index=index,
                    arrays={**arrays, reading.geometry.hr.name: crop},
                    certificate=found,
                )
            else:
                yield Pair(index=index, arrays=arrays)

    def read_recorded(
        self, reading: Reading, columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]
    ) -> Iterator[tuple[int, dict[str, UInt8Array]]]:
        origins = recorded_origins(columns, rows)
        for index, arrays, valid in self._patches(reading.geometry, origins):
            row = int(rows[index])
            if valid and self.manifest.registration.per_pair:
                region = self._region(reading.geometry, origins[index], arrays)
                x, y = int(columns["offset_x"][row]), int(columns["offset_y"][row])
                crop = region.cut(x, y, accepted=bool(columns["verdict"][row] == 1))
                arrays = {**arrays, reading.geometry.hr.name: crop}
            if valid:
                yield row, arrays

    def _region(
        self,
        geometry: PatchGeometry,
        origin: NDArray[np.int64],
        arrays: Mapping[str, UInt8Array],
    ) -> SearchRegion:
        place = (int(origin[0]), int(origin[1]))
        return SearchRegion(self.slides[0], geometry, place, arrays[geometry.hr.name])

    def _patches(
        self, geometry: PatchGeometry, origins: NDArray[np.int64]
    ) -> Iterator[tuple[int, dict[str, UInt8Array], bool]]:
        """Every layer of every place, read or made."""
        stored = geometry
        if self._from_patch:
            read = tuple(la for n, la in enumerate(geometry.layers) if n == 0 or la.native)
            stored = replace(geometry, layers=read)
        for index, arrays, valid in iter_patches(self.slides[0], stored, origins):
            if valid:
                arrays = arrays | {
                    layer.name: reduce_patch(
                        arrays[geometry.hr.name], layer.size_px, self.manifest.reduction
                    )
                    for layer in geometry.layers
                    if layer.name not in arrays
                }
            yield index, arrays, valid

    def attributes(self, reading: Reading, root: Path) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        for slide in self.slides:
            slide.close()


def confirmed(info: SlideInfo, manifest: Manifest) -> tuple[str, ...]:
    """What a build must say of a slide's readers; empty where a second one agrees.

    Ready-made images are what their manifest declares: unchecked ones are said, not refused.

    Raises
    ------
    SlideError
        If no second reader has compared a region and the manifest does not accept that.
    """
    verdict = info.verdict
    if verdict is None or verdict.status == "agree":
        return ()
    if verdict.status == "unchecked" and manifest.unchecked == "refuse" and not manifest.images:
        raise SlideError(
            f"{info.path}: {verdict.line()} A build takes no pixels that nobody confirms; "
            "--unchecked accept takes such slides."
        )
    return (verdict.line(),)


def list_slides(source: Path) -> Layout:
    """The slides of a folder, and how it was understood.

    Raises
    ------
    BuildError
        If there are none.
    """
    listing = list_source(source)
    if not listing.slides:
        nothing = f"{source}: no slides here (SVS, TIFF, NDPI, MRXS, DICOM, PNG, JPEG, ...)."
        raise BuildError("\n".join([nothing, *describe_left_out(listing.left_out)]))
    return replace(recognise(source, listing.slides), left_out=listing.left_out)


def reduce_patch(hr: UInt8Array, size_px: int, how: str) -> UInt8Array:
    """An image of `size_px` squared from a larger one.

    Parameters
    ----------
    hr : ndarray, shape (size, size, 3), uint8
    size_px : int
    how : str
        `Manifest.reduction`: antialiased bicubic in one step or by 2 over and over (each step
        rounded to whole grey levels), or the pixel nearest to each centre.
    """
    if how == "nearest":
        index = ((np.arange(size_px) + 0.5) * hr.shape[0] / size_px + 1e-9).astype(np.int64)
        return np.ascontiguousarray(hr[index][:, index])
    if how == "bicubic-repeated":
        small = hr
        while small.shape[0] > size_px:
            small = reduce_image(small, size=(small.shape[1] // 2, small.shape[0] // 2))
        return small
    return reduce_image(hr, size=(size_px, size_px))


def plan_geometry(info: SlideInfo, manifest: Manifest, slide_id: str) -> PatchGeometry:
    """Layers of every patch of a slide.

    Parameters
    ----------
    info : SlideInfo
        The opened slide.
    manifest : Manifest
    slide_id : str
        Name for messages.

    Raises
    ------
    MppError
        If the slide states no usable resolution.
    MagnificationError
        If HR would have to be upsampled, a scale is not exact, or a native level is required
        and missing; the message says what the slide has and what to ask for.
    """
    declared = None if manifest.images is None else manifest.images.magnification
    if info.mpp is None and declared is None:
        raise MppError(
            info.mpp_problem
            or f"{slide_id}: the file states no resolution. Give it with --mpp-override CSV "
            "(columns slide,mpp)."
        )
    hr_power = parse_magnification(manifest.hr)
    nominal = _nominal(info, manifest, declared, slide_id)
    if manifest.mpp is not None and info.mpp is not None:
        hr_factor = manifest.mpp / info.mpp.value
        if hr_factor < 1.0 - UPSAMPLING_TOLERANCE:
            raise MagnificationError(
                f"{slide_id} has {info.mpp.value:.4g} um/px, coarser than the {manifest.mpp:g} "
                "um/px asked for, and HR is never upsampled; ask for "
                f"--mpp {info.mpp.value:.4g} or more."
            )
        hr_factor = 1.0 if abs(hr_factor - 1.0) <= UPSAMPLING_TOLERANCE else hr_factor
    else:
        hr_factor = float(downsample_factor(nominal or 0, hr_power, slide_id))
    hr = _layer(info, manifest, manifest.hr, hr_factor, manifest.size, None, slide_id)
    layers = [hr]
    for name in manifest.lr:
        scale = hr_power / parse_magnification(name)
        if manifest.mpp is None:
            downsample_factor(nominal or 0, parse_magnification(name), slide_id)
        layers.append(
            _layer(
                info, manifest, name, hr_factor * scale, round(manifest.size / scale), hr, slide_id
            )
        )
    return patch_geometry(tuple(layers), tuple(level.factor for level in info.levels))


def _nominal(
    info: SlideInfo, manifest: Manifest, declared: str | None, slide_id: str
) -> int | None:
    """What the slide's pixels are called: as the manifest declares its images, or by their size."""
    if declared is not None:
        return round(parse_magnification(declared))
    if manifest.mpp is not None or info.mpp is None:
        return None
    nominal = nominal_magnification(info.mpp.value)
    if nominal is None:
        raise MagnificationError(
            f"{slide_id} has {info.mpp.value:.4g} um/px, which is none of 80x, 40x, 20x, 10x "
            "and 5x (0.125 to 2 um/px, within 20 %); ask for a physical resolution with --mpp, "
            "or correct it with --mpp-override."
        )
    return nominal


def _layer(
    info: SlideInfo,
    manifest: Manifest,
    name: str,
    factor: float,
    size_px: int,
    hr: Layer | None,
    slide_id: str,
) -> Layer:
    """A stored level of just this factor if one may be used, else a reduction.

    HR may come from a stored level too (20x pairs of a 40x slide that stores 20x). A missing
    LR is made from the level that HR is read from: those pixels are read anyway, and another
    level between the two may be a recompression.
    """
    margin = manifest.margin_px if hr is None else 0
    usable = [level for level in info.levels if level.factor is not None and level.exact]
    stored = next((level for level in usable if level.factor == factor), None)
    if hr is not None and manifest.native == "never":
        stored = None
    if stored is not None:
        return Layer(
            name=name,
            factor=factor,
            size_px=size_px,
            level=stored.index,
            reduction=1.0,
            margin_px=margin,
        )
    if hr is not None and manifest.native == "require":
        stored_factors = ", ".join(
            f"1/{level.factor}" if level.exact else f"1/{level.factor} (not exactly readable)"
            for level in info.levels
            if level.factor is not None
        )
        raise MagnificationError(
            f"{slide_id} does not store {name} (1/{factor:g}; it stores {stored_factors}), and the "
            f"manifest {manifest.name!r} forbids made levels (native: require); allow them with a "
            "manifest that says native: prefer."
        )
    base = hr.level if hr is not None else 0
    base_factor = info.levels[base].factor or 1
    return Layer(
        name=name,
        factor=factor,
        size_px=size_px,
        level=base,
        reduction=factor / base_factor,
        margin_px=margin,
    )
