"""Which models are evaluated, and which cannot be."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from wsisr.errors import ConfigError
from wsisr.evaluation.columns import ScaleColumn
from wsisr.evaluation.settings import scale_label
from wsisr.inference.opening import open_model
from wsisr.inference.trained import BICUBIC, TrainedModel, run_folders
from wsisr.plugins import check_recorded

ORACLES = {"oracle": " (oracle)", "oracle-updown": " (oracle, reduced and enlarged)"}
"""How models are named that are fed with a finer image made from HR."""
HR_ITSELF = TrainedModel(
    name="HR",
    model="hr",
    preset="",
    scale=None,
    scale_range=(1.0, 64.0),
    is_network=False,
)
"""What downstream tasks find in HR is what the others are measured by; no pixel score counts it."""


@dataclass(frozen=True, kw_only=True)
class ModelFailure:
    """A model without a result: it cannot be loaded, or it broke down.

    Attributes
    ----------
    name : str
        Of the run or folder.
    reason : str
        In a sentence.
    origin, scale : str, float or None
        The column that it broke down in; empty and None: all of them.
    """

    name: str
    reason: str
    origin: str = ""
    scale: float | None = None

    @classmethod
    def of(
        cls, error: Exception, name: str, folder: Path, column: ScaleColumn | None = None
    ) -> Self:
        """From an error about a model in `folder`, without the path: results are passed on."""
        return cls(
            name=name,
            reason=str(error).replace(f"{folder.parent}{os.sep}", ""),
            origin="" if column is None else column.origin,
            scale=None if column is None else column.scale,
        )

    def __str__(self) -> str:
        where = "" if self.scale is None else f"{self.origin} {scale_label(self.scale)}: "
        return f"{where}{self.reason}"


def failed_of(failures: Sequence[ModelFailure]) -> dict[str, str]:
    """Name to reason, for results.json."""
    return {failure.name: str(failure).rstrip(".") for failure in failures}


def find_entries(
    models: Sequence[str], runs: Path
) -> tuple[tuple[TrainedModel, ...], tuple[ModelFailure, ...]]:
    """Models of an evaluation, bicubic first, and those that cannot be read.

    Parameters
    ----------
    models : sequence of str
        Run folders (or names of runs below `runs`), saved models, files of weights, ``bicubic``;
        empty: all runs.

    Raises
    ------
    ModelError
        A name is none of these, or a file of weights cannot be taken over.
    ConfigError
        Two models have one name.
    """
    entries, failures = [BICUBIC], []
    found: list[str | Path] = [*models] or [*run_folders(runs)]
    for text in found:
        try:
            entry = open_model(text, runs)
            if entry.is_network:
                entry.weights_sha256  # noqa: B018 - there must be weights
                changed(entry)
                entries.append(entry)
        except (ConfigError, OSError) as error:
            failures.append(ModelFailure.of(error, Path(text).name, Path(text)))
    refuse_twins([entry.name for entry in entries] + [failure.name for failure in failures])
    return tuple(entries), tuple(failures)


def changed(entry: TrainedModel) -> list[str]:
    """Sentences on a network whose plug-in is not what it was.

    Raises
    ------
    PluginError
        It is not here at all.
    """
    return check_recorded(network_plugins(entry), entry.name)


def network_plugins(entry: TrainedModel) -> list[Any]:
    """Where an entry's network comes from, if it is not built in; of a run nothing else counts."""
    return [r for r in entry.plugins if isinstance(r, dict) and r.get("what") == "model"]


def refuse_twins(names: Sequence[str], what: str = "models") -> None:
    """Raise `ConfigError` if two of them have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Two {what} are named {twice[0]!r}; rename one of the folders.")


def reference_of(entry: TrainedModel) -> str:
    """``none``, or which finer image made from HR it is fed with; ``hr``: it is HR."""
    if entry.model == HR_ITSELF.model:
        return HR_ITSELF.model
    return next((kind for kind, mark in ORACLES.items() if entry.name.endswith(mark)), "none")


def record(entry: TrainedModel) -> dict[str, Any]:
    """Plain values for results.json."""
    run = bool(entry.state)
    return {
        "name": entry.name,
        "model": entry.model,
        "preset": entry.preset,
        "kind": entry.kind,
        "scale": entry.scale,
        "scale_range": list(entry.scale_range),
        "seed": entry.seed,
        "weights": entry.weights.name if entry.is_network else None,
        "weights_sha256": entry.weights_sha256,
        "trained_origin": entry.lr_origin,
        "trained_store": entry.store.get("digest"),
        "recipe": entry.recipe,
        "reference": reference_of(entry),
        "state": entry.state,
        "step": entry.document.get("step"),
        "steps": entry.steps if run else None,
        **({"plugins": network_plugins(entry)} if network_plugins(entry) else {}),
    }
