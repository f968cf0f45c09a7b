"""Compression facts are read from the streams, not from what tags claim."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from slides_samples import box_level, picture, write_pyramid

from wsisr.slides import open_slide
from wsisr.slides.compression import jpeg_quality
from wsisr.slides.jpeg import parse_jpeg_header


def jpeg(quality: int, subsampling: int = 0) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(picture(48, 32))
    image.save(out, "jpeg", quality=quality, subsampling=subsampling)
    return out.getvalue()


@pytest.mark.parametrize("quality", [1, 10, 30, 49, 50, 51, 70, 75, 80, 87, 90, 95, 99, 100])
def test_libjpeg_qualities_are_recovered(quality: int) -> None:
    header = parse_jpeg_header(jpeg(quality))
    found = jpeg_quality(header.luminance)
    # The lowest qualities saturate to one table.
    assert found == quality or quality == 1
    assert header.jfif and header.tables_sha256 is not None


def test_subsampling_is_named() -> None:
    names = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
    for number, name in names.items():
        assert parse_jpeg_header(jpeg(80, number)).subsampling == name


def test_unknown_tables_get_the_nearest_quality() -> None:
    flat = tuple([8] * 64)
    found = jpeg_quality(flat)
    assert found is not None and 80 <= found <= 95
    assert jpeg_quality(None) is None and jpeg_quality((1, 2)) is None


@given(st.binary(max_size=300))
def test_broken_streams_never_raise(data: bytes) -> None:
    parse_jpeg_header(data, b"\xff\xd8" + data, None)


@given(st.integers(2, 600))
def test_cut_streams_never_raise(length: int) -> None:
    header = parse_jpeg_header(jpeg(75)[:length])
    assert header.subsampling in (None, "4:4:4")


def test_real_aperio_slide(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        compression = slide.info.levels[0].compression
    # The TIFF tag says 2 x 2, the stream 4:4:4; it was compressed twice at Q30.
    assert (compression.codec, compression.photometric) == ("jpeg", "rgb")
    assert (compression.quality, compression.subsampling) == (30, "4:4:4")
    assert compression.generations == 2 and compression.sharpened is None


def test_shared_tables_of_a_tiff(tmp_path: Path) -> None:
    image = picture(300, 300)
    path = write_pyramid(
        tmp_path / "a.tif",
        [image, box_level(image, 2)],
        quality=66,
        photometric="ycbcr",
        subsampling=(2, 1),
    )
    with open_slide(path) as slide:
        found = {level.compression for level in slide.info.levels}
    assert len(found) == 1
    (compression,) = found
    assert (compression.quality, compression.subsampling) == (66, "4:2:2")


def test_lossless_slides_have_no_generation(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", [picture(99, 99)], compression="lzw")
    with open_slide(path) as slide:
        compression = slide.info.levels[0].compression
    assert (compression.codec, compression.generations, compression.quality) == ("lzw", 0, None)
