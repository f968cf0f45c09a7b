"""Recognising shard layouts that `ShardReader` reads itself; everything else is zarr-python's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.store.metadata import BYTES_LITTLE, CRC32C
from wsisr.store.presets import HTJ2K_NAME, STREAM_DECODERS, STREAM_NAMES, decode_htj2k
from wsisr.store.shards import CRC_BYTES, ShardLayout

ChunkDecoder = Callable[[Any, int], UInt8Array]
"""From encoded bytes (without checksum) and the tile's side to the tile, (t, t, 3)."""


@dataclass(frozen=True, kw_only=True)
class KnownLayout:
    """A shard layout that can be read with positioned reads.

    Attributes
    ----------
    patches : int
        Length of the array.
    codec : str
        ``"raw"``, ``"zstd"``, ``"htj2k"``, or ``"jpeg"`` and ``"jpeg2k"`` of a slide's own tiles.
    checksums : bool
        Whether every inner chunk ends with a CRC-32C.
    fill : int
        Value of chunks that do not exist.
    """

    patches: int
    shards: ShardLayout
    codec: str
    checksums: bool
    fill: int

    @property
    def raw_chunk_bytes(self) -> int:
        """Stored bytes of an inner chunk of the raw codec."""
        return self.shards.chunk_bytes + (CRC_BYTES if self.checksums else 0)


def known_layout(document: Mapping[str, Any]) -> KnownLayout | None:
    """Parse an array's ``zarr.json``; None where the layout is not one of ours.

    Never guesses: any codec, key encoding, transformer or shape beside those that this package
    writes (with or without checksums) gives None.
    """
    try:
        return _parse(document)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _parse(document: Mapping[str, Any]) -> KnownLayout | None:
    shape = tuple(int(extent) for extent in document["shape"])
    shard = tuple(int(extent) for extent in document["chunk_grid"]["configuration"]["chunk_shape"])
    (codec,) = document["codecs"]
    inner = codec["configuration"]
    tile = tuple(int(extent) for extent in inner["chunk_shape"])
    chain = [step["name"] for step in inner["codecs"]]
    checksums = chain[-1] == CRC32C["name"]
    steps = tuple(chain[:-1] if checksums else chain)
    name = {("bytes",): "raw", ("bytes", "zstd"): "zstd", (HTJ2K_NAME,): "htj2k"}.get(steps)
    if len(steps) == 1 and not inner["codecs"][0].get("configuration"):
        # With settings of its own a decoder might give other pixels.
        name = STREAM_NAMES.get(steps[0], name)
    known = (
        document["node_type"] == "array"
        and document["data_type"] == "uint8"
        and document["chunk_grid"]["name"] == "regular"
        and document["chunk_key_encoding"]
        == {"name": "default", "configuration": {"separator": "/"}}
        and not document.get("storage_transformers")
        and codec["name"] == "sharding_indexed"
        and inner.get("index_location", "end") == "end"
        and list(inner["index_codecs"]) == [BYTES_LITTLE, CRC32C]
        and len(shape) == len(shard) == len(tile) == 4
        and shape[1] == shape[2]
        and shard[1] == shard[2]
        and tile[1] == tile[2]
        and shape[3] == shard[3] == tile[3] == 3
        and tile[0] == 1
        and shard[1] % tile[1] == 0
        and shard[1] >= shape[1]
        and min(shard) > 0
    )
    if not known or name is None:
        return None
    layout = ShardLayout(
        size_px=shape[1], tile_px=tile[1], tiles=shard[1] // tile[1], patches=shard[0]
    )
    return KnownLayout(
        patches=shape[0],
        shards=layout,
        codec=name,
        checksums=checksums,
        fill=int(document["fill_value"]),
    )


def _decode_zstd(data: Any, side: int) -> UInt8Array:
    from numcodecs.zstd import Zstd

    try:
        tile = np.frombuffer(Zstd().decode(data), np.uint8)
    except RuntimeError as err:
        raise ValueError(f"broken zstd frame: {err}") from err
    return tile.reshape(side, side, 3)


def _decode_htj2k(data: Any, side: int) -> UInt8Array:
    return decode_htj2k(bytes(data), (side, side, 3))


DECODERS: Mapping[str, ChunkDecoder] = {
    "zstd": _decode_zstd,
    "htj2k": _decode_htj2k,
    **STREAM_DECODERS,
}
"""Of one inner chunk, by codec; raw bytes need none."""
