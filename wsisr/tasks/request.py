"""What a user asks of ``wsisr train --task``, and the configuration that it means."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError
from wsisr.tasks.kinds import KINDS, Kind
from wsisr.training.config import TrainConfig, merge, parse_config, read_assignments

HR = "hr"
TASKS = Path("tasks")
_COMMON: Mapping[str, Any] = {
    "data": {"flips": True},
    "optim": {"optimiser": "adamw", "weight_decay": 1e-4, "betas": [0.9, 0.99], "clip_norm": 1.0,
              "schedule": "cosine", "floor": 0.01},
    "val": {"pictures": 0},
}  # fmt: skip
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "recommended": {
        "model": {"settings": {"width": 16}},
        "data": {"batch": 4, "crop_lr_px": 192},
        "optim": {"lr": 1e-3, "warmup_steps": 50},
        "train": {"steps": 1500, "ema": 0.99, "log_every": 50, "save_every": 250},
        "val": {"every": 500, "count": 64},
    },
    "tiny": {
        "model": {"settings": {"width": 8, "levels": 3}},
        "data": {"batch": 4, "crop_lr_px": 64},
        "optim": {"lr": 5e-3, "warmup_steps": 5},
        "train": {"steps": 60, "precision": "fp32", "ema": 0.9, "log_every": 20, "save_every": 20},
        "val": {"every": 60, "count": 4},
    },
}
"""recommended: minutes to an hour of a CPU; tiny: seconds, for trying out and for tests."""


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """What a user asks for; None stands for the default.

    Attributes
    ----------
    task : str
        ``nuclei``, ``glands`` or ``classes``.
    data : Path
        The pair store.
    truth : tuple of Path
        Folders of the labelled set.
    images : str
        What is learnt on: ``hr``, or a model (``bicubic``, a run) and its output at `scale`.
    lr_source : str
        Degradation that LR is made by for it.
    split : str
        ``train``, or several with commas.
    folds : int
        0: one network, validated on the split ``val``. Else one for each part of the patients,
        fitted on all others.
    assignments : tuple of str
        ``section.key=value``.
    output : Path or None
        ``tasks/<task>`` by default; folds lie in it.
    runs : Path
        Where models are looked for.
    """

    task: str
    data: Path = Path("pairs.zarr")
    truth: tuple[Path, ...] = ()
    images: str = HR
    scale: float | None = None
    lr_source: str = "bicubic"
    split: str = "train"
    folds: int = 0
    preset: str = "recommended"
    assignments: tuple[str, ...] = ()
    output: Path | None = None
    resume: bool = False
    seed: int | None = None
    steps: int | None = None
    device: str | None = None
    runs: Path = Path("runs")

    @property
    def kind(self) -> Kind:
        if self.task not in KINDS:
            raise ConfigError(f"--task {self.task}: there are {', '.join(KINDS)}")
        return KINDS[self.task]

    @property
    def words(self) -> str:
        """What the images are, without a folder."""
        if self.images == HR:
            return "HR"
        if self.scale is None:
            raise ConfigError(f"--images {self.images}: say at which --scale")
        return f"{Path(self.images).name} x{self.scale:g} of {self.lr_source} LR"

    @property
    def changes(self) -> dict[str, Any]:
        """The options that are configuration."""
        given = {"seed": self.seed, "steps": self.steps}
        train = {key: value for key, value in given.items() if value is not None}
        return merge({"train": train}, read_assignments(list(self.assignments)))


def resolve(request: TaskRequest) -> TrainConfig:
    """The configuration that a request means, earlier runs apart."""
    if request.preset not in PRESETS:
        raise ConfigError(f"--preset {request.preset}: references have {', '.join(PRESETS)}")
    content = merge(merge({}, _COMMON), PRESETS[request.preset])
    content = merge(content, {"data": {"lr_source": request.words}, "recipe": {"kind": "task"}})
    content = merge(content, request.changes)
    own = {"name": request.kind.network, "preset": request.preset, "scale": None}
    content["model"] = merge(content.get("model", {}), own)
    return parse_config(content)
