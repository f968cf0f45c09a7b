"""Several processes as one: torchrun's environment in, averaged gradients and gathered rows out.

Gradients are averaged after the backward passes, in a few flat pieces, instead of through a
wrapper around the model: recipes with several backward passes, two networks or two optimisers
then need nothing special, and for networks of less than 50 million parameters the exchange is a
few milliseconds.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsisr.device import accelerated, choose_device, exchange, gpu_count, on_gpu, use
from wsisr.errors import ConfigError

_PIECE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Place of this process among those of a run.

    Attributes
    ----------
    rank, count : int
        Over all machines.
    local_count : int
        Processes of the run on this machine.
    """

    rank: int = 0
    count: int = 1
    local_count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Mean of every gradient over all processes, in place."""
        if self.count == 1:
            return
        piece: list[Tensor] = []
        size = 0
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            piece.append(parameter.grad)
            size += parameter.grad.numel()
            if size >= _PIECE:
                self._average(piece)
                piece, size = [], 0
        if piece:
            self._average(piece)

    def _average(self, gradients: Sequence[Tensor]) -> None:
        flat = torch.cat([gradient.reshape(-1).float() for gradient in gradients])
        dist.all_reduce(flat)
        flat.div_(self.count)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over all processes."""
        if self.count == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value / self.count

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        value = torch.tensor(float(flag), device=device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def gather(self, rows: list[Any]) -> list[Any]:
        """The rows of all processes, in the order of ranks."""
        if self.count == 1:
            return rows
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, rows)
        return [row for part in found for row in part]

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


def join(device: str | None) -> tuple[Processes, torch.device]:
    """Join the processes that torchrun started, if any, and choose the device.

    Parameters
    ----------
    device : str or None
        ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None: a GPU where there is one.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _place(device, local if count > 1 else None)
    if count == 1:
        return Processes(), chosen
    if not dist.is_initialized():
        # Its functions have the group of the moment of import as a default. An optimiser imports
        # it: after the group was made, it would keep it beyond `leave`, and threads that live on
        # while Python ends abort the process now and then.
        import torch.distributed.nn  # noqa: F401

        dist.init_process_group(**exchange(chosen))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Processes(rank=dist.get_rank(), count=dist.get_world_size(), local_count=beside), chosen


def idle_gpus(processes: Processes, device: torch.device) -> tuple[str, ...]:
    """How to use the other GPUs of this machine, where one process has one of several."""
    found = gpu_count()
    if not on_gpu(device) or processes.count > 1 or found < 2:
        return ()
    return (
        f"{found - 1} of {found} GPUs are idle: torchrun --nproc-per-node {found} -m wsisr_cli "
        "train ... uses all of them.",
    )


def leave() -> None:
    """End the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _place(name: str | None, local_rank: int | None) -> torch.device:
    """The device of this process: of several, each has the GPU of its local rank."""
    device = choose_device(name)
    if not accelerated(device) and device.type != "cpu":
        raise ConfigError(f"--device {name}: training runs on cpu, cuda and mps")
    if local_rank is not None and accelerated(device) and not on_gpu(device):
        raise ConfigError(f"--device {name}: one process alone can train on it; leave torchrun out")
    return use(device, local_rank)
