"""One input or a folder of them: what is to be made, whose share it is, what became of it."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from math import isnan
from pathlib import Path

from wsisr.device import choose_devices
from wsisr.errors import ConfigError
from wsisr.inference.engine import Engine
from wsisr.inference.loading import load
from wsisr.inference.shipped import AUTO
from wsisr.plugins import given, load_plugins
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.runners import Outcome, ProcessRunner, Runner, Task, attempt, own_device, part_of
from wsisr.slides.dicom_files import is_dicom_folder
from wsisr.slides.discovery import IMAGE_SUFFIXES, MORE_IMAGE_SUFFIXES, SlideSource, list_source
from wsisr.slides.ids import without_suffix
from wsisr.slides.leftout import describe_left_out
from wsisr.slides.opening import open_slide
from wsisr.upscaling.job import UpscaleOptions
from wsisr.upscaling.pipeline import Page, UpscaleResult, upscale_slide
from wsisr.upscaling.plain_images import PICTURE_SUFFIXES
from wsisr.upscaling.pyramid import tidy
from wsisr.upscaling.sinks import audit_folder, container_of

log = logging.getLogger(__name__)
Engines = Callable[[Path, Reporter], tuple[Engine, UpscaleOptions]]
"""What is to be run on a slide, and with which options."""

OUTPUT_SUFFIX = ".ome.tiff"
LEAST_BORDER_PX = 10_000
"""Length of tile borders below which chance alone moves their seam energy by a tenth and more."""


@dataclass(frozen=True, kw_only=True)
class UpscaleRequest:
    """What the user asked for.

    Attributes
    ----------
    source : Path
        A slide, an image, a DICOM folder, or a folder of them.
    output : Path
        A file; a folder where the source is a folder.
    model : str
        Folder of a run or of a saved model, ``"bicubic"``, a network that ships (``"he-x4"``), or
        ``"auto"``: the one that ships whose card fits the slide.
    device, precision, pool : str
        See `wsisr.inference.load`; several devices (``"cuda:0,cuda:1"``, ``"all"``) share out the
        slides of a folder, a process each.
    part : (int, int) or None
        ``(2, 3)``: the second of three shares of a folder's slides.
    compare : Path or None
        A finer slide of the same glass to measure the output against.
    audit : callable or None
        Audit every output, as `upscale_slide` with this `page`.
    """

    source: Path
    output: Path
    model: str
    options: UpscaleOptions = field(default_factory=UpscaleOptions)
    device: str = "auto"
    precision: str = "auto"
    pool: str = "local"
    part: tuple[int, int] | None = None
    compare: Path | None = None
    audit: Page | None = None


@dataclass(frozen=True, kw_only=True)
class UpscaleSummary:
    """What became of a request.

    Attributes
    ----------
    failed : tuple of (str, str)
        Input and error.
    skipped : int
        Outputs of a folder that were there already.
    unaudited : int
        How many of those have no audit, where one was asked for.
    """

    done: tuple[UpscaleResult, ...]
    failed: tuple[tuple[str, str], ...] = ()
    skipped: int = 0
    unaudited: int = 0

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 2 all failed."""
        if not self.failed:
            return 0
        return 1 if self.done or self.skipped else 2

    def text(self) -> str:
        """For the terminal."""
        lines = [describe(result) for result in self.done]
        if self.skipped:
            lines.append(f"{self.skipped} output(s) were there already.")
        if self.unaudited:
            lines.append(
                f"{self.unaudited} of them were not audited: wsisr audit OUTPUT --lr SLIDE does it."
            )
        lines += [f"FAILED {name}: {error}" for name, error in self.failed]
        return "\n".join(lines)


