"""Cheap identity of a slide's content: sizes and sampled parts, never its name."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 1 << 16
SAMPLE_BYTES = 1 << 12
SAMPLES = 16


def total_bytes(files: tuple[Path, ...]) -> int:
    """Sum of the files' sizes."""
    return sum(file.stat().st_size for file in files)


def fingerprint(files: tuple[Path, ...]) -> str:
    """SHA-256 over the size, both ends and 16 evenly spaced parts of every file.

    Copies and renamed files have the same fingerprint; gigabytes are not read for it. It is no
    proof against a hostile twin, and is not used as one.
    """
    parts = []
    for file in files:
        with open(file, "rb") as handle:

            def read(offset: int, size: int, handle: BinaryIO = handle) -> bytes:
                handle.seek(offset)
                return handle.read(size)

            parts.append(sample_digest(file.stat().st_size, read))
    # A set of files is the same series however its files are named.
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()


def fingerprint_of_one(size_bytes: int, read: Callable[[int, int], bytes]) -> str:
    """The fingerprint of a single file that `read(offset, size)` gives access to."""
    return hashlib.sha256(sample_digest(size_bytes, read)).hexdigest()


def sample_digest(size_bytes: int, read: Callable[[int, int], bytes]) -> bytes:
    """Hash of the size, both ends and evenly spaced parts of one file."""
    digest = hashlib.sha256(size_bytes.to_bytes(8, "little"))
    digest.update(read(0, min(HEAD_BYTES, size_bytes)))
    for number in range(1, SAMPLES + 1):
        start = max(0, size_bytes - SAMPLE_BYTES) * number // SAMPLES
        digest.update(read(start, min(SAMPLE_BYTES, size_bytes - start)))
    start = max(0, size_bytes - HEAD_BYTES)
    digest.update(read(start, size_bytes - start))
    return digest.digest()
