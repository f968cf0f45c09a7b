"""Kill -9 before file operations in turn: what random moments find by luck, found for sure.

Forks, so it is run as a script of one thread (``python steps.py CASE FOLDER [all | SHARE]``), as
the tests beside it do. Every case (`cases.Case`) writes below a folder. It is killed before its
first operation on files, its second, and so on; after each kill the same function must end as if
nothing had happened: the same bytes, and nothing left over. Without ``all``, of operations that
come from the same lines of the code (the columns of a table, say) only the first and the last are
killed. With a share, say 4, it is every fourth of these, beginning elsewhere every day.
Without arguments it names the cases that can be run here.
"""

import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from fnmatch import fnmatch
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from cases import Case

EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}
WRITES = ("writev", "pwrite", "write", "fsync")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def on_operation(tick: Callable[[], None]) -> None:
    """Call `tick` before every operation on files of this process, from now on."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and (arguments[2] or 0) & _WRITING):
            tick()

    for name in WRITES:
        setattr(os, name, _ticking(getattr(os, name), tick, sync=name == "fsync"))
    sys.addaudithook(hook)


def _ticking(function: Callable[..., Any], tick: Callable[[], None], sync: bool) -> Any:
    def call(*arguments: Any) -> Any:
        tick()
        # No power is cut here: what is written is there for the next process at once.
        return None if sync else function(*arguments)

    return call


def kill_at(step: int) -> None:
    """Kill this process before its operation number `step` (from 1; 0 never)."""
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    on_operation(tick)


def places(case: "Case", work: Path, found: Path) -> None:
    """Run a case and write down from which lines each of its operations came."""
    seen: list[str] = []
    on_operation(
        lambda: seen.append(
            " ".join(
                f"{frame.filename}:{frame.lineno}"
                for frame in traceback.extract_stack()
                if "/wsisr/" in frame.filename
            )
        )
    )
    case.run(work)
    steps = seen[:]
    with found.open("w") as file:
        json.dump(steps, file)


def in_child(function: Callable[[], object]) -> int:
    """Exit status of a call in a fork of this process: 1 after an exception, or minus a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def tree(folder: Path, measured: tuple[str, ...] = ()) -> dict[str, bytes | None]:
    """Every file below a folder with its content; None for folders and what is `measured`."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        whole = path.is_file() and not any(fnmatch(name, pattern) for pattern in measured)
        found[name] = path.read_bytes() if whole else None
    return found


def prepared(case: "Case", before: Path) -> None:
    """What must be there before; in a child, since later forks lose the threads of libraries."""
    for name in case.needs:
        import_module(name)
    before.mkdir(parents=True, exist_ok=True)
    assert in_child(lambda: case.prepare(before)) == 0


def chosen(seen: list[str], which: str) -> list[int]:
    """The steps (from 1) to be killed of those whose places were `seen`."""
    if which == "all":
        return list(range(1, len(seen) + 1))
    first = {place: step for step, place in reversed(list(enumerate(seen, 1)))}
    last = {place: step for step, place in enumerate(seen, 1)}
    steps = sorted({*first.values(), *last.values()})
    share = int(which or 1)
    return steps[int(time.time() // 86_400) % share :: share]


def run(case: "Case", base: Path, which: str = "") -> int:
    """Kill, run again, compare, at every chosen step; returns how many kills there were."""
    before, work, found = base / "before", base / "work", base / "places.json"
    # What is known of a slide from an earlier run would spare operations.
    os.environ["WSISR_CACHE"] = str(base / "cache")

    def fresh() -> None:
        for folder in (work, base / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, work)

    prepared(case, before)
    fresh()
    assert in_child(lambda: places(case, work, found)) == 0
    whole = tree(work, case.measured)
    seen: list[str] = json.loads(found.read_text())
    steps = chosen(seen, which)
    for step in steps:
        fresh()
        status = in_child(lambda: (kill_at(step), case.run(work)))  # noqa: B023
        where = f"killed at step {step} of {len(seen)} ({seen[step - 1]})"
        assert status == -signal.SIGKILL, f"{where}: ended with {status}"
        assert in_child(lambda: (kill_at(0), case.run(work))) == 0, f"{where}: cannot go on"
        again = tree(work, case.measured)
        changed = sorted(
            name for name in {*again, *whole} if again.get(name, 0) != whole.get(name, 0)
        )
        assert not changed, f"{where}: {', '.join(changed)} differ"
    return len(steps)


if __name__ == "__main__":
    import cases

    if len(sys.argv) == 1:
        able = (n for n, c in cases.CASES.items() if all(map(find_spec, c.roots)))
        sys.exit(print(*able))
    print(run(cases.CASES[sys.argv[1]], Path(sys.argv[2]), "".join(sys.argv[3:])))
