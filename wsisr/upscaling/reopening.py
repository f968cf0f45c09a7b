"""A finished pyramid is opened again by the readers that people use, before it gets its name.

A few tiles of every level are remembered as they were given (the most textured of three parts of
the level); each reader must show them as their streams decode, in the right colours, at the right
place, under the right resolution. A reader that does not is an error, and no file.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import SlideError
from wsisr.files import replace_file
from wsisr.geometry import Box
from wsisr.upscaling.sinks import Output

PARTS = 3
"""Tiles remembered of a level."""
TOLERANCE = 1.0
"""Mean difference in grey levels: decoders round differently, colours do not."""
BLOCK_PX = 16
"""OpenSlide's levels lie up to a quarter pixel off, because its downsamples are ratios of truncated
sizes; means of blocks hardly move by that."""
OPENSLIDE_KNOWS = ("jpeg", "deflate", "zstd")

_Seen = tuple[list[tuple[int, int]], float, list[UInt8Array]]
"""Width and height of each level, um/px, and the pixels of the tiles that were asked for."""


class Witnesses:
    """Tiles as they were given, for each level the most textured of each part.

    They lie in the folder of the unfinished output, so that a run that goes on has them all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._texture: dict[tuple[int, int], float] = {}
        for level, part, path in self._stored():
            with np.load(path, allow_pickle=False) as found:
                self._texture[level, part] = float(found["texture"])

    def _stored(self) -> Iterator[tuple[int, int, Path]]:
        for path in sorted(self._folder.glob("witness-*.npz")):
            _, level, part = path.stem.split("-")
            yield int(level), int(part), path

    def see(self, level: int, box: Box, at: int, tile: UInt8Array) -> None:
        """Remember a tile if it has more texture than what its part of the level has so far.

        Parameters
        ----------
        box : Box
            What of the level it covers, level px.
        at : int
            Its number in the level.
        tile : (h, w, 3) uint8
            Whole, padded at the level's edge.
        """
        texture = float(tile[::8, ::8].std())
        key = (level, at % PARTS)
        if texture > self._texture.get(key, -1.0):
            self._texture[key] = texture
            data = io.BytesIO()
            place = np.array([box.x, box.y, box.width, box.height])
            np.savez(data, tile=tile, box=place, texture=texture)
            replace_file(self._folder / f"witness-{level}-{key[1]}.npz", data.getvalue())

    def given(self) -> Iterator[tuple[int, Box, UInt8Array]]:
        """Level, place and pixels of each."""
        for level, _, path in self._stored():
            with np.load(path, allow_pickle=False) as found:
                x, y, width, height = (int(v) for v in found["box"])
                box = Box(x=x, y=y, width=width, height=height)
                yield level, box, np.asarray(found["tile"], np.uint8)


def check_pyramid(
    path: Path, output: Output, sizes: list[tuple[int, int]], witnesses: Witnesses
) -> str:
    """Open what is finished with tifffile, and with OpenSlide where that knows the codec.

    An OME-Zarr is opened with zarr-python, a DICOM folder with wsidicom and OpenSlide.

    Parameters
    ----------
    path : Path
        Under its working name.
    output : Output
        What it is to be.
    sizes : list of (int, int)
        Width and height of each level.

    Returns
    -------
    str
        Who looked at how much: ``"3 tiles of 2 levels by tifffile and OpenSlide"``.

    Raises
    ------
    SlideError
        If a reader shows something else than was given, or there was nothing to compare.
    """

    def wrong(what: str) -> SlideError:
        return SlideError(f"{output.path}: {what}; {_REMEDY}")

    given = list(witnesses.given())
    if {level for level, _, _ in given} != set(range(len(sizes))):
        raise wrong("a level has no tile to compare")
    readers = {"tifffile": _by_tifffile}
    if output.frames is not None:
        readers = {"wsidicom": _by_wsidicom}
        if not output.codec.grey:  # OpenSlide reads no monochrome DICOM
            readers["OpenSlide"] = _by_openslide
    elif path.is_dir():
        readers = {"zarr-python": _by_zarr}
    elif output.codec.name in OPENSLIDE_KNOWS:
        readers["OpenSlide"] = _by_openslide
    expected = [output.codec.round_trip(tile)[: box.height, : box.width] for _, box, tile in given]
    for name, read in readers.items():
        try:
            found_sizes, um, shown = read(path, [(level, box) for level, box, _ in given])
        except Exception as error:  # whatever a reader of others raises is the finding
            raise wrong(f"{name} cannot read it: {error}") from error
        if found_sizes != sizes:
            raise wrong(f"{name} sees levels of {found_sizes}, written were {sizes}")
        if output.um_per_px is not None and not abs(um / output.um_per_px[0] - 1) <= 1e-3:
            raise wrong(f"{name} sees {um:g} um/px, written were {output.um_per_px[0]:g}")
        for (level, box, _), pixels, right in zip(given, shown, expected, strict=True):
            apart = np.abs(_means(pixels) - _means(right)).mean()
            if not apart <= TOLERANCE:
                raise wrong(
                    f"{name} shows the tile at {box.x},{box.y} of level {level} {apart:.1f} grey "
                    "levels off"
                )
    return f"{len(given)} tiles of {len(sizes)} level(s) by {' and '.join(readers)}"


