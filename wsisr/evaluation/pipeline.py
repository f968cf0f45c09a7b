"""The whole of an evaluation, from settings to a folder that can be read."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from wsisr.evaluation.cost import COST, measure_costs, read_costs, write_costs
from wsisr.evaluation.curves import draw_charts, reference_scale
from wsisr.evaluation.distances import (
    Distance,
    measure_distances,
    open_features,
    read_distances,
)
from wsisr.evaluation.examples import FOLDER, draw_examples
from wsisr.evaluation.findings import draw_findings
from wsisr.evaluation.plan import Plan, prepare
from wsisr.evaluation.results import (
    IMAGES,
    PAGE,
    RESULTS,
    only_one,
    read_results,
    read_rows,
    write_results,
)
from wsisr.evaluation.run import run
from wsisr.evaluation.settings import EvalSettings
from wsisr.evaluation.summary import Results, summarise_results
from wsisr.evaluation.tables import write_tables
from wsisr.evaluation.tasks import Task
from wsisr.files import remove_tree, staged_files
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.runners import Runner


def evaluate(
    settings: EvalSettings,
    report: Reporter = silent,
    tasks: Sequence[Task] = (),
    runner: Runner | None = None,
) -> Results:
    """Score every model on every column, and write rows, tables, figures and costs.

    Several devices (``"cuda:0,cuda:1"``) or a `runner` share out the batches, a process each; what
    is made of the rows is made here.

    Interrupted, it goes on where it stopped when it is called again with the same settings. What
    is made of the rows is put into place together, so that a folder never shows tables of some
    rows beside curves of others.

    Raises
    ------
    ConfigError
        Nothing to test on, a leak, other settings than those of the folder's results.
    WsisrError
        A store, model or metric that cannot be read or computed.
    """
    plan = prepare(settings, tasks)
    for text in (*plan.stamps, *plan.notes):
        report(ProgressEvent(stage="eval", message=text))
    encoder = open_features(plan)
    with only_one(settings.output):
        known = _known_distances(plan)
        folder = run(plan, report, runner)
        results = load_results(folder)
        if encoder is not None:
            known = measure_distances(plan, encoder, results.failed, known, report)
        distances = [asdict(distance) for distance in known]
        document = dict(results.document, figures=[], charts=[], distances=distances)
        results = replace(results, document=document)
        with staged_files(folder, "results") as made:
            if settings.cost:
                shown = {group.members[0] for group in results.groups}
                measured = shown - set(plan.pictures)
                entries = [entry for entry in plan.entries if entry.name in measured]
                scale = reference_scale(settings.scales, results)
                write_costs(measure_costs(entries, scale, plan.device, report), made / COST)
            costs = read_costs((made if settings.cost else folder) / COST)
            document["charts"] = draw_charts(results, costs, made)
            if settings.figures:
                document["figures"] = draw_examples(plan, results, made, report)
                if plan.judges:
                    document["findings"] = draw_findings(plan, results, made, report)
            write_tables(results, made)
            # Of other rows; the page is written anew by whoever wants one.
            (folder / PAGE).unlink(missing_ok=True)
            remove_tree(folder / FOLDER)
        write_results(folder, document)
        return load_results(folder)


def _known_distances(plan: Plan) -> list[Distance]:
    folder = plan.settings.output
    if plan.settings.overwrite or not (folder / RESULTS).is_file():
        return []
    return read_distances(read_results(folder), plan)


def load_results(folder: Path | str) -> Results:
    """Read a folder that `evaluate` wrote.

    Raises
    ------
    ConfigError
        It is none.
    """
    folder = Path(folder)
    _, rows = read_rows(folder / IMAGES)
    return summarise_results(read_results(folder), rows)
