"""DICOM folders that `wsisr upscale` writes, in wsidicom, pydicom, OpenSlide and wsisr itself."""

from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from skimage import data
from wsidicom import WsiDicom

from wsisr.inference import load
from wsisr.slides import open_slide
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling.pyramid import level_sizes

SIZE = (1300, 1400)


@pytest.fixture(scope="module", params=["jpeg", "lossless"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    tissue = np.tile(data.immunohistochemistry(), (2, 2, 1))[: SIZE[1] // 2, : SIZE[0] // 2]
    tifffile.imwrite(
        folder / "s.tiff",
        tissue,
        tile=(256, 256),
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    options = UpscaleOptions(scale=2.0, compression=request.param)
    upscale_slide(folder / "s.tiff", folder / "o.dcm", load("bicubic"), options)
    lossless = UpscaleOptions(scale=2.0, compression="deflate")
    upscale_slide(folder / "s.tiff", folder / "o.ome.tiff", load("bicubic"), lossless)
    return folder


def test_four_readers_show_the_pixels(made: Path) -> None:
    sizes = level_sizes(*SIZE)
    limit = 3.0  # mean loss of JPEG at quality 90 on the coarsest level
    with tifffile.TiffFile(made / "o.ome.tiff") as tiff:
        exact = [level.asarray().astype(int) for level in tiff.series[0].levels]
    with WsiDicom.open(made / "o.dcm") as slide:
        for level, size in zip(slide.pyramids[0], sizes, strict=True):
            shown = np.asarray(slide.read_region((0, 0), level.level, size))[..., :3]
            assert np.abs(shown - exact[sizes.index(size)]).mean() <= limit
    file = next((made / "o.dcm").iterdir())
    with openslide.OpenSlide(str(file)) as slide:
        assert list(slide.level_dimensions) == sizes
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        for level, size in enumerate(sizes):
            shown = np.asarray(slide.read_region((0, 0), level, size))[..., :3]
            assert np.abs(shown - exact[level]).mean() <= limit
    with open_slide(made / "o.dcm") as ours:
        assert [(v.width_px, v.height_px) for v in ours.info.levels] == sizes
        for level, size in enumerate(sizes):
            shown = ours.read_level(level, 0, 0, *size)
            assert np.abs(shown - exact[level]).mean() <= limit


def test_instances_say_what_they_are(made: Path) -> None:
    for file in (made / "o.dcm").iterdir():
        header = pydicom.dcmread(file)
        assert header.ImageType[0] == "DERIVED"
        frames = header.SharedFunctionalGroupsSequence[0]
        kind = frames.WholeSlideMicroscopyImageFrameTypeSequence[0].FrameType
        assert list(kind) == list(header.ImageType)
        assert "not for diagnosis" in header.DerivationDescription
        assert not header.PatientID and not header.PatientName and not header.AccessionNumber
        assert str(made) not in str(header)


def test_a_grey_input_gives_monochrome_frames(tmp_path: Path) -> None:
    tissue = np.ascontiguousarray(data.immunohistochemistry()[..., 1])
    tifffile.imwrite(
        tmp_path / "s.tiff",
        tissue,
        tile=(256, 256),
        photometric="minisblack",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    for name, compression in (("a.dcm", None), ("b.dcm", "lossless")):
        options = UpscaleOptions(scale=3.0, compression=compression, mask=False)
        upscale_slide(tmp_path / "s.tiff", tmp_path / name, load("bicubic"), options)
        headers = [pydicom.dcmread(file) for file in (tmp_path / name).iterdir()]
        kinds = {(h.PhotometricInterpretation, h.SamplesPerPixel) for h in headers}
        assert kinds == {("MONOCHROME2", 1)}
        with WsiDicom.open(tmp_path / name) as slide:
            shown = np.asarray(slide.read_region((0, 0), 0, (1536, 1536)), np.float64)
        middle = shown.reshape(1536, 1536, -1)[1::3, 1::3, 0]
        assert np.abs(middle - tissue).mean() <= (0.0 if compression else 3.0)
