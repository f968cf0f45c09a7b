"""Exports that are a few large files: WebDataset tars, HDF5, LMDB as BasicSR reads it.

References: webdataset's naming (a key ends at the first point); XPixelGroup/BasicSR, `lmdb_util`
(one LMDB an array, ``meta_info.txt`` with ``KEY.png (H,W,C) LEVEL`` a line).
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.errors import StoreError
from wsisr.store.exporting.pictures import png
from wsisr.store.exporting.records import Pair

TAR_BYTES = 500_000_000
LMDB_SLACK = 1 << 26
PNG_LEVEL = 1
"""What BasicSR's own files state; its readers do not use it."""
_LMDB_BATCH = _ROWS = 64
_OF_TYPE = {bool: "?", int: "i8", float: "f8"}


def require(module: str) -> Any:
    """A library of a format.

    Raises
    ------
    StoreError
        If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise StoreError(f"This needs the package {module}: pip install {module}") from error


def write_tars(
    pairs: Iterator[Pair], fields: Mapping[str, type], arrays: tuple[str, ...], folder: Path
) -> None:
    """``<split>-000000.tar`` of up to 500 MB: ``<key>.<array>.png`` and ``<key>.json``."""
    part = 0
    pending: Pair | None = next(pairs, None)
    while pending is not None:
        size = 0
        with tarfile.open(folder.with_name(f"{folder.name}-{part:06d}.tar"), "w") as tar:
            while pending is not None and size < TAR_BYTES:
                members = {f"{name}.png": png(image) for name, image in pending.images.items()}
                members["json"] = json.dumps(pending.record, sort_keys=True).encode()
                for name, data in members.items():
                    info = tarfile.TarInfo(f"{pending.key}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                    size += len(data)
                pending = next(pairs, None)
        part += 1


def write_hdf5(
    pairs: Iterator[Pair], fields: Mapping[str, type], arrays: tuple[str, ...], folder: Path
) -> None:
    """``<split>.h5``: one data set an array, one a field of the records."""
    h5py = require("h5py")
    count = 0
    with h5py.File(folder.with_suffix(".h5"), "w") as file:
        text = h5py.string_dtype()
        for name, kind in fields.items():
            kind_of = _OF_TYPE.get(kind, text)
            file.create_dataset(f"columns/{name}", (0,), kind_of, maxshape=(None,), chunks=(_ROWS,))
        waiting: list[Pair] = []
        for pair in pairs:
            waiting.append(pair)
            if len(waiting) == _ROWS:
                count = _append(file, waiting, count, fields)
                waiting = []
        _append(file, waiting, count, fields)


def _append(file: Any, pairs: list[Pair], count: int, fields: Mapping[str, type]) -> int:
    """Add rows to every data set; returns how many there are then."""
    if not pairs:
        return count
    total = count + len(pairs)
    for name, image in pairs[0].images.items():
        if name not in file:
            shape = image.shape
            file.create_dataset(
                name, (0, *shape), "u1", maxshape=(None, *shape), chunks=(1, *shape)
            )
        images = [pair.images[name] for pair in pairs]
        if any(other.shape != file[name].shape[1:] for other in images):
            raise StoreError(f"{name} has patches of several sizes: use png instead.")
        file[name].resize(total, axis=0)
        file[name][count:] = np.stack(images)
    for name, kind in fields.items():
        missing: Any = np.nan if kind is float else kind()
        values = [pair.record.get(name) for pair in pairs]
        column = file[f"columns/{name}"]
        column.resize(total, axis=0)
        column[count:] = [missing if value is None else value for value in values]
    return total


def write_lmdb(
    pairs: Iterator[Pair], fields: Mapping[str, type], arrays: tuple[str, ...], folder: Path
) -> None:
    """``<split>/<array>.lmdb`` with its ``meta_info.txt``, and ``<split>/pairs.jsonl``."""
    lmdb = require("lmdb")
    folder.mkdir(parents=True, exist_ok=True)
    stores = {name: _Lmdb(lmdb, folder / f"{name}.lmdb") for name in arrays}
    try:
        with open(folder / "pairs.jsonl", "w", encoding="utf-8") as records:
            for pair in pairs:
                for name, image in pair.images.items():
                    stores[name].put(pair.key, png(image), image.shape)
                records.write(json.dumps(pair.record, sort_keys=True) + "\n")
    finally:
        for store in stores.values():
            store.close()


class _Lmdb:
    """One array; the map, which is address space and not disk, grows with what is put."""

    def __init__(self, lmdb: Any, folder: Path) -> None:
        # One writer, in a folder that nobody else knows yet: no lock file.
        self._environment = lmdb.open(str(folder), map_size=LMDB_SLACK, subdir=True, lock=False)
        self._names = open(folder / "meta_info.txt", "w", encoding="ascii")  # noqa: SIM115
        self._waiting: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def put(self, key: str, data: bytes, shape: tuple[int, ...]) -> None:
        self._waiting.append((key.encode("ascii"), data))
        height, width, channels = shape
        self._names.write(f"{key}.png ({height},{width},{channels}) {PNG_LEVEL}\n")
        self._bytes += len(data)
        if len(self._waiting) == _LMDB_BATCH:
            self._flush()

    def _flush(self) -> None:
        wanted = 2 * self._bytes + LMDB_SLACK
        if wanted > self._environment.info()["map_size"]:
            self._environment.set_mapsize(2 * wanted)
        with self._environment.begin(write=True) as transaction:
            for key, data in self._waiting:
                transaction.put(key, data)
        self._waiting = []

    def close(self) -> None:
        self._flush()
        self._environment.close()
        self._names.close()
