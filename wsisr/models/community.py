"""Networks that are not ours, through the optional package `spandrel`.

spandrel recognises dozens of super-resolution architectures from the names in a weights file. It is
no dependency (it needs torchvision); install it beside wsisr to use this. It gets tensors that were
read here: its own reader of .pt files would run a program that is in one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsisr.errors import ModelError
from wsisr.models.foreign.containers import behind, choose_part, read_tensors
from wsisr.models.info import ModelInfo, Traits
from wsisr.models.wrapper import FixedScaleModel, pad_to

FAMILY = "community"
PREFIX = "community:"
"""Begins the names of these networks, in records and in config.json."""
_WRAPPER_DEPTH = 3


@dataclass(frozen=True, kw_only=True)
class CommunitySettings:
    """spandrel reads everything from the tensors: there is nothing to set."""


class _Bare(nn.Module):
    """The network inside a spandrel descriptor, and the least input that it bears."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.model: nn.Module = found.model
        self.least_px = int(found.size_requirements.minimum or 1)
        self.square = bool(getattr(found.size_requirements, "square", False))
        # Some return more than the picture: spandrel knows which.
        self.call: Callable[[nn.Module, Tensor], Tensor] = getattr(
            found, "_call_fn", lambda model, lr: model(lr)
        )
        self.scale = int(found.scale)

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        rows, cols = max(height, self.least_px), max(width, self.least_px)
        if self.square:
            rows = cols = max(rows, cols)
        # Some of these networks change their input in place.
        out: Tensor = self.call(self.model, pad_to(lr, rows, cols).clone())
        return out[..., : height * self.scale, : width * self.scale]


def load_community(path: Path | str) -> FixedScaleModel:
    """Load a fixed-scale RGB network that spandrel knows, in eval mode.

    It keeps the contract of fixed-scale models, pads as its own code does, and can be evaluated,
    applied and saved (the saved model needs spandrel too).

    Raises
    ------
    ModelError
        If spandrel is missing, does not know the file, or the network is not RGB to RGB.
    """
    path = Path(path)
    tensors = read_tensors(path)
    reason: ModelError | None = None
    for prefix in _candidates(tensors):
        state = choose_part(tensors, [prefix], str(path)).tensors
        try:
            return community_from(state, str(path), path.name).eval()
        except _UnknownError as error:
            reason = error
    raise ModelError(
        f"{path} has the names of no network that wsisr or spandrel knows ({reason}); if it is one "
        "of wsisr's, name it with --model and --scale"
    )


def community_from(state: Mapping[str, Tensor], source: str, name: str) -> FixedScaleModel:
    """The network of a bare state dict; see `load_community`."""
    loader = _loader(source)
    try:
        found = loader.load_from_state_dict(dict(state))
    # spandrel raises its own error type for unknown files, and whatever the tensors provoke.
    except Exception as error:
        raise _UnknownError(
            f"{source}: spandrel cannot load it ({error or type(error).__name__})"
        ) from error
    inputs, outputs = int(found.input_channels), int(found.output_channels)
    if (inputs, outputs) != (3, 3):
        raise ModelError(f"{source}: a network from {inputs} to {outputs} channels; RGB is needed")
    multiple = max(1, int(found.size_requirements.multiple_of or 1))
    dtypes = ("float32", "bfloat16") if found.supports_bfloat16 else ("float32",)
    scale = int(found.scale)
    # Nothing is known of its reach: the halo is that of our own transformers.
    traits = Traits(
        multiple_of_px=multiple, halo_px=32, tile_px=192, global_context=True, dtypes=dtypes
    )
    model = FixedScaleModel(_Bare(found), traits, scale)
    model.settings = CommunitySettings()
    window = getattr(found.model, "window_size", 1)
    # Tiles begin where the whole image's attention windows do; padding is the network's own.
    tiles = lcm(multiple, window if isinstance(window, int) and window > 0 else 1)
    model.info = ModelInfo(
        name=PREFIX + found.architecture.name,
        family=FAMILY,
        preset=FAMILY,
        kind="fixed",
        scale=scale,
        citation=f"weights file {name}, architecture as recognised by spandrel",
        **vars(traits) | {"multiple_of_px": tiles, "scale_range": (float(scale), float(scale))},
    )
    return model


class _UnknownError(ModelError):
    """spandrel does not know a state dict."""


def _loader(source: str) -> Any:
    try:
        from spandrel import ModelLoader
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision that was built for another torch.
        raise ModelError(
            f"{source} has the names of no network that wsisr knows; others are read by spandrel, "
            f"with a torchvision that fits torch {torch.__version__} ({error}): pip install "
            "'wsisr[spandrel]'; or name the network with --model and --scale"
        ) from error
    return ModelLoader(device="cpu")


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Prefixes that a network may stand behind: the outer ones first, averaged ones before."""
    prefixes = {""}
    for key in tensors:
        words = key.split(".")[:-1][:_WRAPPER_DEPTH]
        prefixes |= {".".join(words[: i + 1]) + "." for i in range(len(words))}
    # A network beside its average is half of a file, with a discriminator less.
    large = [p for p in prefixes if 4 * len(behind(tensors, p)) >= len(tensors)]
    parts = [choose_part(tensors, [p], "") for p in large]
    for part in sorted(parts, key=lambda p: (p.prefix.count("."), not p.averaged, p.prefix)):
        yield part.prefix
