"""SRMFENet: the super-resolving half of SHISRCNet.

Xie, Zhu, Fu, Wang, Tan, Zhang. SHISRCNet: super-resolution and classification network for
low-resolution breast cancer histopathology image. MICCAI 2023.

ISTE's tables call it SRMFENet (and once SRRFENet), MiHATP's SHISRCNet. Neither has the class
labels that the joint training needs, so both rows are read as this half trained alone, by L1, one
network a scale. Residual blocks of four dilated convolutions, whose outputs are weighted against
each other for each channel (multi-feature extraction, MFE). 733,120 parameters at x2, 880,832 at
x4, 1,028,544 at x8.

Readings:

- `gate`: the released file defines the unit that makes the weights twice, and Python runs the
  later one (bias, batch normalisation, ReLU before the sigmoid), which bounds every weight to
  [0.17, 0.36]; `released` is that one, `plain` the first (no bias, nothing after).
- The released training script is wired wrongly (the focal loss acts on a feature of 384 numbers,
  the contrastive term on the class scores, without a positive pair), so that the joint training
  is not restated; its rate (0.95 every other epoch for 1,000) would end at 7e-15: read as decay
  to 1 %.
- x3 is one step of 3; products of 2 and 3 follow.
- Gates normalise over the batch, so that training needs at least two samples a step, and output
  in training depends on the batch; running statistics are what is evaluated and saved.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from wsisr.errors import ModelError
from wsisr.models.info import Traits
from wsisr.models.layers.blocks import Chain, conv3, pixel_shuffle_steps
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one
from wsisr.models.wrapper import FixedScaleModel

DILATIONS = (1, 2, 4, 8)
SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class SrmfenetSettings:
    """Width in channels, number of MFE blocks, and which of the two gates."""

    width: int = 64
    blocks: int = 3
    gate: Literal["released", "plain"] = "released"

    def __post_init__(self) -> None:
        at_least_one(self, "srmfenet", "width", "blocks")


def _gate(width: int, released: bool) -> nn.Sequential:
    """Channel means to weights, before the sigmoid."""
    unit = nn.Sequential(nn.Conv2d(width, width, 1, bias=released))
    if released:
        unit.extend((nn.BatchNorm2d(width), nn.ReLU()))
    return unit


class MfeBlock(nn.Module):
    """Four dilated convolutions in a chain, gated against each other."""

    def __init__(self, s: SrmfenetSettings) -> None:
        super().__init__()
        width, released = s.width, s.gate == "released"
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=d, dilation=d, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for d in DILATIONS
        )
        self.gates = nn.ModuleList(_gate(width, released) for _ in DILATIONS)
        self.project = nn.Sequential(
            nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        found = [self.layers[0](x)]
        for layer in self.layers[1:]:
            found.append(layer(found[-1] + x))
        weights = [
            gate(y.mean(dim=(-2, -1), keepdim=True)).sigmoid()
            for gate, y in zip(self.gates, found, strict=True)
        ]
        share = torch.stack(weights).softmax(dim=0)
        return self.project((share * torch.stack(found)).sum(dim=0) + x)


class Srmfenet(nn.Module):
    """Head, MFE blocks, upsampler, tail; [0, 1] in and out, no skip of the image."""

    def __init__(self, s: SrmfenetSettings, scale: int) -> None:
        super().__init__()
        self.head = conv3(3, s.width)
        self.body = Chain(*(MfeBlock(s) for _ in range(s.blocks)), conv3(s.width, s.width))
        act = partial(nn.LeakyReLU, SLOPE)
        self.up = nn.Sequential(*pixel_shuffle_steps(s.width, scale, act=act))
        self.tail = nn.Sequential(conv3(s.width, s.width), act(), conv3(s.width, 3, bias=False))

    def forward(self, lr: Tensor) -> Tensor:
        if self.training and lr.shape[0] < 2:
            raise ModelError(
                "srmfenet normalises over the batch: train it with data.batch of at least 2"
            )
        x = self.head(lr)
        return self.tail(self.up(x + self.body(x)))


def _build(settings: SrmfenetSettings, scale: int) -> FixedScaleModel:
    reach = sum(DILATIONS) * settings.blocks + 5
    traits = Traits(
        halo_px=reach, tile_px=96, global_context=True, channels_last=True, smallest_batch=2
    )
    return FixedScaleModel(Srmfenet(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="srmfenet",
        summary="dilated convolutions weighted against each other (SHISRCNet's SR half)",
        citation="Xie et al., SHISRCNet, MICCAI 2023",
        settings=SrmfenetSettings,
        presets={
            "paper": lambda scale: SrmfenetSettings(),
            "recommended": lambda scale: SrmfenetSettings(),
            "tiny": lambda scale: SrmfenetSettings(width=32, blocks=2),
        },
        build=_build,
    )
)
