"""The page of a folder of runs, side by side: state, best validation, size, time."""

from collections.abc import Sequence
from pathlib import Path

from wsisr.drawing.charts import ChartSeries, chart
from wsisr.drawing.vector import Chart
from wsisr.errors import ConfigError
from wsisr.inference.trained import find_runs
from wsisr.reporting.page import Page, template
from wsisr.reporting.run_facts import RunFacts, read_run
from wsisr.training.curves import after_start, at_scale, scales_of
from wsisr.words import counted

HEADER = (
    "run",
    "model",
    "trained on",
    "preset",
    "state",
    "steps",
    "best PSNR-RGB, dB",
    "over bicubic, dB",
    "parameters",
    "LR origin",
    "time in steps",
)


def write_runs_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page that compares all runs directly below a folder.

    One row a run (sortable) and the validation PSNR at each scale, a chart for each origin of LR;
    a warning where stores or origins of LR differ, for then the numbers do not compare. Runs in
    deeper folders are not looked for. The page is `output`, or ``report.html`` in the folder; its
    path is returned.

    Raises
    ------
    ConfigError
        There is no run, the record of one is broken, or the page cannot be written.
    """
    all_facts = [read_run(run) for run in find_runs(folder)]
    if not all_facts:
        raise ConfigError(f"{folder} holds no training run; train one with wsisr train.")
    page = Page(
        folder.resolve().name,
        counted(len(all_facts), "training run"),
        kind="Training runs",
        footer="Written by wsisr report. Validation chose the best steps: these are not tests.",
    )
    say = template("run.html")
    data = {(facts.run.store.get("digest"), facts.run.lr_origin) for facts in all_facts}
    rows = [_row(facts) for facts in all_facts]
    page.section("runs", "Runs", say.runs(HEADER, rows, (5, 6, 7, 8), differ=len(data) > 1))
    drawn = validation_charts(all_facts)
    if drawn:
        page.section("curves", "Validation", say.validation(drawn))
    return page.write(folder / "report.html" if output is None else output)


def validation_charts(all_facts: Sequence[RunFacts]) -> list[Chart]:
    """PSNR-RGB over steps, one chart for each scale and origin of LR."""
    groups: dict[tuple[float, str, str], list[RunFacts]] = {}
    for facts in all_facts:
        for scale in scales_of(facts.validation):
            data = scale, str(facts.run.lr_origin), str(facts.run.store.get("digest"))
            groups.setdefault(data, []).append(facts)
    drawn = []
    for scale, origin, digest in sorted(groups):
        series = []
        for facts in groups[scale, origin, digest]:
            at = at_scale(facts.validation, scale)
            rows = after_start(at)
            series.append(ChartSeries(facts.run.name, at["step"][rows], at["psnr_rgb"][rows]))
        drawn.append(
            chart(
                series,
                title=f"Validation PSNR-RGB, x{scale:g}, LR origin {origin}",
                x_label="step",
                y_label="PSNR-RGB, dB",
                size_px=(460, 340),
            )
        )
    return drawn


def _row(facts: RunFacts) -> list[object]:
    run = facts.run
    shown = facts.numbers() | {
        "run": run.name,
        "model": run.model,
        "trained on": run.reach,
        "preset": run.preset,
        "state": run.state,
        "LR origin": run.lr_origin,
    }
    return [shown[name] for name in HEADER]
