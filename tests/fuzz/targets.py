"""What is damaged and how it is read: every reader of something that people exchange."""

import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mutation import mutate
from PIL import Image
from store_samples import make_store

from wsisr.building.manifest import load_manifest, manifest_folder
from wsisr.building.store_record import load_record
from wsisr.errors import WsisrError
from wsisr.selection.annotations import load_annotations
from wsisr.slides import open_slide
from wsisr.store import export_store, open_pairs, verify_store
from wsisr.testing import SlideSpec, write_slide


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something readable.

    Attributes
    ----------
    make : callable
        Writes it, whole, into a new folder.
    read : callable
        Reads all of it.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], object]


def _slide(path: Path) -> None:
    write_slide(path, SlideSpec(seed=3, layout="generic", width_px=600, height_px=500))


def _read_slide(folder: Path) -> None:
    for path in folder.iterdir():
        with open_slide(path, mpp=0.5) as slide:
            for level in slide.info.levels:
                slide.read_level(
                    level.index, 0, 0, min(300, level.width_px), min(300, level.height_px)
                )


def _picture(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)).save(path)


RING = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]
GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [RING]},
            "properties": {"classification": {"name": "Tumor"}},
        }
    ],
}
ASAP = (
    '<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="a" Type="Polygon" '
    'PartOfGroup="tumor" Color="#F4FA58"><Coordinates>'
    + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(RING))
    + "</Coordinates></Annotation></Annotations><AnnotationGroups>"
    '<Group Name="tumor" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>'
    "</AnnotationGroups></ASAP_Annotations>"
)
RECORD = {
    "format": "wsisr-record",
    "format_version": 1,
    "lacking": [],
    "root": {
        "format_version": 1,
        "manifest": {"name": "x"},
        "created_with": {"wsisr": "1"},
        "slides": ["a"],
    },
    "slides": {
        "a": {
            "attributes": {"source": "a.tif", "fingerprint": "f"},
            "arrays": [],
            "columns": {"x": {"dtype": "<i8", "values": [1, 2]}},
            "tissue": "",
            "geometry": {},
        }
    },
}


def _each(read: Callable[[Path], object]) -> Callable[[Path], None]:
    def read_all(folder: Path) -> None:
        for path in folder.iterdir():
            read(path)

    return read_all


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _gzip(text: str) -> bytes:
    import gzip

    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file:
        file.write(text.encode())
    return out.getvalue()


def _manifest(folder: Path) -> None:
    text = (manifest_folder() / "default.yaml").read_text()
    (folder / "m.yaml").write_text(text.replace("name: default", "name: mine"))


def _store(folder: Path) -> None:
    make_store(folder / "a.zarr", {"s0": 3})


def _read_store(folder: Path) -> None:
    path = folder / "a.zarr"
    report = None
    try:
        report = verify_store(path)
    finally:
        shutil.rmtree(folder.parent / "out", ignore_errors=True)
    export_store(path, "png", folder.parent / "out")
    # What is exported without a word was found whole by verify, down to every pixel.
    whole = {"metadata", "digest", "checksum", "files", "counts", "geometry"}
    bad = [f for f in report.findings if f.severity == "error" and f.check in whole]
    if not bad:
        assert len(open_pairs(path, check=True).slides["s0"]) == 3


def _model(folder: Path) -> None:
    from wsisr.models import create_model, save_model

    save_model(create_model("edsr", scale=2, preset="tiny", width=8, blocks=1), folder / "m")


def _read_model(folder: Path) -> None:
    from wsisr.models import load_model

    load_model(folder / "m")


TARGETS: dict[str, Target] = {
    "slide": Target(make=lambda f: _slide(f / "a.tif"), read=_read_slide),
    "picture": Target(make=lambda f: _picture(f / "a.png"), read=_read_slide),
    "geojson": Target(
        make=_write("a.geojson", json.dumps(GEOJSON).encode()), read=_each(load_annotations)
    ),
    "asap": Target(make=_write("a.xml", ASAP.encode()), read=_each(load_annotations)),
    "record": Target(make=_write("r.json.gz", _gzip(json.dumps(RECORD))), read=_each(load_record)),
    "record-text": Target(
        make=_write("r.json", json.dumps(RECORD).encode()), read=_each(load_record)
    ),
    "manifest": Target(make=_manifest, read=_each(load_manifest)),
    "store": Target(make=_store, read=_read_store),
    "model": Target(make=_model, read=_read_model),
}


def attempts(name: str, base: Path, seeds: range) -> Iterator[tuple[int, str]]:
    """Damage one file of a target with each seed and read; yields the seed and how it ended.

    ``"read"``, or the name of the error of ours; anything else that is raised is a fault and
    passes to the caller.
    """
    target, whole, work = TARGETS[name], base / "whole", base / "work"
    whole.mkdir(parents=True)
    target.make(whole)
    target.read(whole)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    for seed in seeds:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(whole, work)
        chosen = work / random.Random(seed).choice(files)
        chosen.write_bytes(mutate(chosen.read_bytes(), seed))
        try:
            target.read(work)
        except WsisrError as error:
            yield seed, type(error).__name__
        else:
            yield seed, "read"
