"""Agreement of masks, and the share of annotated lesion that a mask keeps."""

import numpy as np
import pytest
from selection_scenes import disk, glass, paint_tissue
from shapely.geometry import Point

from wsisr.drawing.overlays import MISSED, disagreement
from wsisr.errors import AnnotationError, ConfigError
from wsisr.selection.annotation_formats.names import TUMOR
from wsisr.selection.annotations import Annotations, Region, save_geojson
from wsisr.selection.compare import (
    annotation_recall,
    boundary_f1,
    compare_sources,
    disagreement_sheet,
    load_pair,
    mask_agreement,
    table_text,
    tile_f1,
)
from wsisr.selection.mask_files import write_tissue_files
from wsisr.selection.tissue import segment

SHAPE = (160, 200)


def test_equal_empty_and_disjoint_masks():
    mask, empty = disk(SHAPE, 100, 80, 40), np.zeros(SHAPE, np.bool_)
    same = mask_agreement(mask, mask, 8.0)
    assert (same.iou, same.dice, same.boundary_f1, same.tile_f1, same.missed_mm2) == (1, 1, 1, 1, 0)
    assert mask_agreement(empty, empty, 8.0).iou == 1
    lost = mask_agreement(empty, mask, 8.0)
    assert (lost.iou, lost.recall, lost.boundary_f1, lost.tile_f1) == (0, 0, 0, 0)
    assert lost.missed_mm2 == pytest.approx(mask.sum() * 64e-6)
    with pytest.raises(ConfigError, match="cannot be compared"):
        mask_agreement(mask, mask[:-1], 8.0)


def test_numbers_follow_their_definitions():
    mask, truth = np.zeros(SHAPE, np.bool_), np.zeros(SHAPE, np.bool_)
    mask[20:60, 20:60], truth[20:60, 30:70] = True, True
    found = mask_agreement(mask, truth, 10.0)
    assert found.iou == pytest.approx(1200 / 2000)
    assert found.dice == pytest.approx(2400 / 3200)
    assert found.precision == found.recall == pytest.approx(0.75)
    assert found.missed_mm2 == found.extra_mm2 == pytest.approx(400 * 1e-4)
    # The left and right edges are 100 um apart, top and bottom coincide.
    assert boundary_f1(mask, truth, 10.0, tolerance_um=100.0) == 1.0
    assert 0.5 < found.boundary_f1 < 0.8


def test_tile_agreement_is_what_reaches_training():
    truth = np.zeros((160, 160), np.bool_)
    truth[:, :80] = True
    mask = truth.copy()
    mask[:, 76:80] = False  # half a tile of 8 px: kept as before
    assert tile_f1(mask, truth, 8.0) == 1.0
    mask[:, 72:80] = False
    assert tile_f1(mask, truth, 8.0) == pytest.approx(2 * 180 / (180 + 200))


def test_annotation_recall_is_the_share_of_lesion_inside():
    lesion = Point(100 * 16, 80 * 16).buffer(30 * 16)
    drawn = Annotations(regions=(Region(label=TUMOR, polygon=lesion),), source_format="geojson")
    half = disk(SHAPE, 100, 80, 60)
    half[:, 100:] = False
    assert annotation_recall(disk(SHAPE, 100, 80, 60), 16.0, drawn) == pytest.approx(1.0, abs=0.005)
    assert annotation_recall(half, 16.0, drawn) == pytest.approx(0.5, abs=0.01)
    assert annotation_recall(half, 16.0, drawn, "other") is None
    outside = Annotations(
        regions=(Region(label=TUMOR, polygon=Point(0, 0).buffer(160)),), source_format="geojson"
    )
    assert annotation_recall(np.ones(SHAPE, np.bool_), 16.0, outside) == pytest.approx(
        0.25, abs=0.03
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("masks")
    for seed, name in enumerate(("one", "two")):
        picture = glass(SHAPE, seed=seed)
        truth = disk(SHAPE, 90 + 10 * seed, 80, 50)
        paint_tissue(picture, truth, seed=seed)
        for method in ("consensus", "clam-like"):
            found = segment(picture, 8.0, factor=32.0, method=method)
            write_tissue_files(found, root / method, name)
        lesion = Point(90 * 32, 80 * 32).buffer(20 * 32)
        (root / "lesions").mkdir(exist_ok=True)
        drawn = Annotations(regions=(Region(label=TUMOR, polygon=lesion),), source_format="geojson")
        save_geojson(root / "lesions" / f"{name}.geojson", drawn.to_geojson())
    return root


def test_folders_are_matched_by_slide_and_the_first_is_the_reference(folders):
    rows = compare_sources([folders / "consensus", folders / "clam-like"])
    assert [(row.slide, row.mask, row.reference) for row in rows] == [
        ("one", "clam-like", "consensus"),
        ("two", "clam-like", "consensus"),
    ]
    assert all(row.agreement.iou > 0.8 for row in rows)
    text = table_text(rows)
    assert "median IoU" in text
    assert text.splitlines()[0].split()[:3] == ["slide", "mask", "IoU"]


def test_truth_and_annotations_measure_every_mask(folders):
    rows = compare_sources(
        [folders / "consensus", folders / "clam-like"],
        truth=folders / "consensus",
        annotations=folders / "lesions",
    )
    assert len(rows) == 4
    assert {row.reference for row in rows} == {"truth"}
    assert min(row.annotation_recall for row in rows) > 0.99
    only = compare_sources([folders / "consensus"], annotations=folders / "lesions")
    assert [row.agreement for row in only] == [None, None]
    assert "-" in table_text(only)


def test_single_files_and_geojson_are_compared(folders):
    mask, outline = folders / "consensus" / "one-mask.png", folders / "consensus" / "one.geojson"
    for pair in ([mask, outline], [outline, mask]):
        if pair[0] is outline:
            rows = compare_sources([outline], truth=mask)
        else:
            rows = compare_sources(pair)
        assert rows[0].agreement.iou == 1.0


def test_sheet_shows_the_worst_slide_first(folders):
    rows = compare_sources([folders / "consensus", folders / "clam-like"])
    worst = min(rows, key=lambda row: row.agreement.iou)
    sheet = disagreement_sheet(rows, cell_px=200, columns=2)
    assert sheet.shape == (6 + 18 + 160 + 6, 2 * 206 + 6, 3)
    first, _ = load_pair(worst.mask_path, worst.reference_path, None)
    _, reference = load_pair(worst.mask_path, worst.reference_path, None)
    shown = sheet[24 : 24 + 160, 6:206]
    assert np.array_equal(shown, disagreement(first.mask, reference))
    assert (shown == MISSED).all(axis=2).sum() == (reference & ~first.mask).sum()
    only = compare_sources([folders / "consensus"], annotations=folders / "lesions")
    with pytest.raises(ConfigError, match="no mask to disagree with"):
        disagreement_sheet(only)


def test_useless_comparisons_are_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="two masks"):
        compare_sources([folders / "consensus"])
    with pytest.raises(AnnotationError, match="no such file"):
        compare_sources([tmp_path / "nothing", folders / "consensus"])
    with pytest.raises(ConfigError, match="matched by their names"):
        compare_sources([folders / "consensus", tmp_path])
