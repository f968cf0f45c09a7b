"""A grey input gives one channel in every kind of output, unless RGB is asked for."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from slides_samples import picture
from upscaling_samples import MoodyEngine

from wsisr.inference import load
from wsisr.inference.engine import WindowBatch
from wsisr.slides import open_slide
from wsisr.upscaling import UpscaleOptions, upscale_slide


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A grey slide and its pixels."""
    image = np.ascontiguousarray(picture(300, 260)[..., 1])
    path = tmp_path_factory.mktemp("grey") / "s.tif"
    tifffile.imwrite(
        path,
        image,
        tile=(128, 128),
        photometric="minisblack",
        compression="deflate",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return path, image


@pytest.mark.parametrize(
    ("name", "compression"),
    [
        ("o.ome.tiff", "jpeg"),
        ("o.ome.tiff", "jpegxl"),
        ("o.ome.tiff", "jpeg2000"),
        ("o.ome.tiff", "deflate"),
        ("o.ome.tiff", "zstd"),
        ("o.ome.zarr", None),
    ],
)
def test_pyramids_of_grey_have_one_channel(
    grey: tuple[Path, np.ndarray], tmp_path: Path, name: str, compression: str | None
) -> None:
    path, image = grey
    out = tmp_path / name
    options = UpscaleOptions(scale=3.0, compression=compression, mask=False)
    upscale_slide(path, out, load("bicubic"), options)
    if out.is_dir():
        group = zarr.open_group(out, mode="r")
        levels = [np.asarray(group[key])[0] for key in ("0", "1")]
        assert group["0"].shape == (1, 780, 900)
        ome = group.attrs["ome"]
        assert [c["color"] for c in ome["omero"]["channels"]] == ["FFFFFF"]
    else:
        with tifffile.TiffFile(out) as tiff:
            assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK
            assert 'SizeC="1"' in (tiff.ome_metadata or "")
            levels = [level.asarray() for level in tiff.series[0].levels]
        with open_slide(out) as slide:
            verdict = slide.info.verdict
            assert slide.info.grey and verdict is not None and verdict.status == "agree"
    assert levels[0].shape == (780, 900) and levels[1].shape == (390, 450)
    middle = levels[0][1::3, 1::3].astype(int)  # bicubic by 3 keeps the centre of every pixel
    limit = 0.0 if compression in (None, "deflate", "zstd") else 3.0
    assert np.abs(middle - image).mean() <= limit


def test_rgb_is_written_where_it_is_asked_for(
    grey: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    options = UpscaleOptions(scale=2.0, compression="deflate", mask=False, rgb=True)
    upscale_slide(grey[0], tmp_path / "o.ome.tiff", load("bicubic"), options)
    with tifffile.TiffFile(tmp_path / "o.ome.tiff") as tiff:
        assert tiff.series[0].shape == (520, 600, 3)


def test_what_a_network_colours_is_written_as_its_luma(
    grey: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    class Tinting(MoodyEngine):
        def render(self, batch: WindowBatch) -> list[np.ndarray]:
            return [np.float32([60, 120, 180]) + 0 * block for block in super().render(batch)]

    options = UpscaleOptions(scale=2.0, compression="deflate", mask=False)
    upscale_slide(grey[0], tmp_path / "o.ome.tiff", Tinting(), options)
    written = tifffile.imread(tmp_path / "o.ome.tiff")
    assert set(np.unique(written)) == {round(0.299 * 60 + 0.587 * 120 + 0.114 * 180)}
