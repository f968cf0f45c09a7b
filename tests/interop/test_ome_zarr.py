"""OME-Zarr outputs in ome-zarr-py and by the models of the specification."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import data

from wsisr.inference import load
from wsisr.upscaling import UpscaleOptions, upscale_slide


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zarr")
    tissue = np.tile(data.immunohistochemistry(), (2, 2, 1))[:700, :650]
    tifffile.imwrite(
        folder / "s.tiff",
        tissue,
        tile=(256, 256),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    for name in ("o.ome.zarr", "o.ome.tiff"):
        compression = "deflate" if name.endswith("tiff") else None
        options = UpscaleOptions(scale=2.0, compression=compression)
        upscale_slide(folder / "s.tiff", folder / name, load("bicubic"), options)
    return folder


def test_ome_zarr_py_opens_it(made: Path) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    location = parse_url(str(made / "o.ome.zarr"))
    assert location is not None
    (node,) = list(Reader(location)())
    with tifffile.TiffFile(made / "o.ome.tiff") as tiff:
        exact = [level.asarray() for level in tiff.series[0].levels]
    assert len(node.data) == len(exact)
    for shown, pixels in zip(node.data, exact, strict=True):
        assert np.array_equal(np.moveaxis(np.asarray(shown), 0, 2), pixels)


def test_the_models_of_the_specification_accept_it(made: Path) -> None:
    import zarr
    from ome_zarr_models.v05.image import Image

    image = Image.from_zarr(zarr.open_group(made / "o.ome.zarr", mode="r"))
    (multiscale,) = image.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == ["c", "y", "x"]
