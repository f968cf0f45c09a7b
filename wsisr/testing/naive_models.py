"""Plain forms of the networks' fast parts, written for reading, for parity tests and benchmarks.

Each function takes the weights of a product module and computes the same thing the obvious way:
score matrices, loops over windows and groups, full retrieval. None is used by the product, but
that `wsisr doctor --gpu` times networks in their `plain_form` beside their own.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from wsisr.models import cwtnet, iste
from wsisr.models.hat import HybridNetwork
from wsisr.models.iste import IsteNetwork
from wsisr.models.layers.attention import WindowAttention
from wsisr.models.layers.coordinates import grid_of
from wsisr.models.layers.deformable import DeformableAttention, query_axis, reference_axis
from wsisr.models.layers.hybrid import HybridBlock, OverlapAttention
from wsisr.models.masrnet import MixAttention

_FUSED = (WindowAttention, DeformableAttention, OverlapAttention, MixAttention)


def has_fused_parts(model: nn.Module) -> bool:
    """Whether a network has a plain form that is another one."""
    return any(
        isinstance(module, (*_FUSED, IsteNetwork, cwtnet.CrossScaleBlock))
        for module in model.modules()
    )


@contextmanager
def plain_form() -> Iterator[None]:
    """Within it networks compute the same values the obvious way."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(patch.object(MixAttention, "forward", naive_mix_attention))
        stack.enter_context(patch.object(cwtnet, "transfer_texture", naive_transfer_texture))
        stack.enter_context(patch.object(iste, "transfer", naive_transfer))
        yield


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, n, C) -> (B, heads, n, d)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def naive_window_attention(module: WindowAttention, x: Tensor, shift: int) -> Tensor:
    """Shifted-window attention with explicit scores and -inf masks, (B, H, W, C)."""
    b, height, width, c = x.shape
    w, heads = module.window, module.heads
    region = torch.zeros(height, width, dtype=torch.long)
    if shift:
        x = x.roll((-shift, -shift), (1, 2))
        bands = (slice(0, -w), slice(-w, -shift), slice(-shift, None))
        for i, rows in enumerate(bands):
            for j, cols in enumerate(bands):
                region[rows, cols] = 3 * i + j
    out = torch.zeros_like(x)
    bias = torch.zeros(heads, w * w, w * w, dtype=x.dtype, device=x.device)
    table = module.relative_position_bias_table
    for i in range(w * w):
        for j in range(w * w):
            dy, dx = i // w - j // w, i % w - j % w
            bias[:, i, j] = table[(dy + w - 1) * (2 * w - 1) + dx + w - 1]
    for top in range(0, height, w):
        for left in range(0, width, w):
            tile = x[:, top : top + w, left : left + w].reshape(b, w * w, c)
            q, k, v = (_heads(t, heads) for t in module.qkv(tile).chunk(3, dim=-1))
            scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5 + bias
            ids = region[top : top + w, left : left + w].flatten()
            scores = scores.masked_fill((ids[:, None] != ids[None]).to(x.device), -torch.inf)
            mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, w * w, c)
            out[:, top : top + w, left : left + w] = module.proj(mixed).view(b, w, w, c)
    return out.roll((shift, shift), (1, 2)) if shift else out


