"""The section of a store's page on alignment: numbers, histograms, fields, overlays."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsisr.files import save_picture
from wsisr.registration.ceiling import luma_power, psnr_ceiling
from wsisr.reporting.charts import Chart, Series, chart, histogram
from wsisr.reporting.drawing import Drawing
from wsisr.reporting.page import Html, figure, grid, heading, join, note, paragraph, table
from wsisr.reporting.store_drawings import residual_map
from wsisr.reporting.store_facts import StoreFacts, level_shift_px
from wsisr.reporting.store_pairs import PairView, choose_extremes, choose_refused, read_pair
from wsisr.reporting.store_pictures import pair_flicker, scene_of

FloatArray = NDArray[np.float64]
REFUSED_PAIRS = 3
CHART_PX = 580
MAPS = 24
"""Residual fields that a page shows: the slides with the largest residuals."""
CEILING_SAMPLES = 16
SHIFT_EDGES_PX = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
CALIBRATION = "LR level against HR, before and after"
BEFORE_AFTER = (
    "Before: measured in the middle of each slide, as the file places the level. After: the median "
    "pair of the slide, as stored."
)
UNITS = {
    "ncc_band": "correlation of LR and HR in the shared band",
    "spread": "disagreement of independent estimates, HR px",
    "sharpness": "sharpness of LR against the reduced HR",
    "ncc": "correlation of LR and HR",
}


def alignment(facts: StoreFacts) -> Html:
    """How well LR and HR lie on one another: numbers, histograms, fields, overlays."""
    parts: list[Html] = []
    residuals = {k: v[facts.kept] for k, v in facts.residuals.items()}
    residuals = {k: v[np.isfinite(v).all(axis=1)] for k, v in residuals.items()}
    if not any(len(values) for values in residuals.values()):
        parts.append(
            note("No residual was measured: LR is made from HR, or the file was believed.")
        )
    else:
        parts += [_alignment_table(facts, residuals), _ceiling(facts, residuals)]
    drawn = [
        figure(one, title, BEFORE_AFTER if title == CALIBRATION else "")
        for title, one in histograms(facts).items()
    ]
    if drawn:
        parts.append(grid(*drawn, width_px=460))
    parts += [_overlays(facts), _fields(facts)]
    return join(parts)


def _alignment_table(facts: StoreFacts, residuals: dict[str, FloatArray]) -> Html:
    rows = []
    for name, values in residuals.items():
        length = np.hypot(values[:, 0], values[:, 1])
        if len(length):
            median, high, top = np.percentile(length, [50, 95, 100])
            rows.append([f"residual of {name}, HR px", median, high, top, len(length)])
    for name, words in UNITS.items():
        column = facts.column(name)
        if column is None:
            continue
        column = column[facts.kept]
        column = column[np.isfinite(column)]
        if len(column):
            bad = 5 if name.startswith("ncc") else 95
            worst = column.min() if bad == 5 else column.max()
            rows.append([words, np.median(column), np.percentile(column, bad), worst, len(column)])
    return table(
        ["over kept pairs", "median", "worst 5 % from", "worst", "pairs"],
        rows,
        caption="Alignment, as certified for every pair",
    )


def _ceiling(facts: StoreFacts, residuals: dict[str, FloatArray]) -> Html:
    store, rows = facts.store, np.flatnonzero(facts.kept)
    chosen = rows[np.linspace(0, len(rows) - 1, min(CEILING_SAMPLES, len(rows))).astype(int)]
    index = np.stack([facts.slide_of[chosen], facts.table["row"][chosen]], axis=1)
    side = min(512, *(store.reader(name, store.arrays[0]).shape[1] for name in store.slides))
    power = luma_power(store.read(index, store.arrays[0], h=side, w=side))
    lines = [f"{k}: {psnr_ceiling(power, v)}." for k, v in residuals.items() if len(v)]
    return note(
        *(f"{line} " for line in lines),
        "No model can do better than that on average, since it cannot know the shift.",
        title="What misalignment alone allows.",
    )


def histograms(facts: StoreFacts) -> dict[str, Chart]:
    """Charts over kept pairs by title."""
    found: dict[str, Chart] = {}
    for name, values in facts.residuals.items():
        length = np.hypot(values[:, 0], values[:, 1])[facts.kept]
        _add_histogram(found, f"Residual of {name}", "length of the residual, HR px", length, 0.0)
    for name, words in UNITS.items():
        column = facts.column(name)
        if column is not None and name != "ncc":
            title = words.split(",")[0]
            values = column[facts.kept]
            _add_histogram(
                found,
                title[0].upper() + title[1:],
                words,
                values,
                None,
                low_is_bad=name == "ncc_band",
            )
    moved = calibration_chart(facts)
    if moved is not None:
        found[moved.title] = moved
    return found


def _add_histogram(
    found: dict[str, Chart],
    title: str,
    label: str,
    values: FloatArray,
    low: float | None,
    low_is_bad: bool = False,
) -> None:
    values = values[np.isfinite(values)]
    if not len(values):
        return
    first = float(values.min()) if low is None else low
    last = float(values.max())
    if last - first < 1e-3:  # all alike: one bar in the middle of a small axis
        first, last = first - (0.0 if low == first else 0.005), last + 0.005
    counts, edges = np.histogram(
        values, bins=min(40, max(8, len(values) // 4)), range=(first, last)
    )
    median, end = np.percentile(values, [50, 5 if low_is_bad else 95])
    side = "above" if low_is_bad else "below"
    marks = {f"median {median:.3g}": median, f"95 % {side} {end:.3g}": end}
    found[title] = histogram(
        counts,
        edges,
        title=title,
        x_label=label,
        y_label="pairs",
        marks=marks,
        width_px=CHART_PX,
        height_px=300,
    )


def calibration_chart(facts: StoreFacts) -> Chart | None:
    """Slides by the shift of their LR level: as the file places it, and as it was stored."""
    before, after = [], []
    for slide_id, attributes in facts.attributes.items():
        rows = facts.rows_per_slide[slide_id]
        view = facts.store.slides[slide_id]
        hr, lr = view.spec(view.arrays[0]), view.spec(view.arrays[-1])
        base = attributes["levels"][0] if attributes.get("levels") else {}
        middle = [base.get("width_px", 0) / 2, base.get("height_px", 0) / 2]
        shift = level_shift_px(attributes, lr.level, middle)
        if shift is None or not lr.native or not facts.residuals:
            continue
        left = list(facts.residuals.values())[-1][rows[facts.kept[rows]]]
        left = left[np.isfinite(left).all(axis=1)]
        if len(left):
            before.append(float(np.hypot(*shift)) / hr.factor)
            after.append(float(np.median(np.hypot(left[:, 0], left[:, 1]))))
    if not before:
        return None
    edges = np.array([*SHIFT_EDGES_PX, np.inf])
    names = [f"{a:g}–{b:g}" for a, b in pairwise(edges)]
    names[-1] = f"> {edges[-2]:g}"
    top = np.flatnonzero(np.histogram(before, edges)[0] + np.histogram(after, edges)[0]).max()
    shown = names[: top + 1]
    return chart(
        [
            Series(
                "as the file places it",
                shown,
                np.histogram(before, edges)[0][: top + 1],
                kind="bars",
            ),
            Series("as stored here", shown, np.histogram(after, edges)[0][: top + 1], kind="bars"),
        ],
        title=CALIBRATION,
        x_label="shift, HR px",
        y_label="slides",
        width_px=CHART_PX,
        height_px=300,
    )


def _overlays(facts: StoreFacts) -> Html:
    if len(facts.store.arrays) < 2:
        return Html("")
    chosen = {f"{k} certificate": v for k, v in choose_extremes(facts).items()}
    refused = choose_refused(facts, REFUSED_PAIRS)
    words = facts.table.names("reason") if "reason" in facts.table else []
    for number, position in enumerate(refused, 1):
        reason = words[position] if words else ""
        chosen[f"refused {number}" + (f": {reason}" if reason else "")] = position
    rows = []
    for title, position in chosen.items():
        pair = read_pair(facts, position, overlays=True)
        rows.append(heading(f"{title[0].upper()}{title[1:]}"))
        rows.append(grid(*_overlay_figures(facts, pair), width_px=230))
    if not rows:
        return Html("")
    return join(
        [
            heading("Pairs laid over one another"),
            paragraph(
                "Red is LR, cyan is HR: grey where they agree, coloured fringes where they do not. "
                "In the squares LR and HR take turns, and structures must run on."
            ),
            *rows,
        ]
    )


def _overlay_figures(facts: StoreFacts, pair: PairView) -> Iterator[Html]:
    where = f"pair {pair.slide_id}, row {pair.row}"
    yield pair_flicker(facts, pair)
    if pair.before is not None:
        shift = facts.shift_before_px(pair.position) or (0.0, 0.0)
        yield figure(
            pair.before,
            f"Red/cyan overlay of {where} before registration",
            f"Before: as the file places LR, off by ({shift[0]:+.2f}, {shift[1]:+.2f}) HR px",
        )
    if pair.after is not None:
        yield figure(pair.after, f"Red/cyan overlay of {where}", "As stored")
    if pair.board is not None:
        yield figure(pair.board, f"LR and HR of {where} in squares", "LR and HR in squares")


def residual_maps(facts: StoreFacts) -> dict[str, tuple[Drawing, float]]:
    """Residual fields by slide, with the 95th percentile of the length, HR px.

    Those with the largest residuals come first; at most `MAPS`.
    """
    if not facts.residuals:
        return {}
    values = list(facts.residuals.values())[-1]
    length = np.hypot(values[:, 0], values[:, 1])
    worst = {}
    for slide_id, rows in facts.rows_per_slide.items():
        own = length[rows[facts.kept[rows]]]
        own = own[np.isfinite(own)]
        if len(own) and own.max() > 0:
            worst[slide_id] = float(np.percentile(own, 95))
    order = sorted(worst, key=lambda name: (-worst[name], name))[:MAPS]
    drawings = {}
    for slide_id in order:
        found = scene_of(facts, slide_id)
        if found is not None:
            title = f"Residual shifts over slide {slide_id}"
            drawing = residual_map(found[0], values[found[1]], title=title)
            drawings[slide_id] = (drawing, worst[slide_id])
    return drawings


def _fields(facts: StoreFacts) -> Html:
    maps = residual_maps(facts)
    if not maps:
        return Html("")
    count = len(facts.store.slides)
    which = "" if len(maps) == count else f" {len(maps)} of {count} slides, the largest first."
    items = [
        figure(drawing, slide_id, f"{slide_id}: 95 % of the residuals below {high:.2g} px")
        for slide_id, (drawing, high) in maps.items()
    ]
    return join(
        [
            heading("Residual field over each slide"),
            paragraph(
                "What whole-pixel crops leave, enlarged; each slide has its own scale. Arrows that "
                "all point one way are rounding, a pattern over the slide is a drift." + which
            ),
            grid(*items, width_px=300),
        ]
    )


def save_figures(facts: StoreFacts, folder: Path) -> None:
    """The charts, fields and overlays of the page as PNG files."""
    for title, one in histograms(facts).items():
        one.save_png(folder / f"{_file_name(title)}.png")
    for slide_id, (drawing, _) in residual_maps(facts).items():
        drawing.save_png(folder / f"residual-field-{_file_name(slide_id)}.png")
    if len(facts.store.arrays) < 2:
        return
    for name, position in choose_extremes(facts).items():
        pair = read_pair(facts, position, overlays=True)
        kinds = {"before": pair.before, "red-cyan": pair.after, "squares": pair.board}
        for kind, picture in kinds.items():
            if picture is not None:
                save_picture(folder / f"pair-{name}-{kind}.png", picture)


def _file_name(text: str) -> str:
    words = "".join(c if c.isalnum() or c in "_." else " " for c in text.lower()).split()
    return "-".join(words)
