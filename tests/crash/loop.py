"""Build, verify, train, evaluate, upscale, again and again, each killed at random moments first.

``python loop.py FOLDER MINUTES [SEED]``. Every round must end with the bytes of the first one,
which nobody killed. What goes through to the end runs in one process for all rounds, whose memory
and open files are printed and must not grow; what is killed runs in forks that never ran anything.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from steps import prepared, tree

GROWTH = 1.1
"""How far memory may be above that of the rounds in which it settles (allocators keep some)."""
SETTLED = 3


def usage() -> tuple[int, int]:
    """Resident memory in KiB and open files of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024, len(os.listdir("/proc/self/fd"))


def serve(pipe: Connection, acts: list[Callable[[Path], None]]) -> None:
    """Run what is asked for, by its number and folder, and answer with the usage."""
    while True:
        number, folder = pipe.recv()
        # The folder of the round before, in which commands ran, is gone.
        os.chdir(folder)
        try:
            acts[number](folder)
            pipe.send(("", *usage()))
        except BaseException:
            pipe.send((traceback.format_exc(), *usage()))


def killed(act: Callable[[Path], None], work: Path, after_s: float) -> bool:
    """Whether a fork that was killed after a while was still at it."""
    pid = os.fork()
    if pid == 0:
        try:
            act(work)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), "could not go on"
    return status != 0


def main() -> None:
    """Rounds until the time is over."""
    import cases

    folder, minutes = Path(sys.argv[1]), float(sys.argv[2])
    draws = random.Random(int((*sys.argv[3:], 1)[0]))
    chain = cases.CHAIN
    for case in chain:
        prepared(case, folder / "before")
    ours, theirs = Pipe()
    server = os.fork()
    if server == 0:
        # Its reports go to a log; the rounds are what is read.
        os.dup2(os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        serve(theirs, [case.run for case in chain])
    end, rounds, kills = time.monotonic() + 60 * minutes, 0, 0
    lengths = [0.0] * len(chain)
    whole: dict[str, bytes | None] = {}
    memory: list[int] = []
    files: set[int] = set()
    work = folder / "work"
    measured = tuple(pattern for case in chain for pattern in case.measured)
    try:
        while time.monotonic() < end or rounds <= SETTLED:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(folder / "before", work)
            for number, case in enumerate(chain):
                for _ in range(draws.randint(0, 2) if rounds else 0):
                    kills += killed(case.run, work, draws.uniform(0, lengths[number]))
                began = time.monotonic()
                ours.send((number, work))
                fault, kib, handles = ours.recv()
                assert not fault, fault
                if not rounds:
                    lengths[number] = time.monotonic() - began
            found = tree(work, measured)
            whole = whole or found
            changed = sorted(k for k in {*found, *whole} if found.get(k, 0) != whole.get(k, 0))
            assert not changed, f"round {rounds}: {', '.join(changed)} differ"
            memory.append(kib)
            files.add(handles)
            print(f"round {rounds}: {kills} kills, {kib / 1024:.0f} MiB, {handles} files open")
            sys.stdout.flush()
            rounds += 1
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    assert len(files) == 1, f"open files: {sorted(files)}"
    settled = max(memory[:SETTLED])
    assert memory[-1] <= GROWTH * settled, f"memory grew from {settled} to {memory[-1]} KiB"
    print(f"{rounds} rounds, {kills} kills: the same bytes, {settled} to {memory[-1]} KiB")


if __name__ == "__main__":
    main()