def describe(result: UpscaleResult) -> str:
    """One line on a finished output."""
    um = "" if result.um_per_px is None else f", {result.um_per_px[0]:.4g} um/px"
    ratio, rms = result.seams.ratio, result.overlap_rms
    measured = result.seams.borders >= 3 * LEAST_BORDER_PX and not isnan(ratio)
    seams = f", seam energy {ratio:.2f} of the interior's" if measured else ""
    seams += "" if isnan(rms) else f", overlapping tiles differ by {rms:.2f} grey levels (rms)"
    tiles = f", {result.windows} tiles by {result.model}" if result.windows else ""
    megapixels = result.width_px * result.height_px / 1e6
    return (
        f"{result.path}: {result.width_px} x {result.height_px} px{um}, {megapixels:.1f} Mpx in "
        f"{result.seconds:.0f} s{tiles}{seams}."
    )


def upscale(
    request: UpscaleRequest, report: Reporter = silent, runner: Runner | None = None
) -> UpscaleSummary:
    """Upscale what was asked for; the slides of a folder on `runner`, or a device each.

    A single input that fails raises; of a folder, each failure is recorded and the others go on.
    In a folder, outputs that exist are skipped unless `overwrite`, so that the same command goes on
    after an interruption.

    Raises
    ------
    WsisrError
    """
    source = Path(request.source)
    one = source.is_file() or (source.is_dir() and is_dicom_folder(source))
    if not source.exists() or one:
        if request.part is not None:
            raise ConfigError("--part shares out the slides of a folder; this is one input.")
        if request.compare is not None:
            if container_of(request.output) == "ome-zarr":
                raise ConfigError("--compare reads the output as a slide; name it .ome.tiff.")
            open_slide(request.compare).close()  # a mistyped name is told now, not hours later
        if len(choose_devices(request.device)) > 1 or runner is not None:
            raise ConfigError(
                "Several devices share out the slides of a folder; this is one input."
            )
        engine, options = _engines(request)(source, report)
        result = upscale_slide(source, request.output, engine, options, report, request.audit)
        if request.compare is not None:
            from wsisr.upscaling.compare import compare_slides

            compare_slides(
                source, result, request.compare, report, audited=request.audit is not None
            )
        return UpscaleSummary(done=(result,))
    if request.compare is not None:
        raise ConfigError("--compare needs one slide, not a folder.")
    return _folder(request, report, runner)


def _engines(request: UpscaleRequest) -> Engines:
    """Every network is loaded once."""

    @cache
    def loaded(name: str) -> Engine:
        return load(name, device=request.device, precision=request.precision, pool=request.pool)

    def found(source: Path, report: Reporter) -> tuple[Engine, UpscaleOptions]:
        name, options = _chosen(request, source, report)
        return loaded(name), options

    return found


def _chosen(request: UpscaleRequest, source: Path, report: Reporter) -> tuple[str, UpscaleOptions]:
    if request.model != AUTO:
        return request.model, request.options
    from wsisr.upscaling.choosing import fitting

    name, scale, sentence = fitting(source, request.options)
    report(ProgressEvent(stage="model", message=sentence))
    return name, replace(request.options, scale=scale)


