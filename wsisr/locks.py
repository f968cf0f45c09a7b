"""One holder of a place at a time, also where the file system has no locks.

A lock is a small record, made exclusively (``O_EXCL``, atomic on local disks, NFS and Lustre):
who holds it, on which machine, and a beat that the holder moves. The kernel's advisory lock is
laid on it as well. On one machine that lock dies with its process, even by kill -9; but across
machines it proves nothing (Lustre and NFS may refuse it, or grant it to everybody), so that it can
refuse a second holder and never admit one. Whether a holder lives is decided

- on the same machine by its process (id and start time, within one boot and one process space);
- elsewhere by watching its beat on the watcher's own clock, never by comparing clocks. A beat that
  stays still belongs to the dead; how long, and whether that is enough, the lock says.

A dead holder's record is taken over in place where the kernel's lock keeps others away meanwhile,
else by a rename, which only one can win. Whoever was taken for dead and is not finds another token
in the record (`RecordLock.check`) and must not put its work into place.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from wsisr.errors import LockedError
from wsisr.host import BINARY, kernel_lock, process_lives, read_at, write_at

log = logging.getLogger(__name__)

IN_FOLDER = ".lock"
"""The lock of a folder that belongs to one run, in the folder."""
BEAT_S = 30.0
"""How often a holder moves its beat."""
STILL_S = 180.0
"""A beat that is still for so long has stopped: six were missed."""
TAKE_OVER = "WSISR_TAKE_OVER"
"""Environment variable: whoever sets it says that the other machine may be dead."""
_NEWBORN_S = 1.0
"""A record is empty between being made and being written, which takes no longer than this."""
_POLL_S = 0.1
_STALE = ".stale-"

Life = Literal["alive", "dead", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock, as its record says; empty where it is just being made."""

    record: dict[str, Any]

    @property
    def here(self) -> bool:
        """Whether it calls its machine as this one is called."""
        return bool(self.record.get("host") == socket.gethostname())

    def life(self) -> Life:
        """Whether its process lives, if that can be seen from here."""
        record, pid = self.record, self.record.get("pid")
        if not self.here or not isinstance(pid, int) or pid < 1:
            return "unknown"
        for key, mine in (("boot", _boot()), ("pid_space", _pid_space())):
            # Restarted since, another machine of that name, or another container.
            if record.get(key, mine) != mine:
                return "unknown"
        lives = process_lives(pid)
        if not lives:
            return "unknown" if lives is None else "dead"
        started = _process_start(pid)
        return "dead" if started and started != str(record.get("process_start")) else "alive"

    def __str__(self) -> str:
        who = f"process {self.record.get('pid')} on {self.record.get('host')}, started "
        who += str(self.record.get("started"))
        return who + (f": {self.record['command']}" if self.record.get("command") else "")


