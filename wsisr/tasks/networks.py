"""Reference networks in plain torch: a small U-Net for maps, a ResNet of 18 layers for classes.

They are no contribution: enough to tell what an image still shows. Normalisation is by groups, so
that a batch of one image is nothing special.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import ModelInfo, Traits
from wsisr.models.settings import override
from wsisr.models.wrapper import SRModel

_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Size of a reference network.

    Attributes
    ----------
    width : int
        Channels of the first level, a multiple of 8; each further level doubles them.
    levels : int
        Of the U-Net: sides are halved one time less.
    """

    width: int = 32
    levels: int = 4


class TaskModel(SRModel):
    """A network with the record that the trainer asks for; ``scale`` 1: maps lie on the image.

    ``model(images)``: (N, 3, H, W) in [0, 1] -> (N, C, H, W) of logits, or (N, C) of classes.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Logits; any H, W >= 1."""
        # Stains differ more in level than in contrast: the middle grey is what activations turn on.
        out: Tensor = self.net(2.0 * images - 1.0)
        return out


class UNet(nn.Module):
    """O. Ronneberger et al., 2015, with groups normalised and bilinear enlargement."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        widths = [settings.width << level for level in range(settings.levels)]
        self.down = nn.ModuleList(
            _twice(before, after) for before, after in zip([3, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _twice(fine + coarse, fine) for fine, coarse in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        multiple = 1 << (len(self.down) - 1)
        pad = (0, -width % multiple, 0, -height % multiple)
        x = F.pad(x, pad, mode="replicate") if any(pad) else x
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for level in reversed(range(len(self.up))):
            fine = kept[level]
            x = F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            x = self.up[level](torch.cat((fine, x), 1))
        out: Tensor = self.last(x)
        return out[..., :height, :width]


class ResNet(nn.Module):
    """K. He et al., 2016: four stages of two blocks, 18 layers."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        widths = [settings.width << stage for stage in range(4)]
        self.first = nn.Sequential(
            nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False),
            nn.GroupNorm(_GROUPS, widths[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        before = widths[0]
        for stage, width in enumerate(widths):
            blocks += [_Residual(before, width, 2 if stage else 1), _Residual(width, width, 1)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(before, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.blocks(self.first(x)).mean((-2, -1)))
        return out


class _Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, after),
        )
        self.side: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.side = nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.side(x))


def _twice(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.GroupNorm(_GROUPS, after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


NETWORKS: dict[str, Callable[[int, Settings], nn.Module]] = {"unet": UNet, "resnet18": ResNet}


def build_network(
    name: str, channels: int, settings: dict[str, Any], seed: int, preset: str = "recommended"
) -> TaskModel:
    """A reference network with fresh weights, which the seed decides.

    Raises
    ------
    ModelError
        Unknown settings.
    """
    chosen = override(Settings(), settings, name)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = TaskModel(NETWORKS[name](channels, chosen), Traits(halo_px=0, global_context=True))
    torch.set_rng_state(state)
    model.settings = chosen
    model.info = ModelInfo(
        name=name,
        family="reference",
        preset=preset,
        kind="fixed",
        scale=1,
        scale_range=(1.0, 1.0),
        halo_px=0,
        tile_px=256,
        global_context=True,
        citation="O. Ronneberger et al., 2015" if name == "unet" else "K. He et al., 2016",
    )
    return model
