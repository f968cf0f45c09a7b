"""Finding slides: what counts, what it is called, and that ids are unique."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slides_samples import picture, write_dicom

from wsisr.errors import SlideError
from wsisr.slides import find_slides, sanitise_id


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_real_folder(shared_data: Path) -> None:
    slides = find_slides(shared_data / "slides")
    assert [(slide.slide_id, slide.kind, len(slide.files)) for slide in slides] == [
        ("CMU-1-Small-Region", "tiff", 1),
        ("broken", "tiff", 1),
        ("camelyon16_lowres_dicom", "dicom", 1),
        ("cmu-1-small-region_dicom", "dicom", 5),
        ("cmu-1-small-region_dicom_wrongcolour", "dicom", 5),
        ("derived_cmu_generic_3level", "tiff", 1),
        ("kidney-48-5_ihc_flat", "tiff", 1),
        ("test3-DAPI", "tiff", 1),
    ]
    assert slides[3].path.is_dir() and slides[2].path.is_file()
    assert pickle.loads(pickle.dumps(slides)) == slides  # noqa: S301


def test_ids_are_relative_paths_and_collisions_get_the_suffix(tmp_path: Path) -> None:
    for name in ("a/x.svs", "a/x.tif", "b/x.svs", "b/y (1).ome.tif", "x.svs", "X.tif"):
        touch(tmp_path / name)
    for name in ("a/notes.xml", "a/readme.txt", ".hidden/z.svs", "a/.z.svs", "mask.npy"):
        touch(tmp_path / name)
    slides = find_slides(tmp_path)
    ids = [slide.slide_id for slide in slides]
    # x.svs and X.tif would be one folder on a file system that ignores case.
    assert ids == ["X.tif", "a__x.svs", "a__x.tif", "b__x", "b__y_1_", "x.svs"]
    assert ids == sorted(ids)
    assert [slide.relative for slide in slides if slide.slide_id == "b__y_1_"] == [
        "b/y (1).ome.tif"
    ]


def test_one_file_is_a_source(tmp_path: Path) -> None:
    path = touch(tmp_path / "deep" / "slide 7.svs")
    (slide,) = find_slides(path)
    assert (slide.slide_id, slide.relative, slide.path) == ("slide_7", "slide 7.svs", path)
    with pytest.raises(SlideError, match="no slide or image format"):
        find_slides(touch(tmp_path / "a.docx"))
    with pytest.raises(SlideError, match="no such file"):
        find_slides(tmp_path / "nothing")


def test_broken_dicom_files_stay_in_sight(tmp_path: Path) -> None:
    touch(tmp_path / "text.dcm", b"no dicom at all" * 20)
    good = write_dicom(tmp_path / "good.dcm", picture(64, 64))
    touch(tmp_path / "cut.dcm", good.read_bytes()[:150])
    assert [slide.slide_id for slide in find_slides(tmp_path)] == ["cut", "good", "text"]


def test_dicom_without_suffix_is_found(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    write_dicom(tmp_path / "case" / "IM0001", picture(64, 64))
    write_dicom(tmp_path / "case" / "IM0002", picture(32, 32), um_per_px=1.0)
    (slide,) = find_slides(tmp_path)
    assert (slide.slide_id, slide.relative, len(slide.files)) == ("case", "case", 2)


@given(st.text(max_size=60))
def test_sanitised_ids_are_safe_names(text: str) -> None:
    name = sanitise_id(text)
    assert name and not name.startswith(("__", ".")) and not name.endswith(".")
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    assert sanitise_id(name) == name
