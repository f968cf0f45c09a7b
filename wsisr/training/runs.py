"""What a training run leaves behind, read back: for evaluation, upscaling, reports and resume.

The folder of a run::

    run.json        what this module reads; written atomically, first when the run starts
    config.yaml     the resolved training configuration
    best/, last/    saved models (`wsisr.models.save_model`), averaged weights where used
    checkpoints/    trainer states, the last few
    log.csv, log.jsonl, validation.csv
    samples/        fixed validation samples as PNG: LR, bicubic, SR, HR, error
    curves.png, card.md, environment.json
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError

FORMAT = "wsisr-run"
FORMAT_VERSION = 1
RUN_NAME = "run.json"
BEST = "best"
LAST = "last"
LOG_COLUMNS = (
    "step",
    "loss",
    "lr",
    "samples_per_s",
    "data_wait_ms",
    "step_ms",
    "grad_norm",
    "memory_mib",
    "skipped",
)
"""Of ``log.csv`` in every run; a recipe's own terms follow."""
VALIDATION_COLUMNS = (
    "step",
    "psnr_rgb",
    "psnr_y",
    "ssim_rgb",
    "bicubic_psnr_rgb",
    "bicubic_psnr_y",
    "bicubic_ssim_rgb",
    "scale",
)
"""Of ``validation.csv``, one row for each scale."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run.

    Attributes
    ----------
    folder : Path
    model, preset, kind : str
        Registry name, resolved preset, ``"fixed"`` or ``"arbitrary"``.
    scale : int or None
        Of a fixed-scale model.
    scale_range : (float, float)
        Scales it was trained on.
    seed : int
    state : {"running", "interrupted", "finished"}
    step, steps : int
        Done and planned.
    lr_origin : str
        ``"rescan"``, ``"stored-level"``, ``"reduced"`` or ``"simulated:<degradation>"``.
    degradation : str or None
        What `wsisr.degradation.parse_degradation` takes; None where LR was not simulated.
    store : mapping
        ``path`` (as given), ``digest``, ``manifest``: the data it was trained on.
    patients, groups : frozenset of str
        That training or validation has seen: they may not stand in a test.
    document : mapping
        All of run.json.
    """

    folder: Path
    model: str
    preset: str
    kind: str
    scale: int | None
    scale_range: tuple[float, float]
    seed: int
    state: str
    step: int
    steps: int
    lr_origin: str
    degradation: str | None
    store: Mapping[str, Any]
    patients: frozenset[str]
    groups: frozenset[str]
    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def weights(self) -> Path:
        """Folder of the saved model: the best by validation PSNR, else the last.

        An adversarial run gives its last first: PSNR falls as it learns, so its best by PSNR is
        the one that has learnt least.

        Raises
        ------
        ConfigError
            If the run has saved none yet.
        """
        recipe = self.document.get("config", {}).get("recipe", {})
        adversarial = recipe.get("kind") == "adversarial"
        for name in (LAST, BEST) if adversarial else (BEST, LAST):
            if (self.folder / name / "model.safetensors").is_file():
                return self.folder / name
        raise ConfigError(
            f"{self.folder} has saved no model yet ({self.state}, step {self.step}); let it train "
            "to its first validation"
        )


def open_run(folder: Path | str) -> Run:
    """Read a run's record.

    Raises
    ------
    ConfigError
        If there is none, or it is broken or of a newer format.
    """
    folder = Path(folder)
    path = folder / RUN_NAME
    if not path.is_file():
        raise ConfigError(f"{folder} is no training run: it holds no {RUN_NAME}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f"{path} does not describe a training run")
    if document.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"{path} has format version {document.get('format_version')}; this program reads "
            f"{FORMAT_VERSION}. Use the version that wrote it."
        )
    try:
        low, high = document["scale_range"]
        return Run(
            folder=folder,
            model=document["model"],
            preset=document["preset"],
            kind=document["kind"],
            scale=document["scale"],
            scale_range=(float(low), float(high)),
            seed=int(document["seed"]),
            state=document["state"],
            step=int(document["step"]),
            steps=int(document["steps"]),
            lr_origin=document["lr_origin"],
            degradation=document["degradation"],
            store=document["store"],
            patients=frozenset(document["patients"]),
            groups=frozenset(document["groups"]),
            document=document,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} lacks or garbles {error}") from error


def find_runs(folder: Path | str = "runs") -> tuple[Run, ...]:
    """All runs directly below a folder, sorted by name; none where the folder is missing."""
    root = Path(folder)
    if not root.is_dir():
        return ()
    return tuple(open_run(path) for path in sorted(root.iterdir()) if (path / RUN_NAME).is_file())
