"""Training: where a step's time goes. What GPUs reach: `benchmarks/gpu.py`.

    python benchmarks/training.py loader pairs.zarr      crops out of a store (no model)
    python benchmarks/training.py share pairs.zarr [--wall]   real-data against synthetic steps

`share` is the acceptance row "real-data step >= 95 % of synthetic". With a GPU both are run in
turns, several times, and the medians of wall time are compared. Without one, wall time on a shared
machine means little, and data and model compete for the same cores: CPU time of both is given, and
wall time where `--wall` says that the machine is quiet.
Nothing is asserted.
"""

import argparse
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from wsisr import __version__
from wsisr.device import accelerated, choose_device, describe
from wsisr.progress import ProgressEvent
from wsisr.training import TrainRequest, train
from wsisr.training.bench import bench_store, loader_table, run_synthetic
from wsisr.training.logs import read_rows
from wsisr.training.request import settle
from wsisr.training.start import prepare


def header() -> None:
    where = describe(choose_device())
    print(f"wsisr {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {where}\n")


def quiet(event: ProgressEvent) -> None:
    """Nothing: figures come from the run folder."""


def real_speed(request: TrainRequest, steps: int) -> dict[str, float]:
    """Median figures of a short run on a store, its first log row left out."""
    with tempfile.TemporaryDirectory() as scratch:
        every = max(1, steps // 5)
        more = (f"train.log_every={every}", f"train.save_every={10 * steps}", "val.count=1")
        more += (f"val.every={10 * steps}", "val.pictures=0")
        request = replace(
            request,
            output=Path(scratch) / "run",
            steps=steps,
            assignments=(*request.assignments, *more),
        )
        train(request, quiet)
        rows = read_rows(Path(scratch) / "run" / "log.csv")[1:]
    names = ("samples_per_s", "data_wait_ms", "step_ms", "memory_mib")
    return {name: statistics.median(row[name] for row in rows) for name in names}


def cpu_share(store: Path, models: list[str], steps: int) -> None:
    """CPU time of making a batch and of the model's passes on it."""
    print("| model | cache | batch, CPU ms | model, CPU ms | share of the model |")
    print("|---|---|---|---|---|")
    for name in models:
        for cache in ("auto", "stream"):
            request = TrainRequest(model=name, data=store, assignments=(f"data.cache={cache}",))
            job = prepare(settle(request, writes=False), quiet, dry_run=True)
            job.feed.start(0)
            data, passes = [], []
            for step in range(steps):
                began = time.process_time()
                batch = job.feed.batch(step, 0)
                data.append(1e3 * (time.process_time() - began))
                began = time.process_time()
                job.recipe.step(job.model, batch, torch.Tensor.backward)
                passes.append(1e3 * (time.process_time() - began))
                job.model.zero_grad()
            job.feed.close()
            ours, theirs = statistics.median(data), statistics.median(passes)
            part = 100 * theirs / (ours + theirs)
            print(f"| {name} | {cache} | {ours:.1f} | {theirs:.1f} | {part:.1f} % |", flush=True)


def share(store: Path, models: list[str], steps: int, rounds: int) -> None:
    """Real against synthetic steps, resident and streaming."""
    print("| model | cache | real ms | synthetic ms | share | data wait ms |")
    print("|---|---|---|---|---|---|")
    for name in models:
        for cache in ("auto", "stream"):
            request = TrainRequest(model=name, data=store, assignments=(f"data.cache={cache}",))
            pairs = []
            for _ in range(rounds):
                real = real_speed(request, steps)
                model = run_synthetic(request, quiet, steps).speed
                pairs.append((real["step_ms"], model["step_ms"], real["data_wait_ms"]))
            real_ms, model_ms, wait_ms = (statistics.median(v) for v in zip(*pairs, strict=True))
            print(
                f"| {name} | {cache} | {real_ms:.1f} | {model_ms:.1f} "
                f"| {100 * model_ms / real_ms:.0f} % | {wait_ms:.2f} |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("loader", "share"))
    parser.add_argument("store", type=Path)
    parser.add_argument("--models", nargs="*", help="registry names (default: by what is run)")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wall", action="store_true", help="wall time without a GPU too")
    options = parser.parse_args()
    header()
    if options.what == "loader":
        print(loader_table(bench_store(options.store)))
    else:
        models = options.models or ["mihatp", "iste"]
        if accelerated(choose_device()) or options.wall:
            share(options.store, models, options.steps, options.rounds)
        else:
            cpu_share(options.store, models, options.steps)


if __name__ == "__main__":
    main()
