"""Tissue without pretrained weights: a deterministic consensus of three cues at 8 um/px.

Stages: overview, white point, three cues, a guarded threshold for each, two votes of three, a
second pass at the border, pen and black borders out, morphology in um. Every stage is a pure
function of arrays; `tissue_of` only reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from wsisr.errors import ConfigError
from wsisr.selection.cues import (
    SAMPLE,
    Cues,
    Float32Array,
    WhitePoint,
    odd_px,
    tissue_cues,
    white_point,
)
from wsisr.selection.otsu import Threshold, Verdict, guarded_threshold
from wsisr.selection.overview import OVERVIEW_UM_PER_PX, read_overview
from wsisr.selection.pen import black_border, pen_mask
from wsisr.selection.tissue_map import TissueHealth, TissueKind, TissueMap
from wsisr.slides.protocol import BoolArray, Slide, UInt8Array

Method = Literal["consensus", "clam-like"]

LIMITS: Mapping[str, tuple[float, float]] = {
    "hue": (5.0, 18.0),
    "chroma": (0.025, 0.09),
    "texture": (0.004, 0.016),
}
"""Physical limits of the thresholds: noise of glass below, certain tissue above."""


RIM_UM = 100.0
"""A piece that lies almost whole within this distance of ink is its blurred edge."""


@dataclass(frozen=True, kw_only=True)
class TissueSettings:
    """Everything that a mask depends on besides the pixels.

    Attributes
    ----------
    min_area_mm2 : float
        Smaller pieces are dropped.
    max_hole_mm2 : float
        Holes up to this size are filled: fat is tissue, and SR's texture rule drops it later.
    close_um, open_um : float
        Radii of closing and opening.
    border_um : float
        Half width of the band that the second pass decides anew.
    """

    min_area_mm2: float = 0.02
    max_hole_mm2: float = 0.5
    close_um: float = 24.0
    open_um: float = 8.0
    border_um: float = 40.0


DEFAULT_SETTINGS = TissueSettings()


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
    method : {"consensus", "clam-like"}
        ``"clam-like"`` is the common saturation threshold, for comparison.
    settings : TissueSettings

    Returns
    -------
    TissueMap

    Raises
    ------
    MppError
        If the slide has no resolution.
    """
    view = read_overview(slide, um_per_px)
    return segment(
        view.rgb,
        view.um_per_px,
        valid=view.valid,
        factor=view.factor,
        method=method,
        settings=settings,
        flags=(f"the slide is coarser than {um_per_px:g} um/px",)
        if view.um_per_px > um_per_px * 1.001
        else (),
    )


