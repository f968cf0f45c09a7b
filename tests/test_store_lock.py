"""One build at a time; dead builds do not lock anybody out."""

import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from wsisr.errors import StoreLockedError
from wsisr.store import BuildLock

HOLD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from wsisr.store import BuildLock
    with BuildLock(Path(sys.argv[1]), command="wsisr build-pairs slides"):
        print("held", flush=True)
        time.sleep(60)
    """
)


def hold(path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def write_lock(path: Path, **record: object) -> Path:
    lock = BuildLock(path).file
    lock.parent.mkdir(parents=True)
    lock.write_text(
        json.dumps({"host": socket.gethostname(), "started": "2024-01-01T00:00:00+00:00", **record})
    )
    return lock


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_second_build_is_refused_with_who_and_since_when(tmp_path: Path) -> None:
    process = hold(tmp_path / "a.zarr")
    try:
        with (
            pytest.raises(StoreLockedError, match="another build") as caught,
            BuildLock(tmp_path / "a.zarr"),
        ):
            pass
        text = str(caught.value)
        assert str(process.pid) in text
        assert socket.gethostname() in text
        assert "wsisr build-pairs slides" in text
        # Another store is another matter.
        with BuildLock(tmp_path / "b.zarr"):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_killed_build_is_taken_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = hold(tmp_path / "a.zarr")
    process.kill()
    process.wait()
    with caplog.at_level(logging.WARNING), BuildLock(tmp_path / "a.zarr") as lock:
        assert json.loads(lock.file.read_text())["pid"] == os.getpid()
    assert f"process {process.pid}" in caplog.text
    assert not (tmp_path / "a.zarr.partial").exists()


def test_a_reused_process_id_does_not_keep_a_dead_lock_alive(tmp_path: Path) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("start times of processes are read from /proc")
    write_lock(tmp_path / "a.zarr", pid=os.getpid(), process_start="1")
    with BuildLock(tmp_path / "a.zarr"):
        pass


def test_a_dead_process_of_this_host_is_taken_over(tmp_path: Path) -> None:
    write_lock(tmp_path / "a.zarr", pid=dead_pid(), process_start="1")
    with BuildLock(tmp_path / "a.zarr"):
        pass


def test_a_lock_of_another_host_is_refused_with_the_remedy(tmp_path: Path) -> None:
    lock = write_lock(tmp_path / "a.zarr", host="node17", pid=dead_pid())
    with pytest.raises(StoreLockedError, match="node17") as caught, BuildLock(tmp_path / "a.zarr"):
        pass
    assert f"rm '{lock}'" in str(caught.value)
    lock.unlink()
    with BuildLock(tmp_path / "a.zarr"):
        pass


def test_a_lock_that_was_cut_short_by_a_kill_is_no_obstacle(tmp_path: Path) -> None:
    write_lock(tmp_path / "a.zarr").write_text('{"host": "x')
    with BuildLock(tmp_path / "a.zarr"):
        pass


def test_parts_run_side_by_side_but_not_beside_a_whole_build(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with BuildLock(path, share="1-of-3"), BuildLock(path, share="2-of-3"):
        with pytest.raises(StoreLockedError), BuildLock(path, share="2-of-3"):
            pass
        with pytest.raises(StoreLockedError), BuildLock(path):
            pass
    with BuildLock(path):
        with pytest.raises(StoreLockedError), BuildLock(path, share="3-of-3"):
            pass
        with pytest.raises(StoreLockedError), BuildLock(path):
            pass
    with BuildLock(path, share="3-of-3"):
        pass
    assert not path.with_name("a.zarr.partial").exists()


def test_a_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BuildLock(tmp_path / "a.zarr"):
        raise RuntimeError
    with BuildLock(tmp_path / "a.zarr"):
        pass
