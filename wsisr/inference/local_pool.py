"""Pooling over the training size instead of over the whole input, at inference alone.

Networks with global pooling learn from crops of a few dozen pixels and meet other means on whole
tiles; worse, two tiles that share a border pool over different pixels, so that the border shows.
Here each global mean becomes a map: at every pixel the mean of a window of the training size,
moved inside at the input's edges so that its size never changes (Chu, Chen, Chen, Lu. Improving
image restoration by revisiting global information aggregation. ECCV 2022, arXiv 2112.04491).

No parameter changes, nor does anything in training. A window that covers the input gives the
ordinary output. What else sees the whole input stays as it is: deformable attention (`mihatp`),
texture retrieval (`iste`, `cwtnet`), stretched interpolation (`li2021`), community networks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.device import has_float64
from wsisr.errors import ModelError
from wsisr.models.cwtnet import CrossScaleBlock
from wsisr.models.dcanet import ConnectedBlock, ConnectedGroup
from wsisr.models.layers.blocks import ChannelAttention
from wsisr.models.layers.deformable import DeformableAttention
from wsisr.models.masrnet import MixAttention
from wsisr.models.swdnet import Adaptation, ContextFusion, ParallelPart, WaveletStage

LEAST_LOGIT = -20.0
"""Local softmax weights are at least exp of this times the largest: sums stay accurate."""


def set_local_pooling(model: nn.Module, window_px: int | None) -> int:
    """Switch a model's global means to local ones, or back.

    Parameters
    ----------
    window_px : int or None
        Side of the window in LR px: that of the crops the model was trained on. None restores
        global pooling.

    Returns
    -------
    int
        How many places pool globally by design; 0 where there is nothing to switch.

    Raises
    ------
    ModelError
        If the window is smaller than 1 px.
    """
    if window_px is not None and window_px < 1:
        raise ModelError(f"a pooling window of {window_px} px; give at least 1 LR px")
    halved = _at_half_size(model)
    count = 0
    for module in model.modules():
        forward = _FORWARD.get(type(module))
        if forward is None or (isinstance(module, MixAttention) and module.channel is None):
            continue
        count += 1
        if window_px is not None:
            side = max(1, window_px // 2 if module in halved else window_px)
            # On the instance, before its class's own: parameters and state dict stay.
            setattr(module, "forward", partial(forward, module, side))  # noqa: B010
        elif "forward" in vars(module):
            delattr(module, "forward")
    return count


def only_pools_globally(model: nn.Module) -> bool:
    """Whether its pools are all that sees the whole input: made local, tiles can be exact."""
    types = {type(module) for module in model.modules()}
    return not types.isdisjoint(_FORWARD) and types.isdisjoint(_WITHOUT_BOUNDS)


def box_mean(x: Tensor, window_px: int) -> Tensor:
    """Mean of the window around each pixel.

    Parameters
    ----------
    x : Tensor
        (..., h, w).
    window_px : int
        Side of the window; an even one reaches one pixel further up and left.

    Returns
    -------
    Tensor
        (..., h, w) of the type of `x`; an axis that the window covers has length 1 instead, for
        broadcasting.
    """
    return _axis_mean(_axis_mean(x, window_px, -2), window_px, -1)


def _axis_mean(x: Tensor, window_px: int, axis: int) -> Tensor:
    side = x.shape[axis]
    if window_px >= side:
        return x.mean(dim=axis, keepdim=True)
    # Running sums along one axis at a time: their cost does not depend on the window, and a few
    # hundred terms in float32 lose nothing that matters (sums in bfloat16 would).
    wide = x.float() if x.itemsize < 4 else x
    sums = F.pad(wide, (0, 0, 1, 0) if axis == -2 else (1, 0)).cumsum(dim=axis)
    inner = side - window_px + 1
    means = (sums.narrow(axis, window_px, inner) - sums.narrow(axis, 0, inner)) / window_px
    # The first and the last window stand for all pixels nearer to the edge.
    place = torch.arange(side, device=x.device).sub_(window_px // 2).clamp_(0, inner - 1)
    return means.index_select(axis, place).to(x.dtype)


def _at_half_size(model: nn.Module) -> set[nn.Module]:
    """Modules whose maps have half the LR side; all others pool at the LR side."""
    found: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, ParallelPart) and module.fuse_lower is not None:
            found.add(module.fuse_lower)
        elif isinstance(module, WaveletStage):
            found.update((module.adapt_down, *module.fuse_down))
    return found


def _channel_attention(module: ChannelAttention, window_px: int, x: Tensor) -> Tensor:
    return x * module.conv_du(box_mean(x, window_px))


def _mix_attention(module: MixAttention, window_px: int, x: Tensor) -> Tensor:
    assert module.channel is not None
    split = (x.shape[0], module.groups, module.per_group)
    parts = x.view(*split, *x.shape[-2:])
    gate = module.channel(box_mean(x, window_px))
    out = parts * gate.view(*split, *gate.shape[-2:])
    if module.spatial is not None:
        out = torch.addcmul(out, parts, module.spatial(x).sigmoid().unsqueeze(2))
    return F.channel_shuffle(out.flatten(1, 2), module.groups)


def _connected_group(
    module: ConnectedGroup, window_px: int, x: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    y = x
    for block in module.blocks:
        assert isinstance(block, ConnectedBlock)
        z = block.body(y)
        before = block.transform(box_mean(z, window_px) + before)
        y = y + z * before.sigmoid()
    return x + module.conv(y), before


def _adaptation(module: Adaptation, window_px: int, x: Tensor) -> Tensor:
    return x * _on_channels(module.fc, box_mean(x, window_px))


def _context_fusion(module: ContextFusion, window_px: int, own: Tensor, other: Tensor) -> Tensor:
    if window_px >= max(own.shape[-2:]):
        return ContextFusion.forward(module, own, other)
    logits = module.mask(own)
    logits = logits.double() if has_float64(own.device) else logits.float()
    weights = (logits - logits.amax(dim=(-2, -1), keepdim=True)).clamp(min=LEAST_LOGIT).exp()
    pooled = box_mean(weights * other, window_px) / box_mean(weights, window_px)
    gate = _on_channels(module.gate, box_mean(own, window_px))
    return own * gate + module.context(pooled.to(own.dtype))


def _on_channels(layers: nn.Module, maps: Tensor) -> Tensor:
    """Fully connected layers on the channels of every pixel of (N, C, h, w)."""
    n, channels, height, width = maps.shape
    rows = layers(maps.permute(0, 2, 3, 1).reshape(-1, channels))
    out: Tensor = rows.view(n, height, width, -1).permute(0, 3, 1, 2)
    return out


_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {
    ChannelAttention: _channel_attention,
    MixAttention: _mix_attention,
    ConnectedGroup: _connected_group,
    Adaptation: _adaptation,
    ContextFusion: _context_fusion,
}
_WITHOUT_BOUNDS: tuple[type[nn.Module], ...] = (DeformableAttention, CrossScaleBlock)
"""What else sees the whole input, in networks that pool."""
