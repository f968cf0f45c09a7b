"""Places where autocast must not reach."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off on the device of `x` (shape-only tensors know no autocast)."""
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)  # type: ignore[return-value]
