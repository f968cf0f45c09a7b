"""What `wsisr train` shows beside training: configuration, schema, outcome, the model's speed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsisr.device import accelerated, choose_device
from wsisr.progress import Reporter, silent
from wsisr.training.config import TrainConfig
from wsisr.training.cost import choose_cards, cost_table
from wsisr.training.engine import TrainingJob, TrainingOutcome, run_training
from wsisr.training.feeding import FixedFeed
from wsisr.training.parallel import join, leave
from wsisr.training.recipes import build_recipe
from wsisr.training.record import RunRecord
from wsisr.training.request import TrainRequest, resolve
from wsisr.training.start import build_model, choose_precision

SYNTHETIC_STEPS = 10


def config_text(request: TrainRequest) -> str:
    """The resolved configuration as YAML, readings and warnings as comments above it."""
    resolved = resolve(request, accelerated(choose_device(request.device)))
    notes = [*(f"reading: {r}" for r in resolved.readings)]
    notes += [f"warning: {w}" for w in resolved.warnings]
    return "\n".join([*(f"# {note}" for note in notes), resolved.config.to_yaml().rstrip()])


def cost_text(request: TrainRequest, cards: Sequence[str] = ()) -> str:
    """What the run will cost on cards, by name or by a report of ``wsisr doctor --gpu``."""
    chosen = choose_cards(cards)
    resolved = resolve(request, accelerated(choose_device(request.device)))
    return cost_table(resolved.config, chosen)


def schema_text() -> str:
    """JSON schema of the configuration."""
    return json.dumps(TrainConfig.model_json_schema(), indent=2)


def outcome_text(outcome: TrainingOutcome, folder: Path, *, dry_run: bool = False) -> str:
    """How a run ended, in a few lines."""
    lines = []
    for row in outcome.validation:
        gain = row["psnr_rgb"] - row["bicubic_psnr_rgb"]
        lines.append(
            f"x{row['scale']:g}: PSNR-RGB {row['psnr_rgb']:.2f} dB, bicubic "
            f"{row['bicubic_psnr_rgb']:.2f} ({gain:+.2f}); SSIM {row['ssim_rgb']:.4f}, bicubic "
            f"{row['bicubic_ssim_rgb']:.4f}"
        )
    if dry_run:
        head = "Dry run: two steps and a validation passed; nothing was written."
        return "\n".join([head, *lines])
    if outcome.state == "interrupted":
        at = f"interrupted at step {outcome.step}"
        return f"{folder}: {at}; the same command with --resume goes on."
    best = outcome.best
    head = f"{folder}: {outcome.step} steps"
    if best is not None:
        head += f", best PSNR-RGB {best['psnr']:.2f} dB at step {best['step']:.0f}"
    return "\n".join([f"{head}; model card: {folder / 'card.md'}", *lines])


def measure_synthetic(
    request: TrainRequest, report: Reporter = silent, steps: int = SYNTHETIC_STEPS
) -> str:
    """Train on one fixed random batch: speed and memory of the model alone.

    The store is not opened, nothing is written; `wsisr bench STORE` times the other half.
    """
    outcome = run_synthetic(request, report, request.steps or steps)
    speed = outcome.speed
    return (
        f"{request.model}, model alone: {speed['samples_per_s']:.2f} samples/s, "
        f"{speed['step_ms']:.1f} ms a step, {speed['memory_mib']:.0f} MiB"
    )


def run_synthetic(request: TrainRequest, report: Reporter, steps: int) -> TrainingOutcome:
    """The run behind `measure_synthetic`: as many steps to warm up, then those that count."""
    processes, device = join(request.device)
    config = resolve(replace(request, steps=None), accelerated(device)).config
    # One log row at the warm-up's end, one at the end: the last one is the measurement.
    train = config.train.model_copy(update={"steps": 2 * steps, "log_every": steps})
    config = config.model_copy(update={"train": train})
    model = build_model(config)
    info = model.info
    recipe = build_recipe(config.recipe, model, config.data.crop_lr_px * int(info.scale or 1))
    job = TrainingJob(
        config=config,
        precision=choose_precision(train.precision, device, info),
        model=model,
        recipe=recipe,
        feed=FixedFeed(config, info, device),
        samples={},
        record=RunRecord(folder=None, document={}),
        device=device,
        processes=processes,
        report=report,
    )
    try:
        return run_training(job)
    finally:
        leave()
