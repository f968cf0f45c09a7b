"""A pyramid gets its name only after readers of others have shown it as it was given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from upscaling_samples import slide_file

from wsisr.errors import ConfigError, SlideError
from wsisr.geometry import Box
from wsisr.inference import load
from wsisr.progress import ProgressEvent
from wsisr.upscaling import UpscaleOptions, pyramid, upscale_slide
from wsisr.upscaling.codecs import COMPRESSIONS, Codec


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return slide_file(tmp_path_factory.mktemp("s") / "s.tiff", 650, 500)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_who_looked_is_said(slide: Path, tmp_path: Path, name: str) -> None:
    events: list[ProgressEvent] = []
    options = UpscaleOptions(scale=2.0, compression=name)
    result = upscale_slide(slide, tmp_path / "o.ome.tiff", load("bicubic"), options, events.append)
    readers = "tifffile" if name in ("jpegxl", "jpeg2000") else "tifffile and OpenSlide"
    assert f"6 tiles of 3 level(s) by {readers}." in result.messages[-1]
    assert any(readers in event.message for event in events)


class _Lying(Codec):
    @property
    def photometric(self) -> int:
        return 2


def test_wrong_colours_are_an_error_and_no_file(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pyramid.write_directories

    def lie(file: Any, levels: Any, codec: Codec, **more: Any) -> None:
        real(file, levels, _Lying(name=codec.name, quality=codec.quality), **more)

    monkeypatch.setattr(pyramid, "write_directories", lie)
    path = tmp_path / "o.ome.tiff"
    with pytest.raises(SlideError, match=r"OpenSlide shows the tile .* grey levels off"):
        upscale_slide(slide, path, load("bicubic"), UpscaleOptions(scale=2.0))
    assert not path.exists()


def test_tiles_out_of_place_are_an_error(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pyramid.write_directories

    def shuffle(file: Any, levels: Any, codec: Codec, **more: Any) -> None:
        levels[0].offsets[:] = levels[0].offsets[::-1].copy()
        levels[0].byte_counts[:] = levels[0].byte_counts[::-1].copy()
        real(file, levels, codec, **more)

    monkeypatch.setattr(pyramid, "write_directories", shuffle)
    with pytest.raises(SlideError, match=r"tifffile shows the tile .* of level 0"):
        upscale_slide(slide, tmp_path / "o.ome.tiff", load("bicubic"), UpscaleOptions(scale=2.0))


def test_a_resolution_that_a_reader_does_not_see_is_an_error(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pyramid.write_directories

    def forget(file: Any, levels: Any, codec: Codec, **more: Any) -> None:
        real(file, [replace(level, um_per_px=None) for level in levels], codec, **more)

    monkeypatch.setattr(pyramid, "write_directories", forget)
    with pytest.raises(SlideError, match="tifffile sees nan um/px, written were"):
        upscale_slide(slide, tmp_path / "o.ome.tiff", load("bicubic"), UpscaleOptions(scale=2.0))


def test_a_region_that_is_cut_is_said_and_a_refusal_leaves_nothing(
    slide: Path, tmp_path: Path
) -> None:
    path = tmp_path / "o.ome.tiff"
    inside = UpscaleOptions(scale=2.0, region=Box(x=600, y=-20, width=200, height=100))
    result = upscale_slide(slide, path, load("bicubic"), inside)
    assert any("600,0,50,80" in message for message in result.messages)
    outside = UpscaleOptions(scale=2.0, region=Box(x=900, y=0, width=10, height=10))
    with pytest.raises(ConfigError, match="outside the slide"):
        upscale_slide(slide, tmp_path / "p.ome.tiff", load("bicubic"), outside)
    with pytest.raises(ConfigError, match=r"too large for a \.webp"):
        options = UpscaleOptions(scale=30.0)
        upscale_slide(slide, tmp_path / "p.webp", load("bicubic"), options)
    assert [p.name for p in tmp_path.iterdir()] == ["o.ome.tiff"]
