"""Hard attention by cosine similarity without keeping the similarity matrix.

max over j of R[i, j] needs only the row's argmax, and its gradient is one-hot there: so the
argmax is found without gradient in blocks of rows, and the similarity is recomputed
differentiably at the index found. Values and gradients are those of the full matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.device import full_precision
from wsisr.models.layers.coordinates import gather_cells

BLOCK_BYTES = 64 * 2**20
"""Upper bound of the similarity block that is alive at a time."""


@torch.no_grad()
def best_match(queries: Tensor, keys: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Index of the key most similar to each query by cosine, (N, U, C), (N, K, C) -> (N, U).

    Computed in at least float32 whatever autocast says: a rounded similarity picks other keys.
    """
    with full_precision(queries):
        if queries.dtype != torch.float64:
            queries, keys = queries.float(), keys.float()
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
