"""An output against the real thing: metrics by region, a difference map, a viewer.

The finer slide has to show the same glass in the same place: the slide that the input was reduced
from, or one registered to it. What is compared are whole output pixels; the finer slide is read at
the output's own grid (stored pixels where the resolutions agree, else antialiased reduction).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsisr.arrays import AnyArray, Float32Array, UInt8Array
from wsisr.drawing.sheets import SheetImage, heat, heat_scale, sheet
from wsisr.errors import MppError, SlideError
from wsisr.files import remove_tree, save_picture, staged_files
from wsisr.geometry import Box
from wsisr.inference import bicubic
from wsisr.inference.tiles import Frame, blocks_of, lr_box
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.slides.opening import open_slide
from wsisr.slides.protocol import Slide, SlideInfo
from wsisr.slides.resample import read_resampled
from wsisr.tables import csv_table
from wsisr.upscaling.audit.layers import audit_layers
from wsisr.upscaling.pipeline import UpscaleResult
from wsisr.upscaling.sinks import audit_folder
from wsisr.upscaling.source import Plane, read_plane
from wsisr.upscaling.viewer_folder import ViewerPicture, write_viewer

REGION_PX = 512
MAP_PX = 1600
"""Longest side of the difference map."""
VIEW_PX = 6144
"""Longest side of what the viewer shows; of a larger output, its part with most texture."""
MAX_SCORED = 400
GLASS_SD = 5.0
"""Regions below (grey levels) are bare glass: their PSNR is that of the output's compression."""
SIZE_TOLERANCE = 0.02

FIELDS = (
    "x",
    "y",
    "width",
    "height",
    "mean_abs_difference",
    "psnr_rgb",
    "ssim_rgb",
    "bicubic_psnr_rgb",
    "bicubic_ssim_rgb",
)


