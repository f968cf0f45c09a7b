"""Which pages of a TIFF make the slide: its image, its levels, its planes.

A TIFF may hold several images (a macro, a label, a second region), several channels, several focal
planes. What the file says of them decides; what it does not say is refused, because the first of
several pages is as likely the wrong one.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.errors import SlideError
from wsisr.geometry import level_factor
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.focal import choose_plane
from wsisr.slides.ome import OmeImage, ome_images, rgb_order, slide_image
from wsisr.slides.tiff_tags import text_of

MAX_PAGES = 2000
MAX_SUB_PAGES = 64
ASPECT_TOLERANCE = 0.02
REDUCED_IMAGE = 1
NDPI_Z_OFFSET = 65424
NDPI_MAGNIFICATION = 65421


@dataclass(frozen=True, kw_only=True)
class LevelPages:
    """The page of one level, or the pages of its red, green and blue where they are apart."""

    number: int
    pages: tuple[Any, ...]

    @property
    def first(self) -> Any:
        return self.pages[0]


@dataclass(frozen=True, kw_only=True)
class Series:
    """What is read of a file.

    Attributes
    ----------
    candidates : tuple of LevelPages
        The image and what may be its levels, in the order of the file.
    um_per_px : tuple of float or None
        By the OME-XML of this very image.
    blind_readers : tuple of str
        Readers that know of no OME-XML and show the first page instead.
    """

    candidates: tuple[LevelPages, ...]
    quirks: tuple[str, ...] = ()
    um_per_px: tuple[float, float] | None = None
    focal_plane: int | None = None
    blind_readers: tuple[str, ...] = ()


def choose_series(path: Path, tiff: Any, vendor: str, focal_plane: int | None) -> Series:
    """Choose the slide among the pages of a file.

    Raises
    ------
    RefusedSlideError
        If its planes or channels are none that a slide has.
    """
    if len(tiff.pages) > MAX_PAGES:
        raise SlideError(
            f"{path}: {len(tiff.pages)} pages in one file; this is a stack or a damaged file, "
            "not a slide."
        )
    if not len(tiff.pages):
        raise RefusedSlideError(f"{path}: the TIFF holds no image; it is damaged, copy it again.")
    _check_chain(path, tiff)
    if vendor == "ome-tiff":
        images = ome_images(text_of(tiff.pages[0], "ImageDescription"))
        if images:
            return _ome_series(path, tiff, images, focal_plane)
    pages = [_whole(page) for page in (tiff.pages[i] for i in range(len(tiff.pages)))]
    numbered = list(enumerate(pages))
    if vendor == "hamamatsu":
        return _ndpi_series(path, numbered, focal_plane)
    base = 0
    if vendor == "generic-tiff":
        # Some writers put a thumbnail first; the largest image is the slide.
        base = max(range(len(pages)), key=lambda i: (_area(pages[i]), -i))
    candidates = [LevelPages(number=base, pages=(pages[base],))]
    candidates += [LevelPages(number=base, pages=(sub,)) for sub in _sub_pages(pages[base])]
    candidates += [
        LevelPages(number=number, pages=(page,)) for number, page in numbered if number != base
    ]
    # OpenSlide and tiffslide always take the first page for the slide.
    return Series(
        candidates=tuple(candidates), blind_readers=("openslide", "tiffslide") if base else ()
    )


def is_level(base: Any, page: Any, ndpi: bool, vendor: str) -> bool:
    """Whether a page is a level of the first one, rather than a label, a macro or a thumbnail."""
    if (page.samplesperpixel, page.bitspersample) != (base.samplesperpixel, base.bitspersample):
        return False
    if page.is_tiled != base.is_tiled:
        return False
    kind = text_of(page, "ImageDescription").lower()
    names = ("label", "macro", "thumbnail")
    if vendor in ("aperio", "philips") and kind.lstrip().startswith(names):
        return False
    if vendor == "aperio" and any(word in kind for word in ("\nlabel ", "\nmacro ")):
        return False
    if not page.is_tiled and not ndpi and not int(page.subfiletype) & REDUCED_IMAGE:
        return False
    width, height = page.imagewidth, page.imagelength
    if level_factor(base.imagewidth, base.imagelength, width, height) is not None:
        return True
    ratio = (width / base.imagewidth) / (height / base.imagelength)
    slack = 1.0 / min(width, height) + ASPECT_TOLERANCE
    if vendor == "philips":
        # Stored sizes are padded to whole tiles, which distorts the small levels.
        slack += max(page.tilewidth / width, page.tilelength / height)
    return abs(ratio - 1.0) <= slack


def is_alike(base: Any, page: Any) -> bool:
    """Whether a page could be another plane or time point of the image: same size and samples."""
    return (
        (page.imagewidth, page.imagelength) == (base.imagewidth, base.imagelength)
        and (page.samplesperpixel, page.bitspersample) == (base.samplesperpixel, base.bitspersample)
        and not int(page.subfiletype) & REDUCED_IMAGE
        and not np.array_equal(page.dataoffsets, base.dataoffsets)
    )


def refuse_stack(path: Path, base: Any, others: Sequence[int]) -> None:
    """Refuse further pages that are as large as the slide and that nothing explains.

    Raises
    ------
    RefusedSlideError
        Always, if there are any.
    """
    if not others:
        return
    pages = ", ".join(str(number + 1) for number in others[:5])
    more = " and more" if len(others) > 5 else ""
    raise RefusedSlideError(
        f"{path}: page(s) {pages}{more} are as large as the image itself ({base.imagewidth} x "
        f"{base.imagelength} px) and the file does not say what they are: focal planes, channels "
        "or time points. Save the wanted one as a file of its own."
    )


def _ome_series(
    path: Path, tiff: Any, images: tuple[OmeImage, ...], focal_plane: int | None
) -> Series:
    image = slide_image(images)
    if image is None:
        names = ", ".join(repr(image.name) for image in images)
        raise RefusedSlideError(f"{path}: holds labels or overviews only ({names}), no slide.")
    quirks = []
    others = [
        f"{o.name or 'unnamed'!r} {o.width_px} x {o.height_px} px" for o in images if o is not image
    ]
    if others:
        quirks.append(
            f"The file holds {len(images)} images; {image.name or 'the unnamed one'!r} is read, "
            f"not {', '.join(others[:6])}{' and more' if len(others) > 6 else ''}."
        )
    if image.times > 1:
        raise RefusedSlideError(
            f"{path}: a time series of {image.times} points, no slide; save one of them."
        )
    plane, quirk = choose_plane(path, image.planes_z, focal_plane)
    quirks += [quirk] if quirk else []
    order = _channels(path, image)
    z = 0 if plane is None else plane - 1
    ifds = [image.ifds.get((z, channel, 0)) for channel in order]
    if any(ifd is None for ifd in ifds):
        raise RefusedSlideError(
            f"{path}: a part of its planes lies in other files of a set; join them to one "
            "OME-TIFF (bioformats2raw and raw2ometiff, or bfconvert)."
        )
    numbers = [ifd for ifd in ifds if ifd is not None]
    if max(numbers) >= len(tiff.pages) or min(numbers) < 0:
        raise RefusedSlideError(
            f"{path}: its OME-XML names page {max(numbers) + 1} of {len(tiff.pages)}; the file is "
            "damaged or was cut off, copy it again."
        )
    bases = [_whole(tiff.pages[number]) for number in numbers]
    for base in bases:
        if (base.imagewidth, base.imagelength) != (image.width_px, image.height_px):
            raise RefusedSlideError(
                f"{path}: its OME-XML says {image.width_px} x {image.height_px} px and the page "
                f"{base.imagewidth} x {base.imagelength}; the two do not belong together."
            )
    if len(bases) == 3 and any(int(base.samplesperpixel) != 1 for base in bases):
        raise RefusedSlideError(
            f"{path}: three channels of {bases[0].samplesperpixel} samples each "
            f"({image.channel_list()}); only one RGB image is read."
        )
    levels = [LevelPages(number=numbers[0], pages=tuple(bases))]
    subs = [_sub_pages(base) for base in bases]
    if len({len(sub) for sub in subs}) != 1:
        raise RefusedSlideError(f"{path}: its channels have pyramids of several heights.")
    levels += [LevelPages(number=numbers[0], pages=pages) for pages in zip(*subs, strict=True)]
    if len(bases) == 1:
        # Older writers keep the levels as reduced pages that the OME-XML does not name.
        named = {ifd for other in images for ifd in other.ifds.values()}
        for number in range(len(tiff.pages)):
            page = _whole(tiff.pages[number])
            if number not in named and int(page.subfiletype) & REDUCED_IMAGE:
                levels.append(LevelPages(number=number, pages=(page,)))
    blind: tuple[str, ...] = ()
    if len(bases) == 3 or numbers[0] != 0:
        blind = ("openslide", "tiffslide")
    if len(bases) == 3:
        quirks.append("Red, green and blue are stored apart and joined as the OME-XML names them.")
    return Series(
        candidates=tuple(levels),
        quirks=tuple(quirks),
        um_per_px=image.um_per_px,
        focal_plane=plane,
        blind_readers=blind,
    )


def _channels(path: Path, image: OmeImage) -> tuple[int, ...]:
    """The one channel of an RGB or grey image, or those of red, green and blue."""
    if len(image.channels) == 1:
        return (0,)
    order = rgb_order(image)
    if order is None:
        raise RefusedSlideError(
            f"{path}: {len(image.channels)} channels ({image.channel_list()}) that are not red, "
            "green and blue: fluorescence or spectral data, or RGB whose channels are not named. "
            "Only RGB slides are read; save it as RGB (raw2ometiff --rgb) if it is one."
        )
    return order


def _ndpi_series(path: Path, numbered: list[tuple[int, Any]], focal_plane: int | None) -> Series:
    """The pages of one focal plane: NDPI gives each its offset, nm (0 is the best focus)."""
    base = numbered[0][1]
    offsets = {
        number: int(tag.value) if (tag := page.tags.get(NDPI_Z_OFFSET)) is not None else 0
        for number, page in numbered
        if _is_scan(page)
    }
    planes = sorted(set(offsets.values()))
    plane, quirk = choose_plane(path, len(planes), focal_plane)
    wanted = planes[0 if plane is None else plane - 1]
    chosen = [
        LevelPages(number=number, pages=(page,))
        for number, page in numbered
        if number not in offsets or offsets[number] == wanted
    ]
    chosen.sort(key=lambda item: _area(item.first) != _area(base))
    return Series(candidates=tuple(chosen), quirks=(quirk,) if quirk else (), focal_plane=plane)


def _is_scan(page: Any) -> bool:
    """Whether an NDPI page is a level: macro and map state a magnification of -1 and -2."""
    tag = page.tags.get(NDPI_MAGNIFICATION)
    return tag is not None and float(tag.value) > 0


def _sub_pages(page: Any) -> list[Any]:
    """The SubIFDs of a page, where OME-TIFF keeps its pyramid."""
    if not page.subifds:
        return []
    sub = page.pages
    return [_whole(sub[i]) for i in range(min(len(sub), MAX_SUB_PAGES))]


def _whole(page: Any) -> Any:
    """tifffile shortens pages that are like an earlier one; all tags are wanted."""
    return page.aspage()


def _area(page: Any) -> int:
    return int(page.imagewidth) * int(page.imagelength)


def _check_chain(path: Path, tiff: Any) -> None:
    """Refuse a file whose last page points to a further one beyond the end of the file.

    tifffile forgives this; a slide whose lower levels were cut off must not pass for one that
    never had them.
    """
    form, last = tiff.tiff, tiff.pages[len(tiff.pages) - 1]
    handle = tiff.filehandle
    handle.seek(last.offset)
    (count,) = struct.unpack(form.tagnoformat, handle.read(form.tagnosize))
    handle.seek(last.offset + form.tagnosize + count * form.tagsize)
    pointer = handle.read(form.offsetsize)
    if len(pointer) < form.offsetsize or struct.unpack(form.offsetformat, pointer)[0] != 0:
        raise RefusedSlideError(
            f"{path}: cut off: its list of pages goes on behind the end of the file; copy it again."
        )
