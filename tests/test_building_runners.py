"""A run survives its tasks: errors are records, a dying worker blames only the guilty one."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wsisr.errors import DiskFullError, SlideError
from wsisr.runners import ProcessRunner, Runner, SerialRunner, in_threads, own_threads


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


def test_threads_give_results_in_order_and_no_more_than_asked() -> None:
    at_work, most = 0, 0
    lock = threading.Lock()

    def square(value: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.001 * (value % 3))
        with lock:
            at_work -= 1
        return value * value

    for threads in (1, 3):
        most = 0
        (outcome,) = SerialRunner(threads=threads)(squares, [("a", (square,))])
        assert outcome.value == [n * n for n in range(20)]
        assert most <= threads
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda value: 1 // value, [1, 0, 1]))


def squares(function: Callable[[int], int]) -> list[int]:
    return list(in_threads(function, range(20)))


def own_process(_: int) -> tuple[int, int]:
    return os.getpid(), own_threads()


def test_processes_live_through_all_calls_of_a_block_and_one_that_died_is_replaced() -> None:
    jobs = [(str(n), (n,)) for n in range(4)]
    with ProcessRunner(workers=1) as runner:
        first, second = ({o.value[0] for o in runner(own_process, jobs)} for _ in range(2))
        assert first == second
        assert os.getpid() not in first
    with ProcessRunner(workers=2) as runner:
        assert {outcome.value[1] for outcome in runner(own_process, jobs)} == {1}
        (alone,) = runner(own_process, jobs[:1])
        assert alone.value[1] == 2
        (died,) = runner(work, [("a", ("kill", 0))])
        assert died.kind == "WorkerDied"
        (back,) = runner(work, [("a", ("ok", 3))])
        assert back.value == 9
