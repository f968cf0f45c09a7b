"""GPU rows: everything that `wsisr doctor --gpu` checks, the targets, and the estimate of cost.

    python benchmarks/gpu.py prove [-o gpu.json]     the doctor's checks, targets first
    python benchmarks/gpu.py targets [-o gpu.json]   the targets alone
    python benchmarks/gpu.py cost [NETWORK ...]      estimated against measured steps

All run on a CPU too (`--device cpu`), with small sizes. Nothing is asserted.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wsisr.device import choose_device, describe, forget_most, most_bytes, on_gpu
from wsisr.proof.plan import plan_checks
from wsisr.proof.run import ProofRequest, prove
from wsisr.proof.table import report_text
from wsisr.proof.targets import plan_targets
from wsisr.training import TrainRequest, resolve_config
from wsisr.training.bench import run_synthetic
from wsisr.training.cost import CARDS, CONTEXT_GIB, Card, step_cost

COSTED = {
    "edsr": 16, "rcan": 16, "masrnet": 16, "swinir": 4, "hat": 4, "mihatp": 2, "cwtnet": 2,
    "dcanet": 16, "esrgan": 4, "iste": 4, "itsrn": 4, "li2021": 16, "liif": 4, "lit": 4, "lmi": 4,
    "lte": 4, "masrgan": 4, "mwcnn": 16, "rdn": 16, "srcnn": 16, "srgan": 4, "srmfenet": 16,
    "swdnet": 4,
}  # fmt: skip
"""Batches of crops of 32 LR px for `tiny` presets: about a second a step on one core, and enough
memory that it is the tensors' and not the program's."""
CROP = "data.crop_lr_px=32"


def cpu_card() -> Card:
    """This machine's core as a card: products and copies as they are measured now."""
    a, b = torch.rand(1024, 1024), torch.rand(1 << 24)

    def best(run: object) -> float:
        times = []
        for _ in range(5):
            began = time.process_time()
            run()  # type: ignore[operator]
            times.append(time.process_time() - began)
        return min(times)

    tflops = 2 * 1024**3 / best(lambda: a @ a) / 1e12
    traffic = 2 * b.nbytes / best(lambda: b.clone()) / 1e9
    return replace(
        CARDS["a100-40"], name="cpu", tf32_tflops=tflops, half_tflops=tflops,
        bandwidth_gb_s=traffic, arithmetic=0.7,
    )  # fmt: skip


def cost_row(name: str, preset: str, batch: int, device: str | None) -> None:
    """One network in this process: memory counts from its own start."""
    place = choose_device(device)
    torch.set_num_threads(1)
    given = TrainRequest(
        model=name,
        preset=preset,
        device=device,
        assignments=(f"data.batch={batch}", "train.precision=fp32", CROP),
    )
    config = resolve_config(name, preset=preset, assignments=given.assignments).config
    cost = step_cost(config, fused=on_gpu(place))
    card = cpu_card() if not on_gpu(place) else _card_of(place)
    forget_most(place)
    before = most_bytes(place)
    stamps: list[float] = []
    clock = time.perf_counter if on_gpu(place) else time.process_time
    run_synthetic(given, lambda event: stamps.append(clock()), 2)
    taken = (most_bytes(place) - before) / 2**20
    seconds = (stamps[-1] - stamps[0]) / 2
    memory = 1024 * (cost.memory_gib(card, "fp32") - CONTEXT_GIB)
    print(
        f"| {name}:{preset} | {batch} | {memory:.0f} | {taken:.0f} | {taken / memory:.2f} "
        f"| {cost.seconds(card, 'fp32'):.2f} | {seconds:.2f} "
        f"| {seconds / cost.seconds(card, 'fp32'):.2f} |",
        flush=True,
    )


def _card_of(device: torch.device) -> Card:
    name = describe(device).lower().replace(" ", "")
    return next(
        (card for card in CARDS.values() if card.name.partition("-")[0] in name), CARDS["a100-40"]
    )


def cost(device: str | None, names: Sequence[str]) -> None:
    """Estimated and measured, each network in a process of its own."""
    print("| network | batch | MiB estimated | measured | ratio | s estimated | measured | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for name in names or COSTED:
        command = [sys.executable, __file__, "row", name, "tiny", str(COSTED[name]), "--device"]
        done = subprocess.run(
            [*command, device or "auto"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            # Freed memory goes back at once: else a CPU's peak is what its allocator keeps.
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"},
        )
        print(done.stdout, end="", flush=True)
        cells = [cell.strip() for cell in done.stdout.split("|")]
        rows.append((float(cells[5]), float(cells[8])))
    for what, values in zip(("memory", "time"), zip(*rows, strict=True), strict=True):
        middle = statistics.median(values)
        print(f"{what}: median {middle:.2f}, from {min(values):.2f} to {max(values):.2f}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("prove", "targets", "cost", "row"))
    parser.add_argument("rest", nargs="*")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--device")
    given = parser.parse_intermixed_args()
    if given.what == "cost":
        cost(given.device, given.rest)
        return
    if given.what == "row":
        cost_row(given.rest[0], given.rest[1], int(given.rest[2]), given.device)
        return
    checks = plan_targets()
    if given.what == "prove":
        checks += plan_checks(gpu=on_gpu(choose_device(given.device)))
    report = prove(
        given.output,
        ProofRequest(minutes=given.minutes, device=given.device),
        checks=checks,
        tell=lambda check, row: print(row["state"], check.key, file=sys.stderr, flush=True),
        note=lambda said: print(said, file=sys.stderr, flush=True),
    )
    print(report_text(report))


if __name__ == "__main__":
    main()
