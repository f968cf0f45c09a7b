"""Single tags of a TIFF page, as tifffile shows it."""

import re
from typing import Any


def vendor_of(tiff: Any, base: Any) -> str:
    if tiff.is_ndpi:
        return "hamamatsu"
    if tiff.is_svs:
        return "aperio"
    if tiff.is_philips:
        return "philips"
    if tiff.is_scn:
        return "leica"
    if tiff.is_bif:
        return "ventana"
    if tiff.is_qpi:
        return "akoya"
    if tiff.is_ome:
        return "ome-tiff"
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
