"""Whatever is killed when: the same command again ends as if nothing had happened."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("case", ["build", "tiles", "overwrite", "keep"])
def test_a_kill_before_a_file_operation_changes_nothing(case: str, tmp_path: Path) -> None:
    script = [sys.executable, "-B", str(HERE / "steps.py"), case, str(tmp_path), "5"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 10


def test_a_store_is_what_a_model_of_it_says_whatever_is_done_and_killed(tmp_path: Path) -> None:
    script = [sys.executable, "-B", str(HERE / "model.py"), str(tmp_path), "3", "8"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "3\n"
