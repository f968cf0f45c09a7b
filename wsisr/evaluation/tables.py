"""Tables as Markdown and LaTeX. Every number comes from `wsisr.evaluation.summary`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsisr.evaluation.distances import distance_tables
from wsisr.evaluation.downstream import downstream_tables
from wsisr.evaluation.papers import TextTable, paper_tables
from wsisr.evaluation.published import HEADING, published_lines, published_notes
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import MARKS, Cell, Results, ScoreTable, sample_words
from wsisr.evaluation.verdicts import TOO_FEW, GroupComparison
from wsisr.files import replace_file
from wsisr.metrics.pixel import PSNR_CAP_DB
from wsisr.tables import markdown_table
from wsisr.words import counted

MARKDOWN = "tables.md"
LATEX = "tables.tex"
_TEX_MARKS = {"†": r"\dagger", "‡": r"\ddagger", "≈": r"\approx"}
_TEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def write_tables(results: Results, folder: Path) -> None:
    """Write tables.md and tables.tex."""
    replace_file(folder / MARKDOWN, markdown(results).encode())
    replace_file(folder / LATEX, latex(results).encode())


def markdown(results: Results) -> str:
    """All tables, their legend, the tests and the notes."""
    document = results.document
    lines = ["# Evaluation", ""]
    lines += [f"> **{stamp}**" for stamp in document["stamps"]]
    lines += [""] if document["stamps"] else []
    lines += [_provenance(document), ""]
    for table in results.tables:
        lines += [f"## LR: {table.origin}. {table.score['title']}", ""]
        lines += [f"{sample_words(table)}; {convention(document, table)}.", ""]
        header = ["model", *map(scale_label, table.scales)]
        body = [*_markdown_lines(table), *failed_lines(results, table), *limit_lines(table)]
        lines += [*markdown_table(header, body, numbers=True), ""]
    lines += ["## Legend", "", *(f"- {text}" for text in legend(results)), ""]
    if results.pairs:
        title = results.headline["title"]
        lines += [f"## Differences, {title}", ""]
        header = ["LR", "scale", "model", "against", "difference", "95 % interval", "p (Holm)", ""]
        body = [pair_cells(pair, results.headline["digits"]) for pair in results.pairs]
        lines += [*markdown_table(header, body), ""]
    for text_table in _text_tables(results):
        lines += [f"## {text_table.title}", "", *(f"- {note}" for note in text_table.notes), ""]
        lines += [*markdown_table(text_table.header, text_table.rows), ""]
    notes = [*failed_notes(results), *document["notes"], *limit_notes(document)]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    scales, reference = reference_lines(results)
    if reference:
        lines += [f"## PSNR in dB / SSIM: {HEADING}", ""]
        lines += [f"- {text}" for text in reference_notes(results)]
        header = ["method: paper, data", *map(scale_label, scales)]
        lines += ["", *markdown_table(header, reference, numbers=True), ""]
    return "\n".join(lines)


def overview(results: Results) -> str:
    """What a terminal shows: the headline score and the differences, as plain text."""
    document, digits = results.document, results.headline["digits"]
    lines = [f"{stamp}\n" for stamp in document["stamps"]]
    for table in results.tables:
        if table.score["name"] != results.headline["name"]:
            continue
        lines.append(f"LR {table.origin}: {table.score['title']}; {sample_words(table)}")
        header = ["", *map(scale_label, table.scales)]
        body = [
            [
                group.label,
                *(
                    "".join(cell_parts(c, digits)) if (c := cells.get(s)) else "-"
                    for s in table.scales
                ),
            ]
            for group, cells in table.lines
        ]
        body += [*failed_lines(results, table), *limit_lines(table)]
        lines += [*_aligned([header, *body]), ""]
    if results.pairs:
        shown = [pair_cells(pair, digits) for pair in results.pairs]
        lines += ["Differences:", *_aligned(shown), ""]
    for text_table in (*downstream_tables(results), *distance_tables(document)):
        lines += [f"{text_table.title}: {text_table.notes[0]}"]
        lines += [*_aligned([text_table.header, *text_table.rows]), ""]
    used = "".join(cell.marks for cell in _cells(results))
    lines += [f"{mark} {text}" for mark, text in MARKS.items() if mark in used]
    return "\n".join([*lines, *failed_notes(results), *limit_notes(document)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def latex(results: Results) -> str:
    """One booktabs tabular for each table; needs the package booktabs."""
    document = results.document
    parts = ["% \\usepackage{booktabs}", "% " + _provenance(document)]
    parts += [f"% {stamp}" for stamp in document["stamps"]]
    for table in results.tables:
        title = f"LR: {table.origin}. {table.score['title']}; {sample_words(table)}"
        stamped = " ".join(document["stamps"])
        digits = table.score["digits"]
        body = [
            [tex_text(group.label), *(_tex_cell(cells.get(s), digits) for s in table.scales)]
            for group, cells in table.lines
        ]
        body += tex_rows(failed_lines(results, table))
        limits = tex_rows(limit_lines(table))
        parts += tex_table(
            f"{tex_text(title)}. {tex_text(stamped)}",
            "l" + "r" * len(table.scales),
            ["Model", *map(_tex_scale, table.scales)],
            *([body, limits] if limits else [body]),
        )
    for text_table in _text_tables(results):
        caption = tex_text(". ".join([text_table.title, *text_table.notes]))
        header, *body = tex_rows([text_table.header, *text_table.rows])
        parts += tex_table(caption, "l" * len(header), header, body)
    parts += ["", *("% " + text for text in [*legend(results), *failed_notes(results)])]
    scales, reference = reference_lines(results)
    if reference:
        header = ["Method", *map(_tex_scale, scales)]
        caption = f"PSNR in dB / SSIM: {HEADING}."
        parts += tex_table(caption, "l" + "r" * len(scales), header, tex_rows(reference))
    return "\n".join([*parts, ""])


def convention(document: Mapping[str, Any], table: ScoreTable) -> str:
    """Full name of a table's score; where it changes with the scale, that of both ends."""
    named = {
        column["scale"]: column["scores"][table.score["name"]]
        for column in document["columns"]
        if column["origin"] == table.origin
    }
    low, high = min(named), max(named)
    if len(set(named.values())) == 1:
        return str(named[low])
    last = named[high].rpartition(": ")[2]
    return f"{named[low]} at {scale_label(low)} to {last} at {scale_label(high)}"


