"""Open any slide: find the kind, choose the best exact reader, say why the others cannot."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Literal

from wsisr.errors import SlideError
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides.dicom_files import is_dicom, is_dicom_folder
from wsisr.slides.discovery import TIFF_SUFFIXES
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.icc import srgb_converter
from wsisr.slides.protocol import Slide, SlideInfo
from wsisr.slides.remote import is_url, open_remote
from wsisr.slides.tiff_directory import is_tiff
from wsisr.slides.tiles import TiledSlide, TileStore

logger = logging.getLogger(__name__)

BACKENDS: dict[str, tuple[str, str]] = {
    "direct": ("wsisr.slides.direct", "open_direct"),
    "dicom": ("wsisr.slides.dicom", "open_dicom"),
    "tiffslide": ("wsisr.slides.tiffslide_backend", "open_tiffslide"),
    "openslide": ("wsisr.slides.openslide_backend", "open_openslide"),
    "image": ("wsisr.slides.image", "open_image"),
}
"""Readers by name; each opens a path to a `SlideInfo` and a `TileStore`."""

Icc = Literal["keep", "srgb"]


def backends_for(path: Path) -> tuple[str, ...]:
    """Readers that may open a file, best first: exact ones before OpenSlide.

    The order is decided by the file's first bytes and its suffix, not by trial.
    """
    if path.is_dir() or is_dicom(path):
        return ("dicom", "openslide")
    if is_tiff(path):
        return ("direct", "tiffslide", "openslide", "image")
    return ("openslide", "image")


def open_slide(
    path: str | Path,
    *,
    backend: str | None = None,
    mpp: float | None = None,
    icc: Icc = "keep",
    cache_mib: float = 64,
) -> Slide:
    """Open a slide, an image or a DICOM series.

    Parameters
    ----------
    path : str or Path
        A file, or the folder of one DICOM series. Any file of a DICOM series opens the series.
        A string with a protocol (``https://``, ``s3://``) opens a TIFF-family slide there.
    backend : str, optional
        ``"direct"``, ``"dicom"``, ``"tiffslide"``, ``"openslide"`` or ``"image"``; by default the
        first exact one that can read it.
    mpp : float, optional
        Micrometres per level-0 pixel; replaces what the file says.
    icc : {"keep", "srgb"}
        ``"srgb"`` converts every pixel by the embedded profile; a slide without one is unchanged.
    cache_mib : float
        Bound on decoded tiles that are kept, MiB.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        If the file is missing, damaged or of a kind that nothing here reads.
    MppError
        If `mpp` is implausible.
    """
    url = str(path) if is_url(path) else ""
    path = Path(path)
    if icc not in ("keep", "srgb"):
        raise SlideError(f"{path}: icc must be 'keep' or 'srgb', not {icc!r}.")
    if backend is not None and backend not in BACKENDS:
        raise SlideError(f"{path}: no reader {backend!r}; there are {', '.join(BACKENDS)}.")
    store: TileStore
    if url:
        if backend not in (None, "direct"):
            raise SlideError(f"{url}: slides on servers are read by 'direct' only.")
        info, store = open_remote(url)
    else:
        _check_path(path)
        names = (backend,) if backend is not None else backends_for(path)
        info, store = _first_that_opens(path, names)
    if mpp is not None:
        value = make_mpp(mpp, mpp, MppSource.OVERRIDE)
        info = replace(info, mpp=value, mpp_problem="")
    convert = None
    if icc == "srgb":
        profile = store.icc_profile()
        if profile is None:
            note = "No ICC profile is embedded, so there was nothing to convert to sRGB."
            info = replace(info, quirks=(*info.quirks, note))
        else:
            convert = srgb_converter(profile, path)
    return TiledSlide(
        info,
        store,
        cache_mib=cache_mib,
        convert=convert,
        reopen=(_reopen, (url or path, info.backend, mpp, icc, cache_mib)),
    )


def _reopen(path: str | Path, backend: str, mpp: float | None, icc: Icc, cache_mib: float) -> Slide:
    return open_slide(path, backend=backend, mpp=mpp, icc=icc, cache_mib=cache_mib)


def _check_path(path: Path) -> None:
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


def _first_that_opens(path: Path, names: tuple[str, ...]) -> tuple[SlideInfo, TileStore]:
    faults: list[str] = []
    for name in names:
        module, function = BACKENDS[name]
        opener: Callable[[Path], tuple[SlideInfo, TileStore]]
        opener = getattr(import_module(module), function)
        try:
            info, store = opener(path)
        except RefusedSlideError:
            raise
        except SlideError as error:
            faults.append(f"{name}: {_without_path(str(error), path)}")
            continue
        except Exception as error:  # slide libraries raise anything on a damaged file
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:120]}.")
            continue
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


def _without_path(message: str, path: Path) -> str:
    return message.removeprefix(f"{path}: ")
