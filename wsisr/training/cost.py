"""What a run will cost, before it: memory and hours on named cards, and what fits on them.

One step of the configuration is traced on shapes (torch's meta device): every operation's
multiply-adds, bytes and results are counted, results as long as they live. An operation takes the
longer of its arithmetic and its traffic, each at a share of what the card could do. The shares are
taken, not measured, until a report of ``wsisr doctor --gpu`` is given for the card.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from wsisr.arrays import Float64Array
from wsisr.device import SHAPES, LiveBytes, accelerated, choose_device, shapes_stand_for_a_gpu
from wsisr.errors import ConfigError
from wsisr.files import read_document
from wsisr.shapes import Remembered, tensors
from wsisr.tables import markdown_table
from wsisr.training.config import TrainConfig
from wsisr.training.feeds import FixedFeed
from wsisr.training.parallel import Processes
from wsisr.training.recipes import build_recipe
from wsisr.training.request import TrainRequest, resolve
from wsisr.training.start import build_model
from wsisr.training.stepping import Precision, Stepper

HALF_SHARE = 0.6
"""Bytes that activations take in a half type, of those in float32: normalisations, softmax and
losses stay float32. Taken, not measured."""
CONTEXT_GIB = 0.7
"""What a process takes of a card before its first tensor, libraries' workspaces among it."""
LAUNCH_S = 5e-6
"""Least time of an operation that is not compiled."""
KEPT_FREE = 0.92
"""Part of a card that tensors can take; the allocator loses the rest between them."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A card as its maker's data sheet has it.

    Attributes
    ----------
    tf32_tflops, half_tflops : float
        Dense products of float32 (in TF32 where it has that) and of 16-bit types, 10^12 a second.
    arithmetic, traffic : float
        Shares of these that networks of this kind reach.
    memory : float
        Measured over estimated memory.
    measured : bool
        Whether the shares come from a run on it.
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    tf32_tflops: float
    half_tflops: float
    arithmetic: float = 0.35
    traffic: float = 0.7
    memory: float = 1.0
    measured: bool = False


CARDS = {
    name: Card(
        name=name, memory_gib=gib, bandwidth_gb_s=bandwidth, tf32_tflops=tf32, half_tflops=half
    )
    for name, gib, bandwidth, tf32, half in (
        ("t4-16", 15, 320, 8.1, 65),
        ("rtx3090-24", 24, 936, 35.6, 71),
        ("rtx4090-24", 24, 1008, 82.6, 165),
        ("a100-40", 40, 1555, 156, 312),
        ("l40s-48", 45, 864, 183, 362),
        ("a100-80", 80, 2039, 156, 312),
        ("h100-80", 80, 3350, 495, 989),
        ("h200-141", 140, 4800, 495, 989),
    )
}
"""Memory that tensors can be given, of that printed on the card; the rest from NVIDIA's sheets: T4
(2019), GA102 white paper (appendix A), Ada white paper 2.1 (appendix A), A100 (SXM), L40S, H100
and H200 (SXM). 16-bit products add up in float32; those of sparse matrices do not count."""
SHOWN = ("rtx3090-24", "a100-40", "a100-80")


def choose_cards(names: Sequence[str]) -> list[Card]:
    """Cards by name, or by a report that ``wsisr doctor --gpu`` wrote on one.

    Raises
    ------
    ConfigError
        Neither; the sentence has the names.
    """
    return [CARDS[name] if name in CARDS else _measured(Path(name)) for name in names or SHOWN]


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one optimiser step does and keeps, in float32.

    Attributes
    ----------
    samples : int
        Of a step.
    fixed_bytes : int
        Weights, gradients, the optimiser's moments, averaged weights, feature networks.
    batch_bytes : int
        The most that everything else takes at a time.
    flops, bytes : ndarray
        Of each operation: floating-point operations, and what is read and written.
    """

    samples: int
    fixed_bytes: int
    batch_bytes: int
    flops: Float64Array
    bytes: Float64Array

    @property
    def tflop(self) -> float:
        return float(self.flops.sum()) / 1e12

    @property
    def moved_gb(self) -> float:
        return float(self.bytes.sum()) / 1e9

    def memory_gib(self, card: Card, precision: Precision) -> float:
        """Memory on a card, its context included."""
        share = 1.0 if precision == "fp32" else HALF_SHARE
        return CONTEXT_GIB + card.memory * (self.fixed_bytes + share * self.batch_bytes) / 2**30

    def seconds(self, card: Card, precision: Precision) -> float:
        """Time of a step on a card."""
        half = precision != "fp32"
        rate = 1e12 * card.arithmetic * (card.half_tflops if half else card.tf32_tflops)
        traffic = 1e9 * card.traffic * card.bandwidth_gb_s / (HALF_SHARE if half else 1.0)
        each = np.maximum(self.flops / rate, self.bytes / traffic)
        return float(np.maximum(each, LAUNCH_S).sum())

    def largest_batch(self, card: Card, precision: Precision) -> int:
        """Samples of a step that fit; 0 where not one does."""
        room = KEPT_FREE * card.memory_gib - self.memory_gib(card, precision)
        share = 1.0 if precision == "fp32" else HALF_SHARE
        one = card.memory * share * self.batch_bytes / self.samples / 2**30
        return max(0, self.samples + int(np.floor(room / one)))

    def largest_crop(self, card: Card, precision: Precision, crop_px: int) -> int:
        """Side of the crops that fit at this batch, as memory grows by their area."""
        fits = self.largest_batch(card, precision) / self.samples
        return int(crop_px * np.sqrt(fits)) // 8 * 8


