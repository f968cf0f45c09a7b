"""Interchange: PNG folders, WebDataset tars, HDF5 and LMDB, all of them lossless.

Only kept pairs are written, named ``<slide>_x<x>_y<y>``. PNG and WebDataset need nothing beyond
wsisr; HDF5 and LMDB need their libraries.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from wsisr.errors import StoreError
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store.files import disk_full_is_clear, remove_tree
from wsisr.store.reader import PairStore, open_pairs

UInt8Array = NDArray[np.uint8]
ExportFormat = Literal["png", "webdataset", "hdf5", "lmdb"]

TAR_BYTES = 500_000_000
LMDB_SLACK = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One exported pair.

    Attributes
    ----------
    key : str
        Unique name without a point.
    split, slide : str
    row : int
    x, y : int
        Level-0 px.
    label : str
    images : dict of str to ndarray, shape (s, s, 3), uint8
        By array name.
    """

    key: str
    split: str
    slide: str
    row: int
    x: int
    y: int
    label: str
    images: dict[str, UInt8Array]

    def record(self) -> dict[str, Any]:
        """Everything but the pixels."""
        return {
            "key": self.key,
            "split": self.split,
            "slide": self.slide,
            "row": self.row,
            "x": self.x,
            "y": self.y,
            "label": self.label,
        }


def export_store(
    path: Path, to: str, folder: Path, *, reporter: Reporter = silent
) -> dict[str, int]:
    """Write the kept pairs of every split in a common format.

    Parameters
    ----------
    path : Path
        The store.
    to : str
        ``"png"``: ``<split>/<array>/<key>.png`` and ``<split>/pairs.csv``;
        ``"webdataset"``: ``<split>-000000.tar`` of up to 500 MB with ``<key>.<array>.png`` and
        ``<key>.json``; ``"hdf5"``: ``<split>.h5`` with one data set per array and the columns;
        ``"lmdb"``: ``<split>.lmdb``, PNG bytes under ``<key>/<array>``, records under
        ``<key>/json``, all keys under ``keys``.
    folder : Path
        New or empty.
    reporter : Reporter

    Returns
    -------
    dict of str to int
        Pairs per split.

    Raises
    ------
    StoreError
        On an unknown format, a folder that is not empty, or a library that is not installed.
    """
    if to not in get_args(ExportFormat):
        raise StoreError(
            f"{to!r} is no export format; choose one of {', '.join(get_args(ExportFormat))}."
        )
    writers: dict[str, Callable[[Iterator[Pair], PairStore, str, Path], int]] = {
        "png": _write_png,
        "webdataset": _write_tar,
        "hdf5": _write_hdf5,
        "lmdb": _write_lmdb,
    }
    _require(to)
    store = open_pairs(path)
    names = store.split_names()
    if not names:
        raise StoreError(f"{path}: its build is not finished; run the same command again.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} is there and not empty; choose a new folder.")
    counts: dict[str, int] = {}
    with disk_full_is_clear(folder):
        for name in names:
            rows = store.split(name)
            if not len(rows):
                counts[name] = 0
                continue
            folder.mkdir(parents=True, exist_ok=True)
            pairs = _report(_pairs(store, name), name, len(rows), reporter)
            counts[name] = writers[to](pairs, store, name, folder)
    return counts


def _require(to: str) -> Any:
    module = {"hdf5": "h5py", "lmdb": "lmdb"}.get(to)
    if module is None:
        return None
    try:
        return import_module(module)
    except ImportError as err:
        raise StoreError(
            f"Exporting to {to} needs the package {module}: pip install {module}"
        ) from err


def _pairs(store: PairStore, split: str) -> Iterator[Pair]:
    rows = store.split(split)
    for index in np.unique(rows[:, 0]).tolist():
        slide = store.attributes["slides"][index]
        view = store.slides[slide]
        members = rows[rows[:, 0] == index, 1].tolist()
        x, y = view.column("x"), view.column("y")
        labels = view.attributes.get("labels") or []
        label = view.column("label") if "label" in view.columns() else None
        safe = slide.replace(".", "_")
        for row in members:
            number = -1 if label is None else int(label[row])
            yield Pair(
                # The row keeps names apart where slide ids differ by a point alone.
                key=f"{safe}_s{index}_r{row}_x{x[row]}_y{y[row]}",
                split=split,
                slide=slide,
                row=row,
                x=int(x[row]),
                y=int(y[row]),
                label=labels[number] if 0 <= number < len(labels) else "",
                images={name: store.patch(slide, row, name) for name in view.arrays},
            )


