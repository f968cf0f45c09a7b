"""Which slides a folder holds, and what they are called."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wsisr.errors import SlideError
from wsisr.slides.dicom_files import (
    DAMAGED,
    is_dicom,
    is_dicomdir,
    series_in,
    series_of,
    series_uid,
)
from wsisr.slides.ids import draw_keys, slide_id, without_suffix
from wsisr.slides.leftout import (
    CLOSED,
    DANGLING,
    DICOMDIR,
    LOOP,
    OTHER_DICOM,
    SPECIAL,
    TWICE,
    VMS_PART,
    ZARR,
    Kind,
    LeftOut,
    asides,
    unread_format,
    vms_parts,
)

TIFF_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".qptiff", ".btf", ".tf8")
OPENSLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu", ".svslide", ".czi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MORE_IMAGE_SUFFIXES = (
    *(
        ".gif",
        ".apng",
        ".mpo",
        ".jpe",
        ".jfif",
        ".jp2",
        ".j2k",
        ".j2c",
        ".jpc",
        ".jpf",
        ".jpx",
        ".avif",
    ),
    *(".avifs", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".icb", ".vda", ".vst", ".pcx"),
    *(".sgi", ".rgb", ".rgba", ".bw", ".psd", ".ras", ".dds", ".qoi", ".pfm", ".msp"),
    *(".xbm", ".xpm", ".ico", ".icns", ".cur"),
)
"""Images that nobody scans or cuts patches into: read where one is named, and listed where a caller
has a use for them."""
DICOM_SUFFIXES = (".dcm", ".dicom")


@dataclass(frozen=True, kw_only=True)
class SlideSource:
    """A slide that can be opened, before it is opened; picklable.

    Attributes
    ----------
    path : Path
        What `open_slide` takes: the file, or the folder of a DICOM series.
    slide_id : str
        See `wsisr.slides.ids.slide_id`.
    files : tuple of Path
        Every file that belongs to it and was found.
    kind : str
        ``"tiff"``, ``"dicom"``, ``"openslide"`` or ``"image"``.
    relative : str
        Path relative to the source, with ``/``; a file's name where the source is that file.
    draw_key : str
        What its random draws hang on (`wsisr.slides.ids.draw_keys`); empty: its id.
    """

    path: Path
    slide_id: str
    files: tuple[Path, ...]
    kind: str
    relative: str
    draw_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Slides of a source sorted by id, and what was seen and is none."""

    slides: tuple[SlideSource, ...]
    left_out: tuple[LeftOut, ...] = ()


def find_slides(source: Path) -> list[SlideSource]:
    """The slides of `list_source`, for callers that need no word of what is none."""
    return list(list_source(source).slides)


def list_source(source: Path, images: tuple[str, ...] = IMAGE_SUFFIXES) -> Listing:
    """List the slides of a folder (or the one slide that a path names), sorted by id.

    Parameters
    ----------
    source : Path
        A folder, searched to any depth, or one slide. Links to folders are followed; a folder
        (or a file) that two ways lead to is listed once, under its real place where that is
        inside the source.
    images : tuple of str
        Suffixes of the plain images to list.

    Returns
    -------
    Listing
        Damaged slide files are listed too (opening them fails with the reason). DICOM files are
        grouped by SeriesInstanceUID. What looks like a slide and is none (parts of a VMS,
        DICOMDIR, thumbnails, masks), formats that nobody here reads and links that lead nowhere
        are named with the reason; files of other kinds, and hidden ones, are not.

    Raises
    ------
    SlideError
        If the path does not exist or is a file that is no slide.
    """
    source = Path(source)
    if not source.exists():
        raise SlideError(f"{source}: there is no such file or folder; check the path.")
    if source.is_file():
        if is_dicom(source):
            files, uid = series_of(source), series_uid(source)
            slide = _source(source, source.name, files, "dicom", slide_id("", uid))
            return Listing(slides=_with_keys([slide]))
        kind = slide_kind(source, images)
        if kind is None:
            why = unread_format(source.name, is_slide_name=_slide_name(source))
            why = why or f"{source.suffix or 'this'} is no slide or image format"
            raise SlideError(f"{source}: {why}.")
        files = (source, *_parts_of(source))
        slide = _source(source, source.name, files, kind, slide_id(source.name))
        return Listing(slides=_with_keys([slide]))
    left_out: list[LeftOut] = []
    found: list[SlideSource] = []
    for folder, children in _folders(source, left_out).items():
        found.extend(_dicom_sources(source, folder, children, left_out))
        found.extend(_file_sources(source, children, images, left_out))
    found = _without_asides(_once(found, left_out), left_out)
    return Listing(
        slides=_with_keys(found),
        left_out=tuple(sorted(left_out, key=lambda item: (item.kind, item.relative))),
    )


