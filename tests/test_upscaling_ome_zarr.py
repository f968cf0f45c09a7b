"""OME-Zarr outputs: the pixels of the TIFF, the field's metadata, whole or not there."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from upscaling_samples import slide_file

from wsisr.errors import ConfigError
from wsisr.inference import load
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling import pyramid as pyramids
from wsisr.upscaling.pyramid import level_sizes
from wsisr.upscaling.sinks import container_of

OPTIONS = UpscaleOptions(scale=2.0)
SIZE = (4400, 1300)
"""More than one shard across."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Slide, OME-Zarr, lossless TIFF."""
    folder = tmp_path_factory.mktemp("zarr")
    slide = slide_file(folder / "s.tiff", SIZE[0] // 2, SIZE[1] // 2)
    upscale_slide(slide, folder / "o.ome.zarr", load("bicubic"), OPTIONS)
    lossless = UpscaleOptions(scale=2.0, compression="deflate")
    upscale_slide(slide, folder / "o.ome.tiff", load("bicubic"), lossless)
    return slide, folder / "o.ome.zarr", folder / "o.ome.tiff"


def test_zarr_python_reads_the_pixels_of_the_tiff(made: tuple[Path, Path, Path]) -> None:
    group = zarr.open_group(made[1], mode="r")
    with tifffile.TiffFile(made[2]) as tiff:
        for index, level in enumerate(tiff.series[0].levels):
            planes = np.asarray(group[str(index)])
            assert np.array_equal(np.moveaxis(planes, 0, 2), level.asarray()), index
    assert len(list(group.array_keys())) == len(level_sizes(*SIZE))


def test_metadata_is_that_of_ome_zarr_0_5(made: tuple[Path, Path, Path]) -> None:
    attributes = json.loads((made[1] / "zarr.json").read_text())["attributes"]
    ome = attributes["ome"]
    (image,) = ome["multiscales"]
    assert ome["version"] == "0.5" and [a["name"] for a in image["axes"]] == ["c", "y", "x"]
    assert [a.get("unit") for a in image["axes"]] == [None, "micrometer", "micrometer"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in image["datasets"]]
    for scale, (width, height) in zip(scales, level_sizes(*SIZE), strict=True):
        assert scale == pytest.approx([1.0, 0.25 * SIZE[1] / height, 0.25 * SIZE[0] / width])
    assert "not for diagnosis" in attributes["wsisr"]["description"]
    assert str(made[0].parent) not in json.dumps(attributes)


def test_an_interrupted_output_goes_on_to_the_same_bytes(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "o.ome.zarr"

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pyramids, "check_pyramid", fail)
        with pytest.raises(KeyboardInterrupt):
            upscale_slide(made[0], path, load("bicubic"), OPTIONS)
    assert not path.exists() and (tmp_path / "o.ome.zarr.partial").is_dir()
    result = upscale_slide(made[0], path, load("bicubic"), OPTIONS)
    assert result.resumed == 2
    files = {p.relative_to(path): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    whole = {p.relative_to(made[1]): p.read_bytes() for p in made[1].rglob("*") if p.is_file()}
    assert files == whole
    assert [p.name for p in tmp_path.iterdir()] == ["o.ome.zarr"]


def test_dicom_without_its_writer_is_one_sentence(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wsidicomizer", None)
    with pytest.raises(ConfigError, match=r"pip install 'wsisr\[dicom-out\]'"):
        upscale_slide(made[0], tmp_path / "o.dcm", load("bicubic"), OPTIONS)
    assert not list(tmp_path.iterdir())


def test_names_and_compressions(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert container_of(Path("a.OME.ZARR")) == "ome-zarr" and container_of(Path("a.zarr")) is None
    with pytest.raises(ConfigError, match="exists; give --overwrite"):
        upscale_slide(made[0], made[1], load("bicubic"), OPTIONS)
    with pytest.raises(ConfigError, match="written with zstd"):
        options = UpscaleOptions(scale=2.0, compression="jpeg")
        upscale_slide(made[0], tmp_path / "o.ome.zarr", load("bicubic"), options)
