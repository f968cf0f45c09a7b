"""Interchange: what leaves a store, lossless, under keys that say where it comes from.

Only kept pairs leave, each with its whole record (`wsisr.store.exporting.pair_records`). An export
grows in a sibling ``FOLDER.partial`` under a lock and gets its name when it is complete. Whatever
stops it takes that folder away again; what a kill leaves is removed by the next run.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from wsisr.errors import StoreError, refuse_remote_output
from wsisr.files import disk_full_is_clear, remove_tree
from wsisr.locks import held
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store.exporting import archives, png_folders
from wsisr.store.exporting.data_card import write_card, write_citation
from wsisr.store.exporting.geojson import close_geojson, write_geojson
from wsisr.store.exporting.pair_records import (
    ExportedPair,
    check_identifiers,
    fields_of,
    pairs_of,
    records_of,
)
from wsisr.store.exporting.tables import CsvTable, ParquetTable, require
from wsisr.store.reader import PairStore, open_pairs

ExportFormat = Literal["png", "huggingface", "webdataset", "hdf5", "lmdb", "geojson"]
_REMOVED = (
    "What had been exported is removed again and the store is untouched. Make room, or name a "
    "folder on another disk, and export again."
)
Writer = Callable[[Iterator[ExportedPair], Mapping[str, type], tuple[str, ...], Path], None]

_NEEDS = {"huggingface": "pyarrow", "hdf5": "h5py", "lmdb": "lmdb"}
_WRITERS: dict[str, Writer] = {
    "png": partial(png_folders.write_folders, table=CsvTable),
    "huggingface": partial(png_folders.write_folders, table=ParquetTable),
    "webdataset": archives.write_tars,
    "hdf5": archives.write_hdf5,
    "lmdb": archives.write_lmdb,
}


def export_store(
    path: Path,
    to: str,
    folder: Path,
    *,
    allow_identifiers: bool = False,
    reporter: Reporter = silent,
) -> dict[str, int]:
    """Write the kept pairs of every split in a common format.

    Parameters
    ----------
    path : Path
        The store.
    to : str
        ``"png"``: ``<split>/<array>/<key>.png`` and ``<split>/metadata.csv``, which BasicSR and
        `datasets` (imagefolder) read as pairs; ``"huggingface"``: the same with
        ``metadata.parquet`` and a data card that `datasets.load_dataset` follows;
        ``"webdataset"``: ``<split>-000000.tar`` of up to 500 MB with ``<key>.<array>.png`` and
        ``<key>.json``; ``"hdf5"``: ``<split>.h5`` with one data set an array and ``columns/``;
        ``"lmdb"``: ``<split>/<array>.lmdb`` with ``meta_info.txt`` as BasicSR reads it, and
        ``<split>/pairs.jsonl``; ``"geojson"``: ``<slide>_s<number>.geojson``, the
        places of the pairs for QuPath. All but the last come with ``README.md`` and
        ``CITATION.cff``.
    folder : Path
        New or empty.
    allow_identifiers : bool
        Keep the folders of slides' paths in their names, and write patient names of stores that
        were built before pseudonyms.

    Returns
    -------
    dict of str to int
        Pairs per split.

    Raises
    ------
    StoreError
        On an unknown format, a folder that is not empty, patient names that may identify people,
        or a library that is not installed.
    LockedError
        While another export writes into the folder.
    """
    if to not in get_args(ExportFormat):
        raise StoreError(
            f"{to!r} is no export format; choose one of {', '.join(get_args(ExportFormat))}."
        )
    if to in _NEEDS:
        require(_NEEDS[to])
    refuse_remote_output(folder)
    store = open_pairs(path)
    if not store.split_names():
        raise StoreError(f"{path}: its build is not finished; run the same command again.")
    check_identifiers(store, allow_identifiers)
    folder = folder.resolve()
    staged = folder.with_name(f"{folder.name}.partial")
    lock = staged.with_name(f"{staged.name}.lock")
    with disk_full_is_clear(folder, _REMOVED), held(lock, folder, "export"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(f"{folder} is there and not empty; choose a new folder.")
        if folder.is_mount():
            raise StoreError(f"{folder} is a disk of its own; name a new folder inside of it.")
        if staged.exists():
            remove_tree(staged)
            left = f"{staged.name}, left by an unfinished export, is removed."
            reporter(ProgressEvent(stage="export", message=left))
        try:
            staged.mkdir()
            counts = _write(store, to, staged, allow_identifiers, reporter)
            os.sync()
            if folder.exists():
                folder.rmdir()
            os.rename(staged, folder)
        except BaseException:
            remove_tree(staged)
            raise
    return counts


def _write(
    store: PairStore, to: str, folder: Path, folders: bool, reporter: Reporter
) -> dict[str, int]:
    counts = {split: len(store.split(split)) for split in store.split_names()}
    for split, total in counts.items():
        if not total:
            continue
        if to == "geojson":
            write_geojson(store, records_of(store, split, folders), folder)
            continue
        name = png_folders.HUB_SPLITS.get(split, split) if to == "huggingface" else split
        pairs = _report(pairs_of(store, split, folders), split, total, reporter)
        _WRITERS[to](pairs, fields_of(store, [split]), store.arrays, folder / name)
    if to == "geojson":
        close_geojson(folder)
    else:
        write_card(store, counts, folder, hub=to == "huggingface")
        write_citation(store, folder)
    return counts


def _report(
    pairs: Iterator[ExportedPair], split: str, total: int, reporter: Reporter
) -> Iterator[ExportedPair]:
    for done, pair in enumerate(pairs, 1):
        yield pair
        reporter(ProgressEvent(stage=f"export {split}", done=done, total=total, unit="pair"))
