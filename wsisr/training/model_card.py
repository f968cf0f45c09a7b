"""A run's model card."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from wsisr.files import replace_file
from wsisr.models.weights import NOT_FOR_DIAGNOSIS, front_matter
from wsisr.plugins import words
from wsisr.tables import markdown_table
from wsisr.training.logs import read_rows

_METRICS = (
    ("psnr", "psnr_rgb", "PSNR (RGB, 8 bit, border of the scale cut off)"),
    ("ssim", "ssim_rgb", "SSIM (RGB, 8 bit, border of the scale cut off)"),
)


def model_card(record: Mapping[str, Any], validation: Sequence[Mapping[str, float]]) -> str:
    """The card of a run as Markdown, from its record and its validation rows."""
    config = record["config"]
    reach = _reach(record)
    lines = [
        f"# {record['model']} {reach}",
        "",
        NOT_FOR_DIAGNOSIS,
        "",
        "## What it is",
        "",
        f"- network: `{record['model']}`, preset `{record['preset']}`, "
        f"{record['parameters']:,} parameters; {record['citation']}",
        f"- trained scales: {reach}; other scales are outside of what it has seen",
        f"- state: {record['state']} at step {record['step']:,} of {record['steps']:,}; "
        f"seed {record['seed']}; {record['created_with']}",
    ]
    lines += [f"- {p['what']} `{p['name']}`: {words(p)}" for p in record.get("plugins") or ()]
    if record.get("features"):
        lines.append(f"- feature network of the loss: {record['features']}")
    if record.get("init_from"):
        lines.append(f"- started from: {record['init_from']}")
    store = record["store"]
    lines += [
        "",
        "## What it was trained on",
        "",
        f"- store: manifest `{store['manifest']}`, digest `{store['digest']}`",
        f"- {record['pairs']['train']:,} pairs for training, {record['pairs']['val']:,} for "
        f"validation, of {len(record['patients'])} patients",
        f"- origin of LR: **{record['lr_origin']}**; expect less on LR of another origin",
        f"- crops of {config['data']['crop_lr_px']} LR px, batch {record['batch']}",
        "",
        "## Validation",
        "",
    ]
    if validation:
        lines += [
            "Fixed crops of the validation patients, protocol `wsisr` (8 bit, border of the scale "
            "cut off). They chose the step that is kept as best: they are not a test.",
            "",
        ]
        best = (record.get("best") or {}).get("step")
        shown = [row for row in validation if row["step"] in (best, validation[-1]["step"])]
        scores = ("psnr_rgb", "bicubic_psnr_rgb", "psnr_y", "bicubic_psnr_y")
        lines += markdown_table(
            ["step", "scale", "PSNR RGB", "bicubic", "PSNR Y", "bicubic", "SSIM RGB"],
            [
                (
                    f"{row['step']:.0f}{' (best)' if row['step'] == best else ''}",
                    f"{row['scale']:g}",
                    *(f"{row[score]:.2f}" for score in scores),
                    f"{row['ssim_rgb']:.4f}",
                )
                for row in shown
            ],
        )
    lines += ["", "## Limits and readings", ""]
    notes = [*record["notes"], *record["readings"], *record["warnings"]]
    lines += [f"- {note}" for note in notes] or ["- none recorded"]
    return "\n".join(lines) + "\n"


def hub_card(record: Mapping[str, Any], validation: Sequence[Mapping[str, float]]) -> str:
    """The same with the front matter of a Hugging Face model folder (its ``README.md``).

    The results are those of validation, and are called so.
    """
    rows = [row for row in validation if row["step"] == validation[-1]["step"]]
    metrics = [
        {"type": kind, "value": round(row[key], 4), "name": f"{words} x{row['scale']:g}"}
        for row in rows
        for kind, key, words in _METRICS
        if isfinite(row[key])
    ]
    name = f"{record['model']} {_reach(record)}"
    more: dict[str, Any] = {"metrics": ["psnr", "ssim"]}
    if metrics:
        result = {
            "task": {"type": "image-to-image", "name": "Super-resolution"},
            "dataset": {
                "type": "wsisr-pairs",
                "name": f"{record['store']['manifest']} (LR: {record['lr_origin']})",
                "split": "validation",
            },
            "metrics": metrics,
        }
        more["model-index"] = [{"name": name, "results": [result]}]
    return front_matter(record["model"], more) + model_card(record, validation)


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write ``card.md`` from ``validation.csv`` and the run's record."""
    text = model_card(record, read_rows(folder / "validation.csv"))
    replace_file(folder / "card.md", text.encode())


def _reach(record: Mapping[str, Any]) -> str:
    if record["scale"]:
        return f"x{record['scale']}"
    low, high = record["scale_range"]
    return f"x{low:g} to x{high:g}"
