"""Per-patch columns as one table of numpy arrays."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, Int32Array
from wsisr.errors import StoreError
from wsisr.store.schema import find_column


class Table(Mapping[str, AnyArray]):
    """Columns by name, all of the same length.

    Attributes
    ----------
    words : dict of str to list of str
        What the integers of ``label`` and ``reason`` columns stand for.
    """

    def __init__(self, columns: Mapping[str, AnyArray], words: Mapping[str, list[str]]) -> None:
        self._columns = dict(columns)
        self.words = dict(words)

    def __getitem__(self, name: str) -> AnyArray:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def rows(self) -> int:
        """How many patches."""
        return len(next(iter(self._columns.values()))) if self._columns else 0

    @property
    def index(self) -> Int32Array:
        """Slide index and row of every patch, shape (rows, 2): what `PairStore.read` takes."""
        return np.stack((self["slide"], self["row"]), axis=1).astype(np.int32)

    def names(self, column: str) -> list[str]:
        """A ``label`` or ``reason`` column in words; empty strings for none."""
        words = self.words.get(_word_list(column), [])
        return [words[i] if 0 <= i < len(words) else "" for i in self[column].tolist()]

    def to_pandas(self) -> Any:
        """The same as a pandas DataFrame.

        Raises
        ------
        StoreError
            If pandas is not installed.
        """
        return data_frame(self._columns)

    def __repr__(self) -> str:
        return f"<Table of {self.rows} patches: {', '.join(self)}>"


def data_frame(columns: Mapping[str, Any]) -> Any:
    """Columns as a pandas DataFrame; StoreError where pandas is not installed."""
    try:
        import pandas
    except ImportError as err:
        raise StoreError("to_pandas() needs pandas: pip install pandas.") from err
    return pandas.DataFrame(columns)


def empty_column(name: str, arrays: Sequence[str], rows: int) -> AnyArray:
    """A column of "not known": NaN, -1, 0 for unsigned numbers, or False."""
    column = find_column(name, arrays)
    dtype = column.dtype if column else np.dtype(np.float32)
    none: Any = {"f": np.nan, "i": -1, "u": 0, "b": False}[dtype.kind]
    return np.full(rows, none, dtype)


def concatenate(tables: Sequence[Table], arrays: Sequence[str]) -> Table:
    """Tables under one another; columns that some lack are filled, word lists are merged."""
    if len(tables) == 1:
        return tables[0]
    order = ["slide", "row"]
    order += sorted({name for table in tables for name in table} - set(order))
    words = {
        key: sorted({word for table in tables for word in table.words.get(key, [])})
        for key in ("label", "reason")
    }
    columns: dict[str, AnyArray] = {}
    for name in order:
        parts = []
        for table in tables:
            values = table[name] if name in table else empty_column(name, arrays, table.rows)
            key = _word_list(name)
            if key in words and values.dtype.kind == "i":
                values = _renumber(values, table.words.get(key, []), words[key])
            parts.append(values)
        if parts:
            columns[name] = np.concatenate(parts)
        else:
            columns[name] = np.empty(0, np.int32)
    return Table(columns, words)


def _word_list(column: str) -> str:
    return column.split("_", 1)[0]


def _renumber(values: AnyArray, old: list[str], new: list[str]) -> AnyArray:
    places = {word: index for index, word in enumerate(new)}
    lookup = np.array([places[word] for word in old] + [-1], np.int32)
    inside = (values >= 0) & (values < len(old))
    return lookup[np.where(inside, values, len(old))]
