"""Cells that spreadsheets do not run, the texts back, and tables that people wrote."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsisr.errors import ConfigError, ManifestError
from wsisr.tables import cell_text, csv_cell, csv_lines, csv_table, markdown_table, read_table


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.from_regex("'*[=@+-]x"))
def test_no_cell_is_a_formula_and_every_text_comes_back(text: str) -> None:
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell_text(cell) == text
    assert cell in (text, f"'{text}")


def test_numbers_stay_numbers_and_lacking_cells_are_empty() -> None:
    data = csv_table(("a", "b"), [{"a": -1.23456, "b": "=1"}, {"b": -7}], ".2f").decode()
    assert data == "a,b\n-1.23,'=1\n,-7\n"
    assert csv_lines([["bad\udcffname", None]]) == b"bad\\udcffname,\n"
    assert list(csv.reader(data.splitlines()))[1] == ["-1.23", "'=1"]


def test_tables_of_people_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b'\xef\xbb\xbf slide , mpp\na, 0.25\n"b, c", \n d\ne,1,2\n')
    header, rows = read_table(path)
    assert header == ["slide", "mpp"]
    assert rows[:3] == [
        {"slide": "a", "mpp": "0.25"},
        {"slide": "b, c", "mpp": ""},
        {"slide": "d", "mpp": None},
    ]
    assert rows[3][None] == ["2"]
    for broken in (b"\xff\xfe\x00", b'a,b\n"c" d,e\n'):
        path.write_bytes(broken)
        with pytest.raises(ManifestError, match="cannot be read as a CSV table"):
            read_table(path, ManifestError)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_table(tmp_path / "none.csv")


def test_cells_of_markdown_keep_to_their_cell_and_line() -> None:
    assert markdown_table(["", "dB"], [("a|b\n| c", 1.5), ("", None)], numbers=True) == [
        "|  | dB |",
        "|---|---:|",
        "| a\\|b \\| c | 1.5 |",
        "|  | None |",
    ]
