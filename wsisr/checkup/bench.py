"""`wsisr bench SLIDE`: every speed claim, checked on the user's own file.

All jobs do the same work: the tissue patches of 256 px at level 0, pixels written to disk
without loss. References are measured in the same run: one OpenSlide read per patch through
Pillow, as most toolkits do it, and the bare decoding of each needed tile once, which nobody can
beat. CPU seconds of this process count, because they repeat where wall time does not.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import Int64Array
from wsisr.errors import BuildError
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.host import package_versions
from wsisr.selection import boxes_of, grid_candidates, tissue_of
from wsisr.slides import Slide, iter_patches, open_slide
from wsisr.slides.tiles import TiledSlide
from wsisr.store import ArraySpec, StoreWriter
from wsisr.tables import markdown_table

PATCH_PX = 256
OURS = "wsisr, blocks to raw shards"
READING = "wsisr, reading only"
LIMIT = "limit: decode each needed tile once"
PER_PATCH = "OpenSlide, one read per patch, raw file"
OURS_4 = "wsisr, four magnifications of a field"
PER_PATCH_4 = "OpenSlide, one read per magnification"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One job.

    Attributes
    ----------
    cpu_s, wall_s : float
        Of this process, all threads.
    """

    name: str
    patches: int
    cpu_s: float
    wall_s: float

    @property
    def patches_per_cpu_s(self) -> float:
        return self.patches / max(self.cpu_s, 1e-9)

    @property
    def cpu_ms_per_patch(self) -> float:
        return 1e3 * self.cpu_s / max(1, self.patches)


