"""A model in words, for `wsisr models show`."""

import sys
from collections.abc import Sequence
from typing import Any

from wsisr.errors import ModelError
from wsisr.models.cost import model_cost
from wsisr.models.registry import model_spec, resolve_settings, settings_dict
from wsisr.models.settings import from_text


def read_changes(name: str, changes: Sequence[str]) -> dict[str, Any]:
    """``key=value`` settings of a network, read as the fields' types.

    Raises
    ------
    ModelError
        An unknown network or setting, or a value of another type.
    """
    spec = model_spec(name)
    settings = {}
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign:
            raise ModelError(f"--set {change}: write key=value")
        settings[key.strip()] = from_text(spec.settings, key.strip(), text.strip(), name)
    return settings


def describe_model(
    name: str,
    *,
    scale: float | None = None,
    preset: str = "recommended",
    lr_px: int = 48,
    changes: Sequence[str] = (),
) -> str:
    """Several lines: paper, presets, parameters, GMAC, memory, settings, notes of the file.

    Parameters
    ----------
    name, preset : str
        As for `create_model`.
    scale : float, optional
        Magnification; 4 if left out.
    lr_px : int
        Side of the LR input that arithmetic and memory are counted for.
    changes : sequence of str
        ``key=value`` settings, read as the fields' types.
    """
    spec = model_spec(name)
    settings = read_changes(name, changes)
    cost = model_cost(name, scale=scale, preset=preset, lr_px=lr_px, **settings)
    fixed = int(cost.scale) if spec.kind == "fixed" else None
    resolved = settings_dict(resolve_settings(name, fixed, preset, settings))
    reach = "any scale" if fixed is None else f"x{fixed}"
    lines = [
        f"{name} ({spec.family}, {reach}): {spec.summary}",
        f"paper       {spec.citation}",
        f"presets     {', '.join(spec.presets)} (shown: {preset})",
        f"parameters  {cost.parameters:,} ({cost.parameters_2_20:.2f} x 2^20)",
        f"arithmetic  {cost.gmac:.1f} GMAC for {lr_px} x {lr_px} LR px at x{cost.scale:g}",
        f"training    about {cost.saved_mib:,.0f} MiB of float32 activations for such a sample, "
        "attention unfused; less with fused attention, bfloat16 or checkpointing",
        "settings    " + ", ".join(f"{k}={v}" for k, v in resolved.items()),
    ]
    notes = sys.modules[spec.build.__module__].__doc__ or ""
    return "\n".join([*lines, "", notes.strip()])
