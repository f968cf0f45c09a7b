"""Damaged input is read or refused with a sentence of ours: the short form of ``make fuzz``."""

from pathlib import Path

import pytest
import targets

SHORT = {"store": 6, "slide": 8, "picture": 10, "model": 6, "manifest": 20}


@pytest.mark.parametrize("name", list(targets.TARGETS))
def test_damage_is_read_or_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    count = SHORT.get(name, 40)
    ends = dict(targets.attempts(name, tmp_path, range(count)))
    assert len(ends) == count
    assert any(end != "read" for end in ends.values())
