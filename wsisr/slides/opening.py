"""The one door to a file's pixels: the best exact reader, judged by a second one.

Every command and `wsisr.open_slide` come through here, and so read the same pixels of a file. The
verdict is computed once for a content and the versions of its readers (`wsisr.slides.verdicts`).
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from wsisr.arrays import UInt8Array
from wsisr.errors import SlideError
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides.icc import srgb_converter
from wsisr.slides.plain_images import MAX_IMAGE_PX
from wsisr.slides.protocol import ReaderVerdict, Slide, SlideInfo
from wsisr.slides.readers import BACKENDS, backends_for, check_path, open_with
from wsisr.slides.remote import is_url, open_remote
from wsisr.slides.tiles import TiledSlide, TileStore
from wsisr.slides.verdicts import load_verdict, save_verdict, verdict_key

logger = logging.getLogger(__name__)

Icc = Literal["keep", "srgb"]


def open_slide(
    path: str | Path,
    *,
    backend: str | None = None,
    mpp: float | None = None,
    icc: Icc = "keep",
    cache_mib: float = 64,
    focal_plane: int | None = None,
    check: bool = True,
    white: float | None = None,
) -> Slide:
    """Open a slide, an image or a DICOM series.

    Parameters
    ----------
    path : str or Path
        A file, or the folder of one DICOM series. Any file of a DICOM series opens the series.
        A string with a protocol (``https://``, ``s3://``) opens a TIFF-family slide there.
    backend : str, optional
        ``"direct"``, ``"dicom"``, ``"tiffslide"``, ``"openslide"`` or ``"image"``: that reader
        and no second opinion (``info.verdict`` is None). By default the first exact one that can
        read the file is compared with a second reader, and OpenSlide is believed where they
        differ; ``info.verdict`` says what was compared. The verdict is kept in the user's cache
        folder.
    mpp : float, optional
        Micrometres per level-0 pixel; replaces what the file says.
    icc : {"keep", "srgb"}
        ``"srgb"`` converts every pixel by the embedded profile; a slide without one is unchanged.
    cache_mib : float
        Bound on decoded tiles that are kept, MiB.
    focal_plane : int, optional
        Which of several focal planes, counted from 1; by default the middle one (of an even
        number the later of the two), and a quirk says so.
    check : bool
        False leaves the second opinion out as a named backend does: for callers that judge many
        small files by a few of them (`wsisr.slides.stack`).
    white : float, optional
        Sample value that is white, for a plain image of more than 8 bits.

    Returns
    -------
    Slide

    Raises
    ------
    SlideError
        If the file is missing, damaged, of a kind that nothing here reads, or shown differently
        by two readers of which neither is OpenSlide.
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
        detail = "read over the network by direct alone, so 0 regions were compared."
        info = replace(
            info, verdict=ReaderVerdict(status="unchecked", reader="direct", detail=detail)
        )
    elif white is not None:
        from wsisr.slides.image import open_image

        check_path(path)
        info, store = open_image(path, white)
        if check:
            info = replace(info, verdict=_verdict(info, store, focal_plane))
    elif backend is not None or not check:
        names = backends_for(path) if backend is None else (backend,)
        info, store = open_with(path, names, focal_plane)
    else:
        info, store = _open_checked(path, focal_plane)
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
        reopen=partial(
            open_slide,
            url or path,
            backend=info.backend,
            mpp=mpp,
            icc=icc,
            cache_mib=cache_mib,
            focal_plane=focal_plane,
            white=white,
        ),
    )


def judge_slide(
    path: str | Path, backend: str | None = None, focal_plane: int | None = None
) -> ReaderVerdict:
    """The verdict on a file, or on one named reader of it, computed now or taken from the cache.

    Raises
    ------
    SlideError
        As `open_slide`.
    """
    path = Path(path)
    check_path(path)
    names = backends_for(path) if backend is None else (backend,)
    info, store = open_with(path, names, focal_plane)
    try:
        return _verdict(info, store, focal_plane)
    finally:
        store.close()


def _open_checked(path: Path, focal_plane: int | None) -> tuple[SlideInfo, TileStore]:
    """The reader that the verdict names, with the verdict."""
    check_path(path)
    info, store = open_with(path, backends_for(path), focal_plane)
    try:
        verdict = _verdict(info, store, focal_plane)
        if verdict.reader != info.backend:
            logger.warning(
                "%s: %s; please report the slide.", path.name, verdict.line().rstrip(".")
            )
            store.close()
            info, store = open_with(path, (verdict.reader,), focal_plane)
    except BaseException:
        store.close()
        raise
    return replace(info, verdict=verdict), store


def _verdict(info: SlideInfo, store: TileStore, focal_plane: int | None) -> ReaderVerdict:
    key = verdict_key(info, focal_plane)
    verdict = load_verdict(key)
    if verdict is None or verdict.reader not in BACKENDS:
        from wsisr.slides.selfcheck import judge

        verdict = judge(TiledSlide(info, store, cache_mib=16))
        save_verdict(key, verdict)
    if verdict.status == "unchecked":
        logger.warning(
            "%s: %s; a build takes it with --unchecked accept alone.",
            info.path.name, verdict.line().rstrip("."),
        )  # fmt: skip
    return verdict


def read_whole(path: Path, white: float | None = None) -> tuple[UInt8Array, SlideInfo]:
    """Level 0 of an image file in one piece, through the same door as slides.

    Parameters
    ----------
    white : float, optional
        Sample value that is white, for samples of more than 8 bits.

    Returns
    -------
    pixels : ndarray, shape (height, width, 3), uint8
        Upright; transparency laid on white.
    info : SlideInfo
        `grey` where one channel is stored.

    Raises
    ------
    SlideError
        As `open_slide`; or it is larger than a plain image may be.
    """
    with open_slide(path, white=white) as slide:
        level = slide.info.levels[0]
        if level.width_px * level.height_px > MAX_IMAGE_PX:
            raise SlideError(
                f"{path}: {level.width_px} x {level.height_px} px is too large to be one image; "
                "cut it into patches (wsisr build-pairs)."
            )
        return slide.read_level(0, 0, 0, level.width_px, level.height_px), slide.info
