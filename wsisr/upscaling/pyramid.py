"""The pyramidal TIFF while it grows, block by block, and what survives a crash.

The TIFF grows in a sibling folder ``OUT.partial``: tiles are appended as blocks finish, and a
journal line is written after each block. After a kill the file is cut back to the last line
and the run goes on, so that the bytes are those of an uninterrupted run. Of levels coarser than a
block, a spool keeps each block's share (1/256 of the output's pixels); they are written at the
end from there, by the same steps. So memory holds one block, however large the slide is.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from wsisr.arrays import UInt8Array, UInt16Array
from wsisr.errors import ConfigError
from wsisr.files import disk_full_is_clear, remove_tree, replace_file, swap_in, sync_directory
from wsisr.geometry import Box
from wsisr.host import BINARY, read_at, sync_data, write_at
from wsisr.inference.bicubic import one_colour
from wsisr.inference.blocks import Edges
from wsisr.inference.tiles import BLOCK_PX, BLOCK_TILES, TILE_PX
from wsisr.upscaling.dicom_folder import write_dicom_folder
from wsisr.upscaling.ome_zarr import write_ome_zarr
from wsisr.upscaling.reopening import Witnesses, check_pyramid
from wsisr.upscaling.sinks import Look, Output, alone, container_of, lock_file, partial_folder
from wsisr.upscaling.tiff_file import HEADER, LevelImage, write_directories

BLOCK_LEVELS = BLOCK_TILES.bit_length()
"""Levels whose tiles a block holds whole: 8 tiles, 4, 2, 1."""
STATE_NAME, JOURNAL_NAME, TILES_NAME = "state.json", "journal.jsonl", "tiles.tif"
STAGED_NAME = {"tiff": TILES_NAME, "ome-zarr": "zarr", "dicom": "dicom"}
"""What of the folder gets the output's name."""
LOOKED_AT_NAME = "looked-at"
"""Empty; there once the output was opened again and only its name was missing."""
_Colour = tuple[int, int, int]


def level_sizes(width_px: int, height_px: int, tile_px: int = TILE_PX) -> list[tuple[int, int]]:
    """Sizes of the pyramid: halves, rounded down, until one tile holds a level.

    >>> level_sizes(3000, 1000)
    [(3000, 1000), (1500, 500), (750, 250), (375, 125)]
    """
    sizes = [(width_px, height_px)]
    while max(sizes[-1]) > tile_px and min(sizes[-1]) >= 2:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def halve(rgb: UInt8Array) -> UInt8Array:
    """Mean of every 2 x 2 px; an odd last row or column is left out."""
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    if not height or not width:
        return np.empty((height, width, 3), np.uint8)
    even = rgb[: 2 * height, : 2 * width]
    result: UInt8Array = np.asarray(
        cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8
    )
    return result


