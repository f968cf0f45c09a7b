"""What `wsisr inspect` says of a slide."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from wsisr.magnification import magnification_name, nominal_magnification
from wsisr.registration import LevelTransform, calibrate_levels, luma_power, psnr_ceiling
from wsisr.slides import (
    Level,
    SlideInfo,
    colour_check,
    describe_left_out,
    judge_slide,
    level_evidence,
    list_source,
    open_slide,
)
from wsisr.slides.protocol import Slide
from wsisr.slides.streams import NotKept, level_streams
from wsisr.store import open_pairs

SAMPLES = 16


def describe_slide(
    path: Path,
    backend: str | None = None,
    mpp: float | None = None,
    focal_plane: int | None = None,
    white: float | None = None,
) -> str:
    """Vendor, reader, resolution with its source, levels with their evidence, and quirks.

    A `backend` is described with what a second reader says of it, whether or not it is believed.

    Raises
    ------
    SlideError
        If `path` is one slide and cannot be read.
    """
    slide = open_slide(path, backend=backend, mpp=mpp, focal_plane=focal_plane, white=white)
    with closing(slide):
        info = slide.info
        verdict = info.verdict or judge_slide(path, backend, focal_plane)
        several = len(info.levels) > 1
        evidence = {item.level: item for item in level_evidence(slide)} if several else {}
        transforms = {t.level: t for t in calibrate_levels(slide)} if several else {}
        lines = [
            str(path),
            f"  vendor      {info.vendor}",
            f"  reader      {info.backend}",
            f"  check       {verdict.line()}",
            f"  resolution  {_resolution(info)}",
            f"  objective   {_objective(info)}",
            f"  file        {info.bytes / 1e6:,.1f} MB, fingerprint {info.fingerprint[:16]}",
            f"  colour      {_icc(info)}",
            "  levels",
        ]
        for level in info.levels:
            lines.append("    " + _level_line(level, info))
            if level.index in evidence:
                lines.append(f"       {evidence[level.index].verdict}")
            if level.index in transforms:
                lines.append(f"       {_place(transforms[level.index], info)}")
        lines.append(f"  own tiles   {_own_tiles(slide)}")
        quirks = list(info.quirks)
        fault = colour_check(slide)
        if fault is not None:
            quirks.append(fault)
        lines += [f"  note        {quirk}" for quirk in quirks]
        return "\n".join(lines)


def describe_alignment(path: Path) -> str:
    """The PSNR-Y ceiling that a pair store's residuals imply; empty where nothing was measured."""
    store = open_pairs(path)
    table = store.table()
    if "residual_x" not in table or not table.rows:
        return ""
    # HR patches that stand for the detail of all.
    rows = table.index[np.linspace(0, table.rows - 1, min(SAMPLES, table.rows)).astype(int)]
    side = min(512, *(store.reader(s, store.arrays[0]).shape[1] for s in store.slides))
    power = luma_power(store.read(rows, store.arrays[0], h=side, w=side))
    left = np.stack([table["residual_x"], table["residual_y"]], axis=1)
    return f"  {psnr_ceiling(power, left)}"


def slides_below(path: Path) -> tuple[Sequence[Path], list[str]]:
    """The slides of a folder (a DICOM series is one), and what is none, in words."""
    listing = list_source(path)
    return [source.path for source in listing.slides], describe_left_out(listing.left_out)


def _place(transform: LevelTransform, info: SlideInfo) -> str:
    """Where a level lies against level 0, px and um, as stored and after whole-pixel correction."""
    if not transform.measured:
        return f"place {transform.diagnosis}"
    x, y = transform.shift_px(transform.width_px / 2, transform.height_px / 2)
    um = "" if info.mpp is None else f" = ({x * info.mpp.value:+.3f}, {y * info.mpp.value:+.3f}) um"
    after = (x - round(x), y - round(y))
    return (
        f"place ({x:+.3f}, {y:+.3f}) px{um} of level 0 "
        f"(after whole pixels {after[0]:+.3f}, {after[1]:+.3f}), rms {transform.rms_px:.3f} px "
        f"over {transform.places} places: {transform.diagnosis}"
    )


def _own_tiles(slide: Slide) -> str:
    """Whether `--codec slide` can keep the tiles of level 0."""
    try:
        kind = level_streams(slide).kind
    except NotKept as reason:
        return f"cannot be kept (--codec slide stores it as small): {reason}"
    return f"can be kept as they are ({kind}; --codec slide)"


def _resolution(info: SlideInfo) -> str:
    if info.mpp is None:
        return f"UNKNOWN: {info.mpp_problem}"
    nominal = nominal_magnification(info.mpp.value)
    name = "no nominal magnification" if nominal is None else magnification_name(nominal)
    return (
        f"{info.mpp.value:.5f} um/px ({info.mpp.source}, {info.mpp.quality}), so {name} at level 0"
    )


def _objective(info: SlideInfo) -> str:
    if info.objective_power is None:
        return "not stated (magnification follows from the resolution)"
    return f"{info.objective_power:g}x as stated (informative only)"


def _icc(info: SlideInfo) -> str:
    if info.icc_sha256 is None:
        return "no ICC profile"
    return f"ICC profile {info.icc_sha256[:16]} (not applied; --icc srgb converts)"


def _level_line(level: Level, info: SlideInfo) -> str:
    factor = "no exact downsample" if level.factor is None else f"1/{level.factor}"
    mpp = (
        ""
        if info.mpp is None or level.factor is None
        else f", {info.mpp.value * level.factor:.4f} um/px"
    )
    how = level.compression
    by = "" if how.colour_by == "photometric tag" else f" ({how.colour_by})"
    details = [how.codec, how.photometric + by]
    if how.quality is not None:
        details.append(f"Q{how.quality}")
    if how.subsampling:
        details.append(how.subsampling)
    exact = "read bit for bit" if level.exact else "NOT exactly readable: never used for pairs"
    return (
        f"{level.index}: {level.width_px} x {level.height_px} px, {factor}{mpp}, tiles "
        f"{level.tile_width_px} x {level.tile_height_px}, {' '.join(details)}; {exact}"
    )