def _folder(request: UpscaleRequest, report: Reporter, runner: Runner | None) -> UpscaleSummary:
    listing = list_source(request.source, (*IMAGE_SUFFIXES, *MORE_IMAGE_SUFFIXES))
    slides = listing.slides
    for line in describe_left_out(listing.left_out):
        report(ProgressEvent(stage="slides", message=line))
    if not slides:
        raise ConfigError(f"{request.source}: there is no slide or image in this folder.")
    if request.output.suffix and not request.output.is_dir():
        raise ConfigError(
            f"{request.output}: the input is a folder, so the output is one too; name it without "
            "a suffix."
        )
    mine = [s for s in slides if _is_mine(s.slide_id, request.part)]
    devices = choose_devices(request.device)
    if runner is None and len(devices) > 1:
        runner = ProcessRunner(workers=len(devices), devices=devices)
    # Where others do the work, that it can be loaded at all is known before they begin.
    engines = _engines(request if runner is None else replace(request, device="cpu"))
    if request.model != AUTO:
        engines(request.source, report)
    request.output.mkdir(parents=True, exist_ok=True)
    targets = output_names(slides)
    todo: list[SlideSource] = []
    unaudited = 0
    for slide in mine:
        target = request.output / targets[slide.slide_id]
        if target.exists() and not request.options.overwrite:
            tidy(target)
            unaudited += request.audit is not None and not audit_folder(target).is_dir()
        else:
            todo.append(slide)
    jobs: list[Task] = [
        (s.slide_id, (s.path, request.output / targets[s.slide_id], request, given())) for s in todo
    ]
    named = {slide.slide_id: slide.relative for slide in todo}
    done: list[UpscaleResult] = []
    failed: list[tuple[str, str]] = []
    for number, outcome in enumerate(_outcomes(engines, jobs, runner, report), 1):
        if outcome.error:
            log.info("%s\n%s", outcome.key, outcome.trace)
            failed.append((named[outcome.key], outcome.error))
        else:
            done.append(outcome.value)
        report(
            ProgressEvent(
                stage="slides", done=number, total=len(todo), unit="slide", item=outcome.key
            )
        )
    return UpscaleSummary(
        done=tuple(sorted(done, key=lambda result: result.path)),
        failed=tuple(sorted(failed)),
        skipped=len(mine) - len(todo),
        unaudited=unaudited,
    )


def _outcomes(
    engines: Engines, jobs: Sequence[Task], runner: Runner | None, report: Reporter
) -> Iterator[Outcome]:
    """In this process, or where it was asked for."""
    if runner is not None:
        yield from runner(_on_worker, jobs)
        return

    def made(path: Path, target: Path, asked: UpscaleRequest, tell: Reporter) -> UpscaleResult:
        engine, options = engines(path, tell)
        return upscale_slide(path, target, engine, options, tell, asked.audit)

    for key, (path, target, request, _) in jobs:
        yield attempt(key, made, (path, target, request, _named(report, key)))


def _on_worker(
    path: Path, target: Path, request: UpscaleRequest, plugins: tuple[str, ...]
) -> UpscaleResult:
    """One slide in a process of its own device, which loads the model once."""
    load_plugins(plugins)
    name, options = _chosen(request, path, silent)
    engine = _loaded(name, own_device("auto"), request.precision, request.pool)
    return upscale_slide(path, target, engine, options, page=request.audit)


@lru_cache(maxsize=4)
def _loaded(model: str, device: str, precision: str, pool: str) -> Engine:
    return load(model, device=device, precision=precision, pool=pool)


def output_names(slides: Sequence[SlideSource]) -> dict[str, str]:
    """The name of each slide's output: its id with the suffix of what is written.

    Slides become OME-TIFF; images keep their type, or become PNG where it cannot be written. A
    slide's own suffix goes, unless another slide of the folder would then have the same output.
    """
    short = {s.slide_id: f"{without_suffix(s.slide_id)}{_suffix_of(s)}" for s in slides}
    count = Counter(name.lower() for name in short.values())
    own = {s.slide_id: f"{s.slide_id}{_suffix_of(s)}" for s in slides}
    return {key: name if count[name.lower()] == 1 else own[key] for key, name in short.items()}


def _suffix_of(slide: SlideSource) -> str:
    if slide.kind != "image":
        return OUTPUT_SUFFIX
    suffix = slide.path.suffix.lower()
    return suffix if suffix in PICTURE_SUFFIXES else ".png"


def _is_mine(slide_id: str, part: tuple[int, int] | None) -> bool:
    return part is None or part_of(slide_id, part[1]) == part[0]


def _named(report: Reporter, name: str) -> Callable[[ProgressEvent], None]:
    def tell(event: ProgressEvent) -> None:
        message = f"{name}: {event.message}" if event.message else ""
        report(replace(event, stage=f"upscale {name}", message=message))

    return tell
