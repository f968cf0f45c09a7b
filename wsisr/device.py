"""Where networks run: the one module that knows GPUs by name.

The reading of ``--device``, what a device is, has free and took, exact float32, and what the host's
allocator should do with the memory of tensors that are gone. torch calls NVIDIA's and AMD's cards
``cuda`` and Apple's ``mps``; `on_gpu` means the first two, whose allocator, clocks and kernels this
program knows.
"""

import ctypes
import platform
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsisr import host
from wsisr.errors import ConfigError
from wsisr.host import available_bytes, forget_peak

Device: TypeAlias = "torch.device | str"
GPU = "cuda"
APPLE = "mps"
SHAPES = "meta"
"""Tensors without values, which stand for a GPU's in `wsisr.rehearsal`."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's ``mallopt``."""
_KEPT_BYTES = 1 << 30


def choose_device(name: str | None = None) -> torch.device:
    """A device that is there.

    Parameters
    ----------
    name : str, optional
        ``cpu``, ``cuda`` (the first GPU), ``cuda:1``, ``mps`` or another device of this torch; None
        and ``auto``: a GPU where there is one.

    Raises
    ------
    ConfigError
        No such device; the sentence says what there is.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device(GPU, 0)
        return torch.device(APPLE if torch.backends.mps.is_available() else "cpu")
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


def choose_devices(text: str) -> tuple[str, ...]:
    """One or several devices, e.g. ``"cuda:0,cuda:1"``; ``"all"``: every GPU.

    Raises
    ------
    ConfigError
        One of them is not there.
    """
    if text == "all":
        if not gpu_count():
            raise ConfigError("--device all: torch finds no GPU here; give auto or cpu")
        return tuple(f"{GPU}:{index}" for index in range(gpu_count()))
    return tuple(str(choose_device(name.strip())) for name in text.split(","))


def on_gpu(device: Device) -> bool:
    """Whether it is a GPU that torch calls CUDA (ROCm's are too), or stands for one."""
    kind = device.type if isinstance(device, torch.device) else torch.device(device).type
    return kind == GPU or (kind == SHAPES and _rehearsing)


_rehearsing = False


@contextmanager
def shapes_stand_for_a_gpu() -> Iterator[torch.device]:
    """Within it the meta device, whose tensors have no values, passes for a GPU."""
    global _rehearsing
    before, _rehearsing = _rehearsing, True
    try:
        yield torch.device(SHAPES)
    finally:
        _rehearsing = before


def accelerated(device: Device) -> bool:
    """Whether it is a GPU of any maker."""
    return on_gpu(device) or torch.device(device).type == APPLE


def gpu_count() -> int:
    """GPUs that torch finds here (`on_gpu`)."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def use(device: torch.device, rank: int | None = None) -> torch.device:
    """Make it this process's own; with a rank, of the GPUs here the one of that number."""
    if on_gpu(device):
        if rank is not None:
            device = choose_device(f"{GPU}:{rank}")
        torch.cuda.set_device(device)
    return device


def exchange(device: torch.device) -> dict[str, Any]:
    """By what processes on such devices talk: arguments of ``init_process_group``."""
    return {"backend": "nccl", "device_id": device} if on_gpu(device) else {"backend": "gloo"}


def found_here() -> tuple[str, str]:
    """What networks run on where nobody names a device, and what to do if a GPU lies idle.

    Returns
    -------
    (str, str)
        For a person; the second is empty where there is nothing to do.
    """
    device = choose_device()
    if on_gpu(device):
        named = []
        for gpu in (f"{GPU}:{index}" for index in range(gpu_count())):
            about, free = facts(gpu), free_bytes(gpu) / 2**30
            named.append(f"{gpu} {about['name']}, {free:.0f} of {about['memory_gib']} GiB free")
        return "; ".join(named), ""
    if accelerated(device):
        return describe(device), ""
    driver = _driver()
    if driver is None:
        return "none: networks run on the CPU, and train takes the tiny preset", ""
    return (
        f"NVIDIA's driver {driver} is here, and torch {torch.__version__} finds no GPU",
        "install a build of torch for GPUs (https://pytorch.org/get-started), or a newer driver",
    )


def describe(device: Device) -> str:
    """The device with its name, for records."""
    return f"{device}: {facts(device)['name']}"


def facts(device: Device) -> dict[str, Any]:
    """Name and memory of a device, and what drives it."""
    if torch.device(device).type != GPU:
        apple = torch.device(device).type == APPLE
        name = "Apple GPU" if apple else platform.processor() or platform.machine()
        return {"name": name}
    about = torch.cuda.get_device_properties(device)
    return {
        "name": about.name,
        "memory_gib": round(about.total_memory / 2**30, 2),
        "capability": f"{about.major}.{about.minor}",
        "processors": about.multi_processor_count,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _driver() -> str | None:
    """Version of NVIDIA's driver, by its own tool; None where that is not there."""
    ask = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.splitlines() or [""])[0].strip() or None


def has_bfloat16(device: Device) -> bool:
    """Whether a GPU computes in bfloat16 itself: emulated it is slower than float32."""
    return on_gpu(device) and torch.cuda.is_bf16_supported(including_emulation=False)


def has_float64(device: Device) -> bool:
    """Whether it computes in float64; Apple's GPUs do not."""
    return torch.device(device).type != APPLE


def upload(values: Any, device: Device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of the host's values on a device, without waiting for what that works on.

    ``torch.tensor(values, device=...)`` waits until a GPU has done all that it was given.
    """
    tensor = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type == GPU:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def autocast(device: Device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """Products and convolutions in a type; None and float32: none of that, where it was on too."""
    kind = torch.device(device).type
    if kind == SHAPES:
        # They know no autocast: everything is float32.
        return nullcontext()
    on = dtype is not None and dtype != torch.float32
    return torch.autocast(kind, dtype if on else None, enabled=on)


def full_precision(x: torch.Tensor) -> AbstractContextManager[Any]:
    """Where autocast must not reach: off on the device of `x`."""
    return autocast(x.device, None)


def wide(x: Tensor) -> Tensor:
    """The tensor in float32 at least; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def fast_kernels(device: Device) -> None:
    """For training: the fastest convolutions, found by trying, and products in TF32."""
    if on_gpu(device):
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


def free_bytes(device: Device) -> int:
    """Memory that a run may still take there."""
    if not on_gpu(device):
        return available_bytes()
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def synchronise(device: Device) -> None:
    """Wait for what a GPU still works on."""
    kind = torch.device(device).type
    if kind == GPU:
        torch.cuda.synchronize(device)
    elif kind == APPLE:
        torch.mps.synchronize()


def most_bytes(device: Device) -> int:
    """The most memory that tensors took since `forget_most`; on a CPU, that the process took."""
    kind = torch.device(device).type
    if kind == GPU:
        return int(torch.cuda.max_memory_allocated(device))
    if kind == APPLE:
        return int(torch.mps.driver_allocated_memory())
    return host.peak_bytes()


def forget_most(device: Device) -> None:
    """Start `most_bytes` anew; where the system cannot, it counts from the process's start."""
    if torch.device(device).type == GPU:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        forget_peak()


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors made within it that are alive: `now`, and the most at a time, `peak`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf.untyped_storage())
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        """Count a storage, if it is a new one, until it is gone."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def peak_bytes(device: Device, run: Callable[[], object]) -> int:
    """The most memory that tensors take during a run, beyond what they took before.

    As the allocator counts on a GPU; elsewhere as operations make tensors, without workspaces.
    """
    if torch.device(device).type != GPU:
        with LiveBytes() as live:
            run()
        return live.peak
    synchronise(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    synchronise(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


@contextmanager
def limited_memory(device: Device, more: int) -> Iterator[None]:
    """Within it the process may take only so many bytes more; what asks for more fails as usual.

    On a CPU, which would swap, any single tensor beyond that is refused in its stead.
    """
    if on_gpu(device):
        total = torch.cuda.get_device_properties(device).total_memory
        allowed = torch.cuda.memory_reserved(device) + more
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    with _Refusing(more):
        yield


class _Refusing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses results beyond a size as the host's allocator does."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.untyped_storage().nbytes() > self.most:
            raise RuntimeError(f"can't allocate memory: a planted limit of {self.most} bytes")
        return out


def busy_share(device: Device, run: Callable[[], object]) -> float:
    """Part of a run's wall time in which the device computed.

    Of a GPU the time in which at least one kernel ran (torch's profiler; nvidia-smi's utilisation
    is full for the smallest kernel); of a CPU the process's time over that of its threads.
    """
    if not on_gpu(device):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        wall = time.perf_counter() - wall
        return (time.process_time() - cpu) / max(wall * torch.get_num_threads(), 1e-9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        synchronise(device)
        wall = time.perf_counter()
        run()
        synchronise(device)
        wall = time.perf_counter() - wall
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or ()
        if event.device_type.name == GPU.upper()
    )
    busy_us, end = 0.0, 0.0
    for start, stop in spans:
        busy_us += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return float(busy_us / 1e6 / max(wall, 1e-9))


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
