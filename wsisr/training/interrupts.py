"""Stopping well: a signal ends a run after its step, exhausted memory becomes a sentence."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from wsisr.training.config import TrainConfig
from wsisr.training.errors import TrainingError


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second one interrupts at once.

    Outside of the main thread signals cannot be caught, and the answer is always no.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {kind: signal.signal(kind, note) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def readable_memory_errors(config: TrainConfig) -> Iterator[None]:
    """Turn exhausted memory into the settings that lower the need for it."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        text = str(error)
        known = ("out of memory", "can't allocate memory", "not enough memory")
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            part in text for part in known
        ):
            raise
        data = config.data
        raise TrainingError(
            f"memory is exhausted with batches of {data.batch} crops of {data.crop_lr_px} LR px: "
            "lower data.batch (train.accumulate keeps the size of a step) or data.crop_lr_px, or "
            "set train.checkpointing=true, train.precision=bf16 or data.cache=stream"
        ) from error
