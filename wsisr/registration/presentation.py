"""What the command line shows of a registration: values to print and figures to save."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.drawing.charts import histogram_of
from wsisr.drawing.fields import ResidualShifts, residual_field
from wsisr.drawing.overlays import checkerboard, red_cyan
from wsisr.drawing.sheets import SheetImage, sheet
from wsisr.drawing.vector import save_charts
from wsisr.errors import RegistrationError, SlideError
from wsisr.files import save_picture
from wsisr.registration import affine as aff
from wsisr.registration.certificate import PairCertificate
from wsisr.registration.focus import OUT_OF_FOCUS
from wsisr.registration.orientation import D4
from wsisr.registration.output import crop_residual_px, take_hr
from wsisr.registration.pair import find_orientation, register_pair
from wsisr.registration.rough import overview_um_per_px, read_overview
from wsisr.registration.scans import ScanRegistration
from wsisr.slides.opening import read_whole
from wsisr.slides.protocol import Slide

SAMPLE_PX = 256
"""Side of the sample patches of two scans, moving px (less on small scans)."""


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """A registered pair of image files.

    Attributes
    ----------
    orientation : D4
        Operation that was applied to the LR.
    figure : ndarray, uint8 RGB
        LR, HR, checkerboard and red/cyan side by side.
    """

    certificate: PairCertificate
    orientation: D4
    figure: UInt8Array


def read_image(path: Path, white: float | None = None) -> UInt8Array:
    """An image file as RGB, through the checked door of slides.

    Raises
    ------
    RegistrationError
        If it cannot be read, or has deep samples and no `white` (the sample value) is given.
    """
    try:
        pixels, _ = read_whole(path, white)
    except SlideError as error:
        raise RegistrationError(f"{path} cannot be read as an image: {error}") from error
    return pixels


def register_images(
    lr: UInt8Array,
    hr_region: UInt8Array,
    scale: int,
    method: str = "subpixel",
    any_orientation: bool = False,
) -> PairResult:
    """Register two images and draw the result; `any_orientation` tries flips and turns."""
    orientation = D4.IDENTITY
    if any_orientation:
        orientation, _ = find_orientation(lr, hr_region, scale)
    turned = np.ascontiguousarray(orientation.apply(lr))
    certificate = register_pair(turned, hr_region, scale, method)
    return PairResult(
        certificate=certificate,
        orientation=orientation,
        figure=pair_figure(turned, hr_region, certificate),
    )


def pair_figure(lr: UInt8Array, region: UInt8Array, certificate: PairCertificate) -> UInt8Array:
    """LR and HR of a pair before (crop in the middle of the region) and after registration."""
    height, width = lr.shape[:2]
    scale = round(certificate.scale)
    left, top = ((region.shape[i] - scale * lr.shape[i]) // 2 for i in (1, 0))
    left, top = max(left, 0), max(top, 0)
    before = region[top : top + scale * height, left : left + scale * width]
    crop = take_hr(region, certificate, width, height, allow_resampling=False).pixels
    return sheet(
        [
            [
                SheetImage(image=red_cyan(lr, before), text="before: middle of the region"),
                SheetImage(image=red_cyan(lr, crop), text=f"after: {certificate.verdict}"),
                SheetImage(image=checkerboard(lr, crop), text="LR and HR in turn"),
            ]
        ]
    )


@dataclass(frozen=True, kw_only=True)
class ScanSample:
    """One patch of two registered scans.

    Attributes
    ----------
    x, y : int
        Moving level-0 px.
    size_px : int
        Side, moving px.
    fixed_x, fixed_y : float
        Where the patch's centre lies in the fixed scan, level-0 px.
    residual_px : float
        Largest displacement that a whole-pixel crop would leave, HR px.
    straddles_seam, out_of_focus : bool
        Whether a build would drop it.
    """

    x: int
    y: int
    size_px: int
    fixed_x: float
    fixed_y: float
    certificate: PairCertificate
    residual_px: float
    straddles_seam: bool
    out_of_focus: bool

    @property
    def counts(self) -> bool:
        """Whether it would become a pair."""
        return self.certificate.accepted and not self.straddles_seam and not self.out_of_focus


def sample_pairs(
    registration: ScanRegistration, moving: Slide, fixed: Slide, count: int, seed: int = 0
) -> list[ScanSample]:
    """Register some patches of two scans on their own: proof of what pairs will be like."""
    base = moving.info.levels[0]
    size = min(SAMPLE_PX, base.width_px // 4, base.height_px // 4)
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(registration.piece >= 0))[:count]
    if not registration.same_glass:
        order = rng.permutation(len(registration.positions))[:count]
    samples = []
    for index in order:
        limit = np.array([base.width_px - size, base.height_px - size])
        corner = np.clip(registration.positions[index] - size / 2, 0, limit).round().astype(int)
        x, y = int(corner[0]), int(corner[1])
        plan = registration.plan_patch(x, y, size, size)
        certificate = register_pair(
            moving.read_level(0, x, y, size, size),
            plan.read(fixed),
            registration.scale,
            "affine",
            initial=plan.initial,
        )
        centre = aff.apply(aff.to_matrix(certificate.affine), np.array([size / 2, size / 2]))
        place = plan.place(centre)
        samples.append(
            ScanSample(
                x=x,
                y=y,
                size_px=size,
                fixed_x=float(place[0]),
                fixed_y=float(place[1]),
                certificate=certificate,
                residual_px=crop_residual_px(certificate, size, size),
                straddles_seam=plan.straddles_seam,
                out_of_focus=plan.out_of_focus,
            )
        )
    return samples


def scan_overlay(registration: ScanRegistration, moving: Slide, fixed: Slide) -> UInt8Array:
    """The fixed scan, brought to the moving one's place, under it in red and cyan."""
    um_per_px = max(overview_um_per_px(moving), overview_um_per_px(fixed))
    moving_image, moving_factor = read_overview(moving, um_per_px)
    fixed_image, fixed_factor = read_overview(fixed, um_per_px)
    matrix = aff.to_matrix(registration.matrix) / fixed_factor
    matrix[:, :2] *= moving_factor
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # between pixel indices
    warped = cv2.warpAffine(
        fixed_image,
        matrix,
        (moving_image.shape[1], moving_image.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    )
    return red_cyan(moving_image, np.asarray(warped, dtype=np.uint8))


def save_scan_figures(
    folder: Path, registration: ScanRegistration, moving: Slide, fixed: Slide
) -> None:
    """Overlay as PNG; residual field and histogram as PNG, SVG and PDF."""
    save_picture(folder / "overlay.png", scan_overlay(registration, moving, fixed))
    base, used = moving.info.levels[0], registration.piece >= 0
    soft = registration.focus_share(registration.positions).min(axis=1) < OUT_OF_FOCUS
    shifts = ResidualShifts(
        places=registration.positions,
        residuals=registration.residuals,
        extent=(base.width_px, base.height_px),
        used=used,
        errors=registration.errors,
        soft=soft,
        strips=[(s.left, s.top, s.right, s.bottom) for s in registration.seams],
    )
    field = residual_field(
        shifts,
        title="Residual of the affine map at the nodes",
        words="ring: its error, square: out of focus, strip: seam, small ring: not used",
        side_px=900,
    )
    lengths = histogram_of(
        np.hypot(*registration.residuals[used].T),
        title="Residual of the affine map at the nodes",
        x_label="length of the residual, HR px",
        y_label="nodes",
        start=0.0,
    )
    drawn = {"residual-field": field, "residual-histogram": lengths}
    save_charts(folder, {name: one for name, one in drawn.items() if one is not None})


def sample_table(samples: list[ScanSample]) -> dict[str, Any]:
    """How the sample patches came out."""
    accepted = [sample for sample in samples if sample.counts]
    bands = [sample.certificate.ncc_band for sample in samples]
    spreads = [sample.certificate.spread for sample in accepted]
    return {
        "patches": len(samples),
        "accepted": len(accepted),
        "across_a_seam": sum(sample.straddles_seam for sample in samples),
        "out_of_focus": sum(sample.out_of_focus for sample in samples),
        "ncc_band": float(np.median(bands)) if bands else 0.0,
        "spread_px": float(np.median(spreads)) if spreads else 0.0,
        "whole_pixel_crops": sum(sample.residual_px < 0.5 for sample in accepted),
        "reasons": sorted({s.certificate.reason for s in samples if s.certificate.reason}),
    }
