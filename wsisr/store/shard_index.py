"""The indexes of shards, shared by the threads of one process and bounded."""

import os
import threading
from collections import OrderedDict
from functools import lru_cache

import numpy as np

from wsisr.arrays import UInt64Array
from wsisr.store.places import OpenFile
from wsisr.store.shards import ABSENT, read_index

MAX_INDEXES = 4096


class ShardIndexes:
    """A bounded cache of shard indexes; belongs to one process, as the files do."""

    def __init__(self, max_indexes: int = MAX_INDEXES) -> None:
        self._max_indexes = max_indexes
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._indexes: OrderedDict[str, UInt64Array] = OrderedDict()

    def get(self, path: str, file: OpenFile, cells: int) -> UInt64Array:
        """Offset and length of every inner chunk, shape (cells, 2); read once.

        Parameters
        ----------
        path : str
            What messages call the shard.
        cells : int
            Inner chunks of a whole shard.
        """
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            index = self._indexes.get(path)
        if index is None:
            index = _shared(read_index(file, cells, path))
            with self._lock:
                self._indexes[path] = index
                while len(self._indexes) > self._max_indexes:
                    self._indexes.popitem(last=False)
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
