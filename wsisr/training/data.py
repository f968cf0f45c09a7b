"""Patches for training: a torch Dataset on the store, and three places for them to wait.

Only uint8 leaves here. Where all patches fit, they wait on the device or in memory and a batch is
one gather; otherwise threads read crops from the shards a few steps ahead (the reader and its
decoders let go of the interpreter's lock, so that threads serve and no process need be started).
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from wsisr.arrays import Int32Array, Int64Array, UInt8Array
from wsisr.device import free_bytes, on_gpu, upload
from wsisr.errors import ConfigError
from wsisr.host import available_bytes, usable_cores
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store import PairStore, open_pairs
from wsisr.training.config import DataSection
from wsisr.training.sampling import StepPlan

DEVICE_SHARE = 0.4
"""Part of a device's free memory that patches may take; the rest is the network's."""
RAM_SHARE = 0.5
AHEAD = 3
_READ_BYTES = 1 << 28


class PairDataset(Dataset[dict[str, Tensor]]):
    """The pairs of a store as a torch Dataset; safe to spawn, fork and pickle.

    Parameters
    ----------
    split : str
        ``train``, ``val`` or ``test``; only kept pairs are in it.
    arrays : sequence of str, optional
        Image arrays; all of the store by default.
    rows : ndarray, shape (m, 2), optional
        Slide index and row, in place of a split.

    Items are ``{array: uint8 tensor (3, s, s)}``.
    """

    def __init__(
        self,
        store: PairStore | Path | str,
        split: str = "train",
        arrays: Sequence[str] | None = None,
        *,
        rows: Int32Array | None = None,
    ) -> None:
        self.store = store if isinstance(store, PairStore) else open_pairs(store)
        self.rows = self.store.split(split) if rows is None else np.asarray(rows, np.int32)
        self.arrays = tuple(arrays or self.store.arrays)
        unknown = set(self.arrays) - set(self.store.arrays)
        if unknown:
            raise ConfigError(
                f"{self.store.path} has no array {', '.join(sorted(unknown))}; it has "
                f"{', '.join(self.store.arrays)}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            array: torch.from_numpy(self.read(array, np.array([index]))[0]).permute(2, 0, 1)
            for array in self.arrays
        }

    def read(
        self,
        array: str,
        index: NDArray[np.integer],
        y: Int64Array | int = 0,
        x: Int64Array | int = 0,
        size_px: int | None = None,
    ) -> UInt8Array:
        """Crops of patches, (k, size, size, 3); `index` counts the dataset's rows."""
        return self.store.read(self.rows[index], array, y=y, x=x, h=size_px, w=size_px)


@dataclass(frozen=True, kw_only=True)
class Role:
    """What an array is for and how its crops follow from a plan.

    Attributes
    ----------
    name : {"hr", "lr", "reference"}
    corner, size : int
        Corner and side of a crop are the plan's times these; 0 for `size`: the plan's `read_px`.
    """

    name: str
    array: str
    corner: int
    size: int

    def crop(self, plan: StepPlan) -> tuple[Int64Array, Int64Array, int]:
        """Corner rows and columns, and side, in px of this array."""
        return plan.y * self.corner, plan.x * self.corner, self.size or plan.read_px


class BatchSource(ABC):
    """Where batches come from."""

    description: str

    def start(  # noqa: B027 - what lies in memory need not be read ahead
        self, plans: Callable[[int], StepPlan], first: int, stop: int
    ) -> None:
        """Announce the batches to come: `plans(n)` for n from `first` below `stop`."""

    @abstractmethod
    def fetch(self, number: int, plan: StepPlan) -> dict[str, Tensor]:
        """uint8 tensors (k, size, size, 3) by role."""

    @abstractmethod
    def close(self) -> None:
        """Let go of threads and memory."""


