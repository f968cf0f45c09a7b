"""Handles that belong to one process and open themselves again in another."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from wsisr.errors import SlideError
from wsisr.host import BINARY, read_at

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A handle opened at first use and again after a fork; slide libraries do not survive one."""

    def __init__(self, open_: Callable[[], T], close: Callable[[T], object]) -> None:
        self._open = open_
        self._close = close
        self._handle: T | None = None
        self._pid = -1
        self._lock = threading.Lock()

    def get(self) -> T:
        if self._handle is not None and self._pid == os.getpid():
            return self._handle
        with self._lock:
            if self._handle is None or self._pid != os.getpid():
                self._handle = self._open()
                self._pid = os.getpid()
            return self._handle

    def drop(self, handle: T) -> None:
        """Let go of a handle that is of no more use, unclosed: other threads may be in it."""
        with self._lock:
            if self._handle is handle:
                self._handle = None

    def close(self) -> None:
        with self._lock:
            # A parent's handle is the parent's to close.
            if self._handle is not None and self._pid == os.getpid():
                self._close(self._handle)
            self._handle = None


class PositionedFile:
    """A file read at positions, by any thread, without moving a shared cursor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = PerProcess(lambda: os.open(path, os.O_RDONLY | BINARY), os.close)

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; SlideError if the file has fewer."""
        try:
            data = read_at(self._handle.get(), size, offset)
            while len(data) < size:
                more = read_at(self._handle.get(), size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise SlideError(f"{self._path}: {error.strerror}; is the disk reachable?") from error
        if len(data) != size:
            raise SlideError(
                f"{self._path}: ends at byte {offset + len(data):,}, {size - len(data):,} bytes "
                "short; it was cut off, copy it again."
            )
        return data

    def close(self) -> None:
        self._handle.close()
