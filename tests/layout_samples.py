"""Twelve folders of slides as their publishers lay them out, with what is right to find in them.

File names, folders, side files and what is no slide follow the publishers' pages; the slides are
small generated sections.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from slides_samples import write_dicom

from wsisr.testing.image_sets import write_image

SIDE_PX = 640
UUIDS = ("0a7b1c9e-5d0f-4b43-9a53-5d2ad20d3b7e", "4b1f2f6c-8a11-4e5b-b0a4-1f6ee2a0c9d1",
         "9c3e7a55-2f8d-4d0e-8f0b-7c6f3a1b2d44", "d2d5e0aa-6a67-4a2c-93b0-0b1c8f7e6a55",
         "f00dbabe-1234-4cde-8f01-23456789abcd")  # fmt: skip
PANDA = ("0005f7aaab2800f6170c399693a96917", "000920ad0b612851f8e01bcc880d9b3d",
         "0018ae58b01bdadc8e347995b69f99aa", "001c62abd11fa4b57bf7a6c603a11bb9")  # fmt: skip
HALF = ((0, 0), (SIDE_PX // 2, SIDE_PX))
"""Left half of a slide: top left and bottom right corner."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """A copy of a slide under the name of another patient, as it may slip into a folder."""

    of: str
    name: str
    patient: str = ""


@dataclass(frozen=True, kw_only=True)
class PublicLayout:
    """A folder, and what is right.

    Attributes
    ----------
    patients : dict of slide to str
        Relative path of every slide, and a name of its patient: equal for slides of one patient.
    source : str
        How patients are known.
    outlined : set of str
        Slides whose left half is outlined as tumour.
    left_out : set of str
        What must be named as no slide.
    splits : dict of slide to str
        Official ones.
    public : bool
        Whether patients are stored by the names in `patients`.
    patient_from : str
        Rule that the user gives.
    """

    make: Callable[[Path], None]
    patients: Mapping[str, str]
    source: str
    leak: Leak
    outlined: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    splits: Mapping[str, str] = field(default_factory=dict)
    public: bool = True
    patient_from: str = ""


def section(seed: int) -> np.ndarray:
    """Stained texture under a strip of bare glass; no two seeds share any of it."""
    rng = np.random.default_rng(seed)

    def field(sigma: float) -> np.ndarray:
        noise = rng.standard_normal((SIDE_PX, SIDE_PX)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
        return (smooth / smooth.std())[..., None]

    haematoxylin = np.clip(field(3) - 0.8, 0, None) * np.float32([0.65, 0.70, 0.29])
    eosin = np.clip(0.5 + 0.15 * field(14) + 0.05 * field(1.2), 0.1, None)
    pixels = 243 * np.exp(-haematoxylin - eosin * np.float32([0.07, 0.99, 0.11]))
    pixels[: SIDE_PX // 8] = 243
    return pixels.astype(np.uint8)


def slide(path: Path, seed: int) -> None:
    """A tiled TIFF of 0.25 um/px; under ``.svs`` with Aperio's words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = f"Aperio Image Library v12\r\n{SIDE_PX}x{SIDE_PX} |AppMag = 40|MPP = 0.25"
    tifffile.imwrite(
        path,
        section(seed),
        tile=(128, 128),
        photometric="rgb",
        compression="deflate",
        metadata=None,
        description=words if path.suffix == ".svs" else None,
        resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )


def text(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def mask(path: Path) -> None:
    """A label mask as PANDA and ASAP write them: small numbers in a TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    values[:, : SIDE_PX // 2] = 2
    tifffile.imwrite(path, values, tile=(128, 128), compression="deflate", metadata=None)


def asap(path: Path, group: str, comma: bool = False) -> None:
    """The left half in a group, with a program's decimal comma or point."""
    (x0, y0), (x1, y1) = HALF
    corners = "".join(
        f'<Coordinate Order="{k}" X="{x:.4f}" Y="{y:.4f}" />'
        for k, (x, y) in enumerate([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    )
    corners = corners.replace(".", ",") if comma else corners
    body = (
        '<?xml version="1.0"?>\n<ASAP_Annotations><Annotations><Annotation Name="Annotation 0" '
        f'Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>{corners}'
        "</Coordinates></Annotation></Annotations><AnnotationGroups>"
        f'<Group Name="{group}" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>'
        "</AnnotationGroups></ASAP_Annotations>"
    )
    text(path, body)


def qupath(path: Path, label: str) -> None:
    (x0, y0), (x1, y1) = HALF
    feature = {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]],
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": label, "color": [200, 0, 0]},
        },
    }
    text(path, json.dumps({"type": "FeatureCollection", "features": [feature]}))