def naive_overlap_attention(module: OverlapAttention, x: Tensor, table: Tensor) -> Tensor:
    """OCAB with `F.unfold`, explicit scores, and a *released* table whose indices wrap around."""
    b, height, width, c = x.shape
    w, e, heads = module.window, module.extended, module.heads
    qkv = module.qkv(module.norm1(x)).permute(0, 3, 1, 2)
    q, kv = qkv[:, :c], qkv[:, c:]
    cut = F.unfold(kv, e, stride=w, padding=(e - w) // 2).view(b, 2 * c, e * e, -1)
    bias = torch.zeros(heads, w * w, e * e, dtype=x.dtype, device=x.device)
    for i in range(w * w):
        for j in range(e * e):
            dy, dx = j // e - i // w, j % e - i % w
            bias[:, i, j] = table[(dy + w - e + 1) * (w + e - 1) + dx + w - e + 1]
    out = torch.zeros_like(x)
    for n, (top, left) in enumerate(
        (t, s) for t in range(0, height, w) for s in range(0, width, w)
    ):
        query = q[:, :, top : top + w, left : left + w].flatten(2).transpose(1, 2)
        k, v = (_heads(t.transpose(1, 2), heads) for t in cut[..., n].chunk(2, dim=1))
        scores = _heads(query, heads) @ k.transpose(-2, -1) / (c // heads) ** 0.5 + bias
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, w, w, c)
        out[:, top : top + w, left : left + w] = mixed
    x = x + module.proj(out)
    return x + module.mlp(module.norm2(x))


def naive_deformable(module: DeformableAttention, tokens: Tensor) -> Tensor:
    """Deformable attention group by group and head by head, (B, h, w, C)."""
    x = tokens.permute(0, 3, 1, 2)
    b, c, height, width = x.shape
    q = module.proj_q(x)
    per_group, d = c // module.groups, c // module.heads
    sampled, places = [], []
    for g in range(module.groups):
        own = slice(g * per_group, (g + 1) * per_group)
        offset = module.conv_offset(q[:, own]).permute(0, 2, 3, 1)
        rule = module.reference_points
        reference = grid_of(
            reference_axis(offset.shape[1], rule, x), reference_axis(offset.shape[2], rule, x)
        )
        place = (reference + offset).clamp(-1, 1)
        places.append(place.flatten(1, 2))
        sampled.append(F.grid_sample(x[:, own], place.flip(-1), align_corners=True))
    keys = torch.cat(sampled, dim=1)
    k, v = module.proj_k(keys).flatten(2), module.proj_v(keys).flatten(2)
    grid = grid_of(query_axis(height, x), query_axis(width, x)).reshape(-1, 2)
    out = []
    for head in range(module.heads):
        own = slice(head * d, (head + 1) * d)
        group = head * module.groups // module.heads
        shift = (grid[None, :, None] - places[group][:, None]) / 2
        table = module.rpe_table[head].expand(b, 1, -1, -1)
        bias = F.grid_sample(table, shift.flip(-1), align_corners=True)[:, 0]
        scores = q.flatten(2)[:, own].transpose(1, 2) @ k[:, own] / d**0.5 + bias
        out.append(v[:, own] @ scores.softmax(dim=-1).transpose(1, 2))
    return module.proj_out(torch.cat(out, dim=1).view(b, c, height, width)).permute(0, 2, 3, 1)


def naive_hybrid_block(block: HybridBlock, x: Tensor) -> Tensor:
    """HAB / M-HAB from the equations, without the literal form's extra LN(X)."""
    normed = block.norm1(x)
    y = x + naive_window_attention(block.attn, normed, block.attn.shift)
    y = y + block.alpha * block.conv_block.cab(normed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    if block.deformable is not None:
        assert isinstance(block.deformable, DeformableAttention)
        y = y + block.beta * naive_deformable(block.deformable, normed)
    return y + block.mlp(block.norm2(y))


def naive_hat(net: HybridNetwork, lr: Tensor) -> Tensor:
    """The whole of HAT with the weights of `net`, overlap tables as the released code wraps them.

    Works for MiHATP with ``residual="hat"`` too. Sides must be multiples of the window.
    """
    shallow = net.conv_first(lr - net.rgb.mean)
    x = net.patch_embed(shallow.permute(0, 2, 3, 1))
    for group in net.layers:
        y = x
        for block in group.residual_group.blocks:  # type: ignore[union-attr]
            y = naive_hybrid_block(block, y)
        overlap = group.get_submodule("residual_group.overlap_attn")
        assert isinstance(overlap, OverlapAttention)
        released = overlap.relative_position_bias_table.roll(-_wrap(overlap), dims=0)
        y = naive_overlap_attention(overlap, y, released)
        x = x + group.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # type: ignore[operator]
    x = shallow + net.conv_after_body(net.norm(x).permute(0, 3, 1, 2))
    return net.conv_last(net.upsample(net.conv_before_upsample(x))) + net.rgb.mean


def _wrap(overlap: OverlapAttention) -> int:
    """880 for windows of 16 and 24: how far the released indices are off, in rows."""
    w, e = overlap.window, overlap.extended
    return ((w - 1) - (w - e + 1)) * (w + e)


def naive_mix_attention(module: MixAttention, x: Tensor) -> Tensor:
    """Mix-attention as the paper's figure draws it: a loop over groups, two maps, their sum."""
    parts = []
    c = module.per_group
    for g, part in enumerate(x.chunk(module.groups, dim=1)):
        out = torch.zeros_like(part)
        if module.channel is not None:
            first, last = module.channel[0], module.channel[2]
            assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
            assert first.bias is not None and last.bias is not None
            h = first.out_channels // module.groups
            pooled = part.mean(dim=(2, 3))
            hidden = F.linear(
                pooled, first.weight[g * h : (g + 1) * h, :, 0, 0], first.bias[g * h : (g + 1) * h]
            ).relu()
            gate = F.linear(
                hidden, last.weight[g * c : (g + 1) * c, :, 0, 0], last.bias[g * c : (g + 1) * c]
            ).sigmoid()
            out = out + part * gate[:, :, None, None]
        if module.spatial is not None:
            conv = module.spatial
            assert conv.bias is not None
            gate = F.conv2d(
                part, conv.weight[g : g + 1], conv.bias[g : g + 1], padding=conv.padding
            ).sigmoid()
            out = out + part * gate
        parts.append(out)
    stacked = torch.stack(parts, dim=1)
    return stacked.transpose(1, 2).reshape(x.shape)


def naive_transfer_texture(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """TTSR's search and transfer: unfolded patches, the full similarity matrix, fold."""
    size = (q.shape[-2], q.shape[-1])
    query = F.normalize(F.unfold(q, 3, padding=1), dim=1)
    key = F.normalize(F.unfold(k, 3, padding=1).transpose(1, 2), dim=2)
    best, index = torch.bmm(key, query).max(dim=1)
    patches = F.unfold(v, 3, padding=1)
    found = patches.gather(2, index[:, None].expand(-1, patches.shape[1], -1))
    return F.fold(found, size, 3, padding=1) / 9, best.view(-1, 1, *size)


def naive_transfer(queries: Tensor, keys: Tensor, block_bytes: int = 0) -> tuple[Tensor, Tensor]:
    """Best key of each query by the full matrix of similarities."""
    matrix = torch.bmm(F.normalize(queries, dim=-1), F.normalize(keys, dim=-1).transpose(1, 2))
    best, index = matrix.max(dim=-1, keepdim=True)
    return keys.gather(1, index.expand(-1, -1, keys.shape[-1])), best


def naive_fusion(net: IsteNetwork, queries: Tensor, textures: Tensor) -> Tensor:
    """Self-texture fusion with the full similarity matrix, (N, Q, C) -> (N, Q, C)."""
    found, confidence = naive_transfer(queries, textures)
    return queries + net.fusion(torch.cat((queries, found), dim=-1)) * confidence


def naive_iste(net: IsteNetwork, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
    """ISTE at coordinates (N, Q, 2) with cells (N, Q, 2): grid_sample, full matrix."""
    x = net.encoder(lr * 2 - 1)
    feature = net.lfi_conv(net.lfi(x))
    height, width = feature.shape[-2:]
    rows = (2 * torch.arange(height, dtype=coord.dtype) + 1) / height - 1
    cols = (2 * torch.arange(width, dtype=coord.dtype) + 1) / width - 1
    centres = grid_of(rows, cols).permute(2, 0, 1).expand(lr.shape[0], -1, -1, -1)
    side = torch.tensor([height, width], dtype=coord.dtype)

    def sample(grid: Tensor, place: Tensor) -> Tensor:
        place = place.flip(-1).unsqueeze(1).to(grid.dtype)
        out = F.grid_sample(grid, place, mode="nearest", align_corners=False)
        return out[:, :, 0].transpose(1, 2)

    rgbs, areas = [], []
    for dy in (-1, 1):
        for dx in (-1, 1):
            place = coord + torch.tensor([dy, dx], dtype=coord.dtype) / side + 1e-6
            place = place.clamp(-1 + 1e-6, 1 - 1e-6)
            rel = (coord - sample(centres, place)) * side
            wave = sample(net.freq_row(x), place) * rel[..., :1]
            wave = wave + sample(net.freq_col(x), place) * rel[..., 1:]
            phase = 2 * torch.pi * net.phase(cell * side).sigmoid()
            texture = sample(net.amplitude(x), place) * (wave + phase).sin()
            fused = naive_fusion(net, sample(feature, place), texture)
            rgb = net.lpd(torch.cat((fused, rel, cell * side), dim=-1)) + net.ltd(texture)
            rgbs.append(rgb)
            areas.append(rel.prod(dim=-1, keepdim=True).abs() + 1e-9)
    total = torch.stack(areas).sum(dim=0)
    areas = areas[::-1]
    return torch.stack([r * a / total for r, a in zip(rgbs, areas, strict=True)]).sum(0) / 2 + 0.5
