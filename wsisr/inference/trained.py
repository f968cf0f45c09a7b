"""What a trained model is on disk: for evaluation, upscaling, reports and resume; without torch.

The folder of a run::

    run.json        what this module reads; written atomically, first when the run starts
    config.yaml     the resolved training configuration
    best/, last/    saved models (`wsisr.models.save_model`), averaged weights where used
    checkpoints/    trainer states, the last few
    log.csv, log.jsonl, validation.csv
    samples/        fixed validation samples as PNG: LR, bicubic, SR, HR, error
    curves.png, card.md, environment.json

A saved model by itself (weights and ``config.json``) knows less: what was recorded with it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError, MagnificationError, ModelError, damage_is_clear
from wsisr.files import file_sha256, read_document
from wsisr.magnification import parse_magnification

FORMAT = "wsisr-run"
FORMAT_VERSION = 1
RUN_NAME = "run.json"
BEST = "best"
LAST = "last"
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
CARD_NAME = "README.md"
BASELINE = "bicubic"
SHIPPED = Path(__file__).parents[1] / "weights"
_AGAIN = "copy it again from where it was written"
_NOT_RECIPE = (
    "seed",
    "workers",
    "cache",
    "log_every",
    "save_every",
    "keep_last",
    "tensorboard",
    "trackers",
    "pictures",
)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A training run, a saved model, or bicubic interpolation, which nobody trained.

    Attributes
    ----------
    name : str
        Of the run or folder.
    model, preset : str
        Registry name and resolved preset.
    scale : int or None
        Of a fixed-scale model.
    scale_range : (float, float)
        Scales it was trained on, or designed for where nothing is recorded.
    folder : Path
        Of the run or of the saved model.
    saved : Path or None
        The saved model that was asked for, or the weights' file of another program; None: a run's
        own choice.
    document : mapping
        All of run.json, or what was recorded with a saved model; the properties read it.
    is_network : bool
        Whether it has weights on disk that were learned from images.
    """

    name: str
    model: str
    preset: str
    scale: int | None
    scale_range: tuple[float, float]
    folder: Path = Path()
    saved: Path | None = None
    document: Mapping[str, Any] = field(default_factory=dict)
    is_network: bool = True

    @property
    def reach(self) -> str:
        """``"x4"``, or ``"x1 to x4"``: the scales it was trained on."""
        low, high = self.scale_range
        return f"x{low:g} to x{high:g}" if self.scale is None else f"x{self.scale}"

    @property
    def kind(self) -> str:
        """``"fixed"`` or ``"arbitrary"``."""
        return "arbitrary" if self.scale is None else "fixed"

    @property
    def weights(self) -> Path:
        """Folder of the saved model (or the file of another program): that asked for, or a run's
        best by validation PSNR, or last.

        An adversarial run gives its last first: PSNR falls as it learns, so its best by PSNR is
        the one that has learnt least.

        Raises
        ------
        ConfigError
            If a run has saved none yet.
        """
        if self.saved is not None:
            return self.saved
        if not self.is_network:
            raise ConfigError(f"{self.name} has no weights")
        recipe = (self.document.get("config") or {}).get("recipe") or {}
        adversarial = recipe.get("kind") == "adversarial"
        for name in (LAST, BEST) if adversarial else (BEST, LAST):
            if (self.folder / name / WEIGHTS_NAME).is_file():
                return self.folder / name
        raise ConfigError(
            f"{self.folder} has saved no model yet ({self.state}, step {self.step}); let it train "
            "to its first validation"
        )

    @cached_property
    def weights_sha256(self) -> str:
        """Of the weights' file; empty without weights."""
        if not self.is_network:
            return ""
        place = self.weights
        return file_sha256(place if place.is_file() else place / WEIGHTS_NAME)

    @property
    def seed(self) -> int | None:
        return self.document.get("seed")

    @property
    def state(self) -> str:
        """``"running"``, ``"interrupted"`` or ``"finished"``; empty where there is no run."""
        return str(self.document.get("state") or "")

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.document.get("step") or 0)

    @property
    def steps(self) -> int:
        """Training steps planned."""
        return int(self.document.get("steps") or 0)

    @property
    def lr_origin(self) -> str | None:
        """``rescan``, ``stored-level``, ``reduced`` or ``simulated:<degradation>``; or unknown."""
        return self.document.get("lr_origin")

    @property
    def degradation(self) -> str | None:
        """Name of a built-in one, or the one that a profile gives itself; None: not simulated."""
        return self.document.get("degradation")

    @property
    def store(self) -> Mapping[str, Any]:
        """``path`` (as given), ``digest``, ``manifest`` of the data; empty where unknown."""
        return self.document.get("store") or {}

    @property
    def patients(self) -> frozenset[str] | None:
        """Seen in training or validation, so that they may not stand in a test; None: unknown."""
        return _names(self.document.get("patients"))

    @property
    def groups(self) -> frozenset[str] | None:
        """Glasses, likewise."""
        return _names(self.document.get("groups"))

    @property
    def assumed(self) -> frozenset[str]:
        """Patients whose names are assumed: such a name means nothing of other stores."""
        return _names(self.document.get("assumed")) or frozenset()

    @property
    def files(self) -> frozenset[str] | None:
        """Fingerprints of the slides, likewise; None where they were not recorded."""
        return _names(self.document.get("files"))

    @property
    def crop_px(self) -> int | None:
        """Side of the crops it was trained on, LR px, where recorded."""
        data = (self.document.get("config") or {}).get("data") or {}
        side = data.get("crop_lr_px")
        return side if isinstance(side, int) and side > 0 else None

    @property
    def hr_magnification(self) -> float | None:
        """Nominal magnification that it was trained to give, where recorded."""
        arrays = self.document.get("arrays")
        try:
            return parse_magnification(str(arrays["hr"] if isinstance(arrays, dict) else None))
        except (MagnificationError, KeyError):
            return None

    @property
    def plugins(self) -> list[Any]:
        """Where its network (a run's: and recipe, degradation) comes from, if not built in."""
        found = self.document.get("plugins")
        return found if isinstance(found, list) else []

    @property
    def recipe(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        if not self.is_network:
            return self.name
        if self.document.get("format") != FORMAT:
            return self.weights_sha256
        keys = ("model", "preset", "scale", "scale_range", "lr_origin", "degradation", "steps")
        parts = {key: self.document.get(key) for key in keys}
        parts["store"] = self.store.get("digest")
        settings = _recipe(self.document.get("config") or {})
        text = json.dumps([parts, settings], sort_keys=True, default=str)
        return sha256(text.encode()).hexdigest()[:16]

    def serves(self, scale: float) -> bool:
        """Whether a scale is its own."""
        return self.scale is None or self.scale == scale

    def in_range(self, scale: float) -> bool:
        """Whether it was trained at this scale."""
        low, high = self.scale_range
        return low - 1e-9 <= scale <= high + 1e-9


BICUBIC = TrainedModel(
    name=BASELINE,
    model=BASELINE,
    preset="recommended",
    scale=None,
    scale_range=(1.0, 64.0),
    is_network=False,
)


def open_run(folder: Path | str) -> TrainedModel:
    """Read a run's record.

    Raises
    ------
    ConfigError
        If there is none, or it is broken or of a newer format.
    """
    folder = Path(folder)
    path = folder / RUN_NAME
    document = read_document(path, "a training run", FORMAT, FORMAT_VERSION)
    with damage_is_clear(path, ConfigError, _AGAIN):
        low, high = document["scale_range"]
        scale = document["scale"]
        for key in ("seed", "step", "steps"):
            document[key] = int(document[key])
        for key in ("state", "lr_origin", "degradation", "kind"):
            document[key]
        for key in ("patients", "groups", "assumed", "files"):
            frozenset(document.get(key, ()))
        document["patients"], document["groups"], dict(document["store"])
        return TrainedModel(
            name=folder.resolve().name,
            model=str(document["model"]),
            preset=str(document["preset"]),
            scale=None if scale is None else int(scale),
            scale_range=_reach(low, high),
            folder=folder,
            document=document,
        )


def open_saved(folder: Path | str) -> TrainedModel:
    """Read what is recorded with a saved model; ConfigError where that is missing or broken."""
    folder = Path(folder)
    path = folder / CONFIG_NAME
    config = read_document(path, "a saved model")
    extra = config.get("extra")
    extra = dict(extra) if isinstance(extra, dict) else {}
    extra["plugins"] = config.get("plugins")
    with damage_is_clear(path, ConfigError, _AGAIN):
        scale = config["scale"]
        low, high = extra.get("scale_range") or ((scale, scale) if scale else (1.0, 4.0))
        return TrainedModel(
            name=folder.resolve().name,
            model=str(config["name"]),
            preset=str(config["preset"]),
            scale=None if scale is None else int(scale),
            scale_range=_reach(low, high),
            folder=folder,
            saved=folder,
            document=extra,
        )


def _reach(low: Any, high: Any) -> tuple[float, float]:
    if not 0 < float(low) <= float(high) < math.inf:
        raise ValueError(f"{low!r} to {high!r} are no scales")
    return float(low), float(high)


def open_trained(text: str | Path, runs: Path | None = None) -> TrainedModel:
    """A model by what a user calls it.

    Parameters
    ----------
    text : str or Path
        ``bicubic``; the folder of a run, of one of its saved models, or of any saved model; the
        weights' file; the name of a run below `runs`; or of a network that ships (he-x4), where
        nothing else has that name.

    Raises
    ------
    ModelError
        There is nothing of that name.
    ConfigError
        What is there is broken.
    """
    if str(text) == BASELINE:
        return BICUBIC
    places = [Path(text)] if runs is None else [Path(text), runs / str(text)]
    for place in places:
        folder = place.parent if is_own_file(place) else place
        if (folder / RUN_NAME).is_file():
            return open_run(folder)
        if folder.name in (BEST, LAST) and (folder.parent / RUN_NAME).is_file():
            run = open_run(folder.parent)
            return replace(run, name=f"{run.name}/{folder.name}", saved=folder)
        if (folder / WEIGHTS_NAME).is_file():
            return open_saved(folder)
    ships = shipped_folders()
    if str(text) in ships:
        return open_saved(ships[str(text)])
    looked = " and ".join(map(str, places))
    raise ModelError(
        f"--model {text}: there is no such run or model folder (looked for {looked}); give the "
        "folder of a training run (runs/...), a saved model, a file of weights, or "
        f"{', '.join([*ships, BASELINE])}."
    )


def shipped_folders() -> dict[str, Path]:
    """The saved models that ship with wsisr, by name."""
    found = sorted(SHIPPED.glob(f"*/{WEIGHTS_NAME}")) if SHIPPED.is_dir() else []
    return {path.parent.name: path.parent for path in found}


def is_own_file(path: Path) -> bool:
    """Whether a file is one of those that a run or a saved model is made of."""
    return path.is_file() and path.name in (RUN_NAME, CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)


def is_trained(folder: Path) -> bool:
    """Whether a folder is that of a training run or of a saved model."""
    return (folder / RUN_NAME).is_file() or (folder / WEIGHTS_NAME).is_file()


def run_folders(folder: Path | str = "runs") -> Iterator[Path]:
    """Runs directly below a folder, by name; none where the folder is missing."""
    root = Path(folder)
    if root.is_dir():
        yield from (path for path in sorted(root.iterdir()) if (path / RUN_NAME).is_file())


def find_runs(folder: Path | str = "runs") -> tuple[TrainedModel, ...]:
    """All runs directly below a folder, sorted by name.

    Raises
    ------
    ConfigError
        One of them is broken.
    """
    return tuple(open_run(path) for path in run_folders(folder))


def _names(value: Any) -> frozenset[str] | None:
    return None if value is None else frozenset(value)


def _recipe(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _recipe(part) for key, part in value.items() if key not in _NOT_RECIPE}
    return value
