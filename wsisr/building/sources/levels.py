"""Pairs from the levels of one slide.

What is native is read, what is missing is made, and what would be inexact is refused. Usually a
missing level is reduced from the level's own pixels, those around the patch included
(`wsisr.slides.iter_patches`). Papers that start from patches cannot see around them, and some take
every n-th pixel or reduce by 2 over and over: there LR is made from the HR patch alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from wsisr.arrays import AnyArray, Int64Array, UInt8Array
from wsisr.building.layout import Layout, SlideTask, recognise
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import Reading
from wsisr.building.sources.geometry import plan_geometry
from wsisr.building.sources.places import survey_glass
from wsisr.building.sources.protocol import ReadPair, Survey, layer_spec, recorded_origins
from wsisr.errors import BuildError, MagnificationError, SlideError
from wsisr.geometry import Layer, PatchGeometry
from wsisr.registration import LevelTransform, calibrate_levels
from wsisr.registration.alignment import aligned, reference_layer
from wsisr.registration.patch import SearchRegion, register_patch
from wsisr.runners import own_threads
from wsisr.slides import (
    LevelEvidence,
    Slide,
    SlideInfo,
    describe_left_out,
    iter_patches,
    list_source,
    open_slide,
    reduce_image,
)
from wsisr.slides.extraction import iter_windows
from wsisr.slides.image import is_deep
from wsisr.slides.streams import LevelStreams, NotKept, Window, level_streams
from wsisr.slides.tiles import damaged_patches, tolerate
from wsisr.store import ArraySpec

STORED = "stored-level"
REDUCED = "reduced"
CACHE_MIB = 32
"""Of decoded tiles: a scan looks at one place after another, and extraction keeps its own."""


class Levels:
    """One slide; implements `Source`."""

    def __init__(
        self, task: SlideTask, manifest: Manifest, slide: Slide, notes: tuple[str, ...] = ()
    ) -> None:
        self.task, self.manifest = task, manifest
        self.slides: tuple[Slide, ...] = (slide,)
        self.notes = notes
        self._streams: LevelStreams | None = None

    @staticmethod
    def list(source: Path, manifest: Manifest) -> Layout:
        return list_slides(source)

    @staticmethod
    def join(tasks: Sequence[SlideTask], manifest: Manifest, source: Path) -> tuple[SlideTask, ...]:
        return tuple(tasks)

    @classmethod
    def open(cls, task: SlideTask, manifest: Manifest, backend: str | None = None) -> Self:
        path = task.source.path
        deep = manifest.white is not None and is_deep(path)
        slide = open_slide(
            path,
            backend=backend,
            mpp=task.mpp,
            icc=manifest.icc,
            cache_mib=CACHE_MIB,
            focal_plane=manifest.focal_plane,
            white=manifest.white if deep else None,
        )
        tolerate(slide)
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
        fit = partial(self._calibrated, geometry)
        return survey_glass(self.slides[0], self.task, self.manifest, root, fit)

    def _calibrated(
        self, geometry: PatchGeometry, evidence: Sequence[LevelEvidence]
    ) -> tuple[Reading, tuple[LevelTransform, ...]]:
        """Where the levels in use lie, and which of them are no LR after all.

        A stored LR whose texture lies nowhere to be found is made instead (pairs that are searched
        for one by one have certificates of their own), and with ``native: evidence`` also one that
        is worse than a reduction. Nothing is measured where no LR is stored in the file.
        """
        slide, manifest = self.slides[0], self.manifest
        worse = {item.level: item.verdict for item in evidence if item.warning}
        flags = _flags(geometry, worse)
        if manifest.native == "evidence":
            geometry = self._without(geometry, worse)
        if reference_layer(geometry) is None:
            return Reading(geometry=geometry, flags=flags), ()
        used = {layer.level for layer in geometry.layers if layer.level > 0}
        transforms = calibrate_levels(slide, manifest.seed % 2**32, only=used)
        if not manifest.registration.per_pair:
            lost = {t.level: _lost(t) for t in transforms if t.place_unknown}
            found = _flags(geometry, lost)
            if found and manifest.native == "require":
                name, why = next(iter(found.items()))
                raise MagnificationError(
                    f"{self.task.slide_id}: its stored {name} is not known to show the same place "
                    f"({why}), and the manifest {manifest.name!r} forbids made levels (native: "
                    "require)."
                )
            if found:
                barred = lost | (worse if manifest.native == "evidence" else {})
                geometry, flags = self._without(geometry, barred), flags | found
                used = {layer.level for layer in geometry.layers}
                transforms = tuple(t for t in transforms if t.level in used)
        if manifest.registration.method == "levels":
            base = slide.info.levels[0]
            geometry = aligned(geometry, transforms, base.width_px, base.height_px)
        return Reading(geometry=geometry, flags=flags), transforms

    def _without(self, geometry: PatchGeometry, barred: Mapping[int, str]) -> PatchGeometry:
        """The geometry with LR made where these levels would have given it."""
        if not _flags(geometry, barred):
            return geometry
        info = self.slides[0].info
        return plan_geometry(info, self.manifest, self.task.slide_id, barred=frozenset(barred))

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

    def keep_tiles(self, reading: Reading) -> LevelStreams:
        hr = reading.geometry.hr
        if self.manifest.registration.per_pair:
            raise NotKept("its pairs are registered one by one")
        if not hr.native:
            raise NotKept(f"its {hr.name} is resampled")
        self._streams = level_streams(self.slides[0], hr.level)
        return self._streams

    def read(self, reading: Reading, origins: Int64Array) -> Iterator[ReadPair]:
        registration = self.manifest.registration
        lr = reading.geometry.layers[-1].name
        damaged = damaged_patches(self.slides[0])
        for index, arrays, valid, window in self._patches(reading.geometry, origins):
            before, damaged = damaged, damaged_patches(self.slides[0])
            if not valid:
                yield ReadPair(index=index, drop="damaged" if damaged > before else "unscanned")
            elif registration.per_pair:
                region = self._region(reading.geometry, origins[index], arrays)
                found = register_patch(region, arrays[lr], registration.method)
                crop = region.cut(found.offset_x, found.offset_y, accepted=found.accepted)
                yield ReadPair(
                    index=index,
                    arrays={**arrays, reading.geometry.hr.name: crop},
                    certificate=found,
                )
            else:
                yield ReadPair(index=index, arrays=arrays, window=window)

    def read_recorded(
        self, reading: Reading, columns: Mapping[str, AnyArray], rows: Int64Array
    ) -> Iterator[ReadPair]:
        origins = recorded_origins(columns, rows)
        for index, arrays, valid, window in self._patches(reading.geometry, origins):
            row = int(rows[index])
            if valid and self.manifest.registration.per_pair:
                region = self._region(reading.geometry, origins[index], arrays)
                x, y = int(columns["offset_x"][row]), int(columns["offset_y"][row])
                crop = region.cut(x, y, accepted=bool(columns["verdict"][row] == 1))
                arrays = {**arrays, reading.geometry.hr.name: crop}
            if valid:
                yield ReadPair(index=row, arrays=arrays, window=window)

    def _region(
        self,
        geometry: PatchGeometry,
        origin: Int64Array,
        arrays: Mapping[str, UInt8Array],
    ) -> SearchRegion:
        place = (int(origin[0]), int(origin[1]))
        return SearchRegion(self.slides[0], geometry, place, arrays[geometry.hr.name])

    def _patches(
        self, geometry: PatchGeometry, origins: Int64Array
    ) -> Iterator[tuple[int, dict[str, UInt8Array], bool, Window | None]]:
        """Every layer of every place, read or made."""
        stored = geometry
        if self._from_patch:
            layers = tuple(la for n, la in enumerate(geometry.layers) if n == 0 or la.native)
            stored = replace(geometry, layers=layers)
        slide, threads = self.slides[0], own_threads()
        read: Iterator[tuple[int, dict[str, UInt8Array], bool, Window | None]]
        if self._streams is None:
            plain = iter_patches(slide, stored, origins, threads=threads)
            read = ((*found, None) for found in plain)
        else:
            read = iter_windows(slide, self._streams, stored, origins, threads=threads)
        for index, arrays, valid, window in read:
            if valid:
                arrays = arrays | {
                    layer.name: reduce_patch(
                        arrays[geometry.hr.name], layer.size_px, self.manifest.reduction
                    )
                    for layer in geometry.layers
                    if layer.name not in arrays
                }
            yield index, arrays, valid, window

    def attributes(self, reading: Reading, root: Path) -> dict[str, Any]:
        return {"lr_flags": reading.flags} if reading.flags else {}

    def close(self) -> None:
        for slide in self.slides:
            slide.close()


def _flags(geometry: PatchGeometry, reasons: Mapping[int, str]) -> dict[str, str]:
    """The reasons that concern a stored LR, by its name."""
    return {
        layer.name: reasons[layer.level]
        for layer in geometry.layers[1:]
        if layer.native and layer.level in reasons
    }


def _lost(transform: LevelTransform) -> str:
    return f"Level {transform.level}: place {transform.diagnosis}"


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
    layout = recognise(source, listing.slides)
    return replace(layout, left_out=(*listing.left_out, *layout.left_out))


def reduce_patch(hr: UInt8Array, size_px: int, how: str) -> UInt8Array:
    """An image of `size_px` squared from a larger one.

    Parameters
    ----------
    hr : ndarray, shape (size, size, 3), uint8
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
