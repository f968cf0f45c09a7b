"""LPIPS and DISTS on our own AlexNet and VGG16 trunks (no torchvision).

Both need pretrained weights from the user (`wsisr.metrics.weights`); a random trunk can be built
for tests and says so in its name.

References
----------
Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, CVPR 2018.
Ding et al., Image quality assessment: unifying structure and texture similarity, TPAMI 2020.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.metrics.images import Images, MetricError, as_pair, scores
from wsisr.metrics.weights import find_weights, read_weights

Trunk = Literal["alex", "vgg"]
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_LPIPS_SHIFT, _LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@dataclass(frozen=True, kw_only=True)
class ConvStep:
    """One convolution of a trunk; its weights have torchvision's key ``features.<index>``."""

    index: int
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 1
    pool_before: bool = False
    tap: bool = False


def _vgg_steps() -> list[ConvStep]:
    steps, index = [], 0
    for stage, (channels, count) in enumerate(_VGG_STAGES):
        for place in range(count):
            pool = stage > 0 and place == 0
            index += 1 if pool else 0
            last = place == count - 1
            steps.append(
                ConvStep(index=index, channels=channels, kernel=3, pool_before=pool, tap=last)
            )
            index += 2
    return steps


_STEPS: dict[str, list[ConvStep]] = {
    "alex": [
        ConvStep(index=0, channels=64, kernel=11, stride=4, padding=2, tap=True),
        ConvStep(index=3, channels=192, kernel=5, padding=2, pool_before=True, tap=True),
        ConvStep(index=6, channels=384, kernel=3, pool_before=True, tap=True),
        ConvStep(index=8, channels=256, kernel=3, tap=True),
        ConvStep(index=10, channels=256, kernel=3, tap=True),
    ],
    "vgg": _vgg_steps(),
}
_WEIGHTS = {"alex": "alexnet", "vgg": "vgg16"}


class TrunkNet(nn.Module):
    """Activations after the tapped ReLUs of AlexNet (5) or VGG16 (5); frozen.

    Parameters
    ----------
    trunk : {"alex", "vgg"}
    weights : Path, optional
        A torchvision state dict; without it the trunk is random with `seed` (for tests).
    soft_pool : bool
        Pool by a Hann-weighted root mean square (DISTS) instead of the maximum.
    """

    def __init__(
        self, trunk: Trunk, weights: Path | None, *, soft_pool: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.steps = _STEPS[trunk]
        self.pool_px = 3 if trunk == "alex" else 2
        self.least_px = 31 if trunk == "alex" else 16
        self.soft_pool = soft_pool
        self.features = nn.ModuleDict()
        channels = 3
        for step in self.steps:
            self.features[str(step.index)] = nn.Conv2d(
                channels, step.channels, step.kernel, step.stride, step.padding
            )
            channels = step.channels
        if weights is None:
            generator = torch.Generator().manual_seed(seed)
            for p in self.parameters():
                scale = (2.0 / max(1, p[0].numel())) ** 0.5 if p.ndim > 1 else 0.0
                p.data.copy_(torch.randn(p.shape, generator=generator) * scale)
        else:
            self._read(weights)
        self.eval().requires_grad_(False)

    def _read(self, path: Path) -> None:
        given = read_weights(path)
        own = self.state_dict()
        missing = [k for k, v in own.items() if k not in given or given[k].shape != v.shape]
        if missing:
            raise MetricError(f"{path}: {missing[0]} is missing or has another shape.")
        self.load_state_dict({key: given[key] for key in own})

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised RGB -> tapped activations.

        Raises
        ------
        MetricError
            Nothing is left after the pooling.
        """
        if min(x.shape[-2:]) < self.least_px:
            raise MetricError(
                f"This network needs {self.least_px} px a side; these have {tuple(x.shape[-2:])}."
            )
        taps = []
        for step in self.steps:
            if step.pool_before:
                x = self._pool(x)
            conv = self.features[str(step.index)]
            x = F.relu(conv(x))
            if step.tap:
                taps.append(x)
        return taps

    def _pool(self, x: Tensor) -> Tensor:
        if not self.soft_pool:
            return F.max_pool2d(x, self.pool_px, 2)
        taps = torch.hann_window(5, periodic=False, dtype=x.dtype, device=x.device)[1:-1]
        kernel = taps[:, None] * taps[None, :]
        kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 3, 3)
        power = F.conv2d(x * x, kernel, stride=2, padding=1, groups=int(x.shape[1]))
        return (power + 1e-12).sqrt()


class _Distance(nn.Module):
    """A differentiable distance of batches that also scores images."""

    @torch.inference_mode()
    def score(self, sr: Images, hr: Images, crop: int = 0) -> Any:
        """The distance of images as for `wsisr.metrics.psnr`; rounded to 8 bit first."""
        a, b, single = as_pair(sr, hr, crop=crop)
        return scores(self(a.float() / 255.0, b.float() / 255.0), single)


class Lpips(_Distance):
    """LPIPS v0.1 (AlexNet or VGG16 with linear heads), lower is better.

    Parameters
    ----------
    trunk : {"alex", "vgg"}
    weights_dir : Path, optional
        Where the trunk's and the heads' files lie.
    random : bool
        Random trunk and equal heads, for tests.

    Raises
    ------
    MetricError
        A file is missing; the message says which, and from where.
    """

    heads: list[Tensor]

    def __init__(
        self, trunk: Trunk = "alex", weights_dir: Path | None = None, *, random: bool = False
    ) -> None:
        super().__init__()
        self.name = f"lpips_{trunk}" + ("_random" if random else "")
        path = None if random else find_weights(_WEIGHTS[trunk], weights_dir)
        self.trunk = TrunkNet(trunk, path)
        channels = [step.channels for step in self.trunk.steps if step.tap]
        if random:
            self.heads = [torch.full((c,), 1.0 / c) for c in channels]
        else:
            where = find_weights(f"lpips-{trunk}", weights_dir)
            given = read_weights(where)
            try:
                self.heads = [given[f"lin{i}.model.1.weight"].flatten() for i in range(5)]
            except KeyError as error:
                raise MetricError(f"{where}: no LPIPS heads ({error} is missing).") from None
            if [len(head) for head in self.heads] != channels:
                raise MetricError(f"{where}: these LPIPS heads belong to another trunk.")

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of RGB batches in [0, 1], shape (N,); differentiable."""
        shift = torch.tensor(_LPIPS_SHIFT, device=first.device)[:, None, None]
        scale = torch.tensor(_LPIPS_SCALE, device=first.device)[:, None, None]
        a, b = (self.trunk((2.0 * x.float() - 1.0 - shift) / scale) for x in (first, second))
        total = torch.zeros(len(first), device=first.device)
        for fa, fb, head in zip(a, b, self.heads, strict=True):
            ua, ub = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (fa, fb))
            weighted = (ua - ub).square() * head.to(fa.device)[:, None, None]
            total = total + weighted.sum(1).mean((1, 2))
        return total


