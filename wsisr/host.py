"""What this machine has, and all that systems do differently.

Cores, memory and the versions of what pixels depend on; then every call that only POSIX has, each
with the form that other systems get. Nothing else in the package asks which system it is on for
them. Linux is what is tested; the portable forms run in tests there, with the calls taken away.
"""

import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NoReturn

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

BINARY = getattr(os, "O_BINARY", 0)
"""To be added to the flags of `os.open`: Windows turns line ends into others without it."""
KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else int(signal.SIGTERM)
"""What a process that `die_at_once` ended leaves as its exit status."""
UNKNOWN_BYTES = 2 << 30
"""Taken to be free where the system does not say."""
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",  # of cuDNN and cuBLAS, for their own workspaces
)
"""What errors say when memory ran out."""
PIXEL_PACKAGES = (
    "wsisr",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",
    "imagecodecs",
    "simplejpeg",
    "tifffile",
    "pydicom",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "shapely",
)
"""What decides about pixels, besides Python."""


def usable_cores() -> int:
    """Cores that this process may run on (under a scheduler fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_bytes() -> int:
    """Memory that can be taken without swapping, within the limit of the control group."""
    free = UNKNOWN_BYTES
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return free
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or any(words in text for words in OUT_OF_MEMORY)
    )


def peak_bytes() -> int:
    """The most memory that this process took."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    if resource is None:
        return _windows_peak()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak() -> None:
    """Start `peak_bytes` anew; only Linux can, elsewhere it counts from the process's start."""
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def return_freed_memory() -> None:
    """Give memory that is no longer used back to the system.

    glibc keeps what threads and large arrays leave behind: tens of MiB after a slide was read.
    Nothing is done where the C library is another one.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _windows_peak() -> int:
    from ctypes import Structure, byref, c_size_t, sizeof, windll, wintypes  # type: ignore[attr-defined]

    class Counters(Structure):
        _fields_ = (
            ("cb", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            *((f"bytes_{index}", c_size_t) for index in range(8)),  # the first is the peak
        )

    counters = Counters(cb=sizeof(Counters))
    process = wintypes.HANDLE(windll.kernel32.GetCurrentProcess())
    windll.kernel32.K32GetProcessMemoryInfo(process, byref(counters), counters.cb)
    return int(counters.bytes_0)


@cache
def installed_version(name: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    # The standard library parses the whole text, of many kB, as an e-mail for it.
    line = re.search(r"^Version: *(\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    return found.version if line is None else line[1]


def package_versions() -> dict[str, str]:
    """Name -> version of Python and of every installed package that decides about pixels."""
    found = {name: installed_version(name) for name in PIXEL_PACKAGES}
    present = {name: value for name, value in found.items() if value is not None}
    return {"python": platform.python_version(), **present}


def read_at(fd: int, count: int, offset: int) -> bytes:
    """At most `count` bytes from `offset`, whoever else reads the file at the same time."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, offset)
    with _cursor:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)


def read_into(fd: int, buffers: Sequence[bytearray | memoryview], offset: int) -> int:
    """Fill buffers from `offset` on; the number of bytes that came, fewer at the file's end."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, buffers, offset)
    got = 0
    for buffer in buffers:
        data = read_at(fd, len(buffer), offset + got)
        buffer[: len(data)] = data
        got += len(data)
        if len(data) < len(buffer):
            break
    return got


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, whoever else writes the file at the same time."""
    left = memoryview(data)
    while left:
        if hasattr(os, "pwrite"):
            done = os.pwrite(fd, left, offset)
        else:
            with _cursor:
                os.lseek(fd, offset, os.SEEK_SET)
                done = os.write(fd, left)
        left, offset = left[done:], offset + done


def write_some(fd: int, parts: Sequence[bytes | memoryview]) -> int:
    """Write the first bytes of `parts`, as many as the system takes at once; their number."""
    if hasattr(os, "writev"):
        return os.writev(fd, parts)
    return next((os.write(fd, part) for part in parts if len(part)), 0)


def sync_data(fd: int) -> None:
    """Wait until what was written is on the disk; macOS and Windows sync times and sizes too."""
    getattr(os, "fdatasync", os.fsync)(fd)


def make_durable(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    # Windows syncs what may be written alone; elsewhere a file that may not be is synced too.
    fd = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def kernel_lock(fd: int) -> bool | None:
    """Whether the kernel grants its lock; None where the system or the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def process_lives(pid: int) -> bool | None:
    """Whether a process of this machine lives; None where asking might end it."""
    if os.name == "nt":  # there signal 0 is no question but an end
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def die_at_once() -> NoReturn:
    """End this process as a kill would: nothing is flushed, closed or cleaned up."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    raise AssertionError("a killed process goes on")


_cursor = threading.Lock()
"""Where reads and writes must move a file's cursor, they do so one at a time."""
