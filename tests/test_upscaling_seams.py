"""A tile border that can be seen has more energy than its surroundings; one that cannot has not."""

import numpy as np
import pytest
from slides_samples import picture

from wsisr.upscaling.seams import SeamEnergy, seam_energy

STARTS = (0, 64, 128, 192)


def test_a_picture_without_tiles_has_a_ratio_of_one() -> None:
    rgb = picture(256, 256)
    assert seam_energy(rgb, STARTS, STARTS, 1.0).ratio == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("offset", "least"), [(4, 1.05), (12, 1.5)])
def test_tiles_with_an_offset_of_their_own_raise_it(offset: int, least: float) -> None:
    rgb = picture(256, 256).astype(int) - 20
    for number, start in enumerate(STARTS):
        rgb[:, start : start + 64] += offset * (number % 2)
    found = seam_energy(rgb.clip(0, 255).astype(np.uint8), STARTS, (0,), 1.0)
    assert found.ratio > least


def test_borders_of_the_inputs_own_tiles_are_not_held_against_us() -> None:
    lr = picture(128, 128)
    lr[:, 32:64] = lr[:, 32:64] // 2  # what the scanner or its codec did
    rgb = lr.repeat(2, axis=0).repeat(2, axis=1)
    assert seam_energy(rgb, STARTS, STARTS, 2.0).ratio > 2
    assert seam_energy(rgb, STARTS, STARTS, 2.0, lr).ratio == pytest.approx(1.0, abs=0.01)


def test_sums_add_up_and_survive_the_journal() -> None:
    a = seam_energy(picture(256, 64), STARTS, (0,), 1.0)
    b = seam_energy(picture(64, 256), (0,), STARTS, 1.0)
    both = a + b
    assert both.borders == a.borders + b.borders == 2 * 3 * 64 * 3
    assert SeamEnergy.of_row(both.row()) == both


def test_a_single_tile_has_no_ratio_and_flat_glass_has_one() -> None:
    assert np.isnan(seam_energy(picture(32, 32), (0,), (0,), 4.0).ratio)
    assert seam_energy(np.full((256, 256, 3), 240, np.uint8), STARTS, STARTS, 1.0).ratio == 1.0
