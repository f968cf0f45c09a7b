"""Records as CSV or Parquet, written as they come."""

import csv
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from wsisr.errors import StoreError
from wsisr.store.exporting.pair_records import Record
from wsisr.tables import csv_cell

BATCH = 10_000
"""Rows that a Parquet writer gathers."""
_EXTRAS = {"pyarrow": "parquet", "h5py": "hdf5", "lmdb": "lmdb"}


class CsvTable:
    """A CSV file whose cells no spreadsheet runs as formulas."""

    suffix = "csv"

    def __init__(self, path: Path, fields: Mapping[str, type]) -> None:
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115 - see __exit__
        self._writer = csv.DictWriter(self._file, list(fields), restval="", lineterminator="\n")
        self._writer.writeheader()

    def add(self, record: Record) -> None:
        self._writer.writerow({name: csv_cell(value) for name, value in record.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class ParquetTable:
    """A Parquet file; needs pyarrow (extra `parquet`)."""

    suffix = "parquet"

    def __init__(self, path: Path, fields: Mapping[str, type]) -> None:
        self._arrow = require("pyarrow")
        parquet = import_module("pyarrow.parquet")
        of = {
            bool: self._arrow.bool_(),
            int: self._arrow.int64(),
            float: self._arrow.float64(),
            str: self._arrow.string(),
        }
        self._schema = self._arrow.schema([(name, of[kind]) for name, kind in fields.items()])
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[Record] = []

    def add(self, record: Record) -> None:
        self._rows.append(record)
        if len(self._rows) == BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            table = self._arrow.Table.from_pylist(self._rows, schema=self._schema)
            self._writer.write_table(table)
            self._rows = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def require(module: str) -> Any:
    """A library of a format; StoreError where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise StoreError(
            f"This needs the package {module}: pip install 'wsisr[{_EXTRAS[module]}]'."
        ) from error
