"""The CLAM setting: what is coloured and large enough is tissue, small holes are none."""

from dataclasses import replace

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.selection.clam import ClamSettings, clam_mask, filter_areas
from wsisr.selection.tissue import TissueSettings, segment

# At 8 um/px one mm2 has 15,625 px.
SETTINGS = ClamSettings(
    median_um=24, close_um=8, min_tissue_mm2=0.05, min_hole_mm2=0.01, max_holes=1
)


def picture() -> UInt8Array:
    rgb = np.full((200, 300, 3), 240, np.uint8)
    rgb[20:120, 20:160] = (200, 120, 180)
    rgb[40:60, 40:60] = 240
    rgb[80:105, 40:65] = 240
    rgb[30:36, 120:126] = 240
    rgb[150:165, 200:215] = (200, 120, 180)
    return rgb


def test_areas_decide_about_pieces_and_holes() -> None:
    mask = clam_mask(picture(), 8.0, SETTINGS)
    assert mask[100, 100]
    assert not mask[157, 207], "a piece of 0.014 mm2 is too small"
    assert mask[33, 123], "a hole of 0.002 mm2 is filled"
    assert mask[50, 50], "one hole is kept, and the other one is larger"
    assert not mask[92, 52]
    both = clam_mask(picture(), 8.0, replace(SETTINGS, max_holes=2))
    assert not both[50, 50]
    assert not both[92, 52]


def test_pieces_in_holes_of_others_are_judged_by_themselves() -> None:
    mask = np.zeros((120, 120), bool)
    mask[5:115, 5:115] = True
    mask[20:100, 20:100] = False
    mask[30:90, 30:90] = True
    mask[50:70, 50:70] = False
    kept = filter_areas(mask, 8.0, replace(SETTINGS, max_holes=8, min_hole_mm2=0.02))
    assert kept[40, 40] and not kept[60, 60] and not kept[25, 60]
    filled = filter_areas(mask, 8.0, replace(SETTINGS, max_holes=8, min_hole_mm2=0.03))
    assert filled[60, 60] and not filled[25, 60]
    none = filter_areas(np.zeros((9, 9), bool), 8.0, SETTINGS)
    assert not none.any()
    assert filter_areas(np.ones((40, 40), bool), 8.0, SETTINGS).all()


def test_otsu_and_the_fixed_threshold_agree_on_clear_tissue() -> None:
    fixed = replace(SETTINGS, otsu=False, saturation=8)
    assert np.array_equal(clam_mask(picture(), 8.0, SETTINGS), clam_mask(picture(), 8.0, fixed))


def test_lengths_stand_on_the_glass() -> None:
    fine = clam_mask(np.repeat(np.repeat(picture(), 2, 0), 2, 1), 4.0, SETTINGS)
    coarse = clam_mask(picture(), 8.0, SETTINGS)
    assert (fine[::2, ::2] ^ coarse).mean() < 0.01


def test_the_tissue_map_takes_the_setting() -> None:
    tissue = segment(picture(), 8.0, method="clam", settings=TissueSettings(clam=SETTINGS))
    assert 0.2 < tissue.mask.mean() < 0.25
    assert not tissue.mask[157, 207]
