"""Codec presets: always lossless, a CRC-32C on every inner chunk.

`raw` is the default: any Zarr v3 library reads it, and general compressors gain 5 to 15 % on
stained tissue for half of the speed (measured). `small` stores reversible HTJ2K (ratio 1.5 to 2.1);
`zstd` is for tools that must stay with common codecs but want the few per cent. `slide` keeps HR as
the slide's own tiles where it can (`wsisr.store.tile_array`), with plain bytes for the other
layers, which are small and read in every training step; a slide that cannot is stored as `small`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import StoreError
from wsisr.store.metadata import BYTES, CRC32C, Json
from wsisr.store.shards import ChunkEncoder

if TYPE_CHECKING:
    from wsisr.slides.decode import StreamKind

HTJ2K_NAME: Final = "wsisr.htj2k"
SLIDE: Final = "slide"
"""The codec of stores that keep the slide's own tiles."""
STREAM_NAMES: "Final[dict[str, StreamKind]]" = {
    "imagecodecs_jpeg": "jpeg",
    "imagecodecs_jpeg2k": "jpeg2k",
}
"""Zarr codecs of such tiles, and what they are; imagecodecs has them under these names."""
ZSTD_LEVEL: Final = 1


@dataclass(frozen=True, kw_only=True)
class CodecPreset:
    """How the inner chunks of image arrays are encoded.

    Attributes
    ----------
    name : str
        ``"raw"``, ``"small"`` or ``"zstd"``.
    max_tile_px : int
        Largest side of an inner chunk: small tiles make training crops cheap, larger ones
        compress better.
    chunk_codecs : tuple of dict
        Zarr codec documents without the final checksum.
    """

    name: str
    max_tile_px: int
    chunk_codecs: tuple[Json, ...]

    @property
    def inner_codecs(self) -> list[Json]:
        return [*self.chunk_codecs, CRC32C]

    def encoder(self) -> ChunkEncoder | None:
        """Encoder of one inner chunk, without the checksum; None for raw bytes."""
        return _ENCODERS[self.name]


def encode_htj2k(tile: UInt8Array) -> bytes:
    """Reversible HTJ2K of an RGB tile, shape (h, w, 3), uint8."""
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(tile, reversible=True))


def decode_htj2k(data: Any, shape: tuple[int, int, int]) -> UInt8Array:
    """Back from `encode_htj2k`; ValueError for a broken stream, or one of another shape or type."""
    import imagecodecs

    try:
        tile = np.asarray(imagecodecs.htj2k_decode(data))
    except Exception as err:
        raise ValueError(f"broken HTJ2K stream: {err}") from err
    if tile.shape != shape or tile.dtype != np.uint8:
        raise ValueError(f"HTJ2K stream holds {tile.shape} {tile.dtype}, not {shape} uint8")
    return tile


def encode_zstd(tile: UInt8Array) -> bytes:
    """Zstandard of the raw bytes, as the Zarr codec of that name writes it."""
    from numcodecs.zstd import Zstd

    return bytes(Zstd(level=ZSTD_LEVEL, checksum=False).encode(tile.reshape(-1)))


_ENCODERS: Final[dict[str, ChunkEncoder | None]] = {
    "raw": None,
    "small": encode_htj2k,
    "zstd": encode_zstd,
}

PRESETS: Final = {
    "raw": CodecPreset(name="raw", max_tile_px=256, chunk_codecs=(BYTES,)),
    "small": CodecPreset(
        name="small", max_tile_px=512, chunk_codecs=({"name": HTJ2K_NAME, "configuration": {}},)
    ),
    "zstd": CodecPreset(
        name="zstd",
        max_tile_px=256,
        chunk_codecs=(
            BYTES,
            {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
        ),
    ),
}


CODECS: Final = (*PRESETS, SLIDE)


def check_codec(name: str) -> str:
    """The name itself, if it is a codec of stores; StoreError if not."""
    if name not in CODECS:
        raise StoreError(f"{name!r} is no codec; choose one of {', '.join(CODECS)}.")
    return name


def codec_preset(name: str, tiled: bool = False) -> CodecPreset:
    """How a store of this codec encodes patches.

    Parameters
    ----------
    name : str
        One of `CODECS`.
    tiled : bool
        Of ``"slide"``: whether the slide's own tiles are kept.

    Raises
    ------
    StoreError
        If there is no such codec.
    """
    if check_codec(name) == SLIDE:
        return PRESETS["raw" if tiled else "small"]
    return PRESETS[name]


def stream_codecs(kind: "StreamKind") -> list[Json]:
    """The inner codecs of an array of the slide's own tiles."""
    return [{"name": f"imagecodecs_{kind}", "configuration": {}}, CRC32C]


def _decode(data: Any, side_px: int, kind: "StreamKind") -> UInt8Array:
    from wsisr.slides.decode import decode_stream  # pages of other stores go without wsisr.slides

    return decode_stream(data, kind, side_px)


STREAM_DECODERS: Final[dict[str, Callable[[Any, int], UInt8Array]]] = {
    kind: partial(_decode, kind=kind) for kind in STREAM_NAMES.values()
}
"""From a stream and ``side_px`` to the tile."""
