"""Places where autocast must not reach."""

from contextlib import AbstractContextManager

from torch import Tensor

from wsisr.device import autocast


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off on the device of `x`."""
    return autocast(x.device, None)