class Dists(_Distance):
    """DISTS (VGG16, structure and texture), lower is better; parameters as for `Lpips`."""

    def __init__(self, weights_dir: Path | None = None, *, random: bool = False) -> None:
        super().__init__()
        self.name = "dists" + ("_random" if random else "")
        path = None if random else find_weights("vgg16", weights_dir)
        self.trunk = TrunkNet("vgg", path, soft_pool=True)
        count = 3 + sum(step.channels for step in self.trunk.steps if step.tap)
        if random:
            self.alpha = self.beta = torch.full((1, count, 1, 1), 1.0 / (2 * count))
        else:
            where = find_weights("dists", weights_dir)
            given = read_weights(where)
            if any(k not in given or given[k].numel() != count for k in ("alpha", "beta")):
                raise MetricError(f"{where}: alpha and beta of DISTS ({count} each) are expected.")
            self.alpha, self.beta = (given[k].reshape(1, count, 1, 1) for k in ("alpha", "beta"))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of RGB batches in [0, 1], shape (N,); differentiable."""
        mean = torch.tensor(IMAGENET_MEAN, device=first.device)[:, None, None]
        sd = torch.tensor(IMAGENET_SD, device=first.device)[:, None, None]
        a, b = ([x.float(), *self.trunk((x.float() - mean) / sd)] for x in (first, second))
        total = (self.alpha + self.beta).sum().to(first.device)
        structure = torch.zeros(len(first), device=first.device)
        at = 0
        for fa, fb in zip(a, b, strict=True):
            weights = slice(at, at + int(fa.shape[1]))
            at = weights.stop
            alpha, beta = (w[0, weights, 0, 0].to(first.device) for w in (self.alpha, self.beta))
            ma, mb = fa.mean((2, 3)), fb.mean((2, 3))
            va, vb = fa.var((2, 3), correction=0), fb.var((2, 3), correction=0)
            cov = (fa * fb).mean((2, 3)) - ma * mb
            texture = (2 * ma * mb + 1e-6) / (ma**2 + mb**2 + 1e-6)
            shape = (2 * cov + 1e-6) / (va + vb + 1e-6)
            structure = structure + (alpha * texture + beta * shape).sum(1) / total
        return 1.0 - structure
