"""Pictures show the mask, the annotations, the patches and the pairs where they are."""

import numpy as np
import pytest
from PIL import Image
from selection_scenes import disk, glass, paint_tissue
from shapely.geometry import box

from wsisr.drawing.overlays import PATCH, TISSUE, patch_overlay
from wsisr.drawing.sheets import SheetImage, contact_sheet, sheet
from wsisr.errors import ConfigError
from wsisr.files import save_picture
from wsisr.selection.annotation_formats.geojson import COLOURS
from wsisr.selection.annotation_formats.names import TUMOR
from wsisr.selection.annotations import Annotations, Region
from wsisr.selection.preview import overlay_picture
from wsisr.selection.tissue import segment

SHAPE = (120, 160)


def _tissue():
    picture = glass(SHAPE)
    paint_tissue(picture, disk(SHAPE, 80, 60, 40))
    return segment(picture, 8.0, factor=10.0)


def test_overlay_draws_outline_annotations_and_patches_in_place():
    drawn = Annotations(
        regions=(Region(label=TUMOR, polygon=box(700, 500, 900, 700)),), source_format="geojson"
    )
    picture = overlay_picture(_tissue(), annotations=drawn)
    places = [(100, 200), (1000, 300)]
    picture = patch_overlay(picture, 10 * SHAPE[1], places, [True, True], 150)
    assert picture.shape == (*SHAPE, 3)
    assert (picture[50, 75] == COLOURS[TUMOR]).all()
    assert (picture[20, 15] == PATCH).all()
    assert (picture[30, 105] == PATCH).all()
    ring = np.argwhere((picture == TISSUE).all(axis=2))
    distance = np.hypot(ring[:, 1] + 0.5 - 80, ring[:, 0] + 0.5 - 60)
    assert len(ring) > 100
    assert np.abs(distance - 40).max() < 4


def test_overlay_of_a_large_slide_is_reduced():
    picture = overlay_picture(_tissue(), max_side_px=80)
    assert picture.shape == (60, 80, 3)
    picture = patch_overlay(picture, 10 * SHAPE[1], [(800, 600)], [True], 100)
    assert (picture[30, 40] == PATCH).all()


def test_contact_sheet_puts_enlarged_lr_beside_hr(tmp_path):
    lr = np.zeros((4, 4, 3), np.uint8)
    lr[0, 0] = 255
    hr = np.full((256, 256, 3), 70, np.uint8)
    made = contact_sheet([(lr, hr)] * 3, captions=["a", "b", "c"], side_px=64, columns=2)
    # Gaps of 6 px, and 18 px of words above each row.
    assert made.shape == (6 + 2 * (18 + 64 + 6), 6 + 4 * (64 + 6), 3)
    assert (made[24 : 24 + 16, 6 : 6 + 16] == 255).all()
    assert (made[24 + 16 : 24 + 64, 6 : 6 + 16] == 0).all()
    assert (made[24 : 24 + 64, 6 + 70 : 6 + 134] == 70).all()
    assert (made[6:24, 6:70] < 128).any() and (made[6:24, 76:140] == 255).all()
    save_picture(tmp_path / "sheet.png", made)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), made)
    with pytest.raises(ConfigError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ConfigError, match="no contact sheet"):
        contact_sheet([(lr, hr)], columns=0)


def test_a_sheet_resamples_nothing_unless_it_is_told_and_keeps_words_inside():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    made = sheet(
        [[SheetImage(image=image, text="a word that is far too long " * 3), None]], labels=["x"]
    )
    rows, columns = np.nonzero((made != 255).any(axis=2))
    assert np.array_equal(made[-36:-6, columns.max() - 39 : columns.max() + 1], image)
    assert rows.min() >= 6 and made.shape[1] == columns.max() + 1 + 2 * 6
