"""Zarr v3 metadata documents, written the same way every time.

zarr-python reads these; it is not asked to write them, because its field order, and so the
bytes, change between versions, and because workers then need not import it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.errors import CorruptStoreError, StoreError, damage_is_clear
from wsisr.store.layout import META
from wsisr.store.places import Address, Place, place_of

Json = dict[str, Any]

BYTES: Json = {"name": "bytes"}
BYTES_LITTLE: Json = {"name": "bytes", "configuration": {"endian": "little"}}
CRC32C: Json = {"name": "crc32c"}
GZIP: Json = {"name": "gzip", "configuration": {"level": 6}}


def to_json(document: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a document: sorted keys, two spaces, no NaN, final newline."""
    try:
        text = json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as err:
        place = _unwritable(document)
        raise StoreError(f"Attributes cannot be written as JSON: {place or err}.") from err
    return (text + "\n").encode()


def plain_json(document: Mapping[str, Any]) -> Json:
    """The document as it reads back: tuples are lists, keys are strings."""
    return dict(json.loads(to_json(document)))


def _unwritable(value: Any, place: str = "") -> str:
    """Where in a document the first value lies that JSON cannot hold."""
    if isinstance(value, Mapping):
        parts = [_unwritable(item, f"{place}.{key}".lstrip(".")) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [_unwritable(item, f"{place}[{at}]") for at, item in enumerate(value)]
    elif value is None or isinstance(value, str | bool | int):
        return ""
    elif isinstance(value, float):
        return "" if math.isfinite(value) else f"{place} is {value}"
    else:
        return f"{place} is a {type(value).__name__}"
    return next((part for part in parts if part), "")


def group_document(attributes: Mapping[str, Any]) -> Json:
    """``zarr.json`` of a group; wsisr's attributes lie under the key ``"wsisr"``."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"wsisr": dict(attributes)} if attributes else {},
    }


def array_document(
    *,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    chunk_shape: Sequence[int],
    codecs: Sequence[Json],
    attributes: Mapping[str, Any],
    dimensions: Sequence[str],
) -> Json:
    """``zarr.json`` of an array."""
    fill: Any = 0.0 if dtype.kind == "f" else False if dtype.kind == "b" else 0
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [int(n) for n in shape],
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [int(n) for n in chunk_shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": list(codecs),
        "storage_transformers": [],
        "dimension_names": list(dimensions),
        "attributes": {"wsisr": dict(attributes)} if attributes else {},
    }


def sharding_codec(inner_shape: Sequence[int], inner_codecs: Sequence[Json]) -> Json:
    """The sharding codec: inner chunks, index with CRC-32C at the end of the file."""
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [int(n) for n in inner_shape],
            "codecs": list(inner_codecs),
            "index_codecs": [BYTES_LITTLE, CRC32C],
            "index_location": "end",
        },
    }


def plain_codecs(dtype: np.dtype[Any]) -> list[Json]:
    """Codecs of a small unsharded array: little-endian bytes with a CRC-32C."""
    return [BYTES if dtype.itemsize == 1 else BYTES_LITTLE, CRC32C]


@dataclass(frozen=True)
class Node:
    """A parsed ``zarr.json``."""

    place: Place
    document: Json

    @property
    def is_group(self) -> bool:
        return self.document.get("node_type") == "group"

    @property
    def attributes(self) -> Json:
        """The attributes under ``"wsisr"``; empty where there are none."""
        attributes = self.document.get("attributes")
        value = attributes.get("wsisr") if isinstance(attributes, dict) else None
        return dict(value) if isinstance(value, dict) else {}


def read_node(folder: Address) -> Node:
    """Read and check one ``zarr.json``.

    Raises
    ------
    StoreError
        Where there is none.
    CorruptStoreError
        Where it is no Zarr v3 document.
    """
    place = place_of(folder)
    try:
        document = json.loads((place / META).get())
    except FileNotFoundError as err:
        raise StoreError(f"{place}: no {META} here, so this is no Zarr v3 node.") from err
    except NotADirectoryError as err:
        raise StoreError(f"{place} is not a directory, so it is no Zarr v3 node.") from err
    except (ValueError, RecursionError) as err:
        raise CorruptStoreError(f"{place / META} is no JSON document: {err}.") from err
    if not isinstance(document, dict) or document.get("zarr_format") != 3:
        raise CorruptStoreError(f"{place / META} is no Zarr v3 document.")
    return Node(place, document)


def child_names(folder: Place) -> tuple[str, ...]:
    """Names of the groups and arrays directly below."""
    return tuple(sorted(name for name in folder.names() if (folder / name / META).exists()))


@contextmanager
def damage_of(meta: Place) -> Iterator[None]:
    """Faults in a document of the store name it."""
    try:
        with damage_is_clear(meta, CorruptStoreError, "run wsisr verify"):
            yield
    except StoreError as error:
        if str(meta) in str(error):
            raise
        raise CorruptStoreError(f"{meta}: {error}") from error
