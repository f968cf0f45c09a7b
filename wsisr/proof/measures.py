"""Checks of one network or of the device by itself: numbers, speed, memory."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsisr.degradation import degrade
from wsisr.degradation.draws import Draws
from wsisr.device import (
    autocast,
    busy_share,
    exact_float32,
    forget_most,
    limited_memory,
    most_bytes,
    on_gpu,
    release_memory,
)
from wsisr.device import facts as device_facts
from wsisr.inference import load
from wsisr.inference.images import super_resolve
from wsisr.inference.tiles import plan_tiles
from wsisr.models.wrapper import SRModel
from wsisr.proof.bench import Bench, CheckError
from wsisr.proof.plan import SMALL, ProofCheck
from wsisr.proof.scene import patches
from wsisr.testing.naive_models import has_fused_parts, plain_form
from wsisr.training import resolve_config, train
from wsisr.training.bench import run_synthetic
from wsisr.training.cost import over_estimate
from wsisr.training.interrupts import TrainingError
from wsisr.training.rehearse import rehearse_step
from wsisr.training.request import resolve
from wsisr.training.stepping import DTYPES

OUTPUT_TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
GRADIENT_TOLERANCE = {"fp32": 1e-3, "fp16": 2e-1, "bf16": 5e-1}
"""Largest relative L2 difference to float64 on the CPU. TF32 is off; half types round products to
2^-11 and 2^-8, and gradients add up what a whole network loses."""
SHORT = {"cpu": (96, 2 << 20), "gpu": (512, 64 << 20)}
"""Where memory is to run out: side of the tile, LR px, and what may be taken beyond what is."""
CORRECTING = ("edsr", "masrnet", "swinir", "iste")
"""Networks whose speed corrects the estimate of cost (`wsisr.training.cost`)."""


def draws(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Every random number of the device is the CPU's."""
    words = []
    for device in (bench.device, torch.device("cpu")):
        draws = Draws(seed=7, step=11, slots=torch.arange(64, device=device))
        words.append(draws.words("proof", 257).cpu())
    if not torch.equal(*words):
        raise CheckError("draws", "random words of the device are not those of the CPU")
    hr = torch.from_numpy(patches(1, 2, 96)).permute(0, 3, 1, 2)
    lr = [degrade(hr.to(d), "realesrgan2", 4, seed=3).cpu().int() for d in (bench.device, "cpu")]
    change = int((lr[0] - lr[1]).abs().max())
    if change > 1:
        raise CheckError(
            "draws", f"a degraded image differs from the CPU's by {change} grey levels"
        )
    return {"words": 64 * 257, "largest_grey_difference": change}


def agree(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Output and gradient of the same weights and input are near those in float64 on the CPU."""
    model = bench.model(check).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        # Off the start, where some layers are zero and hide what feeds them.
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    lr = torch.from_numpy(patches(5, 1, 16)).permute(0, 3, 1, 2).double() / 255
    wanted = _pass(model.double(), lr, torch.device("cpu"), None)
    model = model.float().to(bench.device)
    found = _pass(model, lr.float().to(bench.device), bench.device, DTYPES[check.form.precision])
    far = [apart(a, b) for a, b in zip(found, wanted, strict=True)]
    facts = {"output": far[0], "gradient": far[1]}
    for value, limit, what in zip(
        far, (OUTPUT_TOLERANCE, GRADIENT_TOLERANCE), ("output", "gradient"), strict=True
    ):
        most = limit[check.form.precision]
        if not value <= most:
            raise CheckError("disagrees", f"{what} is {value:.2g} from the CPU's, not {most:g}")
    return facts


def _pass(
    model: SRModel, lr: Tensor, device: torch.device, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    extra = {} if model.info.kind == "fixed" else {"scale": 2.0}
    with exact_float32(device):
        with autocast(device, dtype):
            out = model(lr, **extra)
        # Differences within the image: its mean is not what a network finds out.
        out = out if out.dtype == torch.float64 else out.float()
        (out - out.mean()).square().mean().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return out.detach().cpu().double(), torch.cat(gradients).cpu().double()


def speed(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Steps of the model alone, fused beside plain, and in how much of the time it computes."""
    steps = 1 if bench.small else 8
    request = bench.request(check)
    facts: dict[str, Any] = {}

    config = resolve(request, on_gpu(bench.device)).config
    samples = steps * config.data.batch * config.train.accumulate

    def run(name: str) -> None:
        forget_most(bench.device)
        # Ends of the warm-up and of what counts. A CPU may be shared: its own time counts.
        clock = time.perf_counter if on_gpu(bench.device) else time.process_time
        stamps: list[float] = []
        run_synthetic(request, lambda event: stamps.append(clock()), steps)
        facts[f"{name}samples_per_s"] = samples / max(stamps[-1] - stamps[0], 1e-9)
        facts[f"{name}memory_mib"] = most_bytes(bench.device) / 2**20

    run("")
    with torch.device("meta"):
        shape = bench.model(check)
    if has_fused_parts(shape):
        with plain_form():
            run("plain_")
        facts["times_plain"] = facts["samples_per_s"] / facts["plain_samples_per_s"]
    facts["busy"] = busy_share(
        bench.device, lambda: run_synthetic(request, lambda event: None, steps)
    )
    if on_gpu(bench.device) and check.model in CORRECTING:
        facts |= over_estimate(
            config,
            check.form.precision,
            device_facts(bench.device),
            samples / steps / facts["samples_per_s"],
            int(facts["memory_mib"] * 2**20),
        )
    return {name: round(value, 4) for name, value in facts.items()}


def memory(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Memory that runs out is answered by a sentence in training, by smaller tiles in upscaling."""
    engine = load(bench.run(check), device=str(bench.device))
    side, short = SHORT["gpu" if on_gpu(bench.device) else "cpu"]
    image = patches(3, 1, side)[0]
    plan = plan_tiles(engine.needs, 4, side, 0)
    whole = super_resolve(engine, image, 4, plan)
    told: list[str] = []
    release_memory()
    with limited_memory(bench.device, short):
        made = super_resolve(engine, image, 4, plan, on_shrink=told.append)
    if not told:
        raise CheckError("memory", "memory was to run out in upscaling, and did not")
    change = float(np.abs(made - whole).max())
    if change > 0.5:
        raise CheckError("memory", f"smaller tiles changed the image by {change:.3g} grey levels")
    request = replace(
        bench.request(check, bench.work / "short", "data.batch=512"), steps=1, model=SMALL
    )
    try:
        with limited_memory(bench.device, short):
            train(request)
    except TrainingError as error:
        if "memory is exhausted" not in str(error):
            raise
        said = str(error)
    else:
        raise CheckError("memory", "memory was to run out in training, and did not")
    return {"upscaling": told, "largest_change": change, "training": said}


def rehearse(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """The step on shapes: no stray tensor, nothing that waits."""
    watch = rehearse_step(resolve_config(check.model, preset="tiny").config)
    if watch.faults:
        raise CheckError(watch.faults[0].kind, "; ".join(map(str, watch.faults)))
    return {}


def apart(a: Tensor, b: Tensor) -> float:
    """Relative L2 difference."""
    return float((a - b).norm() / b.norm())
