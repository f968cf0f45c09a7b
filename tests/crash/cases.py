"""What is killed: whatever writes, each with what must be there before."""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from store_samples import (
    columns,
    patches,
    root_attributes,
    slide_attributes,
    specs,
    write_slide,
)

from wsisr.errors import WsisrError
from wsisr.slides.decode import decode_stream
from wsisr.slides.streams import Window
from wsisr.slides.tiles import Tile
from wsisr.store import BuildLock, StoreWriter, export_store
from wsisr.store.keep import keep_pairs
from wsisr.store.presets import SLIDE
from wsisr.store.tile_array import TilePlan, tiles_under

Act = Callable[[Path], None]


def nothing(folder: Path) -> None:
    """An empty folder."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something that writes below a folder.

    Attributes
    ----------
    run : callable
        Writes; called again, it ends with the same files, whatever the first call came to.
    prepare : callable
        Makes what must be there before.
    needs : tuple of str
        Modules that are imported once, before the forks.
    measured : tuple of str
        Patterns of files that hold times of day or speeds: only whether they are there is
        compared.
    """

    run: Act
    prepare: Act = nothing
    needs: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()

    @property
    def roots(self) -> set[str]:
        """The packages that it needs."""
        return {name.partition(".")[0] for name in self.needs}


def _slide(writer: StoreWriter, slide: str, seed: int) -> None:
    """Three patches with few columns: every file costs a dozen kills."""
    table = {name: columns(3)[name] for name in ("x", "y", "kept", "spread")}
    write_slide(writer, slide, patches(seed, 3), table=table)


def build(folder: Path) -> None:
    """What a build does of its store, with its lock: a store of two slides."""
    path, ids = folder / "a.zarr", ["s0", "s1"]
    with BuildLock(path):
        if path.exists():
            writer = StoreWriter.resume(path, root_attributes(ids))
        else:
            writer = StoreWriter.create(path, root_attributes(ids))
        for seed, slide in enumerate(ids):
            if slide not in writer.committed():
                _slide(writer, slide, seed)
        writer.commit_splits({"train": np.array([(s, r) for s in range(2) for r in range(3)])})
        writer.set_root({"assigned": {"s0": "train"}})
        writer.clean()


def tiles(folder: Path) -> None:
    """What a build with the codec `slide` does: two slides kept as their own tiles, once each."""
    path, ids = folder / "a.zarr", ["s0", "s1"]
    with BuildLock(path):
        if path.exists():
            writer = StoreWriter.resume(path, root_attributes(ids))
        else:
            writer = StoreWriter.create(path, root_attributes(ids), codec=SLIDE)
        for seed, slide in enumerate(ids):
            if slide not in writer.committed():
                _tiled_slide(writer, slide, seed)
        writer.commit_splits({"train": np.array([(s, r) for s in range(2) for r in range(3)])})
        writer.clean()


def _tiled_slide(writer: StoreWriter, slide: str, seed: int) -> None:
    """Three patches over six tiles, of which they touch four."""
    from imagecodecs import jpeg8_encode

    noise = np.random.default_rng(seed).integers(0, 256, (2, 3, 32, 32, 3), np.uint8)
    streams = {(y, x): jpeg8_encode(noise[y, x], level=90) for y in range(2) for x in range(3)}
    kept = {at: Tile(decode_stream(s, "jpeg", 32), stream=s) for at, s in streams.items()}
    picture = np.block([[[kept[y, x].pixels] for x in range(3)] for y in range(2)])
    plan = TilePlan(array="40x", kind="jpeg", tile_px=32, rows=2, columns=3)
    places = [(0, 0), (16, 16), (32, 32)]
    with writer.slide(slide, specs(), tiles=plan) as open_slide:
        for x, y in places:
            under = {at: kept[at] for at in tiles_under(x, y, (32, 32), 32)}
            patch = picture[y : y + 32, x : x + 32]
            blocks = {"40x": patch[None], "10x": patch[None, ::4, ::4]}
            open_slide.append(blocks, [Window(x, y, under)])
        table = {"x": np.array(places)[:, 0], "y": np.array(places)[:, 1], "kept": np.ones(3, bool)}
        open_slide.finish(table, np.ones((12, 10), np.uint8), slide_attributes(slide))


def overwrite(folder: Path) -> None:
    """A build in the place of another one."""
    path = folder / "a.zarr"
    with BuildLock(path):
        writer = StoreWriter.create(path, root_attributes(["t0"]), overwrite=True)
        _slide(writer, "t0", 5)
        _slide(writer, "t0", 6)
        writer.commit_splits({"val": np.array([(0, 0), (0, 1)])})
        writer.clean()


