"""Overviews of two scans: at which resolutions they are looked for in each other, and the map."""

from typing import cast

import numpy as np

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.errors import RegistrationError
from wsisr.progress import ProgressEvent, Reporter
from wsisr.registration.overview import MAX_SIDE_PX, OverviewMatch, register_overviews
from wsisr.registration.uniqueness import why_not_unique
from wsisr.slides.protocol import Slide
from wsisr.slides.resample import read_resampled

MIN_SIDE_PX = 800
"""Longest side that small scans get, where their pixels allow it."""
MIN_UM_PER_PX = 4.0
"""Finest overview of larger scans."""
SMALL_SIDE_PX = 400
"""Longest side of an overview below which a scan has too few features to be found in a large one:
it is then looked for again, at a finer resolution."""
MAX_AREA_PX = 150_000_000
"""Of the larger overview at that resolution."""
BLOCK_PX = 512


def rough_map(
    moving: Slide, fixed: Slide, seed: int, report: Reporter
) -> tuple[OverviewMatch, Float64Array, UInt8Array, float, str]:
    """Place of one scan in another as their overviews have it.

    Returns
    -------
    (OverviewMatch, ndarray, shape (2, 3), ndarray, shape (h, w, 3), uint8, float, str)
        The match, its map moving level-0 px -> fixed level-0 px (pixel edges), the overview of
        the moving scan with its factor, and why it fits in another place as well, or nothing.

    Raises
    ------
    RegistrationError
        If a resolution is missing, or nothing is found at any resolution.
    """
    first, *finer = overview_steps(moving, fixed)
    fault: RegistrationError | None = None
    for um_per_px in (first, *finer):
        report(ProgressEvent(stage="overview", message=f"overviews at {um_per_px:.1f} um/px"))
        moving_image, moving_factor = read_overview(moving, um_per_px)
        fixed_image, fixed_factor = read_overview(fixed, um_per_px)
        try:
            match = register_overviews(
                moving_image, fixed_image, seed, same_glass_only=um_per_px != first
            )
        except RegistrationError as error:
            fault = error
            continue
        matrix = match.matrix * fixed_factor
        matrix[:, :2] /= moving_factor
        fault_of_place = why_not_unique(moving_image, fixed_image, match.matrix, um_per_px)
        return match, matrix, moving_image, moving_factor, fault_of_place
    assert fault is not None
    raise fault


def overview_steps(moving: Slide, fixed: Slide) -> tuple[float, ...]:
    """Resolutions at which two scans are looked for in each other, coarse to fine, um/px.

    One that shows both whole does, unless one is so much smaller that nothing is left of it.

    Raises
    ------
    RegistrationError
        If a slide states no resolution.
    """
    whole = max(overview_um_per_px(moving), overview_um_per_px(fixed))
    steps = [whole]
    sides_um, areas_um2, finest = [], [], 0.0
    for slide in (moving, fixed):
        base, mpp = slide.info.levels[0], slide.info.mpp
        assert mpp is not None
        sides_um.append(max(base.width_px, base.height_px) * mpp.value)
        areas_um2.append(base.width_px * base.height_px * mpp.value**2)
        finest = max(finest, mpp.value)
    finest = max(finest, min(sides_um) / MIN_SIDE_PX, (max(areas_um2) / MAX_AREA_PX) ** 0.5)
    while min(sides_um) / steps[-1] < SMALL_SIDE_PX and steps[-1] > 1.1 * finest:
        steps.append(max(steps[-1] / 2, finest))
    return tuple(steps)


def overview_um_per_px(slide: Slide) -> float:
    """Resolution at which the whole slide fits `MAX_SIDE_PX`, um/px; 4 or coarser, but for
    small scans.

    Raises
    ------
    RegistrationError
        If the slide states no resolution.
    """
    info = slide.info
    if info.mpp is None:
        raise RegistrationError(
            f"{info.path.name}: no resolution ({info.mpp_problem or 'none stated'}); two scans can "
            "only be compared if both are known. Give it with --mpp-override."
        )
    base = info.levels[0]
    longest_um = max(base.width_px, base.height_px) * info.mpp.value
    finest = min(MIN_UM_PER_PX, longest_um / MIN_SIDE_PX)
    return max(finest, longest_um / MAX_SIDE_PX, info.mpp.value)


def read_overview(slide: Slide, um_per_px: float) -> tuple[UInt8Array, float]:
    """The whole slide (h, w, 3) at a resolution, and its exact factor, level-0 px per pixel.

    An incomplete last row or column is left out.
    """
    info = slide.info
    assert info.mpp is not None  # or `overview_um_per_px` had refused it
    base = info.levels[0]
    factor = max(1.0, um_per_px / info.mpp.value)
    usable = [la for la in info.levels if la.factor is not None and la.factor <= factor]
    level = max(usable, key=lambda la: cast(int, la.factor))
    reduction = factor / cast(int, level.factor)
    width, height = int(base.width_px / factor), int(base.height_px / factor)
    image = np.full((height, width, 3), 255, np.uint8)
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            w, h = min(BLOCK_PX, width - left), min(BLOCK_PX, height - top)
            image[top : top + h, left : left + w] = read_resampled(
                slide, level.index, (left * reduction, top * reduction), reduction, (w, h)
            )
    return image, factor
