"""Slides that are not worked on where they lie: copied to a fast disk, one by one, and removed.

Slides at addresses come this way too. What stands for them here is a folder of their names,
sizes and times with the first bytes of each (annotations whole), so that listing them, and whose
they are, is found out as in any folder; the slide itself is fetched when its turn has come.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from wsisr.building.layout import SlideTask
from wsisr.errors import BuildError, SlideError
from wsisr.files import disk_full_is_clear, remove_tree
from wsisr.host import kernel_lock
from wsisr.slides.discovery import DICOM_SUFFIXES, OPENSLIDE_SUFFIXES, TIFF_SUFFIXES
from wsisr.store.object_files import ObjectFiles, url_of

if TYPE_CHECKING:
    from wsisr.building.state import BuildRequest

PREFIX = "wsisr-stage-"
LOCK = ".lock"
HEAD_BYTES = 4096
DICOM_HEAD_BYTES = 256 << 10
WHOLE_BYTES = 64 << 20
"""Larger files that are no slides (archives, tables) are not fetched: their names are enough."""
_FULL = (
    "It holds one slide for each worker at a time: make room there, use fewer --workers, or name a "
    "larger disk with --stage, and run the same command again."
)


@dataclass(frozen=True, kw_only=True)
class SlideStage:
    """Where slides are copied to; picklable.

    Attributes
    ----------
    folder : Path
        On a fast disk of whoever works on the slide.
    origin : ObjectFiles or None
        Where slides come from that do not lie here.
    shadow : Path or None
        What stands for them here.
    """

    folder: Path
    origin: ObjectFiles | None = None
    shadow: Path | None = None


@contextmanager
def opened_source(request: "BuildRequest") -> Iterator["BuildRequest"]:
    """A request whose source lies here: itself, or with what stands for slides at an address.

    Raises
    ------
    BuildError
        If nothing lies at the address, or the staging folder cannot be made.
    StoreError
        If it cannot be reached.
    """
    url = url_of(request.source)
    if url is None and request.stage is None:
        yield request
        return
    folder = Path(tempfile.gettempdir()) if request.stage is None else request.stage
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"{folder}: slides cannot be copied there ({error.strerror}); name another folder with "
            "--stage."
        ) from error
    sweep(folder)
    if url is None:
        yield replace(request, stage=folder)
        return
    with own_folder(folder) as shadow:
        origin, objects, single = _list(url)
        place = shadow / (origin.url.rpartition("/")[2] or "slides")
        with disk_full_is_clear(folder, _FULL):
            _draw(origin, objects, place)
        source = place / single if single else place
        yield replace(request, source=source, stage=folder, origin=origin)


def stage_of(request: "BuildRequest") -> SlideStage | None:
    """How the slides of a request are staged; None: they are read where they lie."""
    if request.stage is None:
        return None
    source = request.source
    shadow = None if request.origin is None else source if source.is_dir() else source.parent
    return SlideStage(folder=request.stage, origin=request.origin, shadow=shadow)


@contextmanager
def staged(task: SlideTask) -> Iterator[SlideTask]:
    """The task with its slide on the fast disk, for the time of the block.

    Raises
    ------
    SlideError
        If the slide could not be copied whole, or has changed since it was listed.
    DiskFullError
        If the fast disk is full.
    """
    stage = task.stage
    if stage is None:
        yield task
        return
    files = _with_companions(task)
    base = Path(os.path.commonpath([path.parent for path in files]))
    with disk_full_is_clear(stage.folder, _FULL), own_folder(stage.folder) as folder:
        for path in files:
            target = folder / path.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, target, stage)

        def moved(path: Path) -> Path:
            return folder / path.relative_to(base) if path.is_relative_to(base) else path

        yield replace(task, source=_mapped(task.source, moved), detail=_mapped(task.detail, moved))


def without_stage(text: str, stage: SlideStage | None) -> str:
    """A text without the places where slides lay for a while."""
    if stage is None:
        return text
    here = rf"{re.escape(str(stage.folder))}/{PREFIX}[^/\s]*/"
    return re.sub(here, "", text)


def sweep(folder: Path) -> None:
    """Remove what killed runs left in a staging folder; what a living process uses stays."""
    for left in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):
            fd = os.open(left / LOCK, os.O_RDWR)
            try:
                # Where the file system has no locks nobody can tell, and nothing is removed.
                if kernel_lock(fd):
                    remove_tree(left)
            finally:
                os.close(fd)


@contextmanager
def own_folder(stage: Path) -> Iterator[Path]:
    """A new folder that goes with the block, or after a kill with the next `sweep`."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=stage))
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        kernel_lock(fd)
        if folder.is_dir():  # nobody swept it before it was locked
            break
        os.close(fd)
    try:
        yield folder
    finally:
        remove_tree(folder)
        os.close(fd)


