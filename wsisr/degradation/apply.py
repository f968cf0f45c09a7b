"""Degrade batches of HR images by a named degradation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from wsisr.degradation.draws import batch_draws
from wsisr.degradation.spec import Degradation, parse_degradation
from wsisr.degradation.stage import Context, run_stages
from wsisr.device import autocast, exact_float32
from wsisr.errors import DegradationError
from wsisr.resize import check_scale, crop_to_scale, lr_size, to_grey

_CPU_CHUNK_PX = 1 << 17


def degrade(
    hr: Tensor,
    spec: "str | Path | Mapping[str, Any] | Degradation",
    scale: float,
    *,
    seed: int = 0,
    step: int = 0,
    slots: Tensor | list[int] | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Make LR images, uint8 (B, 3, h, w) or (3, h, w), from HR images, on the device of those.

    Parameters
    ----------
    hr : Tensor, shape (B, 3, H, W) or (3, H, W)
        uint8, or floating in [0, 1].
    spec : str, Path, mapping or Degradation
        See `wsisr.degradation.parse_degradation`.
    scale : float
        HR over LR, at least 1; real scales too.
    seed, step : int
        With `slots` they fix every random draw.
    slots : Tensor or list of int, optional
        Place of each image in the step or data set; 0..B-1 by default. The result of an image does
        not depend on the others in its batch.
    size : (int, int), optional
        LR height and width. By default the size rule ``floor(H / s + 1e-9)``, after cropping HR
        at the top left to ``round(h s)`` (`crop_to_scale`); with a size HR is taken as it is.

    Raises
    ------
    DegradationError
        A wrong spec, scale, shape or range; or a degradation that cannot be computed at this scale.
    """
    degradation = parse_degradation(spec)
    check_scale(scale)
    single = hr.ndim == 3
    if single:
        hr = hr[None]
    if hr.ndim != 4 or hr.shape[1] != 3 or min(hr.shape) < 1:
        raise DegradationError(f"HR images must be (B, 3, H, W); these are {tuple(hr.shape)}.")
    x = _grey_levels(hr)
    if size is None:
        size = (lr_size(int(hr.shape[2]), scale), lr_size(int(hr.shape[3]), scale))
        x = crop_to_scale(x, scale)
    draws = batch_draws(seed, step, slots, len(hr), hr.device)
    if len(draws.slots) != len(hr):
        raise DegradationError(f"{len(hr)} images need as many slots, not {len(draws.slots)}.")
    # On a CPU a few images at a time stay in its cache: two to four times as fast.
    count = len(hr)
    if hr.device.type == "cpu":
        count = max(1, _CPU_CHUNK_PX // int(x.shape[-1] * x.shape[-2]))
    made = []
    # Neither autocast nor TF32: training settings must not change what an LR image is.
    with torch.no_grad(), autocast(hr.device, None), exact_float32(hr.device):
        for start in range(0, len(hr), count):
            part = replace(draws, slots=draws.slots[start : start + count])
            context = Context(size=size, scale=float(scale), draws=part)
            made.append(to_grey(run_stages(degradation.stages, x[start : start + count], context)))
    return made[0][0] if single else torch.cat(made)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """How LR is made from HR: by what, how much smaller, and with which draws.

    Attributes
    ----------
    scale : float
        HR over LR, at least 1.
    """

    degradation: Degradation
    scale: float
    seed: int = 0

    @classmethod
    def of(
        cls,
        spec: "str | Path | Mapping[str, Any] | Degradation",
        scale: float,
        seed: int = 0,
        **names: str,
    ) -> Self:
        """The simulation that a spec names (`parse_degradation`).

        Raises
        ------
        DegradationError
            A wrong spec or scale.
        """
        check_scale(scale)
        return cls(degradation=parse_degradation(spec), scale=scale, seed=seed, **names)

    def apply(self, hr: Tensor, slots: list[int] | None = None) -> Tensor:
        """LR of HR: see `degrade`."""
        return degrade(hr, self.degradation, self.scale, seed=self.seed, slots=slots)

    def document(self) -> dict[str, Any]:
        """What is written beside the pixels: the whole degradation, scale and seed."""
        return {
            "degradation": self.degradation.record(),
            "scale": float(self.scale),
            "seed": self.seed,
        }


def refuse_identity(spec: Degradation, scale: float) -> None:
    """Raise `DegradationError` if LR is HR itself, as most kernels leave it at x1."""
    if scale != 1.0:
        return
    probe = torch.arange(3 * 32 * 32).mul(1_103).remainder(256).reshape(1, 3, 32, 32).byte()
    if degrade(probe, spec, scale).equal(probe):
        raise DegradationError(
            f"x1 by {spec.name}: LR is HR itself and nothing is left to be restored; name a "
            "degradation that changes it at x1 (--lr-source jpeg:quality=50), or an LR of x1."
        )


def _grey_levels(hr: Tensor) -> Tensor:
    if hr.dtype == torch.uint8:
        return hr.float()
    if not hr.is_floating_point():
        raise DegradationError(f"HR images must be uint8 or floating, not {hr.dtype}.")
    low, high = float(hr.min()), float(hr.max())
    if not (low >= 0.0 and high <= 1.0):
        raise DegradationError(
            f"Floating HR images must lie in [0, 1]; these span {low:g}..{high:g}. "
            "Divide grey levels by 255, or pass uint8."
        )
    return hr.float() * 255.0
