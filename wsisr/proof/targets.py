"""Numbers to reach on a GPU, measured beside the plain form in the same run."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from wsisr.device import (
    autocast,
    busy_share,
    exact_float32,
    forget_most,
    most_bytes,
    on_gpu,
    peak_bytes,
    synchronise,
)
from wsisr.inference import load
from wsisr.models import create_model
from wsisr.models.layers.retrieval import transfer, transfer_texture
from wsisr.proof.plan import SCOUT, ProofCheck
from wsisr.proof.scene import make_image
from wsisr.testing.naive_models import naive_transfer, naive_transfer_texture, plain_form
from wsisr.upscaling import UpscaleOptions, upscale_slide

if TYPE_CHECKING:
    from wsisr.proof.bench import Bench


@dataclass(frozen=True, kw_only=True)
class Target:
    """A number to reach; `reached` says whether what was measured does so, at its size."""

    aim: str
    reached: Callable[[dict[str, Any]], bool]


TARGETS = {
    "texture-128": Target(
        aim="CWT-Net texture attention, 128 x 128 LR: <= 0.2x the memory, exact",
        reached=lambda m: m["memory_of_plain"] <= 0.2 and m["equal_pixels"] >= 0.999,
    ),
    "iste-fusion": Target(
        aim="ISTE fusion, 96 x 96 LR, 192 x 192 queries: <= 2.2 GB, 1e-5 from plain, faster",
        reached=lambda m: (
            m["mib"] <= 2.2e9 / 2**20 and m["largest_difference"] <= 1e-5 and m["times_plain"] > 1
        ),
    ),
    "masrnet-step": Target(
        aim="MASRNet x4 training step, LR 48, batch 16: >= 1.3x the plain form",
        reached=lambda m: m["times_plain"] >= 1.3,
    ),
    "mihatp-step": Target(
        aim="MiHATP x4 training step, LR 48, batch 16: >= 1.5x samples/s, <= 0.6x memory",
        reached=lambda m: m["times_plain"] >= 1.5 and m["memory_of_plain"] <= 0.6,
    ),
    "iste-768": Target(
        aim="ISTE, 384 px at x2, retrieval over the whole image: < 4 GB",
        reached=lambda m: m["mib"] < 4e9 / 2**20,
    ),
    "upscale": Target(
        aim="Enlarging x4: memory flat from 1,024 to 2,048 px, < 8 GB on the device, < 4 GB of "
        "the host; device busy >= 90 %",
        reached=lambda m: (
            m["mib"] <= 1.1 * m["half_mib"]
            and m["mib"] < 8e9 / 2**20
            and m["host_mib"] < 4e9 / 2**20
            and m["busy"] >= 0.9
        ),
    ),
}
"""Quickest first."""


def plan_targets() -> tuple[ProofCheck, ...]:
    """The targets as checks."""
    return tuple(ProofCheck(kind="target", model=name) for name in TARGETS)


def measure(name: str, bench: "Bench") -> dict[str, Any]:
    """Times and memory of a target, and whether it is reached.

    Without a GPU it is measured at a quarter of the side, or with tiny networks, which says nothing
    about the target and shows that the measurement works.
    """
    facts = _MEASURES[name](bench)
    return facts | ({"reached": TARGETS[name].reached(facts)} if on_gpu(bench.device) else {})


def _both(device: torch.device, fast: Callable[[], Any], plain: Callable[[], Any]) -> Any:
    """Milliseconds and peak MiB of both forms, their ratios, and what they gave."""
    facts: dict[str, Any] = {}
    made = []
    for label, form in (("", fast), ("plain_", plain)):
        # The pass that warms up is the one whose memory counts.
        facts[f"{label}mib"] = peak_bytes(device, form) / 2**20
        facts[f"{label}ms"], out = _timed(device, form)
        made.append(out)
    facts["times_plain"] = facts["plain_ms"] / facts["ms"]
    facts["memory_of_plain"] = facts["mib"] / facts["plain_mib"]
    return {key: round(value, 3) for key, value in facts.items()}, made


def _timed(device: torch.device, run: Callable[[], Any]) -> tuple[float, Any]:
    times, out = [], None
    for _ in range(5 if on_gpu(device) else 1):
        synchronise(device)
        began = time.perf_counter()
        out = run()
        synchronise(device)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), out


def _texture(bench: "Bench") -> dict[str, Any]:
    side, device = (128 if on_gpu(bench.device) else 32), bench.device
    torch.manual_seed(0)
    maps = [torch.randn(1, 64, side, side).to(device).requires_grad_() for _ in range(3)]

    def run(form: Callable[..., Any]) -> Callable[[], Any]:
        def call() -> Any:
            texture, confidence = form(*maps)
            (texture * confidence).sum().backward()
            return texture.detach()

        return call

    with exact_float32(device):
        facts, made = _both(device, run(transfer_texture), run(naive_transfer_texture))
    # Another match where two are equally near is no error: most pixels must be the same.
    same = float(((made[0] - made[1]).abs().amax(1) < 1e-4).float().mean())
    return {"side_px": side, **facts, "equal_pixels": round(same, 5)}


def _fusion(bench: "Bench") -> dict[str, Any]:
    side, device = (96 if on_gpu(bench.device) else 24), bench.device
    torch.manual_seed(0)
    rows = torch.randn(1, side * side, 256).to(device)
    keys = torch.randn(1, 4 * side * side, 256).to(device)
    with exact_float32(device), torch.no_grad():
        facts, made = _both(
            device, lambda: transfer(rows, keys)[1], lambda: naive_transfer(rows, keys)[1]
        )
    facts["largest_difference"] = float((made[0] - made[1]).abs().max())
    return {"side_px": side, **facts}


def _step(name: str) -> Callable[["Bench"], dict[str, Any]]:
    def run(bench: "Bench") -> dict[str, Any]:
        gpu, device = on_gpu(bench.device), bench.device
        preset, side, batch = ("paper", 48, 16) if gpu else ("tiny", 16, 2)
        model = create_model(name, scale=4, preset=preset).to(device).train()
        lr = torch.rand(batch, 3, side, side, device=device)

        def step() -> None:
            with autocast(device, torch.bfloat16):
                loss = model(lr).float().abs().mean()
            loss.backward()
            model.zero_grad(set_to_none=True)

        def plain() -> None:
            with plain_form():
                step()

        return {"preset": preset, "batch": batch, **_both(device, step, plain)[0]}

    return run


def _whole(bench: "Bench") -> dict[str, Any]:
    gpu, device = on_gpu(bench.device), bench.device
    preset, side = ("paper", 384) if gpu else ("tiny", 48)
    model = create_model("iste", preset=preset).to(device).eval()
    lr = torch.rand(1, 3, side, side, device=device)
    with torch.no_grad():
        taken = peak_bytes(device, lambda: model(lr, scale=2.0)) / 2**20
        milliseconds, _ = _timed(device, lambda: model(lr, scale=2.0))
    return {"lr_px": side, "ms": round(milliseconds, 1), "mib": round(taken, 1)}


def _upscaling(bench: "Bench") -> dict[str, Any]:
    gpu, device = on_gpu(bench.device), bench.device
    engine = load(bench.run(ProofCheck(kind="train", model=SCOUT)), device=str(device))
    side = 2048 if gpu else 96
    facts: dict[str, Any] = {"lr_px": side, "precision": engine.precision}

    def enlarge(side_px: int) -> Callable[[], Any]:
        source = make_image(bench.work / f"image-{side_px}.png", side_px)
        target = bench.work / f"enlarged-{side_px}.tif"
        options = UpscaleOptions(scale=4, overwrite=True, mask=False)
        return lambda: upscale_slide(source, target, engine, options)

    for name, side_px in (("half_mib", side // 2), ("mib", side)):
        facts[name] = round(peak_bytes(device, enlarge(side_px)) / 2**20, 1)
    forget_most("cpu")
    facts["busy"] = round(busy_share(device, enlarge(side)), 3)
    return facts | {"host_mib": round(most_bytes("cpu") / 2**20)}


_MEASURES: dict[str, Callable[["Bench"], dict[str, Any]]] = {
    "texture-128": _texture,
    "iste-fusion": _fusion,
    "masrnet-step": _step("masrnet"),
    "mihatp-step": _step("mihatp"),
    "iste-768": _whole,
    "upscale": _upscaling,
}
