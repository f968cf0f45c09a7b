"""One file, one reader: find the kind, take the best exact reader, say why the others cannot.

Nothing is compared here; `wsisr.slides.opening` is the door that checks.
"""

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from wsisr.errors import SlideError
from wsisr.slides.dicom_files import is_dicom, is_dicom_folder
from wsisr.slides.discovery import TIFF_SUFFIXES
from wsisr.slides.faults import (
    OpenSlideOnlyError,
    PlainImageOnlyError,
    RefusedSlideError,
    UnconvertedError,
)
from wsisr.slides.protocol import SlideInfo
from wsisr.slides.tiff_directory import is_tiff
from wsisr.slides.tiles import TileStore

logger = logging.getLogger(__name__)

BACKENDS: dict[str, tuple[str, str]] = {
    "direct": ("wsisr.slides.direct", "open_direct"),
    "dicom": ("wsisr.slides.dicom", "open_dicom"),
    "tiffslide": ("wsisr.slides.tiffslide_backend", "open_tiffslide"),
    "openslide": ("wsisr.slides.openslide_backend", "open_openslide"),
    "image": ("wsisr.slides.image", "open_image"),
}
"""Readers by name; each opens a path to a `SlideInfo` and a `TileStore`."""

WITH_FOCAL_PLANES = ("direct", "dicom")
"""Readers that know focal planes; they take the number of one as well."""


def backends_for(path: Path) -> tuple[str, ...]:
    """Readers that may open a file, best first: exact ones before OpenSlide.

    The order is decided by the file's first bytes and its suffix, not by trial.
    """
    if path.is_dir() or is_dicom(path):
        return ("dicom", "openslide")
    if is_tiff(path):
        return ("direct", "tiffslide", "openslide", "image")
    return ("openslide", "image")


def open_with(
    path: Path, names: tuple[str, ...], focal_plane: int | None = None
) -> tuple[SlideInfo, TileStore]:
    """Open a file with the first of some readers that can.

    Parameters
    ----------
    path : Path
        A file, or the folder of one DICOM series.
    names : tuple of str
        Keys of `BACKENDS`, in order.
    focal_plane : int, optional
        Counted from 1; the middle one by default.

    Raises
    ------
    SlideError
        If none can; the message holds every reader's reason.
    """
    check_path(path)
    faults: list[str] = []
    barred: set[str] = set()
    for name in names:
        if name in barred:
            continue
        try:
            info, store = _opener(name, focal_plane)(path)
        except RefusedSlideError:
            raise
        except SlideError as error:
            if isinstance(error, OpenSlideOnlyError):
                barred = set(names) - {"openslide"}
            elif isinstance(error, PlainImageOnlyError):
                barred = set(names) - {"image"}
            elif isinstance(error, UnconvertedError):
                barred.add("tiffslide")
            faults.append(f"{name}: {_without_path(str(error), path)}")
            continue
        except Exception as error:  # slide libraries raise anything on a damaged file
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:120]}.")
            continue
        if focal_plane is not None and info.focal_plane is None:
            store.close()
            raise RefusedSlideError(
                f"{path}: focal plane {focal_plane} was asked for and {name} finds a single one; "
                "leave the option out."
            )
        if faults:
            logger.info("%s: read with %s, because %s", path.name, name, "; ".join(faults))
        return info, store
    if len(faults) == 1:
        raise SlideError(f"{path}: {faults[0].split(': ', 1)[1]}")
    suffix = path.suffix.lower()
    if suffix in TIFF_SUFFIXES and not is_tiff(path):
        raise SlideError(
            f"{path}: not a slide that can be read, it is named {suffix} but is no TIFF file; copy "
            "it again or leave it out."
        )
    raise SlideError(
        f"{path}: not a slide that can be read, the file is damaged or of an unknown kind; copy it "
        f"again or leave it out. ({' '.join(faults)})"
    )


def check_path(path: Path) -> None:
    """Refuse what is missing, unreadable, empty, or a folder without DICOM files."""
    if not path.exists():
        raise SlideError(f"{path}: there is no such file or folder; check the path.")
    if not os.access(path, os.R_OK):
        raise SlideError(f"{path}: may not be read; check its permissions.")
    if path.is_dir():
        if not is_dicom_folder(path):
            raise SlideError(
                f"{path}: a folder without DICOM files is no slide; name a slide file in it."
            )
    elif path.stat().st_size == 0:
        raise SlideError(f"{path}: the file is empty (0 bytes); copy it again.")


def _opener(name: str, focal_plane: int | None) -> Callable[[Path], tuple[SlideInfo, TileStore]]:
    module, function = BACKENDS[name]
    opener: Callable[..., tuple[SlideInfo, TileStore]] = getattr(import_module(module), function)
    if focal_plane is None or name not in WITH_FOCAL_PLANES:
        return opener
    return lambda path: opener(path, focal_plane)


def _without_path(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ")
