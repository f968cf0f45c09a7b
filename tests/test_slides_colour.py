"""False colour is noticed, real stains are not accused."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import picture, write_dicom, write_pyramid

from wsisr.slides import colour_check, find_slides, open_slide
from wsisr.slides.colour import judge_colours, rgb_to_ycbcr
from wsisr.slides.decode import ycbcr_to_rgb


def test_the_series_with_a_wrong_tag_is_read_in_the_colours_of_its_stream(
    shared_data: Path,
) -> None:
    slides = shared_data / "slides"
    with (
        open_slide(slides / "cmu-1-small-region_dicom_wrongcolour") as wrong,
        open_slide(slides / "cmu-1-small-region_dicom") as twin,
    ):
        assert colour_check(wrong) is None and colour_check(twin) is None
        np.testing.assert_array_equal(
            wrong.read_level(0, 300, 300, 700, 700), twin.read_level(0, 300, 300, 700, 700)
        )
        how = wrong.info.levels[0].compression
        assert (how.photometric, how.tag, how.colour_by) == ("ycbcr", "rgb", "chroma 4:2:0")
        assert any("the photometric tag says RGB" in quirk for quirk in wrong.info.quirks)
        assert twin.info.levels[0].compression.tag == ""


def test_the_tag_is_blamed_only_where_it_alone_decided(tmp_path: Path) -> None:
    glass = np.full((512, 512, 3), 243, np.uint8)
    glass[200:] = picture(512, 312)
    stored = rgb_to_ycbcr(glass)
    with open_slide(write_pyramid(tmp_path / "a.tif", [stored], compression="lzw")) as slide:
        verdict = colour_check(slide)
    assert verdict is not None and "photometric tag is probably wrong" in verdict
    marked = write_pyramid(
        tmp_path / "b.tif", [stored], quality=95, photometric="ycbcr", subsampling=(2, 2)
    )
    with open_slide(marked) as slide:
        verdict = colour_check(slide)
    assert verdict is not None and "chroma 4:2:0" in verdict and "correct it" not in verdict


def test_no_other_real_image_is_flagged(shared_data: Path) -> None:
    sources = find_slides(shared_data / "slides")
    sources += find_slides(shared_data / "patches") + find_slides(shared_data / "registration")
    assert len(sources) > 40
    for source in sources:
        if source.path.name == "broken.svs":
            continue
        with open_slide(source.path) as slide:
            assert colour_check(slide) is None, source.relative


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "kidney-48-5_ihc_flat.tif"])
def test_both_mixups_of_real_tissue_with_glass_are_seen(shared_data: Path, name: str) -> None:
    with open_slide(shared_data / "slides" / name) as slide:
        level = slide.info.levels[0]
        image = slide.read_level(0, 0, 0, level.width_px, level.height_px)[::8, ::8]
    flat = np.ascontiguousarray(image).reshape(-1, 3)
    assert judge_colours(flat) is None
    shown_as_rgb = judge_colours(rgb_to_ycbcr(image).reshape(-1, 3))
    assert shown_as_rgb is not None and "YCbCr shown as RGB" in shown_as_rgb
    shown_as_ycbcr = judge_colours(ycbcr_to_rgb(image).reshape(-1, 3))
    assert shown_as_ycbcr is not None and "RGB shown as YCbCr" in shown_as_ycbcr


def test_colour_conversions_invert_each_other() -> None:
    image = picture(64, 64)
    back = ycbcr_to_rgb(rgb_to_ycbcr(image))
    assert np.abs(back.astype(int) - image).max() <= 2


def test_blank_tiny_and_dark_slides_pass(tmp_path: Path) -> None:
    assert judge_colours(np.zeros((10, 3), np.uint8)) is None
    assert judge_colours(np.full((999, 3), 255, np.uint8)) is None
    dark = np.zeros((5000, 3), np.uint8)
    dark[:, 2] = np.arange(5000) % 200
    assert judge_colours(dark) is None
    path = write_dicom(tmp_path / "a.dcm", picture(64, 64))
    with open_slide(path) as slide:
        assert colour_check(slide) is None


def test_a_field_of_tissue_without_glass_raises_no_alarm(shared_data: Path) -> None:
    """Its brightest pixels are pink, and neutral by chance if it is taken for YCbCr."""
    folder = shared_data / "sets" / "osteosarcoma"
    if not folder.is_dir():
        pytest.skip(f"the osteosarcoma fields are not in {folder}")
    for path in sorted(folder.glob("*.jpg")):
        with open_slide(path, backend="image") as field:
            pixels = field.read_level(0, 0, 0, 1024, 1024)[::4, ::4].reshape(-1, 3)
        assert judge_colours(pixels) is None, path.name
