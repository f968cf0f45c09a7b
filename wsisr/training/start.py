"""From a request to a run: data, network and folder, each checked in turn."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch

from wsisr.degradation import hr_size, lr_size, refuse_identity
from wsisr.device import fast_kernels, has_bfloat16, on_gpu
from wsisr.errors import ConfigError, ModelError
from wsisr.files import remove_partials, remove_tree
from wsisr.inference.trained import RUN_NAME, open_run
from wsisr.locks import IN_FOLDER, held
from wsisr.models import create_model, start_from
from wsisr.models.info import ModelInfo
from wsisr.models.wrapper import SRModel
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store import PairStore, open_pairs
from wsisr.store.object_files import url_of
from wsisr.training.batches import BatchRule
from wsisr.training.config import TrainConfig
from wsisr.training.data import BatchSource, PairDataset, Role, open_source
from wsisr.training.engine import run_training
from wsisr.training.feeds import StoreFeed
from wsisr.training.interrupts import readable_faults
from wsisr.training.job import TrainingJob, TrainingOutcome
from wsisr.training.outputs import BEGUN, CHECKPOINTS, PROBE_NAME, SAMPLES
from wsisr.training.parallel import idle_gpus, leave
from wsisr.training.plan import DataPlan, plan_data
from wsisr.training.recipes import build_recipe
from wsisr.training.request import Setting, TrainRequest, opening_lines, settle
from wsisr.training.run_record import RunRecord, describe_environment, run_document
from wsisr.training.sampling import CropRule
from wsisr.training.state import TrainerState, read_state
from wsisr.training.stepping import Precision
from wsisr.training.validation import build_samples, validation_scales


def train(
    request: TrainRequest, report: Reporter = silent, *, dry_run: bool = False
) -> tuple[TrainingOutcome, Path]:
    """Train a model as asked; returns how it ended and the run folder.

    Parameters
    ----------
    report : Reporter
        Gets the decisions as messages, then progress.
    dry_run : bool
        Two steps and a validation; nothing is written.

    Raises
    ------
    ConfigError, ModelError, StoreError, TrainingError
        One sentence with the remedy.
    """
    try:
        setting = settle(request, writes=not dry_run)
        with alone(setting.folder) if setting.processes.main and not dry_run else nullcontext():
            job = prepare(setting, report if setting.processes.main else silent, dry_run=dry_run)
            try:
                return run_training(job), setting.folder
            finally:
                job.feed.close()
    finally:
        leave()


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


@contextmanager
def alone(folder: Path, record: str = RUN_NAME) -> Iterator[None]:
    """Keep a second training away from a run folder, which nobody finds if it stays empty.

    What is there without a `record` was left by a start that failed.
    """
    make_folder(folder)
    try:
        with held(folder / IN_FOLDER, folder, "training", " ".join(sys.argv)):
            for place in (folder, folder / CHECKPOINTS, folder / SAMPLES):
                remove_partials(place)
            try:
                yield
            finally:
                if not (folder / record).exists():
                    # A start that failed is in the way of none that follows.
                    for name in BEGUN:
                        remove_tree(folder / name)
    finally:
        with suppress(OSError):
            folder.rmdir()


def prepare(setting: Setting, report: Reporter, *, dry_run: bool = False) -> TrainingJob:
    """Open the data, build the network and the folder."""
    request, config, device = setting.request, setting.resolved.config, setting.device
    earlier = setting.earlier
    if dry_run:
        config = shortened(config, 2)
    for line in opening_lines(setting):
        say(report, line)
    data = config.data
    store = open_store(request.data)
    model = build_model(config)
    plan = plan_data(
        store,
        scale=config.model.scale,
        lr_source=setting.profile or data.lr_source,
        reference=model.info.takes_reference,
    )
    if plan.simulation is not None and config.model.scale is not None:
        refuse_identity(plan.simulation, config.model.scale)
    if earlier is not None and earlier.store.get("content") != plan.content:
        raise ConfigError(
            f"{request.data} is another store than {earlier.folder} was trained on, or has "
            "changed; start another run with -o"
        )
    rule = crop_rule(config, plan, model.info)
    notes = [*plan.notes, *_reference_note(plan, model)]
    if config.recipe.kind == "contrastive" and not plan.flips:
        notes.append(
            "The contrastive loss turns images over, which this store's alignment does not bear "
            "exactly: expect less of it."
        )
    state = None if earlier is None else earlier_state(setting.folder, earlier.step, report)
    started = None if earlier is None else earlier.document.get("init_from")
    if request.init_from is not None and state is None:
        started = _start_from(model, request.init_from)
        say(report, started)
    recipe = build_recipe(config, model)
    rows = PairDataset(store, arrays=[plan.hr], rows=plan.train)
    scales = validation_scales(config, rule.scale_range, plan.hr_px / 16)
    samples = build_samples(
        plan, PairDataset(store, arrays=[plan.hr], rows=plan.val), config, scales
    )
    precision = choose_precision(config.train.precision, device, model.info)
    _settle_torch(config, device)
    environment = describe_environment(device, setting.processes)
    document = run_document(
        config,
        plan,
        model,
        scale_range=rule.scale_range,
        environment=environment | {"precision": precision},
        extra={
            "features": recipe.features,
            "notes": notes,
            "readings": list(setting.resolved.readings),
            "warnings": list(setting.resolved.warnings),
            "init_from": started,
            "best": None if state is None else state.scalars["best"],
        },
    )
    folder = None if dry_run else setting.folder
    setting.processes.wait()
    with readable_faults(config):
        source = open_source(
            rows,
            roles(plan, rule),
            data,
            device=device,
            sharers=setting.processes.local_count,
            report=report,
        )
    about = (*notes, *idle_gpus(setting.processes, device), data_line(plan, source, config))
    for line in (*about, *setting.resolved.warnings):
        say(report, line)
    batches = BatchRule(
        crops=rule,
        degradation=plan.simulation,
        flips=data.flips and plan.flips,
        sample_px=data.sample_px if model.info.kind == "arbitrary" else None,
        reference=model.info.takes_reference,
        seed=config.train.seed,
    )
    return TrainingJob(
        config=config,
        precision=precision,
        model=model,
        recipe=recipe,
        feed=StoreFeed(source, batches, config, device, setting.processes),
        samples=samples,
        record=RunRecord(folder=folder, document=document),
        device=device,
        processes=setting.processes,
        report=report,
        folder=folder,
        state=state,
        profile=setting.profile,
    )


def open_store(path: Path) -> PairStore:
    """The pair store of a run, or what to do where there is none."""
    if url_of(path) is not None:
        return open_pairs(path, threads=1)
    if not path.exists():
        raise ConfigError(
            f"{path} is not there: build it with wsisr build-pairs, or name another store with "
            "--data"
        )
    if not (path / "zarr.json").is_file():
        raise ConfigError(
            f"{path} is no pair store, for it holds no zarr.json: name the folder that wsisr "
            "build-pairs wrote (pairs.zarr) with --data"
        )
    return open_pairs(path, threads=1)


def build_model(config: TrainConfig) -> SRModel:
    """The network of a configuration, its start fixed by the seed."""
    section = config.model
    torch.manual_seed(config.train.seed)
    return create_model(
        section.name, scale=section.scale, preset=section.preset, **section.settings
    )


def crop_rule(config: TrainConfig, plan: DataPlan, info: ModelInfo) -> CropRule:
    """How crops are cut; the margin gives way where patches are small, the crop does not."""
    data = config.data
    low, high = config.scales(info.scale_range)
    room = lr_size(plan.hr_px, high)
    if data.crop_lr_px > room:
        wanted = hr_size(data.crop_lr_px, high)
        raise ConfigError(
            f"data.crop_lr_px={data.crop_lr_px} at x{high:g} needs HR patches of {wanted} px; "
            f"{plan.path} has {plan.hr_px}: set data.crop_lr_px={room} or less"
        )
    margin = 0 if plan.lr is not None else min(data.margin_lr_px, (room - data.crop_lr_px) // 2)
    return CropRule(
        patches=len(plan.train),
        hr_px=plan.hr_px,
        crop_lr_px=data.crop_lr_px,
        margin_lr_px=margin,
        scale=config.model.scale,
        scale_range=(low, high),
        per_sample=config.model.scale is None and data.scale_draw == "sample",
        native=plan.lr is not None,
    )


def roles(plan: DataPlan, rule: CropRule) -> list[Role]:
    """The arrays that a run reads."""
    if plan.lr is None:
        return [Role(name="hr", array=plan.hr, corner=1, size=0)]
    scale, side = int(rule.scale or 1), rule.crop_lr_px
    found = [
        Role(name="hr", array=plan.hr, corner=scale, size=side * scale),
        Role(name="lr", array=plan.lr, corner=1, size=side),
    ]
    if plan.reference is not None:
        found.append(Role(name="reference", array=plan.reference, corner=2, size=2 * side))
    return found


def choose_precision(asked: str, device: torch.device, info: ModelInfo) -> Precision:
    """The element type of a run; `auto` is bf16 on a GPU that has it."""
    if asked == "auto":
        return "bf16" if has_bfloat16(device) and "bfloat16" in info.dtypes else "fp32"
    if asked == "fp16" and not on_gpu(device):
        raise ConfigError("train.precision=fp16 needs a GPU; use bf16 or fp32")
    if asked == "bf16":
        if "bfloat16" not in info.dtypes:
            raise ConfigError(f"train.precision=bf16: {info.name} does not bear it; use fp32")
        return "bf16"
    return "fp16" if asked == "fp16" else "fp32"


def shortened(config: TrainConfig, steps: int) -> TrainConfig:
    """The same configuration for a few steps and few samples."""
    train = config.train.model_copy(update={"steps": steps, "log_every": 1})
    val = config.val.model_copy(update={"count": min(2, config.val.count), "pictures": 0})
    return config.model_copy(update={"train": train, "val": val})


def make_folder(folder: Path) -> None:
    """Make the run folder, or say why it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / PROBE_NAME
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); name another folder with -o"
        ) from None


