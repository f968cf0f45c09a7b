"""Two scans that weigh the stains differently: the grey of one is fitted by the channels of the
other, and the place is the tissue's and no longer the mixture's."""

import numpy as np
import pytest

from wsisr.registration import register_pair
from wsisr.registration.colour import grey_tables, in_colours_of
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import make_pair


@pytest.fixture(scope="module")
def tissue():
    return synthetic_tissue(440, 440, seed=78)


def test_another_mixture_of_stains_no_longer_moves_the_place(tissue):
    errors = []
    for seed in range(401, 407):
        case = make_pair("B1", seed, scene=tissue, lr_px=96, scale=3)
        both = [
            register_pair(case.lr, case.hr_region, 3, "affine", match_colours=matched)
            for matched in (False, True)
        ]
        errors.append([np.hypot(found.dx - case.dx, found.dy - case.dy) for found in both])
    plain, matched = np.median(errors, axis=0)
    assert matched < 0.75 * plain
    assert matched < 0.05


def test_the_fitted_grey_follows_weights_and_gamma(tissue):
    rgb = tissue[:128, :128].astype(np.uint8)
    mixed = 255 * (np.sum(rgb * np.array([0.9, 0.2, -0.1]), axis=2) / 255) ** 1.15
    found = in_colours_of(mixed.astype(np.float32), rgb, lambda plane: plane)
    assert np.corrcoef(found.ravel(), mixed.ravel())[0, 1] > 0.995
    luma = rgb @ [0.299, 0.587, 0.114]
    assert np.corrcoef(luma.ravel(), mixed.ravel())[0, 1] < 0.99


def test_grey_images_and_opposite_ones_keep_the_luma(tissue):
    rgb = np.repeat(tissue[:96, :96, 1:2], 3, axis=2).astype(np.uint8)
    grey = rgb[..., 0].astype(np.float32)
    tables = grey_tables(grey, rgb.astype(np.float32))
    assert tables is not None
    assert np.allclose(tables.sum(axis=0)[[50, 200]] @ [-1, 1], 150, rtol=0.1)
    assert grey_tables(-grey, rgb.astype(np.float32)) is None
    assert np.array_equal(in_colours_of(-grey, rgb, lambda plane: plane), grey)
    assert grey_tables(np.zeros_like(grey), rgb.astype(np.float32)) is None
