"""The training configuration: strict, typed, every field described.

A configuration is data: a preset (`wsisr.training.presets`), changed by a file and by
``section.key=value`` pairs, checked as a whole. An unknown key is an error with the likely one.
"""

import json
from collections.abc import Mapping
from math import cos, pi
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsisr.errors import ConfigError
from wsisr.words import closest, unknown_key

PresetName = Literal["paper", "official", "recommended", "tiny"]
Positive = Annotated[int, Field(ge=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class ModelSection(_Section):
    """Which network."""

    name: str = Field(description="name in the registry (wsisr models list)")
    preset: PresetName = Field(description="preset of architecture and training")
    scale: int | None = Field(description="magnification of a fixed-scale model; else null")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="changes to the architecture's preset"
    )


class DataSection(_Section):
    """What a batch is made of."""

    lr_source: str = Field("auto", description="auto, native, or the name of a degradation")
    batch: Positive = Field(8, description="samples a step and process")
    crop_lr_px: Positive = Field(48, description="side of a training crop, LR px")
    crop_hr_px: int | None = Field(
        None, ge=1, description="fixed-scale models: the side in HR px, in place of crop_lr_px"
    )
    margin_lr_px: int = Field(
        4,
        ge=0,
        description="LR px around the crop that are degraded with it and cut off, so that a "
        "simulated crop has no border that a whole image would not have",
    )
    flips: bool = Field(True, description="draw one of the eight symmetries for each sample")
    scale_range: tuple[float, float] | None = Field(
        None, description="scales of an arbitrary-scale model; null: the model's own range"
    )
    scale_draw: Literal["batch", "sample"] = Field(
        "batch", description="one scale for each step, or for each sample"
    )
    sample_px: Positive = Field(2304, description="HR pixels asked for in a sample (sample_q)")
    cache: Literal["auto", "device", "ram", "stream"] = Field(
        "auto", description="where patches wait: on the device, in memory, or in the store"
    )
    workers: int | None = Field(
        None, ge=0, description="threads that read ahead when streaming; null: by the cores"
    )

    @model_validator(mode="after")
    def _range(self) -> "DataSection":
        if self.scale_range is not None and not 1 <= self.scale_range[0] <= self.scale_range[1]:
            raise ValueError("scale_range must be low, high with 1 <= low <= high")
        return self


class OptimSection(_Section):
    """Optimiser and learning rate."""

    optimiser: Literal["adam", "adamw"] = "adam"
    lr: float = Field(1e-4, gt=0, description="learning rate at the start (after warm-up)")
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "multistep", "every", "cosine"] = "constant"
    milestones: tuple[float, ...] = Field(
        (0.5, 0.8, 0.9, 0.95), description="multistep: parts of all steps, each times gamma"
    )
    every_steps: Positive = Field(200_000, description="every: times gamma each so many steps")
    gamma: float = Field(0.5, gt=0, le=1)
    floor: float = Field(0.01, ge=0, le=1, description="cosine: last rate over the first")
    warmup_steps: int = Field(0, ge=0, description="linear rise over the first steps")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps`.

        >>> halved = OptimSection(lr=1.0, schedule="multistep", milestones=(0.5, 0.8))
        >>> [halved.rate_at(step, 10) for step in (0, 4, 5, 8)]
        [1.0, 1.0, 0.5, 0.25]
        """
        rate = self.lr
        if self.schedule == "multistep":
            rate *= self.gamma ** sum(step >= part * steps for part in self.milestones)
        elif self.schedule == "every":
            rate *= self.gamma ** (step // self.every_steps)
        elif self.schedule == "cosine":
            share = step / max(1, steps - 1)
            rate *= self.floor + (1 - self.floor) * 0.5 * (1 + cos(pi * min(1.0, share)))
        if step < self.warmup_steps:
            rate *= (step + 1) / self.warmup_steps
        return rate


class TrainSection(_Section):
    """The loop."""

    steps: Positive = Field(100_000, description="optimiser steps")
    accumulate: Positive = Field(1, description="batches whose gradients make one step")
    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 on a GPU that has it and a model that bears it, else fp32 (on a "
        "GPU with products in TF32)",
    )
    ema: float = Field(0.0, ge=0, lt=1, description="decay of averaged weights; 0: none")
    compile: Literal["off", "default", "reduce-overhead"] = Field(
        "off", description="torch.compile of the network, and its mode; true: default"
    )
    checkpointing: bool = Field(False, description="recompute blocks instead of keeping them")
    deterministic: bool = Field(False, description="refuse kernels that do not repeat exactly")
    log_every: Positive = 50
    save_every: Positive = Field(1000, description="steps between trainer states")
    keep_last: Positive = Field(3, description="trainer states that are kept")
    max_skipped: Positive = Field(50, description="non-finite steps in a row that end the run")
    tensorboard: bool = Field(False, description="also write TensorBoard files (extra)")
    trackers: tuple[str, ...] = Field(
        (), description="where numbers go besides the run's files: tensorboard, or a plug-in's"
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) and value else value

    @field_validator("compile", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false.
        return {False: "off", True: "default"}[value] if isinstance(value, bool) else value


class ValSection(_Section):
    """Validation on fixed samples."""

    every: Positive = Field(1000, description="steps between validations")
    count: Positive = Field(64, description="samples, spread evenly over the split")
    crop_lr_px: Positive = Field(96, description="side of a sample, LR px (at most the patch)")
    scales: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        description="of arbitrary-scale models; null: 4 and the end of the range",
    )
    pictures: int = Field(4, ge=0, description="samples in each picture")


class RecipeSection(_Section):
    """The loss."""

    kind: str = Field(
        "auto",
        description="l1, implicit, wavelet, contrastive, adversarial, or that of a plug-in; auto: "
        "implicit for arbitrary-scale models, else l1",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="of the recipe, e.g. weight of the contrastive term"
    )


class TrainConfig(_Section):
    """Everything that decides a run, the data and the version of the program apart."""

    model: ModelSection
    data: DataSection = DataSection()
    optim: OptimSection = OptimSection()
    train: TrainSection = TrainSection()
    val: ValSection = ValSection()
    recipe: RecipeSection = RecipeSection()

    def scales(self, design: tuple[float, float]) -> tuple[float, float]:
        """Smallest and largest scale of training, those that the network is made for by default."""
        if self.model.scale is not None:
            return float(self.model.scale), float(self.model.scale)
        return self.data.scale_range or design

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def schema_text() -> str:
    """JSON schema of the configuration."""
    return json.dumps(TrainConfig.model_json_schema(), indent=2)


def parse_config(content: Mapping[str, Any], where: str = "configuration") -> TrainConfig:
    """Check a configuration; `where` names it in errors.

    Raises
    ------
    ConfigError
        Unknown key (with the nearest one), wrong type, value out of range.
    """
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(lines)}") from None


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file of a configuration or of a part of one, unchecked."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a configuration is a YAML mapping of sections")
    return content


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, section by section; neither is touched."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def read_assignments(assignments: list[str]) -> dict[str, Any]:
    """``section.key=value`` pairs of a command line as nested values, unchecked.

    Keys of `model` are architecture settings; unknown keys of `recipe` are recipe settings.
    A value is read as YAML; commas make a list.
    """
    content: dict[str, Any] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not sign or not dot or not key:
            raise ConfigError(f"--set {text}: write section.key=value, e.g. optim.lr=2e-4")
        if section not in TrainConfig.model_fields:
            hint = closest(section, TrainConfig.model_fields)
            raise ConfigError(f"--set {text}: no section {section!r}; {hint}")
        if section == "model" and key in ("name", "scale", "preset"):
            raise ConfigError(f"--set {text}: use the option --{key.replace('name', 'model')}")
        inside = content.setdefault(section, {})
        if section == "model" or (section == "recipe" and key != "kind"):
            inside = inside.setdefault("settings", {})
        inside[key.removeprefix("settings.")] = _value(value.strip())
    return content


def differences(old: TrainConfig, new: TrainConfig, free: frozenset[str]) -> list[str]:
    """Sentences for each ``section.key`` outside `free` whose value differs."""
    found = []
    a, b = old.to_dict(), new.to_dict()
    for section in a:
        for key in a[section]:
            name = f"{section}.{key}"
            if name not in free and a[section][key] != b[section][key]:
                found.append(f"{name} was {a[section][key]}, not {b[section][key]}")
    return found


def _value(text: str) -> Any:
    if "," in text:
        return [_value(part.strip()) for part in text.strip("[]()").split(",") if part.strip()]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        # YAML 1.1 wants a point in 2e-4.
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"]) or "configuration"
    if item["type"] != "extra_forbidden":
        given = item.get("input")
        shown = f" (given: {given!r})" if isinstance(given, str | int | float) else ""
        if item["type"] == "tuple_type" and shown:
            return f"{place}: wants a list; {given}, (with a comma) is one of a single value"
        return f"{place}: {item['msg'].removeprefix('Value error, ')}{shown}"
    return unknown_key(item["loc"], TrainConfig)
