"""Running one function over many slides: processes, faults as records, clean interruption.

A slide that fails is an `Outcome` with an error, never the end of the run. A worker that the
system kills (out of memory, a crash in a native decoder) takes the pool down with it: the
slides in flight are then run again one at a time, so that only the guilty one is blamed.
Other runners (`dask_runner`) need only offer the same call.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.queues import SimpleQueue
from typing import Any, Protocol

from wsisr.errors import DiskFullError, WsisrError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one task.

    Attributes
    ----------
    key : str
        The slide id.
    value : object
        What the function returned; None after an error.
    error : str
        Empty, or the sentence for the user.
    kind : str
        Class name of the error.
    trace : str
        Traceback for faults that are not the user's (empty for a `WsisrError`).
    """

    key: str
    value: Any = None
    error: str = ""
    kind: str = ""
    trace: str = ""


Task = tuple[str, tuple[Any, ...]]
"""Slide id and the arguments of the call."""


class Runner(Protocol):
    """Runs ``function(*arguments)`` for every task and yields outcomes as they come."""

    def __call__(
        self, function: Callable[..., Any], tasks: Sequence[Task]
    ) -> Iterator[Outcome]: ...


def attempt(key: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Call, and turn any fault into a record: one slide must not end a run of 400.

    A full disk is the exception: it would fail every slide that follows, so it ends the run.
    """
    try:
        return Outcome(key=key, value=function(*arguments))
    except WsisrError as error:
        if isinstance(error, DiskFullError):
            raise
        return Outcome(key=key, error=str(error), kind=type(error).__name__)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error}"
        return Outcome(key=key, error=text, kind=type(error).__name__, trace=traceback.format_exc())


def worker_died(key: str) -> Outcome:
    """Of a task that took its worker with it, alone on it."""
    return Outcome(
        key=key,
        error=(
            "the worker process died, most likely for want of memory or in a native decoder; run "
            "again with fewer --workers, and check the file"
        ),
        kind="WorkerDied",
    )


@dataclass(frozen=True, kw_only=True)
class SerialRunner:
    """In this process, in order: for tests, debuggers and other people's schedulers."""

    def __call__(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
        for key, arguments in tasks:
            yield attempt(key, function, arguments)


@dataclass(frozen=True, kw_only=True)
class ProcessRunner:
    """A pool of spawned processes (fork would share open slide handles).

    Attributes
    ----------
    workers : int
        Processes at work at the same time.
    devices : tuple of str
        One for each process, which finds its own by `own_device`; or none.
    """

    workers: int
    devices: tuple[str, ...] = ()

    def __call__(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
        suspects = yield from self._run(function, tasks, self.workers)
        for task in suspects:
            guilty = yield from self._run(function, [task], 1)
            for key, _ in guilty:
                yield worker_died(key)

    def _run(
        self,
        function: Callable[..., Any],
        tasks: Sequence[Task],
        workers: int,
    ) -> Generator[Outcome, None, list[Task]]:
        """Yields outcomes; returns the tasks that were lost with a broken pool."""
        lost: list[Task] = []
        if not tasks:
            return lost
        context = multiprocessing.get_context("spawn")
        workers = min(workers, len(tasks))
        devices = context.SimpleQueue()
        for device in self.devices[:workers]:
            devices.put(device)
        pool = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(devices if self.devices else None,),
        )
        try:
            futures: dict[Future[Outcome], Task] = {
                pool.submit(attempt, task[0], function, task[1]): task for task in tasks
            }
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda item: futures[item][0]):
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        lost.append(futures[future])
        except BaseException:
            # Interrupted, out of disk, or the caller has gone: nobody waits for the rest.
            processes = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
            raise
        pool.shutdown()
        return lost


_device = ""


def own_device(default: str) -> str:
    """The device that this process alone works on; `default` where nobody shared any out."""
    return _device or default


def _start_worker(devices: "SimpleQueue[str] | None") -> None:
    """Ctrl-C goes to every process of a terminal: the parent alone decides what it means."""
    global _device
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if devices is not None:
        _device = devices.get()
    one_thread()


def one_thread() -> None:
    """As many threads as workers are enough."""
    try:
        import cv2

        cv2.setNumThreads(1)
    except ImportError:  # pragma: no cover - OpenCV is a core dependency
        pass


def part_of(key: str, parts: int) -> int:
    """1-based part of a slide by a stable hash: the same on every machine and day."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % parts + 1
