"""What a process read last, kept within limits and shared by its threads."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from wsisr.arrays import UInt64Array
from wsisr.store.places import OpenFile
from wsisr.store.shards import ABSENT, read_index

MAX_INDEXES = 4096

K = TypeVar("K")
V = TypeVar("V")


class ProcessCache(Generic[K, V]):
    """Values by key, those used last; a forked child begins with an empty one.

    Parameters
    ----------
    limit : int
        Sum of the weights that are kept.
    weigh : callable
        Weight of a value.
    """

    def __init__(self, limit: int, weigh: Callable[[V], int] = lambda value: 1) -> None:
        self._limit, self._weigh = limit, weigh
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._values: OrderedDict[K, V] = OrderedDict()
        self.weight = 0

    def _own(self) -> threading.Lock:
        if self._pid != os.getpid():
            # A lock held by another thread at the moment of the fork would never be released.
            self._begin()
        return self._lock

    def get(self, key: K) -> V | None:
        with self._own():
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        with self._own():
            if key not in self._values:
                self._values[key] = value
                self.weight += self._weigh(value)
            while self.weight > self._limit:
                self.weight -= self._weigh(self._values.popitem(last=False)[1])

    def clear(self) -> None:
        with self._own():
            self._values.clear()
            self.weight = 0


class ShardIndexes:
    """The indexes of shards."""

    def __init__(self, max_indexes: int = MAX_INDEXES) -> None:
        self._indexes: ProcessCache[str, UInt64Array] = ProcessCache(max_indexes)

    def get(self, path: str, file: OpenFile, cells: int) -> UInt64Array:
        """Offset and length of every inner chunk, shape (cells, 2); read once.

        Parameters
        ----------
        path : str
            What messages call the shard.
        cells : int
            Inner chunks of a whole shard.
        """
        index = self._indexes.get(path)
        if index is None:
            index = _shared(read_index(file, cells, path))
            self._indexes.put(path, index)
        return index


@lru_cache(maxsize=64)
def _keep(body: bytes, cells: int) -> UInt64Array:
    return np.frombuffer(body, np.uint64).reshape(cells, 2)


def _shared(index: UInt64Array) -> UInt64Array:
    """One array for equal indexes: all full raw shards of a kind have the same one."""
    lengths = index[:, 1][index[:, 0] != ABSENT]
    if len(lengths) and bool(np.all(lengths == lengths[0])):
        return _keep(index.tobytes(), len(index))
    return index
