"""The record of a run (run.json) and of the machine it ran on."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from wsisr import __version__
from wsisr.device import facts, on_gpu
from wsisr.files import replace_file
from wsisr.inference.trained import FORMAT, FORMAT_VERSION, RUN_NAME
from wsisr.models.registry import MODELS
from wsisr.models.wrapper import SRModel
from wsisr.training.config import TrainConfig
from wsisr.training.parallel import Processes
from wsisr.training.plan import DataPlan
from wsisr.training.recipes import RECIPES

_PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "google-crc32c", "imagecodecs")


@dataclass(kw_only=True)
class RunRecord:
    """run.json while it is being written.

    Attributes
    ----------
    folder : Path or None
        None: nothing is written (dry runs).
    """

    folder: Path | None
    document: dict[str, Any]
    name: str = RUN_NAME

    def update(self, **values: Any) -> None:
        """Change some values and write the file."""
        self.document |= values
        if self.folder is not None:
            text = json.dumps(self.document, indent=2) + "\n"
            replace_file(self.folder / self.name, text.encode())

    def model_extra(self, step: int, psnr: float | None) -> dict[str, Any]:
        """What a saved model says of itself."""
        d = self.document
        return {
            "run": self.folder.name if self.folder else "",
            "step": step,
            "lr_origin": d["lr_origin"],
            "degradation": d["degradation"],
            "scale_range": d["scale_range"],
            "val_psnr_rgb": psnr,
            "store": d["store"],
            "seed": d["seed"],
            "features": d["features"],
            "diagnostic_use": False,
        }


def first_document(
    config: TrainConfig, model: SRModel, store: Mapping[str, str], environment: Mapping[str, Any]
) -> dict[str, Any]:
    """What the record of every run says when it begins, whatever is trained.

    Parameters
    ----------
    store : mapping of str to str
        Its ``path``, ``digest``, ``manifest`` and ``content``.
    """
    return {
        "created_with": f"wsisr {__version__}",
        "seed": config.train.seed,
        "state": "running",
        "step": 0,
        "steps": config.train.steps,
        "store": dict(store),
        "parameters": model.parameter_count,
        "config": config.to_dict(),
        "environment": dict(environment),
        "command": command_line(),
    }


def run_document(
    config: TrainConfig,
    plan: DataPlan,
    model: SRModel,
    *,
    scale_range: tuple[float, float],
    environment: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a super-resolution run that is about to start."""
    store = {
        "path": plan.path.name,
        "digest": plan.digest,
        "manifest": plan.manifest,
        "content": plan.content,
    }
    document: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": config.model.name,
        "preset": config.model.preset,
        "kind": model.info.kind,
        "scale": config.model.scale,
        "scale_range": list(scale_range),
        **first_document(config, model, store, environment),
        "batch": config.data.batch * environment["processes"] * config.train.accumulate,
        "lr_origin": plan.origin,
        "degradation": plan.degradation,
        "arrays": {"hr": plan.hr, "lr": plan.lr, "reference": plan.reference},
        "origins": plan.origins,
        "patients": list(plan.patients),
        "groups": list(plan.groups),
        "assumed": list(plan.assumed),
        "files": list(plan.files),
        "pairs": {"train": len(plan.train), "val": len(plan.val)},
        "citation": model.info.citation,
        **extra,
    }
    plugins = plugins_of(config, plan)
    if plugins:
        document["plugins"] = plugins
    return document


def plugins_of(config: TrainConfig, plan: DataPlan) -> list[dict[str, str]]:
    """Where the network, recipe and degradation of a run come from that are not built in."""
    found = [MODELS.record(config.model.name), RECIPES.record(config.recipe.kind)]
    own = [record for record in found if record is not None]
    return own + (plan.simulation.plugins if plan.simulation is not None else [])


def command_line() -> str:
    """The command that was typed, without folders."""
    return " ".join(_without_folder(word) for word in sys.argv)


def _without_folder(word: str) -> str:
    """A word of the command line; of an absolute path or an address its name alone: a record is
    passed on."""
    option, equals, value = word.rpartition("=")
    whole = Path(value).is_absolute() or "://" in value
    return f"{option}{equals}{Path(value).name if whole else value}"


def describe_environment(device: torch.device, processes: Processes) -> dict[str, Any]:
    """Machine and versions, without which no speed and no last bit can be understood."""
    packages = {"wsisr": __version__}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "device": str(device),
        "processes": processes.count,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    if on_gpu(device):
        about = facts(device)
        found |= {"gpu": about.pop("name"), **about}
    return found
