"""The TIFF writer, checked with tifffile."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsisr.testing.writers import TiffPage, TiffWriter, TileCodec


def _picture(height: int = 64, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 3, (x + y)], -1).astype(np.uint8)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("name", ["none", "lzw", "deflate", "jpeg2000"])
def test_lossless_tiles_come_back(tmp_path: Path, name: str, big: bool) -> None:
    codec = TileCodec(name=name)
    page = TiffPage(width_px=100, height_px=70, tile_px=64, codec=codec, um_per_px=0.5)
    tile = _picture()
    path = tmp_path / "a.tif"
    with TiffWriter(path, big=big) as writer:
        writer.add_page(page)
        writer.write_tile(page, 1, 1, tile[::-1])
        writer.write_tile(page, 0, 0, tile)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == big
        read = file.pages[0]
        assert read.databytecounts[1] == 0 and read.databytecounts[2] == 0
        pixels = read.asarray()
        assert pixels.shape == (70, 100, 3)
        np.testing.assert_array_equal(pixels[:64, :64], tile)
        np.testing.assert_array_equal(pixels[64:, 64:], tile[::-1][:6, :36])
        numerator, denominator = read.tags["XResolution"].value
        assert 10_000 * denominator / numerator == pytest.approx(0.5)
    data, tables = codec.encode(tile)
    assert tables is None
    np.testing.assert_array_equal(codec.decode(data, None, tile.shape), tile)


@pytest.mark.parametrize("ycbcr", [False, True])
def test_jpeg_is_stored_as_scanners_do(tmp_path: Path, ycbcr: bool) -> None:
    """Abbreviated streams without JFIF or Adobe markers, tables once per page."""
    codec = TileCodec(quality=90, ycbcr=ycbcr, subsampling="444")
    page = TiffPage(width_px=128, height_px=64, tile_px=64, codec=codec)
    tile = _picture()
    path = tmp_path / "a.tif"
    with TiffWriter(path, big=False) as writer:
        writer.add_page(page)
        for column in range(2):
            writer.write_tile(page, column, 0, tile)
    with tifffile.TiffFile(path) as file:
        read = file.pages[0]
        assert read.photometric == (6 if ycbcr else 2)
        stream = path.read_bytes()[read.dataoffsets[0] :][: read.databytecounts[0]]
        assert b"JFIF" not in stream and b"Adobe" not in stream and b"\xff\xdb" not in stream
        assert read.jpegtables.count(b"\xff\xdb") >= 1
        pixels = read.asarray()
        assert np.abs(pixels[:, 64:].astype(int) - tile).mean() < 3
        decoded = codec.decode(stream, read.jpegtables, tile.shape)
        np.testing.assert_array_equal(decoded, pixels[:, :64])


def test_shared_tiles_are_stored_once(tmp_path: Path) -> None:
    codec = TileCodec(name="none")
    page = TiffPage(width_px=6400, height_px=6400, tile_px=64, codec=codec)
    path = tmp_path / "a.tif"
    with TiffWriter(path, big=True) as writer:
        writer.add_page(page)
        data = writer.encode(page, _picture())
        for index in range(100 * 100):
            writer.write_encoded_tile(page, index % 100, index // 100, data, shared=True)
        writer.write_encoded_tile(page, 99, 99, data, shared=False)
    assert path.stat().st_size < 200_000
    with tifffile.TiffFile(path) as file:
        assert len(set(file.pages[0].dataoffsets)) == 2


def test_nothing_is_finished_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    page = TiffPage(width_px=64, height_px=64, tile_px=64, codec=TileCodec(name="none"))
    with pytest.raises(KeyError), TiffWriter(path, big=False) as writer:
        writer.add_page(page)
        raise KeyError("stop")
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 0
