"""The files of a store in a local folder: positioned reads straight into the caller's memory."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from wsisr.files import open_new, write_buffers, write_parts
from wsisr.host import BINARY, read_at, read_into
from wsisr.store.places import Buffer, Place, local_path

T = TypeVar("T")
R = TypeVar("R")

MAX_OPEN_FILES = 192
"""Well below the common limit of 1024 open files of a process."""


class _Open:
    """An open file and how many use it at the moment."""

    __slots__ = ("fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> int:
        return read_into(self.fd, buffers, offset)

    def tail(self, count: int) -> tuple[bytes, int]:
        size = os.fstat(self.fd).st_size
        return read_at(self.fd, min(count, size), max(0, size - count)), size


class NewFile:
    """A file of a staged folder that is written part by part.

    Raises
    ------
    ValueError
        If the place does not lie on this machine: elsewhere files are put whole.
    """

    def __init__(self, place: Place) -> None:
        path = local_path(place)
        if path is None:
            raise ValueError(f"{place} is not on this machine")
        self._fd = open_new(path)

    def write(self, parts: Sequence[bytes | memoryview]) -> None:
        """Add parts to its end."""
        write_parts(self._fd, parts)

    def close(self) -> None:
        """No part is to come; the file is not synced."""
        os.close(self._fd)


class LocalFiles:
    """A folder, with a bounded number of its files open; see `wsisr.store.places.Files`.

    Open files belong to one process: a child that was forked, or got this pickled, opens its own.

    Parameters
    ----------
    max_files : int
        How many files stay open.
    """

    remote = False

    def __init__(self, root: Path, max_files: int = MAX_OPEN_FILES) -> None:
        self.root = Path(root)
        self.address = str(self.root)
        self._max_files = max_files
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _Open] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFiles, (self.root, self._max_files)

    def path(self, key: str) -> Path:
        """Where a file or folder lies."""
        return self.root / key

    def get(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    @contextmanager
    def open(self, key: str) -> Iterator[_Open]:
        if self._pid != os.getpid():
            # A lock held by another thread at the moment of the fork would never be released.
            self._reset()
        with self._lock:
            entry = self._files.get(key)
            if entry is None:
                fd = os.open(f"{self.address}/{key}", os.O_RDONLY | BINARY)
                entry = self._files[key] = _Open(fd)
            else:
                self._files.move_to_end(key)
            # Counted before others are evicted, so that it is not itself the one to go.
            entry.users += 1
            if len(self._files) > self._max_files:
                self._drop(self._max_files)
        try:
            yield entry
        finally:
            with self._lock:
                entry.users -= 1

    def ahead(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        pass

    def together(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return [work(item) for item in items]

    def exists(self, key: str) -> bool:
        return self.path(key).is_file()

    def names(self, key: str) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(self.path(key))
        return []

    def sizes(self, key: str) -> dict[str, int]:
        folder = self.path(key)
        found = {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in folder.rglob("*")
            if not path.is_dir()
        }
        return dict(sorted(found.items()))

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> int:
        return write_buffers(self.path(key), parts)

    def for_zarr(self, key: str) -> Path:
        return self.path(key)

    def close(self) -> None:
        """Close every file that is not in use."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._drop(0)

    def __del__(self) -> None:
        if getattr(self, "_pid", None) == os.getpid():
            for entry in self._files.values():
                with suppress(OSError):
                    os.close(entry.fd)

    def _drop(self, most: int) -> None:
        """Close files that are not in use, the oldest first, until `most` are open."""
        for key, entry in list(self._files.items()):
            if len(self._files) <= most:
                return
            if not entry.users:
                os.close(entry.fd)
                del self._files[key]
