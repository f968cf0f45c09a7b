"""Colours follow from the stream, and a stream that breaks a rule is never pixels."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.data import immunohistochemistry

from wsisr.errors import SlideError
from wsisr.slides import open_slide
from wsisr.slides.colour import planes_look_like, rgb_to_ycbcr
from wsisr.slides.decode import (
    JPEG2000,
    ChunkFormat,
    decode_tile,
    has_colour_transform,
    ycbcr_to_rgb,
)
from wsisr.slides.jpeg import StatedJpeg, decode_jpeg, is_doubtful, parse_jpeg_header, stream_space

ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    return np.ascontiguousarray(immunohistochemistry()[:256, :256])


def stream(pixels: np.ndarray, space: str, subsampling: str = "444") -> bytes:
    """A stream without any marker, components numbered 1, 2, 3."""
    data = imagecodecs.jpeg8_encode(
        pixels, level=92, colorspace="rgb", outcolorspace=space, subsampling=subsampling
    )
    for name in (b"\xff\xe0", b"\xff\xee"):
        at = data.find(name, 0, 40)
        if at >= 0:
            data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    return data.replace(
        b"R\x11\x00G\x11\x00B\x11\x00", b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    ).replace(b"R\x00G\x00B\x00", b"\x01\x00\x02\x00\x03\x00")


def with_marker(data: bytes, marker: bytes) -> bytes:
    return data[:2] + marker + data[2:]


def as_tiff(path: Path, data: bytes, tag: int) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter([data]),
            shape=(256, 256, 3),
            dtype=np.uint8,
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            metadata=None,
        )
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite(tag)
    return path


YCBCR_CASES = {
    "adobe": ("444", ADOBE + b"\x01", "Adobe marker"),
    "subsampled": ("420", b"", "chroma 4:2:0"),
    "jfif": ("444", JFIF, "pixels"),
    "tables": ("444", b"", "pixels"),
}


@pytest.mark.parametrize("tag", [2, 6])
@pytest.mark.parametrize("case", YCBCR_CASES)
def test_ycbcr_is_found_under_any_tag(tmp_path: Path, tissue, case: str, tag: int) -> None:
    subsampling, marker, by = YCBCR_CASES[case]
    data = with_marker(stream(tissue, "ycbcr", subsampling), marker)
    with open_slide(as_tiff(tmp_path / "a.tif", data, tag), backend="direct") as slide:
        shown = slide.read_level(0, 0, 0, 256, 256)
        how = slide.info.levels[0].compression
    assert np.abs(shown.astype(int) - tissue).mean() < 3.5
    assert how.photometric == "ycbcr"
    assert how.colour_by == (
        by
        if tag == 2 or marker.startswith(ADOBE[:4]) or subsampling == "420"
        else "photometric tag"
    )
    assert how.tag == ("rgb" if tag == 2 else "")


@pytest.mark.parametrize(
    ("marker", "tag"), [(b"", 2), (JFIF, 2), (ADOBE + b"\x00", 2), (ADOBE + b"\x00", 6)]
)
def test_rgb_is_found_wherever_something_says_so(
    tmp_path: Path, tissue, marker: bytes, tag: int
) -> None:
    data = with_marker(stream(tissue, "rgb"), marker)
    with open_slide(as_tiff(tmp_path / "a.tif", data, tag), backend="direct") as slide:
        shown = slide.read_level(0, 0, 0, 256, 256)
        assert slide.info.levels[0].compression.photometric == "rgb"
        assert any("read so" in quirk for quirk in slide.info.quirks) == (tag == 6)
    assert np.abs(shown.astype(int) - tissue).mean() < 3.5


def test_components_named_rgb_are_rgb(tissue) -> None:
    named = imagecodecs.jpeg8_encode(tissue, level=92, colorspace="rgb", outcolorspace="rgb")
    header = parse_jpeg_header(named[:2] + named[named.find(b"\xff\xdb") :])
    assert stream_space(header, 6) == ("rgb", "names of its components")


def test_undecided_pixels_leave_the_marker_or_the_tag() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    bare = parse_jpeg_header(stream(grey, "ycbcr"))
    marked = parse_jpeg_header(with_marker(stream(grey, "ycbcr"), JFIF))
    assert is_doubtful(bare, 2) and is_doubtful(marked, 2) and not is_doubtful(marked, 6)
    assert stream_space(bare, 2) == ("rgb", "photometric tag")
    assert stream_space(marked, 2) == ("ycbcr", "JFIF marker")
    assert planes_look_like(grey) is None


def test_planes_of_glass_and_tissue(tissue) -> None:
    glass = np.full((64, 64, 3), 243, np.uint8)
    assert planes_look_like(glass) == "rgb" and planes_look_like(tissue) == "rgb"
    glass[..., 1:] = 128
    assert planes_look_like(glass) == "ycbcr"


def test_the_decoder_is_libjpegs_to_the_bit(tissue) -> None:
    for subsampling in ("444", "422", "420"):
        data = with_marker(stream(tissue, "ycbcr", subsampling), JFIF)
        ours = decode_jpeg(data, StatedJpeg(samples=3, width_px=256, height_px=256))
        np.testing.assert_array_equal(ours, np.asarray(Image.open(io.BytesIO(data))))


def test_broken_streams_are_errors(tissue) -> None:
    data = with_marker(stream(tissue, "ycbcr"), JFIF)
    scan = data.find(b"\xff\xda") + 20
    middle = (scan + len(data)) // 2
    for broken in (
        b"",
        b"\xff\xd8",
        data[:scan],
        data[:middle],
        data[:-2],
        data[:middle] + b"\xff\xd9" + data[middle:],
        data[:middle] + b"\x00" * 40 + data[-2:],
    ):
        with pytest.raises(ValueError):
            decode_jpeg(broken, StatedJpeg(samples=3, width_px=256, height_px=256))
    with pytest.raises(ValueError, match="256 x 256"):
        decode_jpeg(data, StatedJpeg(samples=3, width_px=255, height_px=256))
    with pytest.raises(ValueError, match="component"):
        decode_jpeg(data, StatedJpeg(samples=1, width_px=256, height_px=256))


def test_a_flipped_bit_is_pixels_only_where_libjpeg_has_no_objection(tmp_path, tissue) -> None:
    openslide = pytest.importorskip("openslide")
    clean = stream(tissue, "rgb")
    scan = clean.find(b"\xff\xda") + 14
    rng = np.random.default_rng(1)
    refused = {"ours": 0, "openslide": 0}
    for _ in range(60):
        data = bytearray(clean)
        data[int(rng.integers(scan, len(data) - 2))] ^= 1 << int(rng.integers(8))
        path = as_tiff(tmp_path / "a.tif", bytes(data), 2)
        with openslide.OpenSlide(path) as oracle:
            try:
                oracle.read_region((0, 0), 0, (256, 256))
                theirs = False
            except openslide.OpenSlideError:
                theirs = True
        with open_slide(path, backend="direct") as slide:
            try:
                slide.read_level(0, 0, 0, 256, 256)
                ours = False
            except SlideError as error:
                ours = "row 0, column 0 of level 0" in str(error)
        assert ours or not theirs
        refused["ours"] += ours
        refused["openslide"] += theirs
    assert refused["ours"] >= 9 and refused["openslide"] >= 1


def test_separate_planes_of_ycbcr_are_converted_after_joining(tmp_path: Path, tissue) -> None:
    stored = np.moveaxis(rgb_to_ycbcr(tissue), 2, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        stored,
        tile=(256, 256),
        photometric="ycbcr",
        planarconfig="separate",
        subsampling=(1, 1),
        compression="jpeg",
        compressionargs={"level": 95},
        metadata=None,
    )
    with open_slide(path, backend="direct") as slide:
        shown = slide.read_level(0, 0, 0, 256, 256)
    assert np.abs(shown.astype(int) - tissue).mean() < 2.5


@pytest.mark.parametrize("codec", ["packbits", "zstd", "lzw", "deflate", None])
def test_ycbcr_is_converted_under_every_lossless_codec(tmp_path: Path, tissue, codec) -> None:
    stored = rgb_to_ycbcr(tissue)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        stored,
        tile=(256, 256),
        photometric="ycbcr",
        subsampling=(1, 1),
        compression=codec,
        metadata=None,
    )
    with open_slide(path, backend="direct") as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 256, 256), ycbcr_to_rgb(stored))


@pytest.mark.parametrize("mct", [True, False])
def test_jpeg2000_is_converted_only_where_its_stream_does_not(tissue, mct: bool) -> None:
    given = tissue if mct else rgb_to_ycbcr(tissue)
    data = imagecodecs.jpeg2k_encode(given, reversible=True, codecformat="j2k", mct=mct)
    assert has_colour_transform(data) == mct
    form = ChunkFormat(compression=JPEG2000, photometric=6)
    shown = decode_tile([data], form, 256, 256).pixels
    np.testing.assert_array_equal(shown, tissue if mct else ycbcr_to_rgb(given))
