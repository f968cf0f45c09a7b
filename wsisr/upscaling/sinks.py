"""Where finished blocks go: what is common to all outputs, and plain pictures."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsisr.arrays import UInt8Array, UInt16Array
from wsisr.files import disk_full_is_clear, remove_tree, sync_directory
from wsisr.geometry import Box
from wsisr.inference.blocks import Edges
from wsisr.locks import RecordLock, held
from wsisr.upscaling.codecs import Codec
from wsisr.upscaling.plain_images import (
    PICTURE_SUFFIXES,
    PictureTags,
    check_picture_size,
    save_picture,
)

TIFF_SUFFIXES = (".tif", ".tiff", ".btf")


def container_of(path: Path) -> str | None:
    """``"picture"``, ``"tiff"``, ``"ome-zarr"`` or ``"dicom"`` by an output's name, or None."""
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    if suffix in TIFF_SUFFIXES:
        return "tiff"
    if suffix == ".dcm":
        return "dicom"
    return "ome-zarr" if path.name.lower().endswith(".ome.zarr") else None


def partial_folder(path: Path) -> Path:
    """Where an unfinished output lies."""
    return path.with_name(path.name + ".partial")


def audit_folder(path: Path) -> Path:
    """Where the findings on an output go by default."""
    return path.with_name(path.name + ".audit")


def lock_file(path: Path) -> Path:
    """Lies beside an output while it is written."""
    return path.with_name(path.name + ".partial.lock")


def alone(path: Path) -> AbstractContextManager[RecordLock]:
    """Keeps other processes from writing an output."""
    return held(lock_file(path), path, "upscale")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written, besides the pixels.

    Attributes
    ----------
    description, software : str
        OME-XML, and the name of this program.
    codec : Codec
        How tiles are stored.
    frames : Codec or None
        How a DICOM folder's frames are made of them.
    identity : str
        Digest of all that the pixels depend on.
    summary : str
        What a network did, in a sentence.
    references : tuple of (str, str)
        SOP class and instance UIDs of an input that is DICOM.
    lossy_input : bool
        Whether the input had been compressed with loss, or may have been.
    """

    path: Path
    width_px: int
    height_px: int
    um_per_px: tuple[float, float] | None
    description: str
    software: str
    icc: bytes | None
    codec: Codec
    frames: Codec | None = None
    identity: str = ""
    summary: str = ""
    references: tuple[tuple[str, str], ...] = ()
    lossy_input: bool = True

    @property
    def grey(self) -> bool:
        """Whether one channel is written: the luma of what was rendered."""
        return self.codec.grey


Look = Callable[[Path], None]


class Sink(Protocol):
    """Takes blocks in order."""

    def finished(self) -> Iterator[dict[str, Any]]:
        """Records of the blocks that an earlier run finished, in order."""

    def put(self, block: Box, pixels: UInt8Array, record: dict[str, Any]) -> None:
        """Store the next block; what it hands on has been kept before."""

    def keep_edges(self, index: int, edges: Edges) -> None: ...

    def edge(self, index: int, side: str) -> UInt16Array:
        """What a block handed on: ``"right"`` or ``"below"``."""

    def drop_edge(self, index: int, side: str) -> None: ...

    def close(self, look: Look | None = None) -> str:
        """Complete the output under its own name; who looked at it, and at how much.

        `look` is called with the whole output before that has its name: what it writes is there
        when the output is.
        """

    def abandon(self) -> None:
        """Let go of it unfinished."""


class PictureSink:
    """A PNG, JPEG, BMP or WebP, held in memory until it is complete.

    Raises
    ------
    ConfigError
        If it would be larger than 178 Mpx, the most that `wsisr.slides` reads back.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        check_picture_size(output.path, output.width_px, output.height_px)
        self._pixels = np.empty((output.height_px, output.width_px, 3), np.uint8)
        self._edges: dict[tuple[int, str], UInt16Array] = {}
        with disk_full_is_clear(output.path), ExitStack() as stack:
            stack.enter_context(alone(output.path))
            self._held = stack.pop_all()

    def finished(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def put(self, block: Box, pixels: UInt8Array, record: dict[str, Any]) -> None:
        self._pixels[block.slices] = pixels

    def keep_edges(self, index: int, edges: Edges) -> None:
        self._edges[index, "right"], self._edges[index, "below"] = edges.right, edges.below

    def edge(self, index: int, side: str) -> UInt16Array:
        return self._edges[index, side]

    def drop_edge(self, index: int, side: str) -> None:
        self._edges.pop((index, side), None)

    def close(self, look: Look | None = None) -> str:
        output = self._output
        folder = partial_folder(output.path)
        staged = output.path
        if look is not None:
            folder.mkdir(exist_ok=True)
            staged = folder / output.path.name
        tags = PictureTags(
            um_per_px=output.um_per_px, icc=output.icc, description=output.description
        )
        quality = output.codec.quality
        save_picture(staged, self._pixels, quality=quality, tags=tags, grey=output.grey)
        if look is not None:
            look(staged)
            os.replace(staged, output.path)
            sync_directory(output.path.parent)
            remove_tree(folder)
        self._held.close()
        return "the picture by OpenCV"

    def abandon(self) -> None:
        """Nothing is kept."""
        self._held.close()