def _camelyon16_flat(folder: Path) -> None:
    for seed, name in enumerate(("normal_001", "normal_002", "tumor_001", "test_001", "test_002")):
        slide(folder / f"{name}.tif", 100 + seed)
    for name in ("tumor_001", "test_001"):
        asap(folder / "lesion_annotations" / f"{name}.xml", "_0")
    text(folder / "checksums.md5")


def _camelyon16_official(folder: Path) -> None:
    for seed, name in enumerate(
        ("training/normal/normal_001", "training/normal/normal_101", "training/tumor/tumor_001",
         "testing/images/test_001", "testing/images/test_002")
    ):  # fmt: skip
        slide(folder / f"{name}.tif", 200 + seed)
    asap(folder / "training/lesion_annotations/tumor_001.xml", "Tumor")
    asap(folder / "testing/lesion_annotations/test_001.xml", "Tumor")
    text(folder / "testing/reference.csv", "test_001,Tumor,IDC,Macro\ntest_002,Normal,None,None\n")
    write_image(
        folder / "testing/evaluation/evaluation_masks/test_001_evaluation_mask.png",
        np.zeros((20, 20, 3), np.uint8),
    )
    mask(folder / "background_tissue/tumor_001_mask.tif")
    text(folder / "README.md")


def _camelyon17(folder: Path) -> None:
    nodes = [(p, n) for p in ("000", "004", "017") for n in (1, 4)]
    for seed, (patient, node) in enumerate(nodes):
        slide(folder / f"images/patient_{patient}_node_{node}.tif", 300 + seed)
    asap(folder / "annotations/patient_004_node_4.xml", "metastases")
    mask(folder / "masks/patient_004_node_4_mask.tif")
    text(folder / "stages.csv", "patient,stage\npatient_004.zip,pN1\n")


def _gdc(folder: Path) -> None:
    names = ("TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB-01A-01-TS1", "TCGA-A1-A0SD-01Z-00-DX1",
             "TCGA-A2-A04P-01Z-00-DX1")  # fmt: skip
    for seed, (uuid, name) in enumerate(zip(UUIDS, names, strict=False)):
        file = f"{name}.{uuid.upper()}.svs"
        slide(folder / uuid / file, 400 + seed)
        text(folder / uuid / "logs" / f"{file}.parcel")
    text(folder / UUIDS[0] / "annotations.txt", "id\tsubmitter_id\n")
    text(folder / UUIDS[4] / "TCGA-A2-A04Q-01Z-00-DX1.svs.partial", "II")
    text(folder / "MANIFEST.txt", "id\tfilename\tmd5\tsize\tstate\n")


def _cptac(folder: Path) -> None:
    for seed, name in enumerate(
        ("C3L-00001-21", "C3L-00001-26", "C3N-00169-21", "C3N-00169-23", "C3L-00080-21")
    ):
        slide(folder / "CPTAC-LUAD_v12" / "LUAD" / f"{name}.svs", 500 + seed)
    text(folder / "CPTAC-LUAD_v12" / "CPTAC-LUAD-cohort.csv", "Case_ID,Slide_ID\n")


def _gtex(folder: Path) -> None:
    for seed, name in enumerate(
        ("GTEX-1117F-0126", "GTEX-1117F-0226", "GTEX-111CU-0126", "GTEX-ZVZP-2526")
    ):
        slide(folder / f"{name}.svs", 600 + seed)
    text(folder / "GTEx Portal.csv", '"Tissue Sample ID","Tissue"\n')


