"""Tables: CSV as people write it and as no spreadsheet runs it, and Markdown."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError, WsisrError

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def csv_cell(value: Any) -> Any:
    """A value as a cell: names come from others, and spreadsheets run what begins like a formula.

    An apostrophe goes before such a text (OWASP, CSV Injection), and before one that begins with
    apostrophes and then like a formula, so that `cell_text` finds every text again. What no
    encoding can hold is spelled out. Values that are no texts, numbers say, stay as they are.
    """
    if not isinstance(value, str):
        return value
    value = value.encode("utf-8", "backslashreplace").decode()
    return f"'{value}" if _FORMULA.match(value) else value


def cell_text(cell: str) -> str:
    """The text of a cell that `csv_cell` made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def read_table(
    path: Path, kind: type[WsisrError] = ConfigError
) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a CSV file, and its rows by column.

    A cell that a row lacks is None; cells beyond the columns stand in a list under None.

    Raises
    ------
    kind
        The file cannot be read as a table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            return list(reader.fieldnames), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise kind(f"{path}: cannot be read as a CSV table: {error}") from None


def csv_lines(rows: Iterable[Iterable[Any]], floats: str = "") -> bytes:
    """Rows as lines of a CSV file; `floats` is the format of floats, e.g. ``".6g"``."""

    def shown(value: Any) -> Any:
        return format(value, floats) if floats and isinstance(value, float) else csv_cell(value)

    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(shown, row) for row in rows)
    return out.getvalue().encode()


def csv_table(fields: Sequence[str], rows: Iterable[Mapping[str, Any]], floats: str = "") -> bytes:
    """A whole CSV file of rows by name; empty where a row has no such field."""
    return csv_lines([fields, *([row.get(name, "") for name in fields] for row in rows)], floats)


def markdown_cell(value: Any) -> str:
    """A value as a cell, or a line, of Markdown: names and errors come from others."""
    return " ".join(str(value).split()).replace("|", "\\|")


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], numbers: bool = False
) -> list[str]:
    """The lines of a table; `numbers`: all columns but the first are set to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    cells = [list(map(markdown_cell, row)) for row in (header, *rows)]
    head, *body = [f"| {' | '.join(line)} |" for line in cells]
    return [head, f"|{'|'.join(rule)}|", *body]
