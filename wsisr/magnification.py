"""Resolution as a value with a source and a quality, and the magnification that follows.

CAMELYON16 carries no objective power, vendors write "20x" for 0.5 and for 0.33 um/px, and
a silent default of 0.5 um/px ruins a data set without a sign. So a slide's nominal
magnification comes from its micrometres per pixel alone (design 3.2), and a slide without a
plausible resolution is refused with the remedy in the message.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from wsisr.errors import MagnificationError, MppError

NOMINAL_MAGNIFICATIONS = (80, 40, 20, 10, 5)
NOMINAL_TOLERANCE = 0.20
PLAUSIBLE_UM_PER_PX = (0.05, 50.0)
ANISOTROPY_TOLERANCE = 0.02


class MppSource(StrEnum):
    """Where a resolution was read."""

    OVERRIDE = "override"
    VENDOR = "vendor tag"
    TIFF = "tiff resolution"
    DICOM = "dicom"
    OME = "ome-xml"


class MppQuality(StrEnum):
    """How far a resolution can be trusted."""

    STATED = "stated"
    """Written by the scanner, or given by the user."""
    DERIVED = "derived"
    """From a general tag (TIFF resolution), which other programs rewrite."""
    CONFLICT = "conflict"
    """Two places of one file disagree by more than 2 %; the more specific one is used."""


@dataclass(frozen=True, kw_only=True)
class Mpp:
    """Micrometres per level-0 pixel, with provenance.

    Attributes
    ----------
    value : float
        Geometric mean of both axes, um/px.
    x, y : float
        Per axis, um/px.
    """

    value: float
    x: float
    y: float
    source: MppSource
    quality: MppQuality = MppQuality.STATED


def make_mpp(x: float, y: float, source: MppSource, quality: MppQuality = MppQuality.STATED) -> Mpp:
    """Check a resolution for plausibility and wrap it.

    Raises
    ------
    MppError
        Outside 0.05-50 um/px, not finite, or axes that differ by more than 2 %.
    """
    low, high = PLAUSIBLE_UM_PER_PX
    if not (low <= x <= high and low <= y <= high):
        raise MppError(f"{x:g} x {y:g} um/px ({source}) is outside {low:g}-{high:g} um/px")
    if abs(x - y) > ANISOTROPY_TOLERANCE * max(x, y):
        raise MppError(f"{x:g} x {y:g} um/px ({source}): the axes differ by more than 2 %")
    return Mpp(value=(x * y) ** 0.5, x=x, y=y, source=source, quality=quality)


def nominal_magnification(um_per_px: float) -> int | None:
    """Nearest of 80, 40, 20, 10, 5 to ``10 / mpp`` within 20 %, or None.

    >>> nominal_magnification(0.243), nominal_magnification(0.499), nominal_magnification(29.0)
    (40, 20, None)
    """
    power = 10.0 / um_per_px
    nearest = min(NOMINAL_MAGNIFICATIONS, key=lambda m: abs(m - power) / m)
    return nearest if abs(nearest - power) <= NOMINAL_TOLERANCE * nearest else None


def parse_magnification(text: str) -> float:
    """``"40x"`` or ``"2.5"`` -> 40.0 or 2.5.

    Raises
    ------
    MagnificationError
        If the text is no positive number with an optional ``x``.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[xX]?\s*", text)
    value = float(match.group(1)) if match else 0.0
    if not 0.0 < value <= 400.0:
        raise MagnificationError(f"{text!r} is no magnification; write it like 40x or 2.5x.")
    return value


def magnification_name(value: float) -> str:
    """Array name of a magnification: ``40.0`` -> ``"40x"``."""
    return f"{value:g}x"


def downsample_factor(nominal: int, wanted: float, slide: str = "The slide") -> int:
    """Whole number of level-0 pixels per pixel of a wanted magnification.

    Parameters
    ----------
    nominal : int
        The slide's nominal magnification.
    wanted : float
        The magnification asked for.
    slide : str
        Name for the message.

    Raises
    ------
    MagnificationError
        If the slide is coarser than what is asked for (HR is never upsampled), or the ratio is
        no whole number.
    """
    if wanted > nominal:
        raise MagnificationError(
            f"{slide} is {nominal}x, so {magnification_name(wanted)} does not exist on it; "
            f"ask for {magnification_name(nominal)} or less (--hr {magnification_name(nominal)})."
        )
    ratio = nominal / wanted
    if abs(ratio - round(ratio)) > 1e-9:
        raise MagnificationError(
            f"{slide} is {nominal}x and {magnification_name(wanted)} is no whole fraction of it; "
            "ask for one that is, or use --mpp for a physical resolution."
        )
    return round(ratio)
