"""Which files make one DICOM slide, and what their headers state; no pixel is touched."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsisr.errors import SlideError
from wsisr.slides.faults import RefusedSlideError, quiet

WSM_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
MEDIA_CLASS = "1.2.840.10008.1.3.10"
"""Media Storage Directory: the index of a medium (PS3.10 section 8), called DICOMDIR."""
DAMAGED = "damaged:"
"""Begins the key of a damaged file in `series_in`."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """pydicom also warns, of every value that breaks a rule."""
    with quiet("pydicom"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_dicom(path: Path) -> bool:
    """Whether a file has the DICOM mark at byte 128."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder directly holds at least one DICOM file."""
    return any(is_dicom(file) for file in sorted(folder.iterdir()) if file.is_file())


def series_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Whole-slide series of a folder: SeriesInstanceUID -> files, sorted by name.

    Files that are damaged stand under a key of their own, so that they are not lost from sight.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        if not file.is_file() or not is_dicom(file):
            continue
        header = read_identity(file)
        if header is None:
            found[f"{DAMAGED}{file.name}"].append(file)
        elif str(header.get("SOPClassUID", "")) == WSM_CLASS:
            found[str(header.get("SeriesInstanceUID", ""))].append(file)
    return {uid: tuple(files) for uid, files in found.items()}


def series_of(path: Path) -> tuple[Path, ...]:
    """All files of the series that a path (a file of it, or its folder) stands for.

    Raises
    ------
    SlideError
        If a folder holds none or several whole-slide series.
    """
    if path.is_dir():
        series = series_in(path)
        if len(series) == 1:
            return next(iter(series.values()))
        if not series:
            raise SlideError(f"{path}: holds no DICOM whole-slide image; name a slide file.")
        names = ", ".join(files[0].name for files in series.values())
        raise SlideError(
            f"{path}: holds {len(series)} DICOM series; name one file of the wanted one ({names})."
        )
    header = read_identity(path)
    if header is None:
        raise RefusedSlideError(f"{path}: damaged DICOM file; copy it again.")
    if not header.get("SOPClassUID"):
        raise RefusedSlideError(
            f"{path}: the index of a medium (DICOMDIR), no image; name a slide that it lists."
        )
    if str(header.get("SOPClassUID", "")) != WSM_CLASS:
        raise SlideError(f"{path}: a DICOM file, but no whole-slide microscopy image.")
    uid = str(header.get("SeriesInstanceUID", ""))
    return series_in(path.parent).get(uid, (path,))


def series_uid(path: Path) -> str:
    """SeriesInstanceUID of a file; empty where it has none or is damaged."""
    header = read_identity(path)
    return "" if header is None else str(header.get("SeriesInstanceUID", ""))


def is_dicomdir(path: Path) -> bool:
    """Whether a DICOM file is the index of a medium and no image."""
    header = read_identity(path)
    return header is not None and not header.get("SOPClassUID")


def read_identity(path: Path) -> Any:
    """The few tags that tell what a file is, or None if it is damaged."""
    import pydicom

    tags = ["SOPClassUID", "SeriesInstanceUID"]
    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == MEDIA_CLASS:
                return header
            # Values are parsed, and complained about, when they are first looked at.
            return header if all(header.get(tag) for tag in tags) else None
    except Exception:  # a damaged file raises whatever the parser met
        return None


def patient_id(path: Path) -> str:
    """PatientID (0010,0020) of a file; empty where it has none or is damaged.

    Nothing else that may name a person is read: no PatientName, no accession number.
    """
    import pydicom

    try:
        with quiet_pydicom():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"])
            return str(header.get("PatientID", "") or "").strip()
    except Exception:  # a damaged file raises whatever the parser met
        return ""


def spacing_um(header: Any) -> tuple[float, float] | None:
    """(x, y) um per pixel; PixelSpacing is (row distance, column distance) in mm."""
    groups = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    for group in (_first(header, name) for name in groups):
        if measures := _first(group, "PixelMeasuresSequence"):
            header = measures
            break
    spacing = header.get("PixelSpacing")
    if not spacing or len(spacing) != 2:
        return None
    return float(spacing[1]) * 1000.0, float(spacing[0]) * 1000.0


def objective_power(header: Any) -> float | None:
    power = _first(header, "OpticalPathSequence").get("ObjectiveLensPower")
    return float(power) if power else None


def icc_profile(header: Any) -> bytes | None:
    profile = _first(header, "OpticalPathSequence").get("ICCProfile")
    return bytes(profile) if profile else None


def _first(header: Any, name: str) -> Any:
    """The first item of a sequence; an empty one where there is none."""
    return next(iter(header.get(name) or ()), {})
