"""The page of an audit: what contradicts the input, where, and what that looks like."""

from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import Float32Array
from wsisr.drawing.charts import Chart, ChartSeries, chart
from wsisr.drawing.sheets import enlarged, heat
from wsisr.errors import ConfigError
from wsisr.evaluation.results import PAGE
from wsisr.files import read_document
from wsisr.reporting.page import Page, template
from wsisr.tables import read_table
from wsisr.upscaling.audit.findings import map_top, read_maps

MAP_PX = 900
"""Longest side of a map on the page, about."""
BLOCKS = 200
"""Rows of the table; the rest stands in places.csv."""
GREY = "grey levels"
_MAPS = {
    "misfit": ("Misfit", GREY),
    "trusted": ("Not trusted", "1 where it is not trusted"),
    "doubt": ("Doubt", GREY),
    "beyond": ("Detail beyond the input", GREY),
    "hallucination": ("Hallucination", "share of what differs"),
    "omission": ("Omission", "share of what differs"),
    "improvement": ("Improvement", "share of what differs"),
}
_NUMBERS = ("misfit_max", "inconsistent", "beyond", "invented", "seams", "trusted", "improvement",
            "omission", "hallucination", "vanished", "appeared")  # fmt: skip


def write_audit_report(folder: Path, output: Path | None = None) -> Path:
    """Write one self-contained HTML file of an audit; returns its path.

    Raises
    ------
    ConfigError
        `folder` is none of an audit.
    """
    found = read_document(folder / "audit.json", "an audit", "wsisr-audit")
    try:
        return _page(folder, found).write(folder / PAGE if output is None else output)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder}: audit.json cannot be read ({error}); audit again.") from None


def _page(folder: Path, found: dict[str, Any]) -> Page:
    bad, places = int(found["inconsistent"]), int(found["places"])
    badges = [("WRONG AS A WHOLE", "bad")] if found["wrong_as_a_whole"] else []
    if found["pattern"]["wrong"]:
        badges.append(("PATTERN", "bad"))
    if found["seams"]:
        badges.append((f"{len(found['seams']):,} seams", "bad"))
    words = "place contradicts" if bad == 1 else "places contradict"
    badges.append((f"{bad:,} {words} the input", "warn" if bad else "good"))
    page = Page(
        f"Where to trust {found['output']}",
        f"Made from {found['input']}"
        + (f", beside {found['finer']}" if found["finer"] else ", its input alone"),
        kind="Audit",
        badges=badges,
        footer="Written by wsisr audit. suspect.geojson can be dragged onto the output in QuPath.",
    )
    macros = template("audit.html")
    numbers = {
        "Places of tissue": places,
        "Contradict the input": f"{bad / places:.2%}" if places else "–",
        "Grey levels of misfit from which they do": f"{float(found['threshold']):.2f}",
        "Looked at through": found["degradation"]["name"],
    }
    if found["trust"]:
        numbers["alpha of the trust mask"] = f"{float(found['trust']['alpha']):g}"
    page.section("overview", "Overview", macros.overview(numbers, found["sentences"], places))
    maps = read_maps(folder)
    limit = float(found["threshold"])
    shown = [_map(name, maps[name], limit) for name in _MAPS if name in maps]
    page.section("maps", "Maps", macros.maps(shown, found["place_px"]))
    drawn = _spectrum(found["spectrum"])
    page.section(
        "spectrum", "Spectrum", macros.spectrum(drawn, 0.5 / float(found["spectrum"]["scale"]))
    )
    page.section("worst", "Worst places", macros.worst(_worst(folder, found["worst"])))
    _, rows = read_table(folder / "places.csv")
    rows.sort(key=lambda row: -float(row["misfit_max"]))
    names = [name for name in _NUMBERS if any(row[name] for row in rows)]
    cells = [
        [f"{row['x']}, {row['y']}", *(float(row[n]) if row[n] else None for n in names)]
        for row in rows[:BLOCKS]
    ]
    header = ["Block at (x, y)", *(name.replace("_", " ") for name in names)]
    page.section("blocks", "Blocks", macros.blocks(header, cells, len(rows)))
    return page


def _map(name: str, values: Float32Array, threshold: float) -> dict[str, Any]:
    """A map as a picture with its scale."""
    title, unit = _MAPS[name]
    known = np.nan_to_num(values.astype(np.float64))
    if name == "trusted":  # what is not trusted stands out; glass, which is not judged, does not
        known = (values == 0).astype(np.float64)
    top = map_top(name, known, threshold) if unit == GREY else 1.0
    # Where a map is larger than the page, the worst of each field is shown.
    field = -(-max(known.shape) // MAP_PX)
    if field > 1:
        rows = np.maximum.reduceat(known, np.arange(0, known.shape[0], field), axis=0)
        known = np.maximum.reduceat(rows, np.arange(0, known.shape[1], field), axis=1)
    times = max(1, MAP_PX // max(known.shape) // 2)
    picture = enlarged(heat(known, top), known.shape[0] * times, known.shape[1] * times)
    return {"title": title, "unit": unit, "picture": picture, "top": top}


def _spectrum(found: dict[str, Any]) -> Chart:
    """Powers of output and enlarged input by frequency."""
    cycles = np.array(found["cycles_per_px"])
    series = [
        # Below 1e-3 squared grey levels it is rounding.
        ChartSeries(name, cycles, np.log10(np.maximum(np.array(found[key]), 1e-3)))
        for name, key in (("output", "output"), ("enlarged input", "enlarged_input"))
    ]
    return chart(
        series,
        title="Power of tissue by spatial frequency",
        x_label="cycles per output px",
        y_label="log10 of power",
        size_px=(720, 340),
    )


def _worst(folder: Path, places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = []
    for number, place in enumerate(places, 1):
        pictures = {
            title: path
            for title, name in (("output", "output"), ("input", "input"), ("finer", "finer"))
            if (path := folder / "worst" / f"{number:02d}-{name}.png").is_file()
        }
        field = place["field_px"]
        shown.append(
            {
                "pictures": pictures,
                "words": f"Misfit {place['misfit']:.1f}; output px {field['x']}, {field['y']}, "
                f"{field['width']} x {field['height']}.",
            }
        )
    return shown