class RecordLock:
    """A lock that is a file with a record.

    Parameters
    ----------
    file : Path
        Exists while the lock is held; its folder is made.
    command : str
        What is shown to whoever is refused.
    abandoned_s : float or None
        After how long a still beat of another machine is taken over without a person; None: never,
        unless the environment variable ``WSISR_TAKE_OVER`` is set.
    """

    def __init__(self, file: Path, *, command: str = "", abandoned_s: float | None = None) -> None:
        self.file = file
        self.holder: Holder | None = None
        """Who was in the way when `acquire` said no."""
        self._command = command
        self._abandoned_s = abandoned_s
        self._fd: int | None = None
        self._mine: dict[str, Any] = {}
        self._stop = threading.Event()
        self._guard = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether this one has it, as far as it knows (`check` asks)."""
        return self._fd is not None

    @property
    def token(self) -> str:
        """Names one holding: no two are the same."""
        return str(self._mine["token"])

    def acquire(self, wait_s: float = 0.0, *, watch: bool = False) -> bool:
        """Take the lock.

        Parameters
        ----------
        wait_s : float
            How long to wait for a holder that lives.
        watch : bool
            Also wait as long as it takes to find out about a holder that cannot be asked.

        Returns
        -------
        bool
            False if another one has it: `holder`.
        """
        began, seen = time.monotonic(), _Watch()
        said = False
        while True:
            found = None if self._create() else self._inspect(seen)
            if self._fd is not None:
                return True
            if found is None:
                continue
            doubt = self._patience(found) is not None and found.life() == "unknown"
            waiting = doubt and not seen.moved and (watch or not found.record)
            if not waiting and time.monotonic() - began >= wait_s:
                self.holder = found
                return False
            if found.record and not said:
                log.warning("%s: waiting for %s; Ctrl-C ends the waiting.", self.file, found)
                said = True
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Make sure that nobody has taken the lock over (else LockedError); call it before work is
        put into place."""
        if self._fd is None or not self._is_mine():
            raise LockedError(
                f"{self.file}: this process was silent for so long that another one took its "
                "place; what it had in hand is dropped."
            )

    def beat(self, number: int) -> None:
        """Show that the holder lives; where it was taken for dead, be still."""
        # A disk that fails here fails the work as well, which says so.
        with self._guard, suppress(OSError):
            if self._fd is not None and self._is_mine():
                write_at(self._fd, _encode(self._mine | {"beat": f"{number:012d}"}), 0)
                os.fsync(self._fd)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        self._stop.set()
        with self._guard:
            if self._fd is None:
                return
            try:
                # Unlinked while it is still held: whoever waits notices that its file is gone.
                if self._is_mine():
                    self.file.unlink(missing_ok=True)
            finally:
                os.close(self._fd)
                self._fd = None

    def __del__(self) -> None:
        with suppress(Exception):
            self.release()

    def _create(self) -> bool:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            # O_CLOEXEC is Python's default: spawned workers do not inherit the lock.
            fd = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
        except (FileExistsError, FileNotFoundError):
            return False
        return self._settle(fd)

    def _settle(self, fd: int) -> bool:
        """Write one's own record, unless somebody comes between; closes `fd` if so."""
        self._mine = self._record()
        try:
            if kernel_lock(fd) is not False:
                data = _encode(self._mine)
                write_at(fd, data, 0)
                os.ftruncate(fd, len(data))
                os.fsync(fd)
                if _same_file(fd, self.file):
                    self._fd, self.holder, self._stop = fd, None, threading.Event()
                    run = (weakref.ref(self), self._stop)
                    threading.Thread(target=_beat, args=run, daemon=True).start()
        finally:
            if self._fd is None:
                os.close(fd)
        return self._fd is not None

    def _inspect(self, seen: "_Watch") -> Holder | None:
        """Who is in the way; None where nobody is any more: it is taken over, or worth a try."""
        try:
            fd = os.open(self.file, os.O_RDWR | BINARY)
        except FileNotFoundError:
            return None
        try:
            locked = kernel_lock(fd)
            holder = Holder(record=_read(fd))
            seen.see(holder.record)
            if locked is False or not self._is_dead(holder, locked, seen):
                return holder
            if not _same_file(fd, self.file):
                return None
            if holder.record:
                log.warning(
                    "%s: its holder is dead (%s) and this process takes its place; nothing is to "
                    "be done.", self.file, holder,
                )  # fmt: skip
            if locked and holder.life() != "unknown":
                # Everybody else who may take it over is on this machine and kept away.
                mine, fd = fd, -1
                self._settle(mine)
            else:
                self._rename_away(holder)
            return None
        finally:
            if fd >= 0:
                os.close(fd)

    def _is_dead(self, holder: Holder, locked: bool | None, seen: "_Watch") -> bool:
        if not holder.record and locked:
            return True
        if holder.life() != "unknown":
            return holder.life() == "dead"
        patience = self._patience(holder)
        return patience is not None and seen.still_s >= patience

    def _patience(self, holder: Holder) -> float | None:
        if not holder.record:
            return _NEWBORN_S
        if holder.here or os.environ.get(TAKE_OVER):
            return STILL_S
        return self._abandoned_s

    def _rename_away(self, holder: Holder) -> None:
        aside = self.file.with_name(f"{self.file.name}{_STALE}{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.rename(self.file, aside)
            if _read_file(aside).get("token") != holder.record.get("token"):
                # Somebody was faster, and this is the new holder's.
                with suppress(OSError):
                    os.link(aside, self.file)
            aside.unlink()

    def _is_mine(self) -> bool:
        with suppress(OSError):
            return _read_file(self.file).get("token") == self._mine["token"]
        return False

    def _record(self) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid_space": _pid_space(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self._command,
            "token": uuid.uuid4().hex,
            # Of the same length always: a beat is one small write in place.
            "beat": "0" * 12,
        }


