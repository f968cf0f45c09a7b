"""Small arrays of a store: per-patch columns and the tissue mask.

Columns are plain one-chunk arrays; the mask is gzip-compressed (a codec of the Zarr v3 core),
because it is large and almost empty.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import CorruptStoreError, StoreError
from wsisr.store.layout import META
from wsisr.store.metadata import (
    BYTES,
    CRC32C,
    GZIP,
    Node,
    array_document,
    plain_codecs,
    read_node,
    to_json,
)
from wsisr.store.places import Address, Place, place_of
from wsisr.store.schema import TISSUE_UM_PER_PX, find_column
from wsisr.store.shards import CRC_BYTES

_GZIP_WINDOW = 31
"""zlib's code for a gzip frame; its header carries no time."""


def with_crc(data: bytes) -> bytes:
    """Bytes followed by their CRC-32C, as the Zarr codec writes them."""
    return data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def without_crc(data: bytes, where: str) -> bytes:
    """Back from `with_crc`; CorruptStoreError where the checksum does not match."""
    body, sums = data[:-CRC_BYTES], data[-CRC_BYTES:]
    if len(sums) != CRC_BYTES or google_crc32c.value(body) != int.from_bytes(sums, "little"):
        raise CorruptStoreError(f"{where}: the bytes do not match their CRC-32C.")
    return body


def write_column(
    folder: Place, name: str, values: AnyArray, arrays: Sequence[str], algorithm: str = ""
) -> None:
    """Write one per-patch column, shape (n,); `algorithm` is what digests are by."""
    column = find_column(name, arrays)
    attributes = {}
    if column is not None:
        meaning = column.meaning.format(algorithm=algorithm)
        attributes = {"meaning": meaning, "unit": column.unit}
    write_plain(folder, values, attributes, ("patch",))


def write_plain(
    folder: Place, values: AnyArray, attributes: dict[str, Any], dimensions: Sequence[str]
) -> None:
    """Write a whole small array as one chunk."""
    document = array_document(
        shape=values.shape,
        dtype=values.dtype,
        chunk_shape=[max(1, extent) for extent in values.shape],
        codecs=plain_codecs(values.dtype),
        attributes=attributes,
        dimensions=dimensions,
    )
    (folder / META).put(to_json(document))
    if values.size:
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        _chunk(folder, values.ndim).put(with_crc(data))


def write_tissue(folder: Place, mask: UInt8Array) -> None:
    """Write the tissue mask, shape (h, w), uint8."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_) or not mask.size:
        raise StoreError(f"{folder}: the tissue mask must be (h, w) uint8, not {mask.shape}.")
    mask = np.ascontiguousarray(mask, np.uint8)
    document = array_document(
        shape=mask.shape,
        dtype=mask.dtype,
        chunk_shape=mask.shape,
        codecs=[BYTES, GZIP, CRC32C],
        attributes={"um_per_px": TISSUE_UM_PER_PX, "meaning": "tissue mask, 0 is none"},
        dimensions=("y", "x"),
    )
    (folder / META).put(to_json(document))
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
    data = packer.compress(mask.data) + packer.flush()
    _chunk(folder, 2).put(with_crc(data))


def read_plain(folder: Address) -> AnyArray:
    """Read a small array written by this module (columns, splits, tissue mask).

    Raises
    ------
    CorruptStoreError
        Where its chunk is missing, does not match its checksum, or has the wrong size.
    """
    node = read_node(place_of(folder))
    shape, dtype, gzipped = _plain_layout(node)
    if 0 in shape:
        return np.empty(shape, dtype)
    path = _chunk(node.place, len(shape))
    try:
        data = path.get()
    except FileNotFoundError as err:
        raise CorruptStoreError(f"{path} is missing.") from err
    data = without_crc(data, str(path))
    need = int(np.prod(shape)) * dtype.itemsize
    if gzipped:
        try:
            unpacker = zlib.decompressobj(_GZIP_WINDOW)
            data = unpacker.decompress(data, need + 1)
        except zlib.error as err:
            raise CorruptStoreError(f"{path}: {err}.") from err
    if len(data) != need:
        raise CorruptStoreError(f"{path} holds {len(data)} bytes, not {need}.")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _plain_layout(node: Node) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    document = node.document
    try:
        shape = tuple(int(extent) for extent in document["shape"])
        dtype = np.dtype(str(document["data_type"]))
        chunk = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        names = [codec["name"] for codec in document["codecs"]]
    except (KeyError, TypeError, ValueError) as err:
        raise CorruptStoreError(f"{node.place / META} is no array of a pair store.") from err
    known = names in (["bytes", "crc32c"], ["bytes", "gzip", "crc32c"])
    if not known or chunk != tuple(max(1, extent) for extent in shape) or dtype.kind not in "iufb":
        raise CorruptStoreError(f"{node.place / META}: not a column as wsisr writes them.")
    return shape, dtype, "gzip" in names


def _chunk(folder: Place, dimensions: int) -> Place:
    return folder / "/".join(["c", *["0"] * dimensions])
