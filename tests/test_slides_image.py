"""Plain images: one level, resolution only where a tag can be a microscope's."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from slides_samples import picture

from wsisr.errors import SlideError
from wsisr.slides import open_slide


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(1500, 1100)


def test_png_is_read_exactly_across_blocks(tmp_path: Path, image) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    with open_slide(path) as slide:
        assert slide.info.backend == "image" and slide.info.levels[0].factor == 1
        got = slide.read_level(0, 900, 900, 600, 220)
        np.testing.assert_array_equal(got[:200], image[900:, 900:])
        assert (got[200:] == 255).all()
        assert slide.info.mpp is None and "--mpp-override" in slide.info.mpp_problem
        assert slide.info.levels[0].compression.codec == "png"


def test_resolution_tags(tmp_path: Path, image) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(image[:64, :64]).save(path, dpi=(72, 72))
    with open_slide(path) as slide:
        assert slide.info.mpp is None and "72 dpi" in slide.info.mpp_problem
    Image.fromarray(image[:64, :64]).save(path, dpi=(50800, 50800))
    with open_slide(path) as slide:
        assert slide.info.mpp is not None
        assert slide.info.mpp.value == pytest.approx(0.5, rel=1e-3)
        assert str(slide.info.mpp.quality) == "derived"


def test_jpeg_tells_its_quality(tmp_path: Path, image) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(image).save(path, quality=83, subsampling=2)
    with open_slide(path) as slide:
        compression = slide.info.levels[0].compression
        assert (compression.codec, compression.quality) == ("jpeg", 83)
        assert (compression.subsampling, compression.generations) == ("4:2:0", 1)
        np.testing.assert_array_equal(
            slide.read_level(0, 0, 0, 1500, 1100), np.asarray(Image.open(path).convert("RGB"))
        )


def test_transparent_pixels_are_white_and_invalid(tmp_path: Path, image) -> None:
    alpha = np.full((1100, 1500), 255, np.uint8)
    alpha[:100, :50] = 0
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([image, alpha])).save(path)
    with open_slide(path) as slide:
        assert (slide.read_level(0, 0, 0, 50, 100) == 255).all()
        valid = slide.read_validity(0, 0, 0, 1500, 1100)
        np.testing.assert_array_equal(valid, alpha > 0)


def test_a_tiff_of_several_pages_is_no_plain_image(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    pages = [Image.fromarray(picture(40, 30, seed)) for seed in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(SlideError, match="3 pages"):
        open_slide(path, backend="image")


def test_deep_and_broken_images_are_refused(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(deep)
    with pytest.raises(SlideError, match="8-bit"):
        open_slide(deep, backend="image")
    broken = tmp_path / "broken.png"
    Image.fromarray(picture(300, 300)).save(broken)
    broken.write_bytes(broken.read_bytes()[:20000])
    with open_slide(broken) as slide, pytest.raises(SlideError, match="copy it again"):
        slide.read_level(0, 0, 0, 10, 10)
