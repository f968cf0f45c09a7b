"""The tutorial's notebook, its cells run in their order in a process of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
RUN = """
import json, sys

names = {"__name__": "__main__"}
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        # As a kernel does it, without one: a kernel is 60 packages and seconds of every test run.
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
print("every cell works")
"""


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, NOTEBOOK],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-2500:]
    assert done.stdout.endswith("every cell works\n")
    assert {path.name for path in tmp_path.iterdir()} == {"tutorial"}


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) > 12
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
