"""One holder at a time: with the kernel's lock, without one, and with one that lies."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsisr import locks
from wsisr.errors import LockedError
from wsisr.locks import IN_FOLDER, TAKE_OVER, RecordLock, held, refuse_held

KERNELS = ["real", "missing", "lying"]


def break_kernel(kind: str) -> None:
    def missing(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    if kind != "real":
        fcntl.flock = missing if kind == "missing" else lambda fd, operation: None


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)
    break_kernel(request.param)
    return str(request.param)


HOLD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from test_locks import break_kernel
    from wsisr.locks import RecordLock
    break_kernel(sys.argv[2])
    lock = RecordLock(Path(sys.argv[1]), command="wsisr train")
    print(lock.acquire(), flush=True)
    sys.stdin.readline()
    lock.release()
    """
)


@pytest.fixture
def other(tmp_path: Path, kernel: str) -> "Any":
    """Another process that holds ``a.lock``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a.lock"), kernel],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def stranger(file: Path, **more: Any) -> dict[str, Any]:
    """A record of a machine that cannot be asked."""
    record = {"host": "node17", "pid": 77, "started": "2026-01-01T00:00:00+00:00"}
    record |= {"token": "t", "beat": "0"} | more
    file.write_text(json.dumps(record))
    return record


def hurry(monkeypatch: pytest.MonkeyPatch, each: Callable[[], object] = lambda: None) -> None:
    """Let the watcher's clock run: a minute between two looks, and something at each."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += 60.0
        each()

    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(locks.time, "sleep", sleep)


def test_there_is_one_holder_whatever_the_kernel_says(tmp_path: Path, other: Any) -> None:
    lock = RecordLock(tmp_path / "a.lock")
    assert not lock.acquire()
    assert lock.holder is not None and lock.holder.record["pid"] == other.pid
    refused = pytest.raises(LockedError, match=f"process {other.pid} on {socket.gethostname()}")
    with refused, held(tmp_path / "a.lock", tmp_path, "training"):
        pass
    other.communicate("go\n")
    assert lock.acquire()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_held_is_refused_without_a_trace(tmp_path: Path, other: Any) -> None:
    lock = tmp_path / IN_FOLDER
    refuse_held(tmp_path, "training")
    (tmp_path / "a.lock").rename(lock)
    with pytest.raises(LockedError, match=f"another training .*process {other.pid} on"):
        refuse_held(tmp_path, "training")
    other.kill()
    other.wait()
    refuse_held(tmp_path, "training")
    stranger(lock)
    refuse_held(tmp_path, "training")
    lock.write_text("")
    refuse_held(tmp_path, "training")


def test_a_killed_holder_of_this_machine_is_followed_at_once(tmp_path: Path, other: Any) -> None:
    other.kill()
    other.wait()
    with held(tmp_path / "a.lock", tmp_path, "training") as lock:
        assert json.loads(lock.file.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path, kernel: str) -> None:
    first, second = RecordLock(tmp_path / "a.lock"), RecordLock(tmp_path / "a.lock")
    assert first.acquire() and not second.acquire()
    first.check()
    with pytest.raises(LockedError):
        second.check()
    first.release()
    assert second.acquire()
    second.release()


def test_a_record_that_a_kill_left_empty_is_no_obstacle(tmp_path: Path, kernel: str) -> None:
    for text in ("", '{"host": "x'):
        (tmp_path / "a.lock").write_text(text)
        with held(tmp_path / "a.lock", tmp_path, "build"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_another_machine_is_refused_with_both_remedies(tmp_path: Path, kernel: str) -> None:
    file = tmp_path / "a.lock"
    stranger(file)
    with pytest.raises(LockedError, match="node17") as caught, held(file, tmp_path, "training"):
        pass
    assert f"rm '{file}'" in str(caught.value) and TAKE_OVER in str(caught.value)


def test_a_still_beat_is_taken_over_when_asked(
    tmp_path: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setenv(TAKE_OVER, "1")
    stranger(tmp_path / "a.lock")
    with held(tmp_path / "a.lock", tmp_path, "build") as lock:
        assert json.loads(lock.file.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_moving_beat_is_alive_however_it_is_asked(
    tmp_path: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, beats = tmp_path / "a.lock", iter(range(1, 1000))
    hurry(monkeypatch, lambda: stranger(file, beat=str(next(beats))))
    monkeypatch.setenv(TAKE_OVER, "1")
    stranger(file)
    with pytest.raises(LockedError, match="node17"), held(file, tmp_path, "build"):
        pass
    assert json.loads(file.read_text())["host"] == "node17"


@pytest.mark.parametrize("different", ["boot", "pid_space"])
def test_a_restart_or_another_container_is_found_out_by_watching(
    tmp_path: Path, different: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    stranger(tmp_path / "a.lock", host=socket.gethostname(), pid=os.getpid(), **{different: "x"})
    lock = RecordLock(tmp_path / "a.lock")
    assert not lock.acquire()
    assert lock.acquire(watch=True)
    lock.release()


def test_whoever_was_silent_too_long_may_not_put_its_work_into_place(
    tmp_path: Path, kernel: str
) -> None:
    file = tmp_path / "a.lock"
    lock = RecordLock(file)
    assert lock.acquire()
    file.rename(tmp_path / "aside")
    record = stranger(file)
    lock.beat(1)
    with pytest.raises(LockedError, match="took its place"):
        lock.check()
    lock.release()
    assert json.loads(file.read_text()) == record


def test_a_beat_moves_the_record_and_nothing_else(tmp_path: Path) -> None:
    lock = RecordLock(tmp_path / "a.lock")
    assert lock.acquire()
    before = json.loads(lock.file.read_text())
    lock.beat(7)
    after = json.loads(lock.file.read_text())
    assert int(after.pop("beat")) == 7 and int(before.pop("beat")) == 0
    assert after == before
    lock.release()


def test_a_dead_record_is_won_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two watchers judge one record dead; the slower one puts the winner's back."""
    hurry(monkeypatch)
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    file = tmp_path / "a.lock"
    fast, slow = RecordLock(file, abandoned_s=60), RecordLock(file, abandoned_s=60)
    stranger(file)
    rename = os.rename

    def between(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert fast.acquire(watch=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", between)
    assert not slow.acquire(watch=True)
    fast.check()
    fast.release()
    assert list(tmp_path.iterdir()) == []


def test_a_dropped_lock_is_free(tmp_path: Path) -> None:
    RecordLock(tmp_path / "a.lock").acquire()
    assert RecordLock(tmp_path / "a.lock").acquire()
