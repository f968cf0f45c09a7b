"""Judge a reader by a second one before its pixels are trusted.

Random regions of every level are read by both. A region where either has scanned nothing is no
comparison, and a file on which nothing was compared is *unchecked*, not passed. Levels and sizes
that the two see differently are a disagreement like pixels that differ.

One difference is no fault of the reader: where the file's colour tag contradicts the compressed
stream, readers that believe the tag show YCbCr as if it were RGB, or the reverse. Ours decides
from the stream; a difference that the JFIF conversion explains to a few grey levels still proves
the place and the content of every pixel, and is told as what it is.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.errors import SlideError
from wsisr.runners import in_threads
from wsisr.slides.decode import ycbcr_to_rgb
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.openslide_backend import OpenSlideStore
from wsisr.slides.protocol import Level, ReaderVerdict
from wsisr.slides.second_readers import SECOND_READERS, open_second
from wsisr.slides.tiles import WHITE, TiledSlide

logger = logging.getLogger(__name__)

REGION_PX = 256
TILES = 6
"""Regions a level."""
DRAWS = 18
"""Places looked at a level to find textured ones: bare glass proves little."""
MIN_TEXTURE = 2.0
"""Standard deviation of a region's greenest detail, grey levels, that is more than bare glass."""
SIZE_SLACK_PX = 1
"""Levels that are stored padded are cut to their true size, which readers round differently."""
COLOUR_TOLERANCE = 3
"""What two roundings of the YCbCr conversion may differ by, grey levels."""
STREAM_DECIDES = ("jpeg", "jpeg2000", "jpeg-ls", "htj2k")
"""Codecs whose stream says more of its colours than the file's tag does."""
ROUNDING = 2
"""The same where a second reader other than OpenSlide converts YCbCr or ink in its own way."""
CONVERTED = ("ycbcr", "cmyk")
AUTHORITY = "openslide"


Region = tuple[int, int, int, int, UInt8Array, BoolArray]
"""x, y, width, height, what the first reader shows, and which of it was scanned."""


@dataclass(kw_only=True)
class _Tally:
    """What was compared so far."""

    regions: int = 0
    levels: set[int] = field(default_factory=set)
    seconds: list[str] = field(default_factory=list)
    recoloured: set[str] = field(default_factory=set)
    rounding: int = 0


@dataclass(frozen=True, kw_only=True)
class _Conflict:
    second: str
    detail: str
    difference: int = 0


def judge(slide: TiledSlide) -> ReaderVerdict:
    """Compare regions of every level with other readers, the same ones each time.

    They are of 256 px, across tile borders, on texture where there is some.

    Parameters
    ----------
    slide : TiledSlide
        Without ICC conversion: the others give stored colours.

    Returns
    -------
    ReaderVerdict
        Levels that no second reader sees, or reads exactly, are not compared (the sentence names
        them); regions that either cannot decode, and pixels that either holds for not scanned,
        are left out.

    Raises
    ------
    RefusedSlideError
        If two readers differ and OpenSlide, which would be believed, has no say.
    """
    info = slide.info
    slide.tolerate()  # a damaged tile is no place to compare; who reads it is told
    tally = _Tally()
    pending = {level.index for level in info.levels if level.exact}
    for name in SECOND_READERS.get(info.backend, ()):
        if name in info.blind_readers:
            continue
        second = open_second(info, name)
        if second is None:
            continue
        with second:
            conflict = _compare(slide, second, name, pending - tally.levels, tally)
        if conflict is not None:
            return _decide(slide, conflict, tally)
        if pending <= tally.levels:
            break
    return _passed(slide, pending, tally)


