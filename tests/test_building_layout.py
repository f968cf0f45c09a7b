"""A folder's layout is understood from names; the user's table has the last word."""

from dataclasses import replace
from pathlib import Path

import pytest

from wsisr.building.layout import apply_overrides, find_patients, recognise
from wsisr.errors import ManifestError
from wsisr.selection.pseudonyms import Pseudonyms
from wsisr.slides import find_slides

SECRET = Pseudonyms(lambda: b"0123456789abcdef")


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"<ASAP_Annotations/>" if path.suffix == ".xml" else b"II*\0")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    for name in ("normal/normal_001", "normal/normal_120", "tumor/tumor_001", "tumor/tumor_100"):
        touch(tmp_path / "training" / f"{name}.tif")
    for name in ("test_001", "test_002"):
        touch(tmp_path / "testing/images" / f"{name}.tif")
    touch(tmp_path / "training/lesion_annotations/tumor_001.xml")
    (tmp_path / "testing/reference.csv").write_text("test_001,Tumor,IDC,Macro\ntest_002,Normal\n")
    return tmp_path


def test_the_official_layout_gives_splits_classes_and_centres(official: Path) -> None:
    layout = recognise(official, find_slides(official))
    assert layout.name == "camelyon16-official"
    assert layout.manifest == "pathimgsr"
    found = {t.source.path.stem: (t.split, t.label, t.site) for t in layout.tasks}
    assert found == {
        "normal_001": ("train", "normal", "RUMC"),
        "normal_120": ("train", "normal", "UMCU"),
        "tumor_001": ("train", "tumor", "RUMC"),
        "tumor_100": ("train", "tumor", "UMCU"),
        "test_001": ("test", "tumor", ""),
        "test_002": ("test", "normal", ""),
    }
    annotated = {t.source.path.stem for t in layout.tasks if t.annotation}
    assert annotated == {"tumor_001"}


def test_a_camelyon16_slide_is_the_same_patient_in_every_layout(
    official: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flat = tmp_path_factory.mktemp("flat")
    for name in ("normal_001", "tumor_001", "test_001"):
        touch(flat / f"{name}.tif")
    names = [
        {t.source.path.stem: t.patient.name for t in recognise(f, find_slides(f)).tasks}
        for f in (official, flat)
    ]
    assert names[1] == {n: n for n in names[1]} and names[1].items() <= names[0].items()


def test_the_flat_layout_takes_a_test_slides_class_from_its_annotation(tmp_path: Path) -> None:
    for name in ("normal_001", "tumor_001", "test_001", "test_002"):
        touch(tmp_path / f"{name}.tif")
    touch(tmp_path / "lesion_annotations/test_001.xml")
    layout = recognise(tmp_path, find_slides(tmp_path))
    assert layout.name == "camelyon16-flat"
    labels = {t.slide_id: t.label for t in layout.tasks}
    assert (labels["test_001"], labels["test_002"]) == ("tumor", "normal")


def test_any_other_folder_is_plain_and_tcga_barcodes_name_the_patient(tmp_path: Path) -> None:
    touch(tmp_path / "TCGA-A1-A0SB-01Z-00-DX1.svs")
    touch(tmp_path / "TCGA-A1-A0SB-01Z-00-DX2.svs")
    touch(tmp_path / "other.svs")
    layout = recognise(tmp_path, find_slides(tmp_path))
    assert (layout.name, layout.manifest) == ("folder", "default")
    tasks = find_patients(layout.tasks, None, SECRET)
    assert [t.patient.name for t in tasks] == ["TCGA-A1-A0SB", "TCGA-A1-A0SB", "other.svs"]
    assert [str(t.patient.source) for t in tasks] == ["barcode", "barcode", "assumed"]


def override(folder: Path, text: str) -> Path:
    table = folder / "table.csv"
    table.write_text(text)
    return table


def test_the_table_overrides_by_name_or_id_and_empty_cells_keep(official: Path) -> None:
    tasks = recognise(official, find_slides(official)).tasks
    table = override(
        official,
        "slide, mpp, patient, split\nnormal_001.tif,0.25,p1,\n"
        "testing/images/test_001.tif,,p1,val\n",
    )
    changed = {t.source.path.stem: t for t in apply_overrides(tasks, table, SECRET)}
    patient = changed["normal_001"].patient
    assert changed["normal_001"].mpp == 0.25
    assert (patient.name, patient.draw) == (SECRET.of("patient", "p1"), "p1")
    assert (patient.source, patient.quality) == ("table", "stated")
    assert changed["test_001"].patient == patient
    assert changed["tumor_001"].patient.source == "layout"
    assert (changed["normal_001"].split, changed["normal_001"].split_is_override) == (
        "train",
        False,
    )
    assert (changed["test_001"].split, changed["test_001"].split_is_override) == ("val", True)
    assert changed["test_001"].mpp is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,mp\nnormal_001.tif,1\n", "unknown column 'mp'"),
        ("name,mpp\nnormal_001.tif,1\n", "unknown column 'name'"),
        ("slide,mpp\nnormal_01.tif,1\n", r"line 2.*did you mean 'normal_001.tif'"),
        ("slide,mpp\nnormal_001.tif,fast\n", "no number"),
        ("slide,split\nnormal_001.tif,training\n", "not train, val or test"),
        ("slide,mpp\nnormal_001.tif,1\nnormal_001.tif,2\n", "has a row already"),
        ("slide,mpp\nnormal_001.tif,1,3\n", "more cells"),
        ("", "no column 'slide'"),
        ("Kowalska.tif,17\nnormal_001.tif,1\n", "its first line names none of the columns"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(official: Path, text: str, words: str) -> None:
    tasks = recognise(official, find_slides(official)).tasks
    with pytest.raises(ManifestError, match=words) as refused:
        apply_overrides(tasks, override(official, text), SECRET)
    assert not any(word in str(refused.value) for word in ("fast", "'training'", "Kowalska"))
    hidden = [replace(task, private=True) for task in tasks]
    with pytest.raises(ManifestError) as refused:
        apply_overrides(hidden, override(official, text), SECRET)
    assert "normal_0" not in str(refused.value)
