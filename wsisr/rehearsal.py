"""What would go wrong, or wait, on a GPU: found without one, on tensors that have no values.

torch's meta device gives every result its shape and its device and computes nothing. Here it
stands for a GPU (`wsisr.device.shapes_stand_for_a_gpu`), and all that is computed is watched:

- *stray*: a tensor that was left on the CPU meets one of the device, or numpy is handed one of the
  device, which torch refuses there;
- *wait*: the host asks the device for a value (``.item()``, ``.cpu()``, a branch on a tensor, a
  result whose shape depends on values), or hands it host memory in a way that waits for it;
- *draw*: a random number of torch's, numpy's or Python's own generator, which is another one on
  another device, number of processes, or run (`wsisr.degradation.draws` is the same everywhere;
  what a network drops at random in its pass is torch's, seeded by the step);
- *double*: images or maps in float64, many times slower than float32 on most cards and refused by
  Apple's. Exact degradations and one local pool compute in it, knowingly.

torch's own check lets many meetings pass that a GPU would refuse (products, convolutions), so that
every operation is looked at here.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_stack
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from wsisr.device import SHAPES, shapes_stand_for_a_gpu
from wsisr.shapes import Remembered, tensors

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
_DRAWS = tuple(
    f"aten.{name}"
    for name in (
        "rand", "normal", "uniform", "bernoulli", "native_dropout", "multinomial", "exponential",
        "poisson", "binomial", "cauchy", "geometric", "log_normal", "rrelu_with_noise",
    )
)  # fmt: skip
_MAKERS = ("tensor", "as_tensor", "asarray", "scalar_tensor")
_TO_NUMPY = ("numpy", "__array__")
_IN_DOUBLE = ("wsisr/degradation/", "wsisr/resize.py", "wsisr/inference/local_pool.py")
"""Where float64 is meant: exact degradations, and weights of a wide range in local pools."""
Kind = Literal["stray", "wait", "draw", "double"]
_SAID: dict[Kind, str] = {
    "stray": "a tensor on the CPU meets one of the device",
    "wait": "the host waits for the device",
    "draw": "a random number that another device or run does not repeat",
    "double": "images in float64",
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that a GPU would refuse or wait for.

    Attributes
    ----------
    what : str
        The operation of torch.
    where : str
        File and line of this package, or of the caller where none of it is on the stack.
    """

    kind: Kind
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {_SAID[self.kind]} ({self.what})"


class Watch:
    """Faults in the order in which they were met, each place once, and how often they came.

    Attributes
    ----------
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

    def note(self, kind: Kind, what: str, where: str = "") -> None:
        """Count a fault at the place that is running."""
        fault = Fault(kind=kind, what=what, where=where or _place())
        self.counts[fault] = self.counts.get(fault, 0) + 1


@contextmanager
def rehearsed() -> Iterator[tuple[torch.device, Watch]]:
    """The device to build on, and what is found while the block runs.

    A value that is asked for cannot be given: that ends the block. An error with no fault before it
    passes.
    """
    watch, before = Watch(), _host_draws()
    try:
        with shapes_stand_for_a_gpu() as device, _Operations(watch), _Calls(watch):
            yield device, watch
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if not watch.counts:
            raise
        watch.end = str(error).splitlines()[0]
    for name, state in _host_draws().items():
        if state != before[name]:
            watch.note("draw", name, "somewhere in the block")


def _host_draws() -> dict[str, Any]:
    """What tells whether numpy's and Python's own generators were drawn from."""
    _, words, place, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "numpy.random": (np.asarray(words).tobytes(), place, *rest),
        "random": random.getstate(),
    }


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch
        self.work_out = Remembered()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = str(func)
        given = tensors((args, kwargs))
        there = [t for t in given if t.device.type == SHAPES]
        if name.startswith(_COPIES):
            self._copied(name, args, kwargs)
        elif there:
            if name.startswith(_ASKS) or _indexes_by_flags(name, args):
                self.watch.note("wait", name)
            # A number in a tensor is handed over as a number.
            if any(t.device.type != SHAPES and t.ndim for t in given):
                self.watch.note("stray", name)
        if name.startswith(_DRAWS) and kwargs.get("generator") is None and not _in_a_pass():
            self.watch.note("draw", name)
        out = self.work_out(func, args, kwargs)
        if any(_is_double(made) for made in tensors(out)):
            place = _place()
            if not place.startswith(_IN_DOUBLE):
                self.watch.note("double", name, place)
        return out

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
        name = getattr(func, "__name__", "")
        if name in _TO_NUMPY and args[0].device.type == SHAPES:
            self.watch.note("stray", f"Tensor.{name}")
        if name in _MAKERS and kwargs.get("device") is not None:
            given = args[0] if args else None
            if torch.device(kwargs["device"]).type == SHAPES and not isinstance(given, Tensor):
                self.watch.note("wait", f"torch.{name}")
        return func(*args, **kwargs)


def _indexes_by_flags(name: str, args: Sequence[Any]) -> bool:
    """Whether a tensor is indexed by booleans: how many are true decides the result's shape."""
    if not name.startswith(("aten.index.", "aten.index_put")):
        return False
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _is_double(made: Tensor) -> bool:
    return made.dtype == torch.float64 and made.ndim >= 4 and made.device.type == SHAPES


def _in_a_pass() -> bool:
    """Whether a network's layer runs: what it drops at random hangs on the step's seed alone."""
    return any(
        frame.f_code.co_name == "forward" and isinstance(frame.f_locals.get("self"), nn.Module)
        for frame, _ in walk_stack(sys._getframe(1))
    )


def _place() -> str:
    """Where the innermost line of this package stands, this module apart."""
    outside = ""
    for frame, line in walk_stack(sys._getframe(1)):
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__):
            if PACKAGE in path.parents:
                return f"wsisr/{path.relative_to(PACKAGE).as_posix()}:{line}"
            if not outside and "torch" not in path.parts and path.suffix == ".py":
                outside = f"{path.name}:{line}"
    return outside or "unknown"