def measure(name: str, patches: int, job: Callable[[], None]) -> Timing:
    """Run a job once and time it."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return Timing(
        name=name,
        patches=patches,
        cpu_s=time.process_time() - cpu,
        wall_s=time.perf_counter() - wall,
    )


def square_geometry(slide: Slide, size_px: int, factors: Sequence[int]) -> PatchGeometry:
    """Patches of one field at several downsamples; a missing level is made from level 0."""
    layers = []
    for factor in factors:
        stored = [v for v in slide.info.levels if v.factor == factor and v.exact]
        layers.append(
            Layer(
                name=f"{factor}",
                factor=float(factor),
                size_px=size_px // factor,
                level=stored[0].index if stored else 0,
                reduction=1.0 if stored else float(factor),
            )
        )
    return patch_geometry(tuple(layers), tuple(v.factor for v in slide.info.levels))


def tissue_origins(slide: Slide, geometry: PatchGeometry, most: int) -> Int64Array:
    """Grid places with at least half tissue; the whole grid where there is none."""
    origins = grid_candidates(geometry, slide.info)
    if slide.info.mpp is not None:
        share = tissue_of(slide).fraction(boxes_of(origins, geometry.field_px))
        if (share >= 0.5).any():
            origins = origins[share >= 0.5]
    return origins[:most]


def bench_slide(path: Path, most: int = 3000, folder: Path | None = None) -> list[Timing]:
    """Time the extraction jobs on a slide.

    Parameters
    ----------
    most : int
        At most this many patches.
    folder : Path, optional
        Where the scratch files go.

    Raises
    ------
    BuildError
        If the slide is smaller than a patch.
    """
    with closing(open_slide(path)) as slide, tempfile.TemporaryDirectory(dir=folder) as scratch:
        geometry = square_geometry(slide, PATCH_PX, (1,))
        origins = tissue_origins(slide, geometry, most)
        if not len(origins):
            raise BuildError(f"{path}: smaller than one patch of {PATCH_PX} px.")
        out = Path(scratch)
        jobs = [
            measure(OURS, len(origins), lambda: _write(path, origins, out)),
            measure(READING, len(origins), lambda: _read(path, origins)),
            _decode_limit(path, origins),
            _openslide_per_patch(path, origins, out),
            *_four_magnifications(path, origins),
        ]
        return [job for job in jobs if job is not None]


def table(timings: Sequence[Timing]) -> str:
    """The timings as a Markdown table."""
    rows = [
        (
            *(t.name, f"{t.patches:,}", f"{t.cpu_s:.2f}", f"{t.wall_s:.2f}"),
            *(f"{t.patches_per_cpu_s:,.0f}", f"{t.cpu_ms_per_patch:.2f}"),
        )
        for t in timings
    ]
    header = ["job", "patches", "CPU s", "wall s", "patches / CPU s", "CPU ms / patch"]
    return "\n".join(markdown_table(header, rows))


def _write(path: Path, origins: Int64Array, folder: Path) -> None:
    with closing(open_slide(path)) as slide:
        geometry = square_geometry(slide, PATCH_PX, (1,))
        root = {
            "created_with": {},
            "manifest": {},
            "manifest_sha256": "",
            "magnifications": ["level0"],
            "slides": ["bench"],
        }
        store = StoreWriter.create(folder / "bench.zarr", root, overwrite=True)
        with store.slide("bench", [ArraySpec(name="level0", size_px=PATCH_PX)]) as writer:
            order = []
            for index, arrays, _ in iter_patches(slide, geometry, origins):
                writer.append({"level0": arrays["1"][np.newaxis]})
                order.append(index)
            columns = {
                "x": origins[order, 0],
                "y": origins[order, 1],
                "kept": np.ones(len(order), bool),
            }
            attrs: dict[str, Any] = {
                "source": "bench",
                "fingerprint": "",
                "mpp": None,
                "patient": "",
                "split": None,
            }
            writer.finish(columns, np.zeros((1, 1), np.uint8), attrs)


def _read(path: Path, origins: Int64Array) -> None:
    with closing(open_slide(path)) as slide:
        for _ in iter_patches(slide, square_geometry(slide, PATCH_PX, (1,)), origins):
            pass


def _decode_limit(path: Path, origins: Int64Array) -> Timing | None:
    with closing(open_slide(path)) as slide:
        if not isinstance(slide, TiledSlide):
            return None
        grid = slide.grid(0)
        tiles = sorted(
            {key for x, y in origins.tolist() for key in grid.touched(x, y, PATCH_PX, PATCH_PX)}
        )

        def decode() -> None:
            for row, column in tiles:
                slide.decode_tile(0, row, column)

        return measure(LIMIT, len(origins), decode)


def _by_openslide(path: Path) -> Any:
    """A slide opened by OpenSlide, or None where it cannot be."""
    import openslide

    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideError:
        return None


def _openslide_per_patch(path: Path, origins: Int64Array, folder: Path) -> Timing | None:
    slide = _by_openslide(path)
    if slide is None:
        return None

    def job() -> None:
        with (folder / "openslide.raw").open("wb") as file:
            for x, y in origins.tolist():
                patch = slide.read_region((x, y), 0, (PATCH_PX, PATCH_PX)).convert("RGB")
                file.write(np.asarray(patch).tobytes())

    with closing(slide):
        return measure(PER_PATCH, len(origins), job)


def _four_magnifications(path: Path, origins: Int64Array) -> list[Timing]:
    """1024 px at level 0 and the same field at 1/2, 1/4 and 1/8, against one read for each."""
    factors = (1, 2, 4, 8)
    with closing(open_slide(path)) as slide:
        geometry = square_geometry(slide, 4 * PATCH_PX, factors)
        fields = grid_candidates(geometry, slide.info)
        near = {(x // geometry.field_px, y // geometry.field_px) for x, y in origins.tolist()}
        places = [
            (x, y)
            for x, y in fields.tolist()
            if (x // geometry.field_px, y // geometry.field_px) in near
        ][:200]
        if not places:
            return []
        chosen = np.array(places, np.int64)

        def ours() -> None:
            for _ in iter_patches(slide, geometry, chosen):
                pass

        jobs = [measure(OURS_4, len(chosen), ours)]
    reference = _by_openslide(path)
    if reference is None:
        return jobs

    def theirs() -> None:
        for x, y in chosen.tolist():
            for factor in factors:
                level = reference.get_best_level_for_downsample(factor)
                size = round(4 * PATCH_PX / reference.level_downsamples[level])
                patch = reference.read_region((x, y), level, (size, size)).convert("RGB")
                if size != 4 * PATCH_PX // factor:
                    patch = patch.resize((4 * PATCH_PX // factor,) * 2)

    with closing(reference):
        jobs.append(measure(PER_PATCH_4, len(chosen), theirs))
    return jobs


def ratios(timings: Sequence[Timing]) -> list[str]:
    """What the table says, as sentences; a reference that could not be measured has none."""
    by_name = {timing.name: timing for timing in timings}
    lines = []
    for ours, theirs, words in (
        (OURS, PER_PATCH, "patches per CPU second against one OpenSlide read per patch"),
        (OURS_4, PER_PATCH_4, "fields per CPU second against one OpenSlide read per level"),
    ):
        if ours in by_name and theirs in by_name:
            factor = by_name[ours].patches_per_cpu_s / by_name[theirs].patches_per_cpu_s
            lines.append(f"{ours}: {factor:.1f} times the {words}.")
    for ours in (OURS, READING):
        if ours in by_name and LIMIT in by_name:
            share = by_name[LIMIT].cpu_s / by_name[ours].cpu_s
            lines.append(f"{ours}: {share:.0%} of the limit (each needed tile decoded once).")
    return lines


def machine() -> str:
    """Processor, cores and versions: without them no timing means anything."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    versions = package_versions()
    names = ("wsisr", "numpy", "imagecodecs", "simplejpeg", "tifffile", "openslide-bin")
    packages = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}"
