"""Charts: what is drawn, what is left out, and that both outputs can be read by everyone."""

import re
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wsisr.errors import ConfigError
from wsisr.reporting.charts import Series, chart, histogram
from wsisr.reporting.drawing import DARK, LIGHT, Drawing
from wsisr.reporting.scales import axis, linear_ticks, log_ticks, tick_labels

SVG = "{http://www.w3.org/2000/svg}"


def drawn(series: list[Series], **more: object) -> str:
    words = {"title": "a chart", "x_label": "step", "y_label": "dB", **more}
    return chart(series, **words).svg()  # type: ignore[arg-type]


def path_points(svg: str, colour: str) -> int:
    """Points of the longest path that is stroked in a series' colour."""
    paths = re.findall(rf'<path d="([^"]+)" style="fill:none;stroke:var\(--{colour},', svg)
    return max(len(re.findall("[ML]", way)) for way in paths)


def test_svg_is_well_formed_and_says_what_it_shows() -> None:
    svg = drawn([Series("a < b & c", [1, 2, 3], [1.0, 5.0, 2.0])], title="<loss>")
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg" and root.attrib["role"] == "img"
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and desc is not None
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], desc.attrib["id"]]
    assert title.text == "<loss>"
    assert desc.text is not None and "a < b & c: 3 points, lowest 1, highest 5, last 2" in desc.text


def test_values_that_are_not_finite_are_left_out() -> None:
    y = [1.0, np.nan, np.inf, -np.inf, 2.0]
    svg = drawn([Series("a", range(5), y)])
    assert path_points(svg, "c1") == 2
    assert "nan" not in svg.lower() and "inf" not in svg.lower().replace("linf", "")


def test_a_logarithmic_axis_leaves_out_what_is_not_positive() -> None:
    svg = drawn([Series("a", [-1.0, 0.0, 1.0, 1000.0], [1, 2, 3, 4])], log_x=True)
    assert path_points(svg, "c1") == 2
    assert ">10<" in svg and ">100<" in svg


def test_long_lines_stay_short_and_keep_their_spikes() -> None:
    y = np.zeros(100_000)
    y[12_345] = 7.0
    one = chart([Series("a", np.arange(len(y)), y)], title="t", x_label="x", y_label="y")
    svg = one.svg()
    assert path_points(svg, "c1") < 1000
    flat = chart([Series("a", [0, 1], [0.0, 7.0])], title="t", x_label="x", y_label="y")
    highest = [
        min(float(v) for v in re.findall(r"[ML][\d.]+ ([\d.]+)", _way(x)))
        for x in (svg, flat.svg())
    ]
    assert highest[0] == pytest.approx(highest[1], abs=0.2)


def _way(svg: str) -> str:
    found = re.search(r'<path d="([^"]+)" style="fill:none;stroke:var\(--c1,', svg)
    assert found
    return found.group(1)


def test_no_two_texts_lie_on_one_another() -> None:
    names = ["mihatp", "iste", "liif (recommended)", "masrnet", "bicubic", "edsr", "rcan", "hat"]
    series = [Series(name, [2, 3, 4, 6, 8], np.arange(5) + k) for k, name in enumerate(names)]
    for width in (380, 720, 1200):
        one = chart(series, title="PSNR over scale", x_label="scale", y_label="dB")
        boxes = _text_boxes(one.drawing(width))
        for index, a in enumerate(boxes):
            assert a[0] >= -0.5 and a[2] <= width + 0.5, (width, a)
            for b in boxes[index + 1 :]:
                apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
                assert apart, (width, a, b)


def _text_boxes(drawing: Drawing) -> list[tuple[float, float, float, float]]:
    from wsisr.reporting.drawing import text_width_px

    boxes = []
    for shape in drawing.shapes:
        if not hasattr(shape, "text") or shape.turned:
            continue
        wide = text_width_px(shape.text, shape.size_px, shape.bold) / 1.08
        left = shape.place[0] - {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor] * wide
        y = shape.place[1]
        boxes.append((left, y - 0.7 * shape.size_px, left + wide, y + 0.2 * shape.size_px))
    return boxes


