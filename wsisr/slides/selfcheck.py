"""Compare a few random regions with a second reader before trusting the first one."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsisr.errors import SlideError
from wsisr.slides.decode import ycbcr_to_rgb
from wsisr.slides.opening import Icc, backends_for, open_slide
from wsisr.slides.protocol import Slide

logger = logging.getLogger(__name__)

REGION_PX = 256
SECOND_READERS: dict[str, tuple[str, ...]] = {
    "direct": ("openslide", "tiffslide"),
    "dicom": ("openslide",),
    "tiffslide": ("openslide", "direct"),
    "openslide": ("direct", "dicom", "tiffslide"),
    "image": (),
}
"""Who checks whom; OpenSlide is the oracle of the field and is believed in a conflict."""


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """What a second reader says of the first one's pixels.

    Attributes
    ----------
    agrees : bool
        False if any compared pixel differs. True where nothing could be compared (`detail` says
        so).
    second_backend : str or None
        The other reader; None if no other one opens the slide.
    regions : int
        How many regions were compared.
    max_difference : int
        Largest difference found, grey levels.
    detail : str
        A sentence for the log and the store.
    """

    agrees: bool
    second_backend: str | None
    detail: str
    regions: int = 0
    max_difference: int = 0


def self_check(slide: Slide, seed: int = 0, tiles: int = 6) -> SelfCheck:
    """Compare random regions of every level with a second reader.

    Parameters
    ----------
    slide : Slide
        From `open_slide`, without ICC conversion (the second reader gives stored colours).
    seed : int
        The same seed looks at the same places.
    tiles : int
        Regions a level; those of 256 px that lie across tile borders.

    Returns
    -------
    SelfCheck
        Levels that either reader cannot read exactly are left out, and so are pixels that either
        holds for not scanned.

    Raises
    ------
    SlideError
        If one of the regions cannot be decoded: the file is damaged.
    """
    info = slide.info
    for name in SECOND_READERS.get(info.backend, ()):
        if name not in backends_for(info.path):
            continue
        try:
            second = open_slide(info.path, backend=name, cache_mib=16)
        except SlideError as error:
            logger.debug("%s: no second opinion from %s: %s", info.path.name, name, error)
            continue
        with second:
            return _compare(slide, second, seed, tiles)
    return SelfCheck(
        agrees=True,
        second_backend=None,
        detail=f"No second reader opens {info.path.name}; its pixels are not cross-checked.",
    )


def open_checked_slide(
    path: str | Path,
    *,
    seed: int = 0,
    tiles: int = 6,
    mpp: float | None = None,
    icc: Icc = "keep",
    cache_mib: float = 64,
) -> tuple[Slide, SelfCheck]:
    """Open a slide with the best reader that a second one agrees with.

    If they disagree OpenSlide is believed (a level that it cannot read exactly is then not used
    for pairs), and the reason is logged as a warning.

    Returns
    -------
    slide : Slide
    check : SelfCheck
        Of the first choice; `agrees` is False where the fall-back was taken.
    """
    with open_slide(path, cache_mib=16) as first:
        check = self_check(first, seed, tiles)
        backend: str | None = first.info.backend
    if not check.agrees:
        logger.warning("%s; reading it with %s instead.", check.detail, check.second_backend)
        backend = check.second_backend
    return open_slide(path, backend=backend, mpp=mpp, icc=icc, cache_mib=cache_mib), check


def _compare(slide: Slide, second: Slide, seed: int, tiles: int) -> SelfCheck:
    sizes = {(level.width_px, level.height_px): level for level in second.info.levels}
    regions = worst = 0
    names = (slide.info.backend, second.info.backend)
    for level in slide.info.levels:
        other = sizes.get((level.width_px, level.height_px))
        if other is None or not (level.exact and other.exact):
            continue
        rng = np.random.default_rng([seed, level.index])
        width, height = min(REGION_PX, level.width_px), min(REGION_PX, level.height_px)
        for _ in range(tiles):
            x = int(rng.integers(0, level.width_px - width + 1))
            y = int(rng.integers(0, level.height_px - height + 1))
            ours = slide.read_level(level.index, x, y, width, height)
            theirs = second.read_level(other.index, x, y, width, height)
            both = slide.read_validity(level.index, x, y, width, height)
            both &= second.read_validity(other.index, x, y, width, height)
            if level.compression.tag == "rgb":
                theirs = ycbcr_to_rgb(theirs)  # it believes the tag, not the stream
            elif level.compression.tag:
                ours = ycbcr_to_rgb(ours)
            difference = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))[both]
            regions += 1
            worst = max(worst, int(difference.max(initial=0)))
            if worst:
                return SelfCheck(
                    agrees=False,
                    second_backend=names[1],
                    regions=regions,
                    max_difference=worst,
                    detail=(
                        f"{slide.info.path.name}: {names[0]} and {names[1]} differ by up to "
                        f"{worst} grey levels on level {level.index} at ({x}, {y})"
                    ),
                )
    return SelfCheck(
        agrees=True,
        second_backend=names[1] if regions else None,
        regions=regions,
        detail=f"{names[0]} and {names[1]} agree on every pixel of {regions} random regions.",
    )
