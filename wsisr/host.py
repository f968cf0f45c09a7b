"""What this machine has: cores, memory, and the versions of what pixels depend on."""

import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

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
