"""Rules drop what they say, count it, and do not depend on order."""

import numpy as np
import pytest
from selection_scenes import disk, glass, paint_tissue
from shapely.geometry import box

from wsisr.errors import ConfigError
from wsisr.selection.annotation_formats.names import TUMOR
from wsisr.selection.annotations import Annotations, Region
from wsisr.selection.candidates import first_occurrences, rank_keys
from wsisr.selection.cues import WhitePoint
from wsisr.selection.quality import nuclei_map, texture_map, tile_quality
from wsisr.selection.rules import (
    CandidateTable,
    Labelling,
    SelectionRules,
    apply_rules,
    describe_candidates,
    is_blank,
    label_shares,
    rgb_outliers,
)
from wsisr.selection.tissue import segment

SHAPE = (200, 240)
FACTOR = 32.0
FIELD = 512
WHITE = WhitePoint(rgb=(243.0, 242.0, 244.0), noise=1.0, found=True)


@pytest.fixture(scope="module")
def tissue():
    picture = glass(SHAPE)
    paint_tissue(picture, disk(SHAPE, 120, 100, 80))
    picture[disk(SHAPE, 150, 100, 25)] = (225, 200, 215)
    picture[:, 230:] = 0
    return segment(picture, 8.0, factor=FACTOR)


@pytest.fixture(scope="module")
def annotations():
    lesion = box(60 * FACTOR, 60 * FACTOR, 120 * FACTOR, 140 * FACTOR)
    return Annotations(regions=(Region(label=TUMOR, polygon=lesion),), source_format="geojson")


@pytest.fixture(scope="module")
def origins():
    x, y = np.meshgrid(np.arange(0, 7_168, 256), np.arange(0, 5_888, 256))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _labelling(annotations):
    return Labelling(annotations=annotations, labels=(TUMOR,), other="normal")


def _describe(origins, tissue, labelling=Labelling()):
    return describe_candidates(origins, FIELD, tissue, labelling, seed=1, slide_id="s")


def test_reserve_is_the_same_for_any_order_of_candidates(tissue, annotations, origins):
    rules = SelectionRules(min_tissue=0.8, min_label_share=0.8, max_overlap=0.1)
    results = []
    for order in (np.arange(len(origins)), np.random.default_rng(0).permutation(len(origins))):
        table = _describe(origins[order], tissue, _labelling(annotations))
        kept, funnel = apply_rules(table, rules, FIELD)
        results.append((kept.origins.tolist(), kept["label"].tolist(), funnel))
    assert results[0] == results[1]
    assert len(results[0][0]) > 20


def test_funnel_counts_every_step_and_every_kept_patch_obeys(tissue, annotations, origins):
    rules = SelectionRules(
        min_tissue=0.8, min_label_share=0.8, min_texture=0.01, rgb_outliers=4.0, max_overlap=0.0
    )
    table = _describe(origins, tissue, _labelling(annotations))
    kept, counts = apply_rules(table, rules, FIELD)
    assert list(counts) == [
        "candidates", "scanned", "tissue", "label", "texture", "colour", "overlap",
    ]  # fmt: skip
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts["candidates"] == len(origins)
    assert counts["scanned"] < counts["candidates"]
    assert counts["overlap"] == len(kept)
    assert (kept["tissue"] >= 0.8).all()
    assert (kept["label_share"] > 0.8).all()
    assert (kept["texture"] >= 0.01).all()
    assert (kept["invalid"] == 0).all()
    assert {TUMOR, "normal"} == set(kept["label"].tolist())
    assert (np.diff(rank_keys(1, "s", kept.origins).astype(np.float64)) >= 0).all()
    gaps = np.abs(kept.origins[:, None] - kept.origins[None]).max(axis=2)
    np.fill_diagonal(gaps, FIELD)
    assert gaps.min() >= FIELD


def test_label_share_must_exceed_the_limit_not_reach_it(annotations):
    boxes = np.array([[1920 - 102.4, 2000, 512, 512], [1920 - 102, 2000, 512, 512]])
    label, share = label_shares(boxes, _labelling(annotations))
    assert share == pytest.approx([0.8, (512 - 102) / 512])
    assert label.tolist() == [TUMOR, TUMOR]