def _passed(slide: TiledSlide, pending: set[int], tally: _Tally) -> ReaderVerdict:
    reader = slide.info.backend
    if not tally.regions:
        why = (
            "no second reader opens it"
            if not tally.seconds
            else f"{_and(tally.seconds)} found no scanned region to compare"
        )
        return ReaderVerdict(
            status="unchecked",
            reader=reader,
            detail=f"read by {reader} alone; {why}, so 0 regions were compared.",
        )
    places = f"{tally.regions} random regions"
    readers = _and([reader, *tally.seconds])
    detail = f"{readers} agree on every pixel of {places}"
    if tally.rounding:
        detail += f" (to {tally.rounding} grey levels: they round colours differently)"
    if tally.recoloured:
        detail = (
            f"{readers} agree on the content of {places}; {_and(sorted(tally.recoloured))} takes "
            f"RGB for YCbCr or the reverse, {reader} decides by what the stream says"
        )
    left = sorted(pending - tally.levels)
    if left:
        detail += f" (level {', '.join(map(str, left))}: no second reader, not compared)"
    return ReaderVerdict(
        status="agree",
        reader=reader,
        second=_and(tally.seconds),
        regions=tally.regions,
        levels=tuple(sorted(tally.levels)),
        detail=detail + ".",
    )


def _decide(slide: TiledSlide, conflict: _Conflict, tally: _Tally) -> ReaderVerdict:
    """OpenSlide is the oracle of the field and is believed; without it nobody is."""
    first = slide.info.backend
    if AUTHORITY not in (first, conflict.second):  # no authority has seen it
        raise RefusedSlideError(
            f"{slide.info.path}: {conflict.detail}, and OpenSlide has no say in such a file, so "
            "nothing tells who is right; see wsisr inspect --backend NAME, or convert the file."
        )
    return ReaderVerdict(
        status="differ",
        reader=AUTHORITY,
        second=conflict.second,
        regions=tally.regions,
        levels=tuple(sorted(tally.levels)),
        max_difference=conflict.difference,
        detail=f"{conflict.detail}; {AUTHORITY} is believed.",
    )


def _compare(
    slide: TiledSlide,
    second: TiledSlide,
    name: str,
    wanted: set[int],
    tally: _Tally,
) -> _Conflict | None:
    """Compare the wanted levels with one second reader."""
    first = slide.info.backend
    base, other_base = slide.info.levels[0], second.info.levels[0]
    if not _same_size(base, other_base):
        return _Conflict(
            second=name,
            detail=(
                f"{first} sees {base.width_px} x {base.height_px} px and {name} "
                f"{other_base.width_px} x {other_base.height_px} px"
            ),
        )
    tally.seconds.append(name)
    before = tally.regions
    for level in slide.info.levels:
        if level.index not in wanted or level.moved_px != (0, 0):
            continue  # the others do not move a level by its stated origin
        other = _counterpart(level, second)
        if other is None:
            continue
        if not _same_size(level, other):
            return _Conflict(
                second=name,
                detail=(
                    f"level {level.index} (1/{level.factor}) is {level.width_px} x "
                    f"{level.height_px} px to {first} and {other.width_px} x {other.height_px} px "
                    f"to {name}"
                ),
            )
        if not other.exact:
            continue
        # All of a level are looked at before the first is compared: what the first reader meets
        # there must not hang on how far ahead of the second it is.
        regions = list(_regions(slide, level, other))
        for (x, y, _, _, ours, valid), shown in zip(
            regions, _told_by(second, other.index, regions), strict=False
        ):
            if isinstance(shown, Exception):  # what it cannot decode it has no opinion on
                logger.debug("%s has no opinion on level %d: %s", name, level.index, shown)
                break
            theirs, both = shown[0], valid & shown[1]
            if not both.any():
                continue
            difference = _difference(ours, theirs, both)
            rounded = name != AUTHORITY and level.compression.photometric in CONVERTED
            if difference <= (ROUNDING if rounded else 0):
                tally.rounding = max(tally.rounding, difference)
            else:
                told = bool(level.compression.tag) or name != AUTHORITY
                if not (told and _recoloured(ours, theirs, both, level)):
                    return _Conflict(
                        second=name,
                        difference=difference,
                        detail=(
                            f"{first} and {name} differ by up to {difference} grey levels on "
                            f"level {level.index} at ({x}, {y})"
                        ),
                    )
                tally.recoloured.add(name)
            tally.regions += 1
            tally.levels.add(level.index)
    if tally.regions == before:
        tally.seconds.remove(name)
    return None


