"""Profiles are kept by default and applied to every pixel when asked for."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from slides_samples import picture, write_pyramid

from wsisr.errors import SlideError
from wsisr.geometry import Layer, patch_geometry
from wsisr.slides import iter_patches, open_slide


def lab_like_profile() -> bytes:
    """An RGB profile with another gamma than sRGB: littleCMS' own sRGB with its curves replaced."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = bytearray(profile)
    # Parametric curves ('para') hold gamma 2.4 as s15Fixed16 first; make it 1.8.
    position = data.find(b"para")
    while position >= 0:
        data[position + 12 : position + 16] = int(1.8 * 65536).to_bytes(4, "big")
        position = data.find(b"para", position + 4)
    return bytes(data)


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory) -> Path:
    return write_pyramid(
        tmp_path_factory.mktemp("icc") / "a.tif",
        [picture(500, 400)],
        compression="deflate",
        iccprofile=lab_like_profile(),
        missing={1},
    )


def test_kept_by_default_with_its_hash(slide_path: Path) -> None:
    profile = lab_like_profile()
    with open_slide(slide_path) as slide:
        assert slide.icc_profile() == profile
        assert slide.info.icc_sha256 == hashlib.sha256(profile).hexdigest()
        stored = slide.read_level(0, 0, 0, 256, 400)
        np.testing.assert_array_equal(stored, picture(500, 400)[:, :256])
    with open_slide(slide_path, backend="openslide") as slide:
        assert slide.icc_profile() == profile
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 256, 400), stored)


def test_conversion_is_pillows_whatever_the_tiles(slide_path: Path) -> None:
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(__import__("io").BytesIO(lab_like_profile())),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
    )
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(picture(500, 400)), transform))
    with open_slide(slide_path, icc="srgb") as slide:
        got = slide.read_level(0, 0, 0, 500, 400)
        valid = slide.read_validity(0, 0, 0, 500, 400)
        assert np.abs(expected[valid].astype(int) - picture(500, 400)[valid]).mean() > 3
        np.testing.assert_array_equal(got[valid], expected[valid])
        assert (got[~valid] == 255).all() and not valid.all()
        geometry = patch_geometry(
            (Layer(name="40x", factor=1.0, size_px=200, level=0, reduction=1.0),), (1,)
        )
        for _, patch, _ in iter_patches(slide, geometry, np.array([[10, 90]])):
            np.testing.assert_array_equal(patch["40x"], got[90:290, 10:210])


def test_a_slide_without_profile_is_unchanged_and_says_so(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tif", [picture(99, 99)], compression="lzw")
    with open_slide(path, icc="srgb") as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 99, 99), picture(99, 99))
        assert any("No ICC profile" in quirk for quirk in slide.info.quirks)
        assert slide.info.icc_sha256 is None


def test_a_damaged_profile_is_an_error_only_when_it_is_needed(tmp_path: Path) -> None:
    path = write_pyramid(
        tmp_path / "a.tif", [picture(99, 99)], compression="lzw", iccprofile=b"nonsense" * 30
    )
    with open_slide(path) as slide:
        assert slide.info.icc_sha256 is not None
    with pytest.raises(SlideError, match="icc='keep'"):
        open_slide(path, icc="srgb")