def _report(pairs: Iterator[Pair], split: str, total: int, reporter: Reporter) -> Iterator[Pair]:
    for done, pair in enumerate(pairs, 1):
        yield pair
        reporter(ProgressEvent(stage=f"export {split}", done=done, total=total, unit="pair"))


def _png(image: UInt8Array) -> bytes:
    good, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not good:
        raise StoreError("A patch could not be encoded as PNG.")
    return bytes(data.tobytes())


def _write_png(pairs: Iterator[Pair], store: PairStore, split: str, folder: Path) -> int:
    records = []
    for pair in pairs:
        for name, image in pair.images.items():
            path = folder / split / name / f"{pair.key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_png(image))
        records.append(pair.record())
    with open(folder / split / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(records[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(records)
    return len(records)


def _write_tar(pairs: Iterator[Pair], store: PairStore, split: str, folder: Path) -> int:
    count = part = 0
    pending: Pair | None = next(pairs, None)
    while pending is not None:
        size = 0
        with tarfile.open(folder / f"{split}-{part:06d}.tar", "w") as tar:
            while pending is not None and size < TAR_BYTES:
                members = {f"{name}.png": _png(image) for name, image in pending.images.items()}
                members["json"] = json.dumps(pending.record(), sort_keys=True).encode()
                for name, data in members.items():
                    info = tarfile.TarInfo(f"{pending.key}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    size += len(data)
                count += 1
                pending = next(pairs, None)
        part += 1
    return count


def _write_hdf5(pairs: Iterator[Pair], store: PairStore, split: str, folder: Path) -> int:
    h5py = _require("hdf5")
    total = len(store.split(split))
    records: list[dict[str, Any]] = []
    with h5py.File(folder / f"{split}.h5", "w") as file:
        sets: dict[str, Any] = {}
        for pair in pairs:
            for name, image in pair.images.items():
                if name not in sets:
                    sets[name] = file.create_dataset(
                        name, (total, *image.shape), "u1", chunks=(1, *image.shape)
                    )
                if sets[name].shape[1:] != image.shape:
                    raise StoreError(f"{name} has patches of several sizes: use png instead.")
                sets[name][len(records)] = image
            records.append(pair.record())
        for column in ("x", "y", "row"):
            file[column] = np.array([record[column] for record in records], np.int64)
        for column in ("key", "slide", "label"):
            file[column] = [record[column].encode() for record in records]
    return len(records)


def _write_lmdb(pairs: Iterator[Pair], store: PairStore, split: str, folder: Path) -> int:
    lmdb = _require("lmdb")
    rows = store.split(split)
    view = store.slides[store.attributes["slides"][int(rows[0, 0])]]
    patch = sum(view.spec(name).size_px ** 2 * 3 for name in view.arrays)
    # The map is address space, not disk: room for incompressible pixels.
    room = 2 * len(rows) * patch + LMDB_SLACK
    target = folder / f"{split}.lmdb"
    keys: list[str] = []
    environment = lmdb.open(str(target), map_size=room, subdir=True)
    try:
        for pair in pairs:
            with environment.begin(write=True) as transaction:
                for name, image in pair.images.items():
                    transaction.put(f"{pair.key}/{name}".encode(), _png(image))
                record = json.dumps(pair.record(), sort_keys=True).encode()
                transaction.put(f"{pair.key}/json".encode(), record)
            keys.append(pair.key)
        with environment.begin(write=True) as transaction:
            transaction.put(b"keys", json.dumps(keys).encode())
    except BaseException:
        environment.close()
        remove_tree(target)
        raise
    environment.close()
    return len(keys)
