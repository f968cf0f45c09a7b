"""Finding slides: what counts, what it is called, and that ids are unique."""

import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from slides_samples import picture, write_dicom

from wsisr.errors import SlideError
from wsisr.slides import describe_left_out, find_slides, list_source, sanitise_id


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_real_folder(shared_data: Path) -> None:
    slides = find_slides(shared_data / "slides")
    found = sorted((slide.draw_key, slide.kind, len(slide.files)) for slide in slides)
    assert found == [
        ("CMU-1-Small-Region", "tiff", 1),
        ("broken", "tiff", 1),
        ("camelyon16_lowres_dicom", "dicom", 1),
        ("cmu-1-small-region_dicom", "dicom", 5),
        ("cmu-1-small-region_dicom_wrongcolour", "dicom", 5),
        ("derived_cmu_generic_3level", "tiff", 1),
        ("kidney-48-5_ihc_flat", "tiff", 1),
        ("test3-DAPI", "tiff", 1),
    ]
    paths = {slide.draw_key: slide.path for slide in slides}
    assert paths["cmu-1-small-region_dicom"].is_dir()
    assert paths["camelyon16_lowres_dicom"].is_file()
    assert pickle.loads(pickle.dumps(slides)) == slides  # noqa: S301


def test_ids_are_relative_paths_and_neighbours_change_none(tmp_path: Path) -> None:
    first = ["a/x.svs", "b/x.svs", "b/y (1).ome.tif", "x.svs"]
    later = ["a/x.tif", "X.tif", "a/x.ome.tif", "b/y_1_.ome.tif"]
    for name in (*first, "a/notes.xml", "a/readme.txt", ".hidden/z.svs", "a/.z.svs", "mask.npy"):
        touch(tmp_path / name)
    before = {slide.relative: slide.slide_id for slide in find_slides(tmp_path)}
    assert before.pop("b/y (1).ome.tif").startswith("b__y_1_.ome.tif~")
    assert before == {"a/x.svs": "a__x.svs", "b/x.svs": "b__x.svs", "x.svs": "x.svs"}
    for name in later:
        touch(tmp_path / name)
    after = {slide.relative: slide.slide_id for slide in find_slides(tmp_path)}
    assert set(after) == {*first, *later}
    assert {name: after[name] for name in before} == before
    # X.tif and x.tif would be one folder on a file system that ignores case.
    assert len({slide_id.lower() for slide_id in after.values()}) == len(after)


def test_one_file_is_a_source(tmp_path: Path) -> None:
    path = touch(tmp_path / "deep" / "slide 7.svs")
    (slide,) = find_slides(path)
    assert (slide.slide_id, slide.relative, slide.path) == (slide.slide_id, "slide 7.svs", path)
    assert slide.slide_id.startswith("slide_7.svs~") and slide.draw_key == "slide_7"
    with pytest.raises(SlideError, match="no slide or image format"):
        find_slides(touch(tmp_path / "a.docx"))
    with pytest.raises(SlideError, match="no such file"):
        find_slides(tmp_path / "nothing")


def test_broken_dicom_files_stay_in_sight(tmp_path: Path) -> None:
    touch(tmp_path / "text.dcm", b"no dicom at all" * 20)
    good = write_dicom(tmp_path / "good.dcm", picture(64, 64))
    touch(tmp_path / "cut.dcm", good.read_bytes()[:150])
    assert sorted(slide.draw_key for slide in find_slides(tmp_path)) == ["cut", "good", "text"]


