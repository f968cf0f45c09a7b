"""Digests: what a patch decodes to, and what a slide's group consists of.

The digest of a patch covers decoded bytes, so it is the same for every codec. Its algorithm is
named by the root (`patch_digest`): XXH3 takes a sixtieth of the time of BLAKE2b, which stores of
format version 1 have, and bounds nothing. The
digest of a slide covers its attributes, the names and sizes of all its files, and the content of
all but the image shards (whose content the patch digests and checksums cover) and
the `kept` column, which `wsisr keep` may rewrite.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xxhash import xxh3_64

from wsisr.arrays import BoolArray, UInt8Array, UInt64Array
from wsisr.errors import StoreError
from wsisr.store.layout import META, PATCHES, stored_as
from wsisr.store.metadata import group_document, to_json
from wsisr.store.places import Place
from wsisr.store.schema import KEPT, OLD_PATCH_DIGEST, PATCH_DIGEST

_BITS_64 = 8


@dataclass(frozen=True, eq=False)
class PatchDigests:
    """Digests of some patches.

    Attributes
    ----------
    algorithm : str
        ``"xxh3-64"`` or, in stores of format version 1, ``"blake2b-64"``.
    values : ndarray, shape (k,), uint64
        Little-endian reading of the eight bytes of BLAKE2b; the number that XXH3 is.
    """

    algorithm: str
    values: UInt64Array

    def differ(self, other: "PatchDigests") -> BoolArray:
        """Which patches are not the same; StoreError if the two are of different algorithms, which
        tells nothing of the patches."""
        if self.algorithm != other.algorithm:
            raise StoreError(
                f"Digests by {self.algorithm} and by {other.algorithm} cannot be compared; digest "
                "the patches of one side again."
            )
        return self.values != other.values


def patch_digests(arrays: Sequence[UInt8Array], algorithm: str = PATCH_DIGEST) -> PatchDigests:
    """The digest of each patch over the decoded bytes of all its arrays.

    Parameters
    ----------
    arrays : sequence of ndarray, each shape (k, s, s, 3), uint8
        In the order of the slide's arrays.
    algorithm : str
        One of `PATCH_DIGESTS`.

    Raises
    ------
    StoreError
        For an algorithm that is not known.
    """
    digest = _PATCH_DIGEST.get(algorithm)
    if digest is None:
        raise StoreError(f"Patch digests by {algorithm!r}: pip install --upgrade wsisr.")
    whole = [np.ascontiguousarray(array) for array in arrays]
    found = [digest([array[row] for array in whole]) for row in range(len(whole[0]))]
    return PatchDigests(algorithm, np.array(found, np.uint64))


def _xxh3(arrays: Sequence[UInt8Array]) -> int:
    state = xxh3_64()
    for array in arrays:
        state.update(array.data)
    return state.intdigest()


def _blake2b(arrays: Sequence[UInt8Array]) -> int:
    state = hashlib.blake2b(digest_size=_BITS_64)
    for array in arrays:
        state.update(array.data)
    return int.from_bytes(state.digest(), "little")


_PATCH_DIGEST = {PATCH_DIGEST: _xxh3, OLD_PATCH_DIGEST: _blake2b}


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
    shards = tuple(f"{folder}/c/" for folder in stored_as(arrays, attributes).values())
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
