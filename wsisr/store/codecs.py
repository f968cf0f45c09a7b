"""Codecs for zarr-python, registered through entry points: HTJ2K, and a slide's own tiles.

Having wsisr installed is enough for zarr-python to read stores written with ``--codec small`` and
the tiles of ``--codec slide``; nothing needs to be imported. The latter have the names of
imagecodecs' own Zarr codecs, which exist only for Python 3.12 and newer and give the same pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from wsisr.slides.decode import StreamKind, decode_stream
from wsisr.store.presets import HTJ2K_NAME, decode_htj2k, encode_htj2k

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer
    from zarr.core.common import JSON


@dataclass(frozen=True)
class Htj2kCodec(ArrayBytesCodec):
    """Reversible HTJ2K of chunks of shape (1, h, w, 3), uint8."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: "dict[str, JSON]") -> Self:
        configuration = data.get("configuration", {})
        if data.get("name") != HTJ2K_NAME or configuration:
            raise ValueError(f"{HTJ2K_NAME} takes no configuration, but got {configuration!r}")
        return cls()

    def to_dict(self) -> "dict[str, JSON]":
        return {"name": HTJ2K_NAME, "configuration": {}}

    def evolve_from_array_spec(self, array_spec: "ArraySpec") -> Self:
        shape = array_spec.shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise ValueError(f"{HTJ2K_NAME} needs chunks of shape (1, h, w, 3), not {shape}")
        return self

    def _encode_sync(self, chunk_array: "NDBuffer", chunk_spec: "ArraySpec") -> "Buffer | None":
        tile = np.ascontiguousarray(chunk_array.as_numpy_array()[0])
        return chunk_spec.prototype.buffer.from_bytes(encode_htj2k(tile))

    def _decode_sync(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "NDBuffer":
        shape = (chunk_spec.shape[1], chunk_spec.shape[2], 3)
        tile = decode_htj2k(chunk_bytes.to_bytes(), shape)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(tile[np.newaxis])

    async def _encode_single(
        self, chunk_array: "NDBuffer", chunk_spec: "ArraySpec"
    ) -> "Buffer | None":
        return self._encode_sync(chunk_array, chunk_spec)

    async def _decode_single(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "NDBuffer":
        return self._decode_sync(chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: "ArraySpec") -> int:
        raise NotImplementedError("HTJ2K streams have no fixed size")


@dataclass(frozen=True)
class JpegTileCodec(ArrayBytesCodec):
    """Reads the JPEG streams of a slide's own tiles, strictly, in chunks of shape (1, t, t, 3)."""

    is_fixed_size = False
    kind: ClassVar[StreamKind] = "jpeg"

    @classmethod
    def from_dict(cls, data: "dict[str, JSON]") -> Self:
        if configuration := data.get("configuration"):
            raise ValueError(f"{cls.kind} tiles have no settings, but got {configuration!r}")
        return cls()

    def to_dict(self) -> "dict[str, JSON]":
        return {"name": f"imagecodecs_{self.kind}", "configuration": {}}

    def _decode_sync(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "NDBuffer":
        tile = decode_stream(chunk_bytes.to_bytes(), self.kind, chunk_spec.shape[1])
        return chunk_spec.prototype.nd_buffer.from_numpy_array(tile.reshape(chunk_spec.shape))

    async def _decode_single(self, chunk_bytes: "Buffer", chunk_spec: "ArraySpec") -> "NDBuffer":
        return self._decode_sync(chunk_bytes, chunk_spec)

    async def _encode_single(
        self, chunk_array: "NDBuffer", chunk_spec: "ArraySpec"
    ) -> "Buffer | None":
        raise NotImplementedError("a slide's own tiles are never encoded again")

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: "ArraySpec") -> int:
        raise NotImplementedError("a slide's own tiles have no fixed size")


@dataclass(frozen=True)
class Jpeg2kTileCodec(JpegTileCodec):
    """The same of JPEG 2000."""

    kind: ClassVar[StreamKind] = "jpeg2k"


def register() -> None:
    """Tell zarr-python of the codecs where entry points are not installed (source checkouts)."""
    register_codec(HTJ2K_NAME, Htj2kCodec)
    for codec in (JpegTileCodec, Jpeg2kTileCodec):
        register_codec(f"imagecodecs_{codec.kind}", codec)
