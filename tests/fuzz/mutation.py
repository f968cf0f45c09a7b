"""Seeded damage: what disks, networks and editors do to a file, and what somebody hostile would."""

import random
import re
from collections.abc import Callable

Change = Callable[[bytearray, random.Random], None]

NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"4294967295", b"18446744073709551616", b"null", b'"x"')
WORDS = (b"../../x", b"=1+1", b"\x00", b"\xff\xfe", b"[" * 3000, b"{}", b"<!DOCTYPE x>", b"\n" * 50)


def _flip_bits(data: bytearray, draws: random.Random) -> None:
    for _ in range(draws.choice((1, 1, 1, 4, 32))):
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)


def _cut(data: bytearray, draws: random.Random) -> None:
    del data[draws.randrange(len(data)) :]


def _lose(data: bytearray, draws: random.Random) -> None:
    start = draws.randrange(len(data))
    del data[start : start + draws.choice((1, 2, 16, 512))]


def _blank(data: bytearray, draws: random.Random) -> None:
    start = draws.randrange(len(data))
    stop = min(len(data), start + draws.choice((1, 4, 512, 4096)))
    data[start:stop] = bytes([draws.choice((0, 255))]) * (stop - start)


def _double(data: bytearray, draws: random.Random) -> None:
    start = draws.randrange(len(data))
    part = bytes(data[start : start + draws.choice((4, 64, 1024))])
    at = draws.randrange(len(data))
    data[at:at] = part


def _number(data: bytearray, draws: random.Random) -> None:
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", bytes(data)))
    if found:
        chosen = draws.choice(found)
        data[chosen.start() : chosen.end()] = draws.choice(NUMBERS)


def _word(data: bytearray, draws: random.Random) -> None:
    at = draws.randrange(len(data))
    data[at : at + draws.choice((0, 1, 8))] = draws.choice(WORDS)


def _field(data: bytearray, draws: random.Random) -> None:
    """Two or four bytes set to an extreme, as in headers and tables of offsets."""
    size = draws.choice((2, 4, 8))
    at = draws.randrange(max(1, len(data) - size))
    value = draws.choice((0, 1, (1 << (8 * size)) - 1, 1 << (8 * size - 1), len(data)))
    data[at : at + size] = (value % (1 << (8 * size))).to_bytes(
        size, draws.choice(("little", "big"))
    )


CHANGES: tuple[Change, ...] = (
    _flip_bits,
    _cut,
    _lose,
    _blank,
    _double,
    _number,
    _word,
    _field,
)


def mutate(data: bytes, seed: int) -> bytes:
    """The same damage for the same seed: one to three changes, often near the beginning."""
    draws = random.Random(seed)
    changed = bytearray(data or b"\0")
    for _ in range(draws.randint(1, 3)):
        if draws.random() < 0.4 and len(changed) > 4096:
            head = changed[:2048]
            draws.choice(CHANGES)(head, draws)
            changed[:2048] = head
        else:
            draws.choice(CHANGES)(changed, draws)
        if not changed:
            changed = bytearray(b"\0")
    return bytes(changed)
