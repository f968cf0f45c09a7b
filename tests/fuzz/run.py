"""``python run.py FOLDER COUNT [SEED] [TARGET ...]``: damage many files and count what happened.

Prints a row per target; a fault (any error that is not ours, or a process that died) is printed
with its seed, which repeats it, and makes the exit status 1.
"""

import collections
import json
import resource
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MEMORY_BYTES = 8 << 30


def one(name: str, start: int, stop: int) -> None:
    """Attempts in this process; a line of JSON each."""
    import targets

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    at = start
    while at < stop:
        with tempfile.TemporaryDirectory() as base:
            try:
                for seed, ended in targets.attempts(name, Path(base), range(at, stop)):
                    print(json.dumps([seed, ended]), flush=True)
                    at = seed + 1
            except BaseException as error:
                trace = traceback.format_exc()
                print(json.dumps([at, f"FAULT {type(error).__name__}", trace]), flush=True)
                at += 1


def main() -> int:
    """All targets, each in processes that may die."""
    import targets

    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int((*sys.argv[3:4], "0")[0])
    names = sys.argv[4:] or list(targets.TARGETS)
    folder.mkdir(parents=True, exist_ok=True)
    faults = 0
    for name in names:
        at, stop = seed, seed + count
        ends: collections.Counter[str] = collections.Counter()
        while at < stop:
            script = [sys.executable, __file__, "--one", name, str(at), str(stop)]
            done = subprocess.run(script, capture_output=True, text=True, check=False)
            rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
            for row in rows:
                ends[row[1]] += 1
                if row[1].startswith("FAULT"):
                    (folder / f"{name}-{row[0]}.txt").write_text(row[2])
            at = rows[-1][0] + 1 if rows else at
            if done.returncode != 0 or not rows:
                ends[f"FAULT died with {done.returncode}"] += 1
                (folder / f"{name}-{at}.txt").write_text(done.stderr[-4000:])
                at += 1
        faults += sum(n for end, n in ends.items() if end.startswith("FAULT"))
        print(f"{name}: {sum(ends.values())} damaged, {dict(ends.most_common())}", flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
