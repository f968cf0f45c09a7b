"""`wsisr bench STORE`: how fast crops come out of a store, the model left out; and the other half,
`wsisr train --synthetic`: how fast a model trains, the store left out.

Of the store, CPU seconds of this process count, because they repeat where wall time does not;
zarr-python reads the same crops in the same run.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from wsisr.degradation import parse_degradation
from wsisr.device import accelerated
from wsisr.errors import ConfigError
from wsisr.progress import Reporter, silent
from wsisr.store import open_pairs
from wsisr.store.window_reader import WindowReader
from wsisr.tables import markdown_table
from wsisr.training.batches import BatchRule, make_batch
from wsisr.training.data import MemorySource, PairDataset, Role, StreamSource, default_workers
from wsisr.training.engine import run_training
from wsisr.training.feeds import FixedFeed
from wsisr.training.job import TrainingJob, TrainingOutcome
from wsisr.training.parallel import join, leave
from wsisr.training.recipes import build_recipe
from wsisr.training.request import TrainRequest, resolve
from wsisr.training.run_record import RunRecord
from wsisr.training.sampling import CropRule, StepPlan, plan_step, slots_of
from wsisr.training.start import build_model, choose_precision

CROP_PX = 256
SCALE = 4
BATCH = 32
MEMORY_PATCHES = 32
SYNTHETIC_STEPS = 10
BATCHES = 16


@dataclass(frozen=True, kw_only=True)
class LoaderTiming:
    """One way of getting crops.

    Attributes
    ----------
    cpu_s, wall_s : float
        Of this process, all threads.
    bytes : int
        Decoded pixels.
    """

    name: str
    crops: int
    cpu_s: float
    wall_s: float
    bytes: int

    @property
    def crops_per_cpu_s(self) -> float:
        return self.crops / max(self.cpu_s, 1e-9)

    @property
    def megabytes_per_wall_s(self) -> float:
        return self.bytes / 1e6 / max(self.wall_s, 1e-9)


def bench_store(
    path: Path, *, array: str | None = None, workers: int | None = None
) -> list[LoaderTiming]:
    """Time random crops of at most 256 px of one array, in batches of 32.

    Parameters
    ----------
    array : str, optional
        The finest by default.
    workers : int, optional
        Threads that read ahead; by the cores if left out.
    """
    store = open_pairs(path)
    name = array or store.arrays[0]
    table = store.table(columns=[])
    data = PairDataset(store, arrays=[name], rows=table.index)
    if not len(data):
        raise ConfigError(f"{path} has no kept pairs")
    sizes = {
        store.slides[s].spec(name).size_px for s in store.slides if name in store.slides[s].arrays
    }
    side = min(CROP_PX, *sizes)
    side -= side % SCALE
    rule = CropRule(
        patches=len(data),
        hr_px=min(sizes),
        crop_lr_px=side // SCALE,
        scale=SCALE,
        scale_range=(SCALE, SCALE),
    )
    slots = slots_of(0, 1, BATCH)
    plans = [
        plan_step(rule, seed=0, step=number, slots=slots, per_step=BATCH)
        for number in range(BATCHES)
    ]
    role = Role(name="hr", array=name, corner=1, size=0)
    threads = default_workers() if workers is None else workers
    stream = StreamSource(data, [role], threads, pin=False)
    try:
        found = [
            _timed(
                "crops, this thread",
                plans,
                side,
                lambda p, n: data.read(name, p.index, p.y, p.x, p.read_px),
            ),
            _timed(
                f"crops, {threads} threads ahead",
                plans,
                side,
                lambda p, n: stream.fetch(n, p),
                before=lambda: stream.start(plans.__getitem__, 0, BATCHES),
            ),
        ]
    finally:
        stream.close()
    few = PairDataset(store, arrays=[name], rows=data.rows[:MEMORY_PATCHES])
    cpu = torch.device("cpu")
    memory = MemorySource(few, [role], cpu)
    small = [replace(plan, index=plan.index % len(few)) for plan in plans]
    finish = BatchRule(crops=rule, degradation=parse_degradation("bicubic"))
    return [
        *found,
        _timed("crops from memory", small, side, lambda p, n: memory.fetch(n, p)),
        _timed(
            f"batches from memory, bicubic x{SCALE}, symmetries",
            small[: max(1, BATCHES // 4)],
            side,
            lambda p, n: make_batch(memory.fetch(n, p), p, finish, cpu),
        ),
        _timed(
            "zarr-python, crop by crop",
            plans[: max(1, BATCHES // 8)],
            side,
            _zarr_reader(data, name),
        ),
    ]


def measure_synthetic(request: TrainRequest, report: Reporter = silent) -> str:
    """Train on one fixed random batch: speed and memory of the model alone.

    The store is not opened, nothing is written; `bench_store` times the other half.
    """
    outcome = run_synthetic(request, report, request.steps or SYNTHETIC_STEPS)
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
    recipe = build_recipe(config, model)
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


def loader_table(timings: Sequence[LoaderTiming]) -> str:
    """The timings as a Markdown table, with the ratio to the last row."""
    base = timings[-1].crops_per_cpu_s
    rows = [
        (
            t.name,
            f"{t.crops_per_cpu_s:,.0f}",
            f"{t.crops_per_cpu_s / base:.1f}x",
            f"{t.megabytes_per_wall_s:,.0f}",
        )
        for t in timings
    ]
    return "\n".join(markdown_table(["crops", "per CPU s", "ratio", "MB/s of wall time"], rows))


def _timed(
    name: str,
    plans: Sequence[StepPlan],
    side: int,
    load: Callable[[StepPlan, int], object],
    before: Callable[[], None] | None = None,
) -> LoaderTiming:
    load(plans[0], -1)
    cpu, wall = time.process_time(), time.perf_counter()
    if before is not None:
        before()
    for number, plan in enumerate(plans):
        load(plan, number)
    crops = sum(len(plan.index) for plan in plans)
    return LoaderTiming(
        name=name,
        crops=crops,
        cpu_s=time.process_time() - cpu,
        wall_s=time.perf_counter() - wall,
        bytes=crops * 3 * side * side,
    )


def _zarr_reader(data: PairDataset, array: str) -> Callable[[StepPlan, int], object]:
    import zarr

    from wsisr.store import codecs

    codecs.register()
    names = data.store.attributes["slides"]
    readers = {
        slide: data.store.reader(names[slide], array)
        for slide in np.unique(data.rows[:, 0]).tolist()
    }
    opened = {
        slide: zarr.open_array(reader.place.for_zarr(), mode="r")
        for slide, reader in readers.items()
    }

    def read(plan: StepPlan, number: int) -> list[object]:
        crops: list[object] = []
        for index, y, x in zip(plan.index, plan.y, plan.x, strict=True):
            slide, row = data.rows[index].tolist()
            reader = readers[slide]
            if isinstance(reader, WindowReader):  # the tiles under the crop
                under = reader.tiles(row, int(y), int(x), plan.read_px, plan.read_px)
                crops.append([opened[slide][number] for number in under])
                continue
            crops.append(opened[slide][row, y : y + plan.read_px, x : x + plan.read_px])
        return crops

    return read
