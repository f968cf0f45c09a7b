"""The training loop, read from top to bottom: set up, step, log, validate, save.

Plain torch. Nothing in a step waits for the device: the loss is read at log intervals, and a
step whose gradient is not finite is skipped on the device itself (the fused optimisers take a
flag for that). The learning rate, the samples and every random number are functions of the step,
so that going on after a stop needs the tensors and one integer.
"""

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wsisr.degradation import Degradation
from wsisr.inference.trained import BEST, LAST
from wsisr.models.wrapper import SRModel
from wsisr.progress import ProgressEvent, Reporter
from wsisr.training.config import OptimSection, TrainConfig
from wsisr.training.errors import TrainingError
from wsisr.training.feeding import Feed
from wsisr.training.interrupts import readable_faults, stop_flag
from wsisr.training.outputs import PROFILE_NAME, Outputs
from wsisr.training.parallel import Processes
from wsisr.training.recipes import MODEL, Recipe
from wsisr.training.record import RunRecord
from wsisr.training.schedule import rate_at
from wsisr.training.state import (
    TrainerState,
    optimiser_tensors,
    restore_module,
    restore_optimiser,
)
from wsisr.training.validation import Sample, validate

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_FIRST_LOSS_SCALE = 2.0**14
_GROWTH_STEPS = 2000
AVERAGED = "averaged"


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that the loop needs, built and checked by `wsisr.training.start`.

    Attributes
    ----------
    samples : dict of float to list of Sample
        Of validation by scale; empty: no validation.
    folder : Path or None
        None: nothing is written (dry runs, measurements).
    state : TrainerState or None
        What the run goes on from.
    profile : Degradation or None
        Of simulated LR, where a file holds it: the run keeps its own copy.
    """

    config: TrainConfig
    precision: Literal["fp32", "bf16", "fp16"]
    model: SRModel
    recipe: Recipe
    feed: Feed
    samples: dict[float, list[Sample]]
    record: RunRecord
    device: torch.device
    processes: Processes
    report: Reporter
    folder: Path | None = None
    state: TrainerState | None = None
    profile: Degradation | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    state : {"finished", "interrupted"}
    step : int
    validation : tuple of dict
        Rows of the last validation.
    best : dict or None
        ``step`` and ``psnr`` (RGB) of the best model.
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


def run_training(job: Job) -> Outcome:
    """Train to the last step, or until a signal asks to stop."""
    with readable_faults(job.config, job.folder):
        return _run(job)


def _run(job: Job) -> Outcome:
    config, train, device = job.config, job.config.train, job.device
    processes, recipe, model = job.processes, job.recipe.to(job.device), job.model.to(job.device)

    # Networks and optimisers.
    networks = recipe.networks(model)
    for network in networks:
        if network.info.channels_last and device.type == "cuda":
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.set_checkpointing(train.checkpointing)
    parts: dict[str, nn.Module] = {MODEL: model, **recipe.modules}
    shown = model
    if train.ema:
        shown = parts[AVERAGED] = deepcopy(model).requires_grad_(False)
    optimisers = {
        name: _optimiser(parameters, config.optim)
        for name, parameters in recipe.parameters(model).items()
    }
    trained = [p for o in optimisers.values() for group in o.param_groups for p in group["params"]]
    # Loss scale (fp16), steps since it grew, skipped steps in all, in a row; on the device.
    scale = _FIRST_LOSS_SCALE if job.precision == "fp16" else 1.0
    meters = torch.tensor([scale, 0.0, 0.0, 0.0], device=device)

    # Where to go on from.
    step, best = 0, None
    if job.state is not None:
        step, best = int(job.state.scalars["step"]), job.state.scalars["best"]
        for name, module in parts.items():
            restore_module(module, job.state.part(name), name)
        for name, optimiser in optimisers.items():
            restore_optimiser(optimiser, job.state.part(f"optimiser.{name}"))
        meters.copy_(job.state.tensors["meters/values"])
    if train.compile != "off":
        for network in networks:
            compile_model(network, train.compile)
    outputs = None
    if job.folder is not None and processes.main:
        outputs = Outputs(job.folder, config, job.record, job.samples, step)
        if job.profile is not None:
            job.profile.write(job.folder / PROFILE_NAME)

    per_step = config.data.batch * processes.count * train.accumulate
    window = _Window(job.feed, device, per_step)
    sums: dict[str, Tensor] = {}

    def backward(loss: Tensor) -> None:
        # Outside of autocast: a backward pass has the types of its forward pass.
        with torch.autocast(device.type, enabled=False):
            torch.autograd.backward(loss * (meters[0] / train.accumulate))

    def check() -> list[dict[str, float]]:
        with window.outside():
            rows = validate(shown, job.samples, config, device=device, processes=processes)
            if outputs is not None:
                outputs.validation(step, rows, shown)
        return rows

    def keep() -> None:
        if outputs is None:
            return
        with window.outside():
            tensors = {f"{n}/{k}": v for n, m in parts.items() for k, v in m.state_dict().items()}
            for name, optimiser in optimisers.items():
                kept = optimiser_tensors(optimiser)
                tensors |= {f"optimiser.{name}/{key}": value for key, value in kept.items()}
            outputs.state(tensors | {"meters/values": meters}, {"step": step, "best": best})
            known = rows[0]["psnr_rgb"] if rows and validated == step else None
            outputs.model(LAST, shown, step, known)
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
            # Dropout and stochastic depth draw from torch's own generator.
            own = (train.seed * 1_000_003 + step) * 1024 + processes.rank
            torch.manual_seed(own % 2**63)
            model.train()
            for part in range(train.accumulate):
                batch = job.feed.batch(step, part)
                if train.compile == "reduce-overhead":
                    # Outputs of a step's several passes must outlive one another.
                    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                with torch.autocast(
                    device.type, _DTYPES[job.precision], enabled=job.precision != "fp32"
                ):
                    terms = recipe.step(model, batch, backward)
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + value.float() / train.accumulate
            processes.average_gradients(trained)
            norm, bad = _unscale_and_clip(optimisers, meters[0], config.optim.clip_norm)
            for optimiser in optimisers.values():
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.found_inf = bad  # type: ignore[attr-defined]
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            _count(meters, bad, job.precision == "fp16")
            sums["grad_norm"] = sums.get("grad_norm", 0.0) + norm
            recipe.after_step(model)
            if train.ema:
                _follow(shown, model, min(train.ema, (1 + step) / (10 + step)))
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
                score = rows[0]["psnr_rgb"] if rows else nan
                # NaN, an output that is not finite, never wins: not even as the first.
                if isfinite(score) and (best is None or score > best["psnr"]):
                    best = {"step": step, "psnr": score}
                    if outputs is not None:
                        with window.outside():
                            outputs.model(BEST, shown, step, best["psnr"])
                _tell_validation(job.report, step, rows)
            if step % train.save_every == 0 or last or stopping:
                keep()
    state: Literal["finished", "interrupted"] = "interrupted" if stopping else "finished"
    if outputs is not None:
        outputs.close(state=state, step=step, best=best)
    processes.wait()
    return Outcome(
        state=state,
        step=step,
        validation=tuple(rows),
        best=best,
        speed=speed,
        main=processes.main,
    )


def compile_model(model: SRModel, mode: Literal["default", "reduce-overhead"]) -> None:
    """Compile a network in place; names of its tensors stay what they are."""
    if model.info.kind == "fixed":
        model.net.compile(mode=mode, dynamic=False)
        return
    for name in ("encode", "decode"):
        compiled = torch.compile(getattr(model.net, name), mode=mode, dynamic=False)
        setattr(model.net, name, compiled)


def _optimiser(parameters: list[nn.Parameter], optim: OptimSection) -> Optimizer:
    kind = torch.optim.AdamW if optim.optimiser == "adamw" else torch.optim.Adam
    # Fused: fast, and the only form that can skip a step without asking the device.
    return kind(
        parameters,
        lr=optim.lr,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        fused=True,
    )


@torch.no_grad()
def _unscale_and_clip(
    optimisers: Mapping[str, Optimizer], scale: Tensor, largest: float | None
) -> tuple[Tensor, Tensor]:
    """Norm of the model's gradient before clipping, and 1 where any is not finite (else 0).

    Each optimiser's gradients are clipped by their own norm: a discriminator's may not shrink
    the generator's.
    """
    norms = {}
    for name, optimiser in optimisers.items():
        parameters = (p for group in optimiser.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))) / scale
        factor = 1.0 / scale
        if largest is not None:
            factor = factor * (largest / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, factor)
        norms[name] = norm
    finite = torch.isfinite(torch.stack(list(norms.values()))).all()
    return norms[MODEL], (~finite).float()


@torch.no_grad()
def _count(meters: Tensor, bad: Tensor, scaled: bool) -> None:
    """Skipped steps; with fp16 also the loss scale: halved after a skip, doubled after many."""
    meters[2] += bad
    meters[3] = (meters[3] + 1) * bad
    if scaled:
        grown = (meters[1] + 1) * (1 - bad)
        full = (grown >= _GROWTH_STEPS).float()
        meters[0] *= (1 + full) * (1 - 0.5 * bad)
        meters[1] = grown * (1 - full)


@torch.no_grad()
def _follow(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights; statistics of layers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
    for mine, theirs in zip(averaged.buffers(), model.buffers(), strict=True):
        mine.copy_(theirs)


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
        if self.device.type == "cuda":
            # Steps that the device still works on belong to the window.
            torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        yield
        self.began_s += time.perf_counter() - began

    def close(self) -> dict[str, float]:
        """Figures of the window, which starts again."""
        elapsed = max(1e-9, time.perf_counter() - self.began_s)
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row = {
            "samples_per_s": self.steps * self.samples / elapsed,
            "data_wait_ms": 1e3 * self.feed.waited_s / self.steps,
            "step_ms": 1e3 * elapsed / self.steps,
            "memory_mib": memory,
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
    item = f"loss {row['loss']:.4f}, {speed}, {wait}, {row['memory_mib']:.0f} MiB"
    report(ProgressEvent(stage="train", done=step, total=steps, unit="step", item=item))


def _tell_validation(report: Reporter, step: int, rows: list[dict[str, float]]) -> None:
    for row in rows:
        gain = row["psnr_rgb"] - row["bicubic_psnr_rgb"]
        if isnan(gain):
            text = (
                f"step {step}: validation x{row['scale']:g}: output with inf or NaN, no scores; "
                "these weights are not kept as the best"
            )
            report(ProgressEvent(stage="train", message=text))
            continue
        text = (
            f"step {step}: validation x{row['scale']:g} PSNR-RGB {row['psnr_rgb']:.2f} dB, bicubic "
            f"{row['bicubic_psnr_rgb']:.2f} ({gain:+.2f}), SSIM {row['ssim_rgb']:.4f}"
        )
        report(ProgressEvent(stage="train", message=text))
