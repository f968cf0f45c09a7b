"""Memory of the machine, and everything without the calls that only POSIX has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsisr import host

ROOT = Path(__file__).parents[1]


def fake_files(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    def read_text(self: Path, encoding: str | None = None) -> str:
        if self.name not in files:
            raise FileNotFoundError(self)
        return files[self.name]

    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, host.UNKNOWN_BYTES),
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable: 5 kB\n"}, 5 * 1024),
        ({"meminfo": "MemAvailable: 5 kB", "memory.max": "max\n", "memory.current": "7"}, 5120),
        ({"meminfo": "MemAvailable: 5 kB", "memory.max": "900\n", "memory.current": "700"}, 200),
        ({"meminfo": "MemAvailable: 5 kB", "memory.max": "90", "memory.current": "700"}, 0),
    ],
)
def test_free_memory(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], free: int) -> None:
    fake_files(monkeypatch, files)
    assert host.available_bytes() == free


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert host.is_out_of_memory(MemoryError())
    assert host.is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert host.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: ..."))
    assert not host.is_out_of_memory(RuntimeError("shape mismatch"))
    assert not host.is_out_of_memory(ValueError("out of memory"))


POSIX_ALONE = {
    *("pread", "preadv", "pwrite", "pwritev", "writev", "fdatasync", "sched_getaffinity", "fork"),
    *("kill", "killpg", "fchmod", "fchown", "getuid", "geteuid", "getpgid", "setsid", "statvfs"),
    *("posix_fadvise", "sysconf", "mkfifo", "nice", "uname", "wait", "waitpid", "getloadavg"),
}
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}


def test_calls_that_only_posix_has_are_in_one_module() -> None:
    found = []
    files = [path for root in ("wsisr", "cli") for path in (ROOT / root).rglob("*.py")]
    for path in files:
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in POSIX_ALONE:
                    found.append((path.name, name))
                case ast.Attribute(value=ast.Name(id="signal"), attr="SIGKILL" | "SIGUSR1" as name):
                    found.append((path.name, name))
                case ast.Import(names=names):
                    found += [(path.name, n.name) for n in names if n.name in POSIX_MODULES]
                case ast.ImportFrom(module=name) if name in POSIX_MODULES:
                    found.append((path.name, name))
    assert len(files) > 300 and {file for file, _ in found} == {"host.py"}, found


ELSEWHERE = """
import os, sys, threading, zarr, torch, matplotlib.figure, concurrent.futures.process
for name in "pread preadv pwrite pwritev writev fdatasync sched_getaffinity".split():
    delattr(os, name)
sys.modules["fcntl"] = sys.modules["resource"] = None

import numpy as np
from pathlib import Path
from wsisr import host
from wsisr.files import write_buffers
from wsisr.locks import RecordLock

path = Path("parts")
data = np.random.default_rng(0).bytes(300_000)
assert write_buffers(path, [data[:7], b"", memoryview(data)[7:]]) == len(data)
fd = os.open(path, os.O_RDWR)
buffers = bytearray(5), bytearray(9)
assert host.read_into(fd, buffers, 3) == 14 and b"".join(buffers) == data[3:17]
assert host.read_into(fd, [bytearray(8), bytearray(8)], len(data) - 10) == 10
seen = []
def read(first):
    for at in range(first, 290_000, 5_000):
        seen.append(host.read_at(fd, 4_000, at) == data[at : at + 4_000])
threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert all(seen) and len(seen) > 400
host.write_at(fd, b"here", 100)
os.close(fd)
assert path.read_bytes() == data[:100] + b"here" + data[104:]
first, second = RecordLock(Path("lock")), RecordLock(Path("lock"))
assert first.acquire() and not second.acquire()
first.release()

from training_samples import make_store, small_request
from wsisr.evaluation import EvalSettings, evaluate
from wsisr.slides import open_slide
from wsisr.testing import SlideSpec, write_slide
from wsisr.training import train

if __name__ == "__main__":
    write_slide(Path("slide.tiff"), SlideSpec(width_px=512, height_px=512))
    with open_slide(Path("slide.tiff")) as slide:
        assert slide.read_level(0, 0, 0, 300, 200).shape == (200, 300, 3)
    store = make_store(Path("pairs.zarr"))
    outcome, folder = train(small_request(store, Path("runs/srcnn-x4"), steps=5))
    assert outcome.state == "finished" and host.peak_bytes() > 1e7
    settings = EvalSettings(
        scales=(4.0,), data=store, runs=Path("runs"), output=Path("eval"), figures=0, cost=False
    )
    assert not evaluate(settings).failed
    assert Path("eval/tables.md").is_file()
"""


def test_a_store_is_made_trained_on_and_evaluated_without_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
