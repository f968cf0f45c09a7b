"""Small parts that several architectures share: blocks, the mean of RGB, steps of enlargement.

Attribute names follow the released networks (EDSR, RCAN), so that their weights load.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsisr.errors import ModelError

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of the natural-image set that SwinIR, HAT, EDSR and RCAN subtract."""
STAIN_MEAN = (0.8, 0.65, 0.75)
"""About the mean RGB of haematoxylin and eosin: `tiny` presets start nearer their data with it."""


def conv3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """3x3 convolution that keeps the size (zero padding)."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def run(module: nn.Module, recompute: bool, *args: Tensor | None) -> Tensor:
    """Call a block, or recompute it in the backward pass when asked to."""
    if recompute and torch.is_grad_enabled():
        out: Tensor = checkpoint(module, *args, use_reentrant=False)
        return out
    return module(*args)


class ResidualBlock(nn.Module):
    """conv - ReLU - conv, scaled, plus the input (EDSR, no normalisation)."""

    def __init__(self, width: int, res_scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3(width, width), nn.ReLU(), conv3(width, width))
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        res: Tensor = self.body(x)
        return x + (res if self.res_scale == 1.0 else res * self.res_scale)


class ChannelAttention(nn.Module):
    """Channels weighted by a gate on their global means (RCAN, eq. 8-10)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean(dim=(-2, -1), keepdim=True))


class ResidualChannelAttentionBlock(nn.Module):
    """conv - ReLU - conv - channel attention, plus the input (RCAN)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3(width, width), nn.ReLU(), conv3(width, width), ChannelAttention(width, reduction)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Chain(nn.Sequential):
    """Sequential whose members can be recomputed one by one in the backward pass."""

    checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = run(block, self.checkpointing, x)
        return x


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


def upsample_factors(scale: int) -> tuple[int, ...]:
    """Split a scale into steps of 2, then 3: 8 -> (2, 2, 2), 6 -> (2, 3).

    Raises
    ------
    ModelError
        If the scale has another prime factor.
    """
    steps: list[int] = []
    rest = scale
    for step in (2, 3):
        while rest % step == 0 and rest > 1:
            steps.append(step)
            rest //= step
    if rest != 1 or not steps:
        raise ModelError(f"scale {scale}: fixed-scale models exist for products of 2 and 3 only")
    return tuple(steps)


def pixel_shuffle_steps(
    width: int,
    scale: int,
    inputs: int | None = None,
    act: Callable[[], nn.Module] | None = None,
) -> list[nn.Module]:
    """Convolution and pixel shuffle for each step; keys 0, 2, 4 ... in a Sequential.

    `inputs` is the width in front of the first step where it is another one; `act` makes what
    follows each step.
    """
    layers: list[nn.Module] = []
    for step in upsample_factors(scale):
        layers += [conv3(inputs or width, step * step * width), nn.PixelShuffle(step)]
        layers += [] if act is None else [act()]
        inputs = width
    return layers


def deconvolution_steps(width: int, scale: int) -> list[nn.Module]:
    """Transposed convolutions whose kernel is divisible by or matched to the stride.

    Steps of 2: kernel 4, padding 1; steps of 3: kernel 5, padding 1. Both give exactly
    `step` times the input side.
    """
    return [
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        if step == 2
        else nn.ConvTranspose2d(width, width, 5, stride=3, padding=1)
        for step in upsample_factors(scale)
    ]
