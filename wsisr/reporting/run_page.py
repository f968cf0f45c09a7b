"""The page of one training run, made of its record and logs alone: no torch, no store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.files import staged_files
from wsisr.inference.trained import BEST, LAST, open_run
from wsisr.reporting.page import (
    Html,
    Page,
    badge,
    bullets,
    cards,
    code,
    details,
    element,
    figure,
    grid,
    heading,
    join,
    note,
    paragraph,
    table,
)
from wsisr.reporting.page import (
    facts as fact_list,
)
from wsisr.reporting.run_facts import RunFacts, curves, duration, read_run

NOT_FOR_DIAGNOSIS = (
    "Super-resolution invents detail that the glass may not have. Nothing here was validated for "
    "clinical use."
)
SAMPLE_SIDE_PX = 1400
SAMPLES = 4


def write_run_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page of a run: curves, samples, data, cost, settings and model card.

    The curves are also written as PNG, into ``figures/`` beside the page. A run that is still
    going on is shown as far as it has come.

    Parameters
    ----------
    folder : Path
        A run folder, with ``run.json``.
    output : Path, optional
        The page; ``report.html`` in the run folder if left out.

    Returns
    -------
    Path
        Where the page was written.

    Raises
    ------
    ConfigError
        There is no run, its record is broken, or the page cannot be written.
    """
    run = open_run(folder)
    facts = read_run(run)
    target = folder / "report.html" if output is None else output
    page = Page(
        run.folder.resolve().name,
        f"{run.model}, {reach(facts)}, preset {run.preset}",
        kind="Training run",
        badges=_badges(facts),
        footer=f"Written by wsisr report. Made with {run.document.get('created_with', 'wsisr')}.",
    )
    drawn = curves(facts)
    page.section("overview", "Overview", _overview(facts))
    page.section("curves", "Curves", _curves(facts, drawn))
    page.section("samples", "Samples", _samples(run.folder))
    page.section("data", "Data", _data(facts))
    page.section("cost", "Cost", _cost(facts))
    page.section("settings", "Settings", _settings(run.document))
    card = run.folder / "card.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        page.section("card", "Model card", element("pre", code(text), tabindex="0"))
    with staged_files(target.parent, target.name) as staged:
        for name, one in drawn.items():
            one.save_png(staged / "figures" / f"{name}.png")
        page.write(staged / target.name)
    return target


def reach(facts: RunFacts) -> str:
    """In words: ``scale 4``, or ``any scale, trained on 1 to 4``."""
    low, high = facts.run.scale_range
    if facts.run.scale is not None:
        return f"scale {facts.run.scale}"
    return f"any scale, trained on {low:g} to {high:g}"


def _badges(facts: RunFacts) -> Html:
    run = facts.run
    tone = {"finished": "good", "interrupted": "warn"}.get(run.state, "plain")
    return join(
        [
            badge(run.state, tone),  # type: ignore[arg-type]
            badge(f"LR: {run.lr_origin}"),
            badge("not for diagnosis", "warn"),
        ]
    )


def _overview(facts: RunFacts) -> Html:
    run, best = facts.run, facts.best()
    shown: dict[str, object] = {"steps done": run.step, "of": run.steps}
    if best:
        gain = best["psnr_rgb"] - best.get("bicubic_psnr_rgb", float("nan"))
        shown["PSNR-RGB at best, dB"] = f"{best['psnr_rgb']:.2f}"
        if np.isfinite(gain):
            shown["over bicubic, dB"] = f"{gain:+.2f}"
        shown["best step"] = int(best["step"])
    shown["parameters"] = run.document.get("parameters")
    shown["time in steps"] = duration(facts.seconds())
    parts = [cards({name: value for name, value in shown.items() if value is not None})]
    if run.state == "interrupted":
        parts.append(
            note(
                f"It stopped at step {run.step:,} of {run.steps:,}. Go on with the same command "
                "and --resume; every draw follows from seed and step, so nothing changes.",
                tone="warn",
                title="Interrupted.",
            )
        )
    elif run.state == "running":
        parts.append(
            note(
                f"The record says step {run.step:,} of {run.steps:,}. If no process is at work, "
                "it was killed: go on with the same command and --resume.",
                title="Running.",
            )
        )
    if facts.skipped:
        parts.append(
            note(
                f"{facts.skipped:,} steps had a loss or gradient that was not finite and were left "
                "out. A few are normal with mixed precision; many mean a learning rate that is too "
                "high.",
                tone="warn",
                title="Skipped steps.",
            )
        )
    if best and best["psnr_rgb"] < best.get("bicubic_psnr_rgb", -np.inf):
        parts.append(
            note(
                "At its best step the model is worse than bicubic on the validation crops.",
                tone="bad",
                title="Below bicubic.",
            )
        )
    if not any((run.folder / name / "model.safetensors").is_file() for name in (BEST, LAST)):
        parts.append(note("No model has been saved yet.", tone="warn"))
    warnings = run.document.get("warnings") or []
    if warnings:
        parts.append(note(bullets(warnings), tone="warn", title="The run warned."))
    notes = [*(run.document.get("notes") or []), *(run.document.get("readings") or [])]
    if notes:
        parts += [heading("Notes and readings"), bullets(notes)]
    parts.append(note(NOT_FOR_DIAGNOSIS, title="Not for diagnosis."))
    return join(parts)


