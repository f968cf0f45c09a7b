"""Degradations in words, for `wsisr degrade list` and `show`."""

import json
from inspect import getdoc

from wsisr.degradation.spec import Mix, parse_degradation
from wsisr.degradation.stage import STAGES, Stage

_SHOWN = {"fitted": "scanner.json", "mix": "bicubic | area"}
"""How those that are not named by their kind are written."""


def describe_names() -> list[tuple[str, str]]:
    """Every name or preset with one line of text, those of installed packages too."""
    STAGES.load_installed()
    listed = []
    for kind, stage in STAGES.items():
        first = (getdoc(stage) or "").partition("\n")[0]
        origin = STAGES.origin(kind)
        if origin is not None:
            first += f" [{origin.package or origin.source}]"
        if kind in _SHOWN:
            listed.append((_SHOWN[kind], first))
            continue
        listed.append((kind, first))
        for preset, values in stage.presets.items():
            shown = ", ".join(f"{key}={_short(value)}" for key, value in values.items())
            listed.append((f"{kind}:{preset}", shown if len(shown) <= 90 else shown[:87] + "..."))
    return listed + [(f"({name})", reason) for name, reason in STAGES.broken.items()]


def describe(spec: str) -> str:
    """Stages of a degradation in physical order, each parameter with its meaning."""
    degradation = parse_degradation(spec)
    lines = [f"{degradation.name}  (digest {degradation.digest})"]
    drawn = "differs from sample to sample" if degradation.random else "deterministic"
    for made in degradation.plugins:
        lines.append(f"{made['name']} is of {made['source']}, SHA-256 {made['sha256']}")
    lines.append(f"{drawn}; stages in physical order:")
    for stage in degradation.stages:
        lines += _stage_lines(stage)
        for option in stage.options if isinstance(stage, Mix) else ():
            lines.append(f"  or {option.name}:")
            lines += [f"  {line}" for part in option.stages for line in _stage_lines(part)]
    if degradation.report is not None:
        lines.append("  fit report:")
        lines += [f"    {key}: {value}" for key, value in degradation.report.items()]
    return "\n".join(lines)


def record_json(spec: str) -> str:
    """The record of a degradation, as JSON that works wherever its name does."""
    return json.dumps(parse_degradation(spec).record(), indent=2)


def _stage_lines(stage: Stage) -> list[str]:
    text = (getdoc(type(stage)) or "").partition("\n")[0]
    lines = [f"  {stage.kind} (version {stage.version}): {text}"]
    for key, field in type(stage).model_fields.items():
        if key in ("kind", "version", "options"):
            continue
        value = getattr(stage, key)
        if key == "kernel":
            shown = f"{len(value)} x {len(value[0])} x {len(value[0])} taps"
        elif key == "tone":
            shown = "3 x 10 numbers"
        else:
            shown = _short(value)
        meaning = f"  {field.description}" if field.description else ""
        lines.append(f"    {key} = {shown}{meaning}")
    return lines


def _short(value: object) -> str:
    if isinstance(value, tuple):
        joint = ".." if len(value) == 2 else ";"
        return joint.join(_short(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
