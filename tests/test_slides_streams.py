"""Stored tiles say all of themselves, and decode to the pixels of the slide."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from wsisr.slides import open_slide
from wsisr.slides.decode import decode_stream
from wsisr.slides.streams import LevelStreams, NotKept, level_streams
from wsisr.slides.tiles import TiledSlide
from wsisr.testing import SlideSpec, write_slide


def compare(slide: TiledSlide, streams: LevelStreams) -> int:
    grid, side = streams.grid, streams.grid.tile_width_px
    compared = 0
    for row in range(grid.rows):
        for column in range(grid.columns):
            data = streams.get(row, column)
            pixels = slide.decode_tile(streams.level, row, column).pixels
            assert (data is None) == (pixels is None)
            if data is not None and pixels is not None:
                assert np.array_equal(decode_stream(data, streams.kind, side), pixels)
                if streams.kind == "jpeg":  # and any libjpeg that goes by the marker
                    assert np.array_equal(imagecodecs.jpeg_decode(data), pixels)
                compared += 1
    return compared


@pytest.mark.parametrize("layout", ["aperio", "philips"])
def test_streams_of_generated_slides_decode_to_their_pixels(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "a.tif"
    write_slide(path, SlideSpec(seed=3, layout=layout, width_px=1100, height_px=900))
    with open_slide(path) as slide:
        assert isinstance(slide, TiledSlide)
        assert compare(slide, level_streams(slide)) > 0


def test_streams_of_a_real_slide_decode_to_its_pixels(shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    with open_slide(path) as slide:
        assert isinstance(slide, TiledSlide)
        streams = level_streams(slide)
        converted = TiledSlide(slide.info, slide.store, convert=lambda pixels: pixels)
        with pytest.raises(NotKept, match="converted"):
            level_streams(converted)
        assert compare(slide, streams) == streams.grid.rows * streams.grid.columns


def test_broken_streams_and_other_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_slide(path, SlideSpec(seed=3, layout="aperio", width_px=600, height_px=600))
    with open_slide(path) as slide:
        streams = level_streams(slide)
        data = streams.get(0, 0)
    assert data is not None
    with pytest.raises(ValueError):
        decode_stream(data[: len(data) // 2], "jpeg", 256)
    with pytest.raises(ValueError):
        decode_stream(data, "jpeg", 512)
