"""Splits: which patch belongs to train, val or test."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import AnyArray, Int32Array
from wsisr.errors import StoreError
from wsisr.files import remove_tree, sync_tree
from wsisr.store.columns import write_plain
from wsisr.store.digests import content_digest
from wsisr.store.layout import META, check_array_name
from wsisr.store.metadata import group_document, to_json
from wsisr.store.places import Place, place_of
from wsisr.store.schema import SPLIT_NAMES


def stage_splits(folder: Path, splits: Mapping[str, NDArray[np.integer[Any]]], slides: int) -> None:
    """Write a complete splits group into a new folder and sync it.

    Parameters
    ----------
    folder : Path
        Replaced if it is there.
    splits : mapping of str to ndarray, shape (m, 2), integer
        Rows of (slide index, row); sorted here, so that the order they come in does not matter.
    slides : int
        How many slides the store lists.
    """
    remove_tree(folder)
    place = place_of(folder)
    contents: dict[str, str] = {}
    for name in (*SPLIT_NAMES, *sorted(set(splits) - set(SPLIT_NAMES))):
        check_array_name(name)
        rows = np.asarray(splits.get(name, ()))
        if not rows.size:
            rows = np.empty((0, 2), np.int32)
        if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu":
            raise StoreError(f"Split {name}: rows must be an integer array (m, 2).")
        if len(rows) and not (rows.min() >= 0 and rows[:, 0].max() < slides):
            raise StoreError(f"Split {name}: rows name slides that the store does not list.")
        rows = np.unique(rows.astype(np.int32), axis=0).reshape(-1, 2)
        attributes = {"meaning": "index into the store's slides, row in that slide"}
        write_plain(place / name, rows, attributes, ("pair", "slide_row"))
        contents[name] = split_digest(place / name, rows)
    (place / META).put(splits_json(contents))
    sync_tree(folder)


def split_digest(folder: Place, rows: AnyArray) -> str:
    """Digest of a split's metadata and rows, shape (m, 2)."""
    content = np.ascontiguousarray(rows, "<i4").tobytes()
    return content_digest((folder / META).get() + content)


def splits_json(digests: Mapping[str, str]) -> bytes:
    """``zarr.json`` of the splits group."""
    return to_json(group_document({"state": "complete", "digests": dict(digests)}))


def split_rows(
    slides: list[str], chosen: Mapping[str, Mapping[str, AnyArray]]
) -> dict[str, Int32Array]:
    """Split arrays from the chosen rows of every slide.

    Parameters
    ----------
    slides : list of str
        The root attributes' slides.
    chosen : mapping of split name to mapping of slide id to rows, shape (k,)
    """
    place = {slide: index for index, slide in enumerate(slides)}
    result: dict[str, Int32Array] = {}
    for split, members in chosen.items():
        parts = [
            np.stack((np.full(len(rows), place[slide]), rows), axis=1)
            for slide, rows in members.items()
        ]
        result[split] = np.concatenate([np.empty((0, 2), np.int32), *parts]).astype(np.int32)
    return result


def by_slide(rows: Int32Array) -> Iterator[tuple[int, Int32Array]]:
    """Each slide's index in a split, shape (m, 2), with its rows there, in one go through all."""
    ordered = rows[np.argsort(rows[:, 0], kind="stable")]
    indices, starts = np.unique(ordered[:, 0], return_index=True)
    parts = np.split(ordered[:, 1], starts[1:])
    yield from zip(indices.tolist(), parts, strict=False)
