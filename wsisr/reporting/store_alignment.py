"""How well LR and HR of a store lie on one another: numbers, charts, overlays, fields."""

from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from markupsafe import Markup

from wsisr.arrays import Float64Array
from wsisr.drawing.charts import ChartSeries, chart, histogram_of
from wsisr.drawing.fields import ResidualShifts, residual_field
from wsisr.drawing.vector import Chart, save_charts
from wsisr.files import save_picture
from wsisr.registration.ceiling import luma_power, psnr_ceiling
from wsisr.reporting.page import template
from wsisr.reporting.store_facts import StoreFacts, level_shift_px
from wsisr.reporting.store_pairs import PairView, choose_extremes, choose_refused, read_pair

REFUSED_PAIRS = 3
CHART_PX = (460, 300)
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


class Alignment:
    """What the section says and what is saved beside the page, each worked out once."""

    def __init__(self, facts: StoreFacts) -> None:
        self.facts = facts

    def section(self) -> Markup:
        """The section of the page."""
        return template("store.html").alignment(
            rows=self._rows(),
            ceilings=self._ceilings(),
            charts=self.charts,
            chart_notes={CALIBRATION: BEFORE_AFTER},
            overlays=[
                (title, pair, self.facts.shift_before_px(pair.position) or (0.0, 0.0))
                for title, pair in self.overlays.items()
            ],
            fields=self.fields,
            slides=len(self.facts.store.slides),
        )

    def save(self, folder: Path, funnel: Chart | None) -> None:
        """Charts and fields as PNG, SVG and PDF, overlays as PNG."""
        drawn = {} if funnel is None else {"funnel": funnel}
        drawn |= {_file_name(title): one for title, one in self.charts.items()}
        fields = self.fields.items()
        drawn |= {f"residual-field-{_file_name(name)}": one for name, (one, _) in fields}
        save_charts(folder, drawn)
        for title, pair in self.overlays.items():
            name, _, certified = title.lower().partition(" ")
            kinds = {"before": pair.before, "red-cyan": pair.after, "squares": pair.board}
            for kind, picture in kinds.items():
                if certified == "certificate" and picture is not None:
                    save_picture(folder / f"pair-{name}-{kind}.png", picture)

    @cached_property
    def residuals(self) -> dict[str, Float64Array]:
        """Measured residuals of kept pairs by LR array, shape (n, 2), HR px; none is empty."""
        kept = {k: v[self.facts.kept] for k, v in self.facts.residuals.items()}
        found = {k: v[np.isfinite(v).all(axis=1)] for k, v in kept.items()}
        return {name: values for name, values in found.items() if len(values)}

    def _rows(self) -> list[list[object]]:
        if not self.residuals:
            return []
        columns = {
            f"residual of {name}, HR px": (np.hypot(*values.T), False)
            for name, values in self.residuals.items()
        }
        for name, words in UNITS.items():
            column = self.facts.column(name)
            if column is not None:
                values = column[self.facts.kept]
                columns[words] = values[np.isfinite(values)], name.startswith("ncc")
        return [
            [
                words,
                float(np.median(values)),
                float(np.percentile(values, 5 if low_is_bad else 95)),
                float(values.min() if low_is_bad else values.max()),
                len(values),
            ]
            for words, (values, low_is_bad) in columns.items()
            if len(values)
        ]

    def _ceilings(self) -> list[str]:
        """What the residuals alone allow, on some of the pairs."""
        if not self.residuals:
            return []
        store, rows = self.facts.store, np.flatnonzero(self.facts.kept)
        chosen = rows[np.linspace(0, len(rows) - 1, min(CEILING_SAMPLES, len(rows))).astype(int)]
        index = np.stack([self.facts.slide_of[chosen], self.facts.table["row"][chosen]], axis=1)
        side = min(512, *(store.reader(name, store.arrays[0]).shape[1] for name in store.slides))
        power = luma_power(store.read(index, store.arrays[0], h=side, w=side))
        return [f"{k}: {psnr_ceiling(power, v)}." for k, v in self.residuals.items()]

    @cached_property
    def charts(self) -> dict[str, Chart]:
        """Charts over kept pairs by title."""
        kept = self.facts.kept
        wanted = [
            (f"residual of {name}", "length of the residual, HR px", np.hypot(*values.T))
            for name, values in self.residuals.items()
        ]
        columns = {name: self.facts.column(name) for name in UNITS if name != "ncc"}
        wanted += [
            (UNITS[name].split(",")[0], UNITS[name], column[kept])
            for name, column in columns.items()
            if column is not None
        ]
        found = [
            histogram_of(
                values,
                title=title[0].upper() + title[1:],
                x_label=words,
                y_label="pairs",
                start=0.0 if words.startswith("length") else None,
                low_is_bad=words == UNITS["ncc_band"],
            )
            for title, words, values in wanted
        ]
        drawn = [one.sized(CHART_PX) for one in [*found, self._calibration()] if one is not None]
        return {one.title: one for one in drawn}

    def _calibration(self) -> Chart | None:
        """Slides by the shift of their LR level: as the file places it, and as it was stored."""
        facts, before, after = self.facts, [], []
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
                after.append(float(np.median(np.hypot(*left.T))))
        if not before:
            return None
        edges = np.array([*SHIFT_EDGES_PX, np.inf])
        names = [f"{a:g}–{b:g}" for a, b in pairwise(edges)]
        names[-1] = f"> {edges[-2]:g}"
        counts = [np.histogram(values, edges)[0] for values in (before, after)]
        top = int(np.flatnonzero(counts[0] + counts[1]).max()) + 1
        words = ("as the file places it", "as stored here")
        return chart(
            [
                ChartSeries(name, names[:top], count[:top], kind="bars")
                for name, count in zip(words, counts, strict=True)
            ],
            title=CALIBRATION,
            x_label="shift, HR px",
            y_label="slides",
        )

    @cached_property
    def overlays(self) -> dict[str, PairView]:
        """Best, median and worst kept pair, and some refused ones, by title."""
        facts = self.facts
        if len(facts.store.arrays) < 2:
            return {}
        chosen = {f"{k.capitalize()} certificate": v for k, v in choose_extremes(facts).items()}
        reasons = facts.table.names("reason") if "reason" in facts.table else []
        for number, position in enumerate(choose_refused(facts, REFUSED_PAIRS), 1):
            reason = reasons[position] if reasons else ""
            chosen[f"Refused {number}" + (f": {reason}" if reason else "")] = position
        return {title: read_pair(facts, at, overlays=True) for title, at in chosen.items()}

    @cached_property
    def fields(self) -> dict[str, tuple[Chart, float]]:
        """Residual fields by slide, with the 95th percentile of the length, HR px.

        Those with the largest residuals come first; at most `MAPS`.
        """
        facts = self.facts
        if not facts.residuals:
            return {}
        values = list(facts.residuals.values())[-1]
        length, worst = np.hypot(*values.T), dict[str, float]()
        for slide_id, rows in facts.rows_per_slide.items():
            own = length[rows[facts.kept[rows]]]
            own = own[np.isfinite(own)]
            if len(own) and own.max() > 0:
                worst[slide_id] = float(np.percentile(own, 95))
        drawn = {}
        for slide_id in sorted(worst, key=lambda name: (-worst[name], name))[:MAPS]:
            scene = facts.scene(slide_id)
            if scene is not None:
                shifts = ResidualShifts(
                    places=scene.origins + scene.field_px / 2,
                    residuals=values[scene.rows],
                    extent=scene.extent_px,
                    used=facts.kept[scene.rows],
                    outlines=scene.outlines(),
                )
                field = residual_field(shifts, title=f"Residual shifts over slide {slide_id}")
                drawn[slide_id] = field, worst[slide_id]
        return drawn


def _file_name(text: str) -> str:
    words = "".join(c if c.isalnum() or c in "_." else " " for c in text.lower()).split()
    return "-".join(words)
