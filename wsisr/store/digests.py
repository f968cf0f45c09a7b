"""Digests: what a patch decodes to, and what a slide's group consists of.

The digest of a patch covers decoded bytes, so it is the same for every codec and version. The
digest of a slide covers its attributes, the names and sizes of all its files, and the content of
all but the image shards (whose content the patch digests and checksums cover) and
the `kept` column, which `wsisr keep` may rewrite.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.store.layout import META, PATCHES
from wsisr.store.metadata import group_document, to_json
from wsisr.store.places import Place
from wsisr.store.schema import KEPT

UInt8Array = NDArray[np.uint8]
_BITS_64 = 8


def patch_digests(arrays: Sequence[UInt8Array]) -> NDArray[np.uint64]:
    """BLAKE2b-64 of each patch over all its arrays.

    Parameters
    ----------
    arrays : sequence of ndarray, each shape (k, s, s, 3), uint8
        In the order of the slide's arrays.

    Returns
    -------
    ndarray, shape (k,), uint64
        Little-endian reading of the eight digest bytes.
    """
    digests = np.empty(len(arrays[0]), np.uint64)
    for row in range(len(digests)):
        state = hashlib.blake2b(digest_size=_BITS_64)
        for array in arrays:
            state.update(np.ascontiguousarray(array[row]).data)
        digests[row] = int.from_bytes(state.digest(), "little")
    return digests


def content_digest(data: bytes) -> str:
    """Hexadecimal BLAKE2b-128 of some bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def canonical_digest(document: Any) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return content_digest(text.encode())


def root_digest(attributes: Mapping[str, Any]) -> str:
    """Digest of the root group's attributes, themselves without ``digest``."""
    return canonical_digest({key: attributes[key] for key in attributes if key != "digest"})


def root_json(attributes: Mapping[str, Any]) -> bytes:
    """``zarr.json`` of the root group, with the digest of its attributes."""
    return to_json(group_document({**attributes, "digest": root_digest(attributes)}))


def slide_digest(root: Place, attributes: Mapping[str, Any], arrays: Sequence[str]) -> str:
    """Digest of a slide's group, staged or committed (see the module's text).

    Parameters
    ----------
    root : Place
        The group's folder.
    attributes : mapping
        The group's attributes; a ``digest`` among them is left out.
    arrays : sequence of str
        Names of the image arrays.
    """
    shards = tuple(f"{name}/c/" for name in arrays)
    kept = f"{PATCHES}/{KEPT}/c/"
    files: list[list[Any]] = []
    for name, size in root.sizes().items():
        if name == META:
            continue
        if name.startswith((*shards, kept)):
            files.append([name, size])
        else:
            files.append([name, size, content_digest((root / name).get())])
    covered = {key: value for key, value in attributes.items() if key != "digest"}
    return canonical_digest([covered, files])
