"""The training loop, read from top to bottom: set up, step, log, validate, save.

Plain torch. A step is `wsisr.training.stepping`'s; the loss is read at log intervals. The
learning rate, the samples and every random number are functions of the step, so that going on
after a stop needs the tensors and one integer.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from wsisr.degradation import Degradation
from wsisr.device import most_bytes, synchronise
from wsisr.inference.trained import BEST, LAST
from wsisr.models.wrapper import SRModel
from wsisr.progress import ProgressEvent, Reporter
from wsisr.training.config import TrainConfig
from wsisr.training.errors import TrainingError
from wsisr.training.feeding import Feed
from wsisr.training.interrupts import readable_faults, stop_flag
from wsisr.training.outputs import Outputs, RunFiles
from wsisr.training.parallel import Processes
from wsisr.training.recipes import Recipe
from wsisr.training.record import RunRecord
from wsisr.training.schedule import rate_at
from wsisr.training.state import TrainerState, optimiser_tensors
from wsisr.training.stepping import Precision, Stepper
from wsisr.training.validation import ValidationSample, validate
from wsisr.words import figure


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
    state : {"finished", "interrupted"}
    step : int
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


def run_training(job: TrainingJob) -> TrainingOutcome:
    """Train to the last step, or until a signal asks to stop."""
    with readable_faults(job.config, job.folder):
        return _run(job)


def _run(job: TrainingJob) -> TrainingOutcome:
    config, train, device = job.config, job.config.train, job.device
    processes, course = job.processes, job.course
    stepper = Stepper(config, job.precision, job.model, job.recipe, device, processes)
    shown, meters = stepper.shown, stepper.meters

    # Where to go on from.
    step, best = 0, None
    if job.state is not None:
        step, best = int(job.state.scalars["step"]), job.state.scalars["best"]
        stepper.restore(job.state)
    stepper.compile()
    outputs = None
    if job.folder is not None and processes.main:
        outputs = course.outputs(job, job.folder, step)

    per_step = config.data.batch * processes.count * train.accumulate
    window = _Window(job.feed, device, per_step)
    sums: dict[str, Tensor] = {}

    def check() -> list[dict[str, float]]:
        with window.outside():
            rows = course.validate(job, shown)
            if outputs is not None:
                outputs.validation(step, rows, shown)
        return rows

    def keep() -> None:
        if outputs is None:
            return
        with window.outside():
            tensors = {
                f"{name}/{key}": value
                for name, part in stepper.parts.items()
                for key, value in part.state_dict().items()
            }
            for name, optimiser in stepper.optimisers.items():
                kept = optimiser_tensors(optimiser)
                tensors |= {f"optimiser.{name}/{key}": value for key, value in kept.items()}
            known = rows[0][course.headline] if rows and validated == step else None
            # Before the state, from which nothing would make it again.
            outputs.model(LAST, shown, step, known)
            outputs.state(tensors | {"meters/values": meters}, {"step": step, "best": best})
            job.record.update(step=step, best=best)

    # A fault in validation or saving must show before the first step, not hours later.
    rows, validated = check() if step == 0 else [], step
    if step == 0:
        keep()
    job.feed.start(step)
    window.reset()
    speed: dict[str, float] = {}
    stopping = False
    with stop_flag() as stop_asked:
        while step < train.steps and not stopping:
            rate = rate_at(config.optim, step, train.steps)
            for name, value in stepper.take(step, rate, job.feed).items():
                sums[name] = sums.get(name, 0.0) + value
            step += 1
            window.steps += 1

            last = step == train.steps
            logging = step % train.log_every == 0 or last
            if logging:
                row = {k: float(processes.mean(v)) / window.steps for k, v in sums.items()}
                speed = window.close()
                row |= {"step": step, "lr": rate, "skipped": int(meters[2]), **speed}
                sums = {}
                if outputs is not None:
                    outputs.training(row)
                _tell(job.report, step, train.steps, row)
                _check_skipped(int(meters[3]), train.max_skipped, step)
            # All processes or none: the others would wait in the next exchange for ever.
            if processes.count == 1 or logging:
                stopping = processes.any(stop_asked(), device) and not last
            if step % config.val.every == 0 or last:
                rows, validated = check(), step
                score = rows[0][course.headline] if rows else nan
                # NaN, an output that is not finite, never wins: not even as the first.
                if isfinite(score) and (best is None or score > best[course.best_key]):
                    best = {"step": step, course.best_key: score}
                    if outputs is not None:
                        with window.outside():
                            outputs.model(BEST, shown, step, score)
                for row in rows:
                    text = f"step {step}: {course.words(row)}"
                    job.report(ProgressEvent(stage="train", message=text))
            if step % train.save_every == 0 or last or stopping:
                keep()
    state: Literal["finished", "interrupted"] = "interrupted" if stopping else "finished"
    if outputs is not None:
        outputs.close(state=state, step=step, best=best)
    processes.wait()
    return TrainingOutcome(
        state=state,
        step=step,
        validation=tuple(rows),
        best=best,
        speed=speed,
        main=processes.main,
    )


class _Window:
    """Throughput between two log rows, validation and saving left out."""

    def __init__(self, feed: Feed, device: torch.device, samples_per_step: int) -> None:
        self.feed = feed
        self.device = device
        self.samples = samples_per_step
        self.reset()

    def reset(self) -> None:
        self.steps = 0
        self.feed.waited_s = 0.0
        self.began_s = time.perf_counter()

    @contextmanager
    def outside(self) -> Iterator[None]:
        # Steps that the device still works on belong to the window.
        synchronise(self.device)
        began = time.perf_counter()
        yield
        self.began_s += time.perf_counter() - began

    def close(self) -> dict[str, float]:
        """Figures of the window, which starts again."""
        elapsed = max(1e-9, time.perf_counter() - self.began_s)
        row = {
            "samples_per_s": self.steps * self.samples / elapsed,
            "data_wait_ms": 1e3 * self.feed.waited_s / self.steps,
            "step_ms": 1e3 * elapsed / self.steps,
            "memory_mib": most_bytes(self.device) / 2**20,
        }
        self.reset()
        return row


def _check_skipped(in_a_row: int, most: int, step: int) -> None:
    if in_a_row >= most:
        raise TrainingError(
            f"the gradient was not finite for {in_a_row} steps in a row, up to step {step}: lower "
            "optim.lr, set optim.clip_norm=1 or train.precision=fp32, and start again"
        )


def _tell(report: Reporter, step: int, steps: int, row: dict[str, float]) -> None:
    speed = f"{row['samples_per_s']:.1f} samples/s, {row['step_ms']:.0f} ms a step"
    wait = f"data {100 * row['data_wait_ms'] / max(row['step_ms'], 1e-9):.0f} %"
    item = f"loss {figure(row['loss'], '.4f')}, {speed}, {wait}, {row['memory_mib']:.0f} MiB"
    report(ProgressEvent(stage="train", done=step, total=steps, unit="step", item=item))
