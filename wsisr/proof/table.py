"""A report in words: what passed, how fast it was, the first fault of each kind with a remedy."""

from typing import Any

from wsisr.proof.plan import Form
from wsisr.proof.targets import TARGETS
from wsisr.tables import markdown_table

Document = dict[str, Any]
REMEDIES = {
    "draws": "the device's integers are wrong: update driver and torch; no run on it repeats",
    "not finite": "train with train.precision=fp32; if that passes, the half type overflows in "
    "this network: report it with this file",
    "does not learn": "report it with this file; until then train on another device",
    "disagrees": "switch TF32 off, update driver and torch, try --device cpu; if fp32 disagrees, "
    "trust no result of this device",
    "not compiled": "leave train.compile=off; report it with this file",
    "another form": "train in the plain form (no compiling, no checkpointing, patches resident); "
    "report it with this file",
    "resume": "train.deterministic=true, or train without --resume on this device; report it",
    "memory": "lower data.batch or data.crop_lr_px, or set train.checkpointing=true; end what else "
    "uses the card",
    "cards": "train on one card; NCCL_DEBUG=INFO says what the exchange lacks",
    "stray": "a tensor was left on the CPU: report the line",
    "wait": "the step waits for the device there and is slower than it need be: report the line",
    "draw": "a run does not repeat on another device there: report the line",
    "double": "float64 is slow on most cards and refused by Apple's: report the line",
    "crash": "update the driver; run again with CUDA_LAUNCH_BLOCKING=1, which names the kernel",
    "time": "with compiled forms only, leave train.compile=off; else end what else uses the device",
    "evaluate": "run wsisr eval on the run by itself, which says more",
    "upscale": "run wsisr upscale with --device cpu, and report the difference",
}
OTHER = "report it with this file; the form that failed can be left out of training"
_COLUMNS = ("train", "agree", "speed", "resume", "evaluate", "upscale", "rehearse")
_MARKS = {"pass": "yes", "fail": "NO"}


def report_text(report: Document) -> str:
    """Device, tables and faults as Markdown."""
    rows = list(report["rows"].values())
    identity = report["identity"]
    named = ", ".join(f"{k} {v}" for k, v in identity.items() if v is not None and k != "name")
    planned, done = report.get("planned", []), len(rows)
    failed = [row for row in rows if row["state"] == "fail"]
    head = f"{identity.get('name', identity['device'])}: {named}; {report.get('date', '')}"
    count = f"{done} of {max(len(planned), done)} checks done, {len(failed)} failed."
    if report.get("stopped"):
        count += (
            f" Stopped when the time was over, tried last next: {', '.join(report['stopped'])}."
        )
    parts = [head, count, _checks(rows), _speeds(rows), _targets(rows), _faults(failed)]
    return "\n\n".join(part for part in parts if part)


def _checks(rows: list[Document]) -> str:
    """A line for each network, forms of training and agreement counted."""
    models = list(dict.fromkeys(row["model"] for row in rows if row["kind"] in _COLUMNS))
    if not models:
        return ""
    lines = []
    for model in models:
        cells = [model]
        for kind in _COLUMNS:
            of = [row for row in rows if row["model"] == model and row["kind"] == kind]
            cells.append(_cell(kind, of))
        lines.append(cells)
    others = [row for row in rows if row["kind"] in ("draws", "memory", "cards")]
    lines += [[row["kind"], _MARKS[row["state"]], *[""] * (len(_COLUMNS) - 1)] for row in others]
    return "\n".join(markdown_table(["network", *_COLUMNS], lines))


def _cell(kind: str, rows: list[Document]) -> str:
    if not rows:
        return ""
    bad = [_form(row) for row in rows if row["state"] == "fail"]
    if bad:
        return f"NO: {', '.join(bad)}"
    if kind == "resume":
        return "bit-equal" if rows[0]["facts"]["bit_equal"] else "near"
    if kind in ("train", "agree"):
        return ", ".join(map(_form, rows))
    return "yes"


def _form(row: Document) -> str:
    return str(Form(**row["form"]))


def _passed(rows: list[Document], kind: str) -> list[Document]:
    return [row for row in rows if row["kind"] == kind and row["state"] == "pass"]


def _speeds(rows: list[Document]) -> str:
    """Speed and memory, as they were measured."""
    found = _passed(rows, "speed")
    if not found:
        return ""
    waits = {(row["model"], _form(row)): row["facts"] for row in _passed(rows, "train")}
    lines = []
    for row in found:
        facts, form = row["facts"], _form(row)
        times = f"{facts['times_plain']:.2f}" if "times_plain" in facts else ""
        plain = f"{facts['plain_memory_mib']:.0f}" if "times_plain" in facts else ""
        wait = waits.get((row["model"], form), {}).get("data_wait_ms")
        lines.append(
            [
                *(row["model"], form, f"{facts['samples_per_s']:.3g}", times),
                *(f"{facts['memory_mib']:.0f}", plain, "" if wait is None else f"{wait:.2f}"),
                f"{100 * facts['busy']:.0f} %",
            ]
        )
    speed = ("network", "form", "samples/s", "times plain")
    memory = ("MiB", "plain MiB", "data wait, ms", "busy")
    return "\n".join(markdown_table([*speed, *memory], lines))


def _targets(rows: list[Document]) -> str:
    found = _passed(rows, "target")
    if not found:
        return ""
    lines = []
    for row in found:
        facts = dict(row["facts"])
        reached = {True: "yes", False: "NO", None: "not its size"}[facts.pop("reached", None)]
        said = ", ".join(f"{name} {value}" for name, value in facts.items())
        lines.append((TARGETS[row["model"]].aim, reached, said))
    return "\n".join(markdown_table(["target", "reached", "measured"], lines))


def _faults(failed: list[Document]) -> str:
    """The first fault of each kind."""
    first: dict[str, Document] = {}
    for row in failed:
        first.setdefault(row["fault"], row)
    lines = []
    for kind, row in first.items():
        number = sum(other["fault"] == kind for other in failed)
        more = f" (and {number - 1} more)" if number > 1 else ""
        where = f"{row['kind']} {row['model']} {_form(row)}"
        lines.append(f"- **{kind}**{more}, first in {where}: {row['said']}")
        lines.append(f"  What to try: {REMEDIES.get(kind, OTHER)}.")
    return "\n".join(lines)
