"""Whose a slide is: by the best source there is, never with a value that names a person."""

import os
import stat
from pathlib import Path

import pytest

from wsisr.errors import ConfigError, ManifestError
from wsisr.selection import pseudonyms as keys
from wsisr.selection.patients import (
    Patient,
    PatientRule,
    PatientSource,
    barcode_of,
    describe_patients,
    find_patient,
    is_placeholder,
    stated_patient,
)
from wsisr.selection.pseudonyms import Pseudonyms, own_key, pseudonyms_of, read_key


def secret(text: bytes = b"0123456789abcdef") -> Pseudonyms:
    return Pseudonyms(lambda: text)


def own(name: str = "slide", source: PatientSource = PatientSource.ASSUMED) -> Patient:
    return Patient(name=name, draw=name, source=source)


@pytest.mark.parametrize(
    ("path", "archive", "patient"),
    [
        ("TCGA-A1-A0SB-01Z-00-DX1.8AF4C8.svs", "TCGA", "TCGA-A1-A0SB"),
        ("lung_TCGA-AA-0001-01Z-00-DX1.tif", "TCGA", "TCGA-AA-0001"),
        ("tcga_aa_0002_01Z_00_DX2.tif", "TCGA", "TCGA-AA-0002"),
        ("x TCGA.AA.0003.svs", "TCGA", "TCGA-AA-0003"),
        ("TCGA-AA-0004/slide one.svs", "TCGA", "TCGA-AA-0004"),
        ("c9f1-uuid/TCGA-AA-0005-11A-01-TS1.uuid.svs", "TCGA", "TCGA-AA-0005"),
        ("C3L-00001-21.svs", "CPTAC", "C3L-00001"),
        ("LUAD/C3N-01234/C3N-01234-26.svs", "CPTAC", "C3N-01234"),
        ("11CO005-abc.svs", "CPTAC", "11CO005"),
        ("GTEX-1117F-0126.svs", "GTEx", "GTEX-1117F"),
        ("HCM-BROD-0001-C71-01A-S1.svs", "HCMI", "HCM-BROD-0001-C71"),
        ("TARGET-30-PAISNS-01A.svs", "TARGET", "TARGET-30-PAISNS"),
        ("center_0/patient_012_node_3.tif", "CAMELYON17", "patient_012"),
        ("wsi/TC_S01_P000003_C0001_B107.tif", "TIGER", "TIGER-P000003"),
        ("17_KI67_val.tif", "ACROBAT", "ACROBAT-17"),
    ],
)
def test_barcodes_of_archives_stand_anywhere_in_the_path(
    path: str, archive: str, patient: str
) -> None:
    assert barcode_of(path) == (archive, patient)


@pytest.mark.parametrize(
    "path",
    ["normal_001.tif", "xTCGA-AA-0001.svs", "TCGA-AA-00012.svs", "C3L-000011.svs", "patient_12.svs",
     "GTEX.svs", "2_HE.svs", "a/b/slide.tif"],
)  # fmt: skip
def test_what_only_looks_like_a_barcode_is_none(path: str) -> None:
    assert barcode_of(path) is None


def test_the_sources_in_their_order() -> None:
    path = "S1/TCGA-AA-0001.svs"
    rule = PatientRule("folder")
    by_dicom = find_patient(path, own=own(), dicom_id="CASE-7", rule=rule, pseudonyms=secret())
    assert (by_dicom.source, by_dicom.quality) == (PatientSource.DICOM, "stated")
    layout = own("tumor_001", PatientSource.LAYOUT)
    assert find_patient(path, own=layout, rule=rule, pseudonyms=secret()) is layout
    barcode = find_patient(path, own=own(), dicom_id="ANONYMOUS", rule=rule, pseudonyms=secret())
    assert (barcode.name, barcode.source) == ("TCGA-AA-0001", PatientSource.BARCODE)
    ruled = find_patient("S1/x.svs", own=own(), rule=rule, pseudonyms=secret())
    assert (ruled.source, ruled.draw) == (PatientSource.RULE, "S1")
    assert find_patient("x.svs", own=own(), rule=rule, pseudonyms=secret()) == own()
    assert own().quality == "assumed"


