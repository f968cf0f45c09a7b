"""One slide or image, from its open file to the finished output."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from math import nan
from pathlib import Path
from typing import Any

from wsisr.arrays import BoolArray, UInt8Array, UInt16Array
from wsisr.errors import ConfigError
from wsisr.geometry import Box
from wsisr.inference.blocks import PlanePixels, Rendered, Renderer
from wsisr.inference.engine import Engine
from wsisr.inference.tiles import Frame, blocks_of
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.slides.opening import open_slide
from wsisr.slides.protocol import Slide
from wsisr.upscaling.background import find_background, whiten
from wsisr.upscaling.job import UpscaleJob, UpscaleOptions, check_output, plan_job
from wsisr.upscaling.pyramid import PyramidSink, discard_other_run, tidy
from wsisr.upscaling.seams import SeamEnergy, seam_energy
from wsisr.upscaling.sinks import PictureSink, Sink, container_of
from wsisr.upscaling.source import Plane, read_plane, read_plane_validity

CACHE_MIB = 128
Page = Callable[[Path], object]
"""Writes the page of a folder of findings."""
SHRUNK = (
    "Tiles had to be smaller than the model's own, because memory ran out: other machines may give "
    "slightly different pixels."
)


@dataclass(frozen=True, kw_only=True)
class UpscaleResult:
    """What was made.

    Attributes
    ----------
    windows : int
        Runs of the network; the rest was filled by bicubic.
    seams : SeamEnergy
        Over all tile borders.
    overlap : (float, int)
        Squared differences of tiles where they overlap, grey levels squared, and their count.
    seconds : float
        Of this run alone.
    resumed : int
        Blocks that an earlier run had finished.
    messages : tuple of str
        Sentences for a person.
    """

    path: Path
    model: str
    width_px: int
    height_px: int
    um_per_px: tuple[float, float] | None
    scale: float
    frame: Frame
    plane: Plane
    windows: int
    seams: SeamEnergy
    overlap: tuple[float, int]
    seconds: float = 0.0
    resumed: int
    messages: tuple[str, ...]

    @property
    def overlap_rms(self) -> float:
        """How far tiles differ where they overlap, grey levels; nan where none do."""
        squares, count = self.overlap
        return (squares / count) ** 0.5 if count else nan


def upscale_slide(
    source: Path | str,
    output: Path,
    model: Engine,
    options: UpscaleOptions,
    report: Reporter = silent,
    page: Page | None = None,
) -> UpscaleResult:
    """Upscale one slide or image.

    Parameters
    ----------
    source : Path or str
        Anything that `wsisr.slides.open_slide` opens.
    output : Path
        ``.ome.tiff`` (``.tif``, ``.tiff``) or ``.ome.zarr`` for a pyramid, ``.png``, ``.jpg``,
        ``.bmp`` or ``.webp`` for a picture of at most 178 Mpx.
    model : Engine
        `wsisr.inference.load` gives one.
    report : Reporter
        Events of stage ``"upscale"``, one a block.
    page : callable, optional
        Audit the output too, before it has its name: both are there, or neither. It is called with
        the folder of findings and writes their page (`wsisr.reporting.write_report`).

    Raises
    ------
    WsisrError
        With what to do. A pyramid that was interrupted goes on with the same call.
    """
    started = time.monotonic()
    output = Path(output)
    tidy(output)
    check_output(output, options)
    with open_slide(
        source,
        mpp=options.mpp,
        cache_mib=CACHE_MIB,
        white=options.white,
        focal_plane=options.focal_plane,
    ) as slide:
        job = plan_job(slide, output, model, options)
        for sentence in job.messages:
            report(ProgressEvent(stage="upscale", message=sentence))
        look = None if page is None else _Audit(slide=slide, job=job, report=report, page=page)
        result = _run(slide, job, model, options, report, look)
    return replace(result, seconds=time.monotonic() - started)


def _run(
    slide: Slide,
    job: UpscaleJob,
    model: Engine,
    options: UpscaleOptions,
    report: Reporter,
    look: "_Audit | None",
) -> UpscaleResult:
    frame, plane = job.frame, job.plane
    messages = list(job.messages)

    def tell(sentence: str) -> None:
        messages.append(sentence)
        report(ProgressEvent(stage="upscale", message=sentence))

    sink = _open_sink(job, options)
    try:
        # Once more: it may have been made between the first look and the lock.
        check_output(job.output.path, options)
        background = find_background(slide, mask=options.mask and model.trained.is_network)
        if background.note:
            tell(background.note)
        side = max(frame.lr_width_px, frame.lr_height_px)
        renderer = Renderer(
            engine=model,
            frame=frame,
            plan=job.plan,
            capacity=model.capacity(job.plan, job.scale, side),
            on_shrink=tell,
            ahead=model.device != "cpu",
        )
        blocks = blocks_of(frame)
        earlier = list(sink.finished())
        if earlier:
            tell(f"Going on after an interruption: {len(earlier)} of {len(blocks)} blocks exist.")
        ahead = _Ahead(
            slide=slide,
            plane=plane,
            renderer=renderer,
            blocks=blocks,
            wanted=background.wanted(frame, plane, job.plan.halo_px),
            sink=sink,
        )
        records = earlier + _store_blocks(ahead, len(earlier), job.scale, report)
        tell(f"Opened again and compared: {sink.close(look)}.")
        for sentence in () if look is None else look.sentences:
            tell(sentence)
        if any(record["shrunk"] for record in records):
            tell(SHRUNK)
    except BaseException:
        sink.abandon()
        raise
    return UpscaleResult(
        path=job.output.path,
        model=model.trained.model,
        width_px=frame.region.width,
        height_px=frame.region.height,
        um_per_px=job.output.um_per_px,
        scale=job.scale,
        frame=frame,
        plane=plane,
        windows=sum(int(r["windows"]) for r in records),
        seams=sum((SeamEnergy.of_row(r["seams"]) for r in records), SeamEnergy()),
        overlap=(sum(r["overlap"][0] for r in records), sum(r["overlap"][1] for r in records)),
        resumed=len(earlier),
        messages=tuple(messages),
    )


class _Audit:
    """Looks at an output once it is whole; ConfigError at once, where it cannot be audited."""

    def __init__(self, *, slide: Slide, job: UpscaleJob, report: Reporter, page: Page) -> None:
        from wsisr.upscaling.audit.grid import Grid
        from wsisr.upscaling.audit.origin import Origin

        if container_of(job.output.path) == "ome-zarr":
            raise ConfigError("--audit reads the output as a slide; name it .ome.tiff.")
        self._slide, self._job, self._report, self._page = slide, job, report, page
        self._origin = Origin.of(job)
        Grid.of(self._origin, self._origin.scale)
        self.sentences: tuple[str, ...] = ()

    def __call__(self, staged: Path) -> None:
        from wsisr.upscaling.audit.run import AuditRequest, audit_pictures
        from wsisr.upscaling.audit.slides import AuditSlides

        request = AuditRequest(output=self._job.output.path, lr=self._slide.info.path)
        with open_slide(staged) as made:
            pictures = AuditSlides(made, self._slide, self._origin)
            found = audit_pictures(pictures, request, self._report, self._page)
        self.sentences = (*found.sentences, f"Audit: {found.folder}")


def _open_sink(job: UpscaleJob, options: UpscaleOptions) -> Sink:
    if container_of(job.output.path) == "picture":
        return PictureSink(job.output)
    if options.overwrite:
        discard_other_run(job.output.path, job.identity)
    threads = options.threads or min(8, os.cpu_count() or 1)
    return PyramidSink(job.output, job.identity, threads)


@dataclass(frozen=True, kw_only=True)
class _Ahead:
    """Renders blocks in order, while the next one's pixels are read."""

    slide: Slide
    plane: Plane
    renderer: Renderer
    blocks: list[Box]
    wanted: Callable[[Box], bool]
    sink: Sink

    @property
    def across(self) -> int:
        """Blocks in a row."""
        return -(-self.renderer.frame.region.width // self.blocks[0].width)

    def read(self, index: int) -> tuple[Box, UInt8Array, BoolArray]:
        box = self.renderer.source_box(self.blocks[index])
        return (
            box,
            read_plane(self.slide, self.plane, box),
            read_plane_validity(self.slide, self.plane, box),
        )

    def render_from(self, first: int) -> Iterator[tuple[int, Rendered]]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read") as reader:
            last = len(self.blocks) - 1
            ahead = reader.submit(self.read, min(first, last))
            for index in range(first, len(self.blocks)):
                box, lr, valid = ahead.result()
                ahead = reader.submit(self.read, index + 1) if index < last else ahead
                rendered = self.renderer.render(
                    self.blocks[index],
                    PlanePixels(lr=lr, box=box),
                    self.wanted,
                    left=self.edge(index - 1, "right") if index % self.across else None,
                    above=self.edge(index - self.across, "below") if index >= self.across else None,
                )
                whiten(rendered.pixels, self.renderer.frame, self.blocks[index], valid, box)
                yield index, rendered

    def edge(self, index: int, side: str) -> UInt16Array | None:
        return self.sink.edge(index, side) if self.renderer.plan.blend_px else None

    def drop_edges_used_by(self, index: int) -> None:
        if index % self.across:
            self.sink.drop_edge(index - 1, "right")
        if index >= self.across:
            self.sink.drop_edge(index - self.across, "below")


def _store_blocks(
    ahead: _Ahead, first: int, scale: float, report: Reporter
) -> list[dict[str, Any]]:
    """Render and store all blocks; one is compressed and written while the next is rendered."""
    total = len(ahead.blocks)
    clock = _BlockClock(total - first)
    records: list[dict[str, Any]] = []

    def store(index: int, rendered: Rendered) -> None:
        energy = seam_energy(
            rendered.pixels, rendered.columns, rendered.rows, scale, rendered.source
        )
        record = {
            "seams": energy.row(),
            "overlap": rendered.overlap,
            "windows": rendered.inferred,
            "shrunk": rendered.shrunk,
        }
        ahead.sink.put(ahead.blocks[index], rendered.pixels, record)
        records.append(record)

    def settle(waiting: Future[None], index: int) -> None:
        waiting.result()
        # What it used may go only now: without its journal line it would be made again.
        ahead.drop_edges_used_by(index)
        report(
            ProgressEvent(
                stage="upscale", done=index + 1, total=total, unit="block", item=clock.tick()
            )
        )

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as writer:
        waiting: Future[None] | None = None
        for index, rendered in ahead.render_from(first):
            if rendered.edges is not None:
                ahead.sink.keep_edges(index, rendered.edges)
            if waiting is not None:
                settle(waiting, index - 1)
            waiting = writer.submit(store, index, rendered)
        if waiting is not None:
            settle(waiting, total - 1)
    return records


class _BlockClock:
    """Time left, from the blocks of this run."""

    def __init__(self, blocks: int) -> None:
        self._left = blocks
        self._done = 0
        self._start = time.monotonic()

    def tick(self) -> str:
        self._done += 1
        self._left -= 1
        seconds = int((time.monotonic() - self._start) / self._done * self._left)
        return f"{timedelta(seconds=seconds)} left"
