"""Stopping well: a signal ends a run after its step, a fault becomes a sentence with its remedy."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from safetensors import SafetensorError

from wsisr.errors import DiskFullError, StoreError, WsisrError
from wsisr.host import is_out_of_memory
from wsisr.training.config import TrainConfig

STOPS = ("SIGINT", "SIGTERM", "SIGUSR1")
_DETERMINISM = ("does not have a deterministic implementation", "CUBLAS_WORKSPACE_CONFIG")


class TrainingError(WsisrError, RuntimeError):
    """A run cannot start, go on or be resumed."""


@contextmanager
def stop_flag() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT, SIGTERM or SIGUSR1 has come; a second one interrupts at once.

    Schedulers send the last two before they take a machine back.

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
    kinds = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    before = {kind: signal.signal(kind, note) for kind in kinds}
    try:
        yield lambda: bool(came)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextmanager
def readable_faults(config: TrainConfig, folder: Path | None = None) -> Iterator[None]:
    """Turn faults that a user can mend into sentences; all others pass.

    Exhausted memory names the settings that lower the need for it, a refused kernel the setting
    that refused it, a disk that fails what is safe (`folder`: of the run; None: nothing is
    written, and such faults pass too).
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # A broken store says itself what to do; a full disk here is the run's, not a build's.
        said = isinstance(error, StoreError) and not isinstance(error, DiskFullError)
        if folder is None or said:
            raise
        cause = error.__cause__ or error if isinstance(error, DiskFullError) else error
        reason = getattr(cause, "strerror", None) or str(cause)
        raise TrainingError(
            f"{folder}: a file could not be written or read ({reason.rstrip('.')}); what was saved "
            "before is whole: mend the cause (a full disk: make room, or lower train.keep_last) "
            "and go on with --resume"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            data = config.data
            raise TrainingError(
                f"memory is exhausted with batches of {data.batch} crops of {data.crop_lr_px} LR "
                "px: lower data.batch (train.accumulate keeps the size of a step), "
                "data.crop_lr_px or val.crop_lr_px, or set train.checkpointing=true, "
                "train.precision=bf16 or data.cache=stream"
            ) from error
        text = str(error)
        if config.train.deterministic and any(part in text for part in _DETERMINISM):
            raise TrainingError(
                f"train.deterministic=true refuses a kernel of {config.model.name}: "
                f"{text.partition('. ')[0]}; set it to false, or train on --device cpu"
            ) from error
        raise