class MemorySource(BatchSource):
    """All patches in one tensor for each role, in memory or on the device."""

    def __init__(
        self,
        data: PairDataset,
        roles: Sequence[Role],
        device: torch.device,
        report: Reporter = silent,
    ) -> None:
        self.roles = tuple(roles)
        self.device = device
        self.stacks: dict[str, Tensor] = {}
        for role in self.roles:
            self.stacks[role.name] = self._load(data, role, report)
        size = sum(stack.numel() for stack in self.stacks.values())
        place = "on the device" if device.type != "cpu" else "in memory"
        self.description = f"{len(data)} patches {place} ({size / 1e9:.2f} GB)"

    def _load(self, data: PairDataset, role: Role, report: Reporter) -> Tensor:
        first = data.read(role.array, np.zeros(1, np.int64))
        stack = torch.empty((len(data), *first.shape[1:]), dtype=torch.uint8, device=self.device)
        step = max(1, _READ_BYTES // first.nbytes)
        for start in range(0, len(data), step):
            index = np.arange(start, min(start + step, len(data)))
            stack[start : start + len(index)] = torch.from_numpy(data.read(role.array, index))
            done = start + len(index)
            report(ProgressEvent(stage="load", done=done, total=len(data), unit="pair"))
        return stack

    def fetch(self, number: int, plan: StepPlan) -> dict[str, Tensor]:
        cut = _sliced if self.device.type == "cpu" else _gathered
        return {
            role.name: cut(self.stacks[role.name], plan.index, *role.crop(plan))
            for role in self.roles
        }

    def close(self) -> None:
        self.stacks = {}


class StreamSource(BatchSource):
    """Crops read from the shards by threads, a few steps ahead."""

    def __init__(self, data: PairDataset, roles: Sequence[Role], workers: int, pin: bool) -> None:
        self.data = data
        self.roles = tuple(roles)
        self.pin = pin
        self.pool = ThreadPoolExecutor(workers, "wsisr-train") if workers else None
        self.ahead = max(AHEAD, 2 * workers)
        self.queue: deque[tuple[int, Future[dict[str, Tensor]]]] = deque()
        self.plans: Callable[[int], StepPlan] | None = None
        self.next = self.stop = 0
        threads = f"{workers} threads" if workers else "this thread"
        self.description = f"{len(data)} patches streamed from the store by {threads}"

    def start(self, plans: Callable[[int], StepPlan], first: int, stop: int) -> None:
        self._drop()
        self.plans, self.next, self.stop = plans, first, stop
        self._fill()

    def fetch(self, number: int, plan: StepPlan) -> dict[str, Tensor]:
        if self.queue and self.queue[0][0] == number:
            found = self.queue.popleft()[1].result()
            self._fill()
            return found
        return self._read(plan)

    def close(self) -> None:
        self._drop()
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _fill(self) -> None:
        while self.pool and self.plans and self.next < self.stop and len(self.queue) < self.ahead:
            job = self.pool.submit(self._read, self.plans(self.next))
            self.queue.append((self.next, job))
            self.next += 1

    def _drop(self) -> None:
        for _, job in self.queue:
            job.cancel()
        self.queue.clear()

    def _read(self, plan: StepPlan) -> dict[str, Tensor]:
        found = {}
        for role in self.roles:
            y, x, size = role.crop(plan)
            crops = torch.from_numpy(self.data.read(role.array, plan.index, y, x, size))
            found[role.name] = crops.pin_memory() if self.pin else crops
        return found


def _sliced(stack: Tensor, index: Int64Array, y: Int64Array, x: Int64Array, size: int) -> Tensor:
    """Crops (k, size, size, 3), copied row by row: on a CPU 28 times as fast as a gather."""
    out = torch.empty((len(index), size, size, 3), dtype=torch.uint8)
    places = zip(index.tolist(), y.tolist(), x.tolist(), strict=True)
    for at, (patch, top, left) in enumerate(places):
        out[at] = stack[patch, top : top + size, left : left + size]
    return out


def _gathered(stack: Tensor, index: Int64Array, y: Int64Array, x: Int64Array, size: int) -> Tensor:
    """The same as one kernel on a device."""
    patch, top, left = (upload(values, stack.device) for values in (index, y, x))
    span = torch.arange(size, device=stack.device)
    rows, columns = top[:, None] + span, left[:, None] + span
    return stack[patch[:, None, None], rows[:, :, None], columns[:, None, :]]


def open_source(
    data: PairDataset,
    roles: Sequence[Role],
    section: DataSection,
    *,
    device: torch.device,
    sharers: int = 1,
    report: Reporter = silent,
) -> BatchSource:
    """The place for a run's patches: `auto` takes the nearest in which all of them fit.

    `sharers` processes on this machine do the same, each with its own GPU or all on the CPU.
    """
    cache = section.cache
    threads = default_workers(sharers) if section.workers is None else section.workers
    sides = [_sizes(data, role.array) for role in roles]
    alike = all(len(found) == 1 for found in sides)
    needed = sum(len(data) * 3 * max(found) ** 2 for found in sides)
    if cache == "auto":
        cache = "stream"
        if alike and needed * sharers <= RAM_SHARE * available_bytes():
            cache = "ram"
        if alike and on_gpu(device) and needed <= DEVICE_SHARE * free_bytes(device):
            cache = "device"
    if cache != "stream" and not alike:
        raise ConfigError(
            f"data.cache={cache}: slides have patches of several sizes; use data.cache=stream"
        )
    if cache == "stream":
        return StreamSource(data, roles, threads, pin=on_gpu(device))
    home = device if cache == "device" else torch.device("cpu")
    return MemorySource(data, roles, home, report)


def default_workers(sharers: int = 1) -> int:
    """Threads to read ahead with: this process's share of the cores but one, from 1 to 8."""
    return max(1, min(8, usable_cores() // sharers - 1))


def _sizes(data: PairDataset, array: str) -> set[int]:
    """Sides of an array's patches, px, over the slides that are read."""
    names = data.store.attributes["slides"]
    slides = [names[slide] for slide in np.unique(data.rows[:, 0]).tolist()]
    return {data.store.reader(name, array).shape[1] for name in slides}
