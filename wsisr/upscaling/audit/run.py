"""One output audited: block by block, then what its blocks have in common.

Against the input alone, `misfit` says where the output contradicts it, and `artefacts` what no
input can have given. With a finer slide of the same glass, `wsisr.metrics.correctness` classes what
was added, and nuclei that appear or vanish are listed. Memory holds one block and some numbers for
each place of 16 input px.
"""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.files import save_picture, staged_files
from wsisr.geometry import Box
from wsisr.inference import bicubic
from wsisr.inference.trust import place_means
from wsisr.metrics.correctness import correctness
from wsisr.metrics.nuclei import COARSEST_UM_PER_PX, nuclei_change
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.slides.opening import open_slide
from wsisr.upscaling.audit.artefacts import find_seams, split_bands
from wsisr.upscaling.audit.findings import SIDES, Findings, write_findings
from wsisr.upscaling.audit.grid import Grid
from wsisr.upscaling.audit.misfit import (
    CELL_PX,
    Chosen,
    cells_of,
    choose,
    degraded,
    misfit,
    outside,
    step_of,
    whole_of,
)
from wsisr.upscaling.audit.origin import find_origin
from wsisr.upscaling.audit.slides import AuditSlides
from wsisr.upscaling.audit.trusted import Trusting
from wsisr.upscaling.background import find_background
from wsisr.upscaling.pipeline import Page
from wsisr.upscaling.sinks import audit_folder

EDGE_PX = 8
"""Input px along the border of an input where a network pads, which is no border of its tiles."""
TRIED = 12
"""Blocks by which the degradation is chosen."""
SHOWN = 8
"""Worst places that become pictures."""


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
    trust : Path or None
        A calibrated run, that made the output: its trust mask is made too.
    device : str
        That its network runs on.
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
    trust: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What was found.

    Attributes
    ----------
    places, inconsistent : int
        Places of tissue, and how many of them contradict the input.
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


def audit(
    request: AuditRequest, report: Reporter = silent, page: Page = lambda folder: None
) -> AuditResult:
    """Audit an output and write ``places.csv``, maps, ``suspect.geojson`` and ``audit.json``.

    The worst places come as pictures in ``worst/``. `page` is called with the folder before it is
    put into place; `wsisr.reporting.write_report` writes the page of it all.

    Raises
    ------
    WsisrError
        The output was made from something else, the finer slide shows another field, ...
    """
    with (
        ExitStack() as stack,
        open_slide(request.lr, mpp=request.mpp) as low,
        open_slide(request.output) as made,
    ):
        origin = find_origin(
            request.output,
            low.info,
            made.info,
            scale=request.scale,
            magnification=request.magnification,
        )
        high = None if request.hr is None else stack.enter_context(open_slide(request.hr))
        return audit_pictures(AuditSlides(made, low, origin, high), request, report, page)


