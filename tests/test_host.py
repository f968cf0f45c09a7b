"""Free memory of the machine, never more than its control group allows; and its end."""

from pathlib import Path

import pytest

from wsisr import host


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
