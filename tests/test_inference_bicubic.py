"""Bicubic in parts is bicubic of the whole."""

import numpy as np
import pytest
import torch
from slides_samples import picture

from wsisr.degradation import resize
from wsisr.geometry import Box
from wsisr.inference import bicubic
from wsisr.inference.tiles import lr_box, plan_frame


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 2.37, 3.3])
def test_any_part_equals_the_enlarged_whole(scale: float) -> None:
    image = picture(90, 70)
    frame = plan_frame(90, 70, scale)
    whole = resize(
        torch.from_numpy(image).permute(2, 0, 1).double(), (frame.height_px, frame.width_px)
    )
    expected = whole.permute(1, 2, 0).numpy()
    for out in (
        Box(x=0, y=0, width=frame.width_px, height=frame.height_px),
        Box(x=frame.width_px // 3, y=7, width=frame.width_px // 2, height=31),
        Box(x=frame.width_px - 5, y=frame.height_px - 3, width=5, height=3),
    ):
        box = lr_box(frame, out, bicubic.HALO_PX, 1)
        part = bicubic.enlarge(image[box.y : box.bottom, box.x : box.right], box, frame, out)
        np.testing.assert_allclose(part, expected[out.y : out.bottom, out.x : out.right], atol=2e-3)


def test_grey_levels_are_clipped_and_halves_go_up() -> None:
    values = np.array([-3.0, 0.49, 0.5, 254.5, 300.0], np.float32)
    assert bicubic.to_grey(values).tolist() == [0, 0, 1, 255, 255]


def test_one_colour_sees_a_single_other_pixel() -> None:
    rgb = np.full((40, 50, 3), 200, np.uint8)
    assert bicubic.one_colour(rgb) and bicubic.one_colour(rgb[:1, :1])
    for y, x in ((0, 0), (39, 49), (17, 3), (39, 0)):
        spoiled = rgb.copy()
        spoiled[y, x, 1] += 1
        assert not bicubic.one_colour(spoiled)