def audit_pictures(
    pictures: AuditSlides, request: AuditRequest, report: Reporter, page: Page
) -> AuditResult:
    """The same of slides that are open."""
    folder = request.folder or audit_folder(request.output)
    scale, grid, origin = pictures.scale, pictures.grid, pictures.origin
    with staged_files(folder, "audit") as staged:
        blocks = grid.blocks()
        tried = blocks[:: max(1, len(blocks) // TRIED)][:TRIED]
        some = [pictures.pair(block) for block in tried]
        chosen = choose(some, scale, request.degradation, origin.trained_on)
        whole = whole_of(some, scale, chosen.degradation)
        trusting = None
        if request.trust is not None:
            trusting = Trusting.of(request.trust, pictures, chosen, request.device)
        tissue, glass, note = _tissue(pictures)
        found = Findings(
            scale=step_of(scale),
            maps={name: np.zeros(grid.shape, np.float32) for name in ("misfit", "beyond")},
            tissue=tissue,
            glass=glass,
        )
        for number, block in enumerate(blocks, 1):
            _look(found, pictures, chosen, block)
            report(ProgressEvent(stage="audit", done=number, total=len(blocks), unit="block"))
        if trusting is not None:
            _trust(found, pictures, trusting, report)
        if pictures.high is not None:
            _look_closer(found, pictures, report)
        found.threshold = outside(found.misfit, tissue)
        if request.threshold is not None:
            found.threshold = request.threshold
        said = [*found.sentences(chosen, request.threshold is not None), whole.sentence()]
        if trusting is not None:
            said += trusting.sentences(found.maps["trusted"])
        if note:
            said.append(note)
        if not origin.stated:
            said.append("How the output was made is as you said; it does not say so itself.")
        worst = _worst_places(found, grid)
        for number, (_, place) in enumerate(worst, 1):
            _save_place(staged, number, pictures, place)
        document = {
            "output": request.output.name,
            "input": request.lr.name,
            "finer": None if request.hr is None else request.hr.name,
            "degradation": chosen.degradation.record(),
            "whole": asdict(whole),
            "sentences": said,
            "area_px": asdict(grid.made(grid.area)),
            "trust": None if trusting is None else asdict(trusting.calibration),
            "wrong_as_a_whole": whole.wrong,
            "worst": [
                {"misfit": value, "field_px": asdict(grid.made(place))} for value, place in worst
            ],
        }
        write_findings(staged, found, grid, origin.plane.um_per_px, document)
        page(staged)
    return AuditResult(
        folder=folder,
        places=int(tissue.sum()),
        inconsistent=found.inconsistent,
        threshold=found.threshold,
        sentences=tuple(said),
    )


def _look(found: Findings, pictures: AuditSlides, chosen: Chosen, block: Box) -> None:
    """Everything that a block says beside its own input."""
    grid, step = pictures.grid, found.scale
    wide, cells, there = grid.wider(block), grid.cells(block), grid.made(block)
    sr, lr, plain = pictures.with_plain(wide)
    values = misfit(degraded(sr, lr.shape[:2], pictures.scale, chosen.degradation), lr)
    inner = values[block.relative_to(wide).slices]
    at = cells.slices
    found.misfit[at] = cells_of(inner)
    cut = there.relative_to(grid.made(wide)).slices
    made = sr.astype(np.float32)
    # Glass has a spectrum of its own, and would thin out that of tissue.
    spectrum = found.spectrum if found.tissue[at].any() else type(found.spectrum)()
    beyond = split_bands(made.mean(axis=2), plain.mean(axis=2), float(step), spectrum)
    rms = np.sqrt(place_means(np.square(beyond[cut]), cells))
    found.maps["beyond"][at] = rms
    found.pattern.add(made[cut] - plain[cut])
    seams = find_seams(made[cut], plain[cut], step, there)
    whole = grid.made(grid.area)
    margin = float(EDGE_PX * step)
    found.seams += (seam for seam in seams or () if seam.inside(whole, margin))
    found.rows.append(
        {name: getattr(there, name) for name in ("x", "y", "width", "height")}
        | {"misfit_mean": float(inner.mean()), "misfit_max": float(inner.max())}
        | {"places": cells.width * cells.height, "beyond": float(rms.mean())}
        | {"seams": None if seams is None else len(seams)}
    )
    found.boxes.append(cells)


def _trust(found: Findings, pictures: AuditSlides, trusting: Trusting, report: Reporter) -> None:
    """Doubt of each place, and whether it is trusted."""
    grid = pictures.grid
    found.maps |= {name: np.zeros(grid.shape, np.float32) for name in ("doubt", "trusted")}
    for number, (block, cells) in enumerate(zip(grid.blocks(), found.boxes, strict=True), 1):
        doubt, trusted = trusting.places(pictures, block)
        found.maps["doubt"][cells.slices], found.maps["trusted"][cells.slices] = doubt, trusted
        report(ProgressEvent(stage="trust", done=number, total=len(found.boxes), unit="block"))


def _look_closer(found: Findings, pictures: AuditSlides, report: Reporter) -> None:
    """Class what differs from the finer slide, and look for nuclei where it can show them."""
    grid, fine = pictures.grid, pictures.um_per_px
    found.nuclei = fine is not None and fine <= COARSEST_UM_PER_PX
    found.maps |= {side: np.full(grid.shape, np.nan, np.float32) for side in SIDES}
    blocks = grid.blocks()
    for number, (block, row) in enumerate(zip(blocks, found.rows, strict=True), 1):
        wide, cells = grid.wider(block), grid.cells(block)
        sr, _, plain = pictures.with_plain(wide)
        hr = pictures.hr(wide)
        there = grid.made(block)
        inside = there.relative_to(grid.made(wide))
        cut = inside.slices
        classes = correctness(sr[cut], hr[cut], bicubic.to_grey(plain[cut]))
        row |= {side: classes.means()[side] for side in SIDES}
        for side in SIDES:
            found.maps[side][cells.slices] = place_means(getattr(classes, side), cells)
        if found.nuclei and fine is not None:
            row |= _nuclei(found, sr, hr, fine, inside, there)
        report(ProgressEvent(stage="compare", done=number, total=len(blocks), unit="block"))


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


def _tissue(pictures: AuditSlides) -> tuple[BoolArray, BoolArray, str]:
    """Which places hold tissue, which are glass, and a sentence where none is told from it.

    Glass has no tissue in or beside it: the fringe of tissue is neither.
    """
    grid, factor = pictures.grid, pictures.origin.plane.factor
    tissue = find_background(pictures.low, mask=True).tissue
    everything = np.ones(grid.shape, bool)
    if tissue is None:
        return everything, ~everything, "Tissue was not told from glass: all places count."
    area = grid.area
    rows, columns = (axis.ravel() for axis in np.mgrid[0 : grid.shape[0], 0 : grid.shape[1]])
    x, y = area.x + columns * CELL_PX, area.y + rows * CELL_PX
    # The last of a side are narrower.
    width, height = np.minimum(CELL_PX, area.right - x), np.minimum(CELL_PX, area.bottom - y)
    share = tissue.fraction(np.stack((x, y, width, height), axis=1) * factor).reshape(grid.shape)
    if not (share > 0.5).any():
        return everything, ~everything, "No place is mostly tissue: all count."
    glass = ndimage.maximum_filter(share, 3, mode="nearest") == 0
    return share > 0.5, glass, ""


def _worst_places(found: Findings, grid: Grid) -> list[tuple[float, Box]]:
    """Misfit and field (input px) of the worst flagged places of tissue, one of each piece."""
    flagged = found.flagged & found.tissue
    labels, count = ndimage.label(flagged, structure=np.ones((3, 3)))
    at = ndimage.maximum_position(found.misfit, labels, range(1, count + 1)) if count else []
    order = sorted((-float(found.misfit[y, x]), int(y), int(x)) for y, x in at)[:SHOWN]
    return [(-value, grid.around(y, x)) for value, y, x in order]


def _save_place(folder: Path, number: int, pictures: AuditSlides, place: Box) -> None:
    """Write ``worst/NN-input.png``, ``-output.png`` and, with a finer slide, ``-finer.png``."""
    sr, lr = pictures.pair(place)
    images = {"input": lr, "output": sr}
    if pictures.high is not None:
        images["finer"] = pictures.hr(place)
    for name, image in images.items():
        save_picture(folder / "worst" / f"{number:02d}-{name}.png", image)
