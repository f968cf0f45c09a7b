"""The CAMELYON16-like folder."""

import csv
from pathlib import Path

import numpy as np
import pytest
import shapely
from defusedxml import ElementTree

from wsisr.errors import ConfigError
from wsisr.progress import ProgressEvent
from wsisr.testing.camelyon import load_truths, plan_camelyon16_like, write_camelyon16_like
from wsisr.testing.spec import plan_truth
from wsisr.testing.stored import StoredSlide
from wsisr.testing.truth import SlideTruth


def test_every_slide_offers_patches_of_every_class() -> None:
    """PathImgSR's rule: 1,050 px at 40x, more than 80 % tissue and 80 % of one class."""
    plan = plan_camelyon16_like()
    assert [name for name, spec in plan.items() if spec.tumour] == [
        "tumor_001",
        "tumor_002",
        "tumor_003",
        "test_001",
    ]
    for name, spec in plan.items():
        truth = plan_truth(spec, f"{name}.tif")
        boxes = [
            (x, y, 1050, 1050)
            for y in range(0, truth.height_px - 1050, 1050)
            for x in range(0, truth.width_px - 1050, 1050)
        ]
        tissue, tumour = truth.tissue_fraction(boxes), truth.tumour_fraction(boxes)
        assert np.sum((tissue > 0.8) & (tumour < 0.2)) >= 8, name
        assert np.sum((tissue > 0.8) & (tumour > 0.8)) >= (8 if spec.tumour else 0), name
        assert truth.um_per_px == 0.243 and truth.width_px % 512 == 0
        ten = next(level.shift for level in truth.levels if level.factor == 4)
        assert ten.whole and max(abs(ten.x_px), abs(ten.y_px)) < 13
    shifts = {spec.shifts for spec in plan.values()}
    assert len(shifts) == len(plan)


@pytest.mark.parametrize("layout", ["flat", "official"])
def test_folder_layouts(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "camelyon16"
    events: list[ProgressEvent] = []
    truths = write_camelyon16_like(
        folder,
        layout=layout,  # type: ignore[arg-type]
        normals=1,
        tumours=1,
        tests=2,
        side_px=1024,
        report=events.append,
    )
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    if layout == "flat":
        slides = {"normal_001.tif", "tumor_001.tif", "test_001.tif", "test_002.tif"}
        assert files == slides | {"tumor_001.xml", "test_001.xml", "truth.json"}
    else:
        assert files == {
            "training/normal/normal_001.tif",
            "training/tumor/tumor_001.tif",
            "training/lesion_annotations/tumor_001.xml",
            "testing/images/test_001.tif",
            "testing/images/test_002.tif",
            "testing/lesion_annotations/test_001.xml",
            "testing/reference.csv",
            "truth.json",
        }
        rows = list(csv.reader((folder / "testing/reference.csv").open()))
        assert [row[:2] for row in rows] == [["test_001", "Tumor"], ["test_002", "Normal"]]
    assert [(e.done, e.total) for e in events] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert load_truths(folder) == truths and list(truths) == sorted(truths)
    for truth in truths.values():
        StoredSlide(folder / truth.file, truth).read(1, 100, 100, 50, 50)
    for name in ("tumor_001", "test_001"):
        (path,) = folder.rglob(f"{name}.xml")
        assert _tumour_in(path).symmetric_difference(truths[name].tumour_area).area < 1e-6


def _tumour_in(path: Path) -> shapely.Geometry:
    """CAMELYON16's reading: groups _0, _1 and Tumor are tumour, _2 and Exclusion are holes."""
    areas: dict[bool, list[shapely.Polygon]] = {True: [], False: []}
    for annotation in ElementTree.parse(path).iter("Annotation"):
        points = sorted(annotation.iter("Coordinate"), key=lambda c: int(c.get("Order")))
        polygon = shapely.Polygon([(float(c.get("X")), float(c.get("Y"))) for c in points])
        group = annotation.get("PartOfGroup")
        assert group in {"_0", "_1", "_2", "Tumor", "Exclusion"}
        areas[group in {"_0", "_1", "Tumor"}].append(polygon)
    assert areas[True] and areas[False]
    return shapely.union_all(areas[True]).difference(shapely.union_all(areas[False]))


def test_a_used_folder_or_unknown_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="not empty"):
        write_camelyon16_like(tmp_path)
    with pytest.raises(ConfigError, match="layout"):
        write_camelyon16_like(tmp_path / "new", layout="round")  # type: ignore[arg-type]


def test_truths_of_one_folder_differ(tmp_path: Path) -> None:
    plan = plan_camelyon16_like(normals=2, tumours=0, tests=0)
    first, second = (plan_truth(spec, "a.tif") for spec in plan.values())
    assert isinstance(first, SlideTruth) and first.scene.tissue != second.scene.tissue
