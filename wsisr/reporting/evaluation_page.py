"""The page of an evaluation: tables, limits, curves, examples, costs, and how all was measured."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from wsisr.evaluation.cost import COST, CostRow, read_costs
from wsisr.evaluation.distances import distance_tables
from wsisr.evaluation.figures import headline_table, scale_chart, speed_chart
from wsisr.evaluation.papers import TextTable, paper_tables
from wsisr.evaluation.pipeline import load_results
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import Results, Table, sample_words
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
)
from wsisr.plugins import words as plugin_words
from wsisr.reporting.html import image_element
from wsisr.reporting.page import (
    Html,
    Page,
    badge,
    bullets,
    cards,
    details,
    element,
    facts,
    figure,
    grid,
    heading,
    join,
    note,
    paragraph,
    table,
)
from wsisr.reporting.pictures import encode

EMBEDDED_SHEETS = 24
"""Further example sheets stay files beside the page."""
OPEN_SHEETS = 2


def write_evaluation_report(folder: Path | str, output: Path | str) -> Path:
    """Write one self-contained HTML file of an evaluation; returns its path.

    Parameters
    ----------
    folder : Path
        Written by `wsisr.evaluation.evaluate`.
    output : Path
        The HTML file.

    Raises
    ------
    ConfigError
        `folder` is no evaluation, or the page cannot be written.
    """
    folder = Path(folder)
    results = load_results(folder)
    costs = read_costs(folder / COST)
    document = results.document
    stamps = document["stamps"]
    page = Page(
        "Evaluation of super-resolution models",
        _subtitle(document),
        kind="Evaluation",
        badges=join(
            badge(text.partition(":")[0], "bad" if text.startswith("LEAKY") else "warn")
            for text in stamps
        ),
        footer=f"Made by wsisr {document['created_with']['wsisr']}. Not for diagnostic use.",
    )
    page.section("results", "Results", *_results(results))
    for number, origin in enumerate(results.origins if len(document["scores"]) > 1 else (), 1):
        page.section(f"lr-{number}", f"More: LR {origin}", *_origin(results, origin))
    page.section("curves", "Curves", *_curves(results, costs))
    if results.pairs:
        page.section("differences", "Differences", *_differences(results))
    distances = distance_tables(document)
    if distances:
        page.section("distances", "FID and KID", *(part for t in distances for part in _plain(t)))
    papers = paper_tables(results)
    if papers:
        page.section("papers", "As papers count", *(part for t in papers for part in _plain(t)))
    if document.get("figures"):
        page.section("examples", "Examples", *_examples(results, folder))
    if costs:
        page.section("cost", "Cost", *_cost(costs, document))
    scales, reference = reference_lines(results)
    if reference:
        page.section("published", "Published, other data", *_published(results, scales, reference))
    page.section("method", "How it was measured", *_method(results))
    return page.write(output)


def _subtitle(document: Mapping[str, Any]) -> str:
    samples, store = document["samples"], document["store"]
    return (
        f"{samples['images']} patches of {samples['slides']} slides of {samples['patients']} "
        f"patients: the {document['settings']['split']} split of {store['path']} "
        f"(manifest {store['manifest']})."
    )


def _results(results: Results) -> list[Html]:
    document = results.document
    parts = [note(text, tone="bad" if "LEAKY" in text else "warn") for text in document["stamps"]]
    for origin in results.origins:
        shown = headline_table(results, origin)
        parts.append(_table(results, shown))
        parts.append(paragraph(f"{convention(document, shown)}; {sample_words(shown)}."))
    parts += [note(text, tone="bad") for text in failed_notes(results)]
    parts.append(heading("Reading the tables"))
    parts.append(bullets(legend(results)))
    limits = limit_notes(document)
    if limits:
        parts += [heading("Ceilings"), bullets(limits)]
    return parts


def _origin(results: Results, origin: str) -> list[Html]:
    """The scores of one origin, the headline left out."""
    parts = []
    for shown in results.tables:
        if shown.origin == origin and shown.score["name"] != results.headline["name"]:
            parts.append(_table(results, shown))
            parts.append(
                paragraph(f"{convention(results.document, shown)}; {sample_words(shown)}.")
            )
    return parts


def _table(results: Results, shown: Table) -> Html:
    rows: list[list[object]] = []
    for group, cells in shown.lines:
        row: list[object] = [group.label]
        for scale in shown.scales:
            cell = cells.get(scale)
            if cell is None:
                row.append("-")
                continue
            value, behind = cell_parts(cell, shown.score["digits"])
            tag = {1: "strong", 2: "u"}.get(cell.rank)
            row.append(join([element(tag, value) if tag else value, behind]))
        rows.append(row)
    rows += [[label, *texts] for label, texts in failed_lines(results, shown)]
    rows += [[element("em", label), *texts] for label, texts in limit_lines(shown)]
    return table(
        ["model", *map(scale_label, shown.scales)],
        rows,
        numeric=range(1, len(shown.scales) + 1),
        caption=f"{shown.score['title']}, LR {shown.origin}",
    )


def _plain(shown: TextTable) -> list[Html]:
    return [table(shown.header, shown.rows, caption=shown.title), bullets(shown.notes)]


def _curves(results: Results, costs: Sequence[CostRow]) -> list[Html]:
    parts = []
    for origin in results.origins:
        shown = headline_table(results, origin)
        for made in (scale_chart(results, shown), speed_chart(results, costs, shown)):
            if made is not None:
                parts.append(figure(made, alt=f"{shown.score['title']}, LR {origin}"))
    if not parts:
        return [paragraph("One scale and one model make no curve.")]
    return [
        grid(*parts, width_px=480),
        paragraph("Bands and whiskers: 95 % interval by bootstrap over patients."),
    ]


def _differences(results: Results) -> list[Html]:
    digits = results.headline["digits"]
    header = ["LR", "scale", "model", "against", "difference", "95 % interval", "p (Holm)", "it is"]
    rows = [pair_cells(pair, digits) for pair in results.pairs]
    return [
        paragraph(
            f"{results.headline['title']}: each model against bicubic, and the best of each column "
            "against the others. Means of patients are compared (of slides where a patient is not "
            "known), never patches; Wilcoxon's signed-rank test needs six of them. A difference "
            "that is not clear of their interval, of the seeds' standard deviation, or of 0.05 "
            "after Holm's correction over all pairs of models is not distinguishable."
        ),
        table(header, rows, numeric=(4,), sortable=True),
    ]


def _examples(results: Results, folder: Path) -> list[Html]:
    sheets = [item for item in results.document["figures"] if (folder / item["file"]).is_file()]
    shown = _interleaved(sheets)[:EMBEDDED_SHEETS]
    parts = [
        paragraph(
            "The best, the median and the worst patch of every model by "
            f"{results.headline['title']}. The view is where HR has the strongest edges; numbers "
            "are those of the whole patch; errors are absolute, averaged over the channels, and on "
            "one colour scale across a sheet."
        )
    ]
    for number, item in enumerate(shown):
        words = (
            f"LR {item['origin']} {scale_label(item['scale'])}, {item['slide']}, "
            f"row {item['row']}: {', '.join(item['reasons'])}"
        )
        with Image.open(folder / item["file"]) as opened:
            buffer = BytesIO()
            opened.convert("RGB").save(buffer, "WEBP", quality=90, method=4)
        alt = f"LR, {', '.join(item['models'])} and HR side by side with error maps. {words}"
        box = element(
            "div",
            image_element(encode(buffer.getvalue()), alt),
            class_="scroll",
            style="max-height:none;background:#fff",
            tabindex="0",
            role="region",
            aria_label=words,
        )
        parts.append(details(words, box, open_=number < OPEN_SHEETS))
    parts.append(
        paragraph(
            f"{len(shown)} of {len(sheets)} sheets are shown, compressed; without loss they are in "
            "the folder figures."
        )
    )
    return parts


def _interleaved(sheets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """First sheets of every column before second ones, so that none is left out altogether."""
    columns: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for item in sheets:
        columns.setdefault((item["origin"], item["scale"]), []).append(item)
    order = []
    for place in range(max(map(len, columns.values()), default=0)):
        order += [items[place] for items in columns.values() if place < len(items)]
    return order


def _cost(costs: Sequence[CostRow], document: Mapping[str, Any]) -> list[Html]:
    header = [
        "model",
        "scale",
        "LR px",
        "output px",
        "query px",
        "parameters",
        "/ 2^20",
        "GMAC",
        "peak MiB",
        "time ms",
        "ms per 10^6 px",
    ]
    rows: list[list[object]] = []
    for row in costs:
        query = f"{row.query_px} x {row.query_px}" if row.query_px else "all"
        rows.append(
            [
                row.run,
                scale_label(row.scale),
                row.lr_px,
                row.out_px,
                query,
                row.parameters,
                f"{row.parameters_2_20:.2f}",
                f"{row.gmac:.3g}",
                f"{row.peak_mib:.1f}",
                f"{row.time_ms:.1f}",
                f"{row.ms_per_mpx:.0f}",
            ]
        )
    return [
        paragraph(
            f"One square LR image, float32, eval mode, on {document['environment']['device']}. "
            "Query px: output pixels that an arbitrary-scale model decodes at once. Peak: weights "
            "and the most tensors alive at one time, work space inside kernels not counted (on a "
            "GPU: what its allocator counted). Published tables print parameters / 2^20 as M."
        ),
        table(header, rows, numeric=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), sortable=True),
    ]


def _published(
    results: Results, scales: Sequence[float], lines: Sequence[tuple[str, Sequence[str]]]
) -> list[Html]:
    shown = table(
        ["method: paper, data", *map(scale_label, scales)],
        [[label, *cells] for label, cells in lines],
        numeric=range(1, len(scales) + 1),
        caption="PSNR in dB / SSIM: published, other data",
    )
    return [bullets(reference_notes(results)), details(f"{len(lines)} lines", shown)]


def _method(results: Results) -> list[Html]:
    document = results.document
    settings, created = document["settings"], document["created_with"]
    parts = [
        cards(
            {
                "patches": document["samples"]["images"],
                "slides": document["samples"]["slides"],
                "models": len(results.groups),
                "rows": len(results.rows),
            }
        ),
        facts(
            {
                "store digest": document["store"]["digest"],
                "LR source": document["lr_source"],
                "limit": settings["limit"],
                "precision": settings["precision"],
                "self-ensemble": settings["self_ensemble"],
                "tiles, where LR is large": _tiling(document),
                "seed of degradations": settings["seed"],
                "device": document["environment"]["device"],
                "versions": ", ".join(f"{name} {version}" for name, version in created.items()),
            }
        ),
        heading("Conventions"),
        facts(dict(document["protocols"])),
        heading("Models"),
        _models(document["entries"]),
    ]
    if document["notes"]:
        parts += [heading("Notes"), bullets(document["notes"])]
    return parts


def _tiling(document: Mapping[str, Any]) -> str:
    names = [entry["name"] for entry in document["entries"]]
    return "; ".join(f"{n}: {w}" for n, w in document["tiling"].items() if n in names)


def _models(entries: Sequence[Mapping[str, Any]]) -> Html:
    header = ["name", "model", "preset", "scale", "trained on LR", "seed", "steps", "weights"]
    rows = []
    for entry in entries:
        low, high = entry["scale_range"]
        scale = f"x{entry['scale']}" if entry["scale"] else f"any; trained x{low:g} to x{high:g}"
        steps = None if entry["step"] is None else f"{entry['step']:,}"
        if entry["steps"] and entry["step"] != entry["steps"]:
            steps = f"{steps} of {entry['steps']:,}"
        if not entry["weights"]:
            scale = "any"
        rows.append(
            [
                entry["name"],
                "; ".join([entry["model"], *map(plugin_words, entry.get("plugins") or ())]),
                entry["preset"],
                scale,
                entry["trained_origin"],
                entry["seed"],
                steps,
                entry["weights_sha256"][:12] or None,
            ]
        )
    return table(header, rows, numeric=(5, 6))
