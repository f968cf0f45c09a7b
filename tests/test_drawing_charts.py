"""Charts: what is drawn, what is left out, and that every output can be read by everyone."""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defusedxml import ElementTree
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsisr.drawing.axes import axis_ends, tick_labels, ticks_between
from wsisr.drawing.charts import ChartSeries, chart, histogram, histogram_of
from wsisr.drawing.fields import ResidualShifts, funnel, residual_field
from wsisr.drawing.style import DARK, LIGHT
from wsisr.drawing.vector import text_width_px
from wsisr.errors import ConfigError

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: list[ChartSeries], **more: object) -> str:
    words = {"title": "a chart", "x_label": "step", "y_label": "dB", **more}
    return chart(series, **words).svg()  # type: ignore[arg-type]


def lines(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """Points of the paths that are stroked in a series' colour."""
    ways = re.findall(rf'<path d="([^"]+)" style="fill:none;stroke:var\(--{colour},', svg)
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", way)]
        for way in ways
    ]


def marks(svg: str, colour: str) -> list[tuple[float, float]]:
    """Where markers of a series' colour stand."""
    found = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill:var\(--(\w+),', svg)
    return [(float(x), float(y)) for x, y, role in found if role == colour]


def test_svg_is_well_formed_and_says_what_it_shows() -> None:
    svg = drawn(
        [ChartSeries("a < b & $c$ $", [1, 2, 3], [1.0, 5.0, 2.0])], title="<loss> \"x\" 'y'"
    )
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.attrib["role"] == "img"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and desc is not None
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], desc.attrib["id"]]
    assert title.text == "<loss> \"x\" 'y'"
    assert "a < b & $c$ $: 3 points, lowest 1, highest 5, last 2" in str(desc.text)


def test_figures_of_one_page_share_no_id_and_bring_no_style() -> None:
    svgs = [drawn([ChartSeries("a", [1, 2], [1.0, k])], title=f"chart {k}") for k in (2, 3)]
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in svgs]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip(svgs, ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= own
        assert "<style" not in svg and "<metadata" not in svg and "font-family:system-ui" in svg


def test_colours_are_the_pages_and_files_have_their_own(tmp_path: Path) -> None:
    one = chart(
        [ChartSeries("a", [1, 2], [1, 2], kind="bars")], title="t", x_label="x", y_label="y"
    )
    bare = re.sub(r"var\(--\w+,#[0-9a-f]{6}\)", "", one.svg())
    assert not re.search(r"#[0-9a-f]{6}\b(?!m)|rgb", re.sub(r'(href="#|id=")\w+', "", bare))
    one.save(tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "var(" not in text and LIGHT["c1"] in text and f'fill="{LIGHT["paper"]}"' in text
    assert ElementTree.fromstring(text).find(f"{SVG}title") is not None


def test_the_same_chart_is_the_same_bytes_whatever_a_user_has_set(tmp_path: Path) -> None:
    import matplotlib

    one = chart([ChartSeries("a", [1, 2], [1, 2])], title="t", x_label="x", y_label="y")
    names = [tmp_path / f"a.{kind}" for kind in ("svg", "pdf", "png")]
    one.save(*names)
    first = [path.read_bytes() for path in names]
    assert first[1].startswith(b"%PDF") and b"CreationDate" not in first[1]
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 30, "axes.grid": True}):
        one.save(*names)
        assert matplotlib.rcParams["font.size"] == 30
    assert [path.read_bytes() for path in names] == first
    with pytest.raises(ConfigError, match=r"\.png, \.pdf or \.svg"):
        one.save(tmp_path / "a.jpg")


