"""Where finished blocks go: what is common to all outputs, and plain pictures."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wsisr.errors import ConfigError, SlideError
from wsisr.geometry import Box
from wsisr.store.files import disk_full_is_clear
from wsisr.upscaling.codecs import Codec, UInt8Array
from wsisr.upscaling.inference import Edges, UInt16Array
from wsisr.upscaling.memory import Batching

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
MAX_PICTURE_PX = 178_000_000


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written, besides the pixels.

    Attributes
    ----------
    path : Path
    width_px, height_px : int
    um_per_px : (float, float) or None
    description, software : str
        OME-XML, and the name of this program.
    icc : bytes or None
    codec : Codec
    """

    path: Path
    width_px: int
    height_px: int
    um_per_px: tuple[float, float] | None
    description: str
    software: str
    icc: bytes | None
    codec: Codec


class Sink(Protocol):
    """Takes blocks in order."""

    @property
    def batching(self) -> Batching:
        """The tiling: that of an earlier run which this one goes on with, else the one given."""
        ...

    def finished(self) -> Iterator[dict[str, Any]]:
        """Records of the blocks that an earlier run finished, in order."""
        ...

    def put(self, block: Box, pixels: UInt8Array, record: dict[str, Any]) -> None:
        """Store the next block; what it hands on has been kept before."""
        ...

    def keep_edges(self, index: int, edges: Edges) -> None: ...

    def edge(self, index: int, side: str) -> UInt16Array:
        """What a block handed on: ``"right"`` or ``"below"``."""
        ...

    def drop_edge(self, index: int, side: str) -> None: ...

    def close(self) -> None:
        """Complete the output under its own name."""
        ...

    def abandon(self) -> None:
        """Let go of it unfinished."""
        ...


class PictureSink:
    """A PNG, JPEG or BMP, held in memory until it is complete.

    Raises
    ------
    ConfigError
        If it would be larger than 178 Mpx, the most that `wsisr.slides` reads back.
    """

    def __init__(self, output: Output, batching: Batching) -> None:
        self._output = output
        self._batching = batching
        if output.width_px * output.height_px > MAX_PICTURE_PX:
            raise ConfigError(
                f"{output.path}: {output.width_px} x {output.height_px} px is too large for a "
                f"{output.path.suffix} file; name the output .ome.tiff."
            )
        self._pixels = np.empty((output.height_px, output.width_px, 3), np.uint8)
        self._edges: dict[tuple[int, str], UInt16Array] = {}

    @property
    def batching(self) -> Batching:
        return self._batching

    def finished(self) -> Iterator[dict[str, Any]]:
        return iter(())

    def put(self, block: Box, pixels: UInt8Array, record: dict[str, Any]) -> None:
        self._pixels[block.y : block.bottom, block.x : block.right] = pixels

    def keep_edges(self, index: int, edges: Edges) -> None:
        self._edges[index, "right"], self._edges[index, "below"] = edges.right, edges.below

    def edge(self, index: int, side: str) -> UInt16Array:
        return self._edges[index, side]

    def drop_edge(self, index: int, side: str) -> None:
        self._edges.pop((index, side), None)

    def close(self) -> None:
        from PIL import Image

        output = self._output
        staged = output.path.with_name(f".{output.path.stem}.partial{output.path.suffix}")
        options: dict[str, Any] = {}
        if output.path.suffix.lower() in (".jpg", ".jpeg"):
            options = {"quality": output.codec.quality}
            options["subsampling"] = 0 if output.codec.quality >= 90 else 2
        if output.icc is not None and output.path.suffix.lower() != ".bmp":
            options["icc_profile"] = output.icc
        if output.um_per_px is not None:
            options["dpi"] = (25_400 / output.um_per_px[0], 25_400 / output.um_per_px[1])
        if output.path.suffix.lower() == ".png":
            from PIL.PngImagePlugin import PngInfo

            text = PngInfo()
            text.add_itxt("Description", output.description)
            options["pnginfo"] = text
        with disk_full_is_clear(output.path):
            try:
                Image.fromarray(self._pixels).save(staged, **options)
                os.replace(staged, output.path)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise SlideError(f"{output.path}: cannot be written: {error}.") from error
            finally:
                staged.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Nothing is kept."""
