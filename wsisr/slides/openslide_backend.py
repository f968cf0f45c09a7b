"""Slides that only OpenSlide reads (MRXS, BIF, SCN, VMS), and the oracle for the others.

OpenSlide takes level-0 coordinates and divides them by a downsample that is a ratio of truncated
sizes; off the exact grid it interpolates, which blurs the level. So a level above 0 counts as
exact only where the reported downsample *is* the whole factor; otherwise it is not used for
pairs, and what is missing is made from level 0.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.errors import SlideError
from wsisr.magnification import MppQuality, MppSource
from wsisr.slides.decode import composite_on_white
from wsisr.slides.dicom_files import series_of
from wsisr.slides.faults import DamagedTileError
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.handles import PerProcess
from wsisr.slides.protocol import SlideInfo
from wsisr.slides.tiff_metadata import choose_resolution
from wsisr.slides.tiff_tags import number
from wsisr.slides.tiles import Tile, TileGrid

BLOCK_PX = 512
"""Side of the blocks that stand in for tiles, level pixels."""
MIRAX_SUFFIXES = (".mrxs",)


class OpenSlideStore:
    """Blocks read through OpenSlide; implements `TileStore`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: PerProcess[Any] = PerProcess(self._open, lambda slide: slide.close())
        slide = self._handle.get()
        self.properties: dict[str, str] = dict(slide.properties)
        self._downsamples = tuple(float(value) for value in slide.level_downsamples)
        self.grids = tuple(TileGrid.square(w, h, BLOCK_PX) for w, h in slide.level_dimensions)
        self._icc = _profile(slide)
        levels = [grid.level(index, self.grids[0]) for index, grid in enumerate(self.grids)]
        self.levels = tuple(
            replace(level, exact=level.factor is not None and downsample == float(level.factor))
            for level, downsample in zip(levels, self._downsamples, strict=True)
        )

    def fetch(self, level: int, row: int, column: int) -> Tile:
        return self.read(level, *self.grids[level].box(row, column))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Tile:
        """Any region inside a level; OpenSlide paints every pixel that it is asked for, which takes
        longer than decoding."""
        # Of an exact level it is the whole factor.
        scale = self._downsamples[level]
        origin = (round(x * scale), round(y * scale))
        handle = self._handle.get()
        try:
            region = handle.read_region(origin, level, (width, height))
        except Exception:
            # A handle that met a fault refuses everything from then on, so the fault may be another
            # block's: this one is asked of a new handle, that nobody else uses.
            self._handle.drop(handle)
            try:
                region = self._open().read_region(origin, level, (width, height))
            except Exception as error:
                raise DamagedTileError(
                    f"{self._path}: OpenSlide cannot read level {level} at {origin} "
                    f"({str(error)[:160]}); the file is damaged, copy it again."
                ) from error
        return composite_on_white(np.asarray(region))

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return None

    def icc_profile(self) -> bytes | None:
        return self._icc

    def close(self) -> None:
        self._handle.close()

    def _open(self) -> Any:
        import openslide

        try:
            return openslide.OpenSlide(self._path)
        except Exception as error:
            detail = str(error)[:160] or type(error).__name__
            raise SlideError(f"{self._path}: OpenSlide cannot open it ({detail}).") from error


def _profile(slide: Any) -> bytes | None:
    try:
        profile = slide.color_profile
        return bytes(profile.tobytes()) if profile is not None else None
    except Exception:  # a profile that no library can parse is as good as none here
        return None


def companion_files(path: Path) -> tuple[Path, ...]:
    """The file, and what lies in the folder that MIRAX keeps beside it."""
    folder = path.with_suffix("")
    if path.suffix.lower() in MIRAX_SUFFIXES and folder.is_dir():
        return (path, *sorted(file for file in folder.iterdir() if file.is_file()))
    return (path,)


def open_openslide(path: Path) -> tuple[SlideInfo, OpenSlideStore]:
    """Open a slide with OpenSlide.

    Raises
    ------
    SlideError
        If OpenSlide does not know the format or the file is damaged.
    """
    first = series_of(path)[0] if path.is_dir() else path
    store = OpenSlideStore(first)
    properties = store.properties
    vendor = properties.get("openslide.vendor", "unknown")
    x, y = (number(properties.get(f"openslide.mpp-{axis}", "")) for axis in "xy")
    source = {
        "dicom": MppSource.DICOM,
        "generic-tiff": MppSource.TIFF,
        "trestle": MppSource.TIFF,
    }.get(vendor, MppSource.VENDOR)
    quality = MppQuality.DERIVED if source is MppSource.TIFF else MppQuality.STATED
    stated = [((x, y), source, quality)] if x is not None and y is not None else []
    resolution = choose_resolution(path.name, stated)
    quirks = []
    if inexact := [str(level.index) for level in store.levels if not level.exact]:
        quirks.append(
            f"OpenSlide interpolates level(s) {', '.join(inexact)} of this file (its downsamples "
            "are no whole numbers); they are not used for pairs."
        )
    if "openslide.bounds-width" in properties:
        quirks.append("Only a part of the plane was scanned; the rest is invalid.")
    files = series_of(path) if vendor == "dicom" else companion_files(path)
    icc = store.icc_profile()
    info = SlideInfo(
        path=path,
        vendor=vendor,
        backend="openslide",
        mpp=resolution.mpp,
        mpp_problem=resolution.problem,
        objective_power=number(properties.get("openslide.objective-power", "")),
        levels=store.levels,
        icc_sha256=hashlib.sha256(icc).hexdigest() if icc else None,
        bytes=total_bytes(files),
        fingerprint=fingerprint(files),
        quirks=tuple(quirks),
        origin_px=_bounds_origin(properties),
        # Pillow knows nothing of overlaps, regions and mosaics.
        blind_readers=() if vendor == "generic-tiff" else ("image",),
    )
    return info, store


def _bounds_origin(properties: Mapping[str, str]) -> tuple[int, int]:
    """Where the scanned part of the plane begins, level-0 px."""
    try:
        return int(properties["openslide.bounds-x"]), int(properties["openslide.bounds-y"])
    except (KeyError, ValueError):
        return 0, 0
