"""Resolution, objective and scanner facts from the text that vendors put into TIFF files."""

import re
from dataclasses import dataclass

from wsisr.errors import MppError
from wsisr.magnification import Mpp, MppQuality, MppSource, make_mpp
from wsisr.slides.tiff_directory import TiffDirectory
from wsisr.slides.tiff_tags import number, philips_spacings_um

OVERRIDE_HINT = "state it with --mpp-override CSV (columns slide, mpp)"
COARSEST_TIFF_UM_PER_PX = 10.0
"""General resolution tags coarser than this (2540 dpi) are a printer's, not a microscope's."""
CONFLICT_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """A usable resolution, or the sentence that says why there is none."""

    mpp: Mpp | None
    problem: str = ""


def tiff_resolution(directory: TiffDirectory) -> Resolution:
    """Micrometres per level-0 pixel of a TIFF-family slide, with source and quality."""
    stated: list[tuple[tuple[float, float], MppSource, MppQuality]] = []
    vendor = _vendor_um(directory)
    if vendor is not None:
        stated.append((vendor, MppSource.VENDOR, MppQuality.STATED))
    if directory.ome_um_per_px is not None:
        stated.append((directory.ome_um_per_px, MppSource.OME, MppQuality.STATED))
    if directory.resolution is not None:
        stated.append((directory.resolution, MppSource.TIFF, MppQuality.DERIVED))
    return choose_resolution(directory.path.name, stated)


def choose_resolution(
    name: str, stated: list[tuple[tuple[float, float], MppSource, MppQuality]]
) -> Resolution:
    """The most specific of what a file states; a disagreement of more than 2 % is marked.

    A general tag that is a printer's says nothing.
    """
    why = "the file does not state its resolution"
    usable = []
    for um, source, quality in stated:
        if source is MppSource.TIFF and max(um) > COARSEST_TIFF_UM_PER_PX:
            why = f"its resolution tag ({25400.0 / um[0]:.0f} dpi) is no microscope's"
        else:
            usable.append((um, source, quality))
    if not usable:
        return Resolution(mpp=None, problem=f"{name}: {why}; {OVERRIDE_HINT}.")
    (x, y), source, quality = usable[0]
    for (other_x, other_y), other_source, _ in usable[1:]:
        if other_source is not source and (
            abs(other_x - x) > CONFLICT_TOLERANCE * x or abs(other_y - y) > CONFLICT_TOLERANCE * y
        ):
            quality = MppQuality.CONFLICT
    try:
        return Resolution(mpp=make_mpp(x, y, source, quality))
    except MppError as error:
        return Resolution(mpp=None, problem=f"{name}: {error}; {OVERRIDE_HINT}.")


def objective_power(directory: TiffDirectory) -> float | None:
    """What the file calls its magnification; informative only (design 3.2)."""
    if directory.vendor == "aperio":
        return number(aperio_fields(directory.description).get("AppMag", ""))
    if directory.vendor == "hamamatsu":
        return directory.tags.get("magnification")
    match = re.search(r'NominalMagnification="([\d.]+)"', directory.description)
    return number(match.group(1)) if match else None


def aperio_fields(description: str) -> dict[str, str]:
    """``key = value`` fields of an Aperio description."""
    fields = {}
    for part in description.split("|")[1:]:
        key, separator, value = part.partition("=")
        if separator:
            fields[key.strip()] = value.strip()
    return fields


def aperio_generations(description: str) -> int:
    """How many lossy passes an Aperio description tells of (a crop names its parent's too)."""
    return len(re.findall(r"(?:JPEG/RGB|J2K/\w+|JPEG2000|JPEG)\s+Q\s*=", description))


def stated_sharpening(description: str) -> bool | None:
    """Whether the vendor's text says that the scanner sharpened; None if it is silent."""
    match = re.search(r"sharp\w*\s*(?:=|:)?\s*(\w*)", description, re.IGNORECASE)
    if match is None:
        return None
    return match.group(1).lower() not in ("0", "off", "none", "no", "false")


def _vendor_um(directory: TiffDirectory) -> tuple[float, float] | None:
    if directory.vendor == "aperio":
        value = number(aperio_fields(directory.description).get("MPP", ""))
        return (value, value) if value else None
    if directory.vendor == "philips":
        spacings = philips_spacings_um(directory.description)
        return spacings.image
    if directory.vendor == "hamamatsu":
        return directory.resolution
    return None
