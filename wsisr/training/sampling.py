"""Which samples, where and at what scale: pure functions of (seed, step, slot).

A *slot* is the place of a sample in a step, over all processes and accumulated batches. Two
processes of batch b hold the same slots as one of batch 2 b, and no number depends on how many
threads read ahead; resuming needs nothing but the step.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from wsisr.arrays import Int64Array
from wsisr.degradation import hr_size
from wsisr.degradation.draws import Draws


@dataclass(frozen=True, kw_only=True)
class CropRule:
    """How crops are cut from patches.

    Attributes
    ----------
    patches : int
        How many there are.
    hr_px : int
        Side of an HR patch.
    crop_lr_px, margin_lr_px : int
        Side of a crop; px around it that are read and degraded too (0 for native LR).
    scale : int or None
        Of a fixed-scale model; None: drawn from `scale_range`.
    per_sample : bool
        Draw a scale for each sample instead of each step.
    native : bool
        LR is read, not made: corners lie on whole LR pixels.
    """

    patches: int
    hr_px: int
    crop_lr_px: int
    margin_lr_px: int = 0
    scale: int | None
    scale_range: tuple[float, float]
    per_sample: bool = False
    native: bool = False

    @property
    def region_lr_px(self) -> int:
        """Side of what is degraded: crop and margins."""
        return self.crop_lr_px + 2 * self.margin_lr_px


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The samples of one batch.

    Attributes
    ----------
    slots, index : int64 array, shape (k,)
        Place in the step; place in the rows of the run.
    scales : tuple of float
        One for each sample.
    read_px : int
        Side of the HR region that is read for each sample.
    y, x : int64 array, shape (k,)
        Its corner: HR px, or LR px of the crop where LR is native.
    """

    step: int
    slots: Int64Array
    index: Int64Array
    scales: tuple[float, ...]
    read_px: int
    y: Int64Array
    x: Int64Array


def slots_of(rank: int, processes: int, batch: int, part: int = 0) -> Int64Array:
    """Slots of one process's batch, `part` counting accumulated batches.

    >>> slots_of(1, 2, 3), slots_of(0, 1, 3, part=1)
    (array([3, 4, 5]), array([3, 4, 5]))
    """
    return np.arange(batch, dtype=np.int64) + (part * processes + rank) * batch


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> Int64Array:
    """Order of the patches in one epoch."""
    sequence = np.random.SeedSequence((seed, epoch, count))
    return np.random.Generator(np.random.Philox(sequence)).permutation(count)


def sample_index(seed: int, step: int, slots: Int64Array, per_step: int, count: int) -> Int64Array:
    """Which patch each slot takes: epochs of permutations, laid end to end."""
    epoch, place = np.divmod(step * per_step + slots, count)
    return np.array(
        [
            permutation(seed, int(e), count)[int(p)]
            for e, p in zip(epoch.tolist(), place.tolist(), strict=True)
        ],
        np.int64,
    )


def plan_step(
    rule: CropRule, *, seed: int, step: int, slots: Int64Array, per_step: int
) -> StepPlan:
    """Patches, scales and corners of one batch; `per_step` is the number of slots of a step."""
    draws = Draws(seed=seed, step=step, slots=torch.from_numpy(slots), scope="crop")
    scales = _scales(rule, draws, len(slots))
    corner = draws.uniforms("corner", 2).double().numpy()
    if rule.native:
        read_px = rule.crop_lr_px * int(rule.scale or 1)
        room = rule.hr_px // int(rule.scale or 1) - rule.crop_lr_px
    else:
        read_px = max(hr_size(rule.region_lr_px, scale) for scale in scales)
        if rule.per_sample:
            read_px = hr_size(rule.region_lr_px, rule.scale_range[1])
        room = rule.hr_px - read_px
    y, x = np.floor(corner * (room + 1)).astype(np.int64).T
    return StepPlan(
        step=step,
        slots=slots,
        index=sample_index(seed, step, slots, per_step, rule.patches),
        scales=scales,
        read_px=read_px,
        y=np.minimum(y, room),
        x=np.minimum(x, room),
    )


def _scales(rule: CropRule, draws: Draws, count: int) -> tuple[float, ...]:
    if rule.scale is not None:
        return (float(rule.scale),) * count
    low, high = rule.scale_range
    if not rule.per_sample:
        # Slot 0 stands for all, so that every process has the same scale.
        first = Draws(
            seed=draws.seed, step=draws.step, slots=torch.zeros(1, dtype=torch.int64), scope="crop"
        )
        return (float(first.uniform("scale", low, high)[0]),) * count
    return tuple(float(s) for s in draws.uniform("scale", low, high))
