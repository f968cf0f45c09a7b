"""The training loop, read from top to bottom: set up, step, log, check, keep.

Plain torch. A step is `wsisr.training.stepping`'s; the loss is read at log intervals. The
learning rate, the samples and every random number are functions of the step, so that going on
after a stop needs the tensors and one integer.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite, nan

import torch
from torch import Tensor

from wsisr.device import most_bytes, synchronise
from wsisr.inference.trained import BEST, LAST
from wsisr.progress import ProgressEvent
from wsisr.training.feeds import Feed
from wsisr.training.interrupts import TrainingError, readable_faults, stop_flag
from wsisr.training.job import TrainingJob, TrainingOutcome
from wsisr.training.outputs import RunFiles
from wsisr.training.stepping import Stepper
from wsisr.words import figure


def run_training(job: TrainingJob) -> TrainingOutcome:
    """Train to the last step, or until a signal asks to stop."""
    with readable_faults(job.config, job.folder):
        return Trainer(job).run()


class Trainer:
    """A run as far as it has come.

    Attributes
    ----------
    done : int
        Steps.
    best : dict or None
        ``step`` and score of the best model so far.
    rows : list of dict
        Of the last validation, made at step `checked`.
    speed : dict
        Throughput of the last log interval.
    outputs : RunFiles or None
        None: this process writes nothing.
    """

    def __init__(self, job: TrainingJob) -> None:
        self.job, self.config = job, job.config
        self.stepper = Stepper(
            job.config, job.precision, job.model, job.recipe, job.device, job.processes
        )
        self.done = 0
        self.best: dict[str, float] | None = None
        if job.state is not None:
            self.done, self.best = int(job.state.scalars["step"]), job.state.scalars["best"]
            self.stepper.restore(job.state)
        self.stepper.compile()
        self.outputs: RunFiles | None = None
        if job.folder is not None and job.processes.main:
            self.outputs = job.course.outputs(job, job.folder, self.done)
        self.rows: list[dict[str, float]] = []
        self.checked = self.done
        self.sums: dict[str, Tensor] = {}
        self.speed: dict[str, float] = {}
        per_step = self.config.data.batch * job.processes.count * self.config.train.accumulate
        self.interval = _Interval(job.feed, job.device, per_step)

    def run(self) -> TrainingOutcome:
        """From where the run stands to its last step, or to the one after which it is to stop."""
        job, train = self.job, self.config.train
        if self.done == 0:
            # A fault in validation or saving must show before the first step, not hours later.
            self.check()
            self.keep()
        job.feed.start(self.done)
        self.interval.reset()
        stopping = False
        with stop_flag() as stop_asked:
            while self.done < train.steps and not stopping:
                self.step()
                last = self.done == train.steps
                logging = self.done % train.log_every == 0 or last
                if logging:
                    self.log()
                # All processes or none: the others would wait in the next exchange for ever.
                if job.processes.count == 1 or logging:
                    stopping = job.processes.any(stop_asked(), job.device) and not last
                if self.done % self.config.val.every == 0 or last:
                    self.check()
                if self.done % train.save_every == 0 or last or stopping:
                    self.keep()
        outcome = TrainingOutcome(
            state="interrupted" if stopping else "finished",
            step=self.done,
            validation=tuple(self.rows),
            best=self.best,
            speed=self.speed,
            main=job.processes.main,
        )
        if self.outputs is not None:
            self.outputs.close(state=outcome.state, step=outcome.step, best=outcome.best)
        job.processes.wait()
        return outcome

    def step(self) -> None:
        """Move the weights once, and add the loss to the sums that the log is made of."""
        rate = self.config.optim.rate_at(self.done, self.config.train.steps)
        for name, value in self.stepper.take(self.done, rate, self.job.feed).items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.done += 1
        self.interval.steps += 1

    def log(self) -> None:
        """Read the sums of the interval, write and report them, and begin the next one.

        Raises
        ------
        TrainingError
            Too many steps in a row whose gradient was not finite.
        """
        train, meters = self.config.train, self.stepper.meters
        mean, steps = self.job.processes.mean, self.interval.steps
        row = {name: float(mean(value)) / steps for name, value in self.sums.items()}
        self.sums = {}
        self.speed = self.interval.close()
        rate = self.config.optim.rate_at(self.done - 1, train.steps)
        row |= {"step": self.done, "lr": rate, "skipped": int(meters[2]), **self.speed}
        if self.outputs is not None:
            self.outputs.training(row)
        self.job.report(
            ProgressEvent(
                stage="train", done=self.done, total=train.steps, unit="step", item=_figures(row)
            )
        )
        in_a_row = int(meters[3])
        if in_a_row >= train.max_skipped:
            raise TrainingError(
                f"the gradient was not finite for {in_a_row} steps in a row, up to step "
                f"{self.done}: lower optim.lr, set optim.clip_norm=1 or train.precision=fp32, and "
                "start again"
            )

    def check(self) -> None:
        """Validate; a model that is better than all before is saved as the best."""
        course, shown = self.job.course, self.stepper.shown
        with self.interval.outside():
            self.rows, self.checked = course.validate(self.job, shown), self.done
            if self.outputs is not None:
                self.outputs.validation(self.done, self.rows, shown)
        if self.done == 0:
            return
        score = self.rows[0][course.headline] if self.rows else nan
        # NaN, an output that is not finite, never wins: not even as the first.
        if isfinite(score) and (self.best is None or score > self.best[course.best_key]):
            self.best = {"step": self.done, course.best_key: score}
            if self.outputs is not None:
                with self.interval.outside():
                    self.outputs.model(BEST, shown, self.done, score)
        for row in self.rows:
            text = f"step {self.done}: {course.words(row)}"
            self.job.report(ProgressEvent(stage="train", message=text))

    def keep(self) -> None:
        """Save the last model and all that the run needs to go on from here."""
        if self.outputs is None:
            return
        known = self.checked == self.done and self.rows
        score = self.rows[0][self.job.course.headline] if known else None
        with self.interval.outside():
            # Before the state, from which nothing would make it again.
            self.outputs.model(LAST, self.stepper.shown, self.done, score)
            self.outputs.state(self.stepper.tensors(), {"step": self.done, "best": self.best})
            self.job.record.update(step=self.done, best=self.best)


class _Interval:
    """Throughput from one log row to the next, validation and saving left out."""

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
        # Steps that the device still works on belong to the interval.
        synchronise(self.device)
        began = time.perf_counter()
        yield
        self.began_s += time.perf_counter() - began

    def close(self) -> dict[str, float]:
        """Its figures; the next one begins."""
        elapsed = max(1e-9, time.perf_counter() - self.began_s)
        row = {
            "samples_per_s": self.steps * self.samples / elapsed,
            "data_wait_ms": 1e3 * self.feed.waited_s / self.steps,
            "step_ms": 1e3 * elapsed / self.steps,
            "memory_mib": most_bytes(self.device) / 2**20,
        }
        self.reset()
        return row


def _figures(row: dict[str, float]) -> str:
    speed = f"{row['samples_per_s']:.1f} samples/s, {row['step_ms']:.0f} ms a step"
    wait = f"data {100 * row['data_wait_ms'] / max(row['step_ms'], 1e-9):.0f} %"
    return f"loss {figure(row['loss'], '.4f')}, {speed}, {wait}, {row['memory_mib']:.0f} MiB"
