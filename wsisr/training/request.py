"""What a user asks for, and what it means here: configuration, device, folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wsisr.degradation import Degradation, parse_degradation
from wsisr.device import accelerated, choose_device
from wsisr.errors import ConfigError, DegradationError
from wsisr.inference.trained import RUN_NAME, TrainedModel, open_run
from wsisr.locks import IN_FOLDER
from wsisr.models import create_model, model_spec
from wsisr.models.registry import PRESETS
from wsisr.plugins import check_recorded
from wsisr.training.config import (
    TrainConfig,
    differences,
    merge,
    parse_config,
    read_assignments,
    read_config,
)
from wsisr.training.outputs import BEGUN, CONFIG_NAME, PROBE_NAME, PROFILE_NAME
from wsisr.training.parallel import Processes, join
from wsisr.training.presets import DEFAULT_SCALE, Resolved, resolve_config

RUNS = Path("runs")
FREE_TO_CHANGE = frozenset(
    {
        "data.batch",
        "data.cache",
        "data.workers",
        "train.accumulate",
        "train.steps",
        "train.log_every",
        "train.save_every",
        "train.keep_last",
        "train.compile",
        "train.checkpointing",
        "train.max_skipped",
        "train.tensorboard",
        "train.trackers",
        "val.every",
        "val.pictures",
    }
)
"""What a resumed run may change: nothing of it decides what is learnt.

Steps: said. Batch and accumulated batches: only if a step keeps its number of samples (checked).
"""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a user asks for; None stands for the default.

    Attributes
    ----------
    data : Path
        The pair store.
    preset : str
        ``auto``: recommended on a GPU, tiny without one.
    lr_source : str or None
        ``auto``, ``native`` or a degradation.
    assignments : tuple of str
        ``section.key=value``.
    config : Path or None
        YAML file of any part of the configuration.
    output : Path or None
        Run folder; ``runs/<model>-x<scale>`` or ``runs/<model>`` by default.
    init_from : Path or None
        A run, a saved model or another project's weights to start from.
    """

    model: str
    data: Path = Path("pairs.zarr")
    scale: int | None = None
    preset: str = "auto"
    lr_source: str | None = None
    assignments: tuple[str, ...] = ()
    config: Path | None = None
    output: Path | None = None
    resume: bool = False
    init_from: Path | None = None
    seed: int | None = None
    steps: int | None = None
    device: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """The options that are configuration."""
        content: dict[str, Any] = {}
        if self.lr_source is not None:
            content["data"] = {"lr_source": self.lr_source}
        train = {"seed": self.seed, "steps": self.steps}
        given = {key: value for key, value in train.items() if value is not None}
        return content | ({"train": given} if given else {})


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything decided before a pixel is read."""

    request: TrainRequest
    resolved: Resolved
    folder: Path
    processes: Processes
    device: torch.device
    earlier: TrainedModel | None
    profile: Degradation | None = None


def resolve(request: TrainRequest, gpu: bool) -> Resolved:
    """The configuration that a request means, earlier runs apart."""
    changes = [read_config(request.config)] if request.config else []
    preset = request.preset
    if preset == "auto":
        in_file = (changes[0].get("model") or {}).get("preset") if changes else None
        preset = in_file or ("recommended" if gpu else "tiny")
    return resolve_config(
        request.model,
        preset=preset,
        scale=request.scale,
        changes=[*changes, request.changes],
        assignments=request.assignments,
    )


def settle(request: TrainRequest, *, writes: bool = True) -> Setting:
    """Device, configuration and folder; refuses to write over an earlier run."""
    _check_plugins(request)
    processes, device = join(request.device)
    resolved = resolve(request, accelerated(device))
    scale = resolved.config.model.scale
    name = request.model if scale is None else f"{request.model}-x{scale}"
    folder = request.output or RUNS / name
    earlier = open_run(folder) if writes and (folder / RUN_NAME).is_file() else None
    if writes and earlier is None and folder.exists() and not only_begun(folder):
        raise ConfigError(f"{folder} is there and is no run; name another folder with -o")
    if earlier is not None:
        resolved = _resumed(earlier, request, resolved)
        _check_samples(earlier, resolved.config, processes.count)
    resolved, profile = _with_own_profile(resolved, earlier)
    # No process may make the folder before all have looked.
    processes.wait()
    return Setting(
        request=request,
        resolved=resolved,
        folder=folder,
        processes=processes,
        device=device,
        earlier=earlier,
        profile=profile,
    )


def _check_plugins(request: TrainRequest) -> None:
    """Name a plug-in that a run was begun with before its network is looked for."""
    usual = (RUNS / request.model, RUNS / f"{request.model}-x{request.scale or DEFAULT_SCALE}")
    for folder in usual if request.output is None else (request.output,):
        if request.resume and (folder / RUN_NAME).is_file():
            check_recorded(open_run(folder).plugins, str(folder))


def _with_own_profile(
    resolved: Resolved, earlier: TrainedModel | None
) -> tuple[Resolved, Degradation | None]:
    """A profile that a file holds becomes the run's own: paths mean nothing where the run goes."""
    data = resolved.config.data
    if ".json" not in data.lr_source:
        return resolved, None
    if earlier is not None and data.lr_source == PROFILE_NAME:
        return resolved, _profile(str(earlier.folder / PROFILE_NAME))
    profile = _profile(data.lr_source)
    own = data.model_copy(update={"lr_source": PROFILE_NAME})
    return replace(resolved, config=resolved.config.model_copy(update={"data": own})), profile


def _profile(text: str) -> Degradation:
    try:
        return parse_degradation(text)
    except DegradationError as error:
        raise ConfigError(f"--lr-source: {error}") from None


