"""Slides with damaged bytes, and what two readers make of every tile of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import openslide
import tifffile
from slides_samples import box_level, write_aperio, write_pyramid

from wsisr.errors import SlideError
from wsisr.slides import open_slide

U8 = np.ndarray
KINDS = ("bit", "byte", "block", "zeros", "cut", "shift", "header")


@dataclass(kw_only=True)
class Findings:
    """Counts over many damaged slides; `pixels_of_refused_tiles` must stay empty."""

    slides: int = 0
    not_opened: int = 0
    tiles: int = 0
    refused: int = 0
    refused_by_openslide: int = 0
    pixels_of_refused_tiles: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"{self.slides} slides: {self.not_opened} not opened; of {self.tiles} tiles read by "
            f"both, OpenSlide refuses {self.refused_by_openslide}, wsisr {self.refused}, wsisr "
            f"shows {len(self.pixels_of_refused_tiles)} that OpenSlide refuses"
        )


def sources(folder: Path, tissue: U8) -> dict[str, Path]:
    """Small slides of the kinds that OpenSlide reads as well."""
    levels = [tissue, box_level(tissue, 4)]
    return {
        "aperio": write_aperio(folder / "aperio.svs", levels),
        "generic": write_pyramid(
            folder / "generic.tif", levels, tile=128, quality=85, photometric="ycbcr",
            subsampling=(2, 2),
        ),
        "full": write_pyramid(
            folder / "full.tif", levels, tile=128, quality=92, photometric="ycbcr"
        ),
        "lzw": write_pyramid(folder / "lzw.tif", levels, tile=128, compression="lzw"),
        "deflate": write_pyramid(folder / "deflate.tif", levels, tile=128, compression="deflate"),
        "jpeg2000": write_aperio(folder / "jpeg2000.svs", levels, compression="aperio_jp2000_rgb"),
    }  # fmt: skip


def tile_bytes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and byte counts of the stored tiles of level 0."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        return np.array(page.dataoffsets), np.array(page.databytecounts)


def flip_in_scan(path: Path, rng: np.random.Generator) -> tuple[bytes, int]:
    """The file with one bit of the entropy-coded data of one tile flipped, and that tile."""
    data = bytearray(path.read_bytes())
    offsets, counts = tile_bytes(path)
    tile = int(rng.integers(len(offsets)))
    start, size = int(offsets[tile]), int(counts[tile])
    scan = start + data[start : start + size].index(b"\xff\xda") + 14
    data[int(rng.integers(scan, start + size - 2))] ^= 1 << int(rng.integers(8))
    return bytes(data), tile


def mutated(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The file damaged in one of several ways, and which."""
    out = bytearray(data)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    at = int(rng.integers(len(out)))
    size = int(rng.integers(1, 200))
    if kind == "bit":
        out[at] ^= 1 << int(rng.integers(8))
    elif kind == "byte":
        for _ in range(int(rng.integers(1, 12))):
            out[int(rng.integers(len(out)))] = int(rng.integers(256))
    elif kind == "block":
        out[at : at + size] = rng.integers(0, 256, len(out[at : at + size]), np.uint8).tobytes()
    elif kind == "zeros":
        out[at : at + size] = bytes(len(out[at : at + size]))
    elif kind == "cut":
        del out[at:]
    elif kind == "shift":
        del out[at : at + size]
    else:  # where TIFF keeps its directories: the first bytes, and after the pixels
        spot = at % 600 if rng.integers(2) else len(out) - 1 - at % 4000
        out[max(0, spot)] = int(rng.integers(256))
    return bytes(out), kind


def look(path: Path, name: str, findings: Findings, side: int) -> None:
    """Read every tile of level 0 with both readers."""
    findings.slides += 1
    try:
        slide = open_slide(path, backend="direct")
    except SlideError:
        findings.not_opened += 1
        return
    with slide:
        level = slide.info.levels[0]
        theirs = _opens(path)
        for x, y in _corners(level.width_px, level.height_px, side):
            width, height = min(side, level.width_px - x), min(side, level.height_px - y)
            try:
                slide.read_level(0, x, y, width, height)
                ours_refuses = False
            except SlideError:
                ours_refuses = True
            if not theirs:
                continue
            findings.tiles += 1
            findings.refused += ours_refuses
            if _refuses(path, x, y, width, height):
                findings.refused_by_openslide += 1
                if not ours_refuses:
                    findings.pixels_of_refused_tiles.append(f"{name} at ({x}, {y})")


def _corners(width: int, height: int, side: int) -> Iterator[tuple[int, int]]:
    # A damaged directory can claim any size; a few dozen tiles tell enough.
    for y in range(0, min(height, 8 * side), side):
        for x in range(0, min(width, 8 * side), side):
            yield x, y


def _opens(path: Path) -> bool:
    try:
        openslide.OpenSlide(path).close()
        return True
    except openslide.OpenSlideError:
        return False


def _refuses(path: Path, x: int, y: int, width: int, height: int) -> bool:
    # After an error a handle refuses everything: each tile gets its own.
    with openslide.OpenSlide(path) as oracle:
        try:
            oracle.read_region((x, y), 0, (width, height))
            return False
        except openslide.OpenSlideError:
            return True
