"""What is killed: functions that write, each with what must be there before."""

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image
from slides_samples import picture
from store_samples import columns, patches, root_attributes, write_slide
from upscaling_samples import slide_file

from wsisr.errors import WsisrError
from wsisr.store import BuildLock, StoreWriter, export_store
from wsisr.store.keep import keep_pairs

Case = Callable[[Path], None]


def _slide(writer: StoreWriter, slide: str, seed: int) -> None:
    """Three patches with few columns: every file costs a dozen kills."""
    table = {name: columns(3)[name] for name in ("x", "y", "kept", "spread")}
    write_slide(writer, slide, patches(seed, 3), table=table)


def warm() -> None:
    """Import what the cases do, so that kills at random moments hit their work."""
    for name in ("upscaling", "inference", "degradation.files", "degradation.stores"):
        import_module(f"wsisr.{name}")
    for name in ("wsidicomizer", "pyarrow.parquet", "lmdb", "h5py"):
        with suppress(ImportError):
            import_module(name)


def nothing(folder: Path) -> None:
    """An empty folder."""


def small_store(folder: Path) -> None:
    """A finished store of two slides."""
    build(folder)


def build(folder: Path) -> None:
    """What a build does of its store, with its lock."""
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


def export(to: str) -> Case:
    """A store in another format."""

    def run(folder: Path) -> None:
        out = folder / "out"
        _refused_once_whole(out, "not empty", lambda: export_store(folder / "a.zarr", to, out))

    return run


def small_slide(folder: Path) -> None:
    """A slide whose enlargement has several blocks and levels."""
    slide_file(folder / "s.tiff", 2300, 500)


def upscale(name: str) -> Case:
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

    return run


def degrade(folder: Path) -> None:
    """A store with one more array."""
    from wsisr.degradation.stores import degrade_store

    if not (folder / "b.zarr").exists():
        degrade_store(folder / "a.zarr", folder / "b.zarr", "area", 2)
    else:
        # Whole already; what lies beside it goes with the next run that replaces it.
        degrade_store(folder / "a.zarr", folder / "b.zarr", "area", 2, overwrite=True)


def small_picture(folder: Path) -> None:
    """A picture to degrade."""
    Image.fromarray(picture(200, 160)).save(folder / "s.png")


def degrade_picture(folder: Path) -> None:
    """A degraded picture and its record."""
    from wsisr.degradation.files import degrade_image

    out = folder / "lr.png"
    _refused_once_whole(
        out, "add --overwrite", lambda: degrade_image(folder / "s.png", out, "iste", 2)
    )


CASES: dict[str, tuple[Case, Case]] = {
    "build": (build, nothing),
    "overwrite": (overwrite, small_store),
    "keep": (keep, small_store),
    "export": (export("png"), small_store),
    **{
        f"export-{to}": (export(to), small_store)
        for to in ("huggingface", "webdataset", "hdf5", "lmdb", "geojson")
    },
    **{
        f"upscale-{name}": (upscale(f"o.{name}"), small_slide)
        for name in ("ome.tiff", "ome.zarr", "dcm", "png", "jpg", "bmp", "webp")
    },
    "degrade-picture": (degrade_picture, small_picture),
    "degrade": (degrade, small_store),
}
