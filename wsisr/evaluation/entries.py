"""What is evaluated: training runs, saved models, and methods without weights."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError
from wsisr.models import SRModel, create_model, load_model, model_spec
from wsisr.models.weights import WEIGHTS_NAME, read_config
from wsisr.store.files import file_sha256
from wsisr.training.runs import RUN_NAME, find_runs, open_run

BASELINE = "bicubic"
_NOT_RECIPE = (
    "seed",
    "workers",
    "cache",
    "log_every",
    "save_every",
    "keep_last",
    "tensorboard",
    "pictures",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model in the tables.

    Attributes
    ----------
    name : str
        Of the run or folder; unique in an evaluation.
    model, preset, kind : str
    scale : int or None
        Of a fixed-scale model.
    scale_range : (float, float)
        Scales it was trained on.
    seed : int or None
    weights : Path or None
        Saved model; None for methods without weights.
    weights_sha256 : str
        Empty without weights.
    trained_origin : str or None
        Origin of the LR it was trained on; None where nothing was trained, or nothing is known.
    patients, groups : frozenset of str, or None
        Seen in training; None where it is not known.
    trained_store : str or None
        Digest of the store it was trained on.
    recipe : str
        Equal for runs that differ in nothing but their seed.
    reference : str
        ``oracle`` where the model is fed with a finer image made from HR.
    state : str
        Of the run.
    step, steps : int or None
        Training steps done and planned.
    """

    name: str
    model: str
    preset: str
    kind: str
    scale: int | None
    scale_range: tuple[float, float]
    seed: int | None = None
    weights: Path | None = None
    weights_sha256: str = ""
    trained_origin: str | None = None
    patients: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    trained_store: str | None = None
    recipe: str = ""
    reference: str = "none"
    state: str = ""
    step: int | None = None
    steps: int | None = None

    @property
    def trained(self) -> bool:
        """Whether it has learned from any images."""
        return self.weights is not None

    def serves(self, scale: float) -> bool:
        """Whether a column of this scale is its own."""
        return self.kind == "arbitrary" or self.scale == scale

    def in_range(self, scale: float) -> bool:
        """Whether it was trained at this scale."""
        low, high = self.scale_range
        return low - 1e-9 <= scale <= high + 1e-9

    def load(self, device: Any = "cpu") -> SRModel:
        """The network, in eval mode."""
        if self.weights is not None:
            return load_model(self.weights, device)
        return create_model(self.model, preset=self.preset).to(device).eval()

    def record(self) -> dict[str, Any]:
        """Plain values for results.json."""
        return {
            "name": self.name,
            "model": self.model,
            "preset": self.preset,
            "kind": self.kind,
            "scale": self.scale,
            "scale_range": list(self.scale_range),
            "seed": self.seed,
            "weights": None if self.weights is None else str(self.weights),
            "weights_sha256": self.weights_sha256,
            "trained_origin": self.trained_origin,
            "trained_store": self.trained_store,
            "recipe": self.recipe,
            "reference": self.reference,
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
        }


def baseline() -> Entry:
    """Bicubic interpolation."""
    return Entry(
        name=BASELINE,
        model=BASELINE,
        preset="recommended",
        kind="arbitrary",
        scale=None,
        scale_range=(1.0, 64.0),
        recipe=BASELINE,
    )


def find_entries(models: Sequence[str], runs: Path) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Entries of an evaluation, bicubic first, and what had to be left out.

    Parameters
    ----------
    models : sequence of str
        Run folders (or names of runs below `runs`), saved models, ``bicubic``; empty: all runs.
    runs : Path

    Raises
    ------
    ConfigError
        A name is neither; two entries have one name; a named run has saved nothing yet.
    """
    entries, notes = [baseline()], []
    if models:
        entries += [entry for text in models if (entry := _named(text, runs)).name != BASELINE]
    else:
        for run in find_runs(runs):
            try:
                entries.append(_from_run(run.folder))
            except ConfigError as error:
                notes.append(f"{run.name} is left out: {error}")
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"Two models are named {twice[0]!r}; rename one of the folders.")
    return tuple(entries), tuple(notes)


def _named(text: str, runs: Path) -> Entry:
    if text == BASELINE:
        return baseline()
    for folder in (Path(text), runs / text):
        if (folder / RUN_NAME).is_file():
            return _from_run(folder)
        if (folder / WEIGHTS_NAME).is_file():
            return _from_saved(folder)
    raise ConfigError(
        f"--model {text}: no training run and no saved model (looked for {text} and "
        f"{runs / text}). Networks need weights; bicubic is the one method without."
    )


def _from_run(folder: Path) -> Entry:
    run = open_run(folder)
    return Entry(
        name=run.name,
        model=run.model,
        preset=run.preset,
        kind=run.kind,
        scale=run.scale,
        scale_range=run.scale_range,
        seed=run.seed,
        weights=run.weights,
        weights_sha256=file_sha256(run.weights / WEIGHTS_NAME),
        trained_origin=run.lr_origin,
        patients=run.patients,
        groups=run.groups,
        trained_store=run.store.get("digest"),
        recipe=recipe_key(run.document),
        state=run.state,
        step=run.step,
        steps=run.steps,
    )


def _from_saved(folder: Path) -> Entry:
    config = read_config(folder)
    extra = config.get("extra", {})
    spec = model_spec(config["name"])
    scale = config["scale"]
    low, high = extra.get("scale_range") or ((scale, scale) if scale else (1.0, 4.0))
    digest = file_sha256(folder / WEIGHTS_NAME)
    return Entry(
        name=folder.resolve().name,
        model=config["name"],
        preset=config["preset"],
        kind=spec.kind,
        scale=scale,
        scale_range=(float(low), float(high)),
        seed=extra.get("seed"),
        weights=folder,
        weights_sha256=digest,
        trained_origin=extra.get("lr_origin"),
        trained_store=(extra.get("store") or {}).get("digest"),
        recipe=digest,
        step=extra.get("step"),
    )


def recipe_key(document: Any) -> str:
    """Hash of everything of a run's record that decides its result, except the seed."""
    config = _recipe(document.get("config") or {})
    parts = {
        key: document.get(key)
        for key in ("model", "preset", "scale", "scale_range", "lr_origin", "degradation", "steps")
    }
    parts["store"] = (document.get("store") or {}).get("digest")
    text = json.dumps([parts, config], sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]


def _recipe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _recipe(part) for key, part in value.items() if key not in _NOT_RECIPE}
    return value
