"""Which slides a folder holds, and what they are called."""

import re
from dataclasses import dataclass
from pathlib import Path

from wsisr.errors import SlideError
from wsisr.slides.dicom_files import is_dicom, series_in, series_of

TIFF_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".qptiff", ".btf", ".tf8")
OPENSLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu", ".svslide", ".czi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom")
_LONG_SUFFIXES = (".ome.tiff", ".ome.tif", ".ome.btf")


@dataclass(frozen=True, kw_only=True)
class SlideSource:
    """A slide that can be opened, before it is opened; picklable.

    Attributes
    ----------
    path : Path
        What `open_slide` takes: the file, or the folder of a DICOM series.
    slide_id : str
        Unique in its source: the sanitised relative path without suffix.
    files : tuple of Path
        Every file that belongs to it and was found.
    kind : str
        ``"tiff"``, ``"dicom"``, ``"openslide"`` or ``"image"``.
    relative : str
        Path relative to the source, with ``/``; a file's name where the source is that file.
    """

    path: Path
    slide_id: str
    files: tuple[Path, ...]
    kind: str
    relative: str


def find_slides(source: Path) -> list[SlideSource]:
    """List the slides of a folder (or the one slide that a path names), sorted by id.

    Parameters
    ----------
    source : Path
        A folder, searched to any depth without following links to folders, or one slide.

    Returns
    -------
    list of SlideSource
        Damaged slide files are listed too (opening them fails with the reason); files that are no
        images, and hidden ones, are not. DICOM files are grouped by SeriesInstanceUID.

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
            files = series_of(source)
            return [_source(source, source.name, files, "dicom", source.stem)]
        kind = slide_kind(source)
        if kind is None:
            raise SlideError(f"{source}: {source.suffix or 'this'} is no slide or image format.")
        return [_source(source, source.name, (source,), kind, _without_suffix(source.name))]
    found: list[SlideSource] = []
    for folder in _folders(source):
        found.extend(_dicom_sources(source, folder))
        for file in sorted(folder.iterdir()):
            if not _is_visible_file(file):
                continue
            kind = slide_kind(file)
            if kind is None:
                continue
            relative = file.relative_to(source).as_posix()
            found.append(_source(file, relative, (file,), kind, _without_suffix(relative)))
    return sorted(_unique(found), key=lambda slide: slide.slide_id)


def slide_kind(path: Path) -> str | None:
    """Kind of a slide or image file by its suffix.

    None for anything else and for sound DICOM files, which are grouped by series instead.
    """
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        return "tiff"
    if suffix in OPENSLIDE_SUFFIXES:
        return "openslide"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in DICOM_SUFFIXES and not is_dicom(path):
        return "dicom"
    return None


def sanitise_id(text: str) -> str:
    """A name that is safe as a folder on every system and as a Zarr group.

    >>> sanitise_id("batch 1/slide (a).v2")
    'batch_1__slide_a_.v2'
    """
    text = re.sub(r"[/\\]+", "__", text.strip("/\\ "))
    text = re.sub(r"[^0-9A-Za-z._\-]+", "_", text)
    text = text.strip(".") or "slide"
    # zarr keeps names that start with two underscores to itself.
    return re.sub(r"^_{2,}", "_", text)


def _dicom_sources(source: Path, folder: Path) -> list[SlideSource]:
    candidates = [
        file
        for file in sorted(folder.iterdir())
        if _is_visible_file(file)
        and (file.suffix.lower() in DICOM_SUFFIXES or not slide_kind(file))
        and is_dicom(file)
    ]
    if not candidates:
        return []
    series = series_in(folder)
    found = []
    for files in series.values():
        relative = files[0].relative_to(source).as_posix()
        if len(files) == 1 or folder == source:
            found.append(_source(files[0], relative, files, "dicom", _without_suffix(relative)))
            continue
        path = folder if len(series) == 1 else files[0]
        relative = folder.relative_to(source).as_posix()
        found.append(_source(path, relative, files, "dicom", relative))
    return found


def _source(
    path: Path, relative: str, files: tuple[Path, ...], kind: str, name: str
) -> SlideSource:
    return SlideSource(
        path=path, slide_id=sanitise_id(name), files=files, kind=kind, relative=relative
    )


def _unique(slides: list[SlideSource]) -> list[SlideSource]:
    """Give slides whose ids collide (also by case alone) their suffix, then a number."""
    counts: dict[str, int] = {}
    for slide in slides:
        counts[slide.slide_id.lower()] = counts.get(slide.slide_id.lower(), 0) + 1
    taken: set[str] = {name for name, count in counts.items() if count == 1}
    renamed = []
    for slide in sorted(slides, key=lambda s: (s.relative, str(s.path))):
        slide_id = slide.slide_id
        if counts[slide_id.lower()] > 1:
            own = slide.path.name if slide.kind == "dicom" else slide.relative
            wanted = sanitise_id(f"{slide_id}-{own}" if slide.kind == "dicom" else own)
            slide_id = wanted
            number = 2
            while slide_id.lower() in taken:
                slide_id = f"{wanted}-{number}"
                number += 1
        taken.add(slide_id.lower())
        renamed.append(
            SlideSource(
                path=slide.path,
                slide_id=slide_id,
                files=slide.files,
                kind=slide.kind,
                relative=slide.relative,
            )
        )
    return renamed


def _without_suffix(relative: str) -> str:
    for suffix in _LONG_SUFFIXES:
        if relative.lower().endswith(suffix):
            return relative[: -len(suffix)]
    head, dot, tail = relative.rpartition(".")
    return head if dot and "/" not in tail and head and not head.endswith("/") else relative


def _folders(source: Path) -> list[Path]:
    found = [source]
    for folder in found:
        found.extend(
            child
            for child in sorted(folder.iterdir())
            if child.is_dir() and not child.is_symlink() and not child.name.startswith(".")
        )
    return found


def _is_visible_file(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()
