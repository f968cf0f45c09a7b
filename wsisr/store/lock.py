"""One build at a time: a lock file with host, process and start time.

On one host the kernel decides (an advisory lock on the file, which dies with its process, even
by kill -9). Across hosts, where advisory locks are not reliable, the file's text decides, and
nothing is taken over without a person.
"""

import json
import logging
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from wsisr.errors import StoreLockedError
from wsisr.store.files import disk_full_is_clear
from wsisr.store.layout import StorePaths

try:
    import fcntl
except ImportError:  # pragma: no cover - not on POSIX
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

WHOLE = "build"
ORPHAN_WAIT_S = 300.0
"""How long a slide waits for a worker that outlived its killed build."""


class BuildLock:
    """Keeps a second build away from a store for the length of a ``with`` block.

    Parameters
    ----------
    path : Path
        The store (the lock lies in its staging sibling).
    part : (int, int) or None
        ``(2, 3)`` for part 2 of 3: parts of one build run side by side, each under its own lock,
        but not beside a whole build.
    command : str
        What is shown to whoever is refused, e.g. the command line.

    Raises
    ------
    StoreLockedError
        On entering, while another build holds the store. The message says who, since when, and
        what to do.
    """

    def __init__(
        self, path: Path, *, part: tuple[int, int] | None = None, command: str = ""
    ) -> None:
        self._store = StorePaths(Path(path))
        self._name = WHOLE if part is None else f"part-{part[0]}-of-{part[1]}"
        self._command = command
        self._fd: int | None = None

    @property
    def file(self) -> Path:
        """The lock file."""
        return self._store.locks / f"{self._name}.lock"

    def __enter__(self) -> Self:
        with disk_full_is_clear(self._store.root):
            self._acquire()
        try:
            self._refuse_others()
        except StoreLockedError:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()

    def _acquire(self) -> None:
        while True:
            # O_CLOEXEC is Python's default: spawned workers do not inherit the lock.
            self._store.locks.mkdir(parents=True, exist_ok=True)
            try:
                fd = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # Another build has just ended and removed the empty folder.
            try:
                if not _kernel_lock(fd):
                    raise StoreLockedError(_explain(self._store.root, self.file, _read(fd)))
                if not _same_file(fd, self.file):
                    os.close(fd)
                    continue
                self._take_over(_read(fd))
                _write(fd, self._record())
            except BaseException:
                os.close(fd)
                raise
            self._fd = fd
            return

    def _take_over(self, record: dict[str, Any]) -> None:
        """Refuse a record that may be alive; log one that is dead."""
        if not record:
            return
        if not _is_dead(record):
            raise StoreLockedError(_explain(self._store.root, self.file, record))
        log.warning(
            "%s: taking over the lock of a build that died (process %s, started %s).",
            self._store.root,
            record.get("pid"),
            record.get("started"),
        )

    def _refuse_others(self) -> None:
        """A whole build excludes every part and the other way round."""
        pattern = "part-*.lock" if self._name == WHOLE else f"{WHOLE}.lock"
        for other in sorted(self._store.locks.glob(pattern)):
            try:
                fd = os.open(other, os.O_RDWR)
            except FileNotFoundError:
                continue
            try:
                record = _read(fd)
                if not _kernel_lock(fd) or (record and not _is_dead(record)):
                    raise StoreLockedError(_explain(self._store.root, other, record))
                if _same_file(fd, other):
                    other.unlink(missing_ok=True)
            finally:
                os.close(fd)

    def _release(self) -> None:
        if self._fd is None:
            return
        # Unlinked while it is still held: whoever waits notices that its file is gone.
        self.file.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None
        for folder in (self._store.locks, self._store.partial):
            with suppress(OSError):
                folder.rmdir()

    def _record(self) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self._command,
        }


class SlideLock:
    """Keeps two processes from staging one slide.

    A worker can outlive its build by a while (kill -9 of the parent): it may finish the slide that
    it has in hand, and whoever wants the same slide waits for it.

    Parameters
    ----------
    file : Path
        The lock file; it exists while it is held.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._fd: int | None = None

    def acquire(self, wait_s: float = 0.0) -> bool:
        """Take the lock, waiting for it for at most `wait_s` seconds; False if it is held."""
        deadline = time.monotonic() + wait_s
        said = False
        while True:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                fd = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
                if _kernel_lock(fd):
                    if _same_file(fd, self.file):
                        self._fd = fd
                        return True
                    os.close(fd)
                    continue
                os.close(fd)
            if time.monotonic() >= deadline:
                return False
            if not said:
                log.warning("%s: waiting for a worker of an earlier run.", self.file)
                said = True
            time.sleep(0.1)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        if self._fd is None:
            return
        self.file.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None
        with suppress(OSError):
            self.file.parent.rmdir()

    def __del__(self) -> None:
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)


def _kernel_lock(fd: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # No advisory locks on this file system: the record alone decides.
        return True
    return True


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _read(fd: int) -> dict[str, Any]:
    data = os.pread(fd, 1 << 16, 0)
    if not data:
        return {}
    try:
        record = json.loads(data)
    except ValueError:
        # A kill in the middle of the one small write; the kernel's answer stands.
        return {}
    return record if isinstance(record, dict) else {}


def _write(fd: int, record: dict[str, Any]) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(record, indent=2).encode() + b"\n", 0)
    os.fsync(fd)


def _process_start(pid: int) -> str:
    """When a process started, in kernel ticks, where /proc tells; tells reused ids apart."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _is_dead(record: dict[str, Any]) -> bool:
    pid = record.get("pid")
    if record.get("host") != socket.gethostname() or not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    started = _process_start(pid)
    return bool(started) and started != str(record.get("process_start"))


def _explain(store: Path, file: Path, record: dict[str, Any]) -> str:
    if not record:
        return f"{store}: another build is starting on it ({file}). Wait for it to end."
    host, pid = record.get("host"), record.get("pid")
    who = f"process {pid} on {host}, started {record.get('started')}"
    if record.get("command"):
        who += f": {record['command']}"
    if host == socket.gethostname():
        return f"{store}: another build is writing it ({who}). Wait for it, or stop that process."
    return (
        f"{store}: a build on another machine holds it ({who}). Whether that one still runs "
        f"cannot be seen from {socket.gethostname()}. If it does not, remove the lock: rm '{file}'"
    )
