"""The HTJ2K codec for zarr-python, registered through the entry point ``wsisr.htj2k``.

Having wsisr installed is enough for zarr-python to read stores written with ``--codec small``;
nothing needs to be imported. imagecodecs' own Zarr codecs exist only for Python 3.12 and newer.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

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


def register() -> None:
    """Tell zarr-python of the codec where the entry point is not installed (source checkouts)."""
    register_codec(HTJ2K_NAME, Htj2kCodec)