def segment(
    rgb: UInt8Array,
    um_per_px: float,
    *,
    valid: BoolArray | None = None,
    factor: float = 1.0,
    method: Method = "consensus",
    settings: TissueSettings = DEFAULT_SETTINGS,
    flags: tuple[str, ...] = (),
) -> TissueMap:
    """Find tissue in a picture.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    um_per_px : float
    valid : ndarray, shape (h, w), bool, optional
        What was scanned.
    factor : float
        Level-0 pixels per pixel of the picture.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise ConfigError(f"Tissue needs RGB (h, w, 3) of uint8, not {rgb.shape} {rgb.dtype}.")
    scanned = np.ones(rgb.shape[:2], np.bool_) if valid is None else valid
    fluorescent = is_fluorescence(rgb, scanned)
    if not fluorescent:
        scanned = scanned & ~black_border(rgb, um_per_px)
    white = white_point(rgb, scanned)
    cues = tissue_cues(rgb, white, um_per_px)
    pen = np.zeros_like(scanned)
    colours: tuple[str, ...] = ()
    if not fluorescent:
        pen, colours = pen_mask(rgb, white, cues, um_per_px, scanned)
    usable = scanned & ~pen
    thresholds: dict[str, Threshold] = {}
    notes = list(flags)
    kind: TissueKind = "brightfield"
    stability = 1.0
    if fluorescent:
        kind = "fluorescence"
        mask = np.zeros_like(scanned)
        notes.append("dark background: a fluorescence slide, not brightfield; no tissue is marked")
    elif method == "clam-like":
        mask = clam_like(rgb, um_per_px) & scanned
    elif method == "consensus":
        thresholds = cue_thresholds(cues, usable, white)
        mask = consensus(cues, thresholds, usable, um_per_px, settings)
        mask = drop_rims(mask, pen, um_per_px)
        stability = min(
            _iou(mask, consensus(cues, _moved(thresholds, by), usable, um_per_px, settings))
            for by in (0.9, 1.1)
        )
        notes.extend(_cue_flags(thresholds, white, stability, mask))
    else:
        raise ConfigError(f"Unknown tissue method {method!r}; choose consensus or clam-like.")
    if kind == "brightfield" and not mask.any():
        kind = "blank"
        notes.append("no tissue was found")
    return TissueMap(
        mask=mask,
        um_per_px=um_per_px,
        factor=factor,
        pen=pen,
        invalid=~scanned,
        kind=kind,
        overview=rgb,
        health=_health(
            mask, scanned, pen, um_per_px, stability, white, thresholds, colours, tuple(notes)
        ),
    )


def is_fluorescence(rgb: UInt8Array, valid: BoolArray) -> bool:
    """Dark background and hardly a bright pixel: no light went through this slide."""
    pixels = rgb[valid]
    if not len(pixels):
        return False
    dark = float((pixels.max(axis=1) < 60).mean())
    glassy = float((pixels.min(axis=1) > 170).mean())
    return dark > 0.3 and glassy < 0.01


def cue_thresholds(cues: Cues, usable: BoolArray, white: WhitePoint) -> dict[str, Threshold]:
    """A guarded threshold per cue; the glass's own noise raises the lower limits."""
    result = {}
    for name, (floor, ceiling) in LIMITS.items():
        values = getattr(cues, name)[usable]
        values = values[:: -(-max(1, len(values)) // SAMPLE)]
        noisy = floor * max(1.0, white.noise / 2.0)
        result[name] = guarded_threshold(values, min(noisy, ceiling), ceiling)
    return result


def consensus(
    cues: Cues,
    thresholds: Mapping[str, Threshold],
    usable: BoolArray,
    um_per_px: float,
    settings: TissueSettings,
) -> BoolArray:
    """Two votes of three, second pass at the border, morphology."""
    votes = np.zeros(usable.shape, np.uint8)
    for name, threshold in thresholds.items():
        if threshold.verdict is not Verdict.NOTHING:
            votes += getattr(cues, name) > threshold.value
    first = _tidy((votes >= 2) & usable, um_per_px, settings) & usable
    second = refine_border(cues.density, first, usable, um_per_px, settings.border_um)
    return _tidy(second, um_per_px, settings) & usable


def refine_border(
    density: Float32Array, mask: BoolArray, usable: BoolArray, um_per_px: float, border_um: float
) -> BoolArray:
    """Decide a band around the border anew, by the local means of both sides.

    The texture cue spreads by half its window and a global threshold is too low at dark tissue
    and too high at pale: near the border a pixel belongs to the side whose mean optical
    density, within five band widths, is nearer.
    """
    radius = max(1, round(border_um / um_per_px))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    byte = mask.view(np.uint8)
    inner = cv2.erode(byte, kernel).view(np.bool_)
    outer = ~cv2.dilate(byte, kernel).view(np.bool_) & usable
    band = usable & ~inner & ~outer
    if not band.any():
        return mask
    side = odd_px(10 * border_um, um_per_px)
    inside, inside_weight = _local_mean(density, mask, side)
    outside, outside_weight = _local_mean(density, outer, side)
    known = band & (inside_weight > 0) & (outside_weight > 0)
    middle = outside + np.maximum(0.35 * (inside - outside), 0.02)
    result = mask.copy()
    result[known] = density[known] > middle[known]
    return result


def drop_rims(mask: BoolArray, pen: BoolArray, um_per_px: float) -> BoolArray:
    """Drop pieces that are nothing but the blurred edge of a pen stroke."""
    if not pen.any() or not mask.any():
        return mask
    radius = max(1, round(RIM_UM / um_per_px))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    near = cv2.dilate(pen.view(np.uint8), kernel).view(np.bool_)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    area = np.bincount(labels.ravel(), minlength=count)
    beside = np.bincount(labels[near].ravel(), minlength=count)
    rim = beside > 0.8 * area
    rim[0] = True
    result: BoolArray = mask & ~rim[labels]
    return result


def clam_like(
    rgb: UInt8Array,
    um_per_px: float,
    *,
    threshold: int = 8,
    use_otsu: bool = False,
    median_um: float = 56.0,
    close_um: float = 32.0,
) -> BoolArray:
    """The common saturation rule: HSV saturation, median blur, fixed or Otsu threshold, close.

    Written from the published description; lengths are in um in place of pixels of a level.
    """
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    blurred = cv2.medianBlur(saturation, odd_px(median_um, um_per_px))
    mode = cv2.THRESH_BINARY + (cv2.THRESH_OTSU if use_otsu else 0)
    _, mask = cv2.threshold(blurred, threshold, 255, mode)
    side = max(1, round(close_um / um_per_px))
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    result: BoolArray = closed > 0
    return result


def _tidy(mask: BoolArray, um_per_px: float, settings: TissueSettings) -> BoolArray:
    byte: UInt8Array = mask.astype(np.uint8)
    for operation, radius_um in (
        (cv2.MORPH_CLOSE, settings.close_um),
        (cv2.MORPH_OPEN, settings.open_um),
    ):
        radius = round(radius_um / um_per_px)
        if radius:
            # OpenCV's border is neutral for both, so tissue that runs off the slide stays.
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
            byte = cv2.morphologyEx(byte, operation, kernel).astype(np.uint8)
    pixel_mm2 = (um_per_px / 1000) ** 2
    kept = _drop_small(byte.astype(np.bool_), settings.min_area_mm2 / pixel_mm2, 8)
    holes = ~kept
    _, labels, stats, _ = cv2.connectedComponentsWithStats(holes.view(np.uint8), connectivity=4)
    height, width = mask.shape
    inside = (
        (stats[:, cv2.CC_STAT_LEFT] > 0)
        & (stats[:, cv2.CC_STAT_TOP] > 0)
        & (stats[:, cv2.CC_STAT_LEFT] + stats[:, cv2.CC_STAT_WIDTH] < width)
        & (stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT] < height)
    )
    fill = inside & (stats[:, cv2.CC_STAT_AREA] <= settings.max_hole_mm2 / pixel_mm2)
    fill[0] = False
    result: BoolArray = kept | fill[labels]
    return result


def _drop_small(mask: BoolArray, least_px: float, connectivity: int) -> BoolArray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=connectivity
    )
    keep = stats[:, cv2.CC_STAT_AREA] >= least_px
    keep[0] = False
    result: BoolArray = keep[labels]
    return result


