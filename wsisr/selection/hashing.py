"""Seeded draws that depend on what is drawn, never on when.

Every random choice of a build is a hash of (seed, purpose, names, index). So nothing depends
on the order of files, on the number of workers, or on how many draws came before, and new
slides leave the draws of old ones as they were.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import Float64Array, UInt64Array

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def hash_key(*parts: object) -> int:
    """64-bit key of a sequence of values; their text forms are hashed with their lengths."""
    digest = blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little")


def mix(values: UInt64Array) -> UInt64Array:
    """SplitMix64 finaliser (Steele, Lea and Flood, OOPSLA 2014): a bijection of 64-bit words."""
    with np.errstate(over="ignore"):
        word = (values ^ (values >> np.uint64(30))) * _MIX_1
        word = (word ^ (word >> np.uint64(27))) * _MIX_2
        mixed: UInt64Array = word ^ (word >> np.uint64(31))
    return mixed


def hash_draws(key: int, *indices: ArrayLike) -> UInt64Array:
    """Uniform 64-bit words, one per index tuple.

    Parameters
    ----------
    key : int
        From `hash_key`.
    *indices : array of int
        Broadcast against each other; negative values are allowed.
    """
    words = np.broadcast_arrays(*(np.asarray(index, np.int64) for index in indices))
    with np.errstate(over="ignore"):
        state = mix(np.full(words[0].shape, key, np.uint64) + _GAMMA)
        for word in words:
            state = mix((state ^ word.view(np.uint64)) + _GAMMA)
    return state


def unit_interval(words: UInt64Array) -> Float64Array:
    """64-bit words -> floats in [0, 1) with 53 random bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