_REMEDY = (
    "it is left unfinished in its .partial folder. Remove that folder, use --compression deflate "
    "or another kind of output, and please report this."
)


def _by_tifffile(path: Path, places: list[tuple[int, Box]]) -> _Seen:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        levels = tiff.series[0].levels
        sizes = [(int(level.shape[1]), int(level.shape[0])) for level in levels]
        tag = levels[0].keyframe.tags.get("XResolution")
        um = float("nan") if tag is None else 10_000.0 * tag.value[1] / tag.value[0]
        shown = []
        for level, box in places:
            page = levels[level].keyframe
            across = -(-page.imagewidth // page.tilewidth)
            index = box.y // page.tilelength * across + box.x // page.tilewidth
            tiff.filehandle.seek(page.dataoffsets[index])
            data = tiff.filehandle.read(page.databytecounts[index])
            tile = np.asarray(page.decode(data, index)[0], np.uint8)
            shown.append(tile[0, : box.height, : box.width])
    return sizes, um, shown


def _by_zarr(path: Path, places: list[tuple[int, Box]]) -> _Seen:
    import zarr

    group = zarr.open_group(path, mode="r")
    ome: Any = group.attrs["ome"]
    (image,) = ome["multiscales"]
    arrays: list[Any] = [group[dataset["path"]] for dataset in image["datasets"]]
    sizes = [(int(array.shape[2]), int(array.shape[1])) for array in arrays]
    um = float(image["datasets"][0]["coordinateTransformations"][0]["scale"][2])
    shown = [
        np.moveaxis(np.asarray(arrays[level][:, b.y : b.bottom, b.x : b.right]), 0, 2)
        for level, b in places
    ]
    return sizes, um, shown


def _by_wsidicom(path: Path, places: list[tuple[int, Box]]) -> _Seen:
    from wsidicom import WsiDicom

    with WsiDicom.open(path) as slide:
        levels = list(slide.pyramids[0])
        sizes = [(int(v.size.width), int(v.size.height)) for v in levels]
        um = 1000.0 * float(levels[0].pixel_spacing.width)
        shown = []
        for level, box in places:
            region = slide.read_region((box.x, box.y), levels[level].level, (box.width, box.height))
            pixels = np.asarray(region, np.uint8)
            shown.append(pixels.reshape(*pixels.shape[:2], -1)[..., :3])
    return sizes, um, shown


def _by_openslide(path: Path, places: list[tuple[int, Box]]) -> _Seen:
    import openslide

    file = next(iter(sorted(path.iterdir()))) if path.is_dir() else path
    with openslide.OpenSlide(str(file)) as slide:
        sizes = [(int(w), int(h)) for w, h in slide.level_dimensions]
        um = float(slide.properties.get("openslide.mpp-x", "nan"))
        shown = []
        for level, box in places:
            factor = slide.level_downsamples[level]
            corner = round(box.x * factor), round(box.y * factor)
            region = slide.read_region(corner, level, (box.width, box.height))
            shown.append(np.asarray(region, np.uint8)[..., :3])
    return sizes, um, shown


def _means(pixels: UInt8Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Means of whole blocks; of everything where there is none."""
    rows, columns = pixels.shape[0] // BLOCK_PX, pixels.shape[1] // BLOCK_PX
    if not rows or not columns:
        return pixels.mean(axis=(0, 1), keepdims=True)
    whole = pixels[: rows * BLOCK_PX, : columns * BLOCK_PX].astype(np.float64)
    return whole.reshape(rows, BLOCK_PX, columns, BLOCK_PX, -1).mean(axis=(1, 3))
