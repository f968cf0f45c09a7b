"""Small file operations that survive a crash: write, sync, swap, remove.

A name appears only when its content is complete (write beside, sync, rename). Full disks are
told apart from every other fault, because they end a build instead of a slide.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsisr.errors import ConfigError, DiskFullError, WsisrError
from wsisr.host import BINARY, make_durable, write_some

if TYPE_CHECKING:
    from PIL.Image import Image

    from wsisr.arrays import UInt8Array

_LONG_NAME = 160
"""Bytes of a name that leave room for what is put around it; file systems allow 255 in all."""
_MAX_PARTS = 512
"""Parts of one system call; the common limit is 1024."""
_GOES_ON = (
    "What is finished so far is safe. Make room (or write to another disk with -o) and run the "
    "same command again: it goes on where it stopped."
)
ANEW = (
    "Nothing was put into place. Make room (or write to another disk with -o) and run the same "
    "command again."
)
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full (quota)",
    errno.EFBIG: "a file would grow larger than this file system or `ulimit -f` allows",
}


@contextmanager
def disk_full_is_clear(where: Path, remedy: str = _GOES_ON) -> Iterator[None]:
    """Turn "no space left" inside the block into one `DiskFullError` with the remedy.

    The outermost block says it, which knows what becomes of all that was written. Other refusals
    of the system get the place, if they name none.
    """
    try:
        yield
    except OSError as err:
        cause = err.__cause__ if isinstance(err, DiskFullError) else err
        if not isinstance(cause, OSError) or cause.errno not in _FULL:
            if err.filename is None and err.errno is not None:
                err.filename = str(where)
            raise
        folder = next((p for p in (where, *where.parents) if p.exists()), Path("/"))
        free = shutil.disk_usage(folder).free / 1e6
        raise DiskFullError(
            f"{where}: {_FULL[cause.errno]}, {free:.0f} MB are free. {remedy}"
        ) from cause


def write_buffers(path: Path, buffers: Sequence[bytes | memoryview]) -> int:
    """Write a new file from parts without copying or syncing them; returns its size in bytes."""
    fd = open_new(path)
    try:
        return write_parts(fd, buffers)
    finally:
        os.close(fd)


def open_new(path: Path) -> int:
    """Descriptor of a new, empty file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o666)


def write_parts(fd: int, buffers: Sequence[bytes | memoryview]) -> int:
    """Write parts to an open file, whole and uncopied; returns their size in bytes."""
    size = 0
    for start in range(0, len(buffers), _MAX_PARTS):
        parts = list(buffers[start : start + _MAX_PARTS])
        left = sum(map(len, parts))
        size += left
        while left:
            written = write_some(fd, parts)
            left -= written
            if not left:
                break
            while parts and written >= len(parts[0]):
                written -= len(parts.pop(0))
            parts[0] = memoryview(parts[0])[written:]
    return size


def replace_file(path: Path, data: bytes, staging: Path | None = None) -> None:
    """Atomically create or replace one small file; synced when this returns.

    The new content is staged beside the file, or in the folder `staging` of the same file system.
    """
    folder = path.parent if staging is None else staging
    # Parts of one build may run on several hosts with one file system between them.
    staged = folder / f".{_short(path.name)}.{socket.gethostname()}-{os.getpid()}.partial"
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


def save_picture(path: Path, picture: "Image | UInt8Array", **options: object) -> None:
    """Atomically create or replace a picture, in the format of its suffix (PNG without one).

    Parameters
    ----------
    path : Path
        Its folder is made.
    picture : Image or ndarray, shape (h, w) or (h, w, 3), uint8
    **options
        Of the encoder.

    Raises
    ------
    ConfigError
        The suffix is none of a picture.
    """
    from PIL import Image

    suffix = path.suffix.lower() or ".png"
    Image.preinit()  # PNG and JPEG; all formats, some forty modules, only for the others
    kind = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        raise ConfigError(f"{path}: {suffix} is no picture that can be written; name it .png.")
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, kind, **options)
    replace_file(path, out.getvalue())


@contextmanager
def staged_files(folder: Path, called: str, last: str = "") -> Iterator[Path]:
    """Files that belong together, put into place when all of them are whole.

    Parameters
    ----------
    folder : Path
        Where they go; made if it is missing.
    called : str
        Names the set: what a kill left of it is removed by the next run.
    last : str
        The file of the set that stands for it, and is put into place after the others.

    Yields
    ------
    Path
        The folder to write them into; what lies in a folder of it goes into that of its name.
    """
    staged = folder / f".{_short(called)}.partial"
    with disk_full_is_clear(folder, ANEW):
        try:
            remove_tree(staged)
            staged.mkdir(parents=True)
            yield staged
            sync_tree(staged)
            made = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
            # Never some of these beside some of an older set.
            for name in made if len(made) > 1 else ():
                (folder / name).unlink(missing_ok=True)
            for name in sorted(made, key=lambda path: path.name == last):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged / name, folder / name)
            for place in {name.parent for name in made}:
                sync_directory(folder / place)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def read_document(
    path: Path,
    what: str = "",
    form: str = "",
    version: int | None = None,
    kind: type[WsisrError] = ConfigError,
) -> dict[str, Any]:
    """A JSON object that this program wrote.

    Parameters
    ----------
    what : str
        What it describes, with its article, for messages.
    form : str
        What its ``format`` must say; empty: anything.
    version : int, optional
        What its ``format_version`` must say.
    kind : type
        Of the error.

    Raises
    ------
    kind
        Missing, broken, of something else, or of another version.
    """
    called = f" is no {what.partition(' ')[2]}" if what else " cannot be read"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise kind(f"{path.parent}{called}: it holds no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise kind(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise kind(f"{path}{called}: it holds no JSON object")
    if form and document.get("format") != form:
        raise kind(f"{path} does not describe {what}.")
    if version is not None and document.get("format_version") != version:
        raise kind(
            f"{path} has format version {document.get('format_version')}; this program reads "
            f"{version}. Use the version that wrote it."
        )
    return document


def remove_partials(folder: Path) -> None:
    """Remove what kills left of replaced and staged files; for whoever holds the folder."""
    for path in folder.glob("*.partial"):
        remove_tree(path)


def _short(name: str) -> str:
    if len(os.fsencode(name)) <= _LONG_NAME:
        return name
    return hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
            make_durable(Path(folder, name))
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
