"""What hands batches to the loop: the store, or one fixed batch when only the model is timed."""

import time
from abc import ABC, abstractmethod

import torch

from wsisr.degradation.draws import Draws
from wsisr.device import has_float64
from wsisr.models.info import ModelInfo
from wsisr.models.layers.coordinates import pixel_centres
from wsisr.training.batches import Batch, BatchRule, make_batch
from wsisr.training.config import TrainConfig
from wsisr.training.data import BatchSource
from wsisr.training.parallel import Processes
from wsisr.training.sampling import StepPlan, plan_step, slots_of


class Feed(ABC):
    """Batches by step.

    Attributes
    ----------
    waited_s : float
        Seconds spent waiting for data since it was last set to 0.
    """

    waited_s = 0.0

    def start(self, step: int) -> None:  # noqa: B027 - most read nothing ahead
        """Get ready to go on from a step."""

    @abstractmethod
    def batch(self, step: int, part: int) -> Batch:
        """The `part`-th accumulated batch of a step, on the device."""

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Let go of threads and memory."""


class StoreFeed(Feed):
    """Crops of a store, finished on the device."""

    def __init__(
        self,
        source: BatchSource,
        rule: BatchRule,
        config: TrainConfig,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.source = source
        self.rule = rule
        self.device = device
        # Degradations count in float64 where it decides a grey level.
        self.home = device if has_float64(device) else torch.device("cpu")
        self.processes = processes
        self.size = config.data.batch
        self.parts = config.train.accumulate
        self.stop = config.train.steps * self.parts

    def start(self, step: int) -> None:
        self.source.start(self.plan, step * self.parts, self.stop)

    def batch(self, step: int, part: int) -> Batch:
        number = step * self.parts + part
        planned = self.plan(number)
        began = time.perf_counter()
        raw = self.source.fetch(number, planned)
        self.waited_s += time.perf_counter() - began
        return make_batch(raw, planned, self.rule, self.home).to(self.device)

    def plan(self, number: int) -> StepPlan:
        """Samples of this process's `number`-th batch."""
        step, part = divmod(number, self.parts)
        return plan_step(
            self.rule.crops,
            seed=self.rule.seed,
            step=step,
            slots=slots_of(self.processes.rank, self.processes.count, self.size, part),
            per_step=self.size * self.processes.count * self.parts,
        )

    def close(self) -> None:
        self.source.close()


class FixedFeed(Feed):
    """The same random batch again and again: what is left is the model's own time."""

    def __init__(self, config: TrainConfig, info: ModelInfo, device: torch.device) -> None:
        data = config.data
        count, side = data.batch, data.crop_lr_px
        draws = Draws(seed=0, step=0, slots=torch.arange(count, device=device))
        lr = torch.rand(count, 3, side, side, device=device)
        if info.kind == "fixed":
            scale = int(info.scale or 1)
            hr = torch.rand(count, 3, side * scale, side * scale, device=device)
            finer = (count, 3, 2 * side, 2 * side)
            reference = torch.rand(finer, device=device) if info.takes_reference else None
            self.fixed = Batch(lr=lr, hr=hr, reference=reference, draws=draws)
            return
        _, high = config.scales(info.scale_range)
        width = round(side * high)
        every = pixel_centres((width, width), device=device, dtype=torch.float32)
        chosen = torch.randint(len(every), (count, data.sample_px), device=device)
        self.fixed = Batch(
            lr=lr,
            coord=every[chosen],
            cell=torch.full((count, 1, 2), 2.0 / width, device=device),
            target=torch.rand(count, data.sample_px, 3, device=device),
            draws=draws,
        )

    def batch(self, step: int, part: int) -> Batch:
        return self.fixed
