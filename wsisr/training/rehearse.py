"""A run's whole step on shapes alone: crops, degradation, losses, optimiser, averaged weights."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from wsisr.arrays import UInt8Array
from wsisr.degradation import hr_size, parse_degradation
from wsisr.rehearsal import Watch, rehearsed
from wsisr.training.batches import BatchRule
from wsisr.training.config import TrainConfig
from wsisr.training.data import MemorySource, PairDataset, Role
from wsisr.training.feeds import Feed, StoreFeed
from wsisr.training.parallel import Processes
from wsisr.training.recipes import build_recipe
from wsisr.training.sampling import CropRule
from wsisr.training.start import build_model
from wsisr.training.stepping import Stepper

PATCHES = 4
DEGRADATION = "bicubic"


def rehearse_step(config: TrainConfig) -> Watch:
    """Take a step of a configuration on shapes: what it would do to a GPU."""
    with rehearsed() as (device, watch):
        # As on a GPU: built on the CPU, and moved. A tensor that is no parameter or buffer stays.
        model = build_model(config)
        recipe = build_recipe(config, model)
        stepper = Stepper(config, "fp32", model, recipe, device, Processes())
        feed = blank_feed(config, model.info, device)
        watch.counts.clear()
        stepper.take(0, config.optim.lr, feed)
    return watch


def blank_feed(config: TrainConfig, info: Any, device: torch.device) -> Feed:
    """Crops of black patches that lie on a device, degraded and cut as a store's are."""
    data = config.data
    low, high = config.scales(info.scale_range)
    side = hr_size(data.crop_lr_px + 2 * data.margin_lr_px, high)
    rule = CropRule(
        patches=PATCHES,
        hr_px=side,
        crop_lr_px=data.crop_lr_px,
        margin_lr_px=data.margin_lr_px,
        scale=config.model.scale,
        scale_range=(low, high),
        per_sample=config.model.scale is None and data.scale_draw == "sample",
    )
    named = DEGRADATION if data.lr_source in ("auto", "native") else data.lr_source
    batches = BatchRule(
        crops=rule,
        degradation=parse_degradation(named),
        flips=data.flips,
        sample_px=data.sample_px if info.kind == "arbitrary" else None,
        reference=info.takes_reference,
        seed=config.train.seed,
    )
    role = Role(name="hr", array="hr", corner=1, size=0)
    blank = cast(PairDataset, _Blank(side=side))
    source = MemorySource(blank, [role], device)
    return StoreFeed(source, batches, config, device, Processes())


@dataclass(frozen=True, kw_only=True)
class _Blank:
    """Black patches, as `PairDataset` reads them."""

    side: int

    def __len__(self) -> int:
        return PATCHES

    def read(self, array: str, index: NDArray[np.integer]) -> UInt8Array:
        return np.zeros((len(index), self.side, self.side, 3), np.uint8)