def step_cost(config: TrainConfig, *, fused: bool = True) -> StepCost:
    """Trace a step at the smallest batch, and count it as often as the batch holds that.

    Parameters
    ----------
    fused : bool
        Attention keeps no score matrix, as on GPUs; on a CPU, where position tables are learnt,
        it does.
    """
    with shapes_stand_for_a_gpu() if fused else nullcontext(torch.device(SHAPES)) as device:
        meter = _Meter()
        with meter, _fused_attention(meter) if fused else nullcontext():
            with device:
                model = build_model(config)
            few = model.info.smallest_batch
            data = config.data.model_copy(update={"batch": few})
            one = config.model_copy(update={"data": data})
            recipe = build_recipe(one, model)
            stepper = Stepper(one, "fp32", model, recipe, device, Processes())
            standing = meter.now
            meter.start()
            batch = FixedFeed(one, model.info, device).batch(0, 0)
            model.train()
            recipe.step(model, batch, torch.Tensor.backward)
    trained = sum(parameter.numel() for parameter in stepper.trained)
    samples = config.data.batch
    passes = samples / few * config.train.accumulate
    # Adam reads weight, gradient and two moments, and writes three of them.
    flops = np.append(np.array(meter.flops) * passes, 0.0)
    moved = np.append(np.array(meter.bytes) * passes, 28.0 * trained)
    return StepCost(
        samples=samples,
        fixed_bytes=standing + 3 * 4 * trained,
        batch_bytes=samples * max(0, meter.peak - standing - 4 * trained) // few,
        flops=flops,
        bytes=moved,
    )


def cost_text(request: TrainRequest, cards: Sequence[str] = ()) -> str:
    """What the run will cost on cards, by name or by a report of ``wsisr doctor --gpu``."""
    chosen = choose_cards(cards)
    resolved = resolve(request, accelerated(choose_device(request.device)))
    return cost_table(resolved.config, chosen)


def cost_table(config: TrainConfig, cards: Sequence[Card]) -> str:
    """A configuration on cards, in float32 and bfloat16, as a Markdown table with what it means."""
    cost = step_cost(config)
    data, steps = config.data, config.train.steps
    lines = [
        f"A step: {cost.samples * config.train.accumulate} samples of {data.crop_lr_px} LR px, "
        f"{cost.tflop:.3g} TFLOP, {cost.moved_gb:.3g} GB moved; it keeps "
        f"{cost.fixed_bytes / 2**30:.2f} GiB whatever the batch.",
        "",
    ]
    rows = []
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for card in cards:
        for precision in precisions:
            hours = cost.seconds(card, precision) * steps / 3600
            batch = cost.largest_batch(card, precision)
            crop = cost.largest_crop(card, precision, data.crop_lr_px) if batch else 0
            name = f"{card.name}{'' if card.measured else ' *'}"
            memory = f"{cost.memory_gib(card, precision):.1f}"
            rows.append((name, precision, memory, _hours(hours), batch or "none", crop or "none"))
    asked = f"hours for {steps:,} steps"
    header = ["card", "precision", "GiB", asked, "largest batch", "largest crop"]
    lines += markdown_table(header, rows)
    if not all(card.measured for card in cards):
        lines += [
            "",
            "\\* by the data sheet: hours may be off by a factor of two, memory by a third. "
            "wsisr doctor --gpu on the card writes a report that --card takes and that corrects "
            "both.",
        ]
    return "\n".join(lines)