def _told_by(
    second: TiledSlide, level: int, regions: Sequence[Region]
) -> Iterator[tuple[UInt8Array, BoolArray] | Exception]:
    """What a second reader shows of each region, or why it does not; OpenSlide in threads."""

    def look(region: Region) -> tuple[UInt8Array, BoolArray] | Exception:
        try:
            return _seen_by(second, level, *region[:4])
        except Exception as error:
            return error

    several = isinstance(second.store, OpenSlideStore)
    return in_threads(look, regions) if several else map(look, regions)


def _seen_by(
    second: TiledSlide, level: int, x: int, y: int, width: int, height: int
) -> tuple[UInt8Array, BoolArray]:
    """Pixels of a region, and which of them were scanned."""
    if not isinstance(second.store, OpenSlideStore):
        pixels = second.read_level(level, x, y, width, height)
        return pixels, second.read_validity(level, x, y, width, height)
    region = second.store.read(level, x, y, width, height)  # no pixel beyond it
    if region.pixels is None:
        nothing = np.zeros((height, width), np.bool_)
        return np.full((height, width, 3), WHITE, np.uint8), nothing
    valid = np.ones((height, width), np.bool_) if region.valid is None else region.valid
    return region.pixels, valid


def _same_size(one: Level, other: Level) -> bool:
    return (
        abs(one.width_px - other.width_px) <= SIZE_SLACK_PX
        and abs(one.height_px - other.height_px) <= SIZE_SLACK_PX
    )


def _counterpart(level: Level, second: TiledSlide) -> Level | None:
    """The second reader's level of the same size, else of the same factor."""
    others = second.info.levels
    same = next((other for other in others if _same_size(level, other)), None)
    if same is not None or level.factor is None:
        return same
    return next((other for other in others if other.factor == level.factor), None)


def _regions(
    slide: TiledSlide, level: Level, other: Level, seed: int = 0, tiles: int = TILES
) -> Iterator[Region]:
    """Regions of a level as the first reader shows them, textured ones before bare glass."""
    rng = np.random.default_rng([seed, level.index])
    right = min(level.width_px, other.width_px)
    bottom = min(level.height_px, other.height_px)
    width, height = min(REGION_PX, right), min(REGION_PX, bottom)
    plain: list[Region] = []
    found = 0
    for _ in range(DRAWS):
        x = int(rng.integers(0, right - width + 1))
        y = int(rng.integers(0, bottom - height + 1))
        try:
            pixels = slide.read_level(level.index, x, y, width, height)
            valid = slide.read_validity(level.index, x, y, width, height)
        except SlideError:
            continue  # a damaged tile is an error when somebody wants its pixels
        if not valid.any():
            continue
        region = (x, y, width, height, pixels, valid)
        if float(region[4][..., 1][valid].std()) < MIN_TEXTURE:
            plain.append(region)
            continue
        yield region
        found += 1
        if found == tiles:
            return
        if (width, height) == (right, bottom):
            return  # the whole level
    yield from plain[: tiles - found]


def _difference(ours: UInt8Array, theirs: UInt8Array, both: BoolArray) -> int:
    found = np.asarray(cv2.absdiff(ours, theirs))
    return int(found.max(initial=0) if both.all() else found[both].max(initial=0))


def _recoloured(ours: UInt8Array, theirs: UInt8Array, both: BoolArray, level: Level) -> bool:
    """Whether the two differ by the YCbCr conversion alone, on a stream that says its colours.

    OpenSlide goes by the tag, so this explains its pixels only where tag and stream differ; the
    others guess in ways of their own.
    """
    if level.compression.codec not in STREAM_DECIDES:
        return False
    return (
        _difference(ours, ycbcr_to_rgb(theirs), both) <= COLOUR_TOLERANCE
        or _difference(ycbcr_to_rgb(ours), theirs, both) <= COLOUR_TOLERANCE
    )


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