def number(value: float, digits: int) -> str:
    """A score; infinities and nothing in words."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "no limit" if value > 0 else "-inf"
    return f"{value:.{digits}f}"


def cell_parts(cell: Cell, digits: int) -> tuple[str, str]:
    """A cell's value, and what stands behind it: interval, seeds, marks."""
    summary = cell.summary
    few = max(1, digits - 1)
    behind = ""
    if not math.isnan(summary.low):
        behind += f" [{summary.low:.{few}f}, {summary.high:.{few}f}]"
    if cell.seed_sd is not None:
        behind += f" ±{cell.seed_sd:.{digits}f}"
    return number(summary.mean, digits), behind + (f" {cell.marks}" if cell.marks else "")


def _markdown_lines(table: ScoreTable) -> list[list[str]]:
    """Label and cells of each line, best bold and second underlined."""
    lines = []
    for group, cells in table.lines:
        line = [group.label]
        for scale in table.scales:
            cell = cells.get(scale)
            if cell is None:
                line.append("-")
                continue
            value, behind = cell_parts(cell, table.score["digits"])
            value = {1: f"**{value}**", 2: f"<u>{value}</u>"}.get(cell.rank, value)
            line.append(value + behind)
        lines.append(line)
    return lines


def failed_lines(results: Results, table: ScoreTable) -> list[list[str]]:
    """Runs without a mean; `failed_notes` says why."""
    return [[name, *["failed"] * len(table.scales)] for name in results.failed]


def failed_notes(results: Results) -> list[str]:
    """Why runs have no mean."""
    return [
        f"{name} failed and has no part in any mean, rank or verdict: {reason}."
        for name, reason in results.failed.items()
    ]


def limit_lines(table: ScoreTable) -> list[list[str]]:
    """Ceilings and yardsticks under a table; above 100 dB there is none to speak of."""
    digits = table.score["digits"]
    lines = []
    for label, values in table.ceilings:
        known = [values.get(scale) for scale in table.scales]
        texts = ["-" if v is None else number(math.inf if v > 100 else v, digits) for v in known]
        lines.append([label, *texts])
    return lines


def reference_lines(results: Results) -> tuple[list[float], list[list[str]]]:
    """Scales, and published ``PSNR / SSIM`` of the models at hand."""
    models = {group.model for group in results.groups}
    scales = sorted({column["scale"] for column in results.document["columns"]})
    lines = []
    for label, by_scale in published_lines(models, scales):
        values = [by_scale.get(scale) for scale in scales]
        lines.append([label, *(f"{v[0]:.2f} / {v[1]:.4f}" if v else "-" for v in values)])
    return scales, lines


def reference_notes(results: Results) -> list[str]:
    """What must be known to read the published numbers."""
    models = {group.model for group in results.groups}
    scales = [column["scale"] for column in results.document["columns"]]
    first = (
        "Printed in the papers, with their data, degradations and conventions: for orientation, "
        "never for ranking."
    )
    return [first, *published_notes(models, scales)]


