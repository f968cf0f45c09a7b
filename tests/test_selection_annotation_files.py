"""An annotation belongs to the slide that its path names, or to none."""

import json
from pathlib import Path, PurePosixPath

import pytest

from wsisr.selection.annotation_files import Named, annotation_format, match_annotations


def named(relative: str) -> Named:
    name = PurePosixPath(relative).name
    stems = {name, PurePosixPath(name).stem, name.split(".ome.")[0]}
    return Named(relative=relative, names=tuple(sorted(stems)))


def match(slides: list[str], files: list[str]):
    return match_annotations([named(slide) for slide in slides], files)


@pytest.mark.parametrize(
    ("slide", "file"),
    [
        ("a.tif", "a.geojson"),
        ("a.tif", "a.tif.geojson"),
        ("a.tif", "A.XML"),
        ("b.ome.tiff", "b.geojson"),
        ("b.ome.tiff", "b.ome.geojson"),
        ("b.ome.tiff", "b.ome.tiff.json"),
        ("a.svs", "a_annotations.geojson"),
        ("a.svs", "a.svs - Series 1.geojson"),
        ("case/a.svs", "case/annotations/a.xml"),
        ("case/a.svs", "annotations/case/a.xml"),
        ("slides/case/a.svs", "qupath_export/case/a.geojson"),
        ("training/tumor/tumor_001.tif", "training/lesion_annotations/tumor_001.xml"),
        ("a.svs", "exports/deep/a.geojson"),
        ("left/one/a.svs", "right/two/a.geojson"),
    ],
)
def test_names_and_folders_that_people_have(slide: str, file: str) -> None:
    found = match([slide, "other/z.svs"], [file])
    assert (found.found, found.faults, found.unused) == ({slide: file}, {}, ())


def test_an_outline_labels_no_slide_of_another_folder() -> None:
    slides = ["patA/HE.tif", "patB/HE.tif"]
    assert match(slides, ["patA/HE.geojson"]).found == {"patA/HE.tif": "patA/HE.geojson"}
    both = match(slides, ["patA/HE.geojson", "patB/HE.xml"])
    assert both.found == {"patA/HE.tif": "patA/HE.geojson", "patB/HE.tif": "patB/HE.xml"}
    mirrored = match(slides, ["annotations/patB/HE.xml"])
    assert mirrored.found == {"patB/HE.tif": "annotations/patB/HE.xml"}
    # patB's own slide is not there: its outline is not patA's either... unless the name is unique.
    assert match([*slides, "patC/HE.tif"], ["patC/xml/HE.xml"]).found == {
        "patC/HE.tif": "patC/xml/HE.xml"
    }


@pytest.mark.parametrize("file", ["HE.geojson", "annotations/HE.geojson", "deep/er/HE.geojson"])
def test_one_name_in_two_folders_is_a_fault_of_both(file: str) -> None:
    found = match(["patA/HE.tif", "patB/HE.tif"], [file])
    assert not found.found
    assert set(found.faults) == {"patA/HE.tif", "patB/HE.tif"}
    assert all("fits several slides" in fault for fault in found.faults.values())


def test_two_slides_of_a_name_in_one_folder_are_told_apart_by_the_whole_file_name() -> None:
    slides = ["a.svs", "a.ndpi"]
    found = match(slides, ["a.geojson"])
    assert all("call it like the whole file" in fault for fault in found.faults.values())
    assert match(slides, ["a.ndpi.geojson"]).found == {"a.ndpi": "a.ndpi.geojson"}


def test_a_slide_with_an_outline_of_its_own_takes_no_part_in_the_doubt_of_others() -> None:
    found = match(["patA/HE.tif", "patB/HE.tif"], ["patA/HE.xml", "else/HE.xml"])
    assert found.found == {"patA/HE.tif": "patA/HE.xml"}
    assert set(found.faults) == {"patB/HE.tif"}


def test_two_candidates_are_a_fault_and_the_nearer_place_wins() -> None:
    found = match(["a.tif"], ["a.geojson", "a.xml"])
    assert "2 annotation files fit it (a.geojson, a.xml)" in found.faults["a.tif"]
    assert match(["a.tif", "a.svs"], ["a.xml"]).faults.keys() == {"a.tif", "a.svs"}
    own = match(["a.tif", "a.svs"], ["a.tif.xml", "a.svs.xml", "xml/a.tif.xml"])
    assert own.found == {"a.tif": "a.tif.xml", "a.svs": "a.svs.xml"}
    assert match(["a.tif"], ["b.xml"]).unused == ("b.xml",)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('<?xml version="1.0"?><!-- x --><ASAP_Annotations/>', "asap"),
        ("<Annotations><Annotation/></Annotations>", "imagescope"),
        ('{"type": "FeatureCollection", "features": []}', "geojson"),
        ('[{"type": "Feature", "geometry": null}]', "geojson"),
        ("[]", "geojson"),
        ('{"positive": [], "negative": []}', "ncrf"),
        ('[{"content": [], "type": "area"}]', "sectra"),
        ('{"type": "FeatureCollection", "features": [{"type": "Fea', "geojson"),
        ('{"scanner": "X", "mpp": 0.25}', None),
        ('{"content": "text", "positive": 3}', None),
        ("<ome:OME/>", None),
        ("slide,x,y", None),
    ],
)
def test_the_first_bytes_tell_an_annotation(tmp_path: Path, text: str, kind: str | None) -> None:
    path = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert annotation_format(path) == kind


def test_a_long_file_is_told_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    feature = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [0, 0]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 2000}))
    assert path.stat().st_size > 1 << 16
    assert annotation_format(path) == "geojson"
