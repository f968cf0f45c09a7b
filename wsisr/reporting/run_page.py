"""The page of one training run, made of its record and logs alone: no torch, no store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from wsisr.drawing.vector import Chart, save_charts
from wsisr.files import staged_files
from wsisr.inference.trained import BEST, LAST, open_run
from wsisr.reporting.page import Page, template
from wsisr.reporting.run_facts import RunFacts, read_run
from wsisr.training.curves import at_scale, run_curves, scales_of
from wsisr.words import duration

SAMPLES = 4
LAST_ROW = {
    "psnr_rgb": "PSNR-RGB, dB",
    "bicubic_psnr_rgb": "bicubic",
    "psnr_y": "PSNR-Y, dB",
    "bicubic_psnr_y": "bicubic",
    "ssim_rgb": "SSIM-RGB",
}
COSTS = {
    "samples_per_s": "samples per second",
    "step_ms": "time of a step, ms",
    "data_wait_ms": "waiting for data, ms",
    "memory_mib": "memory, MiB",
}


def write_run_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run: curves, samples, data, cost, settings and model card.

    The curves are also written as PNG, SVG and PDF, into ``figures/`` beside the page. A run that
    is still going on is shown as far as it has come. The page is `output`, or ``report.html`` in
    the run folder; its path is returned.

    Raises
    ------
    ConfigError
        There is no run, its record is broken, or the page cannot be written.
    """
    run = open_run(folder)
    facts = read_run(run)
    target = folder / "report.html" if output is None else output
    tone = {"finished": "good", "interrupted": "warn"}.get(run.state, "plain")
    page = Page(
        run.folder.resolve().name,
        f"{run.model}, trained on {run.reach}, preset {run.preset}",
        kind="Training run",
        badges=[
            (run.state, tone),
            (f"LR origin: {run.lr_origin}", "plain"),
            ("not for diagnosis", "warn"),
        ],
        footer=f"Written by wsisr report. Made with {run.document.get('created_with', 'wsisr')}.",
    )
    drawn = run_curves(run.model, facts.log, facts.validation)
    say = template("run.html")
    page.section("overview", "Overview", _overview(facts))
    page.section("curves", "Curves", _curves(facts, drawn))
    page.section("samples", "Samples", say.samples(_samples(run.folder)))
    page.section("data", "Data", _data(facts))
    page.section("cost", "Cost", _cost(facts))
    page.section(
        "settings",
        "Settings",
        say.settings(
            command=run.document.get("command"),
            rows=flatten(run.document.get("config") or {}),
            citation=run.document.get("citation"),
        ),
    )
    card = run.folder / "card.md"
    if card.is_file():
        page.section("card", "Model card", say.card(card.read_text(encoding="utf-8")))
    with staged_files(target.parent, target.name) as staged:
        save_charts(staged / "figures", drawn)
        page.write(staged / target.name)
    return target


def _overview(facts: RunFacts) -> Markup:
    run, best = facts.run, facts.best()
    return template("run.html").overview(
        numbers={name: value for name, value in facts.numbers().items() if value is not None},
        run=run,
        skipped=facts.skipped,
        below=bool(best) and best["psnr_rgb"] < best.get("bicubic_psnr_rgb", np.nan),
        saved=any((run.folder / name / "model.safetensors").is_file() for name in (BEST, LAST)),
        warnings=run.document.get("warnings") or [],
        notes=[*(run.document.get("notes") or []), *(run.document.get("readings") or [])],
    )


def _curves(facts: RunFacts, drawn: Mapping[str, Chart]) -> Markup:
    rows, untrained = [], False
    for scale in scales_of(facts.validation):
        at = at_scale(facts.validation, scale)
        untrained |= bool((at["step"] == 0).any() and (at["step"] > 0).any())
        last = {name: float(values[-1]) for name, values in at.items()}
        rows.append([f"x{scale:g}", int(last["step"])] + [last.get(key) for key in LAST_ROW])
    header = ["scale", "step", *LAST_ROW.values()]
    return template("run.html").curves(
        header=header, rows=rows, charts=drawn, left_out=untrained, numeric=range(1, len(header))
    )


def _samples(folder: Path) -> list[Path]:
    """Pictures of the same crops at some steps, the last first."""
    pictures = sorted((folder / "samples").glob("*.png"))
    if not pictures:
        return []
    places = np.unique(np.linspace(0, len(pictures) - 1, min(SAMPLES, len(pictures))).astype(int))
    return [pictures[index] for index in reversed(places.tolist())]


def _data(facts: RunFacts) -> Markup:
    run, arrays = facts.run, facts.run.document.get("arrays") or {}
    store, pairs = run.store, run.document.get("pairs") or {}
    shown = {
        "store": store.get("path"),
        "content digest": store.get("digest"),
        "manifest": store.get("manifest"),
        "HR and LR": " and ".join(str(arrays[key]) for key in ("hr", "lr") if arrays.get(key)),
        "LR origin": run.lr_origin,
        "degradation": run.degradation,
        "pairs to train on": pairs.get("train"),
        "pairs to validate on": pairs.get("val"),
        "patients seen": len(run.patients or ()),
    }
    return template("run.html").data(
        values={name: value for name, value in shown.items() if value not in (None, "")},
        origins=list((run.document.get("origins") or {}).items()),
        patients=sorted(run.patients or ()),
    )


def _cost(facts: RunFacts) -> Markup:
    run, environment = facts.run, facts.run.document.get("environment") or {}
    rows = []
    for key, words in COSTS.items():
        values = facts.log.get(key, np.empty(0))
        values = values[np.isfinite(values)]
        if len(values):
            rows.append([words, float(np.median(values)), float(values.max())])
    left, eta = run.steps - run.step, None
    if run.step and left > 0:
        eta = duration(facts.seconds() / run.step * left)
    packages = environment.get("packages")
    return template("run.html").cost(
        rows=rows,
        left=left,
        eta=eta,
        machine={k: v for k, v in environment.items() if not isinstance(v, dict | list)},
        packages=sorted(packages.items()) if isinstance(packages, dict) else [],
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names: ``{"a": {"b": 1}}`` gives ``("a.b", "1")``."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found += flatten(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", str(value)))
    return found
