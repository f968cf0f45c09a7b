"""Tissue without pretrained weights: a deterministic consensus of three cues at 8 um/px.

Stages: overview, white point, three cues, a guarded threshold for each, two votes of three, a
second pass at the border, pen and black borders out, morphology in um. Every stage is a pure
function of arrays; `tissue_of` only reads.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.errors import ConfigError
from wsisr.host import return_freed_memory
from wsisr.selection.clam import ClamSettings, clam_mask, saturated
from wsisr.selection.consensus import (
    DEFAULT_SETTINGS,
    TissueSettings,
    consensus,
    cue_thresholds,
    drop_rims,
    stability,
)
from wsisr.selection.cues import WhitePoint, odd_px, sample_pixels, tissue_cues, white_point
from wsisr.selection.otsu import Threshold
from wsisr.selection.overview import OVERVIEW_UM_PER_PX, read_overview
from wsisr.selection.pen import black_border, pen_mask
from wsisr.selection.pieces import Pieces, find_pieces
from wsisr.selection.tissue_map import TissueHealth, TissueKind, TissueMap
from wsisr.slides.protocol import Slide

__all__ = ["DEFAULT_SETTINGS", "Method", "TissueSettings", "clam_like", "segment", "tissue_of"]

Method = Literal["consensus", "clam-like", "clam"]
SUSPICIOUS_PEN_SHARE = 0.4
CLAM_LIKE = ClamSettings(otsu=False, median_um=56.0, close_um=32.0)


def tissue_of(
    slide: Slide,
    um_per_px: float = OVERVIEW_UM_PER_PX,
    *,
    method: Method = "consensus",
    settings: TissueSettings = DEFAULT_SETTINGS,
) -> TissueMap:
    """Find a slide's tissue.

    Parameters
    ----------
    slide : Slide
        With a known resolution.
    um_per_px : float
        Resolution of the mask; a coarser slide is taken as it is, with a flag.
    method : {"consensus", "clam-like", "clam"}
        ``"clam-like"`` is the common saturation threshold, for comparison; ``"clam"`` adds
        CLAM's rules on areas and holes.

    Returns
    -------
    TissueMap

    Raises
    ------
    MppError
        If the slide has no resolution.
    """
    view = read_overview(slide, um_per_px)
    found = segment(
        view.rgb,
        view.um_per_px,
        valid=view.valid,
        factor=view.factor,
        method=method,
        settings=settings,
    )
    return_freed_memory()
    health = found.health
    if view.um_per_px > um_per_px * 1.001:
        coarse = f"the slide is coarser than {um_per_px:g} um/px"
        health = replace(health, flags=(coarse, *health.flags))
    return replace(found, health=health, origin_px=slide.info.origin_px)


def segment(
    rgb: UInt8Array,
    um_per_px: float,
    *,
    valid: BoolArray | None = None,
    factor: float = 1.0,
    method: Method = "consensus",
    settings: TissueSettings = DEFAULT_SETTINGS,
) -> TissueMap:
    """Find tissue in a picture.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    valid : ndarray, shape (h, w), bool, optional
        What was scanned.
    factor : float
        Level-0 pixels per pixel of the picture.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise ConfigError(f"Tissue needs RGB (h, w, 3) of uint8, not {rgb.shape} {rgb.dtype}.")
    scanned = np.ones(rgb.shape[:2], np.bool_) if valid is None else valid
    fluorescent = is_fluorescence(rgb, scanned)
    if not fluorescent and (filler := black_border(rgb, um_per_px)).any():
        scanned = scanned & ~filler
        del filler
    white = white_point(rgb, scanned)
    cues = tissue_cues(rgb, white, um_per_px)
    pen = np.zeros(scanned.shape, np.bool_)
    colours: tuple[str, ...] = ()
    if not fluorescent:
        pen, colours = pen_mask(rgb, white, cues, um_per_px, scanned)
    usable = scanned & ~pen if colours else scanned
    thresholds: dict[str, Threshold] = {}
    notes: list[str] = []
    kind: TissueKind = "brightfield"
    steady = 1.0
    if fluorescent:
        kind = "fluorescence"
        mask = np.zeros(scanned.shape, np.bool_)
        notes.append("dark background: a fluorescence slide, not brightfield; no tissue is marked")
    elif method == "clam-like":
        mask = clam_like(rgb, um_per_px) & scanned
    elif method == "clam":
        mask = clam_mask(rgb, um_per_px, settings.clam) & scanned
    elif method == "consensus":
        thresholds = cue_thresholds(cues, usable, white)
        steady = stability(cues, thresholds, usable, um_per_px, settings)
        mask = consensus(cues, thresholds, usable, um_per_px, settings)
        mask = drop_rims(mask, pen, um_per_px)
        notes.extend(_cue_flags(thresholds, white, steady, mask))
    else:
        raise ConfigError(f"Unknown tissue method {method!r}; choose consensus, clam-like or clam.")
    if pen.sum() > SUSPICIOUS_PEN_SHARE * max(1, scanned.sum()):
        notes.append(
            f"{100 * pen.sum() / scanned.sum():.0f} % of the slide has the colours of pen; "
            "its colours are probably stored wrongly"
        )
    if kind == "brightfield" and not mask.any():
        kind = "blank"
        least = settings.clam.min_tissue_mm2 if method == "clam" else settings.min_area_mm2
        pieces = mask
        if method == "clam":
            smallest = replace(settings.clam, min_tissue_mm2=0.0)
            pieces = clam_mask(rgb, um_per_px, smallest) & scanned
        elif method == "consensus":
            small = replace(settings, min_area_mm2=0.0)
            pieces = consensus(cues, thresholds, usable, um_per_px, small)
            pieces = drop_rims(pieces, pen, um_per_px)
        largest = _largest_mm2(find_pieces(pieces), um_per_px)
        notes.append(
            f"no tissue was found: the largest piece that looks like it has {largest:.2g} mm2, and "
            f"the least is {least:g} mm2"
            if largest
            else "no tissue was found"
        )
    return TissueMap(
        mask=mask,
        um_per_px=um_per_px,
        factor=factor,
        pen=pen,
        # Zeros that nobody writes to take no memory.
        invalid=np.zeros(scanned.shape, np.bool_) if scanned.all() else ~scanned,
        kind=kind,
        overview=rgb,
        health=TissueHealth(
            **_areas_mm2(mask, scanned, pen, um_per_px),
            stability=steady,
            white_rgb=white.rgb,
            thresholds=thresholds,
            pen_colours=colours,
            flags=tuple(notes),
        ),
    )


