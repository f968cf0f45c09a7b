"""Example sheets, curves and the page."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import settings, texture, write_run, write_store
from PIL import Image

from wsisr.drawing.sheets import heat
from wsisr.errors import ConfigError
from wsisr.evaluation import evaluate
from wsisr.evaluation.examples import Panel, choose_examples, detail_window, example_sheet
from wsisr.evaluation.pipeline import load_results
from wsisr.reporting.evaluation_page import write_evaluation_report


@pytest.fixture(scope="module")
def folder(made_once: Callable[..., Path]) -> Path:
    def make(path: Path) -> None:
        write_store(path / "pairs.zarr", per_slide=2)
        write_run(path / "runs/srcnn-x4")
        write_run(path / "runs/<b>net", scale=2, origin="simulated:bicubic")
        evaluate(settings(path, scales=(2.0, 2.4, 4.0), figures=3, cost=True))

    return made_once("evaluation-figures", make)


def test_the_view_is_where_hr_has_edges() -> None:
    hr = np.full((128, 128, 3), 200, np.uint8)
    hr[64:96, 32:64] = texture(0, 1, 32)[0]
    y, x = detail_window(hr, 32, step=8)
    assert (y, x) == (64, 32)
    with pytest.raises(ConfigError, match="does not fit"):
        detail_window(hr, 200)


def test_errors_share_one_colour_scale() -> None:
    hr = texture(1, 1, 64)[0] // 2 + 40
    panels = [
        Panel(title="near", note="", image=hr + 5),
        Panel(title="far", note="40 dB", image=hr + 20),
    ]
    sheet = example_sheet(hr, panels)
    # Two lines of words above the first row; at the left the words of the rows.
    bottom = 6 + 36 + 2 * 70
    left = int(np.flatnonzero((sheet[42] == hr[0, 1] + 5).all(axis=1))[0]) - 1
    near, far = (sheet[bottom : bottom + 64, left + i * 70 : left + 64 + i * 70] for i in (0, 1))
    assert np.ptp(near.reshape(-1, 3), axis=0).max() == 0
    assert np.array_equal(near[0, 0], heat(np.array([[5.0]]), 20.0)[0, 0])
    assert np.array_equal(far[0, 0], heat(np.array([[20.0]]), 20.0)[0, 0])
    assert np.array_equal(sheet[42 + 1, left + 70 + 1], hr[1, 1] + 20)  # panels are not resampled


def test_heat_grows_lighter() -> None:
    shades = heat(np.linspace(0, 10, 50), 10.0).astype(float) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(shades) > 0).all()


def test_best_median_and_worst_of_every_model() -> None:
    scores = {"net": {("s", i): float(v) for i, v in enumerate((3, 9, 5, 1, 7))}}
    assert choose_examples(scores, "high", 3) == {
        ("s", 1): ["best of net"],
        ("s", 2): ["median of net"],
        ("s", 3): ["worst of net"],
    }
    assert list(choose_examples(scores, "low", 2)) == [("s", 3), ("s", 1)]
    assert list(choose_examples(scores, "high", 1)) == [("s", 2)]
    both = {"net": {("s", 0): 1.0}, "other": {("s", 0): np.inf}}
    assert choose_examples(both, "high", 3)["s", 0] == [f"{k} of net" for k in
                                                        ("best", "median", "worst")]  # fmt: skip
    assert choose_examples(scores, "high", 0) == {}


def test_sheets_and_curves_are_written(folder: Path) -> None:
    document = load_results(folder / "eval").document
    files = [folder / "eval" / item["file"] for item in document["figures"]]
    assert len(files) >= 5 and all(file.is_file() for file in files)
    by_column = {(item["origin"], item["scale"]): item["models"] for item in document["figures"]}
    assert by_column["stored-level", 4.0] == ["bicubic", "srcnn-x4"]
    assert by_column["simulated:bicubic", 2.4] == ["bicubic"]
    with Image.open(files[0]) as sheet:
        assert sheet.height > 3 * 90 and sheet.width > 3 * 90
    for stem in document["charts"]:
        assert (folder / "eval" / f"{stem}.png").is_file()
        assert "<svg" in (folder / "eval" / f"{stem}.svg").read_text()
    assert any("scale-" in stem for stem in document["charts"])
    assert (folder / "eval/figures/charts.pdf").read_bytes().startswith(b"%PDF")


class _Page(HTMLParser):
    """Gathers what a browser would fetch, and headings."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.unnamed = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.sources += [v for k, v in attrs if k in ("src", "href") and v]
        if tag == "section":
            self.ids.append(known["id"] or "")
        if tag == "img" and not known.get("alt"):
            self.unnamed += 1


def test_the_page_is_whole_in_itself(folder: Path, tmp_path: Path) -> None:
    text = write_evaluation_report(folder / "eval", tmp_path / "index.html").read_text()
    page = _Page()
    page.feed(text)
    assert {"results", "curves", "differences", "examples", "cost", "method"} <= set(page.ids)
    assert all(s.startswith(("data:", "#")) for s in page.sources) and page.unnamed == 0
    assert "<b>net" not in text and "&lt;b&gt;net" in text
    assert "yardstick: HR&#39;s own JPEG" in text and "published, other data" in text.lower()
    assert len(re.findall(r"data:image/webp", text)) >= 5


def test_a_folder_that_is_no_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run wsisr eval first"):
        write_evaluation_report(tmp_path, tmp_path / "index.html")