def test_panda_names_images_and_no_patients() -> None:
    image = "0005f7aaab2800f6170c399693a96917"
    for path in (f"train_images/{image}.tiff", f"{image}.tiff", f"x/{image.upper()}.tif"):
        found = find_patient(path, own=own("as drawn"), pseudonyms=secret())
        assert (found.name, found.draw, found.quality) == (image, "as drawn", "assumed")
    first, warning = describe_patients([found, own()])
    assert "2 assumed: one slide, one patient (PANDA publishes no patients)" in first
    assert "may stand in train and in test" in warning
    rule = PatientRule("folder")
    assert find_patient(f"S3/{image}.tiff", own=own(), rule=rule, pseudonyms=secret()).draw == "S3"


@pytest.mark.parametrize("value", ["", "ANON", "anonymized", "0000", "UNKNOWN", "n/a", "XXXX"])
def test_placeholders_name_nobody(value: str) -> None:
    assert is_placeholder(value)
    assert not is_placeholder(f"{value}-17a")


def test_values_that_may_name_a_person_become_pseudonyms_and_public_ones_stay() -> None:
    known = stated_patient("Doe^Jane 1970", PatientSource.DICOM, secret())
    assert known.name.startswith("patient-") and len(known.name) == 8 + 16
    assert "Doe" not in repr(known) + str(known)
    assert stated_patient("Doe^Jane 1970", PatientSource.TABLE, secret()).name == known.name
    assert (
        stated_patient("Doe^Jane 1970", PatientSource.TABLE, secret(b"x" * 16)).name != known.name
    )
    public = stated_patient("c3l-00001", PatientSource.DICOM, secret())
    assert (public.name, public.detail) == ("C3L-00001", "CPTAC")
    assert stated_patient("patient_001", PatientSource.TABLE, secret()).name != "patient_001"
    # Groups and patients of one value are not the same name.
    assert secret().of("group", "1")[-16:] != secret().of("patient", "1")[-16:]


def test_a_rule_is_a_folder_or_an_expression() -> None:
    assert PatientRule("folder").find("cohort/S12/a.svs") == "S12"
    assert PatientRule("folder").find("a.svs") == ""
    assert PatientRule(r"(\d+)-\d+").find("x/17-2.svs") == "17"
    assert PatientRule(r"^[^/]+").find("S3/deep/a.svs") == "S3"
    assert PatientRule(r"(?P<n>\d)(?P<patient>[A-Z]+)").find("1AB.svs") == "AB"
    assert PatientRule(r"(x)?y").find("y") == ""
    with pytest.raises(ManifestError, match="neither 'folder' nor a regular expression"):
        PatientRule("(")


def test_the_build_says_how_patients_were_found() -> None:
    patients = [stated_patient(v, PatientSource.DICOM, secret()) for v in ("1a", "1a", "2b")]
    (line,) = describe_patients(patients)
    assert line == "Patients: 2 of 3 slides; 3 by DICOM PatientID."
    mixed = [*patients, own("a"), own("b")]
    first, warning = describe_patients(mixed, ["p", "p", "q", "q", "r"])
    assert "2 assumed: one slide, one patient" in first
    assert warning.startswith("Warning: 2 of 5 slides do not say whose")
    assert "--patient-from folder." in warning
    assert len(describe_patients([own()])) == 1  # one slide splits nothing
    assert "1 of 4 slides does not say" in describe_patients([*patients, own()])[1]
    barcode = find_patient("TCGA-AA-0001.svs", own=own(), pseudonyms=secret())
    assert "1 by barcodes in the path (TCGA)" in describe_patients([barcode])[0]


def test_the_users_own_key_is_made_once_for_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    unused = pseudonyms_of(None)
    assert not unused.used and not keys.key_path().exists()
    first = own_key()
    assert own_key() == first and len(first) == 64
    assert stat.S_IMODE(os.stat(keys.key_path()).st_mode) == 0o600
    assert [path.name for path in keys.key_path().parent.iterdir()] == ["patient.key"]
    assert pseudonyms_of(None).of("patient", "1") == Pseudonyms(lambda: first).of("patient", "1")
    assert first.decode() not in pseudonyms_of(None).check()


def test_a_key_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"key\.txt.*cannot be read.*openssl rand"):
        read_key(tmp_path / "key.txt")
    (tmp_path / "key.txt").write_text("short\n")
    with pytest.raises(ConfigError, match="5 bytes are too few"):
        read_key(tmp_path / "key.txt")
    (tmp_path / "key.txt").write_text("a" * 20 + "\n")
    assert pseudonyms_of(tmp_path / "key.txt").check() == Pseudonyms(lambda: b"a" * 20).check()