def test_drawing_is_paid_for_when_something_is_drawn_and_is_the_same_in_every_process() -> None:
    code = (
        "import sys\nfrom hashlib import sha256\n"
        "from wsisr.drawing.charts import ChartSeries, chart\n"
        "import wsisr.reporting.page, wsisr.drawing.sheets, wsisr.drawing.overlays\n"
        "heavy = {'matplotlib', 'jinja2', 'cv2', 'scipy', 'torch'} & set(sys.modules)\n"
        "one = chart([ChartSeries('a', [1, 2], [1, 2])], title='t', x_label='x', y_label='y')\n"
        "text = one.svg()\n"
        "plain = 'matplotlib.pyplot' not in sys.modules\n"
        "print(sorted(heavy), plain, sha256(text.encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    one = chart([ChartSeries("a", [1, 2], [1, 2])], title="t", x_label="x", y_label="y")
    assert done.stdout.strip() == f"[] True {sha256(one.svg().encode()).hexdigest()}"


def test_values_that_are_not_finite_are_left_out() -> None:
    y = [1.0, np.nan, np.inf, -np.inf, 2.0]
    svg = drawn([ChartSeries("a", range(5), y)])
    assert [len(line) for line in lines(svg, "c1")] == [2]
    assert "nan" not in svg.lower() and "inf" not in svg.lower()


def test_a_logarithmic_axis_leaves_out_what_is_not_positive() -> None:
    svg = drawn([ChartSeries("a", [-1.0, 0.0, 1.0, 1000.0], [1, 2, 3, 4])], log_x=True)
    assert [len(line) for line in lines(svg, "c1")] == [2]
    assert ">10<" in svg and ">100<" in svg


def test_long_lines_stay_short_and_keep_their_spikes() -> None:
    y = np.zeros(100_000)
    y[12_345] = 7.0
    long = lines(drawn([ChartSeries("a", np.arange(len(y)), y)]), "c1")[0]
    assert len(long) < 1000
    flat = lines(drawn([ChartSeries("a", [0, 1], [0.0, 7.0])]), "c1")[0]
    assert min(y for _, y in long) == pytest.approx(min(y for _, y in flat), abs=0.2)


def test_points_of_several_series_at_one_place_stand_side_by_side() -> None:
    series = [
        ChartSeries(f"model {k}", [2.0, 4.0], [28.0, 29.0 + k], [27, 28], [29, 33], kind="points")
        for k in range(4)
    ]
    svg = drawn(series)
    at_two = sorted(min(marks(svg, f"c{k}")[:2])[0] for k in range(1, 5))
    assert (np.diff(at_two) >= 8.9).all()
    alone = marks(drawn(series[:1]), "c1")
    apart = marks(drawn([*series[:1], ChartSeries("far", [3.0], [28.0], kind="points")]), "c1")
    assert [x for x, _ in alone][:2] == [x for x, _ in apart][:2]


def test_what_the_pointer_reads_is_what_is_drawn() -> None:
    import json
    from html import unescape

    svg = drawn([ChartSeries("a", [1, 2], [3.0, 4.5]), ChartSeries("b", [1, 2], [3.5, np.nan])])
    read = json.loads(unescape(re.search(r'data-read="([^"]+)"', svg)[1]))  # type: ignore[index]
    assert [one[0] for one in read] == ["a", "b"]
    assert [point[2:] for point in read[0][2]] == [["1", "3"], ["2", "4.5"]]
    assert [point[2:] for point in read[1][2]] == [["1", "3.5"]]
    assert lines(svg, "c1")[0] == [tuple(point[:2]) for point in read[0][2]]
    one = chart([ChartSeries("a", [1, 2], [3.0, 4.5])], title="t", x_label="x", y_label="y")
    assert "data-read" not in one.svg(380)


@pytest.mark.parametrize("width", [380, 720, 1200])
def test_no_two_texts_lie_on_one_another(width: int) -> None:
    names = ["mihatp", "iste", "liif (recommended)", "masrnet", "bicubic", "edsr", "rcan", "hat"]
    series = [ChartSeries(name, [2, 3, 4, 6, 8], np.arange(5) + k) for k, name in enumerate(names)]
    bars = [ChartSeries("", [f"split number {k}" for k in range(6)], range(6), kind="bars")]
    for given_ in (series, bars):
        one = chart(given_, title="PSNR over scale", x_label="scale", y_label="dB")
        boxes = _text_boxes(one.svg(width))
        assert len(boxes) > 8
        for index, a in enumerate(boxes):
            assert a[0] >= -0.5 and a[2] <= width + 0.5, (width, a)
            for b in boxes[index + 1 :]:
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                assert apart, (width, a, b)


def _text_boxes(svg: str) -> list[tuple[float, float, float, float]]:
    boxes = []
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if "rotate" in text.attrib.get("transform", ""):
            continue
        style = dict(part.split(":") for part in text.attrib["style"].split(";") if part)
        size, bold = float(style["font-size"].removesuffix("px")), "font-weight" in style
        wide = text_width_px(str(text.text), size, bold)
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[style["text-anchor"]] * wide
        boxes.append((left, y - 0.7 * size, left + wide, y + 0.2 * size))
    return boxes


def test_bars_stand_on_zero_beside_one_another_with_whiskers() -> None:
    svg = drawn(
        [
            ChartSeries("a", ["x2", "x4"], [30.0, 27.0], low=[29, 26], high=[31, 28], kind="bars"),
            ChartSeries("b", ["x2", "x4"], [28.0, 25.0], kind="bars"),
        ]
    )
    assert ">0<" in svg and ">x2<" in svg and ">x4<" in svg
    assert lines(svg, "ink")
    boxes = [
        [float(x) for x in re.findall(r"[ML]([\d.]+) ", way)]
        for colour in ("c1", "c2")
        for way in re.findall(rf'<path d="([^"]+)" style="fill:var\(--{colour},', svg)[:2]
    ]
    assert max(boxes[0]) <= min(boxes[2]) < max(boxes[2]) <= min(boxes[1])


def test_names_and_numbers_on_one_axis_are_refused() -> None:
    with pytest.raises(ConfigError, match="names on x"):
        drawn([ChartSeries("a", ["x2"], [1.0]), ChartSeries("b", [2], [1.0])])


def test_parts_of_a_series_must_be_of_one_length() -> None:
    with pytest.raises(ConfigError, match="'a' differ in length"):
        drawn([ChartSeries("a", [1, 2], [1.0])])


def test_nothing_to_draw_is_said() -> None:
    assert "no data" in drawn([])
    assert "no data" in drawn([ChartSeries("a", [1.0], [np.nan])])
    assert histogram_of([np.nan], title="h", x_label="px", y_label="pairs") is None


def test_histogram_refuses_edges_that_do_not_fit() -> None:
    for counts, edges in (([1, 2], [0, 1]), ([1], [1, 0]), ([1], [0, np.inf])):
        with pytest.raises(ConfigError, match="edges"):
            histogram(counts, edges, title="h", x_label="px", y_label="pairs")


def test_histogram_marks_are_named_and_clear_of_the_bars() -> None:
    one = histogram(
        [3, 5, 1], [0, 1, 2, 3], title="h", x_label="px", y_label="pairs", marks={"median 1.4": 1.4}
    )
    svg = one.svg()
    assert "median 1.4 at 1.4" in one.description and "stroke-dasharray" in svg
    label = re.search(r'y="([\d.]+)"[^>]*>median 1.4<', svg)
    bars = re.findall(r'<path d="([^"]+)" style="fill:var\(--c1,', svg)
    assert label and len(bars) == 3
    tops = [float(y) for way in bars for y in re.findall(r"[ML][\d.]+ ([\d.]+)", way)]
    assert float(label.group(1)) < min(tops)


def test_a_histogram_of_values_says_where_95_percent_end() -> None:
    values = np.arange(101) / 100
    low = histogram_of(values, title="h", x_label="px", y_label="n", low_is_bad=True)
    high = histogram_of(values, title="h", x_label="px", y_label="n")
    assert low is not None and "median 0.5" in low.description and "95 % above 0.05" in low.svg()
    assert high is not None and "95 % below 0.95" in high.svg()
    assert histogram_of(np.full(5, 0.3), title="h", x_label="px", y_label="n") is not None


def test_png_is_the_same_drawing(tmp_path: Path) -> None:
    one = chart(
        [
            ChartSeries("a", [0, 1], [0.0, 1.0]),
            ChartSeries("b", [0, 1], [1.0, 0.0], [0.9, -0.1], [1.1, 0.1]),
        ],
        title="t",
        x_label="x",
        y_label="y",
        size_px=(300, 200),
    )
    one.save(tmp_path / "deep" / "c.png", scale=2)
    picture = np.asarray(Image.open(tmp_path / "deep" / "c.png").convert("RGB")).astype(int)
    assert picture.shape == (400, 600, 3)
    for role in ("c1", "c2", "ink"):
        near = np.abs(picture - _rgb(LIGHT[role])).max(axis=2) < 12
        assert near.sum() > 50, role
    assert np.array_equal(one.image(scale=2), picture)


def test_a_funnel_says_what_each_step_lost() -> None:
    one = funnel([("candidates", 100), ("enough <tissue>", 40), ("kept", 40)], title="funnel")
    assert "candidates 100; enough <tissue> 40; kept 40" in one.description
    svg = one.svg()
    assert "40 (−60)" in svg and "enough &lt;tissue&gt;" in svg
    narrow = ElementTree.fromstring(one.svg(380)).attrib
    assert narrow["width"] == "380" and narrow["height"] == f"{one.height_px}"


def field(places: np.ndarray, residuals: np.ndarray, **known: Any) -> ResidualShifts:
    return ResidualShifts(places=places, residuals=residuals, extent=(1000, 500), **known)


def test_a_field_draws_what_it_is_given() -> None:
    places = np.array([[100.0, 100.0], [900.0, 400.0], [500.0, 250.0]])
    shifts = np.array([[0.3, 0.4], [9.0, 9.0], [np.nan, 0.0]])
    used = np.array([True, False, True])
    one = residual_field(field(places, shifts, used=used), title="field")
    assert "1 arrows, 95th percentile 0.5 HR px" in one.description
    svg = one.svg()
    assert svg.count('style="fill:var(--c7,') >= 2 and "0.5 HR px" in svg
    way = re.search(r'<path d="([^"]+)" style="fill:var\(--c7,', svg)
    assert way
    arrow = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", way[1])]
    start, tip = arrow[0], max(arrow, key=sum)
    across, down = tip[0] - start[0], tip[1] - start[1]
    assert down / across == pytest.approx(4 / 3, abs=0.1) and across > 10
    empty = residual_field(field(np.zeros((0, 2)), np.zeros((0, 2))), title="field")
    assert empty.image().shape == one.image().shape
    assert not np.array_equal(empty.image(), one.image())
    known = field(
        places,
        shifts,
        errors=np.full(3, 0.1),
        soft=np.array([True, False, False]),
        strips=[(0, 0, 100, 500)],
        outlines=[places],
    )
    full = residual_field(known, title="field", words="ring: its error")
    assert "ring: its error" in full.svg() and "var(--tissue," in full.svg()


@pytest.mark.parametrize("roles", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_can_be_read_on_their_page(roles: dict[str, str]) -> None:
    for name in ("ink", "muted", *(f"c{k}" for k in range(1, 9))):
        assert _contrast(roles[name], roles["paper"]) >= 4.5, name


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])


