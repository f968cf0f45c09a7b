"""What is known of a pair, as one flat record: it leaves the store with the pixels, whole.

Every format carries the same fields, so that a pair keeps what makes it honest: patient, place,
resolution and origin of each array, the certificate of its registration, its digest.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import StoreError
from wsisr.store.layout import check_array_name
from wsisr.store.reader import PairStore
from wsisr.store.schema import DIGEST, KEPT, VERDICTS, WINDOW, find_column
from wsisr.store.slide_view import SlideView
from wsisr.store.splits import by_slide

Record = dict[str, Any]
_OWN = ("x", "y", "label", "split", KEPT, DIGEST, *WINDOW)
"""Columns that a record spells in words, or that say nothing of an exported pair."""


@dataclass(frozen=True, kw_only=True)
class ExportedPair:
    """One exported pair.

    Attributes
    ----------
    key : str
        Unique name of letters, digits, ``_`` and ``-``: readers cut names at the first point.
    record : dict
        Everything but the pixels; see `record_of`.
    images : dict of str to ndarray, shape (s, s, 3), uint8
        By array name.
    """

    key: str
    record: Record
    images: dict[str, UInt8Array]


def pairs_of(store: PairStore, split: str, folders: bool = False) -> Iterator[ExportedPair]:
    """The kept pairs of a split, slide by slide; one is in memory at a time.

    With `folders`, a slide's name keeps the folders of its path.
    """
    for record in records_of(store, split, folders):
        view = store.slides[store.attributes["slides"][record["slide_index"]]]
        images = {name: store.patch(view.slide_id, record["row"], name) for name in view.arrays}
        yield ExportedPair(key=record["key"], record=record, images=images)


def records_of(store: PairStore, split: str, folders: bool = False) -> Iterator[Record]:
    """The same without reading pixels."""
    for records, members in _by_slide(store, split, folders):
        yield from (records.of(row) for row in members)


def _by_slide(
    store: PairStore, split: str, folders: bool = False
) -> Iterator[tuple["Records", list[int]]]:
    for index, rows in by_slide(store.split(split)):
        view = store.slides[store.attributes["slides"][index]]
        yield Records(view, index, split, folders), rows.tolist()


class Records:
    """Records of one slide."""

    def __init__(self, view: SlideView, index: int, split: str, folders: bool = False) -> None:
        attributes: Any = view.attributes
        # An id spells the path: names of folders, which may be people's, stay where they are.
        name = view.slide_id if folders else view.slide_id.rpartition("__")[2]
        # Names come from a file: they must not lead anywhere (and are cut at points by readers).
        self._stem = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}_s{index}"
        self._labels = attributes.get("labels") or []
        self._reasons = attributes.get("reasons") or []
        self._columns = {name: view.column(name) for name in view.columns()}
        self._arrays = tuple(check_array_name(name) for name in view.arrays)
        mpp = attributes.get("mpp") or {}
        self._slide: Record = {
            "split": split,
            "slide": name,
            "slide_index": index,
            "patient": name if attributes["patient"] == view.slide_id else attributes["patient"],
            "patient_source": attributes.get("patient_source") or "not recorded",
            "group": (attributes.get("group") or "").rpartition("__")[2],
            "site": attributes.get("site") or "",
            "mpp_source": mpp.get("source") or "",
        }
        for name in view.arrays:
            spec = view.spec(name)
            for field in ("um_per_px", "factor", "size_px", "origin", "native"):
                self._slide[f"{name}_{field}"] = getattr(spec, field)

    def key(self, row: int) -> str:
        """Unique name of a pair, which a program that reads an export keeps in its files' names."""
        x, y = int(self._columns["x"][row]), int(self._columns["y"][row])
        return f"{self._stem}_r{row}_x{x}_y{y}"

    def of(self, row: int) -> Record:
        """Of one patch: ``key``, ``row``, ``x`` and ``y`` (level-0 px), then the slide's fields,
        for each array um/px, factor, side, origin and whether it is stored in the slide, the label,
        every other column of the store under its own name (verdicts and reasons in words), and the
        digest as 16 hex digits (readers of 64-bit unsigned integers overflow)."""
        columns = self._columns
        x, y = int(columns["x"][row]), int(columns["y"][row])
        record: Record = {"key": self.key(row), "row": row, "x": x, "y": y, **self._slide}
        record["label"] = _word(self._labels, columns.get("label"), row)
        for name, values in columns.items():
            column = find_column(name, self._arrays)
            if name in _OWN or column is None:
                continue
            if column.name == "verdict":
                record[name] = _word(VERDICTS, values, row)
            elif column.name == "reason":
                record[name] = _word(self._reasons, values, row)
            else:
                record[name] = _plain(values[row])
        if DIGEST in columns:
            record[DIGEST] = f"{int(columns[DIGEST][row]):016x}"
        return record


def _word(words: Any, values: AnyArray | None, row: int) -> str:
    number = -1 if values is None else int(values[row])
    return str(words[number]) if 0 <= number < len(words) else ""


def _plain(value: Any) -> Any:
    """A JSON value; NaN, which JSON has no word for, is None."""
    found = value.item()
    return None if isinstance(found, float) and not np.isfinite(found) else found


def check_identifiers(store: PairStore, allowed: bool) -> None:
    """Refuse (StoreError) to let clear patient names leave a store that was built before
    pseudonyms.

    Stores of today hold public barcodes and keyed pseudonyms alone, and say how each patient is
    known; older ones hold what the folder or the user's table said.
    """
    clear = [
        name
        for name, view in store.slides.items()
        if not view.attributes.get("patient_source")
        and view.attributes["patient"] not in (name, "", None)
    ]
    if clear and not allowed:
        raise StoreError(
            f"{store.path}: {len(clear)} slide(s) (first {clear[0]}) carry patient names from "
            "before pseudonyms, which may identify people. Build the store anew, or say "
            "--allow-identifiers if you may pass them on."
        )


def fields_of(store: PairStore, splits: Sequence[str]) -> dict[str, type]:
    """Every field that records of these splits have, and its type, without making them all."""
    fields: dict[str, type] = {}
    for split in splits:
        for records, members in _by_slide(store, split):
            for name, value in records.of(members[0]).items():
                # A value that is not known says nothing of its type: all such are numbers.
                kind = float if value is None else type(value)
                fields[name] = float if {kind, fields.get(name)} == {int, float} else kind
    return fields


def table_of(store: PairStore) -> dict[str, list[Any]]:
    """All kept pairs of all splits as columns; fields that a slide lacks are None."""
    splits = store.split_names()
    names = fields_of(store, splits)
    records = [record for split in splits for record in records_of(store, split, True)]
    return {name: [record.get(name) for record in records] for name in names}
