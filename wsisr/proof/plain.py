"""The plain forms of networks' fast parts, to time beside: score matrices, loops over groups."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from wsisr.models import cwtnet, iste
from wsisr.models.layers.attention import WindowAttention
from wsisr.models.layers.deformable import DeformableAttention
from wsisr.models.layers.hybrid import OverlapAttention
from wsisr.models.masrnet import MixAttention
from wsisr.testing.naive_models import naive_mix_attention, naive_transfer_texture

_FUSED = (WindowAttention, DeformableAttention, OverlapAttention, MixAttention)


def has_fused_parts(model: nn.Module) -> bool:
    """Whether a network has a plain form that is another one."""
    return any(
        isinstance(module, (*_FUSED, iste.IsteNetwork, cwtnet.CrossScaleBlock))
        for module in model.modules()
    )


@contextmanager
def plain_form() -> Iterator[None]:
    """Within it networks compute the same values the obvious way."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(patch.object(MixAttention, "forward", naive_mix_attention))
        stack.enter_context(patch.object(cwtnet, "transfer_texture", naive_transfer_texture))
        stack.enter_context(patch.object(iste, "transfer", plain_transfer))
        yield


def plain_transfer(queries: Tensor, keys: Tensor, block_bytes: int = 0) -> tuple[Tensor, Tensor]:
    """Best key of each query by the full matrix of similarities."""
    matrix = torch.bmm(F.normalize(queries, dim=-1), F.normalize(keys, dim=-1).transpose(1, 2))
    best, index = matrix.max(dim=-1, keepdim=True)
    return keys.gather(1, index.expand(-1, -1, keys.shape[-1])), best