@dataclass(frozen=True, kw_only=True)
class SlideComparison:
    """What was found.

    Attributes
    ----------
    folder : Path
        With ``regions.csv``, ``difference.png`` and ``viewer/index.html``.
    regions : tuple of mapping
        Rows of the table.
    scored : int
        Regions that are no bare glass, at most 400.
    psnr_rgb, bicubic_psnr_rgb, ssim_rgb, bicubic_ssim_rgb : float
        Means over them.
    """

    folder: Path
    regions: tuple[dict[str, Any], ...]
    scored: int
    psnr_rgb: float
    bicubic_psnr_rgb: float
    ssim_rgb: float
    bicubic_ssim_rgb: float

    def sentence(self) -> str:
        """For the terminal."""
        if not self.scored:
            return (
                f"{self.folder}: none of {len(self.regions)} regions could be scored; open "
                "viewer/index.html."
            )
        return (
            f"{self.folder}: {self.scored} of {len(self.regions)} regions, PSNR "
            f"{self.psnr_rgb:.2f} dB (bicubic {self.bicubic_psnr_rgb:.2f}), SSIM "
            f"{self.ssim_rgb:.4f} (bicubic {self.bicubic_ssim_rgb:.4f}); open viewer/index.html."
        )


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where output px lie on the finer slide."""

    level: int
    step_x: float
    step_y: float


def compare_slides(
    source: Path,
    result: UpscaleResult,
    finer: Path,
    report: Reporter = silent,
    *,
    audited: bool = False,
) -> SlideComparison:
    """Compare a fresh output with a finer slide, and report.

    Parameters
    ----------
    source : Path
        The input that was upscaled.
    result : UpscaleResult
        Beside its file ``OUT.compare/`` is made; what an earlier comparison left there is replaced.
    audited : bool
        Whether the output was: the viewer can show the maps of its audit then.

    Raises
    ------
    MppError
        If a resolution is missing.
    SlideError
        If the finer slide is coarser than the output, or shows another field.
    """
    plane, frame = result.plane, result.frame
    folder = result.path.with_name(result.path.name + ".compare")
    with (
        open_slide(source) as low,
        open_slide(result.path) as made,
        open_slide(finer) as high,
        staged_files(folder, "comparison") as staged,
    ):
        match = match_finer(plane, frame, made.info, high.info)
        slides = _ComparedSlides(
            low=low, made=made, high=high, match=match, plane=plane, frame=frame
        )
        size = frame.region.width, frame.region.height
        rows: list[dict[str, Any]] = []
        boxes = blocks_of(frame, REGION_PX)
        cell = -(-max(size) // MAP_PX)
        total = np.zeros((-(-size[1] // cell), -(-size[0] // cell)), np.float32)
        texture: list[float] = []
        for number, box in enumerate(boxes, 1):
            sr, hr = slides.sr(box), slides.hr(box)
            difference = cv2.absdiff(sr, hr).mean(axis=2, dtype=np.float32)
            _pool(total, difference, box, cell)
            texture.append(float(cv2.cvtColor(hr, cv2.COLOR_RGB2GRAY).std()))
            rows.append(
                {
                    **{name: getattr(box, name) for name in FIELDS[:4]},
                    "mean_abs_difference": float(difference.mean()),
                }
            )
            report(ProgressEvent(stage="compare", done=number, total=len(boxes), unit="region"))
        scored = regions_to_score(texture, rows)
        for index in scored:
            rows[index] |= _scores(slides, boxes[index])
        (staged / "regions.csv").write_bytes(csv_table(FIELDS, rows, ".4f"))
        save_picture(staged / "difference.png", difference_picture(total))
        remove_tree(folder / "viewer")  # of tiles that a smaller one lacks
        view = viewed_part(frame.region.width, frame.region.height, boxes, texture)
        names = (f"{result.model} x{result.scale:g}", "real", "input, bicubic")
        write_viewer(
            staged / "viewer",
            [
                ViewerPicture(name=name, rgb=rgb)
                for name, rgb in zip(names, _pictures(slides, view), strict=True)
            ],
            title="Upscaled and real",
            note=_note(made, high, frame, view),
            layers=audit_layers(audit_folder(result.path), view) if audited else (),
        )
    means = {
        name: float(np.mean([min(100.0, rows[i][name]) for i in scored]))
        if scored
        else float("nan")
        for name in FIELDS[5:]
    }
    found = SlideComparison(folder=folder, regions=tuple(rows), scored=len(scored), **means)
    report(ProgressEvent(stage="compare", message=found.sentence()))
    return found


def match_finer(plane: Plane, frame: Frame, made: SlideInfo, high: SlideInfo) -> Match:
    if high.mpp is None or plane.um_per_px is None:
        missing = high.path if high.mpp is None else made.path
        raise MppError(
            f"{missing}: --compare needs its resolution (um per px), and it states none."
        )
    out_um = plane.um_per_px[0] / frame.scale_x, plane.um_per_px[1] / frame.scale_y
    base = high.levels[0]
    wanted = plane.width_px * plane.um_per_px[0], plane.height_px * plane.um_per_px[1]
    found = base.width_px * high.mpp.x, base.height_px * high.mpp.y
    for a, b in zip(wanted, found, strict=True):
        if abs(a - b) > max(SIZE_TOLERANCE * max(a, b), 2 * max(plane.um_per_px)):
            raise SlideError(
                f"{high.path} shows {found[0]:.0f} x {found[1]:.0f} um and the input "
                f"{wanted[0]:.0f} x {wanted[1]:.0f} um: not the same field. Compare with the slide "
                "that the input was made from; two scans need `wsisr register scans` first."
            )
    # The input may lack a last row of px, so places go by resolution and not by size.
    steps = out_um[0] / high.mpp.x, out_um[1] / high.mpp.y
    steps = tuple(round(s) if abs(s - round(s)) < 1e-4 * s else s for s in steps)  # type: ignore[assignment]
    if min(steps) < 1:
        raise SlideError(
            f"{high.path} has {high.mpp.value:g} um/px, coarser than the output's {out_um[0]:g}; "
            "compare with a slide that is at least as fine."
        )
    usable = [
        level
        for level in high.levels
        if level.exact and level.factor is not None and level.factor <= min(steps) * (1 + 1e-9)
    ] or [high.levels[0]]
    level = max(usable, key=lambda found: found.factor or 1)
    own = level.factor or 1
    return Match(level=level.index, step_x=steps[0] / own, step_y=steps[1] / own)


def read_finer(slide: Slide, match: Match, frame: Frame, box: Box) -> UInt8Array:
    x, y = frame.region.x + box.x, frame.region.y + box.y
    step_x = step_y = factor = match.step_x
    if abs(match.step_y - step_x) >= 1e-6 * step_x:
        # Axes that differ by a rounded px: the finer of both, then cut to the box.
        step_y = match.step_y
        factor = max(1.0, (step_x * step_y) ** 0.5)
    corner = (x * step_x, y * step_y)
    return read_resampled(slide, match.level, corner, factor, (box.width, box.height))


def regions_to_score(texture: list[float], rows: list[dict[str, Any]]) -> list[int]:
    """Regions to score: room for SSIM, no bare glass (unless all are), those with most texture."""
    roomy = [i for i, row in enumerate(rows) if min(row["width"], row["height"]) >= 32]
    fit = [i for i in roomy if texture[i] >= GLASS_SD] or roomy
    return sorted(sorted(fit, key=lambda i: (-texture[i], i))[:MAX_SCORED])


@dataclass(frozen=True, kw_only=True)
class _ComparedSlides:
    """Input, output and finer slide, read by boxes of output px."""

    low: Slide
    made: Slide
    high: Slide
    match: Match
    plane: Plane
    frame: Frame

    def sr(self, box: Box) -> UInt8Array:
        return self.made.read_level(0, box.x, box.y, box.width, box.height)

    def hr(self, box: Box) -> UInt8Array:
        return read_finer(self.high, self.match, self.frame, box)

    def plain(self, box: Box) -> UInt8Array:
        """The input, enlarged by bicubic."""
        return bicubic.to_grey(enlarged(self.low, self.plane, self.frame, box))


def _scores(slides: _ComparedSlides, box: Box) -> dict[str, float]:
    from wsisr.metrics import psnr, ssim

    sr, hr, plain = slides.sr(box), slides.hr(box), slides.plain(box)
    return {
        "psnr_rgb": float(psnr(sr, hr)),
        "ssim_rgb": float(ssim(sr, hr)),
        "bicubic_psnr_rgb": float(psnr(plain, hr)),
        "bicubic_ssim_rgb": float(ssim(plain, hr)),
    }


def enlarged(low: Slide, plane: Plane, frame: Frame, box: Box) -> Float32Array:
    out = box.moved(frame.region.x, frame.region.y)
    need = lr_box(frame, out, bicubic.HALO_PX, 1)
    return bicubic.enlarge(read_plane(low, plane, need), need, frame, out)


def _pool(total: Float32Array, difference: AnyArray, box: Box, cell: int) -> None:
    """Add the share of a region to the map of cell means."""
    ys, xs = (np.arange(box.y, box.bottom) // cell, np.arange(box.x, box.right) // cell)
    rows = np.add.reduceat(difference, np.flatnonzero(np.diff(ys, prepend=-1)), axis=0)
    cells = np.add.reduceat(rows, np.flatnonzero(np.diff(xs, prepend=-1)), axis=1)
    total[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] += cells / np.float32(cell * cell)


def difference_picture(values: Float32Array) -> UInt8Array:
    """Mean absolute differences (grey levels) as a coloured map with its scale, RGB."""
    top = max(1.0, float(np.ceil(np.percentile(values, 99.5))))
    text = f"mean |difference|, 0 to {top:g} grey levels"
    height = max(64, min(256, values.shape[0]))
    return sheet([[SheetImage(image=heat(values.astype(np.float64), top), text=text),
                   SheetImage(image=heat_scale(top, height))]])  # fmt: skip


def _pictures(slides: _ComparedSlides, view: Box) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Output, finer slide and enlarged input of a part of the output."""
    sr = np.empty((view.height, view.width, 3), np.uint8)
    hr, plain = np.empty_like(sr), np.empty_like(sr)
    for box in view.blocks(REGION_PX):
        place = box.relative_to(view).slices
        sr[place], hr[place], plain[place] = slides.sr(box), slides.hr(box), slides.plain(box)
    return sr, hr, plain


def _note(made: Slide, high: Slide, frame: Frame, view: Box) -> str:
    note = f"{made.info.path.name} against {high.info.path.name}"
    if (view.width, view.height) != (frame.region.width, frame.region.height):
        note += f"; part {view} of the output"
    return note + ". Not for diagnosis."


def viewed_part(width: int, height: int, boxes: list[Box], texture: list[float]) -> Box:
    """All of a small output; of a large one, the square with most texture."""
    if max(width, height) <= VIEW_PX:
        return Box(x=0, y=0, width=width, height=height)
    columns = -(-width // REGION_PX)
    grid = np.array(texture).reshape(-1, columns)
    side = VIEW_PX // REGION_PX
    reach = min(side, grid.shape[0]), min(side, grid.shape[1])
    sums = np.pad(grid.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    r, c = reach
    score = sums[r:, c:] - sums[:-r, c:] - sums[r:, :-c] + sums[:-r, :-c]
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    x, y = int(column) * REGION_PX, int(row) * REGION_PX
    return Box(x=x, y=y, width=min(VIEW_PX, width - x), height=min(VIEW_PX, height - y))
