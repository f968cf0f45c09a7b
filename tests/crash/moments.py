"""Kill -9 at random moments of a case, several times in a row, then let it end: the same bytes.

``python moments.py CASE FOLDER TRIALS [SEED]``; see `steps` for what a case is.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from steps import in_child, prepared, tree

if TYPE_CHECKING:
    from cases import Case


def run(case: "Case", base: Path, trials: int, seed: int) -> int:
    """Some trials of one to four kills each; returns how many kills hit a living process."""
    before, work = base / "before", base / "work"

    def fresh() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(before, work)

    prepared(case, before)
    fresh()
    began = time.monotonic()
    assert in_child(lambda: case.run(work)) == 0
    length, whole = time.monotonic() - began, tree(work, case.measured)
    draws, kills = random.Random(seed), 0
    for trial in range(trials):
        fresh()
        for _ in range(draws.randint(1, 4)):
            pid = os.fork()
            if pid == 0:
                try:
                    case.run(work)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            time.sleep(draws.uniform(0, 1.2 * length))
            os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status in (0, -signal.SIGKILL), f"trial {trial}: could not go on"
            kills += status != 0
        assert in_child(lambda: case.run(work)) == 0, f"trial {trial}: could not go on"
        again = tree(work, case.measured)
        changed = sorted(k for k in {*again, *whole} if again.get(k, 0) != whole.get(k, 0))
        assert not changed, f"trial {trial}: {', '.join(changed)} differ"
    return kills


if __name__ == "__main__":
    import cases

    trials, seed = int(sys.argv[3]), int((*sys.argv[4:], 1)[0])
    print(run(cases.CASES[sys.argv[1]], Path(sys.argv[2]), trials, seed))
