"""Small convolutional blocks that several architectures share.

Attribute names follow the released networks (EDSR, RCAN), so that their weights load.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
