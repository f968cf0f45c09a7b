"""How much memory this machine has to give."""

from pathlib import Path

UNKNOWN_BYTES = 2 << 30
"""Taken to be free where the system does not say."""


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
