"""Constant shifts of the RGB channels."""

import torch
from torch import Tensor, nn

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of the natural-image set that SwinIR, HAT, EDSR and RCAN subtract."""
STAIN_MEAN = (0.8, 0.65, 0.75)
"""About the mean RGB of haematoxylin and eosin: `tiny` presets start nearer their data with it."""


class RgbMean(nn.Module):
    """Subtract a mean before a network and add it after.

    The mean is a buffer, so that it moves with the model and is exported; it is not part of
    the state dict, because the settings hold it.
    """

    mean: Tensor

    def __init__(self, mean: tuple[float, float, float] = DIV2K_MEAN) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def remove(self, rgb: Tensor) -> Tensor:
        """RGB minus the mean."""
        return rgb - self.mean.to(rgb.dtype)

    def restore(self, rgb: Tensor) -> Tensor:
        """RGB plus the mean."""
        return rgb + self.mean.to(rgb.dtype)
