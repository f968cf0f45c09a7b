"""The shell around every network: any size in, exactly the asked-for size out."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.device import upload
from wsisr.errors import ModelError
from wsisr.models.info import ModelInfo, Traits
from wsisr.models.layers.coordinates import as_image, cell_size, output_size, pixel_centres

FeatureMaps = tuple[Tensor, ...]
"""What `encode` makes of LR: maps of the input's own size."""


class SRModel(nn.Module):
    """Base of both shells: a network with its record.

    Parameters
    ----------
    net : nn.Module
        The architecture itself; its parameters appear under ``net.`` in the state dict.
    traits : Traits
        What the architecture's builder knows about the network.
    """

    info: ModelInfo
    settings: Any

    def __init__(self, net: nn.Module, traits: Traits) -> None:
        super().__init__()
        self.net = net
        self.traits = traits

    @property
    def parameter_count(self) -> int:
        """Number of scalar parameters, exact."""
        return sum(p.numel() for p in self.parameters())

    def set_checkpointing(self, on: bool = True) -> "SRModel":
        """Recompute each block in the backward pass instead of keeping its activations.

        Exact: the same gradients for less memory and about a third more time. Networks
        without blocks to recompute ignore it.
        """
        for module in self.modules():
            if hasattr(module, "checkpointing"):
                setattr(module, "checkpointing", on)  # noqa: B010 - modules are not typed by attribute
        return self


def check_batch(lr: Tensor, name: str) -> None:
    """Raise `ModelError` unless `lr` is a float batch (N, 3, h, w) with h, w >= 1."""
    if lr.ndim != 4 or lr.shape[1] != 3 or lr.shape[-1] < 1 or lr.shape[-2] < 1:
        raise ModelError(
            f"{name}: input of shape {tuple(lr.shape)}; give a batch (N, 3, height, width) of RGB"
        )
    if not lr.is_floating_point():
        raise ModelError(f"{name}: input of type {lr.dtype}; give floats in [0, 1] (uint8 / 255)")


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, h, w) on the right and bottom until both sides are multiples.

    Each axis is reflected, or extended by its edge values where reflection is undefined.
    """
    height, width = x.shape[-2:]
    return pad_to(x, height + -height % multiple, width + -width % multiple)


def pad_to(x: Tensor, rows: int, cols: int) -> Tensor:
    """Likewise, to a size that is no smaller."""
    height, width = x.shape[-2:]
    x = _pad_axis(x, (0, cols - width, 0, 0), width)
    return _pad_axis(x, (0, 0, 0, rows - height), height)


def _pad_axis(x: Tensor, pad: tuple[int, ...], side: int) -> Tensor:
    # Reflection raises unless the pad is smaller than the side; edge values always work.
    mode = "reflect" if max(pad) < side else "replicate"
    return F.pad(x, pad, mode=mode) if any(pad) else x


class FixedScaleModel(SRModel):
    """``model(lr)``: (N, 3, h, w) in [0, 1] -> (N, 3, s h, s w), any h, w >= 1.

    The input is padded on the right and bottom (reflection, edge values where the pad is not
    smaller than the side) to the network's multiple, and the output is cropped back.
    The output is not clamped: training needs its gradient outside [0, 1].
    """

    def __init__(self, net: nn.Module, traits: Traits, scale: int) -> None:
        super().__init__(net, traits)
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        """Super-resolve a batch; see the class."""
        check_batch(lr, type(self.net).__name__)
        height, width = lr.shape[-2:]
        padded = pad_to_multiple(lr, self.traits.multiple_of_px)
        sr: Tensor = self.net(padded)
        return sr[..., : height * self.scale, : width * self.scale]


class ArbitraryScaleModel(SRModel):
    """``model(lr, scale=2.4)`` or ``model(lr, size=(H, W))`` -> (N, 3, H, W), any h, w >= 1.

    The wrapped network offers ``encode(lr) -> features`` (`FeatureMaps`) and
    ``decode(features, lr, coord, cell) -> (N, Q, 3)``; where pixels depend on one
    another it also has ``render(features, lr, size, cell, chunk) -> (N, 3, H, W)``. It never sees
    padding: encoders pad and crop inside.

    Attributes
    ----------
    chunk_px : int
        Output pixels decoded at once in ``forward``; bounds memory and changes nothing else.
    """

    def __init__(self, net: nn.Module, traits: Traits, cell_clip: bool, trained_to: float) -> None:
        super().__init__(net, traits)
        self.cell_clip = cell_clip
        self.trained_to = trained_to
        self.chunk_px = 65_536

    def forward(
        self, lr: Tensor, scale: float | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Super-resolve a batch to a scale (sides rounded) or to an exact size in px.

        With `cell_clip`, the cell of scales beyond the trained range is held at the range's
        end (times max(s/4, 1), as LTE does), which is part of the protocol of a result.
        """
        check_batch(lr, type(self.net).__name__)
        height, width = output_size(lr.shape[-2:], scale, size)
        rows, cols = cell_size((height, width))
        if self.cell_clip:
            rows *= max(height / lr.shape[-2] / self.trained_to, 1.0)
            cols *= max(width / lr.shape[-1] / self.trained_to, 1.0)
        features = self.net.encode(lr)  # type: ignore[operator]
        size, cell = (height, width), (rows, cols)
        own = getattr(self.net, "render", None)
        if own is not None:
            return own(features, lr, size, cell, self.chunk_px)
        return render_in_chunks(self.net, features, lr, size, cell, self.chunk_px)

    def query(self, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, for training on sampled pixels.

        Parameters
        ----------
        lr : Tensor
            (N, 3, h, w) in [0, 1].
        coord : Tensor
            (N, Q, 2) pixel centres (row, column) in [-1, 1] over the image, float32.
        cell : Tensor
            (N, Q, 2) or (N, 1, 2): size of an output pixel in the same units (2 / H, 2 / W).

        Returns
        -------
        Tensor
            (N, Q, 3), nominally in [0, 1], not clamped.
        """
        check_batch(lr, type(self.net).__name__)
        return self.net.decode(self.net.encode(lr), lr, coord, cell)  # type: ignore[operator]


def render_in_chunks(
    net: nn.Module,
    features: FeatureMaps,
    lr: Tensor,
    size: tuple[int, int],
    cell: tuple[float, float],
    chunk_px: int,
) -> Tensor:
    """Decode every pixel of an image chunk by chunk; pixels must not depend on one another."""
    coord = pixel_centres(size, device=lr.device, dtype=coordinate_dtype(lr))
    cells = upload(cell, lr.device, coord.dtype)
    parts = []
    for start in range(0, coord.shape[0], chunk_px):
        part = coord[start : start + chunk_px].expand(lr.shape[0], -1, -1)
        parts.append(net.decode(features, lr, part, cells.expand(lr.shape[0], 1, 2)))  # type: ignore[operator]
    return as_image(torch.cat(parts, dim=1), size)


def coordinate_dtype(lr: Tensor) -> torch.dtype:
    """Coordinates stay in float32 (float64 for float64 input): bf16 is off by up to 0.1 px."""
    return torch.float64 if lr.dtype == torch.float64 else torch.float32
