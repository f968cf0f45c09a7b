"""What the training loop is given, what kinds of training have of their own, how a run ends."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import ClassVar, Literal

import torch

from wsisr.degradation import Degradation
from wsisr.models.wrapper import SRModel
from wsisr.progress import Reporter
from wsisr.training.config import TrainConfig
from wsisr.training.feeds import Feed
from wsisr.training.outputs import Outputs, RunFiles
from wsisr.training.parallel import Processes
from wsisr.training.recipes import Recipe
from wsisr.training.run_record import RunRecord
from wsisr.training.state import TrainerState
from wsisr.training.stepping import Precision
from wsisr.training.validation import ValidationSample, validate


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """All that the loop needs, built and checked by `wsisr.training.start`.

    Attributes
    ----------
    samples : dict of float to list of ValidationSample
        Of validation by scale; empty: no validation.
    folder : Path or None
        None: nothing is written (dry runs, measurements).
    state : TrainerState or None
        What the run goes on from.
    profile : Degradation or None
        Of simulated LR, where a file holds it: the run keeps its own copy.
    course : Course
        What is trained, as far as it is validated and written down.
    """

    config: TrainConfig
    precision: Precision
    model: SRModel
    recipe: Recipe
    feed: Feed
    samples: dict[float, list[ValidationSample]]
    record: RunRecord
    device: torch.device
    processes: Processes
    report: Reporter
    folder: Path | None = None
    state: TrainerState | None = None
    profile: Degradation | None = None
    course: "Course" = field(default_factory=lambda: SuperResolution())


class Course(ABC):
    """What one kind of training has of its own: how it is validated, and what it leaves.

    Class attributes
    ----------------
    headline : str
        Of a row of validation; the model that has most of it is kept as the best.
    best_key : str
        What the record calls it.
    """

    headline: ClassVar[str]
    best_key: ClassVar[str]

    @abstractmethod
    def validate(self, job: TrainingJob, model: SRModel) -> list[dict[str, float]]:
        """Rows of validation; none where there is nothing to validate on."""

    @abstractmethod
    def outputs(self, job: TrainingJob, folder: Path, step: int) -> RunFiles:
        """The folder while it grows."""

    @abstractmethod
    def words(self, row: dict[str, float]) -> str:
        """A row of validation in words."""


class SuperResolution(Course):
    """Beside bicubic, on fixed samples."""

    headline = "psnr_rgb"
    best_key = "psnr"

    def validate(self, job: TrainingJob, model: SRModel) -> list[dict[str, float]]:
        return validate(model, job.samples, job.config, device=job.device, processes=job.processes)

    def outputs(self, job: TrainingJob, folder: Path, step: int) -> RunFiles:
        return Outputs(folder, job.config, job.record, job.samples, step, job.profile)

    def words(self, row: dict[str, float]) -> str:
        gain = row["psnr_rgb"] - row["bicubic_psnr_rgb"]
        if isnan(gain):
            return (
                f"validation x{row['scale']:g}: output with inf or NaN, no scores; these weights "
                "are not kept as the best"
            )
        return (
            f"validation x{row['scale']:g} PSNR-RGB {row['psnr_rgb']:.2f} dB, bicubic "
            f"{row['bicubic_psnr_rgb']:.2f} ({gain:+.2f}), SSIM {row['ssim_rgb']:.4f}"
        )


@dataclass(frozen=True, kw_only=True)
class TrainingOutcome:
    """How a run ended.

    Attributes
    ----------
    validation : tuple of dict
        Rows of the last validation.
    best : dict or None
        ``step`` and score (``psnr`` of RGB; see `Course.best_key`) of the best model.
    speed : dict
        Throughput of the last log interval.
    main : bool
        Whether this process speaks for the run; of several, one does.
    """

    state: Literal["finished", "interrupted"]
    step: int
    validation: tuple[dict[str, float], ...]
    best: dict[str, float] | None
    speed: dict[str, float] = field(default_factory=dict)
    main: bool = True