def slide_kind(path: Path, images: tuple[str, ...] = IMAGE_SUFFIXES) -> str | None:
    """Kind of a slide or image file by its suffix.

    None for anything else and for sound DICOM files, which are grouped by series instead.
    """
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return "tiff"
    if suffix in OPENSLIDE_SUFFIXES:
        return "openslide"
    if suffix in images:
        return "image"
    if suffix in DICOM_SUFFIXES and not is_dicom(path):
        return "dicom"
    return None


def _slide_name(path: Path) -> bool:
    """Whether a name without its last suffix is that of a slide, as of an unfinished download."""
    suffix = Path(path.stem).suffix.lower()
    return suffix in (*TIFF_SUFFIXES, *OPENSLIDE_SUFFIXES, *DICOM_SUFFIXES)


def _parts_of(path: Path) -> tuple[Path, ...]:
    return vms_parts(path) if path.suffix.lower() in (".vms", ".vmu") and path.is_file() else ()


def _file_sources(
    source: Path, children: list[Path], images: tuple[str, ...], left_out: list[LeftOut]
) -> list[SlideSource]:
    """Slides of a folder that are files, without the parts of others."""
    files = [file for file in children if not file.name.startswith(".")]
    owned = {part for file in files for part in _parts_of(file)}
    found = []
    for file in files:
        relative = file.relative_to(source).as_posix()
        if file.is_symlink() and not file.exists():
            left_out.append(LeftOut(relative=relative, kind="link", reason=DANGLING))
            continue
        if not file.is_file():
            if not file.is_dir():
                left_out.append(LeftOut(relative=relative, kind="format", reason=SPECIAL))
            continue
        kind = slide_kind(file, images)
        if file in owned:
            left_out.append(LeftOut(relative=relative, kind="part", reason=VMS_PART))
        elif kind is not None:
            members = (file, *_parts_of(file))
            found.append(_source(file, relative, members, kind, slide_id(relative)))
        elif reason := unread_format(file.name, is_slide_name=_slide_name(file)):
            left_out.append(LeftOut(relative=relative, kind="format", reason=reason))
    return found


def _once(slides: list[SlideSource], left_out: list[LeftOut]) -> list[SlideSource]:
    """Links to files that are listed already are the same slide, not another."""
    taken: dict[str, SlideSource] = {}
    for slide in sorted(slides, key=lambda s: (s.files[0].is_symlink(), s.relative)):
        first = taken.setdefault(os.path.realpath(slide.files[0]), slide)
        if first is not slide:
            left_out.append(LeftOut(relative=slide.relative, kind="part", reason=TWICE))
    return list(taken.values())


def _without_asides(slides: list[SlideSource], left_out: list[LeftOut]) -> list[SlideSource]:
    """Thumbnails and masks beside slides are none."""
    beside = asides({slide.relative: slide.kind for slide in slides})
    for relative, (kind, reason) in beside.items():
        left_out.append(LeftOut(relative=relative, kind=kind, reason=reason))
    return [slide for slide in slides if slide.relative not in beside]


