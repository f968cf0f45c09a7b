"""Cells that spreadsheets do not run, and the texts back."""

import csv

from hypothesis import given
from hypothesis import strategies as st

from wsisr.tables import cell_text, csv_cell, csv_lines, csv_table


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
