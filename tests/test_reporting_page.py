"""Pages: safe by default, whole in one file, and usable by eye, ear and key."""

import json
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from wsisr.drawing.charts import ChartSeries, chart
from wsisr.drawing.encoding import encode
from wsisr.errors import ConfigError
from wsisr.reporting import page
from wsisr.reporting.page import Page, figure, flicker, table, template

ASSET = page._asset
VOID = {"meta", "link", "img", "br", "input"}
NASTY = "<script>alert('x')</script> & \"more\""


class Checker(HTMLParser):
    """Counts what a page is made of, and that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(html: str) -> Checker:
    parser = Checker()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return parser


def pair() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "LR": rng.integers(0, 256, (16, 16, 3), np.uint8),
        "HR": rng.integers(0, 256, (64, 64, 3), np.uint8),
    }


def whole_page() -> Page:
    parts = template("parts.html")
    written = Page("A page", "all of it", kind="Test", badges=[("LEAKY", "bad")], footer="end")
    first = parts.cards({"pairs": 1200}), parts.facts({"digest": "abc"}, exact=("digest",))
    written.section("first", "First", *first, "plain text")
    one = chart([ChartSeries("a", [1, 2], [3.0, 4.0])], title="t", x_label="x", y_label="y")
    written.section("second", "Second", figure(one, "t", "a chart"), flicker(pair(), "tissue"))
    rows = [[f"slide {k}", 1.5 * k] for k in range(20)] + [["y", None]]
    written.section("third", "Third", table(["a", "b"], rows, sortable=True, caption="All of them"))
    return written


def test_text_is_escaped_wherever_it_comes_in() -> None:
    parts = template("parts.html")
    written = Page(NASTY, NASTY, kind=NASTY, badges=[(NASTY, "plain")], footer=NASTY)
    written.section(
        "s",
        NASTY,
        NASTY,
        parts.note("warn", NASTY, NASTY),
        parts.bullets([NASTY]),
        parts.cards({NASTY: NASTY}),
        parts.facts({NASTY: NASTY}, exact=(NASTY,)),
        table([NASTY], [[NASTY]] * 20, caption=NASTY, sortable=True),
        figure(pair()["HR"], NASTY, NASTY),
        figure(chart([ChartSeries(NASTY, [1], [1])], title=NASTY, x_label=NASTY, y_label=NASTY)),
        flicker(pair(), NASTY, NASTY),
    )
    html = written.html()
    check(html)
    assert "<script>alert" not in html
    assert html.count("<script>") == 1


def test_only_templates_make_markup_and_a_name_that_is_not_given_is_an_error() -> None:
    assert isinstance(table(["a"], [["x"]]), Markup)
    with pytest.raises(UndefinedError):
        template("store.html").pairs()


def test_the_page_asks_nothing_of_the_network() -> None:
    html = whole_page().html()
    for tag, attributes in check(html).tags:
        for name in ("src", "href", "data", "action", "srcset"):
            value = attributes.get(name)
            if value is not None and tag not in ("a",):
                assert value.startswith("data:"), (tag, value)
            elif value is not None:
                assert value.startswith("#")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert html.count("<style>") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy and policy.group(1).startswith("default-src 'none'")
    script = html[html.rindex("<script>") + 8 : html.rindex("</script>")]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy.group(1)


def test_sections_can_be_reached_and_their_names_are_unique() -> None:
    written = whole_page()
    tags = check(written.html()).tags
    links = [a["href"] for tag, a in tags if tag == "a" and a.get("class") != "skip"]
    ids = [a["id"] for tag, a in tags if tag == "section"]
    assert links == [f"#{name}" for name in ids] == ["#first", "#second", "#third"]
    with pytest.raises(ConfigError, match="already"):
        written.section("first", "Again", "x")
    with pytest.raises(ConfigError, match="section id"):
        written.section('x" onload="', "Bad", "x")


def test_every_picture_says_what_it_shows() -> None:
    with pytest.raises(ConfigError, match="alt text"):
        figure(pair()["HR"], " ")
    tags = check(whole_page().html()).tags
    alts = [a["alt"] for tag, a in tags if tag == "img"]
    assert alts == ["tissue, LR", "tissue, HR"]


def test_a_flicker_is_a_button_that_says_what_it_shows() -> None:
    html = flicker(pair(), "tissue")
    button = next(a for tag, a in check(html).tags if tag == "button")
    assert button["type"] == "button"
    assert button["aria-label"] == "tissue. Shows LR; press to change to HR."
    assert html.count('class="pixels"') == 1  # the LR, enlarged by nearest neighbour
    with pytest.raises(ConfigError, match="two pictures"):
        flicker({"HR": pair()["HR"]}, "tissue")


def test_lr_is_embedded_without_loss() -> None:
    images = pair()
    html = flicker(images, "tissue")
    data = re.search(r"data:image/png;base64,([^\"]+)", html)
    assert data
    assert np.array_equal(np.asarray(Image.open(BytesIO(b64decode(data.group(1))))), images["LR"])


def test_pictures_are_reduced_and_compressed_only_where_it_does_not_hurt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tissue = rng.integers(0, 256, (400, 300, 3), np.uint8)
    graphic = np.zeros((400, 300), np.uint8)
    assert encode(tissue).media_type == "image/jpeg"
    assert encode(graphic).media_type == "image/png"
    assert encode(np.dstack([tissue, tissue[..., 0]])).media_type == "image/png"
    small = encode(tissue, max_side_px=100)
    assert (small.width_px, small.height_px) == (75, 100)
    path = tmp_path / "a.png"
    Image.fromarray(tissue).save(path)
    assert encode(path).data == path.read_bytes()
    assert len(encode(path, max_side_px=400).data) < path.stat().st_size
    with pytest.raises(ConfigError, match="cannot be read as a picture"):
        encode(b"no picture")
    with pytest.raises(ConfigError, match="uint8"):
        encode(np.zeros((4, 4, 3)))


def test_tables_set_numbers_right_and_give_rows_a_heading() -> None:
    html = table(["slide", "pairs", "um/px"], [["a", 12000, 0.24300001], ["b", None, float("nan")]])
    assert html.count('<th scope="row">') == 2
    assert '<td class="n">12,000</td>' in html and '<td class="n">0.243</td>' in html
    assert html.count("–") == 2
    assert '<td class="n">' not in table(["a", "b"], [["x", "4x4"]])
    assert '<td class="n">' not in table(["a", "b"], [["x", "-0.1 [-0.2, +0.1], worse"]])
    assert '<td class="n">' in table(["a", "b"], [["x", "-0.1 [-0.2, +0.1]"]])
    with pytest.raises(ConfigError, match="another length"):
        table(["a", "b"], [["x"]])


def test_writing_replaces_whole_and_is_the_same_every_time(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    whole_page().write(target)
    first = target.read_bytes()
    whole_page().write(target)
    assert target.read_bytes() == first
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        whole_page().write(tmp_path / "file" / "report.html")


def test_long_tables_can_be_searched_and_wide_charts_have_two_layouts() -> None:
    html = whole_page().html()
    tags = check(html).tags
    box = next(a for tag, a in tags if tag == "input")
    assert box["data-for"] == "t-all-of-them"
    assert [a["id"] for tag, a in tags if tag == "table"] == ["t-all-of-them"]
    assert "<input" not in table(["a"], [["x"]] * 20) + table(["a"], [["x"]], sortable=True)
    wide = [a["width"] for tag, a in tags if tag == "svg"]
    assert wide == ["720", "380"] and html.count("data-read") == 1 + html.count("[data-read]")
    small = chart(
        [ChartSeries("a", [1], [1])], title="t", x_label="x", y_label="y", size_px=(420, 280)
    )
    assert figure(small).count("<svg") == 1


TRY_IT = """
(function () {
  var box = document.querySelector(".search input"), all = document.querySelector("table");
  var rows = all.tBodies[0].rows;
  var shown = function () { return Array.from(rows).filter((row) => !row.hidden).length; };
  box.value = "slide 1"; box.dispatchEvent(new Event("input"));
  var found = [shown(), document.querySelector(".search output").textContent];
  box.value = ""; box.dispatchEvent(new Event("input")); found.push(shown());
  var heads = document.querySelectorAll("th button"); heads[1].click(); heads[1].click();
  found.push(rows[0].textContent.trim(), rows[rows.length - 1].textContent.trim());
  var svg = document.querySelector("svg[data-read]"), place = svg.getBoundingClientRect();
  var at = { clientX: place.right - 20, clientY: place.top + 40, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  found.push(document.getElementById("read").textContent);
  svg.dispatchEvent(new PointerEvent("pointerleave")); found.push(document.getElementById("read"));
  document.documentElement.dataset.tried = JSON.stringify(found);
})();
"""


def test_a_browser_runs_it_without_a_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    monkeypatch.setattr(page, "_asset", lambda name: ASSET(name) + TRY_IT * (name == "page.js"))
    path = whole_page().write(tmp_path / "report.html")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert '<html lang="en" class="script"' in done.stdout  # the policy let the script run
    assert "Theme: auto" in done.stdout
    tried = re.search(r'data-tried="([^"]*)"', done.stdout)
    assert tried, done.stderr
    # Rows that say slide and 1; all again; falling, what is no number last; values at x = 2.
    assert json.loads(unescape(tried[1])) == [14, "14 of 21", 21, "slide 1928.5", "y–", "24", None]
    assert "CONSOLE" not in done.stderr
