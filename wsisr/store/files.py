"""Small file operations that survive a crash: write, sync, swap, remove.

A name appears only when its content is complete (write beside, sync, rename). Full disks are
told apart from every other fault, because they end a build instead of a slide.
"""

import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from wsisr.errors import StoreError

_LONG_NAME = 160
"""Bytes of a name that leave room for what is put around it; file systems allow 255 in all."""
_MAX_PARTS = 512
"""Parts of one system call; the common limit is 1024."""
_GOES_ON = (
    "What is finished so far is safe. Make room (or write to another disk with -o) and run the "
    "same command again: it goes on where it stopped."
)
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full (quota)",
    errno.EFBIG: "a file would grow larger than this file system or `ulimit -f` allows",
}


class DiskFullError(StoreError):
    """The disk that is written to holds no more; what is committed so far stays valid."""


@contextmanager
def disk_full_is_clear(where: Path, remedy: str = _GOES_ON) -> Iterator[None]:
    """Turn "no space left" inside the block into one `DiskFullError` with the remedy."""
    try:
        yield
    except OSError as err:
        if err.errno not in _FULL:
            raise
        folder = next((p for p in (where, *where.parents) if p.exists()), Path("/"))
        free = shutil.disk_usage(folder).free / 1e6
        raise DiskFullError(
            f"{where}: {_FULL[err.errno]}, {free:.0f} MB are free. {remedy}"
        ) from err


def write_buffers(path: Path, buffers: Sequence[bytes | memoryview]) -> int:
    """Write a new file from parts without copying or syncing them; returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for start in range(0, len(buffers), _MAX_PARTS):
            parts = [memoryview(part) for part in buffers[start : start + _MAX_PARTS]]
            while parts:
                written = os.writev(fd, parts)
                size += written
                while parts and written >= len(parts[0]):
                    written -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][written:]
    finally:
        os.close(fd)
    return size


def replace_file(path: Path, data: bytes, staging: Path | None = None) -> None:
    """Atomically create or replace one small file; synced when this returns.

    The new content is staged beside the file, or in the folder `staging` of the same file system.
    """
    folder = path.parent if staging is None else staging
    # Parts of one build may run on several hosts with one file system between them.
    name = path.name
    if len(os.fsencode(name)) > _LONG_NAME:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    staged = folder / f".{name}.{socket.gethostname()}-{os.getpid()}.partial"
    with disk_full_is_clear(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(staged, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)
        sync_directory(path.parent)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a no-op where directories cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


def sync_tree(root: Path) -> None:
    """Make every file and name below a directory durable, innermost first."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a directory tree if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def swap_in(staged: Path, final: Path, aside: Path) -> None:
    """Put a complete directory in the place of another one.

    Move the old aside, rename the new, delete the old. A kill after the first step is undone by
    `recover_swap`, a kill after the second is finished by it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.exists():
        remove_tree(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.rename(final, aside)
        sync_directory(final.parent)
    os.rename(staged, final)
    sync_directory(final.parent)
    remove_tree(aside)


def recover_swap(final: Path, aside: Path) -> None:
    """Bring an interrupted `swap_in` to one of its two clean ends."""
    if not aside.exists():
        return
    if final.exists():
        remove_tree(aside)
    else:
        final.parent.mkdir(parents=True, exist_ok=True)
        os.rename(aside, final)
        sync_directory(final.parent)
