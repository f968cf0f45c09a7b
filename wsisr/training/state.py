"""Trainer states on disk: tensors as safetensors, numbers as JSON, never a pickle.

A state is two files, ``step-00000200.safetensors`` and ``.json``. The JSON is renamed into place
last and holds the hash of the tensors: a state without it, or with another hash, is broken, and
the one before is taken, which is said.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from wsisr.files import replace_file
from wsisr.host import make_durable
from wsisr.training.interrupts import TrainingError

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TrainerState:
    """What one file pair holds.

    Attributes
    ----------
    tensors : mapping of str to Tensor
        By ``part/key``.
    scalars : mapping
        Plain JSON values, ``step`` among them.
    skipped : tuple of str
        Sentences about newer states that could not be read.
    """

    tensors: Mapping[str, Tensor]
    scalars: Mapping[str, Any]
    skipped: tuple[str, ...] = ()

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part by key."""
        prefix = name + "/"
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def state_path(folder: Path, step: int) -> Path:
    """The tensors' file of a step."""
    return folder / f"step-{step:08d}.safetensors"


def write_state(
    folder: Path, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any], keep: int
) -> Path:
    """Write a state and remove all but the newest `keep`; `read_state` never sees half a one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = state_path(folder, int(scalars["step"]))
    partial = path.with_suffix(".partial")
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial)
        digest = _digest(partial)
        make_durable(partial)
        os.replace(partial, path)
        document = {"format_version": FORMAT_VERSION, "digest": digest, **scalars}
        text = json.dumps(document, indent=2) + "\n"
        replace_file(path.with_suffix(".json"), text.encode())
    finally:
        partial.unlink(missing_ok=True)
    for old in state_steps(folder)[keep:]:
        for suffix in (".json", ".safetensors"):
            state_path(folder, old).with_suffix(suffix).unlink(missing_ok=True)
    return path


def state_steps(folder: Path) -> list[int]:
    """Steps that have a state, newest first."""
    found = (path.stem.removeprefix("step-") for path in folder.glob("step-*.json"))
    return sorted((int(text) for text in found if text.isdigit()), reverse=True)


def read_state(folder: Path) -> TrainerState | None:
    """The newest state that is whole; None where there is none at all.

    Raises
    ------
    TrainingError
        If there are states and all of them are broken.
    """
    faults: list[str] = []
    for step in state_steps(folder):
        path = state_path(folder, step)
        try:
            scalars = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if scalars.get("format_version") != FORMAT_VERSION:
                raise ValueError(f"format version {scalars.get('format_version')}")
            if _digest(path) != scalars["digest"]:
                raise ValueError("its content does not match its hash")
            return TrainerState(tensors=load_file(path), scalars=scalars, skipped=tuple(faults))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            SafetensorError,
        ) as error:
            faults.append(f"{path} is broken ({error}): it is passed over.")
    if faults:
        raise TrainingError(
            f"{' '.join(faults)} No whole state is left; start again in another folder, with "
            "--init-from to keep the saved weights"
        )
    return None


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by ``<parameter>.<quantity>``; rates are functions of the step."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{key}": value for i, kept in state.items() for key, value in kept.items()}


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        place, _, key = name.partition(".")
        state.setdefault(int(place), {})[key] = value
    whole = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load a module exactly, or say that the state belongs to another one."""
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        # The first line of torch's text names the class, the second one the fault.
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise TrainingError(
            f"the trainer state does not fit the {what} ({reason[0].strip()}); it belongs to "
            "another run: put this run's own files back into its checkpoints"
        ) from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
