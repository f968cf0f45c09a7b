"""TIFF-family slides on servers and object stores: only the tiles that are asked for travel.

A URL that fsspec knows (``https://``, ``s3://``, ``memory://``, ...) is read with the direct
reader over ranged reads, so its pixels are the stored ones, bit for bit. Protocols may need
packages of their own (s3fs, aiohttp). This opens a single slide; builds copy slides here first.
"""

import threading
from pathlib import Path
from typing import Any

from wsisr.errors import SlideError
from wsisr.slides.direct import DirectStore, describe_tiff
from wsisr.slides.fingerprint import fingerprint_of_one
from wsisr.slides.handles import PerProcess
from wsisr.slides.protocol import SlideInfo
from wsisr.slides.tiff_directory import read_directory_of


def is_url(path: object) -> bool:
    """Whether a path is a URL with a protocol."""
    return isinstance(path, str) and "://" in path


class RemoteFile:
    """An object read at positions through fsspec; one read at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._handle: PerProcess[Any] = PerProcess(self._open, lambda file: file.close())

    def handle(self) -> Any:
        """The open file of this process."""
        return self._handle.get()

    def size(self) -> int:
        """Size of the object in bytes."""
        file = self.handle()
        with self._lock:
            return int(file.seek(0, 2))

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; SlideError if there are fewer."""
        file = self.handle()
        try:
            with self._lock:
                file.seek(offset)
                data = bytes(file.read(size))
        except Exception as error:
            raise SlideError(f"{self._url}: {error}; is the server reachable?") from error
        if len(data) != size:
            raise SlideError(f"{self._url}: ends {size - len(data):,} bytes short; it was cut off.")
        return data

    def close(self) -> None:
        self._handle.close()

    def _open(self) -> Any:
        import fsspec

        try:
            return fsspec.open(self._url, "rb").open()
        except Exception as error:
            detail = str(error)[:160] or type(error).__name__
            raise SlideError(
                f"{self._url}: cannot be opened ({detail}); check the address, and whether the "
                "package for its protocol is installed (s3fs, aiohttp, ...)."
            ) from error


def open_remote(url: str) -> tuple[SlideInfo, DirectStore]:
    """Open a TIFF-family slide by its URL.

    Raises
    ------
    SlideError
        If it cannot be reached, is no TIFF-family slide, or is of a kind that needs OpenSlide.
    """
    file = RemoteFile(url)
    size = file.size()
    # tifffile closes what it is given: it gets a handle of its own.
    directory = read_directory_of(RemoteFile(url).handle(), Path(url), size)
    return describe_tiff(directory, file, size, fingerprint_of_one(size, file.read))
