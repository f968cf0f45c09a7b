"""Three votes to a mask: thresholds, two of three, the border's second pass, morphology in um."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, sqrt

import cv2
import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Float32Array, UInt8Array
from wsisr.selection.clam import TCGA, ClamSettings
from wsisr.selection.cues import SAMPLE, Cues, DensityMap, WhitePoint, odd_px
from wsisr.selection.otsu import Threshold, ThresholdVerdict, guarded_threshold
from wsisr.selection.overview import OVERVIEW_UM_PER_PX
from wsisr.selection.pieces import find_pieces
from wsisr.selection.strips import (
    RowMap,
    area_means,
    by_strips,
    enlarged,
    spaced,
    strips,
    thinned,
)

LIMITS: Mapping[str, tuple[float, float]] = {
    "hue": (5.0, 18.0),
    "chroma": (0.025, 0.09),
    "texture": (0.004, 0.016),
    "density": (0.03, 0.10),
}
"""Physical limits of the thresholds: noise of glass below, certain tissue above. The lower ones
are for glass with a noise of `USUAL_NOISE`."""
USUAL_NOISE = 2.0
QUIETEST = {"hue": 0.4, "chroma": 0.4, "texture": 0.4, "density": 0.2}
"""Least share of the lower limits on quiet glass: what a stain at 15 % of its contrast needs, and
still above the colour drift of blank slides. Density alone is no vote: grey stain must have its
texture too, which drift has not."""
STRONG = 1.5
"""Thresholds this many times their usual lower limit are those of a stain that is not pale."""
FAINTEST = 0.02
"""Least optical density over the glass that the second pass asks for; less on pale slides."""
FAINT_AREAS = 5.0
"""Pieces fainter than the usual lower limit of the density must be this many times as large."""
EDGE_SHARE = 0.9
"""A piece that fills the picture to this share is never too small: a field of view within tissue is
cut from more."""


RIM_UM = 100.0
"""A piece that lies almost whole within this distance of ink is its blurred edge."""


GREY_WINDOW_UM = 24.0
GREY_TEXTURE = 0.2
"""Least gradient per density of grey tissue: out-of-focus dirt and glue stay below."""
STABILITY_PX = 2_000_000
"""Stability is measured on every second (third, ...) pixel of larger overviews."""
LOCAL_UM = 400.0
"""Side of the window of the second pass's local means."""


@dataclass(frozen=True, kw_only=True)
class TissueSettings:
    """Everything that a mask depends on besides the pixels.

    Attributes
    ----------
    min_area_mm2 : float
        Smaller pieces are dropped, unless they are half of the picture.
    max_hole_mm2 : float
        Holes up to this size are filled. Fat is tissue here, by choice: a pathologist outlines it
        with the organ, and a rule on texture can drop its patches later. Larger fields of fat
        are found by their membranes, about four fifths of them (`benchmarks/tissue.py`).
    close_um, open_um : float
        Radii of closing and opening.
    border_um : float
        Half width of the band that the second pass decides anew.
    clam : ClamSettings
        What the method ``"clam"`` goes by, in place of all others.
    """

    min_area_mm2: float = 0.02
    max_hole_mm2: float = 0.5
    close_um: float = 24.0
    open_um: float = 8.0
    border_um: float = 40.0
    clam: ClamSettings = TCGA


DEFAULT_SETTINGS = TissueSettings()


def cue_thresholds(cues: Cues, usable: BoolArray, white: WhitePoint) -> dict[str, Threshold]:
    """A guarded threshold per cue.

    The noise of the glass raises the lower limits. On quiet glass it lowers them too, where
    neither hue nor chroma is well above them: strong stain has no need of it.
    """
    noise = white.noise / USUAL_NOISE if white.found else 1.0
    sampled = _sampled(cues, usable)
    usual = _guarded(sampled, max(1.0, noise))
    stained = any(usual[name].value >= STRONG * LIMITS[name][0] for name in ("hue", "chroma"))
    if noise >= 1.0 or stained:
        return usual
    return _guarded(sampled, noise)


def _sampled(cues: Cues, usable: BoolArray) -> dict[str, AnyArray]:
    """Each cue at some usable pixels, evenly spaced."""
    step = usable.size // SAMPLE | 1
    chosen = usable.ravel()[::step]
    hue, chroma = cues.colours(cues.rgb.reshape(-1, 3)[::step][chosen])
    maps = {"texture": cues.texture, "density": cues.density}
    shown = {name: spaced(values, step)[chosen] for name, values in maps.items()}
    return {"hue": hue, "chroma": chroma, **shown}