def keep(folder: Path) -> None:
    """Another rule for kept pairs."""
    keep_pairs(folder / "a.zarr", "spread<0.6")


def _refused_once_whole(path: Path, words: str, write: Callable[[], object]) -> None:
    """Run the same command: what is whole is refused, and what lies beside it goes."""
    whole = path.exists()
    try:
        write()
    except WsisrError as error:
        if not whole or words not in str(error):
            raise


def export(to: str, *needs: str) -> Case:
    """A store in another format."""

    def run(folder: Path) -> None:
        out = folder / "out"
        _refused_once_whole(out, "not empty", lambda: export_store(folder / "a.zarr", to, out))

    return Case(run=run, prepare=build, needs=needs)


def small_slide(folder: Path) -> None:
    """A slide whose enlargement has several blocks and levels."""
    from upscaling_samples import slide_file

    slide_file(folder / "s.tiff", 2300, 500)


def upscale(name: str, *needs: str) -> Case:
    """An enlarged slide."""

    def run(folder: Path) -> None:
        from wsisr.inference import load
        from wsisr.upscaling import UpscaleOptions, upscale_slide

        out, options = folder / name, UpscaleOptions(scale=2.0, mask=False, threads=1)
        _refused_once_whole(
            out,
            "give --overwrite",
            lambda: upscale_slide(folder / "s.tiff", out, load("bicubic"), options),
        )

    return Case(run=run, prepare=small_slide, needs=("wsisr.upscaling.batch", *needs))


def degrade(folder: Path) -> None:
    """A store with one more array."""
    from wsisr.degradation.stores import SimulatedArray, degrade_store

    added = SimulatedArray.of("area", 2)
    if not (folder / "b.zarr").exists():
        degrade_store(folder / "a.zarr", folder / "b.zarr", added)
    else:
        # Whole already; what lies beside it goes with the next run that replaces it.
        degrade_store(folder / "a.zarr", folder / "b.zarr", added, overwrite=True)


def command(line: str, prepare: Act, *needs: str, measured: tuple[str, ...] = ()) -> Case:
    """A command as it is typed, in the folder."""

    def run(folder: Path) -> None:
        from wsisr_cli.main import app

        os.chdir(folder)
        code = app(shlex.split(line), standalone_mode=False)
        if code:
            raise SystemExit(f"ended with {code}")

    return Case(run=run, prepare=prepare, needs=("wsisr_cli.main", *needs), measured=measured)


def slides(names: str) -> Act:
    """A folder of slides with tissue, each called by a letter."""

    def make(folder: Path) -> None:
        from wsisr.testing import SlideSpec, write_slide

        (folder / "s").mkdir()
        for seed, name in enumerate(names, 3):
            spec = SlideSpec(
                seed=seed, layout="generic", width_px=1024, height_px=1024, um_per_px=0.5
            )
            write_slide(folder / f"s/{name}.tif", spec)

    return make


def build_slides(folder: Path, codec: str | None = None) -> None:
    """A build from a slide; with no other process, which would live on."""
    from wsisr.building import BuildRequest, build_pairs, prepare
    from wsisr.runners import SerialRunner

    overrides = {"hr": "20x", "lr": "10x", "size": 64}
    source, output = folder / "s", folder / "a.zarr"
    request = BuildRequest(
        source=source, output=output, manifest="default", overrides=overrides, codec=codec
    )
    build_pairs(prepare(request), runner=SerialRunner())


def pair_of_images(folder: Path) -> None:
    """A picture and its reduction."""
    import cv2
    from slides_samples import picture

    from wsisr.files import save_picture

    image = picture(200, 200, 0)
    save_picture(folder / "hr.png", image)
    small = cv2.resize(image[8:-8, 8:-8], (92, 92), interpolation=cv2.INTER_AREA)
    save_picture(folder / "lr.png", np.asarray(small, np.uint8))


def degrade_picture(folder: Path) -> None:
    """A degraded picture and its record."""
    from wsisr.degradation.apply import Simulation
    from wsisr.degradation.files import degrade_image

    out, smaller = folder / "d.png", Simulation.of("iste", 2)
    _refused_once_whole(
        out, "add --overwrite", lambda: degrade_image(folder / "hr.png", out, smaller)
    )


def evaluation_store(folder: Path) -> None:
    """A store with native LR and two test patients."""
    from evaluation_samples import write_store

    write_store(folder / "a.zarr")


def training_store(folder: Path) -> None:
    """A store that a network can learn from, and a degradation in a file."""
    from training_samples import make_store

    from wsisr.degradation import parse_degradation

    make_store(folder / "a.zarr", count=3)
    parse_degradation("jpeg:quality=40").write(folder / "scanner.json")


