"""A degradation: light that falls off towards the corners."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from wsisr.degradation import Amount, Context, Stage, register_degradation


@register_degradation
class Vignette(Stage):
    """Darker towards the corners, by a part that is drawn for each image."""

    rank: ClassVar[int] = 41  # after the sampling (30) and uneven light (40), before noise (50)
    kind: Literal["vignette"] = "vignette"
    strength: Amount = (0.0, 0.2)

    def apply(self, x: Tensor, context: Context) -> Tensor:
        rows = torch.linspace(-1, 1, x.shape[-2], device=x.device)[:, None]
        columns = torch.linspace(-1, 1, x.shape[-1], device=x.device)
        strength = context.amount(self.strength, "strength")[:, None, None, None]
        return x * (1 - strength * (rows**2 + columns**2) / 2)
