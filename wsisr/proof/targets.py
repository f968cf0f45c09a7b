"""Numbers to reach on a GPU, measured beside the plain form in the same run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from wsisr.device import autocast, exact_float32, forget_most, most_bytes, on_gpu, synchronise
from wsisr.models import create_model
from wsisr.models.layers.retrieval import transfer
from wsisr.models.layers.texture import transfer_texture
from wsisr.proof.plain import plain_form, plain_transfer
from wsisr.proof.plan import Check
from wsisr.testing.naive_models import naive_transfer_texture

if TYPE_CHECKING:
    from wsisr.proof.bench import Bench

TARGETS = {
    "texture-128": "CWT-Net texture attention, 128 x 128 LR: <= 0.2x the memory, exact",
    "iste-fusion": "ISTE fusion, 96 x 96 LR, 192 x 192 queries: <= 2.2 GB, 1e-5 from plain",
    "masrnet-step": "MASRNet x4 training step, LR 48, batch 16: >= 1.3x the plain form",
    "mihatp-step": "MiHATP x4 training step, LR 48, batch 16: >= 1.5x samples/s, <= 0.6x memory",
    "iste-768": "ISTE, 384 px at x2, retrieval over the whole image: < 4 GB",
}
"""Quickest first."""


def plan_targets() -> tuple[Check, ...]:
    """The targets as checks."""
    return tuple(Check(kind="target", model=name) for name in TARGETS)


def measure(name: str, bench: "Bench") -> dict[str, Any]:
    """Times and memory of a target; without a GPU at a quarter of the side, or tiny networks."""
    return _MEASURES[name](bench)


def _both(device: torch.device, fast: Callable[[], Any], plain: Callable[[], Any]) -> Any:
    """Milliseconds and peak MiB of both forms, their ratios, and what they gave."""
    facts: dict[str, Any] = {}
    made = []
    for label, form in (("", fast), ("plain_", plain)):
        form()
        forget_most(device)
        synchronise(device)
        before = most_bytes(device)
        milliseconds, out = _timed(device, form)
        made.append(out)
        facts[f"{label}ms"] = milliseconds
        facts[f"{label}mib"] = (most_bytes(device) - before) / 2**20
    facts["times_plain"] = facts["plain_ms"] / max(facts["ms"], 1e-9)
    facts["memory_of_plain"] = facts["mib"] / max(facts["plain_mib"], 1e-9)
    return {key: round(value, 3) for key, value in facts.items()}, made


def _timed(device: torch.device, run: Callable[[], Any]) -> tuple[float, Any]:
    import statistics
    import time

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
            device, lambda: transfer(rows, keys)[1], lambda: plain_transfer(rows, keys)[1]
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
    forget_most(device)
    before = most_bytes(device)
    with torch.no_grad():
        milliseconds, _ = _timed(device, lambda: model(lr, scale=2.0))
    taken = (most_bytes(device) - before) / 2**20
    return {"lr_px": side, "ms": round(milliseconds, 1), "mib": round(taken)}


_MEASURES: dict[str, Callable[["Bench"], dict[str, Any]]] = {
    "texture-128": _texture,
    "iste-fusion": _fusion,
    "masrnet-step": _step("masrnet"),
    "mihatp-step": _step("mihatp"),
    "iste-768": _whole,
}
