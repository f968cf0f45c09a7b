"""Pictures show the mask, the annotations, the patches and the pairs where they are."""

import numpy as np
import pytest
from PIL import Image
from selection_scenes import disk, glass, paint_tissue
from shapely.geometry import box

from wsisr.errors import ConfigError
from wsisr.selection.annotation_formats.geojson import COLOURS
from wsisr.selection.annotations import TUMOR, Annotations, Region
from wsisr.selection.preview import PATCH, TISSUE, contact_sheet, overlay_picture, save_png
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
    picture = overlay_picture(
        _tissue(), annotations=drawn, origins=[(100, 200), (1000, 300)], field_px=150
    )
    assert picture.shape == (*SHAPE, 3)
    assert (picture[50, 75] == COLOURS[TUMOR]).all()
    assert (picture[20, 15] == PATCH).all()
    assert (picture[30, 105] == PATCH).all()
    ring = np.argwhere((picture == TISSUE).all(axis=2))
    distance = np.hypot(ring[:, 1] + 0.5 - 80, ring[:, 0] + 0.5 - 60)
    assert len(ring) > 100
    assert np.abs(distance - 40).max() < 4


def test_overlay_of_a_large_slide_is_reduced():
    picture = overlay_picture(_tissue(), origins=[(800, 600)], field_px=100, max_side_px=80)
    assert picture.shape == (60, 80, 3)
    assert (picture[30, 40] == PATCH).all()


def test_contact_sheet_puts_enlarged_lr_beside_hr(tmp_path):
    lr = np.zeros((4, 4, 3), np.uint8)
    lr[0, 0] = 255
    hr = np.full((256, 256, 3), 70, np.uint8)
    sheet = contact_sheet([(lr, hr)] * 3, captions=["a", "b", "c"], cell_px=64, columns=2)
    assert sheet.shape == (2 * (64 + 22) + 6, 2 * (128 + 12) + 6, 3)
    assert (sheet[22 : 22 + 16, 6 : 6 + 16] == 255).all()
    assert (sheet[22 + 16 : 22 + 64, 6 : 6 + 16] == 0).all()
    assert (sheet[22 : 22 + 64, 6 + 66 : 6 + 130] == 70).all()
    save_png(tmp_path / "sheet.png", sheet)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
    with pytest.raises(ConfigError, match="at least one pair"):
        contact_sheet([])
    with pytest.raises(ConfigError, match="no contact sheet"):
        contact_sheet([(lr, hr)], columns=0)
