"""Scans whose ratio is no whole number: LR is a stored level, HR takes up the rest, or it is said
which factors there are."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from wsisr import open_pairs
from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.registration.factors import largest_field
from wsisr.runners import SerialRunner
from wsisr.slides import open_slide
from wsisr.testing.two_scans import MemorySlide, ScanPair, ScanSpec, make_scans

EVERYWHERE = {"method": "none"}


@pytest.fixture(scope="module")
def scans() -> ScanPair:
    return make_scans(ScanSpec(ratio=1.52, side_px=448, rotation_deg=0.3, seed=8))


def write(path: Path, scan: MemorySlide, um_per_px: float) -> None:
    """The scan and, as a second level, its half."""
    image = scan.image[: scan.image.shape[0] // 2 * 2, : scan.image.shape[1] // 2 * 2]
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    with tifffile.TiffWriter(path) as file:
        for level, pixels in enumerate((image, half)):
            density = 1e4 / (um_per_px * 2**level)
            file.write(
                pixels,
                photometric="rgb",
                tile=(256, 256),
                resolution=(density, density),
                resolutionunit=3,
                subfiletype=int(level > 0),
            )


def request(folder: Path, **overrides: object) -> BuildRequest:
    return BuildRequest(
        source=folder,
        output=folder / "p.zarr",
        manifest="rescan",
        overrides={"tissue": EVERYWHERE, **overrides},
    )


def test_a_stored_level_is_lr_bit_for_bit_and_hr_is_reduced_a_little(
    scans: ScanPair, tmp_path: Path
) -> None:
    write(tmp_path / "a_10x.tif", scans.moving, 0.25 * 1.52)
    write(tmp_path / "a_40x.tif", scans.fixed, 0.25)
    asked = request(tmp_path, lr=["13.33x"], size=192)
    summary = build_pairs(prepare(asked), runner=SerialRunner())
    assert summary is not None
    assert not summary.failures
    store = open_pairs(tmp_path / "p.zarr")
    (view,) = store.slides.values()
    lr = view.spec("13.33x")
    assert (lr.origin, lr.native, lr.factor) == ("rescan", True, 2)
    assert lr.um_per_px == pytest.approx(0.76)
    assert view.spec("40x").um_per_px == pytest.approx(0.76 / 3)
    assert view.attributes["hr_scan"]["reduction"] == pytest.approx(1.52 * 2 / 3, rel=1e-3)
    table = store.table(kept=True)
    assert table.rows >= 2
    assert table["hr_resampled"].all()
    with open_slide(tmp_path / "a_10x.tif") as slide:
        for row in table["row"].tolist():
            x, y = (int(view.column(name)[row]) // 2 for name in ("x", "y"))
            stored = slide.read_level(1, x, y, 64, 64)
            np.testing.assert_array_equal(store.patch(view.slide_id, row, "13.33x"), stored)
            hr = store.patch(view.slide_id, row, "40x").astype(np.float32)
            small = cv2.resize(hr, (64, 64), interpolation=cv2.INTER_AREA)
            seen = np.corrcoef(small.mean(-1).ravel(), stored.mean(-1).ravel())[0, 1]
            assert seen > 0.9


def test_fields_beyond_the_second_scan_are_called_that(scans: ScanPair, tmp_path: Path) -> None:
    write(tmp_path / "a_10x.tif", scans.moving, 0.25 * 1.52)
    edge = (scans.fixed.image.shape[1] - 600) // 2
    cut = np.ascontiguousarray(scans.fixed.image[:, edge:-edge])
    write(tmp_path / "a_40x.tif", MemorySlide(cut, 0.25), 0.25)
    asked = request(tmp_path, lr=["13.33x"], size=660)
    summary = build_pairs(prepare(asked), runner=SerialRunner())
    assert summary is not None
    (failure,) = summary.failures
    assert "reaches beyond the edge of the second scan" in failure.error
    (view,) = open_pairs(tmp_path / "p.zarr").slides.values()
    assert view.attributes["funnel"]["inside"] == 0
    named = re.search(r"the largest that both scans hold is (\d+) px", failure.error)
    assert named is not None
    fits = request(tmp_path, lr=["13.33x"], size=int(named[1]))
    build_pairs(prepare(replace(fits, output=tmp_path / "q.zarr")), runner=SerialRunner())
    (view,) = open_pairs(tmp_path / "q.zarr").slides.values()
    assert view.attributes["funnel"]["inside"] > 0


def test_the_largest_field_is_one_that_both_scans_hold() -> None:
    turned = ((0.0, -2.0, 900.0), (2.0, 0.0, -100.0))  # a quarter turn at x2
    # Columns from 50 and rows to 450 lie in the fixed scan: the second field of the first row.
    assert largest_field(turned, (500, 480), (900, 900), 4) == 248
    assert largest_field(((2.0, 0.0, 0.0), (0.0, 2.0, 0.0)), (500, 480), (1000, 960), 4) == 480
    assert largest_field(((2.0, 0.0, 5000.0), (0.0, 2.0, 0.0)), (500, 480), (900, 900), 4) == 0


def test_a_slide_smaller_than_a_field_names_the_size_that_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", MemorySlide(np.full((400, 300, 3), 200, np.uint8), 0.25), 0.25)
    messages = []
    for size, output in ((512, "p.zarr"), (300, "q.zarr")):
        asked = BuildRequest(source=tmp_path, output=tmp_path / output, overrides={"size": size})
        summary = build_pairs(prepare(asked), runner=SerialRunner())
        assert summary is not None
        messages.append(summary.failures[0].error)
    assert "the largest that it holds is 300 px" in messages[0]
    assert "no field" not in messages[1]


def test_a_refusal_names_the_factors_that_there_are(scans: ScanPair, tmp_path: Path) -> None:
    write(tmp_path / "a_10x.tif", scans.moving, 0.25 * 1.52)
    write(tmp_path / "a_40x.tif", scans.fixed, 0.25)
    asked = request(tmp_path, lr=["20x"], size=192)
    summary = build_pairs(prepare(asked), runner=SerialRunner())
    assert summary is not None
    (failure,) = summary.failures
    assert "make no pairs of x2" in failure.error
    assert "x3 (LR: level 1" in failure.error
    assert "x4 (LR: level 0 reduced by 3, HR reduced by 1.140)" in failure.error
