"""A study's table: what was measured here beside what the paper prints, as Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsisr.evaluation.pipeline import load_results
from wsisr.evaluation.published import HEADING, published
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import MARKS, Cell, ScoreTable, sample_words
from wsisr.evaluation.tables import cell_parts, tex_rows, tex_table, tex_text
from wsisr.files import replace_file
from wsisr.studies.definition import Budget, Row, Study
from wsisr.studies.folder import EVALUATION, read_record
from wsisr.studies.plan import unfit
from wsisr.tables import markdown_table

MARKDOWN = "table.md"
LATEX = "table.tex"


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """One score of a study.

    Attributes
    ----------
    title : str
        With the budget, where it is a small one.
    score : str
        What the numbers are, and of which LR.
    header : tuple of str
        Row, then ours and the paper's for each scale.
    """

    title: str
    score: str
    notes: tuple[str, ...]
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def study_table(folder: Path) -> tuple[StudyTable, ...]:
    """PSNR and SSIM of every row at every scale, ours and printed.

    Raises
    ------
    ConfigError
        `folder` is none of a study, or it has not been evaluated.
    """
    record = read_record(folder)
    study, budget = Study.model_validate(record["study"]), Budget.model_validate(record["budget"])
    results = load_results(folder / EVALUATION)
    manifest = record["store"]["manifest"]
    dataset = next((d for d, name in study.data.items() if name == manifest), None)
    origins = dict.fromkeys(table.origin for table in results.tables)
    found = []
    for score in ("psnr", "ssim"):
        for origin in origins:
            of_origin = (table for table in results.tables if table.origin == origin)
            first = next((t for t in of_origin if t.score["name"].startswith(score)), None)
            if first is not None:
                found.append(_table(study, budget, first, dataset, manifest, record["failed"]))
    return tuple(found)


def _table(
    study: Study,
    budget: Budget,
    table: ScoreTable,
    dataset: str | None,
    manifest: str,
    failed: Mapping[str, str],
) -> StudyTable:
    kind = "psnr" if table.score["name"].startswith("psnr") else "ssim"
    # A store of other data is set beside the first data set of the table, and that is said.
    printed = _printed(study, dataset or next(iter(study.data)), kind)
    beside = study.paper is not None
    header = [""]
    for scale in study.scales:
        header += [scale_label(scale), *([f"{scale_label(scale)}, printed"] if beside else [])]
    lines, reasons = [], dict[str, None]()
    for row in study.rows:
        line = [row.label]
        for scale in study.scales:
            cell = _cell(table, row, scale)
            reason = None if cell is not None else _why(row, scale, failed)
            if reason is not None:
                reasons[f"{row.label}, {scale_label(scale)}: {reason}."] = None
            line.append("-" if cell is None else "".join(cell_parts(cell, table.score["digits"])))
            if beside:
                line.append(printed.get((row.method or "", scale), "-"))
        lines.append(tuple(line))
    return StudyTable(
        score=f"{table.score['title']}, LR {table.origin}",
        title=". ".join(t for t in (study.title, table.score["title"], budget.words) if t),
        notes=(
            f"LR: {table.origin}; {sample_words(table)}.",
            _data_note(study, dataset, manifest),
            *(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in study.readings),
            *reasons,
            *_legend(lines),
        ),
        header=tuple(header),
        lines=tuple(lines),
    )


def _legend(lines: Sequence[Sequence[str]]) -> list[str]:
    """What stands behind the numbers, where it occurs."""
    cells = "".join(cell for line in lines for cell in line[1:])
    words = {**MARKS, "±": "standard deviation over training seeds"}
    return [f"{mark} {text}." for mark, text in words.items() if mark in cells]


def _data_note(study: Study, dataset: str | None, manifest: str) -> str:
    if study.paper is None:
        return f"Store of the manifest {manifest}."
    if dataset is None:
        known = "; ".join(f"{name}, manifest {m}" for name, m in study.data.items())
        return (
            f"This store is of the manifest {manifest or 'unknown'} and none of the paper's data "
            f"({known}): the printed numbers of {next(iter(study.data))} ({HEADING}) stand beside "
            "it for orientation alone."
        )
    return (
        f"Printed: {study.paper}, table {study.table}, {dataset} ({HEADING}): other slides and "
        "conventions, for orientation, never for ranking."
    )


def _printed(study: Study, dataset: str, kind: str) -> dict[tuple[str, float], str]:
    return {
        (row.method, row.scale): row.printed[kind != "psnr"]
        for row in published()
        if (row.paper, row.dataset) == (study.paper, dataset) and row.table == study.table
    }


def _cell(table: ScoreTable, row: Row, scale: float) -> Cell | None:
    """The cell of the group whose runs are this row's."""
    for group, cells in table.lines:
        names = {_row_of(member) for member in group.members}
        if scale in cells and (names == {row.id} or (row.model == "bicubic" == group.label)):
            return cells[scale]
    return None


def _row_of(run: str) -> str:
    """Id of the row that a run is of: its name less the seed, and the scale of a fixed network."""
    name = run.rpartition("-s")[0]
    head, _, tail = name.rpartition("-x")
    return head if tail.isdigit() else name


def _why(row: Row, scale: float, failed: Mapping[str, str]) -> str:
    if row.scales is not None and scale not in row.scales:
        return "this row has it not"
    reason = unfit(row, scale)
    if reason is not None:
        return reason
    for run, words in failed.items():
        if _row_of(run) == row.id:
            return f"{run} failed: {words.rstrip('.')}"
    return "not run"


def write_study_tables(folder: Path) -> None:
    """Write table.md and table.tex."""
    tables = study_table(folder)
    replace_file(folder / MARKDOWN, "\n".join(_markdown(table) for table in tables).encode())
    head = "% \\usepackage{booktabs}\n"
    replace_file(folder / LATEX, (head + "\n".join(_latex(table) for table in tables)).encode())


def _markdown(table: StudyTable) -> str:
    lines = [f"## {table.title}", "", *(f"- {note}" for note in table.notes), ""]
    return "\n".join([*lines, *markdown_table(table.header, table.lines, numbers=True), ""])


def _latex(table: StudyTable) -> str:
    caption = tex_text(" ".join([table.title + ".", *table.notes]))
    header, *body = tex_rows([table.header, *table.lines])
    return "\n".join([*tex_table(caption, "l" + "r" * (len(header) - 1), header, body), ""])
