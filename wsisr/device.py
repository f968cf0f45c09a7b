"""Where networks run: the one module that knows GPUs by name.

The reading of ``--device``, what a device is and has free, exact float32, and what the host's
allocator should do with the memory of tensors that are gone.
"""

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch

from wsisr.errors import ConfigError
from wsisr.host import available_bytes

Device: TypeAlias = "torch.device | str"
GPU = "cuda"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``."""
_KEPT_BYTES = 1 << 30


def choose_device(name: str | None = None) -> torch.device:
    """A device that is there.

    Parameters
    ----------
    name : str, optional
        ``cpu``, ``cuda`` (the first GPU), ``cuda:1`` or another device of this torch; None and
        ``auto``: a GPU where there is one.

    Raises
    ------
    ConfigError
        No such device; the sentence says what there is.
    """
    if name is None or name == "auto":
        return torch.device(GPU, 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"--device {name}: no such device; give auto, cpu, cuda or cuda:1"
        ) from None
    if on_gpu(device):
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not found:
            raise ConfigError(f"--device {name}: torch finds no GPU here; give auto or cpu")
        index = device.index or 0
        if index >= found:
            raise ConfigError(
                f"--device {name}: there is no such GPU; there are {found} here, from cuda:0"
            )
        return torch.device(GPU, index)
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError):
        raise ConfigError(
            f"--device {name}: this torch cannot use it here; give auto, cpu or cuda"
        ) from None
    return device


def on_gpu(device: Device) -> bool:
    """Whether it is a GPU that torch calls CUDA (ROCm's are too)."""
    return torch.device(device).type == GPU


def describe(device: Device) -> str:
    """The device with its name, for records."""
    name = torch.cuda.get_device_name(device) if on_gpu(device) else None
    return f"{device}: {name or platform.processor() or platform.machine()}"


def free_bytes(device: Device) -> int:
    """Memory that a run may still take there."""
    if not on_gpu(device):
        return available_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def synchronise(device: Device) -> None:
    """Wait for what a GPU still works on."""
    if on_gpu(device):
        torch.cuda.synchronize(device)


def peak_bytes(device: Device, run: Callable[[], object]) -> int | None:
    """The most memory that tensors take during a run, beyond what they took before.

    None on a CPU, whose allocator does not count.
    """
    if not on_gpu(device):
        run()
        return None
    synchronise(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    synchronise(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def release_memory(error: BaseException | None = None) -> None:
    """Let go of what a failed run holds."""
    if error is not None:
        # The traceback keeps the run's tensors alive.
        error.__traceback__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def exact_float32(device: Device) -> Iterator[None]:
    """Float32 means float32: on a GPU, convolutions take TF32 by default, a thousandth off."""
    if not on_gpu(device):
        yield
        return
    convolution: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    backends = (convolution, torch.backends.cuda.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def keep_freed_memory() -> None:
    """Have the host's allocator keep the memory of tensors that are gone, for the next ones.

    glibc maps every block above 32 MiB anew and gives it back at once, so that each layer's output
    costs a page fault for every 4 KiB: up to a third of the time on a CPU. Up to 1 GiB is kept.
    Nothing is done where the C library is another one, or on a second call.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
