"""One optimiser step, and all that it moves: networks, optimisers, averaged weights, loss scale.

Nothing in a step waits for the device: the loss is not read, and a step whose gradient is not
finite is skipped on the device itself (the fused optimisers take a flag for that). The loop
(`wsisr.training.engine`), measurements and rehearsals take the same steps.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wsisr.device import SHAPES, autocast, on_gpu
from wsisr.models.wrapper import SRModel
from wsisr.training.config import OptimSection, TrainConfig
from wsisr.training.feeds import Feed
from wsisr.training.interrupts import TrainingError
from wsisr.training.parallel import Processes
from wsisr.training.recipes import MODEL, Logs, Recipe
from wsisr.training.state import TrainerState, optimiser_tensors, restore_module, restore_optimiser

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AVERAGED = "averaged"
_FIRST_LOSS_SCALE = 2.0**14
_GROWTH_STEPS = 2000
MISCOMPILED = frozenset({"li2021"})
"""Networks whose backward pass inductor's C++ gets wrong: ended by the C library in every run, in
both memory formats, while the forward pass is right; nothing like it is known on a GPU."""


class Stepper:
    """Networks and optimisers of a run on their device.

    Attributes
    ----------
    shown : SRModel
        The model that is validated and saved: the averaged one where there is one.
    parts : dict of str to nn.Module
        What a trainer state holds beside the optimisers.
    meters : Tensor
        Loss scale (fp16), steps since it grew, skipped steps in all, in a row; on the device.
    """

    def __init__(
        self,
        config: TrainConfig,
        precision: Precision,
        model: SRModel,
        recipe: Recipe,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.config, self.precision, self.device = config, precision, device
        self.processes = processes
        self.recipe, self.model = recipe.to(device), model.to(device)
        self.networks = recipe.networks(model)
        for network in self.networks:
            # On a CPU it pays (a third) in bfloat16, whose kernels want it.
            if network.info.channels_last and (on_gpu(device) or precision == "bf16"):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            network.set_checkpointing(config.train.checkpointing)
        self.parts: dict[str, nn.Module] = {MODEL: model, **recipe.modules}
        self.shown = model
        if config.train.ema:
            self.shown = self.parts[AVERAGED] = deepcopy(model).requires_grad_(False)
        groups = recipe.parameters(model)
        self.optimisers = {name: make_optimiser(g, config.optim) for name, g in groups.items()}
        self.trained = [parameter for group in groups.values() for parameter in group]
        scale = _FIRST_LOSS_SCALE if precision == "fp16" else 1.0
        self.meters = torch.tensor([scale, 0.0, 0.0, 0.0], device=device)

    def restore(self, state: TrainerState) -> None:
        """Go on from a trainer state."""
        for name, module in self.parts.items():
            restore_module(module, state.part(name), name)
        for name, optimiser in self.optimisers.items():
            restore_optimiser(optimiser, state.part(f"optimiser.{name}"))
        self.meters.copy_(state.tensors["meters/values"])

    def tensors(self) -> dict[str, Tensor]:
        """What `restore` goes on from, by ``part/key``."""
        found = {
            f"{name}/{key}": value
            for name, part in self.parts.items()
            for key, value in part.state_dict().items()
        }
        for name, optimiser in self.optimisers.items():
            kept = optimiser_tensors(optimiser)
            found |= {f"optimiser.{name}/{key}": value for key, value in kept.items()}
        return found | {"meters/values": self.meters}

    def compile(self) -> None:
        """Compile the networks as configured, after `restore`.

        Raises
        ------
        TrainingError
            The compiler is known to get this network wrong.
        """
        if self.config.train.compile != "off":
            if self.device.type == "cpu" and self.config.model.name in MISCOMPILED:
                raise TrainingError(
                    f"{self.config.model.name} cannot be compiled for a CPU: torch's compiler "
                    "writes beyond its memory in the backward pass (seen in 2.13); leave "
                    "train.compile out, which on a CPU gains little."
                )
            for network in self.networks:
                compile_model(network, self.config.train.compile)

    def take(self, step: int, rate: float, feed: Feed) -> Logs:
        """One step at a learning rate; the detached terms of its loss, and the gradient's norm."""
        train, recipe, model = self.config.train, self.recipe, self.model
        # Dropout and stochastic depth draw from torch's own generator.
        own = (train.seed * 1_000_003 + step) * 1024 + self.processes.rank
        torch.manual_seed(own % 2**63)
        model.train()
        found: Logs = {}
        for part in range(train.accumulate):
            batch = feed.batch(step, part)
            if train.compile == "reduce-overhead":
                # Outputs of a step's several passes must outlive one another.
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            with autocast(self.device, DTYPES[self.precision]):
                terms = recipe.step(model, batch, self._backward)
            for name, value in terms.items():
                found[name] = found.get(name, 0.0) + value.float() / train.accumulate
        self.processes.average_gradients(self.trained)
        norm, bad = unscale_and_clip(self.optimisers, self.meters[0], self.config.optim.clip_norm)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
            if optimiser.defaults["fused"]:
                optimiser.found_inf = bad  # type: ignore[attr-defined]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        count(self.meters, bad, self.precision == "fp16")
        recipe.after_step(model)
        if train.ema:
            _follow(self.shown, model, min(train.ema, (1 + step) / (10 + step)))
        return found | {"grad_norm": norm}

    def _backward(self, loss: Tensor) -> None:
        # Outside of autocast: a backward pass has the types of its forward pass.
        with autocast(self.device, None):
            torch.autograd.backward(loss * (self.meters[0] / self.config.train.accumulate))


def compile_model(model: SRModel, mode: Literal["default", "reduce-overhead"]) -> None:
    """Compile a network in place; names of its tensors stay what they are."""
    if model.info.kind == "fixed":
        model.net.compile(mode=mode, dynamic=False)
        return
    for name in ("encode", "decode"):
        compiled = torch.compile(getattr(model.net, name), mode=mode, dynamic=False)
        setattr(model.net, name, compiled)


def make_optimiser(parameters: list[nn.Parameter], optim: OptimSection) -> Optimizer:
    """Adam or AdamW.

    Fused: fast, and the only form that can skip a step without asking the device. torch has no
    fused form for shapes alone.
    """
    kind = torch.optim.AdamW if optim.optimiser == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=optim.lr,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        fused=parameters[0].device.type != SHAPES or None,
    )


@torch.no_grad()
def unscale_and_clip(
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
def count(meters: Tensor, bad: Tensor, scaled: bool) -> None:
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
