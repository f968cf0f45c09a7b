"""The page of an evaluation: tables, limits, curves, examples, costs, and how all was measured."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from wsisr.drawing.encoding import EncodedPicture, encode
from wsisr.evaluation.cost import COST, CostRow, read_costs
from wsisr.evaluation.curves import headline_table, score_charts
from wsisr.evaluation.distances import distance_tables
from wsisr.evaluation.downstream import agreement_charts, downstream_tables
from wsisr.evaluation.papers import paper_tables
from wsisr.evaluation.pipeline import load_results
from wsisr.evaluation.results import PAGE
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import Results, ScoreTable, sample_words
from wsisr.evaluation.tables import (
    cell_parts,
    convention,
    failed_lines,
    failed_notes,
    legend,
    limit_lines,
    limit_notes,
    pair_cells,
    reference_lines,
    reference_notes,
    sample_counts,
)
from wsisr.plugins import words as plugin_words
from wsisr.reporting.page import Page, template

EMBEDDED_SHEETS = 24
"""Further example sheets stay files beside the page."""


def write_evaluation_report(folder: Path | str, output: Path | str | None = None) -> Path:
    """Write one self-contained HTML file of an evaluation, by default ``index.html`` in its folder;
    returns its path.

    Raises
    ------
    ConfigError
        `folder` is no evaluation, or the page cannot be written.
    """
    folder = Path(folder)
    results = load_results(folder)
    costs = read_costs(folder / COST)
    document = results.document
    samples, store = document["samples"], document["store"]
    page = Page(
        "Evaluation of super-resolution models",
        f"{sample_counts(samples)}: the {document['settings']['split']} split of {store['path']} "
        f"(manifest {store['manifest']}).",
        kind="Evaluation",
        badges=[
            (text.partition(":")[0], "bad" if text.startswith("LEAKY") else "warn")
            for text in document["stamps"]
        ],
        footer=f"Made by wsisr {document['created_with']['wsisr']}. Not for diagnostic use.",
    )
    say = template("evaluation.html")
    page.section(
        "results",
        "Results",
        say.results(
            stamps=document["stamps"],
            shown=[_table(results, headline_table(results, one)) for one in results.origins],
            failed=failed_notes(results),
            legend=legend(results),
            limits=limit_notes(document),
        ),
    )
    for number, origin in enumerate(results.origins if len(document["scores"]) > 1 else (), 1):
        more = [
            _table(results, shown)
            for shown in results.tables
            if shown.origin == origin and shown.score["name"] != results.headline["name"]
        ]
        page.section(f"lr-{number}", f"More: LR {origin}", say.tables(more))
    page.section("curves", "Curves", say.curves(list(score_charts(results, costs).values())))
    if results.pairs:
        digits = results.headline["digits"]
        rows = [pair_cells(pair, digits) for pair in results.pairs]
        page.section("differences", "Differences", say.differences(results.headline, rows))
    tasks = downstream_tables(results)
    if tasks:
        found = [
            {"picture": _compressed(folder / item["file"]), "words": item["words"]}
            for item in document.get("findings") or ()
            if (folder / item["file"]).is_file()
        ]
        charts = list(agreement_charts(results).values())
        page.section("downstream", "Does it help?", say.downstream(tasks, charts, found))
    distances, papers = distance_tables(document), paper_tables(results)
    if distances:
        page.section("distances", "FID and KID", say.noted(distances))
    if papers:
        page.section("papers", "As papers count", say.noted(papers))
    if document.get("figures"):
        page.section("examples", "Examples", _examples(results, folder))
    if costs:
        device = document["environment"]["device"]
        page.section("cost", "Cost", say.cost(device, [_cost(row) for row in costs]))
    scales, lines = reference_lines(results)
    if lines:
        content = say.published(
            notes=reference_notes(results),
            scales=list(map(scale_label, scales)),
            rows=lines,
        )
        page.section("published", "Published, other data", content)
    page.section("method", "How it was measured", _method(results))
    return page.write(folder / PAGE if output is None else output)


def _table(results: Results, shown: ScoreTable) -> dict[str, Any]:
    mark = template("evaluation.html").cell
    rows: list[Sequence[object]] = []
    for group, cells in shown.lines:
        row: list[object] = [group.label]
        for scale in shown.scales:
            cell = cells.get(scale)
            parts = None if cell is None else cell_parts(cell, shown.score["digits"])
            row.append("-" if cell is None or parts is None else mark(*parts, cell.rank))
        rows.append(row)
    rows += failed_lines(results, shown)
    rows += [[Markup("<em>{}</em>").format(label), *texts] for label, *texts in limit_lines(shown)]
    return {
        "header": ["model", *map(scale_label, shown.scales)],
        "rows": rows,
        "caption": f"{shown.score['title']}, LR {shown.origin}",
        "words": f"{convention(results.document, shown)}; {sample_words(shown)}.",
    }


def _examples(results: Results, folder: Path) -> Markup:
    sheets = [item for item in results.document["figures"] if (folder / item["file"]).is_file()]
    return template("evaluation.html").examples(
        headline=results.headline,
        items=[
            {
                "picture": _compressed(folder / item["file"]),
                "models": ", ".join(item["models"]),
                "words": f"LR {item['origin']} {scale_label(item['scale'])}, {item['slide']}, "
                f"row {item['row']}: {', '.join(item['reasons'])}",
            }
            for item in _interleaved(sheets)[:EMBEDDED_SHEETS]
        ],
        total=len(sheets),
    )


def _compressed(path: Path) -> EncodedPicture:
    buffer = BytesIO()
    with Image.open(path) as opened:
        opened.convert("RGB").save(buffer, "WEBP", quality=90, method=4)
    return encode(buffer.getvalue())


def _interleaved(sheets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """First sheets of every column before second ones, so that none is left out altogether."""
    columns: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for item in sheets:
        columns.setdefault((item["origin"], item["scale"]), []).append(item)
    order = []
    for place in range(max(map(len, columns.values()), default=0)):
        order += [items[place] for items in columns.values() if place < len(items)]
    return order


def _cost(row: CostRow) -> list[object]:
    return [
        row.run,
        scale_label(row.scale),
        row.lr_px,
        row.out_px,
        f"{row.query_px} x {row.query_px}" if row.query_px else "all",
        row.parameters,
        f"{row.parameters_2_20:.2f}",
        f"{row.gmac:.3g}",
        f"{row.peak_mib:.1f}",
        f"{row.time_ms:.1f}",
        f"{row.ms_per_mpx:.0f}",
    ]


def _method(results: Results) -> Markup:
    document = results.document
    settings, names = document["settings"], {entry["name"] for entry in document["entries"]}
    tiling = [f"{name}: {words}" for name, words in document["tiling"].items() if name in names]
    values = {
        "content digest": document["store"]["digest"],
        "LR source": document["lr_source"],
        "limit": settings["limit"],
        "precision": settings["precision"],
        "self-ensemble": settings["self_ensemble"],
        "tiles, where LR is large": "; ".join(tiling),
        "seed of degradations": settings["seed"],
        "device": document["environment"]["device"],
        "versions": ", ".join(f"{k} {version}" for k, version in document["created_with"].items()),
    }
    return template("evaluation.html").method(
        numbers={
            "patches": document["samples"]["images"],
            "slides": document["samples"]["slides"],
            "models": len(results.groups),
            "rows": len(results.rows),
        },
        values={name: value for name, value in values.items() if value not in (None, "")},
        conventions=dict(document["protocols"]),
        entries=[_entry(entry) for entry in document["entries"]],
        notes=document["notes"],
    )


def _entry(entry: Mapping[str, Any]) -> list[object]:
    low, high = entry["scale_range"]
    scale = f"x{entry['scale']}" if entry["scale"] else f"any; trained x{low:g} to x{high:g}"
    steps = None if entry["step"] is None else f"{entry['step']:,}"
    if entry["steps"] and entry["step"] != entry["steps"]:
        steps = f"{steps} of {entry['steps']:,}"
    return [
        entry["name"],
        "; ".join([entry["model"], *map(plugin_words, entry.get("plugins") or ())]),
        entry["preset"],
        scale if entry["weights"] else "any",
        entry["trained_origin"],
        entry["seed"],
        steps,
        entry["weights_sha256"][:12] or None,
    ]
