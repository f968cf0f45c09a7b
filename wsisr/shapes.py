"""Operations on tensors without values, each kind worked out once.

torch's meta device says what shape a result has. For many operations it does so in Python, through
the hundreds of smaller ones that they stand for (``grid_sample``, most gradients of activations),
and a network does the same thing to the same shapes block after block. What was worked out is
remembered here, so that tracing a network costs what is new in it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wsisr.device import SHAPES


class _Shape(NamedTuple):
    """A fresh tensor of a result."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=SHAPES)


class Remembered:
    """Calls operations of torch; results on shapes alone that were worked out before are made anew.

    Operations whose result shares memory with an argument, or that change one, are always called:
    what they do is more than a shape.
    """

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}

    def __call__(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        try:
            key = (func, _key(args), _key(tuple(kwargs.items())))
            made = self.known.get(key, self)
        except TypeError:
            # An argument that cannot be looked up by.
            return func(*args, **kwargs)
        if made is self:
            out = func(*args, **kwargs)
            shared = {t.untyped_storage()._cdata for t in tensors((args, kwargs))}
            self.known[key] = _recipe(out, shared)
            return out
        return func(*args, **kwargs) if made is None else _make(made)


def tensors(value: Any) -> list[Tensor]:
    """Tensors among an operation's arguments or results."""
    found: list[Tensor] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for part in value:
            _gather(part, found)
    elif isinstance(value, dict):
        for part in value.values():
            _gather(part, found)


def _key(value: Any) -> Any:
    """What the shapes of a result depend on."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, (tuple, list)):
        return tuple(map(_key, value))
    # 1, 1.0 and True are equal, and make different tensors.
    return type(value), value


def _recipe(out: Any, shared: set[int]) -> Any:
    """How to make a result again; None where it is more than fresh tensors on shapes."""
    if isinstance(out, (tuple, list)):
        parts = [_recipe(part, shared) if part is not None else _NOTHING for part in out]
        return None if any(part is None for part in parts) else (type(out), parts)
    if not isinstance(out, Tensor):
        return None
    storage = out.untyped_storage()
    made = _Shape(tuple(out.shape), out.stride(), out.dtype)
    whole = storage.nbytes() == made.make().untyped_storage().nbytes()
    if out.device.type != SHAPES or storage._cdata in shared or not whole:
        return None
    shared.add(storage._cdata)
    return made


_NOTHING = object()
"""A part of a result that is None."""


def _make(made: Any) -> Any:
    if isinstance(made, _Shape):
        return made.make()
    if made is _NOTHING:
        return None
    kind, parts = made
    return kind(map(_make, parts))