class _Watch:
    """A record as it is seen again and again: since when it is still, and whether it ever moved."""

    def __init__(self) -> None:
        self._record: dict[str, Any] | None = None
        self._since = 0.0
        self.moved = False

    def see(self, record: dict[str, Any]) -> None:
        if record != self._record:
            self.moved = bool(self._record)
            self._record, self._since = record, time.monotonic()

    @property
    def still_s(self) -> float:
        return time.monotonic() - self._since


@contextmanager
def held(file: Path, place: Path, doing: str, command: str = "") -> Iterator[RecordLock]:
    """Keep a second run away from a place for the length of a ``with`` block.

    Parameters
    ----------
    file : Path
        The lock.
    place : Path
        What is kept, for messages.
    doing : str
        What writes there, e.g. ``"training"``.
    command : str
        The command line.

    Raises
    ------
    LockedError
        Another one has it.
    """
    lock = RecordLock(file, command=command)
    if not lock.acquire(watch=True):
        assert lock.holder is not None
        raise LockedError(explain(place, doing, lock.holder, file))
    try:
        yield lock
    finally:
        lock.release()


def refuse_held(folder: Path, doing: str) -> None:
    """Refuse a run's folder that a process of this machine certainly holds.

    Nothing is written and nobody is waited for: this is for commands that load for a while before
    they take the lock, which decides.

    Raises
    ------
    LockedError
    """
    try:
        holder = Holder(record=_read_file(folder / IN_FOLDER))
    except OSError:
        return
    if holder.life() == "alive":
        raise LockedError(explain(folder, doing, holder, folder / IN_FOLDER))


def explain(place: Path, doing: str, holder: Holder, file: Path) -> str:
    """The sentence for whoever is refused."""
    if not holder.record:
        return f"{place}: another {doing} is starting on it ({file}). Wait for it to end."
    if holder.here:
        return (
            f"{place}: another {doing} is writing into it ({holder}). Wait for it, or stop that "
            "process."
        )
    return (
        f"{place}: a {doing} on another machine is writing into it ({holder}). Whether that one "
        f"still runs cannot be seen from {socket.gethostname()}. If it does not, remove the lock "
        f"(rm '{file}'), or set {TAKE_OVER}=1: the lock is then watched for "
        f"{STILL_S / 60:.0f} minutes and taken over if nothing moves."
    )


def left_over(folder: Path) -> Iterator[Path]:
    """Records that a kill in the middle of a take-over left beside their locks."""
    if folder.is_dir():
        yield from folder.glob(f"*{_STALE}*")


def _beat(reference: "weakref.ref[RecordLock]", stop: threading.Event) -> None:
    beat = 0
    while not stop.wait(BEAT_S):
        lock = reference()
        if lock is None:
            return
        beat += 1
        lock.beat(beat)
        del lock


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _read(fd: int) -> dict[str, Any]:
    try:
        record = json.loads(read_at(fd, 1 << 16, 0))
    except ValueError:
        # Empty, or cut short by a kill in the middle of the one small write.
        return {}
    return record if isinstance(record, dict) else {}


def _read_file(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return _read(file.fileno())


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, indent=1).encode() + b"\n"


def _process_start(pid: int) -> str:
    """When a process started, in kernel ticks, where /proc tells; tells reused ids apart."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


@cache
def _boot() -> str:
    """Which run of which machine this is, where the system tells."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _pid_space() -> str:
    """Where process ids mean the same: containers of one machine have their own."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""
