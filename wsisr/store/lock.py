"""One build at a time, one writer a slide: the locks of a store (how they hold: `wsisr.locks`)."""

from contextlib import suppress
from pathlib import Path
from typing import Self

from wsisr.errors import StoreLockedError
from wsisr.files import disk_full_is_clear
from wsisr.locks import RecordLock, explain, left_over
from wsisr.store.layout import StorePaths

WHOLE = "build"
ORPHAN_WAIT_S = 300.0
"""How long a slide waits for a worker that outlived its killed build."""
ABANDONED_S = 600.0
"""A slide is taken over from another machine after so long a silence: whoever comes back finds
its place taken and drops the slide."""


class BuildLock:
    """Keeps a second build away from a store for the length of a ``with`` block.

    Parameters
    ----------
    path : Path
        The store (the lock lies in its staging sibling).
    share : str
        Name of a share of a build: shares run side by side, each under its own lock, but not
        beside a whole build.
    command : str
        What is shown to whoever is refused, e.g. the command line.

    Raises
    ------
    StoreLockedError
        On entering, while another build holds the store. The message says who, since when, and
        what to do.
    """

    def __init__(self, path: Path, *, share: str = "", command: str = "") -> None:
        self._store = StorePaths(Path(path))
        self._name = f"part-{share}" if share else WHOLE
        self._lock = RecordLock(self.file, command=command)

    @property
    def file(self) -> Path:
        """The lock file."""
        return self._store.locks / f"{self._name}.lock"

    def __enter__(self) -> Self:
        with disk_full_is_clear(self._store.root):
            self._take(self._lock)
            try:
                self._refuse_others()
            except BaseException:
                self._release()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._release()

    def check(self) -> None:
        """Make sure that nobody took the store over meanwhile (`RecordLock.check`)."""
        self._lock.check()

    def _take(self, lock: RecordLock, wait_s: float = 0.0) -> None:
        if not lock.acquire(wait_s, watch=True):
            assert lock.holder is not None
            raise StoreLockedError(explain(self._store.root, "build", lock.holder, lock.file))

    def _refuse_others(self) -> None:
        """A whole build excludes every share and the other way round."""
        pattern = "part-*.lock" if self._name == WHOLE else f"{WHOLE}.lock"
        for other in sorted(self._store.locks.glob(pattern)):
            lock = RecordLock(other)
            # Another share may be clearing the same dead lock away.
            self._take(lock, 0.0 if self._name == WHOLE else 1.0)
            lock.release()

    def _release(self) -> None:
        with suppress(OSError):
            for stale in left_over(self._store.locks):
                stale.unlink(missing_ok=True)
            self._lock.release()
            for folder in (self._store.locks, self._store.partial):
                folder.rmdir()


class SlideLock(RecordLock):
    """Keeps two processes from staging one slide.

    A worker can outlive its build by a while (kill -9 of the parent): it may finish the slide that
    it has in hand, and whoever wants the same slide waits for it.

    Parameters
    ----------
    file : Path
        The lock file; it exists while it is held.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file, abandoned_s=ABANDONED_S)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        held = self.held
        super().release()
        if held:
            with suppress(OSError):
                self.file.parent.rmdir()
