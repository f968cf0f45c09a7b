"""The rows of an evaluation: one line for each image, model, scale and origin, appended as made.

`images.csv` is the product; tables, intervals and figures come from it and can be made again.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError
from wsisr.files import disk_full_is_clear, read_document, replace_file
from wsisr.locks import IN_FOLDER, RecordLock, held
from wsisr.tables import cell_text, csv_lines

IMAGES = "images.csv"
RESULTS = "results.json"
PAGE = "index.html"
"""Written beside them by whoever wants a page."""
FORMAT = "wsisr-eval"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One line of `images.csv`.

    Attributes
    ----------
    row : int
        Of the patch in its slide.
    model, run : str
        Architecture; name of the run (of the method, where nothing was trained).
    origin, trained_origin : str
        Of the LR here and in training (empty: not trained or not known).
    in_range : bool
        Whether the scale lies in what the model was trained on.
    reference : str
        ``none``, or ``oracle`` where the network was fed with HR-derived pixels.
    key : str
        Hash of the weights and of everything else that decides the scores.
    scores : mapping of str to float
        ``inf`` for identical images; NaN where there is no score.
    """

    slide: str
    patient: str
    group: str
    row: int
    label: str
    model: str
    run: str
    seed: int | None
    scale: float
    origin: str
    in_range: bool
    trained_origin: str
    reference: str
    key: str
    scores: Mapping[str, float]

    @property
    def place(self) -> tuple[str, float, str, str, int]:
        """What a row is about: run, scale, origin, slide, row."""
        return (self.run, self.scale, self.origin, self.slide, self.row)


KEYS = tuple(field.name for field in fields(ImageRow) if field.name != "scores")
"""Columns before the scores."""
_READ: Mapping[str, Callable[[str], Any]] = {
    "row": int,
    "seed": lambda text: int(text) if text else None,
    "scale": float,
    "in_range": lambda text: text == "1",
}
_WRITTEN: Mapping[str, Callable[[Any], Any]] = {"scale": "{:g}".format, "in_range": int}
"""How columns are read and written that are no plain texts."""


def read_rows(path: Path) -> tuple[tuple[str, ...], list[ImageRow]]:
    """Score columns and rows of an `images.csv`.

    Raises
    ------
    ConfigError
        No such file, another layout, or a line that is broken.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run wsisr eval first.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header[: len(KEYS)] != KEYS:
            raise ConfigError(f"{path} is no results file of wsisr eval.")
        names = header[len(KEYS) :]
        rows = [_parse(line, names, path, at) for at, line in enumerate(reader, start=2)]
    return names, rows


def only_one(folder: Path) -> AbstractContextManager[RecordLock]:
    """Keep a second evaluation away from a folder.

    Raises
    ------
    LockedError
        Another evaluation writes into the folder.
    """
    return held(folder / IN_FOLDER, folder, "evaluation")


class RowFile:
    """Appends rows; what is on disk are always whole lines, save after a crash in mid-write.

    Raises
    ------
    ConfigError
        The file exists with other columns.
    """

    def __init__(self, path: Path, scores: Sequence[str]) -> None:
        self.path = path
        self.scores = tuple(scores)
        self.repaired = _repair(path)
        if path.is_file() and path.stat().st_size:
            names, self.rows = read_rows(path)
            if names != self.scores:
                raise ConfigError(
                    f"{path} holds the scores {', '.join(names)}, not {', '.join(self.scores)}; "
                    "give another --output, or --overwrite."
                )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.rows = []
            replace_file(path, csv_lines([[*KEYS, *self.scores]]))

    def drop(self, stale: Iterable[ImageRow]) -> int:
        """Rewrite the file without some rows; how many there were."""
        gone = {id(row) for row in stale}
        if gone:
            self.rows = [row for row in self.rows if id(row) not in gone]
            head = csv_lines([[*KEYS, *self.scores]])
            replace_file(self.path, head + b"".join(map(self._encode, self.rows)))
        return len(gone)

    def append(self, rows: Sequence[ImageRow]) -> None:
        """Add rows in one write."""
        data = b"".join(self._encode(row) for row in rows)
        with disk_full_is_clear(self.path), open(self.path, "ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
        self.rows += rows

    def _encode(self, row: ImageRow) -> bytes:
        fixed = [_WRITTEN.get(key, lambda value: value)(getattr(row, key)) for key in KEYS]
        return csv_lines([[*fixed, *(float(row.scores[name]) for name in self.scores)]])


def _repair(path: Path) -> bool:
    """Cut a half last line off; whether there was one."""
    if not path.is_file():
        return False
    data = path.read_bytes()
    if not data or data.endswith(b"\n"):
        return False
    replace_file(path, data[: data.rfind(b"\n") + 1])
    return True


def _parse(line: Sequence[str], names: Sequence[str], path: Path, number: int) -> ImageRow:
    try:
        if len(line) != len(KEYS) + len(names):
            raise ValueError(f"{len(line)} values")
        value = {
            key: _READ.get(key, str)(cell_text(cell)) for key, cell in zip(KEYS, line, strict=False)
        }
        scores = [float(text) for text in line[len(KEYS) :]]
        return ImageRow(**value, scores=dict(zip(names, scores, strict=True)))
    except ValueError as error:
        raise ConfigError(
            f"{path}, line {number}: {error}. Remove the line; it is computed again."
        ) from None


def write_results(folder: Path, document: Mapping[str, Any]) -> None:
    """Write results.json: everything resolved that the rows do not say themselves."""
    full = {"format": FORMAT, "format_version": FORMAT_VERSION, **document}
    text = json.dumps(_plain(full), indent=2, sort_keys=True, allow_nan=False)
    replace_file(folder / RESULTS, (text + "\n").encode())


def read_results(folder: Path) -> dict[str, Any]:
    """Read results.json back.

    Raises
    ------
    ConfigError
        Missing, broken, or of another format.
    """
    return read_document(folder / RESULTS, "an evaluation", FORMAT, FORMAT_VERSION)


def _plain(value: Any) -> Any:
    """JSON has no infinity: such numbers become words."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