def _with_companions(task: SlideTask) -> list[Path]:
    """Every file of a slide, the folder beside a MIRAX file included."""
    files = list(task.files)
    for path in task.files:
        if path.suffix.lower() == ".mrxs":
            files += sorted(p for p in path.with_suffix("").rglob("*") if p.is_file())
    return list(dict.fromkeys(files))


def _copy(path: Path, target: Path, stage: SlideStage) -> None:
    """Bring one file, whole."""
    expected = path.stat().st_size
    if stage.origin is None or stage.shadow is None:
        shutil.copyfile(path, target)
        name, now = str(path), path.stat().st_size
    else:
        key = path.relative_to(stage.shadow).as_posix()
        name, now = f"{stage.origin.address}/{key}", expected
        stage.origin.fetch(key, target)
    size = target.stat().st_size
    if not size == now == expected:
        raise SlideError(
            f"{name}: {size:,} bytes came of {expected:,}: it was cut off, or has changed since it "
            "was listed; run the build again."
        )


def _mapped(value: Any, moved: Callable[[Path], Path]) -> Any:
    """A value with its paths where they lie now."""
    if isinstance(value, Path):
        return moved(value)
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, moved) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: _mapped(getattr(value, f.name), moved) for f in fields(value) if f.init}
        return replace(value, **own)
    return value


def _list(url: str) -> tuple[ObjectFiles, Mapping[str, Any], str]:
    """The files of an address, what lies below, and the one slide if it names one."""
    files = ObjectFiles(url)
    found = files.objects("") if files.lists else {}
    if found:
        return files, found, ""
    above, _, name = files.url.rpartition("/")
    files = ObjectFiles(above)
    try:
        one = {name: files.head(name)}
    except FileNotFoundError as error:
        raise BuildError(
            f"{url}: nothing lies there; check the address (a folder of slides, or one slide)."
        ) from error
    if files.lists and name.lower().endswith(DICOM_SUFFIXES):
        # Its series lies beside it.
        one = {key: meta for key, meta in files.objects("").items() if "/" not in key}
    return files, one, name


def _draw(origin: ObjectFiles, objects: Mapping[str, Any], place: Path) -> None:
    """Make the folder that stands for what lies at an address."""
    chosen = {}
    for key, meta in objects.items():
        parts = PurePosixPath(key).parts
        if ".." in parts or "\\" in key or key.startswith("/") or "\0" in key:
            raise BuildError(f"{origin.address}: {key!r} is no name of a file; rename it there.")
        if not any(part.endswith(".zarr") for part in parts[:-1]) and not key.endswith("/"):
            chosen[key] = meta

    def draw(key: str) -> None:
        size, target = int(chosen[key]["size"]), place / key
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = target.suffix.lower()
        slide = suffix in (*TIFF_SUFFIXES, *OPENSLIDE_SUFFIXES)
        head = HEAD_BYTES if slide else DICOM_HEAD_BYTES
        if not slide and suffix not in DICOM_SUFFIXES and suffix and size <= WHOLE_BYTES:
            head = size
        target.write_bytes(origin.head_of(key, min(head, size)) if size else b"")
        os.truncate(target, size)
        when = chosen[key]["last_modified"].timestamp()
        os.utime(target, (when, when))

    place.mkdir(parents=True, exist_ok=True)
    origin.together(draw, list(chosen))
