"""Hard attention without keeping the similarity matrix: rows (ISTE), or 3x3 patches of a map.

max over j of R[i, j] needs only the row's argmax, and its gradient is one-hot there: so the
argmax is found without gradient in blocks of rows, and the similarity is recomputed
differentiably at the index found. Values and gradients are those of the full matrix.

The scheme for patches is that of TTSR and T2Net, which CWT-Net's transformer block follows: each
3x3 patch of Q finds the most similar patch of K (cosine of the zero-padded 576-dimensional
tokens), the patches of V at those places are laid over one another and divided by 9, and the
similarity itself weighs the result. The inner product of two patches is the sum over the nine
offsets of the inner products of pixels, so R comes from the pixels' products by shifted sums; bands
of query rows keep only a part of it. The similarity and the transferred texture are then nine
gathers each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.device import full_precision, wide
from wsisr.models.layers.coordinates import as_rows, gather_cells

BLOCK_BYTES = 64 * 2**20
"""Upper bound of the similarities of rows that are alive at a time."""
PATCH_BLOCK_BYTES = 128 * 2**20
"""Likewise of those of patches."""
OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
UNFOLD_UP_TO = 4096
"""Tokens up to which whole patches are compared: on CPUs one large product beats the bands."""
_EPS = 1e-12


@torch.no_grad()
def best_match(queries: Tensor, keys: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Index of the key most similar to each query by cosine, (N, U, C), (N, K, C) -> (N, U).

    Computed in at least float32 whatever autocast says: a rounded similarity picks other keys.
    """
    with full_precision(queries):
        queries, keys = wide(queries), wide(keys)
        unit_keys = F.normalize(keys, dim=-1).transpose(1, 2)
        rows = max(1, block_bytes // (keys.shape[0] * keys.shape[1] * queries.element_size()))
        return torch.cat(
            [
                torch.bmm(F.normalize(part, dim=-1), unit_keys).argmax(dim=-1)
                for part in torch.split(queries, rows, dim=1)
            ],
            dim=1,
        )


def similarity(queries: Tensor, matches: Tensor) -> Tensor:
    """Cosine of paired rows, (N, U, C), (N, U, C) -> (N, U, 1), differentiable."""
    cosine = (F.normalize(queries, dim=-1) * F.normalize(matches, dim=-1)).sum(dim=-1)
    return cosine.unsqueeze(-1)


def transfer(
    queries: Tensor, keys: Tensor, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, Tensor]:
    """Best key of each query and their similarity: (N, U, C) and (N, U, 1), differentiable."""
    found = gather_cells(keys, best_match(queries, keys, block_bytes))
    return found, similarity(queries, found)


def patch_norms(x: Tensor) -> Tensor:
    """Euclidean norms of the 3x3 patches of (N, C, h, w), zero-padded, (N, h, w)."""
    energy = x.square().sum(dim=1, keepdim=True)
    return F.avg_pool2d(energy, 3, stride=1, padding=1, divisor_override=1)[:, 0].sqrt()


@torch.no_grad()
def best_patch(q: Tensor, k: Tensor, block_bytes: int = PATCH_BLOCK_BYTES) -> Tensor:
    """Row-major index of the K patch most similar to each Q patch, (N, h w)."""
    q, k = wide(q), wide(k)
    if q.shape[-2] * q.shape[-1] <= UNFOLD_UP_TO:
        q_tokens, k_tokens = (F.unfold(t, 3, padding=1).transpose(1, 2) for t in (q, k))
        return best_match(q_tokens, k_tokens, block_bytes)
    return best_patch_banded(q, k, block_bytes)


@torch.no_grad()
def best_patch_banded(q: Tensor, k: Tensor, block_bytes: int = PATCH_BLOCK_BYTES) -> Tensor:
    """As `best_patch`, from bands of query rows; two blocks of similarities are alive at a time."""
    n, _, height, width = q.shape
    _, _, k_height, k_width = k.shape
    row_bytes = n * width * k_height * k_width * q.element_size()
    band = max(1, block_bytes // (2 * row_bytes) - 2)
    k_flat = k.flatten(2)
    scale = 1.0 / patch_norms(k).clamp_min(_EPS).flatten(1)
    padded = F.pad(q, (0, 0, 1, 1))
    found = []
    with full_precision(q):
        for top in range(0, height, band):
            rows = padded[:, :, top : min(top + band, height) + 2].flatten(2).transpose(1, 2)
            # (N, rows + 2, w, kh, kw): inner products of single pixels.
            pixels = torch.bmm(rows, k_flat).view(n, -1, width, k_height, k_width)
            across = pixels.clone()
            across[:, :, 1:, :, 1:] += pixels[:, :, :-1, :, :-1]
            across[:, :, :-1, :, :-1] += pixels[:, :, 1:, :, 1:]
            del pixels
            patches = across[:, 1:-1].clone()
            patches[:, :, :, 1:] += across[:, :-2, :, :-1]
            patches[:, :, :, :-1] += across[:, 2:, :, 1:]
            del across
            # The query's own norm does not change its argmax.
            flat = patches.flatten(3).flatten(1, 2).mul_(scale[:, None])
            found.append(flat.argmax(dim=-1))
    return torch.cat(found, dim=1)


def _padded_index(index: Tensor, width: int, offset: tuple[int, int]) -> Tensor:
    """Index of cell + offset in the frame padded by one pixel."""
    row = torch.div(index, width, rounding_mode="floor")
    return (row + 1 + offset[0]) * (width + 2) + (index - row * width) + 1 + offset[1]


def patch_similarity(q: Tensor, k: Tensor, index: Tensor) -> Tensor:
    """Cosine of each Q patch with the K patch at `index`, (N, 1, h, w), differentiable."""
    n, _, height, width = q.shape
    q_padded, k_padded = F.pad(q, (1, 1, 1, 1)), F.pad(k, (1, 1, 1, 1))
    k_rows = as_rows(k_padded)
    dot = torch.zeros((n, height * width), dtype=q.dtype, device=q.device)
    for dy, dx in OFFSETS:
        own = q_padded[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        other = gather_cells(k_rows, _padded_index(index, k.shape[-1], (dy, dx)))
        dot = dot + (as_rows(own) * other).sum(dim=-1)
    q_norm = patch_norms(q).clamp_min(_EPS).flatten(1)
    k_norm = patch_norms(k).clamp_min(_EPS).flatten(1).gather(1, index)
    return (dot / q_norm / k_norm).view(n, 1, height, width)


def transferred(v: Tensor, index: Tensor, size: tuple[int, int]) -> Tensor:
    """Patches of V at `index` laid over one another and divided by 9, (N, C, h, w).

    T(p) = 1/9 sum over offsets o of V[index(p - o) + o]; what falls outside counts as zero.
    """
    height, width = size
    padded = F.pad(v, (1, 1, 1, 1))
    rows = as_rows(padded)
    grid = index.view(-1, 1, height, width)
    out = torch.zeros((index.shape[0], height * width, v.shape[1]), dtype=v.dtype, device=v.device)
    for dy, dx in OFFSETS:
        place = _padded_index(grid, v.shape[-1], (dy, dx))
        # Shift the map of places by the offset; entry 0 is a corner of the zero frame.
        place = F.pad(place, (1, 1, 1, 1))[:, :, 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        out = out + gather_cells(rows, place.flatten(1))
    return (out / len(OFFSETS)).transpose(1, 2).reshape(index.shape[0], -1, height, width)


def transfer_texture(
    q: Tensor, k: Tensor, v: Tensor, block_bytes: int = PATCH_BLOCK_BYTES
) -> tuple[Tensor, Tensor]:
    """Texture of V for Q, and its similarity: (N, C, h, w), (N, 1, h, w); both differentiable."""
    index = best_patch(q, k, block_bytes)
    texture = transferred(v, index, (q.shape[-2], q.shape[-1]))
    return texture, patch_similarity(q, k, index)