def only_begun(folder: Path) -> bool:
    """Whether all that lies there is what a kill leaves before the run has its record."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if IN_FOLDER not in names:
        # Somebody's configuration may lie in a folder; only we leave a probe.
        return names <= {PROBE_NAME}
    return all(name.startswith(".") or name in BEGUN for name in names)


def begun_config(folder: Path, record: Mapping[str, Any], resume: bool) -> TrainConfig:
    """The configuration of a run that is there; `ConfigError` unless the user says to go on."""
    if not resume:
        raise ConfigError(
            f"{folder} is already there ({record['state']}, step {record['step']} of "
            f"{record['steps']}): go on with it by --resume, or name another folder with -o"
        )
    path = folder / CONFIG_NAME
    return parse_config(read_config(path), str(path))


def _resumed(earlier: TrainedModel, request: TrainRequest, now: Resolved) -> Resolved:
    """The earlier run's configuration with what may change; anything else is refused."""
    old = begun_config(earlier.folder, earlier.document, request.resume)
    if request.model != old.model.name:
        raise ConfigError(f"{earlier.folder} is a run of {old.model.name}, not of {request.model}")
    if request.scale is not None and request.scale != old.model.scale:
        raise ConfigError(f"{earlier.folder} is a run at x{old.model.scale}, not x{request.scale}")
    if request.preset not in ("auto", old.model.preset):
        raise ConfigError(
            f"{earlier.folder} is a run of preset {old.model.preset}, not {request.preset}"
        )
    content = old.to_dict()
    asked = [read_config(request.config)] if request.config else []
    for change in (*asked, request.changes, read_assignments(list(request.assignments))):
        content = merge(content, change)
    given = content["data"]["lr_source"]
    if old.data.lr_source == PROFILE_NAME != given and ".json" in given:
        # The same profile under the path that it was given by.
        kept = _profile(str(earlier.folder / PROFILE_NAME))
        if _profile(given).digest == kept.digest:
            content = merge(content, {"data": {"lr_source": PROFILE_NAME}})
    new = parse_config(content)
    if new.train.steps < earlier.step:
        raise ConfigError(
            f"{earlier.folder} has done {earlier.step} steps: {new.train.steps} are fewer"
        )
    changed = differences(old, new, FREE_TO_CHANGE)
    if changed:
        raise ConfigError(
            f"--resume goes on with {earlier.folder} as it was, and {'; '.join(changed)}; start "
            "another run with -o, from these weights with --init-from"
        )
    return replace(now, config=new)


def _check_samples(earlier: TrainedModel, config: TrainConfig, processes: int) -> None:
    """Another number of samples in a step would take other patches than the run would have."""
    batch, parts = config.data.batch, config.train.accumulate
    before, now = earlier.document["batch"], batch * processes * parts
    if before != now:
        raise ConfigError(
            f"{earlier.folder} takes {before} samples a step, not {now} (data.batch {batch} x "
            f"{processes} processes x train.accumulate {parts}): set data.batch or "
            "train.accumulate so that it is the same"
        )


def config_text(request: TrainRequest) -> str:
    """The resolved configuration as YAML, readings and warnings as comments above it."""
    resolved = resolve(request, accelerated(choose_device(request.device)))
    notes = [*(f"reading: {r}" for r in resolved.readings)]
    notes += [f"warning: {w}" for w in resolved.warnings]
    return "\n".join([*(f"# {note}" for note in notes), resolved.config.to_yaml().rstrip()])


def opening_lines(setting: Setting) -> list[str]:
    """The preset and why, and what the others would cost."""
    config, request = setting.resolved.config, setting.request
    model = config.model
    if setting.earlier is not None:
        lines = [f"Going on with {setting.folder} (preset {model.preset})."]
        before, steps = setting.earlier.steps, config.train.steps
        if steps != before:
            lines.append(
                f"{steps:,} steps in place of {before:,}: the learning rate follows the new length."
            )
        return lines
    reason = ""
    if request.preset == "auto":
        gpu = "on a GPU" if accelerated(setting.device) else "no GPU here"
        reason = f" (chosen: {gpu})"
    first = f"Preset {model.preset}{reason}: {_cost(config)}."
    if request.resume:
        first = f"{setting.folder} holds no run yet: this starts it. {first}"
    others = [name for name in PRESETS if name in model_spec(model.name).presets]
    if request.preset == "auto":
        own = _arithmetic(config)
        for name in others:
            if name != model.preset:
                other = resolve_config(model.name, preset=name, scale=model.scale).config
                times = _arithmetic(other) / own
                first += f" {name}: {_cost(other)}, roughly {_round(times)} times the arithmetic."
    return [first]


def _cost(config: TrainConfig) -> str:
    return (
        f"{_parameters(config) / 1e6:.2f} M parameters, {config.train.steps:,} steps of "
        f"{config.data.batch * config.train.accumulate} crops of {config.data.crop_lr_px} LR px"
    )


def _parameters(config: TrainConfig) -> int:
    section = config.model
    with torch.device("meta"):
        return create_model(
            section.name, scale=section.scale, preset=section.preset, **section.settings
        ).parameter_count


def _arithmetic(config: TrainConfig) -> float:
    """Parameters x pixels x samples: right to a factor of a few for networks that work at LR."""
    data, steps = config.data, config.train.steps * config.train.accumulate
    return float(_parameters(config)) * data.crop_lr_px**2 * data.batch * steps


def _round(value: float) -> str:
    return f"{float(f'{value:.1g}'):,.0f}" if value >= 2 else f"{value:.1f}"