def _guarded(sampled: Mapping[str, AnyArray], share: float) -> dict[str, Threshold]:
    """Thresholds with the lower limits times `share`."""
    result = {}
    for name, (floor, ceiling) in LIMITS.items():
        least = min(floor * max(QUIETEST[name], share), ceiling)
        result[name] = guarded_threshold(sampled[name], least, ceiling)
    return result


def consensus(
    cues: Cues,
    thresholds: Mapping[str, Threshold],
    usable: BoolArray,
    um_per_px: float,
    settings: TissueSettings,
) -> BoolArray:
    """Two votes of three (hue; colour or grey stain; texture), second pass, morphology."""
    density, threshold = cues.density, thresholds["density"]
    found = _two_of_three(cues, thresholds, um_per_px)
    found &= usable
    found = _tidy(found, um_per_px, settings)
    found &= usable
    faintest = min(FAINTEST, threshold.value * 2 / 3)
    found = refine_border(density, found, usable, um_per_px, settings.border_um, faintest)
    found = _tidy(found, um_per_px, settings)
    found &= usable
    return _without_faint_specks(found, density, threshold, um_per_px, settings)


def _two_of_three(cues: Cues, thresholds: Mapping[str, Threshold], um_per_px: float) -> BoolArray:
    """Where two votes are for tissue."""
    result = np.empty(cues.density.shape, np.bool_)
    for rows in strips(len(result)):
        found: dict[str, AnyArray] = {"texture": cues.texture[rows]}
        grey = _grey_stain(cues, found["texture"], thresholds["density"], rows, um_per_px)
        found["hue"], found["chroma"] = cues.colours(cues.rgb[rows])
        hue, chroma, texture = (
            values > thresholds[name].value
            if thresholds[name].verdict is not ThresholdVerdict.NOTHING
            else np.zeros(values.shape, np.bool_)
            for name in ("hue", "chroma", "texture")
            for values in (found[name],)
        )
        chroma |= grey
        result[rows] = (hue & texture) | (chroma & (hue | texture))
    return result


def _without_faint_specks(
    mask: BoolArray,
    density: RowMap,
    threshold: Threshold,
    um_per_px: float,
    settings: TissueSettings,
) -> BoolArray:
    """The lower limits of quiet glass find pale tissue, and glue and dirt too: those are small."""
    usual = LIMITS["density"][0]
    if threshold.value >= usual or not mask.any():
        return mask
    pieces = find_pieces(mask)
    least = FAINT_AREAS * settings.min_area_mm2 / (um_per_px / 1000) ** 2
    small = pieces.area < min(least, EDGE_SHARE * mask.size)
    return pieces.where(~(small & (pieces.sums(density) / pieces.area < usual)))


def _grey_stain(
    cues: Cues, texture: Float32Array, threshold: Threshold, rows: slice, um_per_px: float
) -> BoolArray:
    """Tissue without much colour (pale counterstain): dense, and not as smooth as dirt is.

    `texture` is that of a strip's rows.
    """
    if threshold.verdict is ThresholdVerdict.NOTHING:
        return np.zeros(texture.shape, np.bool_)
    side = odd_px(GREY_WINDOW_UM, um_per_px)
    # A gradient per pixel grows with the pixel, also that of dirt.
    least = GREY_TEXTURE * max(1.0, um_per_px / OVERVIEW_UM_PER_PX)
    first = max(0, rows.start - side)
    around = cues.density[first : rows.stop + side]
    blurred = np.asarray(cv2.blur(around, (side, side)), np.float32)
    local = blurred[rows.start - first :][: len(texture)]
    grey: BoolArray = (local > threshold.value) & (texture > least * local)
    return grey


def stability(
    cues: Cues,
    thresholds: Mapping[str, Threshold],
    usable: BoolArray,
    um_per_px: float,
    settings: TissueSettings,
) -> float:
    """Smaller IoU of the mask with those at thresholds 10 % lower and higher."""
    step = max(1, ceil(sqrt(usable.size / STABILITY_PX)))
    thin = Cues(
        rgb=cues.rgb[::step, ::step].copy(),
        white=cues.white,
        texture=thinned(cues.texture, step),
        density=thinned(cues.density, step),
    )
    where = usable[::step, ::step].copy()
    masks = [
        consensus(thin, _moved(thresholds, by), where, um_per_px * step, settings)
        for by in (1.0, 0.9, 1.1)
    ]
    return min(iou(masks[0], masks[1]), iou(masks[0], masks[2]))


