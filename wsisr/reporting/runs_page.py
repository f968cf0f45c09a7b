"""The page of a folder of runs, side by side: state, best validation, size, time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsisr.errors import ConfigError
from wsisr.inference.trained import find_runs
from wsisr.reporting.charts import Chart, Series, chart
from wsisr.reporting.page import Page, figure, grid, join, note, paragraph, table
from wsisr.reporting.run_facts import RunFacts, after_start, duration, read_run


def write_runs_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page that compares all runs directly below a folder.

    One row a run (sortable) and the validation PSNR of all at each scale; a warning where stores
    or origins of LR differ, for then the numbers do not compare.

    Parameters
    ----------
    folder : Path
        For example ``runs``; runs in deeper folders are not looked for.
    output : Path, optional
        The page; ``report.html`` in the folder if left out.

    Returns
    -------
    Path
        Where the page was written.

    Raises
    ------
    ConfigError
        There is no run, the record of one is broken, or the page cannot be written.
    """
    all_facts = [read_run(run) for run in find_runs(folder)]
    if not all_facts:
        raise ConfigError(f"{folder} holds no training run; train one with wsisr train.")
    target = folder / "report.html" if output is None else output
    page = Page(
        folder.resolve().name,
        f"{len(all_facts)} training runs",
        kind="Training runs",
        footer="Written by wsisr report. Validation chose the best steps: these are not tests.",
    )
    stores = {str(facts.run.store.get("digest")) for facts in all_facts}
    origins = {facts.run.lr_origin for facts in all_facts}
    warning = ""
    if len(stores) > 1 or len(origins) > 1:
        warning = note(
            "These runs differ in their store or in the origin of their LR: their validation "
            "numbers are not for comparison. Use wsisr eval.",
            tone="warn",
            title="Different data.",
        )
    head = ["run", "model", "trained on", "preset", "state", "steps", "best PSNR-RGB, dB"]
    head += ["over bicubic, dB", "parameters", "LR origin", "time in steps"]
    rows = [_row(facts) for facts in all_facts]
    page.section(
        "runs",
        "Runs",
        warning,
        table(head, rows, sortable=True, numeric=(5, 6, 7, 8)),
        paragraph("wsisr report RUN writes the page of one run."),
    )
    drawn = validation_charts(all_facts)
    if drawn:
        page.section(
            "curves",
            "Validation",
            join([grid(*(figure(one, one.title) for one in drawn), width_px=460)]),
        )
    return page.write(target)


def validation_charts(all_facts: Sequence[RunFacts]) -> list[Chart]:
    """PSNR-RGB over steps of all runs, one chart per scale."""
    scales = sorted({scale for facts in all_facts for scale in facts.scales()})
    drawn = []
    for scale in scales:
        series = []
        for facts in all_facts:
            if scale in facts.scales():
                at = facts.validation_at(scale)
                rows = after_start(at)
                series.append(Series(facts.run.name, at["step"][rows], at["psnr_rgb"][rows]))
        drawn.append(
            chart(
                series,
                title=f"Validation PSNR-RGB, x{scale:g}",
                x_label="step",
                y_label="dB",
                width_px=580,
                height_px=360,
            )
        )
    return drawn


def _row(facts: RunFacts) -> list[object]:
    run, best = facts.run, facts.best()
    gain = best["psnr_rgb"] - best.get("bicubic_psnr_rgb", np.nan) if best else np.nan
    return [
        run.name,
        run.model,
        f"x{run.scale}" if run.scale else "x{:g} to x{:g}".format(*run.scale_range),
        run.preset,
        run.state,
        f"{run.step:,} / {run.steps:,}" if run.step < run.steps else f"{run.step:,}",
        f"{best['psnr_rgb']:.2f}" if best else None,
        f"{gain:+.2f}" if np.isfinite(gain) else None,
        run.document.get("parameters"),
        run.lr_origin,
        duration(facts.seconds()),
    ]
