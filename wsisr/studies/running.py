"""Run a study: train what is not trained yet, then evaluate all of it, then write its table."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsisr.errors import DiskFullError, LockedError, WsisrError
from wsisr.evaluation import EvalSettings, evaluate
from wsisr.inference import open_run
from wsisr.inference.trained import RUN_NAME
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store import open_pairs
from wsisr.studies.definition import Budget, Study
from wsisr.studies.folder import EVALUATION, RUNS, claim, read_record, write_record
from wsisr.studies.plan import Training, request_of, share, trainings
from wsisr.studies.tables import write_study_tables
from wsisr.training import train


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What a user asks for.

    Attributes
    ----------
    data : Path
        The pair store.
    output : Path
        Folder of runs, evaluation and tables.
    rows : tuple of str
        Ids; empty: all.
    part : (int, int) or None
        Train this share alone and evaluate nothing.
    """

    study: Study
    budget: Budget
    data: Path
    output: Path
    rows: tuple[str, ...] = ()
    part: tuple[int, int] | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """How it ended.

    Attributes
    ----------
    interrupted : bool
        A training was stopped; the same command goes on.
    failed : mapping of str to str
        Runs and their reasons.
    trained : int
        Runs that are finished.
    """

    interrupted: bool
    failed: dict[str, str]
    trained: int
    evaluated: bool


def run_study(request: StudyRequest, report: Reporter = silent) -> StudyOutcome:
    """Train and evaluate every row; run again, it goes on where it stopped.

    A row whose training fails is named and has no cell; the others go on.

    Raises
    ------
    ConfigError
        The folder holds another study, budget or store; there is nothing to test on.
    DiskFullError, LockedError
        The disk is full, or another process trains a row; what is done stays.
    """
    rows = request.study.chosen(request.rows)
    every = trainings(request.study, rows, request.budget)
    store = open_pairs(request.data)
    identity = {
        "study": request.study.model_dump(mode="json"),
        "budget": request.budget.model_dump(mode="json"),
        "store": {
            "name": request.data.name,
            "content": store.content_digest(),
            "manifest": store.attributes["manifest"].get("name") or "",
        },
    }
    claim(request.output, identity)
    mine = every if request.part is None else share(every, request.part)
    failed: dict[str, str] = {}
    for number, training in enumerate(mine, start=1):
        report(ProgressEvent(stage="study", message=f"{training.name}: run {number}/{len(mine)}"))
        try:
            if not _train(request, training, report):
                return StudyOutcome(interrupted=True, failed=failed, trained=0, evaluated=False)
        except (DiskFullError, LockedError):
            raise  # no fault of the row, and the next ones would meet it too
        except WsisrError as error:
            # The folder is passed on: no path stands in it.
            words = str(error).replace(f"{request.output}{os.sep}", "")
            failed[training.name] = words.replace(f"{request.data.parent}{os.sep}", "")
            report(ProgressEvent(stage="study", message=f"{training.name} failed: {error}"))
    # Rows of earlier calls stay in the table.
    whole = trainings(request.study, request.study.rows, request.budget)
    done = [t for t in whole if _state(request, t) == "finished"]
    if request.part is not None:
        return StudyOutcome(interrupted=False, failed=failed, trained=len(done), evaluated=False)
    _evaluate(request, done, report)
    tried = {training.name for training in mine}
    earlier = read_record(request.output)["failed"].items()
    kept = {name: words for name, words in earlier if name not in tried}
    write_record(request.output, {**identity, "failed": kept | failed})
    write_study_tables(request.output)
    return StudyOutcome(interrupted=False, failed=failed, trained=len(done), evaluated=True)


def _train(request: StudyRequest, training: Training, report: Reporter) -> bool:
    """Train one run to its end; False where it was interrupted."""
    state = _state(request, training)
    if state == "finished":
        return True
    wanted = request_of(
        request.study,
        training,
        request.budget,
        request.data,
        request.output / RUNS,
        request.device,
    )
    outcome, _ = train(replace(wanted, resume=state != ""), report)
    return outcome.state == "finished"


def _state(request: StudyRequest, training: Training) -> str:
    folder = request.output / RUNS / training.name
    return open_run(folder).state if (folder / RUN_NAME).is_file() else ""


def _evaluate(request: StudyRequest, done: Sequence[Training], report: Reporter) -> None:
    study, runs = request.study, request.output / RUNS
    evaluate(
        EvalSettings(
            scales=study.scales,
            data=request.data,
            models=tuple(str(runs / training.name) for training in done) or ("bicubic",),
            lr_source=study.lr_source or "auto",
            output=request.output / EVALUATION,
            protocols=(study.protocol,),
            limit=request.budget.limit,
            device=request.device or "auto",
            cost=False,
            figures=1,
        ),
        report,
    )