class PyramidSink:
    """Writes the TIFF.

    Parameters
    ----------
    identity : mapping
        Everything that the pixels depend on; an unfinished output of another identity is refused.
    threads : int
        Tiles compressed at the same time.

    Raises
    ------
    ConfigError
        If there is an unfinished output of another run.
    """

    def __init__(self, output: Output, identity: Mapping[str, Any], threads: int = 2) -> None:
        self._output = output
        self._folder = partial_folder(output.path)
        self._sizes = level_sizes(output.width_px, output.height_px)
        self._grids = [(-(-w // TILE_PX), -(-h // TILE_PX)) for w, h in self._sizes]
        self._offsets = [np.zeros(c * r, np.uint64) for c, r in self._grids]
        self._counts = [np.zeros(c * r, np.uint64) for c, r in self._grids]
        self._plain: dict[_Colour, tuple[int, int]] = {}
        self._records: list[dict[str, Any]] = []
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="tile")
        with disk_full_is_clear(output.path), ExitStack() as stack:
            stack.enter_context(alone(output.path))
            self._open(identity)
            self._held = stack.pop_all()

    def _open(self, identity: Mapping[str, Any]) -> None:
        folder = self._folder
        found = _read_state(folder)
        if found is not None:
            if found["identity"] != dict(identity):
                raise ConfigError(
                    f"{folder} holds an unfinished output of another run "
                    f"({_difference(found['identity'], dict(identity))}); give the same options to "
                    "go on with it, --overwrite to start anew, or remove that folder."
                )
        else:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            (folder / TILES_NAME).write_bytes(HEADER)
            (folder / JOURNAL_NAME).touch()
            state = {"identity": dict(identity)}
            replace_file(folder / STATE_NAME, json.dumps(state, indent=1).encode())
        self._witnesses = Witnesses(folder)
        self._file: BinaryIO = open(folder / TILES_NAME, "r+b")  # noqa: SIM115 - closed in `abandon`
        self._end = len(HEADER)
        self._read_journal()
        self._blocks = len(self._records)
        self._file.truncate(self._end)
        self._file.seek(0)
        self._file.write(HEADER)
        self._file.seek(self._end)
        self._journal = open(folder / JOURNAL_NAME, "ab")  # noqa: SIM115 - closed in `abandon`

    def _read_journal(self) -> None:
        path = self._folder / JOURNAL_NAME
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or entry["end"] > os.path.getsize(
                self._folder / TILES_NAME
            ):
                break
            for level, at, offset, size in entry["tiles"]:
                self._offsets[level][at], self._counts[level][at] = offset, size
            for *colour, offset, size in entry["plain"]:
                self._plain[tuple(colour)] = (offset, size)
            self._end = entry["end"]
            self._records.append(entry["record"])
            whole += len(line)
        with open(path, "r+b") as file:
            file.truncate(whole)

    def finished(self) -> Iterator[dict[str, Any]]:
        yield from self._records

    def put(self, block: Box, pixels: UInt8Array, record: dict[str, Any]) -> None:
        """Store a block's tiles and its share of the coarse levels, then its journal line."""
        if self._output.grey:  # a network may have coloured what went in as grey
            luma = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
            pixels = np.repeat(luma[:, :, None], 3, axis=2)
        with disk_full_is_clear(self._output.path):
            tiles, plain = self._write_levels(0, block, pixels)
            self._file.flush()
            sync_data(self._file.fileno())
            entry = {"tiles": tiles, "plain": plain, "end": self._end, "record": record}
            self._journal.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
            self._journal.flush()
            self._blocks += 1

    def _write_levels(
        self, first: int, block: Box, pixels: UInt8Array
    ) -> tuple[list[tuple[int, int, int, int]], list[tuple[int, ...]]]:
        """Tiles of all levels that a block of level `first` holds; the rest goes to a spool."""
        written: list[tuple[int, int, int, int]] = []
        fresh: list[tuple[int, ...]] = []
        x, y = block.x, block.y
        for level in range(first, min(first + BLOCK_LEVELS, len(self._sizes))):
            jobs = list(self._cut(level, x, y, pixels))
            encoded = self._pool.map(lambda job: self._encode(job[1]), jobs)
            for (at, tile), (colour, data) in zip(jobs, encoded, strict=True):
                self._witnesses.see(level, self._box(level, at), at, tile)
                place = self._place(colour, data, fresh)
                self._offsets[level][at], self._counts[level][at] = place
                written.append((level, at, *place))
            if level + 1 == len(self._sizes):
                return written, fresh
            pixels, x, y = halve(pixels), x // 2, y // 2
        self._spool(first + BLOCK_LEVELS, x, y, pixels)
        return written, fresh

    def _cut(
        self, level: int, x: int, y: int, pixels: UInt8Array
    ) -> Iterator[tuple[int, UInt8Array]]:
        columns = self._grids[level][0]
        for top in range(0, pixels.shape[0], TILE_PX):
            for left in range(0, pixels.shape[1], TILE_PX):
                tile = pixels[top : top + TILE_PX, left : left + TILE_PX]
                missing = TILE_PX - tile.shape[0], TILE_PX - tile.shape[1]
                if any(missing):
                    # Edge values rather than white: no ringing at the slide's edge.
                    tile = np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
                yield (y + top) // TILE_PX * columns + (x + left) // TILE_PX, tile

    def _box(self, level: int, at: int) -> Box:
        """What of the level a tile covers."""
        (width, height), columns = self._sizes[level], self._grids[level][0]
        x, y = at % columns * TILE_PX, at // columns * TILE_PX
        return Box(x=x, y=y, width=min(TILE_PX, width - x), height=min(TILE_PX, height - y))

    def _encode(self, tile: UInt8Array) -> tuple[_Colour | None, bytes]:
        """The colour of a tile that has but one, and compressed bytes unless that is stored."""
        colour = _colour(tile)
        return colour, b"" if colour in self._plain else self._output.codec.encode(tile)

    def _place(
        self, colour: _Colour | None, data: bytes, fresh: list[tuple[int, ...]]
    ) -> tuple[int, int]:
        if colour is not None and colour in self._plain:
            return self._plain[colour]
        if self._end % 2:
            self._file.write(b"\0")
            self._end += 1
        place = (self._end, len(data))
        self._file.write(data)
        self._end += len(data)
        if colour is not None:
            self._plain[colour] = place
            fresh.append((*colour, *place))
        return place

    def _spool_path(self, level: int) -> Path:
        return self._folder / f"level-{level}.rgb"

    def _spool(self, level: int, x: int, y: int, pixels: UInt8Array) -> None:
        width, height = self._sizes[level]
        part = np.ascontiguousarray(pixels[: height - y, : width - x])
        if not part.size:
            return
        fd = os.open(self._spool_path(level), os.O_WRONLY | os.O_CREAT | BINARY, 0o666)
        try:
            for row in range(part.shape[0]):
                write_at(fd, part[row].tobytes(), ((y + row) * width + x) * 3)
        finally:
            os.close(fd)

    def _unspool(self, level: int, box: Box) -> UInt8Array:
        width = self._sizes[level][0]
        out = np.empty((box.height, box.width, 3), np.uint8)
        fd = os.open(self._spool_path(level), os.O_RDONLY | BINARY)
        try:
            for row in range(box.height):
                at = ((box.y + row) * width + box.x) * 3
                out[row] = np.frombuffer(read_at(fd, box.width * 3, at), np.uint8).reshape(-1, 3)
        finally:
            os.close(fd)
        return out

    def keep_edges(self, index: int, edges: Edges) -> None:
        """Keep what a block hands on, before its journal line can be written."""
        with disk_full_is_clear(self._output.path):
            np.save(self._edge_path(index, "right"), edges.right)
            np.save(self._edge_path(index, "below"), edges.below)

    def _edge_path(self, index: int, side: str) -> Path:
        return self._folder / f"edge-{index}-{side}.npy"

    def edge(self, index: int, side: str) -> UInt16Array:
        loaded: UInt16Array = np.load(self._edge_path(index, side), allow_pickle=False)
        return loaded

    def drop_edge(self, index: int, side: str) -> None:
        self._edge_path(index, side).unlink(missing_ok=True)

    def close(self, look: Look | None = None) -> str:
        """Write the coarse levels and the directories, look at all, then give the file its name."""
        output = self._output
        with disk_full_is_clear(output.path):
            level = BLOCK_LEVELS
            while level < len(self._sizes):
                width, height = self._sizes[level]
                for box in Box(x=0, y=0, width=width, height=height).blocks(BLOCK_PX):
                    self._write_levels(level, box, self._unspool(level, box))
                level += BLOCK_LEVELS
            levels = [
                LevelImage(
                    width_px=width,
                    height_px=height,
                    tile_px=TILE_PX,
                    offsets=self._offsets[i],
                    byte_counts=self._counts[i],
                    um_per_px=_at_level(output, width, height),
                )
                for i, (width, height) in enumerate(self._sizes)
            ]
            staged = self._folder / STAGED_NAME[container_of(output.path) or "tiff"]
            self._complete(levels, staged)
            looked = check_pyramid(staged, output, self._sizes, self._witnesses)
            if look is not None:
                look(staged)
            self._let_go()
            (self._folder / LOOKED_AT_NAME).touch()
            if staged.is_dir():
                swap_in(staged, output.path, self._folder / "replaced")
            else:
                os.replace(staged, output.path)
                sync_directory(output.path.parent)
            (self._folder / STATE_NAME).unlink()  # without it, nobody goes on with the rest
            shutil.rmtree(self._folder)
            self._held.close()
        return looked

    def _complete(self, levels: list[LevelImage], staged: Path) -> None:
        """Make of the tiles what the output's name asks for."""
        output = self._output
        if container_of(output.path) == "ome-zarr":
            remove_tree(staged)
            self._file.flush()
            write_ome_zarr(staged, self._file, levels, output)
            return
        write_directories(
            self._file,
            levels,
            output.codec,
            description=output.description,
            software=output.software,
            icc=output.icc,
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        if output.frames is not None:
            remove_tree(staged)
            write_dicom_folder(staged, self._folder / TILES_NAME, output)

    def abandon(self) -> None:
        """Let go of the files; finished blocks stay for the next run, an empty start does not."""
        self._let_go()
        if not self._blocks:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._held.close()

    def _let_go(self) -> None:
        self._pool.shutdown(wait=True)
        self._file.close()
        self._journal.close()


def _colour(tile: UInt8Array) -> _Colour | None:
    if not one_colour(tile):
        return None
    red, green, blue = tile[0, 0].tolist()
    return red, green, blue


def _at_level(output: Output, width: int, height: int) -> tuple[float, float] | None:
    if output.um_per_px is None:
        return None
    return (
        output.um_per_px[0] * output.width_px / width,
        output.um_per_px[1] * output.height_px / height,
    )


def _read_state(folder: Path) -> dict[str, Any] | None:
    """State of an unfinished output; None where there is none, or none that can be gone on with."""
    try:
        found = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "identity" in found else None


def tidy(path: Path) -> None:
    """Remove what a kill left beside an output after this had got its name."""
    folder = partial_folder(path)
    if path.exists() and (folder.exists() or lock_file(path).exists()):
        with alone(path):
            staged = folder / STAGED_NAME[container_of(path) or "tiff"]
            named = (folder / LOOKED_AT_NAME).exists() and not staged.exists()
            if named or _read_state(folder) is None:
                remove_tree(folder)


def discard_other_run(path: Path, identity: Mapping[str, Any]) -> None:
    """Remove an unfinished output unless it belongs to the same run."""
    folder = partial_folder(path)
    if folder.exists():
        with alone(path):
            found = _read_state(folder)
            if found is None or found["identity"] != dict(identity):
                remove_tree(folder)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    keys = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    return ", ".join(f"{k}: {old.get(k)} there, {new.get(k)} now" for k in keys[:3])