def test_dicom_without_suffix_is_found(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    write_dicom(tmp_path / "case" / "IM0001", picture(64, 64))
    write_dicom(tmp_path / "case" / "IM0002", picture(32, 32), um_per_px=1.0)
    (slide,) = find_slides(tmp_path)
    assert (slide.draw_key, slide.relative, len(slide.files)) == ("case", "case", 2)
    # A series keeps its id whatever else, and however many files of its own, the folder holds.
    (tmp_path / "case" / "IM0001").unlink()
    write_dicom(tmp_path / "case" / "A", picture(64, 64), series="1.2.9")
    assert slide.slide_id in [other.slide_id for other in find_slides(tmp_path)]


@given(st.text(max_size=60))
def test_sanitised_ids_are_safe_names(text: str) -> None:
    name = sanitise_id(text)
    assert name and not name.startswith(("__", ".")) and not name.endswith(".")
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    assert sanitise_id(name) == name


def left_out(source: Path) -> dict[str, str]:
    return {item.relative: item.reason for item in list_source(source).left_out}


def ids(source: Path) -> list[str]:
    return [slide.relative for slide in list_source(source).slides]


@pytest.mark.parametrize(
    "beside",
    [
        "a.png",
        "A.JPG",
        "a.svs.png",
        "a_thumb.jpg",
        "a-thumbnail.png",
        "a.macro.jpg",
        "thumbnails/a.jpeg",
        "thumbs/2024/a.png",
        "a_mask.tiff",
        "masks/a_mask.tif",
        "train_label_masks/a_mask.tiff",
        "masks/a.tif",
        "a_evaluation_mask.png",
        "a_seg.png",
        "a_label.png",
        "ground_truth/a.png",
        "project/data/1/thumbnail.jpg",
        "macro.png",
        "a_heatmap.png",
        "a_1024_2048.jpg",
        "a.svs_fuse.png",
        "tissue/a.png",
        "qc/2024/a.svs_fuse.png",
    ],
)
def test_pictures_and_masks_of_slides_are_none(tmp_path: Path, beside: str) -> None:
    touch(tmp_path / "a.svs")
    touch(tmp_path / beside)
    assert ids(tmp_path) == ["a.svs"]
    assert list(left_out(tmp_path)) == [beside]
    assert "of a listed slide" in left_out(tmp_path)[beside]
    assert not any(item.loses_slides for item in list_source(tmp_path).left_out)


def test_images_and_slides_that_belong_to_no_other_stay(tmp_path: Path) -> None:
    names = ["1/HE.png", "2/HE.svs", "a.png", "b.jpg", "case.svs", "case_2.svs", "case_map2.svs"]
    names += ["case_tissue.tif", "mask.tif", "other_mask.tif"]
    for name in names:
        touch(tmp_path / name)
    assert sorted(ids(tmp_path)) == sorted(names) and not left_out(tmp_path)


def test_formats_that_nobody_reads_are_named_with_a_way_out(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")
    unread = ["b.vsi", "b.isyntax", "b.kfb", "b.SDPC", "b.zvi", "d.svs.partial", "e.svs.gz"]
    for name in [*unread, "notes.txt", "notes.partial", "x.gz"]:
        touch(tmp_path / name)
    found = left_out(tmp_path)
    assert sorted(found) == sorted(unread)
    assert all("convert" in found[f"b.{s}"] or "export" in found[f"b.{s}"] for s in ("vsi", "kfb"))
    assert all(item.loses_slides for item in list_source(tmp_path).left_out)
    with pytest.raises(SlideError, match=r"b\.kfb: a format that wsisr does not read: KFBIO"):
        find_slides(tmp_path / "b.kfb")


def test_what_a_vms_names_is_part_of_it(tmp_path: Path) -> None:
    parts = ["s.jpg", "s(1,0).jpg", "s_map.jpg", "s_macro.jpg"]
    for name in (*parts, "else.jpg"):
        touch(tmp_path / name)
    touch(tmp_path / "outside.jpg")
    (tmp_path / "s.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=s.jpg\nImageFile(1,0)=s(1,0).jpg\r\n"
        "MapFile = s_map.jpg\nMacroImage=s_macro.jpg\nOptimisationFile=/etc/passwd\n"
    )
    slides = {slide.relative: slide for slide in list_source(tmp_path).slides}
    assert sorted(slides) == ["else.jpg", "outside.jpg", "s.vms"]
    assert {file.name for file in slides["s.vms"].files} == {"s.vms", *parts}
    assert sorted(left_out(tmp_path)) == sorted(parts)


def test_links_are_followed_once_and_dangling_ones_are_named(tmp_path: Path) -> None:
    source = tmp_path / "s"
    touch(source / "a.svs")
    touch(source / "sub" / "c.svs")
    touch(tmp_path / "store" / "deep" / "b.svs")
    (source / "batch").symlink_to("../store")
    (source / "again").symlink_to("sub")
    (source / "zbatch").symlink_to("../store")
    (source / "up").symlink_to("..")
    (source / "self").symlink_to(".")
    (tmp_path / "store" / "deep" / "back").symlink_to("..")
    (source / "gone.tif").symlink_to("../nowhere/gone.tif")
    (source / "copy.svs").symlink_to("a.svs")
    assert ids(source) == ["a.svs", "batch/deep/b.svs", "sub/c.svs"]
    found = left_out(source)
    assert sorted(found) == [
        "again", "batch/deep/back", "copy.svs", "gone.tif", "self", "up", "zbatch",
    ]  # fmt: skip
    assert "not there" in found["gone.tif"] and "listed already" in found["copy.svs"]
    lost = [item.relative for item in list_source(source).left_out if item.loses_slides]
    assert lost == ["gone.tif"]


def test_indices_and_other_dicom_are_no_slides(tmp_path: Path) -> None:
    write_dicom(tmp_path / "IM1", picture(64, 64))
    other = write_dicom(tmp_path / "seg.dcm", picture(64, 64), series="1.2.9")
    uid = b"1.2.840.10008.5.1.4.1.1.77.1.6"
    other.write_bytes(other.read_bytes().replace(uid, uid[:-1] + b"4"))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = meta.ImplementationClassUID = "1.2.3"
    index = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    index.FileSetID, index.DirectoryRecordSequence = "X", []
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    assert [slide.files[0].name for slide in list_source(tmp_path).slides] == ["IM1"]
    found = left_out(tmp_path)
    assert "index of a DICOM medium" in found["DICOMDIR"] and "segmentation" in found["seg.dcm"]


def test_stores_and_their_reports_hold_no_slides(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")
    touch(tmp_path / "p.zarr" / "zarr.json", b'{"attributes": {"wsisr": {}}}')
    touch(tmp_path / "p.report" / "slides" / "a.png")
    touch(tmp_path / "p.report" / "failures.csv")
    touch(tmp_path / "p.zarr.partial" / "scan" / "a.overview.png")
    touch(tmp_path / "x.ome.zarr" / "zarr.json", b"{}")
    touch(tmp_path / "real.report" / "b.svs")
    assert ids(tmp_path) == ["a.svs", "real.report/b.svs"]
    assert list(left_out(tmp_path)) == ["x.ome.zarr"]


def test_left_out_files_are_told_by_reason(tmp_path: Path) -> None:
    for k in range(5):
        touch(tmp_path / f"s{k}.svs")
        touch(tmp_path / f"s{k}.png")
    touch(tmp_path / "x.kfb")
    lines = describe_left_out(list_source(tmp_path).left_out)
    assert len(lines) == 2
    assert lines[0].startswith("Left out: x.kfb: a format that wsisr does not read")
    assert lines[1].startswith("Left out: s0.png, s1.png, s2.png and 2 more: a picture")


def test_pipes_and_sockets_are_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    os.mknod(tmp_path / "sock.svs", stat.S_IFSOCK | 0o600)
    assert not list_source(tmp_path).slides
    found = left_out(tmp_path)
    assert sorted(found) == ["pipe.tif", "sock.svs"]
    assert all("a named pipe, a socket or a device" in reason for reason in found.values())