def _contrast(first: str, second: str) -> float:
    """WCAG 2.1 contrast ratio."""
    luminance = []
    for colour in (first, second):
        c = _rgb(colour) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    high, low = max(luminance), min(luminance)
    return (high + 0.05) / (low + 0.05)


@settings(max_examples=60)
@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-6, 1e6),
    st.integers(2, 12),
)
def test_ticks_are_round_few_and_inside(low: float, span: float, count: int) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = ticks_between(low, high, count)
    room = 1e-6 * (abs(low) + abs(high) + span)
    assert all(low - room <= tick <= high + room for tick in ticks)
    assert list(ticks) == sorted(ticks)
    assert len(ticks) <= 2 * count + 2


@settings(max_examples=60)
@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e8))
def test_log_ticks_lie_inside(low: float, ratio: float) -> None:
    ticks = ticks_between(low, low * ratio, 6, log=True)
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)


def test_tick_labels_are_short_and_alike() -> None:
    assert tick_labels((0.0, 25_000.0, 50_000.0)) == ("0", "25k", "50k")
    assert tick_labels((0.0, 0.25, 0.5)) == ("0.00", "0.25", "0.50")
    assert tick_labels((1000.0, 2000.0)) == ("1,000", "2,000")
    assert tick_labels((0.0, 2e6)) == ("0", "2M")


def test_an_axis_of_one_value_has_room_around_it() -> None:
    low, high = axis_ends(np.array([5.0]))
    assert low < 5.0 < high
    assert axis_ends(np.array([0.0]), zero=True)[0] == 0.0
    low, high = axis_ends(np.array([10.0]), log=True)
    assert low < 10 < high