def is_fluorescence(rgb: UInt8Array, valid: BoolArray) -> bool:
    """Dark background and hardly a bright pixel: no light went through this slide."""
    pixels = sample_pixels(rgb, valid)
    if not len(pixels):
        return False
    dark = float((pixels.max(axis=1) < 60).mean())
    glassy = float((pixels.min(axis=1) > 170).mean())
    return dark > 0.3 and glassy < 0.01


def clam_like(rgb: UInt8Array, um_per_px: float) -> BoolArray:
    """The common saturation rule: HSV saturation, median blur, fixed threshold, close.

    Written from the published description; lengths are in um in place of pixels of a level.
    """
    return saturated(rgb, um_per_px, CLAM_LIKE, odd_px(CLAM_LIKE.close_um, um_per_px))


def _cue_flags(
    thresholds: Mapping[str, Threshold], white: WhitePoint, steady: float, mask: BoolArray
) -> list[str]:
    flags = []
    if not white.found:
        flags.append("no bare glass was seen; a usual white was assumed")
    doubtful = [name for name, threshold in thresholds.items() if threshold.undecided]
    if len(doubtful) >= 2:
        flags.append(f"undecided: {' and '.join(doubtful)} do not separate tissue from glass")
    if mask.any() and steady < 0.85:
        flags.append(f"unstable: thresholds 10 % off change the mask (IoU {steady:.2f})")
    return flags


def _areas_mm2(
    mask: BoolArray, scanned: BoolArray, pen: BoolArray, um_per_px: float
) -> dict[str, Any]:
    """Areas and pieces, by their names in `TissueHealth`."""
    pixel_mm2 = (um_per_px / 1000) ** 2
    pieces = find_pieces(mask)
    return {
        "tissue_mm2": float(mask.sum() * pixel_mm2),
        "scanned_mm2": float(scanned.sum() * pixel_mm2),
        "pen_mm2": float(pen.sum() * pixel_mm2),
        "components": len(pieces),
        "largest_mm2": _largest_mm2(pieces, um_per_px),
    }


def _largest_mm2(pieces: Pieces, um_per_px: float) -> float:
    """Area of the largest piece; 0 where there is none."""
    return float(pieces.area.max(initial=0) * (um_per_px / 1000) ** 2)
