"""The page of a study: ours beside the paper's, and where the rest of the evaluation stands."""

from pathlib import Path

from wsisr.reporting.page import INDEX_NAME, Page, badge, bullets, table
from wsisr.studies.definition import Budget, Study
from wsisr.studies.record import EVALUATION, read_record
from wsisr.studies.tables import study_table


def write_study_report(folder: Path, output: Path | None = None) -> Path:
    """Write one self-contained HTML file of a study; returns its path.

    Raises
    ------
    ConfigError
        `folder` is none of a study, or it has not been evaluated.
    """
    record = read_record(folder)
    study, budget = Study.model_validate(record["study"]), Budget.model_validate(record["budget"])
    title = f"{study.title}. {budget.words}" if budget.words else study.title
    page = Page(
        title,
        f"Study {study.name}, store {record['store']['name']}",
        kind="Study",
        badges=badge("TINY BUDGET", "warn") if budget.words else "",
        footer=f"Written by wsisr study. Everything measured stands in {EVALUATION}/index.html.",
    )
    for number, part in enumerate(study_table(folder)):
        page.section(
            f"table-{number}",
            f"{part.score}. TINY BUDGET" if budget.words else part.score,
            bullets(part.notes),
            table(part.header, part.lines, numeric=range(1, len(part.header))),
        )
    return page.write(folder / INDEX_NAME if output is None else output)
