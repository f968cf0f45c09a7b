"""A slide behind a URL gives the same stored pixels as the file."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from wsisr.errors import SlideError
from wsisr.slides import open_slide
from wsisr.testing import SlideSpec, write_slide


@pytest.fixture
def slide(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    path = tmp_path / "a.tif"
    write_slide(path, SlideSpec(seed=2, width_px=1536, height_px=1024))
    memory = fsspec.filesystem("memory")
    memory.pipe("/slides/a.tif", path.read_bytes())
    yield path, "memory://slides/a.tif"
    memory.rm("/slides", recursive=True)


def test_pixels_levels_and_identity_are_those_of_the_file(slide: tuple[Path, str]) -> None:
    path, url = slide
    with open_slide(path) as local, open_slide(url) as remote:
        assert remote.info.fingerprint == local.info.fingerprint
        assert remote.info.bytes == local.info.bytes
        assert remote.info.mpp == local.info.mpp
        assert remote.info.levels == local.info.levels
        for level in range(len(local.info.levels)):
            box = (level, 13, 7, 300, 200)
            assert np.array_equal(remote.read_level(*box), local.read_level(*box))
        with pickle.loads(pickle.dumps(remote)) as copy:  # noqa: S301 - our own bytes
            assert np.array_equal(
                copy.read_level(0, 0, 0, 64, 64), local.read_level(0, 0, 0, 64, 64)
            )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://slides/none.tif", "cannot be opened"),
        ("nosuch://slides/a.tif", "package for its protocol"),
    ],
)
def test_what_cannot_be_reached_is_said(slide: tuple[Path, str], url: str, words: str) -> None:
    with pytest.raises(SlideError, match=words):
        open_slide(url)


def test_other_readers_and_other_files_are_refused(slide: tuple[Path, str]) -> None:
    with pytest.raises(SlideError, match="'direct' only"):
        open_slide(slide[1], backend="openslide")
    fsspec.filesystem("memory").pipe("/slides/b.svs", b"no tiff at all, but long enough" * 9)
    with pytest.raises(SlideError, match="not a readable TIFF"):
        open_slide("memory://slides/b.svs")