def refine_border(
    density: DensityMap | Float32Array,
    mask: BoolArray,
    usable: BoolArray,
    um_per_px: float,
    border_um: float,
    faintest: float = FAINTEST,
) -> BoolArray:
    """Decide a band around the border anew, by the local means of both sides.

    The texture cue spreads by half its window, and a global threshold is too low at dark tissue
    and too high at pale. Near the border a pixel is tissue if its optical density is at least
    35 % of the way (and `faintest`) from the mean of the glass to the mean of the tissue within
    200 um. The means are smooth, so they are computed on a coarser grid. The mask is changed in
    place.
    """
    radius = max(1, round(border_um / um_per_px))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    near = by_strips(mask, radius, lambda part: cv2.dilate(part, kernel))
    coarse = max(1, int(LOCAL_UM / um_per_px / 12))
    side = max(3, 2 * round(LOCAL_UM / um_per_px / coarse / 2) + 1)
    inside, tissue_near = _local_mean(density, lambda rows: mask[rows], side, coarse)
    outside, glass_near = _local_mean(
        density, lambda rows: usable[rows] & ~near[rows], side, coarse
    )
    limit = outside + np.maximum(np.float32(0.35) * (inside - outside), np.float32(faintest))
    known = (tissue_near & glass_near).astype(np.uint8)
    del inside, outside
    band = near
    band &= usable
    band &= ~by_strips(mask, radius, lambda part: cv2.erode(part, kernel))
    for (columns, least), (_, sure) in zip(
        enlarged(limit, mask.shape, cv2.INTER_LINEAR),
        enlarged(known, mask.shape, cv2.INTER_NEAREST),
        strict=True,
    ):
        anew = band[:, columns] & sure.view(np.bool_)
        for rows in strips(len(mask)):
            if (part := anew[rows]).any():
                values = density[rows, columns][part]
                mask[rows, columns][part] = values > least[rows][part]
    return mask


def drop_rims(mask: BoolArray, pen: BoolArray, um_per_px: float) -> BoolArray:
    """Drop pieces that are nothing but the blurred edge of a pen stroke."""
    if not pen.any() or not mask.any():
        return mask
    radius = max(1, round(RIM_UM / um_per_px))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    near = by_strips(pen, radius, lambda part: cv2.dilate(part, kernel))
    pieces = find_pieces(mask)
    return pieces.where(pieces.sums(near) <= 0.8 * pieces.area)


def iou(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def _tidy(mask: BoolArray, um_per_px: float, settings: TissueSettings) -> BoolArray:
    mask = _smoothed(mask, cv2.MORPH_CLOSE, round(settings.close_um / um_per_px))
    mask = _smoothed(mask, cv2.MORPH_OPEN, round(settings.open_um / um_per_px))
    pixel_mm2 = (um_per_px / 1000) ** 2
    least_px = min(settings.min_area_mm2 / pixel_mm2, EDGE_SHARE * mask.size)
    pieces = find_pieces(mask)
    kept = pieces.where(pieces.area >= least_px)
    del mask, pieces
    gaps = find_pieces(~kept, connectivity=4)
    kept |= gaps.where(~gaps.at_edge & (gaps.area <= settings.max_hole_mm2 / pixel_mm2))
    return kept


def _smoothed(mask: BoolArray, operation: int, radius: int) -> BoolArray:
    """Closed or opened with a disk.

    The edge goes on outside: tissue that runs off the slide stays, and a strip of glass between
    tissue and edge is not closed, as OpenCV's neutral border would.
    """
    if not radius:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    rim = 2 * radius

    def smooth(part: UInt8Array) -> AnyArray:
        wide = cv2.copyMakeBorder(part, rim, rim, rim, rim, cv2.BORDER_REPLICATE)
        return cv2.morphologyEx(wide, operation, kernel)[rim:-rim, rim:-rim]

    return by_strips(mask, rim, smooth)


def _local_mean(
    values: RowMap, where: Callable[[slice], BoolArray], side_px: int, coarse: int
) -> tuple[Float32Array, BoolArray]:
    """Means of values inside a mask over windows, on a grid `coarse` times as wide."""
    size = (-(-values.shape[1] // coarse), -(-values.shape[0] // coarse))
    window = (side_px, side_px)

    def smooth(make: Callable[[slice], Float32Array]) -> Float32Array:
        small = area_means(make, values.shape, size)
        return np.asarray(cv2.blur(small, window, borderType=cv2.BORDER_CONSTANT), np.float32)

    def weighed(rows: slice) -> Float32Array:
        weight = where(rows).astype(np.float32)
        if weight.any():
            weight *= values[rows]
        return weight

    share = smooth(lambda rows: where(rows).astype(np.float32))
    total = smooth(weighed)
    present: BoolArray = share > 0.5 / (side_px * coarse) ** 2
    return np.divide(total, share, out=np.zeros_like(total), where=present), present


def _moved(thresholds: Mapping[str, Threshold], by: float) -> dict[str, Threshold]:
    return {name: replace(t, value=t.value * by) for name, t in thresholds.items()}
