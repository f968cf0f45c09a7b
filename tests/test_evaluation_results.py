"""Rows on disk."""

import math
from pathlib import Path

import pytest
from evaluation_samples import image_row

from wsisr.errors import ConfigError, LockedError
from wsisr.evaluation.results import RowFile, only_one, read_results, read_rows, write_results


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    rows = [
        image_row("net", 'slide, "odd"', 3, 30.123456789012345),
        image_row("net", "s", 4, math.inf, seed=None, scale=2.4, in_range=False, label=""),
        image_row("-net", "s", 5, -1.5, label="=HYPERLINK(1)", patient="'+7"),
    ]
    file = RowFile(path, ["psnr_rgb"])
    file.append(rows)
    assert read_rows(path) == (("psnr_rgb",), rows)
    assert ",'=HYPERLINK(1)," in path.read_text() and ",-1.5\n" in path.read_text()
    assert RowFile(path, ["psnr_rgb"]).rows == rows
    file.append([image_row("net", "s", 5, math.nan)])
    assert math.isnan(read_rows(path)[1][-1].scores["psnr_rgb"])


@pytest.mark.parametrize("rest", ["s,patient-s,", "s", 's,"patient'])
def test_a_half_last_line_is_cut_off(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "images.csv"
    RowFile(path, ["psnr_rgb"]).append([image_row("net", "s", 0, 30.0)])
    whole = path.read_bytes()
    path.write_bytes(whole + rest.encode())
    again = RowFile(path, ["psnr_rgb"])
    assert again.repaired and path.read_bytes() == whole and len(again.rows) == 1
    path.write_bytes(b"slide,pat")
    assert RowFile(path, ["psnr_rgb"]).rows == []
    assert path.read_bytes().startswith(b"slide,patient,group,row")


def test_stale_rows_are_dropped_and_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    file = RowFile(path, ["psnr_rgb"])
    file.append([image_row("net", "s", i, 30.0 + i) for i in range(3)])
    assert file.drop([file.rows[1]]) == 1 and file.drop([]) == 0
    assert [row.row for row in read_rows(path)[1]] == [0, 2]


def test_foreign_and_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.csv"
    RowFile(path, ["psnr_rgb"]).append([image_row("net", "s", 0, 30.0)])
    with pytest.raises(ConfigError, match="holds the scores psnr_rgb, not ssim_y"):
        RowFile(path, ["ssim_y"])
    path.write_bytes(path.read_bytes().replace(b"30.0", b"thirty"))
    with pytest.raises(ConfigError, match="line 2"):
        read_rows(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no results file"):
        read_rows(path)
    with pytest.raises(ConfigError, match="run wsisr eval"):
        read_rows(tmp_path / "none.csv")


def test_results_json_has_no_words_that_json_lacks(tmp_path: Path) -> None:
    write_results(tmp_path, {"a": math.inf, "b": [math.nan, 1.0]})
    document = read_results(tmp_path)
    assert document["a"] == "inf" and document["b"] == ["nan", 1.0]
    assert float(document["a"]) == math.inf
    (tmp_path / "results.json").write_text('{"format": "other"}')
    with pytest.raises(ConfigError, match="does not describe"):
        read_results(tmp_path)
    with pytest.raises(ConfigError, match="no evaluation"):
        read_results(tmp_path / "none")


def test_a_second_evaluation_in_one_folder_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(LockedError, match="another evaluation")
    with only_one(tmp_path), refused, only_one(tmp_path):
        raise AssertionError("two at once")
    with only_one(tmp_path) as free_again:
        assert free_again.held