def test_slides_without_annotations_are_all_of_the_other_label():
    label, share = label_shares(np.array([[0, 0, 9, 9]]), _labelling(None))
    assert (label.tolist(), share.tolist()) == (["normal"], [1.0])
    label, share = label_shares(np.array([[0, 0, 9, 9]]), Labelling())
    assert (label.tolist(), share.tolist()) == ([""], [0.0])


def test_texture_rule_drops_smooth_tissue(tissue):
    origins = np.array([[148 * 32 - 256, 98 * 32 - 256], [90 * 32, 90 * 32]])
    table = _describe(origins, tissue)
    by_place = dict(zip(table["x"].tolist(), table["texture"].tolist(), strict=True))
    assert by_place[148 * 32 - 256] < 0.5 * by_place[90 * 32]


def test_duplicates_are_measured_once(tissue):
    origins = np.array([[32, 32], [64, 64], [32, 32]])
    assert len(_describe(origins, tissue)) == 2
    assert first_occurrences(origins).tolist() == [[32, 32], [64, 64]]


def test_rgb_outliers_and_blanks():
    rgb = np.full((50, 3), [180.0, 120.0, 160.0]) + np.random.default_rng(0).normal(0, 3, (50, 3))
    rgb[7] = [240, 240, 241]
    rgb[9, 0] += 40
    assert np.flatnonzero(rgb_outliers(rgb, 5.0)).tolist() == [7, 9]
    assert not rgb_outliers(np.full((5, 3), 100.0), 3.0).any()
    assert np.flatnonzero(is_blank(rgb, (243.0, 242.0, 244.0), 0.95)).tolist() == [7]
    assert rgb_outliers(np.empty((0, 3)), 3.0).shape == (0,)


def test_wrong_rules_are_refused():
    for wrong in ({"min_tissue": 80}, {"max_overlap": -0.1}, {"rgb_outliers": -1}):
        with pytest.raises(ConfigError):
            SelectionRules(**wrong)
    table = CandidateTable(
        columns={name: np.zeros(1) for name in ("x", "y", "invalid", "pen", "tissue")}
    )
    with pytest.raises(ConfigError, match="texture"):
        apply_rules(table, SelectionRules(min_tissue=0.0, min_texture=0.1), FIELD)


def test_texture_and_nuclei_maps_are_weights_inside_tissue(tissue):
    for weights in (texture_map(tissue)[:], nuclei_map(tissue)):
        assert weights.shape == tissue.mask.shape
        assert (weights[~tissue.mask] == 0).all()
        assert weights[tissue.mask].mean() > 0
    picture = glass(SHAPE)
    truth = disk(SHAPE, 120, 100, 80)
    paint_tissue(picture, truth, contrast=8)
    blue = disk(SHAPE, 100, 100, 20)
    picture[blue] = (110, 80, 160)
    nuclei = nuclei_map(segment(picture, 8.0))
    assert nuclei[disk(SHAPE, 100, 100, 10)].mean() > 2 * nuclei[truth & ~blue].mean()


def test_tile_quality_tells_sharp_from_blurred_and_folded():
    import cv2

    rng = np.random.default_rng(0)
    tile = np.full((256, 256, 3), (215, 160, 200), np.uint8)
    for x, y in rng.integers(8, 248, (60, 2)):
        cv2.circle(tile, (int(x), int(y)), 5, (95, 60, 140), -1)
    sharp = tile_quality(tile, 0.5, WHITE)
    blurred = tile_quality(cv2.GaussianBlur(tile, (0, 0), 5), 0.5, WHITE)
    assert blurred.sharpness < 0.1 * sharp.sharpness
    folded = tile.copy()
    folded[:, 100:160] = (60, 15, 50)
    assert sharp.fold_share < 0.02
    assert tile_quality(folded, 0.5, WHITE).fold_share == pytest.approx(60 / 256, abs=0.03)
    assert sharp.structured_share > 0.2
    assert tile_quality(glass((256, 256)), 0.5, WHITE).structured_share < 0.05
    with pytest.raises(ConfigError, match="too coarse"):
        tile_quality(tile, 4.0, WHITE)
