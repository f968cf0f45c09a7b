"""What would go wrong, or wait, on a GPU: found without one, on tensors that have no values.

torch's meta device gives every result its shape and its device and computes nothing. Here it
stands for a GPU (`wsisr.device.shapes_stand_for_a_gpu`), and all that is computed is watched:

- *stray*: a tensor that was left on the CPU meets one of the device, which torch refuses there;
- *wait*: the host asks the device for a value (``.item()``, ``.cpu()``, a branch on a tensor, a
  result whose shape depends on values), or hands it host memory in a way that waits for it.

torch's own check lets many meetings pass that a GPU would refuse (products, convolutions), so that
every operation is looked at here.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsisr.device import SHAPES, shapes_stand_for_a_gpu

PACKAGE = Path(__file__).parent
_COPIES = ("aten._to_copy", "aten.copy_")
_ASKS = (
    "aten._local_scalar_dense",
    "aten.item",
    "aten.is_nonzero",
    "aten.equal",
    "aten.nonzero",
    "aten.masked_select",
    "aten._unique2",
    "aten.unique_consecutive",
    "aten.unique_dim",
    "aten.bincount",
    "aten.repeat_interleave.Tensor",
)
"""Operations whose result, or its shape, the host has to know."""
_MAKERS = ("tensor", "as_tensor", "asarray", "scalar_tensor")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that a GPU would refuse or wait for.

    Attributes
    ----------
    kind : {"stray", "wait"}
    what : str
        The operation of torch.
    where : str
        File and line of this package, or of the caller where none of it is on the stack.
    """

    kind: Literal["stray", "wait"]
    what: str
    where: str

    def __str__(self) -> str:
        said = {
            "stray": "a tensor on the CPU meets one of the device",
            "wait": "the host waits for the device",
        }
        return f"{self.where}: {said[self.kind]} ({self.what})"


class Watch:
    """Faults in the order in which they were met, each place once, and how often they came.

    Attributes
    ----------
    counts : dict of Fault to int
    end : str
        What torch said where a value was asked for, which nothing has; empty if all was gone
        through.
    """

    def __init__(self) -> None:
        self.counts: dict[Fault, int] = {}
        self.end = ""

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self.counts)

    def of(self, kind: str) -> tuple[Fault, ...]:
        """Faults of one kind."""
        return tuple(fault for fault in self.counts if fault.kind == kind)

    def note(self, kind: Literal["stray", "wait"], what: str) -> None:
        """Count a fault at the place that is running."""
        fault = Fault(kind=kind, what=what, where=_place())
        self.counts[fault] = self.counts.get(fault, 0) + 1


@contextmanager
def rehearsed() -> Iterator[tuple[torch.device, Watch]]:
    """The device to build on, and what is found while the block runs.

    A value that is asked for cannot be given: that ends the block. An error with no fault before it
    passes.
    """
    watch = Watch()
    try:
        with shapes_stand_for_a_gpu() as device, _Operations(watch), _Calls(watch):
            yield device, watch
    except (RuntimeError, NotImplementedError) as error:
        if not watch.counts:
            raise
        watch.end = str(error).splitlines()[0]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [t for t in tensors if t.device.type == SHAPES]
        if name.startswith(_COPIES):
            self._copied(name, args, kwargs)
        elif there:
            if name.startswith(_ASKS) or _indexes_by_flags(name, args):
                self.watch.note("wait", name)
            # A number in a tensor is handed over as a number.
            if any(t.device.type != SHAPES and t.ndim for t in tensors):
                self.watch.note("stray", name)
        return func(*args, **kwargs)

    def _copied(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if name.startswith("aten.copy_"):
            to, source = args[0].device.type, args[1]
            freely = bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking"))
        else:
            source = args[0]
            to = torch.device(kwargs.get("device") or source.device).type
            freely = bool(kwargs.get("non_blocking"))
        leaves, enters = source.device.type == SHAPES != to, source.device.type != SHAPES == to
        if leaves or (enters and not freely):
            self.watch.note("wait", name)


class _Calls(TorchFunctionMode):
    """Tensors made of Python's values: torch copies them below the operations it shows."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _MAKERS and kwargs.get("device") is not None:
            given = args[0] if args else None
            if torch.device(kwargs["device"]).type == SHAPES and not isinstance(given, Tensor):
                self.watch.note("wait", f"torch.{func.__name__}")
        return func(*args, **kwargs)


def _indexes_by_flags(name: str, args: Sequence[Any]) -> bool:
    """Whether a tensor is indexed by booleans: how many are true decides the result's shape."""
    if not name.startswith(("aten.index.", "aten.index_put")):
        return False
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _place() -> str:
    """Where the innermost line of this package stands, this module apart."""
    frame: Any = sys._getframe(1)
    outside = ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__):
            if PACKAGE in path.parents:
                return f"wsisr/{path.relative_to(PACKAGE).as_posix()}:{frame.f_lineno}"
            if not outside and "torch" not in path.parts and path.suffix == ".py":
                outside = f"{path.name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside or "unknown"
