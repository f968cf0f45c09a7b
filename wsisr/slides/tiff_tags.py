"""What single tags of a TIFF page say, with the XML in them, which defusedxml alone parses."""

import re
from dataclasses import dataclass
from typing import Any

_VENDORS = {
    "ndpi": "hamamatsu",
    "svs": "aperio",
    "philips": "philips",
    "scn": "leica",
    "bif": "ventana",
    "qpi": "akoya",
    "ome": "ome-tiff",
}
"""tifffile's kinds of files, the first that fits."""


def vendor_of(tiff: Any, base: Any) -> str:
    for kind, vendor in _VENDORS.items():
        if getattr(tiff, f"is_{kind}"):
            return vendor
    if text_of(base, "Software").startswith("Philips"):
        return "philips"
    if text_of(base, "Software").startswith("MedScan") and _overlaps(base):
        return "trestle"
    return "generic-tiff"


def _overlaps(base: Any) -> bool:
    """Whether a Trestle description says that its tiles overlap (pixels, x and y a level)."""
    match = re.search(r"OverlapsXY=([\s\d]*)", text_of(base, "ImageDescription"))
    return match is not None and any(int(number) for number in match.group(1).split())


def text_of(page: Any, name: str) -> str:
    tag = page.tags.get(name)
    value = tag.value if tag is not None else ""
    return value if isinstance(value, str) else ""


def resolution_um(page: Any) -> tuple[float, float] | None:
    unit = page.tags.get("ResolutionUnit")
    um_per_unit = {2: 25400.0, 3: 10000.0}.get(int(unit.value) if unit is not None else 2)
    values = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        if tag is None or um_per_unit is None:
            return None
        numerator, denominator = tag.value
        if numerator <= 0 or denominator <= 0:
            return None
        values.append(um_per_unit * denominator / numerator)
    return values[0], values[1]


def vendor_tags(page: Any) -> dict[str, float]:
    found = {}
    for name, code in (("magnification", 65421), ("z_offset", 65424)):
        tag = page.tags.get(code)
        if tag is not None and isinstance(tag.value, int | float):
            found[name] = float(tag.value)
    return found


@dataclass(frozen=True, kw_only=True)
class PhilipsSpacings:
    """Pixel spacings (x, y) in um from a Philips description: of the image and of its levels."""

    image: tuple[float, float] | None
    levels: tuple[tuple[float, float], ...]


def philips_spacings_um(description: str) -> PhilipsSpacings:
    """``DICOM_PIXEL_SPACING`` (row, column; mm) of the scan and of each stored level."""
    root = parse_xml(description)
    if root is None:
        return PhilipsSpacings(image=None, levels=())
    levels: dict[int, tuple[float, float]] = {}
    first: tuple[float, float] | None = None
    for data in root.iter("DataObject"):
        attributes = {
            child.get("Name"): (child.text or "")
            for child in data
            if child.tag == "Attribute" and len(child) == 0
        }
        spacing = _spacing_um(attributes.get("DICOM_PIXEL_SPACING", ""))
        if spacing is None:
            continue
        number = attributes.get("PIIM_PIXEL_DATA_REPRESENTATION_NUMBER")
        if number is not None and number.strip().isdigit():
            levels[int(number)] = spacing
        elif first is None:
            first = spacing
    ordered = tuple(levels[number] for number in sorted(levels))
    return PhilipsSpacings(image=first or (ordered[0] if ordered else None), levels=ordered)


def _spacing_um(text: str) -> tuple[float, float] | None:
    numbers = [number(part) for part in re.findall(r'"([^"]+)"', text) or text.split()]
    if len(numbers) < 2 or numbers[0] is None or numbers[1] is None:
        return None
    row, column = numbers[0] * 1000.0, numbers[1] * 1000.0
    return (column, row) if row > 0 and column > 0 else None


def parse_xml(text: str) -> Any:
    """The root element, or None for anything that is no sound and harmless XML."""
    from defusedxml import ElementTree

    if "<" not in text:
        return None
    try:
        return ElementTree.fromstring(text.strip("\0 \n\r\t").encode())
    except Exception:  # any broken or hostile XML states nothing
        return None


def number(text: str) -> float | None:
    """A number; None where the text is none."""
    try:
        return float(text.strip())
    except ValueError:
        return None
