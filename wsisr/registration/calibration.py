"""Where the levels of a slide really lie against its level 0.

Whole factors place levels exactly where files keep the rules. Some do not: a scanner stores
levels with an offset, a program mixes up pixel corners and centres, a reader divides by a
rounded downsample and drifts. So the place of every level is measured on textured patches, as
an offset and a slope per axis, and applied (design 3.6).
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsisr.arrays import Float64Array, Int64Array, UInt8Array
from wsisr.registration.fitting import Line, robust_line
from wsisr.registration.pair import MIN_LR_PX, register_pair
from wsisr.registration.places import exact_factor, textured_places
from wsisr.runners import in_threads
from wsisr.slides.protocol import Level, Slide

PATCH_PX = 128
"""Side of a measured patch, level px."""
MAX_RATIO = 8
"""A level is measured against the finest other one that is at most this much finer."""
WANTED_PLACES = 45
MIN_PLACES = 6
MARGIN_LEVEL_PX = 6
"""Search range on every side, level px: readers have been seen to be off by four."""
NOTABLE_PX = 0.05
"""Smallest systematic offset that is worth a sentence, level-0 px (and 1 % of a level px)."""
INCONSISTENT_PX = 0.2
"""Scatter of the places about their line that is no noise, level-0 px."""
AGREEING = 0.8
"""Share of the places that must agree where some are far off."""
ALIGNED = "aligned"
"""The diagnosis of a level that lies where it should."""
POINT_SAMPLED = 1.7
"""Sharpness that only decimation without averaging reaches (measured: 2.4; box means 1.0)."""
NOTABLE_DRIFT_PX = 0.1
"""Smallest change over the measured places that counts as drift, level-0 px."""


@dataclass(frozen=True, kw_only=True)
class LevelTransform:
    """Where a level lies: its pixel `i` covers level 0 from ``factor * i + shift``.

    Attributes
    ----------
    offset_x_px, offset_y_px : float
        Shift at the slide's origin, level-0 px.
    slope_x, slope_y : float
        Change of the shift per level-0 px; 0 where it cannot be told from 0.
    error_x_px, error_y_px : float
        Standard error of the shift in the middle of the measured places, level-0 px.
    rms_px : float
        Root mean square distance of the places from the line, both axes, level-0 px.
    places, tried : int
        Patches that were measured, and looked at.
    width_px, height_px : int
        Size of level 0.
    ncc_band, sharpness : float
        Medians of the certificates: how alike the level is to the block means of the finer
        one, and how sharp.
    scatter_px : float
        0, or how far the places of an axis scatter where no one shift fits them (the shift is
        then 0 as well), level-0 px.
    measured : bool
        False where too few places could be matched: the shift is then 0, an assumption.
    bare : bool
        Whether that was for want of texture or pixels, and not because the texture did not match.
    diagnosis : str
        What the numbers mean, in a sentence.
    """

    level: int
    factor: int
    offset_x_px: float = 0.0
    offset_y_px: float = 0.0
    slope_x: float = 0.0
    slope_y: float = 0.0
    error_x_px: float = 0.0
    error_y_px: float = 0.0
    rms_px: float = 0.0
    places: int = 0
    tried: int = 0
    width_px: int
    height_px: int
    ncc_band: float = 0.0
    sharpness: float = 0.0
    measured: bool = False
    bare: bool = False
    scatter_px: float = 0.0
    diagnosis: str

    @property
    def notable(self) -> bool:
        """Whether a person should hear of the level: anything but measured and aligned."""
        return self.diagnosis != ALIGNED

    @property
    def place_unknown(self) -> bool:
        """Whether the level has texture and still nothing tells where it lies."""
        return not self.measured and not self.bare

    def shift_px(self, x: float, y: float) -> tuple[float, float]:
        """Predicted shift at a level-0 position (centre of a patch), level-0 px."""
        return self.offset_x_px + self.slope_x * x, self.offset_y_px + self.slope_y * y

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and strings for the store."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LevelTransform":
        """The transform that `to_json` wrote."""
        return cls(**values)


def calibrate_levels(
    slide: Slide,
    seed: int = 0,
    *,
    places: Int64Array | None = None,
    wanted: int = WANTED_PLACES,
    only: Collection[int] | None = None,
) -> tuple[LevelTransform, ...]:
    """Measure where every level above 0 lies; nothing of a slide of one level.

    Parameters
    ----------
    seed : int
        Draws the places; the same seed gives the same answer.
    places : ndarray, shape (n, 2), int64, optional
        Level-0 positions (x, y) of places worth looking at, e.g. tissue; otherwise textured
        places are looked for on the coarsest level.
    wanted : int
        Places to measure per level.
    only : collection of int, optional
        Indices of the levels that matter; by default all above 0. Levels that they are measured
        against come along.

    Notes
    -----
    A level is measured against a finer one that is at most `MAX_RATIO` times finer, and the
    shifts are chained. Offsets are errors of the file or of its reader, never of the tissue,
    so one line per axis is fitted to all places (least squares with Tukey weights) and the
    slope dropped where it is not significant.
    """
    levels = [level for level in slide.info.levels if level.factor is not None]
    known: dict[int, LevelTransform] = {}
    chosen = [v for v in levels[1:] if only is None or v.index in _with_references(levels, only)]
    for level in chosen:
        known[level.index] = _measure(slide, level, known, seed, places, wanted)
    return tuple(known.values())


def _with_references(levels: list[Level], only: Collection[int]) -> set[int]:
    """The wanted levels and those that they are measured against, down to level 0."""
    needed: set[int] = set()
    for level in reversed(levels):
        if level.index in only or level.index in needed:
            needed.add(level.index)
            reference = _reference(level, levels)
            if reference is not None:
                needed.add(reference.index)
    return needed


def _reference(level: Level, levels: Sequence[Level]) -> Level | None:
    """Finest level that divides this one and is at most `MAX_RATIO` times finer."""
    for candidate in levels:
        if candidate.factor is None:
            continue
        ratio = exact_factor(level) / exact_factor(candidate)
        if candidate.index < level.index and ratio.is_integer() and 2 <= ratio <= MAX_RATIO:
            return candidate
    return None


def _measure(
    slide: Slide,
    level: Level,
    known: dict[int, LevelTransform],
    seed: int,
    places: Int64Array | None,
    wanted: int,
) -> LevelTransform:
    base = slide.info.levels[0]
    factor = exact_factor(level)

    def unmeasured(
        reason: str, tried: int = 0, found: int = 0, *, bare: bool = False
    ) -> LevelTransform:
        return LevelTransform(
            level=level.index,
            factor=factor,
            width_px=base.width_px,
            height_px=base.height_px,
            tried=tried,
            places=found,
            bare=bare,
            diagnosis=f"not measured: {reason}",
        )

    reference = _reference(level, slide.info.levels)
    if reference is None:
        return unmeasured("no finer level is near enough")
    below = known.get(reference.index)
    if below is not None and not below.measured:
        why = f"level {reference.index}, its reference, could not be measured"
        return unmeasured(why, bare=below.bare)
    patch = min(PATCH_PX, level.width_px, level.height_px)
    if patch < MIN_LR_PX:
        return unmeasured(f"{patch} px of a side are too few to be matched", bare=True)
    found = textured_places(slide, level, patch, wanted, seed, places)

    def measure(place: tuple[int, int, UInt8Array]) -> tuple[float, ...] | None:
        return _one_place(slide, level, reference, below, place)

    rows = [row for row in in_threads(measure, found) if row is not None]
    if len(rows) < MIN_PLACES:
        text = f"only {len(rows)} of {len(found)} places could be matched"
        return unmeasured(text, len(found), len(rows), bare=len(found) < MIN_PLACES)
    table = np.asarray(rows)
    line_x, scatter_x = _consistent_line(table[:, 0], table[:, 2])
    line_y, scatter_y = _consistent_line(table[:, 1], table[:, 3])
    sharpness = float(np.median(table[:, 5]))
    return LevelTransform(
        level=level.index,
        factor=factor,
        offset_x_px=line_x.offset,
        offset_y_px=line_y.offset,
        slope_x=line_x.slope,
        slope_y=line_y.slope,
        error_x_px=line_x.error,
        error_y_px=line_y.error,
        rms_px=_rms(np.concatenate([line_x.residuals, line_y.residuals])),
        places=len(rows),
        tried=len(found),
        width_px=base.width_px,
        height_px=base.height_px,
        ncc_band=float(np.median(table[:, 4])),
        sharpness=sharpness,
        measured=True,
        scatter_px=max(scatter_x, scatter_y),
        diagnosis=_diagnose(level, base, line_x, line_y, max(scatter_x, scatter_y), sharpness),
    )


def _consistent_line(positions: Float64Array, shifts: Float64Array) -> tuple[Line, float]:
    """The line of one axis and 0; or no shift and the scatter, where no line fits.

    Some programs make levels tile by tile and round each tile's start on its own: the shift
    then jumps from tile to tile, and applying its mean would help nobody.
    """
    line = robust_line(positions, shifts, NOTABLE_DRIFT_PX)
    scatter = _rms(line.residuals)
    # A drifting reader that also rounds leaves half a level pixel of scatter: still a drift.
    explained = max(abs(line.at(float(end))) for end in (positions.min(), positions.max()))
    few_wrong = line.used.mean() >= AGREEING and _rms(line.residuals[line.used]) < scatter / 4
    if few_wrong or scatter <= max(INCONSISTENT_PX, 0.25 * explained):
        return line, 0.0
    none = np.ones(len(shifts), bool)
    return Line(offset=0.0, slope=0.0, error=line.error, residuals=shifts, used=none), scatter


def _rms(values: Float64Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _one_place(
    slide: Slide,
    level: Level,
    reference: Level,
    below: LevelTransform | None,
    place: tuple[int, int, UInt8Array],
) -> tuple[float, ...] | None:
    """Level-0 centre, level-0 shift, band NCC and sharpness of one patch; None if rejected."""
    x, y, coarse = place
    patch = len(coarse)
    ratio = exact_factor(level) // exact_factor(reference)
    margin = MARGIN_LEVEL_PX * ratio
    left, top = x * ratio - margin, y * ratio - margin
    size = patch * ratio + 2 * margin
    fine = slide.read_level(reference.index, left, top, size, size)
    certificate = register_pair(coarse, fine, ratio, match_colours=False)
    if not certificate.accepted:
        return None
    centre_x, centre_y = (exact_factor(level) * (value + patch / 2) for value in (x, y))
    base_x, base_y = below.shift_px(centre_x, centre_y) if below else (0.0, 0.0)
    unit = exact_factor(reference)
    return (
        centre_x,
        centre_y,
        base_x + unit * (certificate.dx - margin),
        base_y + unit * (certificate.dy - margin),
        certificate.ncc_band,
        certificate.sharpness,
    )


def _diagnose(
    level: Level, base: Level, line_x: Line, line_y: Line, scatter_px: float, sharpness: float
) -> str:
    """A sentence that names a known fault where the numbers fit it."""
    factor = exact_factor(level)
    notable = max(NOTABLE_PX, 0.01 * factor)
    sentences = []
    for axis, line, full, size in (
        ("x", line_x, base.width_px, level.width_px),
        ("y", line_y, base.height_px, level.height_px),
    ):
        if line.slope:
            change = line.slope * full
            text = f"drift in {axis} of {change:+.2f} px from edge to edge"
            ratio_error = 1.0 - factor * size / full
            if ratio_error and 0.5 < abs(line.slope / ratio_error) < 2.0:
                text += " (a reader that divides by a ratio of truncated sizes does this)"
            sentences.append(text)
    middle = (line_x.at(base.width_px / 2), line_y.at(base.height_px / 2))
    if max(abs(middle[0]), abs(middle[1])) >= notable:
        text = f"offset of {middle[0]:+.2f}, {middle[1]:+.2f} px"
        corner = (factor - 1) / 2
        if all(abs(abs(value) - corner) < max(0.1, 0.1 * corner) for value in middle):
            text += f" = (factor - 1) / 2: pixel corners were taken for pixel centres at 1/{factor}"
        sentences.append(text)
    if scatter_px:
        sentences.append(
            f"no one shift fits: places scatter by {scatter_px:.2f} px, as where tiles were "
            "reduced one by one; trust each pair's own registration"
        )
    if sharpness > POINT_SAMPLED:
        sentences.append(
            f"{sharpness:.1f} times the fine detail of averaged pixels: decimated without averaging"
        )
    return "; ".join(sentences) if sentences else ALIGNED
