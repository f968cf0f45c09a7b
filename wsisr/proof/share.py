"""What torchrun starts: one process of a shared run, its request given as JSON."""

import json
import sys
from pathlib import Path

from wsisr.training import TrainRequest, train


def main() -> None:
    """Train as the first argument says."""
    given = json.loads(sys.argv[1])
    given |= {name: Path(given[name]) for name in ("data", "output")}
    train(TrainRequest(**{**given, "assignments": tuple(given["assignments"])}))


if __name__ == "__main__":
    main()