def _panda(folder: Path) -> None:
    for seed, name in enumerate(PANDA):
        slide(folder / f"train_images/{name}.tiff", 700 + seed)
        mask(folder / f"train_label_masks/{name}_mask.tiff")
    rows = "".join(f"{name},radboud,0,negative\n" for name in PANDA)
    text(folder / "train.csv", f"image_id,data_provider,isup_grade,gleason_score\n{rows}")


def _idc_series(patient: str, number: int) -> str:
    study = f"1.3.6.1.4.1.5962.99.1.{abs(hash_of(patient)) % 10_000}"
    return f"nlst/{patient}/{study}/SM_1.3.6.1.4.1.5962.99.1.77.{number}"


def hash_of(name: str) -> int:
    return sum(ord(letter) * 31**place for place, letter in enumerate(name))


def dicom_slide(folder: Path, seed: int, patient: str, series: str) -> None:
    """A series of two instances: level 0 and a smaller one."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = section(seed)

    def name(header: Any) -> None:
        header.PatientID, header.PatientName = patient, f"Doe^Jane {patient}"
        header.AccessionNumber = f"ACC{patient}"

    write_dicom(folder / "a.dcm", pixels, um_per_px=0.25, series=series, change=name)
    half = SIDE_PX // 2
    small = cv2.resize(pixels, (half, half), interpolation=cv2.INTER_AREA)
    write_dicom(folder / "b.dcm", small, um_per_px=0.5, series=series, change=name)


def _idc(folder: Path) -> None:
    for number, patient in enumerate(("103685", "103685", "103686", "103687")):
        where = folder / _idc_series(patient, number)
        dicom_slide(where, 800 + number, patient, f"1.3.6.1.4.1.5962.99.1.77.{number}")
    seg = folder / "nlst/103685/1.3.6.1.4.1.5962.99.1.1/SEG_1.2.3/seg.dcm"
    seg.parent.mkdir(parents=True)
    write_dicom(seg, section(1)[:128, :128])
    uid = b"1.2.840.10008.5.1.4.1.1.77.1.6"
    seg.write_bytes(seg.read_bytes().replace(uid, b"1.2.840.10008.5.1.4.1.1.66.4\0\0"))
    text(folder / "nlst/LICENSE.txt")


def _qupath(folder: Path) -> None:
    for seed, name in enumerate(("S-17 A.svs", "S-17 B.svs", "S-18.svs", "S-19.svs")):
        slide(folder / "slides" / name, 900 + seed)
    qupath(folder / "project/export/S-17 A.svs.geojson", "Tumor")
    qupath(folder / "project/export/S-18.geojson", "Tumor: Positive")
    text(folder / "project/project.qpproj", '{"version": "0.5.1", "images": []}')
    text(folder / "project/classifiers/classes.json", '{"pathClasses": []}')
    for number in (1, 2):
        text(folder / f"project/data/{number}/server.json", '{"builderType": "uri"}')
        text(folder / f"project/data/{number}/data.qpdata", "x")
        write_image(folder / f"project/data/{number}/thumbnail.jpg", section(number)[::8, ::8])


def _asap(folder: Path) -> None:
    for seed, name in enumerate(("B12-1_HE", "B12-2_HE", "B13-1_HE", "B14-1_HE")):
        slide(folder / f"{name}.tif", 1000 + seed)
    asap(folder / "B12-1_HE.xml", "Tumor")
    asap(folder / "B13-1_HE.xml", "tumour", comma=True)
    mask(folder / "B12-1_HE_mask.tif")
    text(folder / "B14-1_HE.json", '{"scanner": "X", "mpp": 0.25}')


def _flat(folder: Path) -> None:
    for seed, name in enumerate(("case0", "case1", "case2", "case3")):
        slide(folder / f"{name}.svs", 1100 + seed)
    small = section(3)[::16, ::16]
    for name in ("case0.png", "case1_thumbnail.jpg", "thumbs/case2.png", "case3.svs.jpg"):
        write_image(folder / name, small)
    text(folder / "Thumbs.db")
    text(folder / "slides.xlsx")
    text(folder / "case9.kfb")


def _non_ascii(folder: Path) -> None:
    for seed, name in enumerate(_NON_ASCII):
        slide(folder / name, 1200 + seed)
    qupath(folder / "患者一/切片 甲.geojson", "Tumor")


_NON_ASCII = (
    "患者一/切片 甲.svs",
    "患者一/切片 乙.svs",
    "患者二/切片 甲.svs",
    "Größe/Überblick (é).svs",
    "Größe/Uberblick (e).svs",
    "Больной/слайд.svs",
)


def _own(names: list[str]) -> dict[str, str]:
    """Every slide a patient of its own."""
    return {name: name for name in names}


_GDC = [
    f"{uuid}/{name}.{uuid.upper()}.svs"
    for uuid, name in zip(
        UUIDS,
        ("TCGA-A1-A0SB-01Z-00-DX1", "TCGA-A1-A0SB-01A-01-TS1", "TCGA-A1-A0SD-01Z-00-DX1",
         "TCGA-A2-A04P-01Z-00-DX1"), strict=False,
    )
]  # fmt: skip
_C16 = ("training/normal/normal_001", "training/normal/normal_101", "training/tumor/tumor_001",
        "testing/images/test_001", "testing/images/test_002")  # fmt: skip

LAYOUTS: dict[str, PublicLayout] = {
    "camelyon16-flat": PublicLayout(
        make=_camelyon16_flat,
        patients=_own([f"{n}.tif" for n in ("normal_001", "normal_002", "tumor_001", "test_001",
                                            "test_002")]),
        source="layout",
        outlined=frozenset({"tumor_001.tif", "test_001.tif"}),
        splits={"test_001.tif": "test", "test_002.tif": "test"},
        leak=Leak(of="normal_001.tif", name="test_003.tif"),
    ),
    "camelyon16-official": PublicLayout(
        make=_camelyon16_official,
        patients=_own([f"{n}.tif" for n in _C16]),
        source="layout",
        outlined=frozenset({"training/tumor/tumor_001.tif", "testing/images/test_001.tif"}),
        left_out=frozenset({
            "background_tissue/tumor_001_mask.tif",
            "testing/evaluation/evaluation_masks/test_001_evaluation_mask.png",
        }),
        splits={"testing/images/test_001.tif": "test", "testing/images/test_002.tif": "test"},
        leak=Leak(of="training/normal/normal_001.tif", name="testing/images/test_003.tif"),
    ),
    "camelyon17": PublicLayout(
        make=_camelyon17,
        patients={
            f"images/patient_{p}_node_{n}.tif": f"patient_{p}"
            for p in ("000", "004", "017")
            for n in (1, 4)
        },
        source="barcode",
        outlined=frozenset({"images/patient_004_node_4.tif"}),
        left_out=frozenset({"masks/patient_004_node_4_mask.tif"}),
        leak=Leak(of="images/patient_000_node_1.tif", name="images/patient_099_node_0.tif"),
    ),
    "gdc": PublicLayout(
        make=_gdc,
        patients=dict(zip(_GDC, ("TCGA-A1-A0SB", "TCGA-A1-A0SB", "TCGA-A1-A0SD", "TCGA-A2-A04P"),
                          strict=True)),
        source="barcode",
        left_out=frozenset({f"{UUIDS[4]}/TCGA-A2-A04Q-01Z-00-DX1.svs.partial"}),
        leak=Leak(of=_GDC[0], name=f"{UUIDS[4]}/TCGA-A2-A04X-01Z-00-DX1.svs"),
    ),
    "cptac": PublicLayout(
        make=_cptac,
        patients={
            f"CPTAC-LUAD_v12/LUAD/{name}.svs": name[:9]
            for name in ("C3L-00001-21", "C3L-00001-26", "C3N-00169-21", "C3N-00169-23",
                         "C3L-00080-21")
        },
        source="barcode",
        leak=Leak(of="CPTAC-LUAD_v12/LUAD/C3L-00001-21.svs",
                  name="CPTAC-LUAD_v12/LUAD/C3N-99999-21.svs"),
    ),
    "gtex": PublicLayout(
        make=_gtex,
        patients={
            f"{name}.svs": name.rpartition("-")[0]
            for name in ("GTEX-1117F-0126", "GTEX-1117F-0226", "GTEX-111CU-0126", "GTEX-ZVZP-2526")
        },
        source="barcode",
        leak=Leak(of="GTEX-1117F-0126.svs", name="GTEX-ZZZZZ-0126.svs"),
    ),
    "panda": PublicLayout(
        make=_panda,
        patients=_own([f"train_images/{name}.tiff" for name in PANDA]),
        source="assumed",
        left_out=frozenset(f"train_label_masks/{name}_mask.tiff" for name in PANDA),
        leak=Leak(of=f"train_images/{PANDA[0]}.tiff",
                  name="train_images/ffffffff0b612851f8e01bcc880d9b3d.tiff"),
    ),
    "idc": PublicLayout(
        make=_idc,
        patients={
            _idc_series(patient, number): patient
            for number, patient in enumerate(("103685", "103685", "103686", "103687"))
        },
        source="dicom",
        public=False,
        left_out=frozenset({"nlst/103685/1.3.6.1.4.1.5962.99.1.1/SEG_1.2.3/seg.dcm"}),
        leak=Leak(of=_idc_series("103685", 0), name=_idc_series("199999", 9), patient="199999"),
    ),
    "qupath": PublicLayout(
        make=_qupath,
        patients={"slides/S-17 A.svs": "S-17", "slides/S-17 B.svs": "S-17",
                  "slides/S-18.svs": "S-18", "slides/S-19.svs": "S-19"},
        source="rule",
        public=False,
        patient_from=r"(S-\d+)",
        outlined=frozenset({"slides/S-17 A.svs", "slides/S-18.svs"}),
        left_out=frozenset({"project/data/1/thumbnail.jpg", "project/data/2/thumbnail.jpg"}),
        leak=Leak(of="slides/S-17 A.svs", name="slides/S-55.svs"),
    ),
    "asap": PublicLayout(
        make=_asap,
        patients={"B12-1_HE.tif": "B12", "B12-2_HE.tif": "B12", "B13-1_HE.tif": "B13",
                  "B14-1_HE.tif": "B14"},
        source="rule",
        public=False,
        patient_from=r"^[^-]+",
        outlined=frozenset({"B12-1_HE.tif", "B13-1_HE.tif"}),
        left_out=frozenset({"B12-1_HE_mask.tif", "B14-1_HE.json"}),
        leak=Leak(of="B12-1_HE.tif", name="B99-1_HE.tif"),
    ),
    "flat": PublicLayout(
        make=_flat,
        patients=_own([f"case{k}.svs" for k in range(4)]),
        source="assumed",
        left_out=frozenset({"case0.png", "case1_thumbnail.jpg", "thumbs/case2.png",
                            "case3.svs.jpg", "case9.kfb"}),
        leak=Leak(of="case0.svs", name="case7.svs"),
    ),
    "non-ascii": PublicLayout(
        make=_non_ascii,
        patients={name: name.partition("/")[0] for name in _NON_ASCII},
        source="rule",
        public=False,
        patient_from="folder",
        outlined=frozenset({"患者一/切片 甲.svs"}),
        leak=Leak(of="患者一/切片 甲.svs", name="Другой/слайд.svs"),
    ),
}  # fmt: skip
"""CAMELYON16 (flat, official), CAMELYON17, GDC, CPTAC, GTEx, PANDA, IDC, QuPath, ASAP, a flat
folder with thumbnails, names beyond ASCII."""


def plant(layout: PublicLayout, folder: Path) -> None:
    """Put the leak into a folder: the same glass under the name of another patient."""
    leak = layout.leak
    if leak.patient:
        dicom_slide(folder / leak.name, 800, leak.patient, "1.3.6.1.4.1.5962.99.1.77.9")
        return
    (folder / leak.name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / leak.of, folder / leak.name)