def _hours(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _measured(path: Path) -> Card:
    """The card of a doctor's report, its shares as they were found."""
    try:
        report = read_document(path)
        identity, found = report["identity"], report.get("correction") or {}
        near = _nearest(str(identity["name"]), float(identity["memory_gib"]))
        times, memory = float(found["time"]), float(found["memory"])
        if not (times > 0 and memory > 0):
            raise ValueError("correction must be positive")
    except (ConfigError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"--card {path}: neither a card ({', '.join(CARDS)}) nor a report of wsisr doctor "
            "--gpu with measured speeds"
        ) from None
    return replace(
        near,
        name=str(identity["name"]),
        memory_gib=float(identity["memory_gib"]),
        arithmetic=near.arithmetic / times,
        traffic=near.traffic / times,
        memory=memory,
        measured=True,
    )


def _nearest(name: str, gib: float) -> Card:
    """The data sheet of a card by its name, else the one with as much memory."""
    plain = name.lower().replace(" ", "")
    named = [c for c in CARDS.values() if c.name.partition("-")[0] in plain]
    return min(named or CARDS.values(), key=lambda c: abs(c.memory_gib - gib))


def over_estimate(
    config: TrainConfig, precision: Precision, identity: dict[str, Any], seconds: float, taken: int
) -> dict[str, float]:
    """Measured over estimated time of a step and bytes of its tensors, on a report's card."""
    cost = step_cost(config)
    card = _nearest(str(identity["name"]), float(identity["memory_gib"]))
    tensors = cost.memory_gib(card, precision) - CONTEXT_GIB
    return {
        "time_over_estimate": seconds / cost.seconds(card, precision),
        "memory_over_estimate": taken / 2**30 / tensors,
    }


class _Meter(LiveBytes):  # type: ignore[no-untyped-call]
    """Counts operations on shapes, and what lives at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.work_out = Remembered()
        self.start()

    def start(self) -> None:
        """Count operations, and the most that lives, from now on."""
        self.flops: list[float] = []
        self.bytes: list[float] = []
        self.peak = self.now

    def operation(self, flops: float, tensors: Sequence[Tensor]) -> None:
        """Count one."""
        self.flops.append(flops)
        self.bytes.append(float(sum(t.numel() * t.element_size() for t in tensors)))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self.work_out(func, args, kwargs)
        made = _shapes(out)
        for tensor in made:
            self.add(tensor.untyped_storage())
        # Views move nothing.
        if made and not func.is_view:
            count = flop_registry.get(func.overloadpacket)
            flops = 0.0 if count is None else float(count(*args, **kwargs, out_val=out))
            self.operation(flops, [*_shapes((args, kwargs)), *made])
        return out


def _shapes(value: object) -> list[Tensor]:
    return [tensor for tensor in tensors(value) if tensor.device.type == SHAPES]


@contextmanager
def _fused_attention(meter: _Meter) -> Iterator[None]:
    """Within it attention keeps what the fused kernels of GPUs keep."""

    def attend(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **more: Any
    ) -> Tensor:
        out: Tensor = _Fused.apply(q, k, v, attn_mask, meter)  # type: ignore[no-untyped-call]
        return out

    with patch.object(F, "scaled_dot_product_attention", attend):
        yield


class _Fused(torch.autograd.Function):
    """Shapes of fused attention: its inputs and result are kept, its scores are not."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, meter: Any) -> Any:
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, bias, out)
        ctx.meter = meter
        meter.operation(_scores(q, k) * 4 * q.shape[-1], [q, k, v, out])
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        q, k, v, bias, out = ctx.saved_tensors
        ctx.meter.operation(_scores(q, k) * 10 * q.shape[-1], [q, k, v, out, gradient, q, k, v])
        learnt = None
        if bias is not None and ctx.needs_input_grad[3]:
            # The kernels write the gradient of each score.
            q.new_empty((*q.shape[:-1], k.shape[-2]))
            learnt = torch.empty_like(bias)
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), learnt, None


def _scores(q: Tensor, k: Tensor) -> float:
    return float(q.numel() // q.shape[-1] * k.shape[-2])
