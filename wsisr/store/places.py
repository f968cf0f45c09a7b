"""The one way to the files of a store: get, ranges, list and put, by keys below one root.

A `Files` is a root with files below it, named by relative keys with ``/``: a local folder
(`wsisr.store.local_files`) or what lies in a bucket (`wsisr.store.object_files`). A `Place` is
one of its folders or files, and goes about like a path. Nothing else of this package opens, lists
or looks at a file of a store; what makes files appear at once (staging, syncing, swapping) is
`wsisr.files`, and local.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

Buffer = memoryview | bytearray

T = TypeVar("T")
R = TypeVar("R")


class OpenFile(Protocol):
    """One file of a store, open for reading at positions; shared by threads."""

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Fill buffers, one behind the other, from a place of the file.

        Returns how many bytes there were; fewer than asked for only at the end of the file.
        """

    def tail(self, count: int) -> tuple[bytes, int]:
        """The last `count` bytes, fewer in a smaller file, and the size of the file in bytes."""


class Files(Protocol):
    """Files below one root, safe to share between threads, to pickle, and to use after a fork.

    Where a key names nothing, reading it raises FileNotFoundError and listing it gives nothing.
    """

    @property
    def address(self) -> str:
        """The root in messages; never with a login or a signature."""

    @property
    def remote(self) -> bool:
        """Whether each reading is a journey, so that it pays to say ahead what will be read."""

    def get(self, key: str) -> bytes:
        """A whole file."""

    def open(self, key: str) -> AbstractContextManager[OpenFile]:
        """A file to read ranges of, valid inside the block."""

    def ahead(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        """Ranges that will be read at once: key, offset and length in bytes.

        Where they travel, they are fetched together now; else nothing happens.
        """

    def together(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`work` of each item, in their order; at the same time where reading is a journey."""

    def exists(self, key: str) -> bool:
        """Whether there is a file of this name."""

    def names(self, key: str) -> list[str]:
        """Names of the files and folders directly below, in no order."""

    def sizes(self, key: str) -> dict[str, int]:
        """Size in bytes of every file below, by its key relative to `key`, sorted."""

    def put(self, key: str, parts: Sequence[bytes | memoryview]) -> int:
        """Write a file of these parts, whatever was there; its size in bytes.

        A local one is neither synced nor appears at once: it belongs into a folder that is staged.
        """

    def for_zarr(self, key: str) -> Any:
        """The folder in a form that zarr-python opens."""


@dataclass(frozen=True)
class Place:
    """A folder or file of a store.

    Attributes
    ----------
    key : str
        Relative to the root of `files`; empty for the root itself.
    """

    files: Files
    key: str = ""

    def __truediv__(self, name: str) -> "Place":
        return Place(self.files, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.files.address}/{self.key}" if self.key else self.files.address

    @property
    def name(self) -> str:
        """The last part of its address."""
        return str(self).rpartition("/")[2]

    def get(self) -> bytes:
        """A whole file; see `Files.get`."""
        return self.files.get(self.key)

    def exists(self) -> bool:
        """Whether it is a file."""
        return self.files.exists(self.key)

    def names(self) -> list[str]:
        """Names of the files and folders directly below, in no order."""
        return self.files.names(self.key)

    def sizes(self) -> dict[str, int]:
        """Size in bytes of every file below by its relative key, sorted."""
        return self.files.sizes(self.key)

    def put(self, *parts: bytes | memoryview) -> int:
        """Write a file of these parts; see `Files.put`."""
        return self.files.put(self.key, parts)

    def for_zarr(self) -> Any:
        """The folder in a form that zarr-python opens."""
        return self.files.for_zarr(self.key)


Address = str | os.PathLike[str] | Place
"""How a caller may name a folder of a store."""


def place_of(address: Address) -> Place:
    """The place that a caller names; StoreError for an address that cannot be read."""
    from wsisr.store.local_files import LocalFiles
    from wsisr.store.object_files import ObjectFiles, url_of

    if isinstance(address, Place):
        return address
    url = url_of(address)
    return Place(LocalFiles(Path(address)) if url is None else ObjectFiles(url))


def local_path(place: Place) -> Path | None:
    """Where a place lies on this machine; None where it does not."""
    from wsisr.store.local_files import LocalFiles

    return place.files.path(place.key) if isinstance(place.files, LocalFiles) else None
