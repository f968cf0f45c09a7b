"""DICOM by frame: series of files, full and sparse tilings, and damaged files."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, whole, write_dicom

from wsisr.errors import SlideError
from wsisr.slides import find_slides, open_slide


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(300, 200)


def test_real_series_opens_by_folder_or_by_any_file(shared_data: Path) -> None:
    folder = shared_data / "slides" / "cmu-1-small-region_dicom"
    files = sorted(folder.iterdir())
    infos = []
    for path in (folder, files[0], files[-1]):
        with open_slide(path) as slide:
            infos.append(slide.info)
    assert {info.backend for info in infos} == {"dicom"}
    assert len({(info.levels, info.fingerprint, info.bytes, info.mpp) for info in infos}) == 1
    info = infos[0]
    assert [level.factor for level in info.levels] == [1, 2, 4, 8, 16]
    assert info.mpp is not None and info.mpp.value == pytest.approx(0.499)
    assert str(info.mpp.source) == "dicom"
    assert info.levels[0].compression.subsampling == "4:2:0"


@pytest.mark.parametrize("name", ["cmu-1-small-region_dicom", "camelyon16_lowres_dicom.dcm"])
def test_real_levels_equal_openslide_where_that_is_exact(shared_data: Path, name: str) -> None:
    path = shared_data / "slides" / name
    with open_slide(path) as ours, open_slide(path, backend="openslide") as theirs:
        np.testing.assert_array_equal(whole(ours), whole(theirs))
        for level in ours.info.levels[3:]:
            # Read from (0, 0) OpenSlide has no fraction to interpolate at.
            np.testing.assert_array_equal(whole(ours, level.index), whole(theirs, level.index))


def test_full_tiling_gives_the_pixels(tmp_path: Path, image) -> None:
    path = write_dicom(tmp_path / "a.dcm", image)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), image)
        assert slide.info.objective_power == 20.0
        assert slide.read_validity(0, 0, 0, 300, 200).all()
        compression = slide.info.levels[0].compression
        assert (compression.codec, compression.generations) == ("jpeg2000", 0)


def test_sparse_tiling_places_frames_and_knows_the_missing_ones(tmp_path: Path, image) -> None:
    path = write_dicom(tmp_path / "a.dcm", image, sparse_order=[4, 0, 2])
    with open_slide(path) as slide:
        got, valid = whole(slide), slide.read_validity(0, 0, 0, 300, 200)
        expected = np.zeros((200, 300), bool)
        expected[:128, :128] = expected[:128, 256:] = expected[128:, 128:256] = True
        np.testing.assert_array_equal(valid, expected)
        np.testing.assert_array_equal(got[valid], image[valid])
        assert (got[~valid] == 255).all()
        assert "3 frame(s) were never scanned" in slide.info.quirks[0]


def test_concatenation_and_levels_make_one_slide(tmp_path: Path, image) -> None:
    # File names in another order than the frames.
    write_dicom(tmp_path / "z.dcm", image, part=(0, 4))
    write_dicom(tmp_path / "a.dcm", image, part=(4, 6))
    write_dicom(tmp_path / "b.dcm", box_level(image, 2), um_per_px=1.0)
    write_dicom(tmp_path / "label.dcm", picture(64, 64, 3), kind="LABEL")
    with open_slide(tmp_path) as slide:
        assert [level.factor for level in slide.info.levels] == [1, 2]
        assert slide.info.mpp is not None and slide.info.mpp.value == pytest.approx(0.5)
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(whole(slide, 1), box_level(image, 2))


def test_a_missing_part_is_an_error(tmp_path: Path, image) -> None:
    write_dicom(tmp_path / "z.dcm", image, part=(0, 4))
    with pytest.raises(SlideError, match="a file is missing"):
        open_slide(tmp_path)


def test_two_series_in_a_folder_are_two_slides(tmp_path: Path, image) -> None:
    (tmp_path / "s").mkdir()
    write_dicom(tmp_path / "s" / "a.dcm", image, series="1.2.3")
    write_dicom(tmp_path / "s" / "b.dcm", image[:, ::-1], series="1.2.4")
    with pytest.raises(SlideError, match="2 DICOM series"):
        open_slide(tmp_path / "s")
    slides = find_slides(tmp_path)
    first, second = sorted(slides, key=lambda slide: slide.path)
    assert (first.draw_key, second.draw_key) == ("a", "b")
    with open_slide(second.path) as slide:
        np.testing.assert_array_equal(whole(slide), image[:, ::-1])


@pytest.mark.parametrize("keep", [140, 700, 2000, -100, -4])
def test_cut_off_files_are_refused(tmp_path: Path, image, keep: int) -> None:
    path = write_dicom(tmp_path / "a.dcm", image)
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(SlideError, match=r"a\.dcm"):
        open_slide(path)


def test_other_dicom_files_are_no_slides(tmp_path: Path, image) -> None:
    path = write_dicom(tmp_path / "a.dcm", image)
    uid = b"1.2.840.10008.5.1.4.1.1.77.1.6"
    path.write_bytes(path.read_bytes().replace(uid, uid[:-1] + b"4"))
    with pytest.raises(SlideError, match="no whole-slide"):
        open_slide(path, backend="dicom")
    assert find_slides(tmp_path) == []
