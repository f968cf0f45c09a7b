"""From uint8 crops to what a network is trained on; everything here runs on the device.

Order of work: symmetry, degradation, cutting the margin off, normalisation. A simulated LR is made
after the symmetry, so that it is as a slide lying that way would give it; native crops are moved
together. LR of real scales follows the size rule of `wsisr.degradation`: the region's HR side is
``round(L s)`` for an LR side of L, margin included, and pixel centres keep their true place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from wsisr.degradation import Degradation, degrade, hr_size, resize
from wsisr.degradation.draws import Draws
from wsisr.device import upload
from wsisr.training.sampling import CropRule, StepPlan

_MOVES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x.flip(-2),
    lambda x: x.flip(-1),
    lambda x: x.mT,
)
"""Rows turned over, columns turned over, both exchanged: with or without each, eight symmetries."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One training batch, floats in [0, 1].

    Attributes
    ----------
    lr : Tensor
        (N, 3, h, w).
    hr : Tensor or None
        (N, 3, s h, s w) for fixed-scale models.
    coord, cell, target : Tensor or None
        (N, Q, 2), (N, 1, 2), (N, Q, 3) for arbitrary-scale models.
    reference : Tensor or None
        (N, 3, 2h, 2w).
    draws : Draws
        Random numbers of the batch, on its device.
    """

    lr: Tensor
    hr: Tensor | None = None
    coord: Tensor | None = None
    cell: Tensor | None = None
    target: Tensor | None = None
    reference: Tensor | None = None
    draws: Draws

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; itself where it is there."""
        if self.lr.device == device:
            return self
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, draws=replace(self.draws, slots=self.draws.slots.to(device)), **moved)


@dataclass(frozen=True, kw_only=True)
class BatchRule:
    """What `make_batch` needs to know; see `CropRule` and `DataSection`."""

    crops: CropRule
    degradation: Degradation | None
    flips: bool = True
    sample_px: int | None = None
    reference: bool = False
    seed: int = 0


def make_batch(
    raw: Mapping[str, Tensor], plan: StepPlan, rule: BatchRule, device: torch.device
) -> Batch:
    """Finish a batch on the device.

    Parameters
    ----------
    raw : mapping
        uint8 (k, size, size, 3) by role: ``hr``, and ``lr`` and ``reference`` where stored.
    """
    slots = upload(plan.slots, device)
    draws = Draws(seed=rule.seed, step=plan.step, slots=slots)
    images = {
        name: crops.to(device, non_blocking=True).permute(0, 3, 1, 2) for name, crops in raw.items()
    }
    if rule.crops.native:
        images = {name: symmetric(x, draws, rule.flips) for name, x in images.items()}
        hr = unit(images["hr"])
        reference = _reference(rule, hr, images.get("reference"), rule.crops.crop_lr_px)
        return Batch(lr=unit(images["lr"]), hr=hr, reference=reference, draws=draws)
    if rule.sample_px is not None:
        return _sampled(images["hr"], plan, rule, draws)
    region = symmetric(images["hr"], draws, rule.flips)
    lr = _degraded(region, rule, plan.scales[0], plan, slots)
    margin = rule.crops.margin_lr_px
    whole = unit(region)
    reference = _reference(rule, whole, None, rule.crops.region_lr_px)
    return Batch(
        lr=unit(inner(lr, margin)),
        hr=inner(whole, margin * int(plan.scales[0])),
        reference=None if reference is None else inner(reference, 2 * margin),
        draws=draws,
    )


def symmetric(images: Tensor, draws: Draws, on: bool = True) -> Tensor:
    """One of the eight symmetries for each image (N, C, S, S), drawn from (seed, step, slot)."""
    if not on:
        return images
    flags = draws.words("symmetry", 1)[:, 0]
    for bit, move in enumerate(_MOVES):
        chosen = ((flags >> bit) & 1).bool()[:, None, None, None]
        images = torch.where(chosen, move(images), images)
    return images


def unit(images: Tensor) -> Tensor:
    """Grey levels to floats in [0, 1]."""
    return images.float().div_(255.0)


