"""The page of a study: ours beside the paper's, and where the rest of the evaluation stands."""

from pathlib import Path

from wsisr.evaluation.results import PAGE
from wsisr.reporting.page import Page, template
from wsisr.studies.definition import Budget, Study
from wsisr.studies.folder import EVALUATION, read_record
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
    page = Page(
        f"{study.title}. {budget.words}" if budget.words else study.title,
        f"Study {study.name}, store {record['store']['name']}",
        kind="Study",
        badges=[("TINY BUDGET", "warn")] if budget.words else [],
        footer=f"Written by wsisr study. Everything measured stands in {EVALUATION}/{PAGE}.",
    )
    tiny = ". TINY BUDGET" if budget.words else ""
    for number, part in enumerate(study_table(folder)):
        content = template("evaluation.html").study(part)
        page.section(f"table-{number}", f"{part.score}{tiny}", content)
    return page.write(folder / PAGE if output is None else output)
