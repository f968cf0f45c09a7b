"""One output audited: block by block, then what its blocks have in common.

Against the input alone, `misfit` says where the output contradicts it. With a finer slide of the
same glass, `wsisr.metrics.correctness` classes what was added, and nuclei that appear or vanish are
listed. Memory holds one block and one number for each place of 16 input px.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import ConfigError
from wsisr.files import staged_files
from wsisr.geometry import Box
from wsisr.inference import bicubic
from wsisr.metrics.correctness import correctness
from wsisr.metrics.nuclei import COARSEST_UM_PER_PX, nuclei_change
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.slides.opening import open_slide
from wsisr.slides.protocol import Slide, UInt8Array
from wsisr.upscaling.audit.findings import SIDES, Findings, write_findings
from wsisr.upscaling.audit.grid import Grid
from wsisr.upscaling.audit.misfit import (
    CELL_PX,
    FloatMap,
    cells_of,
    choose,
    degraded,
    misfit,
    outside,
    step_of,
    whole_of,
)
from wsisr.upscaling.audit.origin import Origin, find_origin
from wsisr.upscaling.audit.worst import save_place, worst_places
from wsisr.upscaling.background import find_background
from wsisr.upscaling.compare import enlarged, match_finer, read_finer
from wsisr.upscaling.source import read_plane

TRIED = 12
"""Blocks by which the degradation is chosen."""


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What is asked.

    Attributes
    ----------
    output : Path
        Any slide or picture that somebody made from `lr`.
    lr : Path
        What it was made from.
    hr : Path or None
        A finer slide of the same glass, in the same place.
    folder : Path or None
        Where the findings go; ``OUTPUT.audit`` by default.
    scale, magnification : float or None
        As they were given when it was made, where the output does not say.
    mpp : float or None
        Of the input, where it does not state it.
    degradation : str
        How LR comes about; empty: the recorded one, unless another fits far better.
    threshold : float or None
        Misfit from which a place is inconsistent; None: what is unlike the rest of the slide.
    """

    output: Path
    lr: Path
    hr: Path | None = None
    folder: Path | None = None
    scale: float | None = None
    magnification: float | None = None
    mpp: float | None = None
    degradation: str = ""
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What was found.

    Attributes
    ----------
    folder : Path
    places, inconsistent : int
        Places of tissue, and how many of them contradict the input.
    threshold : float
    sentences : tuple of str
        What was measured, assumed and left out.
    """

    folder: Path
    places: int
    inconsistent: int
    threshold: float
    sentences: tuple[str, ...]

    def text(self) -> str:
        """For the terminal."""
        return "\n".join((*self.sentences, f"Written: {self.folder}"))


@dataclass(frozen=True, kw_only=True)
class _Finer:
    """The finer slide and the enlarged input, at the grid of the output."""

    high: Slide
    low: Slide
    made: Slide
    origin: Origin

    def read(self, box: Box) -> tuple[UInt8Array, UInt8Array]:
        """HR and enlarged LR of a box in px of the output file."""
        plane, frame = self.origin.plane, self.origin.frame
        match = match_finer(plane, frame, self.made.info, self.high.info)
        hr = read_finer(self.high, match, frame, box)
        return hr, bicubic.to_grey(enlarged(self.low, plane, frame, box))


def audit(
    request: AuditRequest,
    report: Reporter = silent,
    page: Callable[[Path], object] = lambda folder: None,
) -> AuditResult:
    """Audit an output and write ``places.csv``, maps, ``suspect.geojson`` and ``audit.json``.

    The worst places come as pictures in ``worst/``. `page` is called with the folder before it is
    put into place; `wsisr.reporting.write_report` writes the page of it all.

    Raises
    ------
    WsisrError
        The output was made from something else, the finer slide shows another field, ...
    """
    folder = request.folder or request.output.with_name(request.output.name + ".audit")
    with (
        ExitStack() as stack,
        open_slide(request.lr, mpp=request.mpp) as low,
        open_slide(request.output) as made,
        staged_files(folder, "audit") as staged,
    ):
        origin = find_origin(
            request.output,
            low.info,
            made.info,
            scale=request.scale,
            magnification=request.magnification,
        )
        scale = _scale_of(origin)
        grid = Grid.of(origin, scale)

        def pair(block: Box) -> tuple[UInt8Array, UInt8Array]:
            there = grid.made(block)
            sr = made.read_level(0, there.x, there.y, there.width, there.height)
            return sr, read_plane(low, origin.plane, block)

        blocks = list(grid.blocks())
        some = [pair(block) for block in blocks[:: max(1, len(blocks) // TRIED)][:TRIED]]
        chosen = choose(some, scale, request.degradation, origin.trained_on)
        whole = whole_of(some, scale, chosen.degradation)
        found = Findings(misfit=np.zeros(grid.shape, np.float32))
        for number, block in enumerate(blocks, 1):
            wide, cells = grid.wider(block), grid.cells(block)
            sr, lr = pair(wide)
            values = misfit(degraded(sr, lr.shape[:2], scale, chosen.degradation), lr)
            inner = values[block.y - wide.y :, block.x - wide.x :][: block.height, : block.width]
            found.misfit[cells.y : cells.bottom, cells.x : cells.right] = cells_of(inner)
            there = grid.made(block)
            found.rows.append(
                {name: getattr(there, name) for name in ("x", "y", "width", "height")}
                | {"misfit_mean": float(inner.mean()), "misfit_max": float(inner.max())}
                | {"places": cells.width * cells.height}
            )
            found.boxes.append(cells)
            report(ProgressEvent(stage="audit", done=number, total=len(blocks), unit="block"))
        finer = None
        if request.hr is not None:
            high = stack.enter_context(open_slide(request.hr))
            finer = _Finer(high=high, low=low, made=made, origin=origin)
            _look_closer(found, finer, grid, blocks, report)
        found.tissue, note = _tissue(low, origin, grid)
        if request.threshold is None:
            found.threshold = outside(found.misfit, found.tissue)
        else:
            found.threshold = request.threshold
        said = [*found.sentences(chosen, request.threshold is not None), whole.sentence()]
        if note:
            said.append(note)
        if not origin.stated:
            said.append("How the output was made is as you said; it does not say so itself.")
        worst = worst_places(found, grid)
        for number, (_, field) in enumerate(worst, 1):
            sr, lr = pair(field)
            hr = None if finer is None else finer.read(grid.made(field))[0]
            save_place(staged, number, lr, sr, hr)
        document = {
            "output": request.output.name,
            "input": request.lr.name,
            "finer": None if request.hr is None else request.hr.name,
            "degradation": chosen.degradation.record(),
            "whole": asdict(whole),
            "sentences": said,
            "wrong_as_a_whole": whole.wrong,
            "worst": [
                {"misfit": value, "field_px": asdict(grid.made(field))} for value, field in worst
            ],
        }
        write_findings(staged, found, grid, origin.plane.um_per_px, document)
        page(staged)
    return AuditResult(
        folder=folder,
        places=int(found.tissue.sum()),
        inconsistent=found.inconsistent,
        threshold=found.threshold,
        sentences=tuple(said),
    )


def _look_closer(
    found: Findings, finer: _Finer, grid: Grid, blocks: list[Box], report: Reporter
) -> None:
    """Class what differs from the finer slide, and look for nuclei where it can show them."""
    um, frame = finer.origin.plane.um_per_px, finer.origin.frame
    fine = None if um is None else (um[0] * um[1] / frame.scale_x / frame.scale_y) ** 0.5
    found.nuclei = fine is not None and fine <= COARSEST_UM_PER_PX
    found.sides = {side: np.full(grid.shape, np.nan, np.float32) for side in SIDES}
    for number, (block, row) in enumerate(zip(blocks, found.rows, strict=True), 1):
        cells, there, around = grid.cells(block), grid.made(block), grid.made(grid.wider(block))
        sr = finer.made.read_level(0, around.x, around.y, around.width, around.height)
        hr, plain = finer.read(around)
        inside = Box(
            x=there.x - around.x, y=there.y - around.y, width=there.width, height=there.height
        )
        cut = slice(inside.y, inside.bottom), slice(inside.x, inside.right)
        classes = correctness(sr[cut], hr[cut], plain[cut])
        row |= {side: classes.means()[side] for side in SIDES}
        for side in SIDES:
            part = found.sides[side][cells.y : cells.bottom, cells.x : cells.right]
            part[:] = _means(getattr(classes, side), cells)
        if found.nuclei and fine is not None:
            row |= _nuclei(found, sr, hr, fine, inside, there)
        report(ProgressEvent(stage="compare", done=number, total=len(blocks), unit="block"))


def _means(values: FloatMap, cells: Box) -> FloatMap:
    """Means over the places of a block, of the px that have a class; NaN where none has."""
    # Places are of real size in output px: their edges are rounded.
    rows = np.linspace(0, values.shape[0], cells.height + 1).round().astype(int)[:-1]
    columns = np.linspace(0, values.shape[1], cells.width + 1).round().astype(int)[:-1]

    def sums(of: NDArray[Any]) -> NDArray[np.float64]:
        whole = np.add.reduceat(np.add.reduceat(of, rows, axis=0), columns, axis=1)
        return whole.astype(np.float64)

    seen = ~np.isnan(values)
    count, total = sums(seen.astype(np.float64)), sums(np.where(seen, values, 0.0))
    out = np.full(count.shape, np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out.astype(np.float32)


def _nuclei(
    found: Findings, sr: UInt8Array, hr: UInt8Array, um: float, inside: Box, there: Box
) -> dict[str, int]:
    """Nuclei whose centres lie in the block itself; their places go to `found`."""
    change = nuclei_change(sr, hr, um)
    counts = {}
    for name, places in (("vanished", change.vanished_um), ("appeared", change.appeared_um)):
        y, x = places[:, 0] / um - inside.y, places[:, 1] / um - inside.x
        own = (x >= 0) & (y >= 0) & (x < inside.width) & (y < inside.height)
        getattr(found, name).append(
            np.stack((x[own] + 0.5 + there.x, y[own] + 0.5 + there.y, places[own, 2]), axis=1)
        )
        counts[name] = int(own.sum())
    share = inside.width * inside.height / (sr.shape[0] * sr.shape[1])
    # Of the block with its context, by area: what the shares are counted against.
    return counts | {"nuclei_hr": round(change.hr * share), "nuclei_sr": round(change.sr * share)}


def _scale_of(origin: Origin) -> float:
    """The scale that was asked for, from sizes that are rounded to whole px.

    Raises
    ------
    ConfigError
        It is no ratio of small whole numbers.
    """
    frame = origin.frame
    step = step_of(round(frame.scale_x, 3))
    drift = max(
        abs(frame.lr_width_px * step.numerator / step.denominator - frame.width_px),
        abs(frame.lr_height_px * step.numerator / step.denominator - frame.height_px),
    )
    if drift > 0.5:
        raise ConfigError(
            f"{frame.width_px} x {frame.height_px} px of output on {frame.lr_width_px} x "
            f"{frame.lr_height_px} px of input are no scale that can be audited."
        )
    return step.numerator / step.denominator


def _tissue(low: Slide, origin: Origin, grid: Grid) -> tuple[NDArray[np.bool_], str]:
    """Which places hold tissue, and a sentence where none is told from glass."""
    tissue = find_background(low, mask=True).tissue
    everything = np.ones(grid.shape, bool)
    if tissue is None:
        return everything, "Tissue was not told from glass: all places count."
    area, factor = grid.area, origin.plane.factor
    rows, columns = (axis.ravel() for axis in np.mgrid[0 : grid.shape[0], 0 : grid.shape[1]])
    x, y = area.x + columns * CELL_PX, area.y + rows * CELL_PX
    # The last of a side are narrower.
    width, height = np.minimum(CELL_PX, area.right - x), np.minimum(CELL_PX, area.bottom - y)
    boxes = np.stack((x, y, width, height), axis=1) * factor
    mostly = tissue.fraction(boxes).reshape(grid.shape) > 0.5
    return (mostly, "") if mostly.any() else (everything, "No place is mostly tissue: all count.")
