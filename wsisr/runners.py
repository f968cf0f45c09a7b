"""Running one function over many slides: processes, faults as records, clean interruption.

A slide that fails is an `Outcome` with an error, never the end of the run. A worker that the
system kills (out of memory, a crash in a native decoder) takes the pool down with it: the
slides in flight are then run again one at a time, so that only the guilty one is blamed.
Other runners (`dask_runner`) need only offer the same call.
"""

import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from wsisr.errors import DiskFullError, WsisrError

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.queues import SimpleQueue


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


Item = TypeVar("Item")
Result = TypeVar("Result")
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
    """In this process, in order: for one slide, tests, debuggers and other people's schedulers.

    Attributes
    ----------
    threads : int
        What a task may use (`own_threads`).
    """

    threads: int = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __call__(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
        for key, arguments in tasks:
            yield _attempt(self.threads, key, function, arguments)


@dataclass(kw_only=True)
class ProcessRunner:
    """A pool of spawned processes (fork would share open slide handles).

    Used in a ``with`` block its processes live through all calls, because starting one costs more
    than reading a small slide; else through one call.

    Attributes
    ----------
    workers : int
        Processes at work at the same time. Where tasks are fewer, each may use several threads.
    devices : tuple of str
        One for each process, which finds its own by `own_device`; or none.
    """

    workers: int
    devices: tuple[str, ...] = ()
    _kept: ExitStack | None = field(default=None, init=False, repr=False)
    _pool: "_Pool | None" = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        self._kept = ExitStack().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        kept, self._kept, self._pool = self._kept, None, None
        if kept is not None:
            kept.__exit__(*exception)

    def __call__(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
        if not tasks:
            return
        if self._kept is None:
            with _Pool(min(self.workers, len(tasks)), self.devices) as pool:
                suspects = yield from pool.run(function, tasks, self._share(tasks))
        else:
            if self._pool is None or self._pool.broken:
                # Processes start as tasks come, so that there are never more than tasks.
                self._pool = self._kept.enter_context(_Pool(self.workers, self.devices))
            suspects = yield from self._pool.run(function, tasks, self._share(tasks))
        for task in suspects:
            with _Pool(1, self.devices[:1]) as pool:
                guilty = yield from pool.run(function, [task], 1)
            if guilty:
                yield worker_died(task[0])

    def _share(self, tasks: Sequence[Task]) -> int:
        """Threads of each task."""
        return max(1, self.workers // len(tasks))


class _Pool:
    """Some processes, from the first task until the block is left."""

    def __init__(self, workers: int, devices: Sequence[str]) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        context = multiprocessing.get_context("spawn")
        shared = context.SimpleQueue()
        for device in devices[:workers]:
            shared.put(device)
        self.broken = False
        self._processes: ProcessPoolExecutor = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(shared if devices else None,),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is None:
            self._processes.shutdown()
        else:
            self.stop()

    def stop(self) -> None:
        """Interrupted, out of disk, or the caller has gone: nobody waits for the rest."""
        self.broken = True
        processes = list((getattr(self._processes, "_processes", None) or {}).values())
        self._processes.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()

    def run(
        self, function: Callable[..., Any], tasks: Sequence[Task], threads: int
    ) -> Generator[Outcome, None, list[Task]]:
        """Yields outcomes; returns the tasks that were lost with a broken pool."""
        from concurrent.futures import FIRST_COMPLETED, wait
        from concurrent.futures.process import BrokenProcessPool

        lost: list[Task] = []
        try:
            futures: dict[Future[Outcome], Task] = {
                self._processes.submit(_attempt, threads, task[0], function, task[1]): task
                for task in tasks
            }
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda item: futures[item][0]):
                    try:
                        yield future.result()
                    except BrokenProcessPool:
                        self.broken = True
                        lost.append(futures[future])
        except BaseException:
            self.stop()
            raise
        return lost


_threads = 1


def own_threads() -> int:
    """Threads that the task in hand may use, beside other tasks at work on this machine."""
    return _threads


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in the order of the items, worked out ahead in `own_threads` threads; what `function`
    raises is raised here."""
    threads = own_threads()
    if threads == 1:
        yield from map(function, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _attempt(
    threads: int, key: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Outcome:
    global _threads
    before, _threads = _threads, threads
    try:
        return attempt(key, function, arguments)
    finally:
        _threads = before


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
    import cv2

    cv2.setNumThreads(1)


def part_of(key: str, parts: int) -> int:
    """1-based part of a slide by a stable hash: the same on every machine and day."""
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % parts + 1