def pixel_range(region_lr_px: int, margin_lr_px: int, region_hr_px: int) -> tuple[int, int]:
    """First HR pixel, and the one past the last, whose centres lie in the crop of a region.

    >>> pixel_range(24, 4, 96), pixel_range(24, 4, 58)
    ((16, 80), (10, 48))
    """
    per_lr = region_hr_px / region_lr_px
    ends = (margin_lr_px, region_lr_px - margin_lr_px)
    first, stop = (ceil(end * per_lr - 0.5 - 1e-9) for end in ends)
    return max(0, first), min(region_hr_px, stop)


def _sampled(hr: Tensor, plan: StepPlan, rule: BatchRule, draws: Draws) -> Batch:
    """LR crops and HR pixels of an arbitrary-scale batch; scales may differ between samples."""
    groups: dict[float, list[int]] = {}
    for at, scale in enumerate(plan.scales):
        groups.setdefault(scale, []).append(at)
    parts: list[tuple[list[int], tuple[Tensor, ...]]] = []
    for scale, members in groups.items():
        side = hr_size(rule.crops.region_lr_px, scale)
        place = upload(members, hr.device)
        own = Draws(seed=draws.seed, step=draws.step, slots=draws.slots[place])
        region = symmetric(hr[place][..., :side, :side], own, rule.flips)
        lr = inner(_degraded(region, rule, scale, plan, own.slots), rule.crops.margin_lr_px)
        parts.append((members, (unit(lr), *_queries(region, rule, own))))
    order = upload(np.argsort([m for members, _ in parts for m in members]), hr.device)
    lr, coord, cell, target = (
        torch.cat([tensors[i] for _, tensors in parts])[order] for i in range(4)
    )
    return Batch(lr=lr, coord=coord, cell=cell, target=target, draws=draws)


def _queries(region: Tensor, rule: BatchRule, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct HR pixels of the crop: coordinates, cell, colours."""
    crops, side = rule.crops, int(region.shape[-1])
    first, stop = pixel_range(crops.region_lr_px, crops.margin_lr_px, side)
    width = stop - first
    asked = rule.sample_px or width * width
    keys = draws.uniforms("pixel", width * width)
    chosen = keys.topk(min(asked, width * width), dim=1, sorted=False).indices
    # Near scale 1 a crop has hardly more pixels than are asked for; shapes stay the same.
    chosen = chosen.repeat(1, ceil(asked / chosen.shape[1]))[:, :asked]
    rows = first + chosen.div(width, rounding_mode="floor")
    columns = first + chosen % width
    per_hr = crops.region_lr_px / side
    place = torch.stack((rows, columns), dim=-1).double().add_(0.5).mul_(per_hr)
    coord = (place - crops.margin_lr_px) * (2.0 / crops.crop_lr_px) - 1.0
    cell = torch.full((len(region), 1, 2), 2.0 * per_hr / crops.crop_lr_px, device=region.device)
    flat = unit(region).flatten(2).transpose(1, 2)
    index = (rows * side + columns)[..., None].expand(-1, -1, 3)
    return coord.float(), cell, flat.gather(1, index)


def _degraded(
    region: Tensor, rule: BatchRule, scale: float, plan: StepPlan, slots: Tensor
) -> Tensor:
    assert rule.degradation is not None
    side = rule.crops.region_lr_px
    return degrade(
        region,
        rule.degradation,
        scale,
        seed=rule.seed,
        step=plan.step,
        slots=slots,
        size=(side, side),
    )


def _reference(rule: BatchRule, hr: Tensor, stored: Tensor | None, lr_px: int) -> Tensor | None:
    if not rule.reference:
        return None
    if stored is not None:
        return unit(stored)
    return resize(hr, (2 * lr_px, 2 * lr_px)).clamp_(0.0, 1.0)


def inner(images: Tensor, margin_px: int) -> Tensor:
    """Images (..., h, w) without a margin on all sides."""
    if margin_px == 0:
        return images
    return images[..., margin_px:-margin_px, margin_px:-margin_px].contiguous()