def test_bars_stand_on_zero_beside_one_another_with_whiskers() -> None:
    svg = drawn(
        [
            Series("a", ["x2", "x4"], [30.0, 27.0], low=[29, 26], high=[31, 28], kind="bars"),
            Series("b", ["x2", "x4"], [28.0, 25.0], kind="bars"),
        ]
    )
    assert ">0<" in svg and ">x2<" in svg and ">x4<" in svg
    assert svg.count("stroke:currentColor") >= 1


def test_names_and_numbers_on_one_axis_are_refused() -> None:
    with pytest.raises(ConfigError, match="names on x"):
        drawn([Series("a", ["x2"], [1.0]), Series("b", [2], [1.0])])


def test_parts_of_a_series_must_be_of_one_length() -> None:
    with pytest.raises(ConfigError, match="'a' differ in length"):
        drawn([Series("a", [1, 2], [1.0])])


def test_nothing_to_draw_is_said() -> None:
    assert "no data" in drawn([])
    assert "no data" in drawn([Series("a", [1.0], [np.nan])])


def test_histogram_refuses_edges_that_do_not_fit() -> None:
    for counts, edges in (([1, 2], [0, 1]), ([1], [1, 0]), ([1], [0, np.inf])):
        with pytest.raises(ConfigError, match="edges"):
            histogram(counts, edges, title="h", x_label="px", y_label="pairs")


def test_histogram_marks_are_named_and_clear_of_the_bars() -> None:
    one = histogram(
        [3, 5, 1], [0, 1, 2, 3], title="h", x_label="px", y_label="pairs", marks={"median 1.4": 1.4}
    )
    svg = one.svg()
    assert "median 1.4" in svg and "stroke-dasharray" in svg
    label = re.search(r'y="([\d.]+)"[^>]*>median 1.4<', svg)
    bars = re.search(r'<path d="([^"]+)" style="fill:var\(--c1,', svg)
    assert label and bars
    assert float(label.group(1)) < min(
        float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", bars.group(1))
    )


def test_png_is_the_same_drawing(tmp_path: Path) -> None:
    one = chart(
        [Series("a", [0, 1], [0.0, 1.0]), Series("b", [0, 1], [1.0, 0.0], [0.9, -0.1], [1.1, 0.1])],
        title="t",
        x_label="x",
        y_label="y",
        width_px=300,
        height_px=200,
    )
    one.save_png(tmp_path / "deep" / "c.png", scale=2)
    picture = np.asarray(Image.open(tmp_path / "deep" / "c.png").convert("RGB")).astype(int)
    assert picture.shape == (400, 600, 3)
    for role in ("c1", "c2", "ink"):
        near = np.abs(picture - _rgb(LIGHT[role])).max(axis=2) < 12
        assert near.sum() > 50, role
    one.save_svg(tmp_path / "c.svg")
    assert ElementTree.parse(tmp_path / "c.svg").getroot().tag == f"{SVG}svg"


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


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-6, 1e6),
    st.integers(2, 12),
)
def test_ticks_are_round_few_and_inside(low: float, span: float, count: int) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = linear_ticks(low, high, count)
    room = 1e-6 * (abs(low) + abs(high) + span)
    assert all(low - room <= tick <= high + room for tick in ticks)
    assert list(ticks) == sorted(ticks)
    assert len(ticks) <= 2 * count + 2


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e8))
def test_log_ticks_lie_inside(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio, 6)
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in ticks)


def test_tick_labels_are_short_and_alike() -> None:
    assert tick_labels((0.0, 25_000.0, 50_000.0)) == ("0", "25k", "50k")
    assert tick_labels((0.0, 0.25, 0.5)) == ("0.00", "0.25", "0.50")
    assert tick_labels((1000.0, 2000.0)) == ("1,000", "2,000")
    assert tick_labels((0.0, 2e6)) == ("0", "2M")


def test_an_axis_of_one_value_has_room_around_it() -> None:
    one = axis([5.0], 0, 100)
    assert one.low < 5.0 < one.high
    assert axis([0.0], 0, 100, zero=True).low == 0.0
    log = axis([10.0], 0, 100, log=True)
    assert log.low < 10 < log.high
