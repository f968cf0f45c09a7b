"""Open shard files and their indexes, shared by the threads of one process and bounded."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsisr.store.shards import ABSENT, read_index

MAX_OPEN_FILES = 192
"""Well below the common limit of 1024 open files of a process."""
MAX_INDEXES = 4096

Index = NDArray[np.uint64]


class _Entry:
    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0


class ShardFiles:
    """A bounded cache of file descriptors and shard indexes.

    Belongs to one process: after a fork the child starts with an empty one.
    """

    def __init__(self, max_files: int = MAX_OPEN_FILES, max_indexes: int = MAX_INDEXES) -> None:
        self._max_files = max_files
        self._max_indexes = max_indexes
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _Entry] = OrderedDict()
        self._indexes: OrderedDict[str, Index] = OrderedDict()

    @contextmanager
    def open(self, path: str) -> Iterator[int]:
        """A descriptor for positioned reads, valid inside the block.

        Raises
        ------
        FileNotFoundError
            Where there is no such file.
        """
        if self._pid != os.getpid():
            # A lock held by another thread at the moment of the fork would never be released.
            self._reset()
        with self._lock:
            entry = self._files.get(path)
            if entry is None:
                entry = self._files[path] = _Entry(os.open(path, os.O_RDONLY))
            else:
                self._files.move_to_end(path)
            # Counted before others are evicted, so that it is not itself the one to go.
            entry.users += 1
            self._evict()
        try:
            yield entry.fd
        finally:
            with self._lock:
                entry.users -= 1

    def index(self, path: str, fd: int, cells: int) -> Index:
        """Offset and length of every inner chunk, shape (cells, 2); read once."""
        with self._lock:
            index = self._indexes.get(path)
        if index is None:
            index = _shared(read_index(fd, cells, path))
            with self._lock:
                self._indexes[path] = index
                while len(self._indexes) > self._max_indexes:
                    self._indexes.popitem(last=False)
        return index

    def close(self) -> None:
        """Close every file that is not in use and forget the indexes."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            for path, entry in list(self._files.items()):
                if not entry.users:
                    os.close(entry.fd)
                    del self._files[path]
            self._indexes.clear()

    def __del__(self) -> None:
        if getattr(self, "_pid", None) == os.getpid():
            for entry in self._files.values():
                with suppress(OSError):
                    os.close(entry.fd)

    def _evict(self) -> None:
        if len(self._files) <= self._max_files:
            return
        for path, entry in list(self._files.items()):
            if not entry.users:
                os.close(entry.fd)
                del self._files[path]
                if len(self._files) <= self._max_files:
                    return


@lru_cache(maxsize=64)
def _keep(body: bytes, cells: int) -> Index:
    return np.frombuffer(body, np.uint64).reshape(cells, 2)


def _shared(index: Index) -> Index:
    """One array for equal indexes: all full raw shards of a kind have the same one."""
    lengths = index[:, 1][index[:, 0] != ABSENT]
    if len(lengths) and bool(np.all(lengths == lengths[0])):
        return _keep(index.tobytes(), len(index))
    return index