def legend(results: Results) -> list[str]:
    """What bold, brackets and marks mean; only those that occur."""
    cells = _cells(results)
    seen = "".join(cell.marks for cell in cells)
    columns = [column for table in results.tables for column in table.columns.values()]
    lines = [
        "mean over patients (over slides where a patient is not known), the same patches for every "
        "model of a column; bold: best, underlined: second"
    ]
    if not all(math.isnan(cell.summary.low) for cell in cells):
        lines.append("in brackets: 95 % interval by bootstrap over patients")
    if any(column.at_cap for column in columns):
        lines.append(
            f"PSNR above {PSNR_CAP_DB:g} dB, infinite for identical images, counts as "
            f"{PSNR_CAP_DB:g} dB"
        )
    if any(cell.seed_sd is not None for cell in cells):
        lines.append("±: standard deviation over training seeds")
    lines += [f"{mark} {text}" for mark, text in MARKS.items() if mark in seen]
    lines.append("-: not this model's scale (a fixed-scale model is never resized to another one)")
    return lines


def limit_notes(document: Mapping[str, Any]) -> list[str]:
    """Ceilings and yardsticks in words."""
    found = document.get("ceilings")
    if not found:
        return []
    notes = [
        f"Alignment, {item['origin']} {scale_label(item['scale'])}: residual {item['rms_px']:.3f} "
        f"HR px rms, {item['p95_px']:.3f} at the 95th percentile over {item['pairs']} pairs; the "
        f"best possible prediction reaches PSNR-Y {_limit(item['best_db'])}, an output that is "
        f"perfect but for the shift {_limit(item['perfect_db'])}."
        for item in found["alignment"]
    ]
    words = found["jpeg"]["words"]
    if found["jpeg"]["scores"]:
        notes.append(
            "HR's own JPEG, a yardstick and no ceiling: HR re-encoded on a block grid shifted by "
            f"half a block ({words}). Its pixels are not known better than that: scores above it, "
            "bicubic's on easy patches among them, are agreement with coding noise."
        )
    elif words:
        notes.append(f"No yardstick by HR's own JPEG: {words}.")
    return notes


def pair_cells(pair: GroupComparison, digits: int) -> list[str]:
    """A comparison as table cells; with too few patients that is all there is to say."""
    result = pair.comparison
    cells = [pair.origin, scale_label(pair.scale), pair.first, pair.second]
    if pair.adjusted is None:
        return [*cells, "-", "-", f"- (n = {result.units})", TOO_FEW]
    interval = f"[{result.low:+.{digits}f}, {result.high:+.{digits}f}]"
    difference = f"{result.difference:+.{digits}f}"
    return [*cells, difference, interval, f"{pair.adjusted:.3g}", pair.verdict]


def _limit(value: float | str) -> str:
    number_db = float(value)
    return "no limit" if number_db > 100 else f"{number_db:.1f} dB"


def _provenance(document: Mapping[str, Any]) -> str:
    store, samples = document["store"], document["samples"]
    settings = document["settings"]
    more = " Self-ensemble of eight." if settings["self_ensemble"] else ""
    limit = "" if settings["limit"] is None else f" (limited to {settings['limit']} patches)"
    return (
        f"Store {store['path']} (manifest {store['manifest']}, digest {store['digest']}), "
        f"{settings['split']} split: {sample_counts(samples)}{limit}. Inference in "
        f"{settings['precision']}.{more} wsisr {document['created_with']['wsisr']}."
    )


def sample_counts(samples: Mapping[str, int]) -> str:
    """How many patches, slides and patients there are."""
    return (
        f"{counted(samples['images'], 'patch', 'patches')} of {counted(samples['slides'], 'slide')}"
        f" of {counted(samples['patients'], 'patient')}"
    )


def _cells(results: Results) -> list[Cell]:
    return [c for table in results.tables for _, line in table.lines for c in line.values()]


def _text_tables(results: Results) -> list[TextTable]:
    return [
        *downstream_tables(results),
        *distance_tables(results.document),
        *paper_tables(results),
    ]


def tex_table(
    caption: str, columns: str, header: Sequence[str], *groups: Sequence[Sequence[str]]
) -> list[str]:
    """A table of cells that are LaTeX already, with a rule above each group of rows."""
    lines = ["", "\\begin{table}", f"\\caption{{{caption}}}"]
    lines += [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", " & ".join(header) + r" \\"]
    for rows in groups:
        lines += ["\\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    return [*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]


def tex_rows(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows of text as cells of LaTeX."""
    return [[tex_text(cell) for cell in row] for row in rows]


def _tex_scale(scale: float) -> str:
    return f"$\\times${scale:g}"


def tex_text(text: str) -> str:
    """Text with LaTeX's special letters and our marks escaped."""
    plain = "".join(_TEX_SPECIAL.get(letter, letter) for letter in text)
    for mark, command in _TEX_MARKS.items():
        plain = plain.replace(mark, f"${command}$")
    return plain.replace("±", r"$\pm$")


def _tex_cell(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return "-"
    value, behind = cell_parts(cell, digits)
    value = {1: rf"\textbf{{{value}}}", 2: rf"\underline{{{value}}}"}.get(cell.rank, value)
    return value + (rf" {{\scriptsize {tex_text(behind.strip())}}}" if behind else "")
