"""A run survives its tasks: errors are records, a dying worker blames only the guilty one."""

import os
import signal
from pathlib import Path

import pytest

from wsisr.errors import DiskFullError, SlideError
from wsisr.runners import ProcessRunner, Runner, SerialRunner


def work(kind: str, value: int) -> int:
    if kind == "user":
        raise SlideError("a.svs: broken; get it anew.")
    if kind == "bug":
        raise RuntimeError("surprise")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "disk":
        raise DiskFullError("full")
    return value * value


@pytest.mark.parametrize("runner", [SerialRunner(), ProcessRunner(workers=2)])
def test_errors_become_records_and_the_rest_goes_on(runner: Runner) -> None:
    jobs = [("a", ("ok", 3)), ("b", ("user", 0)), ("c", ("bug", 0)), ("d", ("ok", 4))]
    found = {outcome.key: outcome for outcome in runner(work, jobs)}
    assert (found["a"].value, found["d"].value) == (9, 16)
    assert (found["b"].error, found["b"].trace) == ("a.svs: broken; get it anew.", "")
    assert found["c"].kind == "RuntimeError"
    assert "surprise" in found["c"].trace


def test_a_killed_worker_is_blamed_and_its_neighbours_are_not() -> None:
    jobs = [(str(n), ("kill" if n == 3 else "ok", n)) for n in range(6)]
    found = {outcome.key: outcome for outcome in ProcessRunner(workers=2)(work, jobs)}
    assert len(found) == 6
    assert found["3"].kind == "WorkerDied"
    assert [found[str(n)].value for n in (0, 1, 2, 4, 5)] == [0, 1, 4, 16, 25]


def test_a_full_disk_ends_the_run() -> None:
    jobs = [("a", ("disk", 0)), ("b", ("ok", 1))]
    with pytest.raises(DiskFullError):
        list(ProcessRunner(workers=1)(work, jobs))


def test_nothing_to_do_starts_no_process(tmp_path: Path) -> None:
    assert list(ProcessRunner(workers=2)(work, [])) == []
