"""Exports that are a few large files: WebDataset tars, HDF5, LMDB as BasicSR reads it.

References: webdataset's naming (a key ends at the first point); XPixelGroup/BasicSR, `lmdb_util`
(one LMDB an array, ``meta_info.txt`` with ``KEY.png (H,W,C) LEVEL`` a line).
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from wsisr.errors import StoreError
from wsisr.store.exporting.pair_records import ExportedPair
from wsisr.store.exporting.png_folders import png
from wsisr.store.exporting.tables import require

TAR_BYTES = 500_000_000
LMDB_SLACK = 1 << 26
PNG_LEVEL = 1
"""What BasicSR's own files state; its readers do not use it."""
_LMDB_BATCH = _ROWS = 64
_OF_TYPE = {bool: "?", int: "i8", float: "f8"}


def write_tars(
    pairs: Iterator[ExportedPair], fields: Mapping[str, type], arrays: tuple[str, ...], folder: Path
) -> None:
    """``<split>-000000.tar`` of up to 500 MB: ``<key>.<array>.png`` and ``<key>.json``."""
    part = 0
    pending: ExportedPair | None = next(pairs, None)
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
    pairs: Iterator[ExportedPair], fields: Mapping[str, type], arrays: tuple[str, ...], folder: Path
) -> None:
    """``<split>.h5``: one data set an array, one a field of the records."""
    h5py = require("h5py")
    count = 0
    with _Unfailing(folder.with_name(f"{folder.name}.h5")) as below, h5py.File(below, "w") as file:
        text = h5py.string_dtype()
        for name, kind in fields.items():
            kind_of = _OF_TYPE.get(kind, text)
            file.create_dataset(f"columns/{name}", (0,), kind_of, maxshape=(None,), chunks=(_ROWS,))
        waiting: list[ExportedPair] = []
        for pair in pairs:
            waiting.append(pair)
            if len(waiting) == _ROWS:
                count = _append(file, waiting, count, fields)
                waiting = []
                below.check()
        _append(file, waiting, count, fields)


class _Unfailing(io.FileIO):
    """A file under HDF5, which ends the process (a segmentation fault) where a write fails.

    So no write fails: the fault waits, nothing more is written, and `check` or the end raises it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._fault: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self._fault is None and done < len(view):
                done += super().write(view[done:]) or 0
        except OSError as error:
            self._fault = error
        return len(view)

    def check(self) -> None:
        if self._fault is not None:
            raise self._fault

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.check()


def _append(file: Any, pairs: list[ExportedPair], count: int, fields: Mapping[str, type]) -> int:
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
    pairs: Iterator[ExportedPair], fields: Mapping[str, type], arrays: tuple[str, ...], folder: Path
) -> None:
    """``<split>/<array>.lmdb`` with its ``meta_info.txt``, and ``<split>/pairs.jsonl``."""
    lmdb = require("lmdb")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stores = {
            name: stack.enter_context(_Lmdb(lmdb, folder / f"{name}.lmdb")) for name in arrays
        }
        records = stack.enter_context(open(folder / "pairs.jsonl", "w", encoding="utf-8"))
        for pair in pairs:
            for name, image in pair.images.items():
                stores[name].put(pair.key, png(image), image.shape)
            records.write(json.dumps(pair.record, sort_keys=True) + "\n")


class _Lmdb:
    """One array; the map, which is address space and not disk, grows with what is put."""

    def __init__(self, lmdb: Any, folder: Path) -> None:
        self._lmdb, self._folder = lmdb, folder
        with self._faults_are_clear():
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
        with self._faults_are_clear():
            if wanted > self._environment.info()["map_size"]:
                self._environment.set_mapsize(2 * wanted)
            with self._environment.begin(write=True) as transaction:
                for key, data in self._waiting:
                    transaction.put(key, data)
        self._waiting = []

    @contextmanager
    def _faults_are_clear(self) -> Iterator[None]:
        try:
            yield
        except self._lmdb.Error as error:
            # It says "Input/output error" of a full disk as well.
            free = shutil.disk_usage(self._folder.parent).free / 1e6
            raise StoreError(
                f"{self._folder.name} cannot be written ({error}; {free:.0f} MB are free on that "
                "disk). What had been exported is removed again; make room, or name a folder on "
                "another disk, and export again."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._environment.close()
            self._names.close()
