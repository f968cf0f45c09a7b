"""Facts from the XML that vendors put into TIFF descriptions; parsed by defusedxml only."""

import re
from dataclasses import dataclass
from typing import Any


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
