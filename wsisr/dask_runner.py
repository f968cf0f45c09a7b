"""A `Runner` on a Dask cluster that exists already, or on one of this machine (extra ``dask``).

Truth is what lies on disk, never a future: a slide whose worker died is simply run again. Dask
suspects every task that was on a worker when it died, and gives up on those that met several
deaths; these are run once more, one at a time, so that only the guilty one is blamed. The cluster
is the user's: it is never stopped, and its workers finish the slide in hand after Ctrl-C.
"""

import importlib
import logging
import socket
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import wsisr
from wsisr.errors import BuildError
from wsisr.runners import Outcome, Task, attempt, one_thread, worker_died

log = logging.getLogger(__name__)

RESOURCE = "slides"
"""Workers that offer it (``--resources slides=1``) hold one slide at a time, queued ones too."""
LOCAL = "local"


class DaskRunner:
    """Runs tasks on the workers of a scheduler.

    Parameters
    ----------
    address : str
        ``"tcp://host:port"``, ``"tls://host:port"``, or ``"local"`` and ``"local:N"`` for N
        processes of this machine.
    places : sequence of Path
        Absolute; every worker must see them.

    Raises
    ------
    BuildError
        If the extra is not installed, or no scheduler answers. While running: if a worker has
        another version of wsisr or does not see one of the places.
    """

    def __init__(self, address: str, places: Sequence[Path] = ()) -> None:
        self.address = address
        self.places = tuple(places)
        self._dask: Any = None
        self._cluster: Any = None
        self._client: Any = None

    def __enter__(self) -> Self:
        try:
            self._dask = importlib.import_module("distributed")
        except ImportError as error:
            raise BuildError("--dask needs Dask: pip install 'wsisr[dask]'.") from error
        if not log.isEnabledFor(logging.INFO):
            logging.getLogger("distributed").setLevel(logging.WARNING)
        try:
            if self.address.partition(":")[0] == LOCAL:
                target = self._cluster = self._local()
            else:
                target = self.address
            self._client = self._dask.Client(target, timeout="30s", set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            self.close()
            raise BuildError(
                f"--dask {self.address}: no Dask scheduler answers there ({error}); start one "
                "(dask scheduler, or a cluster of dask-jobqueue), or use local:N."
            ) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one of our own is stopped."""
        for part in (self._client, self._cluster):
            if part is not None:
                with suppress(OSError, TimeoutError):
                    part.close()
        self._client = self._cluster = None

    def _local(self) -> Any:
        _, _, count = self.address.partition(":")
        if count and not (count.isdigit() and int(count)):
            raise BuildError(f"--dask {self.address}: write local or local:N with N from 1 on.")
        # Whoever reaches a plain port of a scheduler can run code: certificates, and loopback.
        return self._dask.LocalCluster(
            n_workers=int(count) if count else None,
            threads_per_worker=1,
            resources={RESOURCE: 1},
            host="127.0.0.1",
            dashboard_address=None,
            security=True,
        )

    def about(self) -> str:
        """What the cluster is, for the first lines of a build."""
        workers = self._workers()
        lines = [f"Dask scheduler {self._client.scheduler.address}: {len(workers)} worker(s)."]
        if not workers:
            lines.append("Slides wait until some come.")
        elif not self._one_slide_each(workers):
            lines.append(
                f"Start workers with --nthreads 1 --resources {RESOURCE}=1, so that one that dies "
                "takes one slide with it."
            )
        if self.address.startswith("tcp://"):
            lines.append(
                "Warning: over plain tcp:// whoever reaches the scheduler can run code as you; "
                "use tls:// where others share the network."
            )
        return " ".join(lines)

    def _workers(self) -> dict[str, Any]:
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    @staticmethod
    def _one_slide_each(workers: dict[str, Any]) -> bool:
        return bool(workers) and all(RESOURCE in w.get("resources", {}) for w in workers.values())

    def __call__(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
        suspects = yield from self._run(function, tasks)
        for task in suspects:
            if (yield from self._run(function, [task])):
                yield worker_died(task[0])

    def _run(
        self, function: Callable[..., Any], tasks: Sequence[Task]
    ) -> Generator[Outcome, None, list[Task]]:
        """Yields outcomes as they come; returns the tasks that were lost with their workers."""
        lost: list[Task] = []
        run = uuid.uuid4().hex[:8]
        resources = {RESOURCE: 1} if self._one_slide_each(self._workers()) else None
        futures = {
            self._client.submit(
                _on_worker,
                wsisr.__version__,
                self.places,
                key,
                function,
                arguments,
                key=f"{function.__name__}-{key}-{run}",
                pure=False,
                resources=resources,
            ): (key, arguments)
            for key, arguments in tasks
        }
        try:
            for future in self._dask.as_completed(list(futures), loop=self._client.loop):
                task = futures.pop(future)
                try:
                    outcome = future.result()
                except (self._dask.KilledWorker, self._dask.CancelledError) as error:
                    log.info("%s was lost with its worker: %s", task[0], error)
                    lost.append(task)
                    continue
                finally:
                    # Held any longer, it would be computed anew when its worker dies.
                    future.release()
                yield outcome
        finally:
            with suppress(OSError, TimeoutError):
                self._client.cancel(list(futures))
        return lost


def _on_worker(
    version: str,
    places: Sequence[Path],
    key: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Outcome:
    """One task on a worker that fits; a fault of the worker itself ends the run."""
    host = socket.gethostname()
    if wsisr.__version__ != version:
        raise BuildError(
            f"The Dask worker on {host} has wsisr {wsisr.__version__} and this is {version}: "
            "install the same on both."
        )
    for place in places:
        if not place.exists():
            raise BuildError(
                f"The Dask worker on {host} does not see {place}: mount it there under the same "
                "path."
            )
    one_thread()
    return attempt(key, function, arguments)
