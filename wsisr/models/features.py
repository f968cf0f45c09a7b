"""Feature networks of perceptual and contrastive losses: a VGG19 trunk, ours.

Simonyan, Zisserman. Very deep convolutional networks for large-scale image recognition. ICLR
2015. Keys follow torchvision's layout (``features.0.weight`` ...), whose files load, whole or
cut. Nothing is ever downloaded: without a weights file the trunk is random with a fixed seed
(scaled layer by layer), which `FeatureNet.record` says and the log warns of.
"""

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from wsisr.errors import ModelError
from wsisr.models.foreign.containers import choose_part, find_parts, outermost, read_tensors

_LOG = logging.getLogger(__name__)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_SD = (0.229, 0.224, 0.225)
_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
RELU_X_1 = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
RELU2_2 = ("relu2_2",)


def _layout() -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """Layers as (kind, inputs, outputs), and the index of each named activation."""
    layers: list[tuple[str, int, int]] = []
    names: dict[str, int] = {}
    channels = 3
    for stage, (width, convolutions) in enumerate(_STAGES, start=1):
        for place in range(1, convolutions + 1):
            layers.append(("conv", channels, width))
            names[f"conv{stage}_{place}"] = len(layers) - 1
            layers.append(("relu", width, width))
            names[f"relu{stage}_{place}"] = len(layers) - 1
            channels = width
        layers.append(("pool", width, width))
    return layers, names


class FeatureNet(nn.Module):
    """Activations of a VGG19 trunk at named layers; frozen.

    Parameters
    ----------
    levels : tuple of str
        Names such as ``relu2_2``, in the order of depth; the trunk ends at the last.
    weights : Path, optional
        A VGG19 file in torchvision's layout, or only its first layers.
    seed : int
        Of the random trunk, if there is no file.

    Attributes
    ----------
    record : str
        ``vgg19-file sha256:...`` or ``vgg19-random seed:...``, for result files.

    Raises
    ------
    ModelError
        Unknown level, missing or wrong-shaped weights.
    """

    mean: Tensor
    sd: Tensor

    def __init__(
        self, levels: tuple[str, ...] = RELU_X_1, weights: Path | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        layers, names = _layout()
        unknown = [level for level in levels if level not in names]
        if unknown or not levels:
            raise ModelError(f"no VGG19 level {unknown or 'given'}; choose from {', '.join(names)}")
        self.at = tuple(names[level] for level in levels)
        self.features = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1)
            if kind == "conv"
            else nn.ReLU()
            if kind == "relu"
            else nn.MaxPool2d(2)
            for kind, inputs, outputs in layers[: max(self.at) + 1]
        )
        pools = sum(isinstance(layer, nn.MaxPool2d) for layer in self.features)
        self.smallest_px = 2**pools
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), False)
        self.register_buffer("sd", torch.tensor(_IMAGENET_SD).view(1, 3, 1, 1), False)
        if weights is None:
            self._randomise(seed)
            self.record = f"vgg19-random seed:{seed}"
            _LOG.warning(
                "feature network: a random VGG19 trunk (seed %d), as no weights were given; name "
                "them with --set recipe.feature_weights=FILE, or say so beside results.",
                seed,
            )
        else:
            self._read(Path(weights))
            digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
            self.record = f"vgg19-file sha256:{digest}"
            _LOG.info("feature network: %s from %s", self.record, weights)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FeatureNet":
        """Stays in eval mode: the trunk is a fixed measure."""
        return super().train(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """RGB in [0, 1] -> one activation map for each level.

        Gradient flows to `rgb`, none to the trunk.
        """
        if min(rgb.shape[-2:]) < self.smallest_px:
            raise ModelError(
                f"feature network: images of {tuple(rgb.shape[-2:])} px; each pooling halves "
                f"them, {self.smallest_px} px at least are needed"
            )
        x = (rgb.to(self.mean.dtype) - self.mean) / self.sd
        out = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.at:
                out.append(x)
        return out

    def _randomise(self, seed: int) -> None:
        """Normal weights, each layer scaled to unit output on one fixed image of noise.

        Without the scaling, deep random activations shrink or grow and a mean over levels is a
        mean over very different things.
        """
        generator = torch.Generator().manual_seed(seed)
        x = (torch.rand(1, 3, 64, 64, generator=generator) - self.mean) / self.sd
        with torch.no_grad():
            for layer in self.features:
                if isinstance(layer, nn.Conv2d):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
                    assert layer.bias is not None
                    layer.bias.zero_()
                    layer.weight.div_(layer(x).square().mean().sqrt())
                x = layer(x)

    def _read(self, path: Path) -> None:
        tensors = read_tensors(path)
        names = (f"{prefix}0.weight" for prefix in ("features.", ""))
        parts = [part for name in names for part in find_parts(tensors, name)]
        state = choose_part(tensors, outermost(parts), str(path)).tensors if parts else tensors
        for name, own in self.state_dict().items():
            given = state.get(name, state.get(name.removeprefix("features.")))
            if given is None or given.shape != own.shape:
                found = "is missing" if given is None else f"has shape {tuple(given.shape)}"
                raise ModelError(
                    f"{path}: {name} {found}, {tuple(own.shape)} is needed; give a VGG19 file in "
                    "torchvision's layout, at least to the deepest level asked for"
                )
            own.copy_(given)
