"""The output opens everywhere, with every level, and says what it is."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
import tifffile
import tiffslide
from defusedxml import ElementTree
from PIL import ImageCms
from slides_samples import picture
from upscaling_samples import MoodyEngine

from wsisr.errors import ConfigError
from wsisr.inference import load
from wsisr.slides import open_slide
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling.codecs import COMPRESSIONS, make_codec
from wsisr.upscaling.ome import NAMESPACE, OmeFacts, ome_xml
from wsisr.upscaling.pyramid import level_sizes

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIZE = (1300, 700)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small output for each compression."""
    folder = tmp_path_factory.mktemp("out")
    source = folder / "s.tiff"
    image = cv2.GaussianBlur(picture(SIZE[0] // 2, SIZE[1] // 2), (0, 0), 1.0)
    tifffile.imwrite(
        source,
        image,
        tile=(256, 256),
        photometric="rgb",
        iccprofile=ICC,
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    made = {}
    for name in ("jpeg", "deflate", "zstd", "jpegxl", "jpeg2000"):
        made[name] = folder / f"{name}.ome.tiff"
        options = UpscaleOptions(scale=2.0, compression=name)
        upscale_slide(source, made[name], load("bicubic"), options)
    return made


def _region(slide: Any, level: int, size: tuple[int, int]) -> Any:
    return np.asarray(slide.read_region((0, 0), level, size))[..., :3].astype(int)


@pytest.mark.parametrize("name", ["jpeg", "deflate", "zstd", "jpegxl", "jpeg2000"])
def test_readers_agree_on_levels_pixels_and_resolution(outputs: dict[str, Path], name: str) -> None:
    path, reference = outputs[name], outputs["zstd"]
    sizes = level_sizes(*SIZE)
    with open_slide(reference) as slide:
        exact = [slide.read_level(i, 0, 0, *size).astype(int) for i, size in enumerate(sizes)]
    limit = 0.0 if name in ("deflate", "zstd") else 3.0
    readers: list[tuple[str, Any]] = [("tiffslide", tiffslide.TiffSlide(str(path)))]
    if name in ("jpeg", "deflate", "zstd"):  # OpenSlide knows no JPEG 2000 or XL in plain TIFF
        readers.append(("openslide", openslide.OpenSlide(str(path))))
    for library, slide in readers:
        assert list(slide.level_dimensions) == sizes, library
        assert float(slide.properties[f"{library}.mpp-x"]) == pytest.approx(0.25)
        for level, size in enumerate(sizes):
            assert np.abs(_region(slide, level, size) - exact[level]).mean() <= limit, library
        slide.close()
    with open_slide(path) as ours:
        assert [(v.width_px, v.height_px) for v in ours.info.levels] == sizes
        assert ours.info.mpp is not None and ours.info.mpp.value == pytest.approx(0.25)
        if ours.info.backend == "direct":  # JPEG XL is read through tiffslide, which has none
            assert ours.icc_profile() == ICC
        for level, size in enumerate(sizes):
            assert np.abs(ours.read_level(level, 0, 0, *size) - exact[level]).mean() <= limit


def test_levels_are_found_as_pages_and_as_sub_directories(outputs: dict[str, Path]) -> None:
    with tifffile.TiffFile(outputs["jpeg"]) as tiff:
        assert tiff.is_bigtiff and tiff.is_ome
        assert [level.shape[:2] for level in tiff.series[0].levels] == [
            (h, w) for w, h in level_sizes(*SIZE)
        ]
        first = tiff.pages[0]
        sub = list(first.pages)
        assert len(sub) == len(tiff.pages) - 1 == 2
        for a, b in zip(sub, tiff.pages[1:], strict=True):
            assert a.dataoffsets == b.dataoffsets and a.offset != b.offset
            assert a.aspage().subfiletype == b.aspage().subfiletype == 1
            a, b = a.aspage(), b.aspage()
            assert a.tags["InterColorProfile"].value == ICC
            numerator, denominator = a.tags["XResolution"].value
            assert numerator / denominator < 40_000
        numerator, denominator = first.tags["XResolution"].value
        assert numerator / denominator == pytest.approx(40_000) and first.resolutionunit == 3


@pytest.mark.parametrize("quality", [85, 90, 95])
def test_subsampling_is_stated_only_where_chroma_is_subsampled(
    tmp_path: Path, quality: int
) -> None:
    source = tmp_path / "a.png"
    cv2.imwrite(str(source), picture(100, 80))
    path = tmp_path / "a.ome.tiff"
    options = UpscaleOptions(scale=2.0, quality=quality)
    upscale_slide(source, path, load("bicubic"), options)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        stream = path.read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
        stated = page.tags[530].value if 530 in page.tags else None
    start = stream.index(b"\xff\xc0")  # SOF0: the sampling factors of Y are at +11
    factors = stream[start + 11] >> 4, stream[start + 11] & 15
    assert factors == ((2, 2) if quality < 90 else (1, 1))
    # Bio-Formats converts colours twice where the tag says 1, 1.
    assert stated == (None if factors == (1, 1) else factors)


def test_a_name_may_hold_what_xml_cannot() -> None:
    facts = OmeFacts(
        name="a\x00\x1b\ud800\ufffe\uffffb\u00e9\U0001f52c",
        width_px=1,
        height_px=1,
        um_per_px=None,
        magnification=None,
        notice="n",
        provenance={},
    )
    image = ElementTree.fromstring(ome_xml(facts)).find(f"{{{NAMESPACE}}}Image")
    assert image is not None and image.get("Name") == "ab\u00e9\U0001f52c"


def test_ome_xml_has_the_schemas_order_and_the_provenance(outputs: dict[str, Path]) -> None:
    with tifffile.TiffFile(outputs["jpeg"]) as tiff:
        text = tiff.pages[0].description
    assert text.isascii()
    root = ElementTree.fromstring(text)
    names = [re.sub(r"\{.*\}", "", e.tag) for e in root.iter()]
    assert names[: names.index("StructuredAnnotations")] == [
        "OME",
        "Instrument",
        "Objective",
        "Image",
        "Description",
        "InstrumentRef",
        "ObjectiveSettings",
        "Pixels",
        "Channel",
        "TiffData",
        "AnnotationRef",
    ]
    pixels = root.find(f".//{{{NAMESPACE}}}Pixels")
    assert (pixels.get("SizeX"), pixels.get("SizeY")) == ("1300", "700")
    assert float(pixels.get("PhysicalSizeX")) == pytest.approx(0.25)
    assert root.find(f".//{{{NAMESPACE}}}Objective").get("NominalMagnification") == "40"
    facts = {m.get("K"): m.text for m in root.iter(f"{{{NAMESPACE}}}M")}
    assert facts["model"] == "bicubic" and facts["input"] == "s.tiff"
    assert facts["notice"] == "enlarged by interpolation; not for diagnosis"
    assert len(facts["input_fingerprint"]) == 64


def test_a_networks_output_says_so_and_names_its_weights(
    outputs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "o.ome.tiff"
    source = outputs["zstd"].with_name("s.tiff")
    upscale_slide(source, out, MoodyEngine(), UpscaleOptions(scale=2.0))
    with tifffile.TiffFile(out) as tiff:
        root = ElementTree.fromstring(tiff.pages[0].description)
    description = root.find(f".//{{{NAMESPACE}}}Description").text
    assert description.startswith("super-resolved by a neural network; not for diagnosis")
    facts = {m.get("K"): m.text for m in root.iter(f"{{{NAMESPACE}}}M")}
    assert facts["weights_sha256"] == "0" * 64
    assert facts["trained_on_degradation"] == "not recorded"


def test_empty_glass_is_stored_once(tmp_path: Path) -> None:
    image = np.full((1024, 2048, 3), 243, np.uint8)
    image[:100, :100] = picture(100, 100)
    source = tmp_path / "s.tiff"
    tifffile.imwrite(source, image, tile=(256, 256), photometric="rgb")
    out = tmp_path / "o.ome.tiff"
    options = UpscaleOptions(scale=2.0, mpp=0.5)
    upscale_slide(source, out, load("bicubic"), options)
    with tifffile.TiffFile(out) as tiff:
        assert len(set(tiff.pages[0].dataoffsets)) == 2
        assert (tiff.asarray()[600:, 600:] == 243).all()


def test_quality_and_compression_are_checked() -> None:
    assert make_codec("lossless", 50).lossless and make_codec("jpegxl", 100).lossless
    assert not make_codec("jpeg", 100).lossless
    assert make_codec("jpeg", 89).subsampling == (2, 2) and make_codec("jpeg", 90).subsampling == (
        1,
        1,
    )
    for name in COMPRESSIONS:
        assert make_codec(name, 80).describe()
    with pytest.raises(ConfigError, match="--quality"):
        make_codec("jpeg", 0)


@pytest.mark.parametrize("name", ["jpegxl", "jpeg2000", "deflate", "zstd"])
def test_lossless_is_lossless(name: str) -> None:
    import imagecodecs

    tile = picture(64, 64)
    data = make_codec(name, 100).encode(tile)
    if name in ("deflate", "zstd"):
        raw = (imagecodecs.zlib_decode if name == "deflate" else imagecodecs.zstd_decode)(data)
        found = imagecodecs.delta_decode(np.frombuffer(raw, np.uint8).reshape(64, 64, 3), axis=1)
    else:
        found = (imagecodecs.jpegxl_decode if name == "jpegxl" else imagecodecs.jpeg2k_decode)(data)
    np.testing.assert_array_equal(found, tile)