def _curves(facts: RunFacts, drawn: Mapping[str, Any]) -> Html:
    if not drawn:
        return paragraph("Nothing has been logged yet.")
    words = (
        "Validation is on fixed crops of the validation patients. They choose the best step, and "
        "so they are not a test. The untrained model of step 0 is not drawn."
    )
    extra = []
    scales = facts.scales()
    if scales:
        rows = []
        for scale in scales:
            at = facts.validation_at(scale)
            last = {name: float(values[-1]) for name, values in at.items()}
            rows.append([f"x{scale:g}", int(last["step"])] + [last.get(key) for key in _LAST])
        extra.append(
            table(["scale", "step", *_LAST.values()], rows, numeric=range(1, 8), caption="Last row")
        )
    return join(
        [
            paragraph(words),
            *extra,
            grid(*(figure(one, k) for k, one in drawn.items()), width_px=460),
        ]
    )


_LAST = {
    "psnr_rgb": "PSNR-RGB, dB",
    "bicubic_psnr_rgb": "bicubic",
    "psnr_y": "PSNR-Y, dB",
    "bicubic_psnr_y": "bicubic",
    "ssim_rgb": "SSIM-RGB",
}


def _samples(folder: Path) -> Html:
    """Pictures of the same crops at some steps, the last first."""
    pictures = sorted((folder / "samples").glob("*.png"))
    if not pictures:
        return paragraph("No samples have been drawn yet.")
    places = np.unique(np.linspace(0, len(pictures) - 1, min(SAMPLES, len(pictures))).astype(int))
    items = [
        figure(
            pictures[index],
            f"Validation samples of {pictures[index].stem}: LR, bicubic, SR, HR and error",
            pictures[index].stem,
            max_side_px=SAMPLE_SIDE_PX,
        )
        for index in reversed(places.tolist())
    ]
    words = "The same validation crops, from left to right: LR, bicubic, SR, HR, error."
    earlier = details(f"{len(items) - 1} earlier", *items[1:]) if len(items) > 1 else ""
    return join([paragraph(words), items[0], earlier])


def _data(facts: RunFacts) -> Html:
    run = facts.run
    store, pairs = run.store, run.document.get("pairs") or {}
    arrays = run.document.get("arrays") or {}
    shown = {
        "store": code(store.get("path", "")),
        "content digest": code(store.get("digest", "")),
        "manifest": store.get("manifest"),
        "HR and LR": " and ".join(str(arrays[key]) for key in ("hr", "lr") if arrays.get(key)),
        "origin of LR": run.lr_origin,
        "degradation": None if run.degradation is None else code(run.degradation),
        "pairs to train on": pairs.get("train"),
        "pairs to validate on": pairs.get("val"),
        "patients seen": len(run.patients or ()),
    }
    parts = [fact_list({name: value for name, value in shown.items() if value not in (None, "")})]
    origins = run.document.get("origins") or {}
    if origins:
        rows = [[name, str(origin)] for name, origin in origins.items()]
        parts.append(table(["array", "origin"], rows, numeric=(), caption="Arrays of the store"))
    if run.patients:
        parts.append(
            details(
                f"The {len(run.patients)} patients that may stand in no test of this model",
                paragraph(", ".join(sorted(run.patients))),
            )
        )
    return join(parts)


def _cost(facts: RunFacts) -> Html:
    log, environment = facts.log, facts.run.document.get("environment") or {}
    rows = []
    for key, words in (
        ("samples_per_s", "samples per second"),
        ("step_ms", "time of a step, ms"),
        ("data_wait_ms", "waiting for data, ms"),
        ("memory_mib", "memory, MiB"),
    ):
        values = log.get(key, np.empty(0))
        values = values[np.isfinite(values)]
        if len(values):
            rows.append([words, float(np.median(values)), float(values.max())])
    parts = []
    if rows:
        parts.append(table(["", "median", "highest"], rows, caption="From log.csv"))
    seconds = facts.seconds()
    left = facts.run.steps - facts.run.step
    if facts.run.step and left > 0 and np.isfinite(seconds):
        eta = duration(seconds / facts.run.step * left)
        if eta:
            parts.append(paragraph(f"At this speed the {left:,} steps that are left take {eta}."))
    machine = {
        str(name): value
        for name, value in environment.items()
        if not isinstance(value, dict | list)
    }
    if machine:
        parts += [heading("Machine"), fact_list(machine)]
    packages = environment.get("packages")
    if isinstance(packages, dict):
        lines = sorted((str(name), str(version)) for name, version in packages.items())
        parts.append(details("Packages", table(["package", "version"], lines, numeric=())))
    return join(parts or [paragraph("Nothing has been logged yet.")])


def _settings(document: Mapping[str, Any]) -> Html:
    parts = []
    if document.get("command"):
        parts.append(element("pre", code(document["command"]), tabindex="0"))
    rows = [[name, value] for name, value in flatten(document.get("config") or {})]
    if rows:
        parts.append(table(["setting", "value"], rows, numeric=(), caption="As resolved"))
    if document.get("citation"):
        parts.append(paragraph("Cite: ", document["citation"]))
    return join(parts or [paragraph("The record holds no settings.")])


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names: ``{"a": {"b": 1}}`` gives ``("a.b", "1")``."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found += flatten(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", str(value)))
    return found