def _local_mean(
    values: Float32Array, where: BoolArray, side_px: int
) -> tuple[Float32Array, Float32Array]:
    weight = where.astype(np.float32)
    size = (side_px, side_px)
    share = np.asarray(cv2.blur(weight, size, borderType=cv2.BORDER_CONSTANT), np.float32)
    total = np.asarray(cv2.blur(values * weight, size, borderType=cv2.BORDER_CONSTANT), np.float32)
    share[share < 0.5 / side_px**2] = 0
    mean = np.divide(total, share, out=np.zeros_like(total), where=share > 0)
    return mean, share


def _moved(thresholds: Mapping[str, Threshold], by: float) -> dict[str, Threshold]:
    return {
        name: Threshold(
            value=t.value * by,
            separability=t.separability,
            verdict=t.verdict,
            limited=t.limited,
        )
        for name, t in thresholds.items()
    }


def _iou(a: BoolArray, b: BoolArray) -> float:
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def _cue_flags(
    thresholds: Mapping[str, Threshold], white: WhitePoint, stability: float, mask: BoolArray
) -> list[str]:
    flags = []
    if not white.found:
        flags.append("no bare glass was seen; a usual white was assumed")
    doubtful = [name for name, threshold in thresholds.items() if threshold.undecided]
    if len(doubtful) >= 2:
        flags.append(f"undecided: {' and '.join(doubtful)} do not separate tissue from glass")
    if mask.any() and stability < 0.85:
        flags.append(f"unstable: thresholds 10 % off change the mask (IoU {stability:.2f})")
    return flags


def _health(
    mask: BoolArray,
    scanned: BoolArray,
    pen: BoolArray,
    um_per_px: float,
    stability: float,
    white: WhitePoint,
    thresholds: Mapping[str, Threshold],
    colours: tuple[str, ...],
    flags: tuple[str, ...],
) -> TissueHealth:
    pixel_mm2 = (um_per_px / 1000) ** 2
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    return TissueHealth(
        tissue_mm2=float(mask.sum() * pixel_mm2),
        scanned_mm2=float(scanned.sum() * pixel_mm2),
        pen_mm2=float(pen.sum() * pixel_mm2),
        components=count - 1,
        largest_mm2=float(areas.max() * pixel_mm2) if count > 1 else 0.0,
        stability=stability,
        white_rgb=white.rgb,
        thresholds=thresholds,
        pen_colours=colours,
        flags=flags,
    )