def data_line(plan: DataPlan, source: BatchSource, config: TrainConfig) -> str:
    """Arrays, origin, split and place of the data in one sentence."""
    return (
        f"HR {plan.hr}, LR {plan.lr or 'made from it'} ({plan.origin}); {len(plan.train)} pairs to "
        f"train on, {len(plan.val)} to validate on, {len(plan.patients)} patients; "
        f"{source.description}."
    )


def earlier_state(folder: Path, step: int, report: Reporter) -> TrainerState | None:
    """What a run that has done `step` steps goes on from; states that are passed over are said."""
    state = read_state(folder / CHECKPOINTS)
    if state is None and step > 0:
        raise ConfigError(
            f"{folder} has no trainer state left, though {step} steps were done; start again in "
            "another folder, with --init-from to keep the saved weights"
        )
    for line in state.skipped if state is not None else ():
        say(report, line)
    return state


def _start_from(model: SRModel, path: Path) -> str:
    source = path
    if (path / RUN_NAME).is_file():
        source = open_run(path).weights
    elif not path.exists():
        raise ConfigError(f"--init-from {path}: there is nothing of that name")
    try:
        # A record is passed on: where the run lay is nobody's business.
        return f"{path.name}: {start_from(model, source).sentence()}"
    except ModelError as error:
        raise ConfigError(f"--init-from: {error}") from None


def _reference_note(plan: DataPlan, model: SRModel) -> list[str]:
    if not model.info.takes_reference:
        return []
    made = f"the store's {plan.reference}" if plan.reference else "made from HR by reduction"
    return [f"The finer image that guides training is {made}; the trained model needs none."]


def _settle_torch(config: TrainConfig, device: torch.device) -> None:
    if config.train.deterministic:
        # Without it cuBLAS refuses to be deterministic; read when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    else:
        fast_kernels(device)


def say(report: Reporter, text: str) -> None:
    report(ProgressEvent(stage="train", message=text))
