"""Printed scripts, run by stand-ins for the scheduler and for wsisr."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr.errors import ConfigError
from wsisr.schedulers import Needs, parts_for, slurm_script, snakefile

BUILD = ["build-pairs", "my study/", "-o", "pairs.zarr", "--hr", "40x"]

SBATCH = """\
import os, pathlib, random, subprocess, sys
words = sys.argv[1:]
at = next(i for i, w in enumerate(words) if not w.startswith("-"))
options, command = words[:at], words[at:]
counter = pathlib.Path("jobs")
number = str(len(counter.read_text()) + 1 if counter.exists() else 1)
counter.open("a").write("x")
array = next((o.split("=")[1] for o in options if o.startswith("--array=")), "")
tasks = list(range(1, int(array.split("-")[1]) + 1)) if array else [None]
random.Random(int(number)).shuffle(tasks)
with open("sbatch.log", "a") as log:
    log.write(number + " " + " ".join(options) + "\\n")
for task in tasks:
    env = dict(os.environ, SLURM_JOB_ID=number)
    if task is not None:
        env |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": number}
    subprocess.run(["bash", *command], env=env, stdout=sys.stderr)
print(number)
"""
WSISR = """\
import os, signal, sys, time
with open("wsisr.log", "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if "--slow" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    open("started", "w").close()
    time.sleep(600)
sys.exit(1 if "scan" in sys.argv else 0)
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for sbatch, scontrol and wsisr on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scontrol = "import sys; open('requeued', 'a').write(' '.join(sys.argv[1:]))"
    for name, text in (("sbatch", SBATCH), ("wsisr", WSISR), ("scontrol", scontrol)):
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_build_runs_its_phases_one_after_the_other(cluster: Path) -> None:
    (cluster / "build.sh").write_text(slurm_script(BUILD, Needs(), 3))
    subprocess.run(["bash", "build.sh"], check=True, stdout=subprocess.DEVNULL)
    lines = [line.split("--phase ")[1] for line in (cluster / "wsisr.log").read_text().splitlines()]
    scans, extracts = lines[:3], lines[4:7]
    assert sorted(scans) == [f"scan --part {i}/3" for i in (1, 2, 3)]
    assert scans != sorted(scans)  # the stand-in shuffles
    assert sorted(extracts) == [f"extract --part {i}/3" for i in (1, 2, 3)]
    assert [lines[3], lines[7]] == ["plan", "finish"]
    jobs = (cluster / "sbatch.log").read_text().splitlines()
    waits = [w.split("=")[1] for job in jobs for w in job.split() if "--dependency" in w]
    assert waits == ["afterany:1", "afterany:2", "afterany:3"]
    # A name with a space stays one word.
    assert "build-pairs my study/ -o" in (cluster / "wsisr.log").read_text()


def test_a_job_at_its_time_limit_stops_and_is_queued_again(cluster: Path) -> None:
    (cluster / "train.sh").write_text(slurm_script(["train", "--slow"], Needs(gpus=1), 1))
    env = dict(os.environ, SLURM_JOB_ID="7")
    job = subprocess.Popen(["bash", "train.sh", "train"], env=env)
    while not (cluster / "started").exists():
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(10)  # SIGUSR1, as --signal=B:USR1@120 sends it
    assert job.wait() == 130
    assert (cluster / "requeued").read_text() == "requeue 7"
    assert (cluster / "wsisr.log").read_text() == "train --slow --resume\n"
    again = dict(env, SLURM_RESTART_COUNT="20")
    (cluster / "requeued").unlink()
    (cluster / "started").unlink()
    job = subprocess.Popen(["bash", "train.sh", "train"], env=again)
    while not (cluster / "started").exists():
        assert job.poll() is None
        time.sleep(0.01)
    job.terminate()
    assert job.wait() == 130
    assert not (cluster / "requeued").exists()


def test_several_gpus_are_one_torchrun_and_parts_follow_the_slides() -> None:
    script = slurm_script(["train", "--model", "mihatp"], Needs(gpus=4, hours=0.5), 1)
    assert "torchrun --standalone --nproc-per-node 4 -m wsisr_cli train" in script
    assert "--gpus=4" in script and "--time=00:30:00" in script
    assert [parts_for(n) for n in (0, 8, 9, 400, 10**5)] == [1, 1, 2, 50, 1000]


def test_snakefile_and_refusals() -> None:
    text = snakefile(["build-pairs", "a{b}", "-o", "p.zarr"], "p.zarr", Needs(), 2)
    assert "build-pairs 'a{{b}}' -o p.zarr" in text
    assert 'touch("p.zarr.jobs/scan-{part}.done")' in text
    for make in (
        lambda: slurm_script(["verify"], Needs(), 1),
        lambda: snakefile(["eval"], "", Needs(), 1),
    ):
        with pytest.raises(ConfigError):
            make()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build-pairs", "x", "--part", "1/2"], "--part does not go"),
        (["nothing"], "no command of wsisr"),
        (["build-pairs", "x", "--no-such"], "No such option"),
        (["build-pairs", "x"], "no such file or folder"),
        ([], "name the command last"),
    ],
)
def test_what_cannot_be_a_job_is_refused(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["cluster", "slurm", *words])
    assert result.exit_code != 0
    assert said in f"{result.output}{result.exception}"
