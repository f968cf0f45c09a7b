"""A match outside the search region is looked for once more, further out."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wsisr.building.sources.rescan import read_pairs
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.registration import Reason, ScanRegistration, register_pair, register_scans
from wsisr.registration.patch import SearchRegion, register_patch
from wsisr.slides import open_slide, read_layer
from wsisr.testing import LevelShift, SlideSpec, write_slide
from wsisr.testing.rescan import RescanSpec, write_rescan

MARGIN_PX = 12


@pytest.fixture(scope="module")
def scans(made_once: Callable[..., Path]) -> Path:
    """A slide whose 10x level lies 20 HR px off, and another scan of it."""

    def make(folder: Path) -> None:
        folder.mkdir()
        spec = SlideSpec(
            seed=4,
            width_px=3072,
            height_px=3072,
            shifts=(LevelShift(factor=4, x_px=20.0, y_px=-3.0),),
        )
        truth = write_slide(folder / "a.tif", spec)
        write_rescan(folder / "b.tif", truth, RescanSpec(rotation_deg=0.4))

    return made_once("widening", make)


def geometry(margin_px: int = MARGIN_PX) -> PatchGeometry:
    fine = Layer(name="40x", factor=1.0, size_px=512, level=0, reduction=1.0, margin_px=margin_px)
    coarse = Layer(name="10x", factor=4.0, size_px=128, level=2, reduction=1.0)
    return patch_geometry((fine, coarse), (1, 2, 4))


@pytest.mark.parametrize("method", ["subpixel", "ncc-integer"])
def test_a_match_beyond_the_margin_is_found_and_counted_from_the_first_corner(
    scans: Path, method: str
) -> None:
    with open_slide(scans / "a.tif") as slide:
        plan = geometry()
        hr, lr = plan.layers
        assert slide.info.levels[lr.level].factor == 4
        origin = (1024, 1024)
        patch = read_layer(slide, plan, lr, *origin)
        region = read_layer(slide, plan, hr, *origin)
        assert register_pair(patch, region, 4, method).reason == Reason.OUTSIDE
        search = SearchRegion(slide, plan, origin, region)
        found = register_patch(search, patch, method)
        crop = search.cut(found.offset_x, found.offset_y, accepted=found.accepted)
        assert found.accepted
        assert (found.offset_x, found.offset_y) == (MARGIN_PX + 20, MARGIN_PX - 3)
        assert abs(found.residual_x) < 0.1 and abs(found.residual_y) < 0.1
        assert found.affine[0][2] == pytest.approx(found.dx)
        np.testing.assert_array_equal(crop, slide.read_level(0, 1024 + 20, 1024 - 3, 512, 512))


def test_what_the_slide_does_not_have_stays_rejected(scans: Path) -> None:
    with open_slide(scans / "a.tif") as slide:
        plan = geometry()
        hr, lr = plan.layers
        origin = (slide.info.levels[0].width_px - 512 - 16, 1024)
        patch = read_layer(slide, plan, lr, *origin)
        region = read_layer(slide, plan, hr, *origin)
        search = SearchRegion(slide, plan, origin, region)
        found = register_patch(search, patch, "subpixel")
        crop = search.cut(found.offset_x, found.offset_y, accepted=found.accepted)
        assert found.reason == Reason.OUTSIDE
        assert crop.shape == (512, 512, 3)


def test_two_scans_whose_field_is_off_are_looked_for_again(scans: Path) -> None:
    with open_slide(scans / "b.tif") as moving, open_slide(scans / "a.tif") as fixed:
        right = register_scans(moving, fixed)
        layer = Layer(name="10x", factor=1.0, size_px=128, level=0, reduction=1.0)
        plan = patch_geometry((layer,), (1,))
        origins = np.array([[256, 256]])
        wish: Any = SimpleNamespace(hr="40x", size=512)
        (wanted,) = read_pairs((moving, fixed), right, plan, origins, wish)
        assert wanted.certificate is not None and wanted.certificate.accepted

        document = right.to_json()
        shift = np.asarray(document["matrix"], float)
        shift[0, 2] += 56.0
        off = ScanRegistration.from_json({**document, "matrix": shift.tolist()})
        (found,) = read_pairs((moving, fixed), off, plan, origins, wish)
        assert found.certificate is not None
        assert found.certificate.accepted
        error = np.abs(found.arrays["40x"].astype(int) - wanted.arrays["40x"].astype(int)).mean()
        assert error < 1.0