def _dicom_sources(
    source: Path, folder: Path, children: list[Path], left_out: list[LeftOut]
) -> list[SlideSource]:
    candidates = [
        file
        for file in children
        if _is_visible_file(file)
        and (file.suffix.lower() in DICOM_SUFFIXES or not slide_kind(file))
        and is_dicom(file)
    ]
    if not candidates:
        return []
    series = series_in(folder)
    for file in sorted(set(candidates) - {file for files in series.values() for file in files}):
        index = is_dicomdir(file)
        kind: Kind = "index" if index else "part"
        reason = DICOMDIR if index else OTHER_DICOM
        relative = file.relative_to(source).as_posix()
        left_out.append(LeftOut(relative=relative, kind=kind, reason=reason))
    found = []
    here = folder.relative_to(source).as_posix() if folder != source else ""
    for uid, files in series.items():
        relative = files[0].relative_to(source).as_posix()
        # What else the folder holds may change what the series is called, but not its id.
        own = slide_id(relative) if uid.startswith(DAMAGED) else slide_id(here, uid)
        path = files[0]
        if len(files) > 1 and folder != source:
            path = folder if len(series) == 1 else path
            relative = here
        found.append(_source(path, relative, files, "dicom", own))
    return found


def _source(
    path: Path, relative: str, files: tuple[Path, ...], kind: str, own_id: str
) -> SlideSource:
    return SlideSource(path=path, slide_id=own_id, files=files, kind=kind, relative=relative)


def _with_keys(slides: list[SlideSource]) -> tuple[SlideSource, ...]:
    """Sorted by id, each with what its draws hang on."""
    names = [s.relative if s.path.is_dir() else without_suffix(s.relative) for s in slides]
    keys = draw_keys(names, [slide.slide_id for slide in slides])
    keyed = [replace(slide, draw_key=key) for slide, key in zip(slides, keys, strict=True)]
    return tuple(sorted(keyed, key=lambda slide: slide.slide_id))


def folders_of(source: Path) -> dict[Path, list[Path]]:
    """Every folder of a source that may hold slides or what belongs to them, each once, and what
    lies in it, sorted."""
    return _folders(source, [])


def _folders(source: Path, left_out: list[LeftOut]) -> dict[Path, list[Path]]:
    """Folders of a source, real ones before links to others, each listed once.

    Stores, their reports and other Zarr folders hold no slides.
    """

    def leave_out(folder: Path, kind: Kind, reason: str) -> None:
        relative = folder.relative_to(source).as_posix()
        left_out.append(LeftOut(relative=relative, kind=kind, reason=reason))

    # A link to a folder that holds the source would list its neighbours, and the source in it.
    seen = {os.path.realpath(parent) for parent in source.resolve().parents}
    found: dict[Path, list[Path]] = {}
    waiting, links = [source], list[Path]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = os.path.realpath(folder)
        if real in seen:
            leave_out(folder, "part", LOOP)
            continue
        seen.add(real)
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            if folder == source:
                raise SlideError(f"{source}: cannot be listed ({error.strerror}).") from None
            leave_out(folder, "link", CLOSED)
            continue
        found[folder] = children
        for child in reversed(children):
            if child.name.startswith(".") or not child.is_dir() or _is_output(child):
                continue
            if child.suffix.lower() == ".zarr":
                leave_out(child, "format", ZARR)
            elif child.is_symlink():
                links.append(child)
            else:
                waiting.append(child)
        links.sort()
    return found


def _is_output(folder: Path) -> bool:
    """Whether a folder is a pair store, what its build left beside it, or its report."""
    if folder.suffix == ".report":
        return (folder / "failures.csv").is_file()
    if folder.name.endswith(".zarr"):
        with suppress(OSError):
            return b'"wsisr"' in (folder / "zarr.json").read_bytes()
    return folder.name.endswith(".zarr.partial")


def _is_visible_file(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()
