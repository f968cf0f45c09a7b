"""MASRGAN's discriminators and losses (its sections 3.3, 3.4 and table 3).

For training only: a saved model is the generator alone.

PatchGAN in pix2pix's layout, unconditional, receptive field 70 px (the paper's "split into grids,
fed one by one" is one convolutional pass). `VggDiscriminator` is SRGAN's, or the one of RealSR and
ESRGAN; both need a fixed HR size.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.features import FeatureNet
from wsisr.models.settings import require


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """How MASRGAN is trained.

    Attributes
    ----------
    layers : int
        Strided layers of PatchGAN (3: receptive field 70 px).
    norm : {"batch", "instance", "none", "spectral"}
        Of PatchGAN's inner layers; `spectral` normalises weights in place of activations.
    pixel_weight, adversarial_weight, perceptual_weight : float
        Of L1, the generator's adversarial term, and the feature distance.
    perceptual : {"mse", "l1"}
        Distance of features (the paper's norm is unsquared; SRGAN's practice is MSE).
    colour_weight : float
        L1 between the area-reduced SR and LR: holds the colours that the paper lets drift.
    """

    discriminator: Literal["patch", "vgg16", "vgg128"] = "patch"
    layers: int = 3
    norm: Literal["batch", "instance", "none", "spectral"] = "batch"
    pixel_weight: float = 0.01
    adversarial_weight: float = 0.005
    perceptual_weight: float = 1.0
    perceptual: Literal["mse", "l1"] = "mse"
    colour_weight: float = 0.0

    def __post_init__(self) -> None:
        require(1 <= self.layers <= 6, "adversarial: layers must be from 1 to 6")


class PatchDiscriminator(nn.Module):
    """PatchGAN: RGB -> map of logits, one for each overlapping 70 px patch (3 layers)."""

    def __init__(
        self,
        layers: int = 3,
        norm: Literal["batch", "instance", "none", "spectral"] = "batch",
        inputs: int = 3,
        width: int = 64,
    ) -> None:
        super().__init__()

        def conv(a: int, b: int, stride: int, bias: bool) -> nn.Module:
            made = nn.Conv2d(a, b, 4, stride=stride, padding=1, bias=bias)
            if norm == "spectral":
                return nn.utils.parametrizations.spectral_norm(made)
            return made

        body: list[nn.Module] = [conv(inputs, width, 2, True), nn.LeakyReLU(0.2)]
        channels = width
        for i in range(1, layers + 1):
            wider = width * min(2**i, 8)
            body.append(conv(channels, wider, 2 if i < layers else 1, norm != "batch"))
            if norm == "batch":
                body.append(nn.BatchNorm2d(wider))
            elif norm == "instance":
                body.append(nn.InstanceNorm2d(wider))
            body.append(nn.LeakyReLU(0.2))
            channels = wider
        body.append(conv(channels, 1, 1, True))
        self.body = nn.Sequential(*body)

    def forward(self, rgb: Tensor) -> Tensor:
        out: Tensor = self.body(rgb * 2 - 1)
        return out


_VGG = {
    "vgg16": (1024, ((1, 3, 2), *((times, 3, stride) for times in (2, 4, 8) for stride in (1, 2)))),
    "vgg128": (
        100,
        ((1, 4, 2), *((times, *step) for times in (2, 4, 8, 8) for step in ((3, 1), (4, 2)))),
    ),
}
"""Width of the dense layer; channels (over those of the first convolution), kernel and stride."""


class VggDiscriminator(nn.Module):
    """Convolutions and two dense layers; one logit an image.

    `vgg16` is SRGAN's (eight 3x3 convolutions), `vgg128` that of ESRGAN and RealSR (ten, kernel 4
    where strided; HR of 128 px in those works). `hr_px` is the side of the HR patches, a multiple
    of 16 and of 32.
    """

    def __init__(self, kind: Literal["vgg16", "vgg128"], hr_px: int, width: int = 64) -> None:
        super().__init__()
        dense, steps = _VGG[kind]
        reduction = prod(stride for *_, stride in steps)
        require(
            hr_px % reduction == 0,
            f"{kind} discriminator: HR patches of {hr_px} px; multiple of {reduction}",
        )
        body: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for times, kernel, stride in steps:
            wider = times * width
            body += [
                nn.Conv2d(channels, wider, kernel, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.LeakyReLU(0.2),
            ]
            channels = wider
        self.body = nn.Sequential(*body)
        self.head = nn.Sequential(
            nn.Linear(channels * (hr_px // reduction) ** 2, dense),
            nn.LeakyReLU(0.2),
            nn.Linear(dense, 1),
        )

    def forward(self, rgb: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(rgb * 2 - 1).flatten(1))
        return out


def build_discriminator(settings: AdversarialSettings, hr_px: int) -> nn.Module:
    """The discriminator of a setting for HR patches of a side."""
    if settings.discriminator == "patch":
        return PatchDiscriminator(settings.layers, settings.norm)
    return VggDiscriminator(settings.discriminator, hr_px)


def generator_term(fake_logits: Tensor) -> Tensor:
    """-log D(G(x)) from logits, mean over the map (eq. 6); never a logarithm of a sigmoid."""
    return F.softplus(-fake_logits.float()).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """0.5 (BCE(real, 1) + BCE(fake, 0)); feed real and fake in separate passes."""
    real, fake = real_logits.float(), fake_logits.float()
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def generator_loss(
    sr: Tensor,
    hr: Tensor,
    lr: Tensor,
    discriminator: nn.Module,
    features: FeatureNet,
    settings: AdversarialSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_G = alpha L_mae + beta L_adv + L_per [+ colour] (eq. 7), and its weighted terms, detached.

    Freeze the discriminator meanwhile.

    Parameters
    ----------
    sr, hr, lr : Tensor
        (N, 3, s h, s w) twice, (N, 3, h, w).
    discriminator : nn.Module
        From `build_discriminator`.
    features : FeatureNet
        With the level relu2_2 (the paper's).
    """
    terms = {
        "pixel": F.l1_loss(sr, hr) * settings.pixel_weight,
        "adversarial": generator_term(discriminator(sr)) * settings.adversarial_weight,
    }
    distance = F.mse_loss if settings.perceptual == "mse" else F.l1_loss
    with torch.no_grad():
        wanted = features(hr)
    pairs = zip(features(sr), wanted, strict=True)
    perceptual = torch.stack([distance(a.float(), b.float()) for a, b in pairs]).mean()
    terms["perceptual"] = perceptual * settings.perceptual_weight
    reduced = F.adaptive_avg_pool2d(sr, (lr.shape[-2], lr.shape[-1]))
    terms["colour"] = F.l1_loss(reduced, lr) * settings.colour_weight
    total = terms["pixel"] + terms["adversarial"] + terms["perceptual"] + terms["colour"]
    return total, {name: term.detach() for name, term in terms.items()}
