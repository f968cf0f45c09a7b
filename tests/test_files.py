"""What stands under its final name is whole, and belongs together."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsisr.errors import ConfigError, DiskFullError
from wsisr.files import disk_full_is_clear, remove_partials, save_picture, staged_files


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_set_comes_into_place_together_and_merges_folders(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/mine.png").write_text("the user's own")
    (tmp_path / ".set.partial").mkdir()
    (tmp_path / ".set.partial/left").write_text("by a kill")
    for text in ("first", "second"):
        with staged_files(tmp_path, "set") as staged:
            (staged / "a.txt").write_text(text)
            (staged / "figures").mkdir()
            (staged / "figures/b.txt").write_text(text)
            assert "a.txt" not in names(tmp_path) or (tmp_path / "a.txt").read_text() == "first"
    assert names(tmp_path) == ["a.txt", "figures/b.txt", "figures/mine.png"]
    assert (tmp_path / "figures/b.txt").read_text() == "second"


def test_of_a_set_that_fails_nothing_is_seen_and_the_old_one_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), staged_files(tmp_path, "set") as staged:
        (staged / "a.txt").write_text("new")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_files_of_two_sets_never_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).write_text("old")
    real, moved = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if moved:
            raise OSError(errno.EIO, "the disk is gone")
        moved.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="gone"), staged_files(tmp_path, "set") as staged:
        for name in "ab":
            (staged / name).write_text("new")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "new"
    moved.clear()
    with pytest.raises(OSError, match="gone"), staged_files(tmp_path, "set", last="a") as staged:
        for name in "ab":
            (staged / name).write_text("newer")
    assert names(tmp_path) == ["b"] and (tmp_path / "b").read_text() == "newer"


def test_whoever_knows_what_is_lost_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError, match=r"outer: the disk is full.* MB are free\. Do this\."),
        disk_full_is_clear(tmp_path / "outer", "Do this."),
        disk_full_is_clear(tmp_path / "inner", "Do that."),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError) as caught, disk_full_is_clear(tmp_path / "place"):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.filename == str(tmp_path / "place")


def test_pictures_take_the_format_of_their_name(tmp_path: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for name, kind in (("a.png", "PNG"), ("b.TIF", "TIFF"), ("plain", "PNG")):
        save_picture(tmp_path / "new" / name, picture)
        with Image.open(tmp_path / "new" / name) as found:
            assert found.format == kind and np.array_equal(np.asarray(found), picture)
    with pytest.raises(ConfigError, match=r"c\.txt.*name it \.png"):
        save_picture(tmp_path / "c.txt", picture)
    (tmp_path / "new/.a.png.host-1.partial").touch()
    remove_partials(tmp_path / "new")
    assert names(tmp_path / "new") == ["a.png", "b.TIF", "plain"]
