"""Presets of training: one YAML file per model family, beside this module.

``default.yaml`` holds what every model has; ``<model>.yaml`` changes it. In each, `common` comes
first and the preset's own part on top. `readings` say how a paper's open points were read,
`warnings` what in a paper's own numbers is implausible; both are shown when the preset is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from wsisr.errors import ConfigError
from wsisr.models import model_spec
from wsisr.models.registry import PRESETS, check_scale, resolve_settings
from wsisr.training.config import TrainConfig, merge, parse_config, read_assignments
from wsisr.words import closest

DEFAULT = "default"
DEFAULT_SCALE = 4


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A checked configuration and what must be said about it.

    Attributes
    ----------
    readings : tuple of str
        How the preset reads what its paper leaves open.
    warnings : tuple of str
        Implausible numbers that the preset keeps because the paper states them.
    """

    config: TrainConfig
    readings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def preset_file(name: str) -> Mapping[str, Any]:
    """One of the YAML files, or an empty mapping where a model has none of its own."""
    source = files("wsisr.training") / "presets" / f"{name}.yaml"
    if not source.is_file():
        return {}
    content = yaml.safe_load(source.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def training_preset(model: str, preset: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """Sections of a preset, its readings and its warnings (without the `model` section)."""
    content: dict[str, Any] = {}
    notes: dict[str, list[str]] = {"readings": [], "warnings": []}
    own = preset_file(model)
    for source in (preset_file(DEFAULT), own):
        content = merge(content, source.get("common", {}))
        content = merge(content, source.get("presets", {}).get(preset, {}))
    for kind, lines in notes.items():
        given = own.get(kind, {})
        lines += [*given.get("common", []), *given.get(preset, [])]
    if preset in ("paper", "official") and preset not in own.get("presets", {}):
        notes["warnings"].append(
            f"{model}: its paper's own training recipe is not restated; preset {preset} trains "
            "the paper's network by the general recipe"
        )
    return content, notes["readings"], notes["warnings"]


def resolve_config(
    model: str,
    *,
    preset: str = "recommended",
    scale: int | None = None,
    changes: Sequence[Mapping[str, Any]] = (),
    assignments: Sequence[str] = (),
) -> Resolved:
    """The configuration of a model's preset with changes on top.

    Parameters
    ----------
    scale : int, optional
        Of a fixed-scale model; 4 by default, or the only one the model is defined for.
    changes : sequence of mapping
        Nested values, e.g. of a file; later ones win.
    assignments : sequence of str
        ``section.key=value``, on top of all.

    Raises
    ------
    ConfigError, ModelError
        Whatever is unknown, out of range or does not fit together, in one sentence.
    """
    spec = model_spec(model)
    if model == "bicubic":
        raise ConfigError("bicubic has nothing to train; `wsisr eval` always has it as a row")
    if preset not in PRESETS:
        raise ConfigError(f"no preset {preset!r}; {closest(preset, PRESETS)}")
    if preset not in spec.presets:
        raise ConfigError(f"{model} has no preset {preset!r}; it has {', '.join(spec.presets)}")
    if spec.kind == "fixed" and scale is None:
        scale = DEFAULT_SCALE if spec.scales is None else spec.scales[0]
    if spec.kind == "arbitrary" and scale is not None:
        raise ConfigError(
            f"{model} is trained at all scales at once: leave --scale out; "
            "--set data.scale_range=1,4 chooses the range"
        )
    check_scale(spec, scale)
    content, readings, warnings = training_preset(model, preset)
    for change in (*changes, read_assignments(list(assignments))):
        content = merge(_without_other_recipe(content, change), change)
    section = {"name": model, "preset": preset, "scale": scale}
    content["model"] = merge(content.get("model", {}), section)
    config = parse_config(content)
    if config.recipe.kind == "auto":
        kind = "implicit" if spec.kind == "arbitrary" else "l1"
        content["recipe"] = merge(content.get("recipe", {}), {"kind": kind})
    if config.data.crop_hr_px is not None and scale is not None:
        crop = {"crop_lr_px": max(1, config.data.crop_hr_px // scale), "crop_hr_px": None}
        content["data"] = merge(content["data"], crop)
    if "scale_draw" in config.model.settings:
        draw = {"scale_draw": config.model.settings["scale_draw"]}
        content["data"] = merge(content.get("data", {}), draw)
    config = parse_config(content)
    _check(config, spec.kind)
    return Resolved(config=config, readings=tuple(readings), warnings=tuple(warnings))


def _without_other_recipe(content: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of another kind starts from its own settings: the preset's are not its."""
    recipe = content.get("recipe", {})
    asked = change.get("recipe", {})
    kind = asked.get("kind") if isinstance(asked, Mapping) else None
    if kind is None or kind == recipe.get("kind"):
        return content
    return {**content, "recipe": {"kind": kind}}


def _check(config: TrainConfig, kind: str) -> None:
    """What one section cannot know of another."""
    from wsisr.training.recipes import RECIPES, recipe_settings

    model, recipe = config.model, config.recipe.kind
    resolve_settings(model.name, model.scale, model.preset, model.settings)
    if RECIPES.get(recipe).trains != kind:
        raise ConfigError(
            f"recipe.kind={recipe} does not fit {model.name}, which is of {kind} scale; "
            f"use {'implicit' if kind == 'arbitrary' else 'l1'}"
        )
    if recipe == "wavelet" and model.name != "cwtnet":
        raise ConfigError(f"recipe.kind=wavelet is CWT-Net's alone; {model.name} takes l1")
    recipe_settings(config.recipe)
