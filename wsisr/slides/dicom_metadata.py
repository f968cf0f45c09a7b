"""Resolution, objective and colour profile from a DICOM header."""

from typing import Any


def _functional(header: Any, name: str) -> Any:
    for key in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(key) or [])[:1]:
            inner = group.get(name)
            if inner:
                return inner[0]
    return None


def spacing_um(header: Any) -> tuple[float, float] | None:
    """(x, y) um per pixel; PixelSpacing is (row distance, column distance) in mm."""
    measures = _functional(header, "PixelMeasuresSequence")
    spacing = measures.get("PixelSpacing") if measures is not None else header.get("PixelSpacing")
    if not spacing or len(spacing) != 2:
        return None
    return float(spacing[1]) * 1000.0, float(spacing[0]) * 1000.0


def objective_power(header: Any) -> float | None:
    for optics in (header.get("OpticalPathSequence") or [])[:1]:
        power = optics.get("ObjectiveLensPower")
        return float(power) if power else None
    return None


def icc_profile(header: Any) -> bytes | None:
    for optics in (header.get("OpticalPathSequence") or [])[:1]:
        profile = optics.get("ICCProfile")
        return bytes(profile) if profile else None
    return None