def fitting_store(folder: Path) -> None:
    """A store with patches that a degradation can be fitted to."""
    from training_samples import make_store

    make_store(folder / "a.zarr", splits={"a": "train"}, hr_px=256, count=3)


def two_scans(folder: Path) -> None:
    """A glass at two resolutions."""
    from wsisr.testing import SlideSpec, write_slide

    slides("a")(folder)
    low = SlideSpec(seed=3, layout="generic", width_px=512, height_px=512, um_per_px=1.0)
    (folder / "low").mkdir()
    write_slide(folder / "low/a.tif", low)


_TRAIN = (
    "train --model srcnn --preset tiny --data a.zarr -o runs/r --steps 4 --device cpu --resume "
    "--set model.width1=8 --set model.width2=4 --set model.kernel1=5 --set model.kernel2=1 "
    "--set data.crop_lr_px=8 --set data.batch=2 --set train.save_every=2 --set train.log_every=2 "
    "--set val.every=2 --set val.count=1 --set val.crop_lr_px=12 --set val.pictures=1"
)
MEASURED = ("*/log.csv", "*/log.jsonl", "*/run.json", "*/card.md", "*/environment.json")

CASES: dict[str, Case] = {
    "build": Case(run=build),
    "overwrite": Case(run=overwrite, prepare=build),
    "keep": Case(run=keep, prepare=build),
    "tiles": Case(run=tiles, needs=("imagecodecs",)),
    "build-pairs": Case(run=build_slides, prepare=slides("a"), needs=("wsisr.building.build",)),
    "build-pairs-tiles": Case(
        run=partial(build_slides, codec=SLIDE),
        prepare=slides("a"),
        needs=("wsisr.building.build",),
    ),
    "export": export("png"),
    "export-huggingface": export("huggingface", "pyarrow.parquet"),
    "export-webdataset": export("webdataset"),
    "export-hdf5": export("hdf5", "h5py"),
    "export-lmdb": export("lmdb", "lmdb"),
    "export-geojson": export("geojson"),
    **{
        f"upscale-{name}": upscale(f"o.{name}")
        for name in ("ome.tiff", "ome.zarr", "png", "jpg", "bmp", "webp")
    },
    "upscale-dcm": upscale("o.dcm", "wsidicomizer"),
    "degrade": Case(run=degrade, prepare=build, needs=("wsisr.degradation.stores",)),
    "degrade-picture": Case(
        run=degrade_picture, prepare=pair_of_images, needs=("wsisr.degradation.files",)
    ),
    "tissue": command("tissue mask s/a.tif -o t", slides("a"), "wsisr.selection.mask_files"),
    "register": command(
        "register pair lr.png hr.png --scale 2 -o o.png", pair_of_images, "wsisr.registration"
    ),
    "report": command("report a.zarr -o p/report.html", build, "wsisr.reporting.store_page"),
    "eval": command(
        "eval --model bicubic --scales 4 --data a.zarr -o e --figures 1 --no-cost --device cpu",
        evaluation_store,
        "wsisr.evaluation",
        "wsisr.reporting.evaluation_page",
    ),
    "register-scans": command(
        "register scans low/a.tif s/a.tif -o r",
        two_scans,
        "wsisr.registration.scans",
        "wsisr.registration.presentation",
    ),
    "degrade-fit": command(
        "degrade fit a.zarr -o f/scanner.json --pairs 3", fitting_store, "wsisr.degradation.fitting"
    ),
    "train": command(
        _TRAIN, training_store, "wsisr.training.engine", "wsisr.training.start", measured=MEASURED
    ),
    "train-profile": command(
        _TRAIN + " --lr-source scanner.json",
        training_store,
        "wsisr.training.engine",
        "wsisr.training.start",
        measured=MEASURED,
    ),
}


def upscale_once(folder: Path) -> None:
    """A slide enlarged by the model of the run."""
    out = "upscale s/a.tif --scale 2 --model runs/r -o u.ome.tiff --device cpu"
    if not (folder / "u.ome.tiff").exists():
        command(out, nothing).run(folder)


CHAIN: tuple[Case, ...] = (
    Case(run=build_slides, prepare=slides("abc"), needs=("wsisr.building.build",)),
    command("verify a.zarr", nothing, "wsisr.store.verify"),
    command(
        _TRAIN + " --scale 2",
        nothing,
        "wsisr.training.engine",
        "wsisr.training.start",
        measured=MEASURED,
    ),
    command(
        "eval --model r --scales 2 --data a.zarr -o e --figures 1 --no-cost --device cpu --limit 4",
        nothing,
        "wsisr.evaluation",
        "wsisr.reporting.evaluation_page",
    ),
    Case(run=upscale_once, needs=("wsisr.upscaling.batch",)),
)
"""From slides to a slide, in one folder."""
