"""A slide's measured level places are applied in whole pixels, and the rest is recorded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_building_levels import slide

from wsisr import open_pairs
from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.building.manifest import load_manifest
from wsisr.building.sources.geometry import plan_geometry
from wsisr.registration import LevelTransform
from wsisr.registration.alignment import aligned, reference_layer, residuals
from wsisr.runners import SerialRunner
from wsisr.slides import open_slide
from wsisr.testing import LevelShift, SlideSpec, write_slide


def transform(level: int, factor: int, x: float, y: float, slope: float = 0.0) -> LevelTransform:
    return LevelTransform(
        level=level,
        factor=factor,
        offset_x_px=x,
        offset_y_px=y,
        slope_x=slope,
        width_px=40_000,
        height_px=30_000,
        measured=True,
        diagnosis="",
    )


def test_everything_moves_by_whole_pixels_to_where_the_coarsest_stored_lr_looks() -> None:
    geometry = plan_geometry(slide(0.25, 1, 2, 4), load_manifest("default"), "s")
    found = [transform(1, 2, 0.6, 0.0), transform(2, 4, 3.4, -2.2)]
    moved = aligned(geometry, found, 40_000, 30_000)
    assert [(v.shift_x_px, v.shift_y_px) for v in moved.layers] == [(3, -2), (1, -1), (0, 0)]
    left = residuals(moved, found, np.array([[0, 0], [400, 800]]))
    assert left["10x"] == pytest.approx(np.array([[0.4, -0.2]] * 2))
    # The 20x begins at 0.6 + 2 x 1 = 2.6 and 0 - 2 x 1 = -2, HR at (3, -2).
    assert left["20x"] == pytest.approx(np.array([[-0.4, 0.0]] * 2))


def test_a_made_layer_follows_hr() -> None:
    geometry = plan_geometry(slide(0.25, 1, 4), load_manifest("default"), "s")
    moved = aligned(geometry, [transform(1, 4, 5.0, 0.0)], 40_000, 30_000)
    assert [v.shift_x_px for v in moved.layers] == [5, 5, 0]
    assert list(residuals(moved, [transform(1, 4, 5.0, 0.0)], np.array([[0, 0]]))) == ["10x"]


def test_drift_shows_in_the_residual() -> None:
    geometry = plan_geometry(slide(0.25, 1, 4), load_manifest("default", {"lr": "10x"}), "s")
    drifting = [transform(1, 4, 0.0, 0.0, slope=1e-4)]
    moved = aligned(geometry, drifting, 40_000, 30_000)
    left = residuals(moved, drifting, np.array([[0, 0], [38_000, 0]]))["10x"][:, 0]
    assert left[1] - left[0] == pytest.approx(3.8)


def test_nothing_is_moved_where_every_lr_is_made() -> None:
    geometry = plan_geometry(slide(0.25, 1), load_manifest("default"), "s")
    assert reference_layer(geometry) is None
    assert aligned(geometry, [], 40_000, 30_000) == geometry


def test_a_build_takes_a_planted_sub_pixel_shift_out(
    tmp_path: Path, made_once: Callable[..., Path]
) -> None:
    def make(folder: Path) -> None:
        folder.mkdir()
        shifts = (
            LevelShift(factor=2, x_px=0.5, y_px=-1.2),
            LevelShift(factor=4, x_px=2.3, y_px=-3.6),
        )
        write_slide(
            folder / "a.tif", SlideSpec(seed=3, width_px=2560, height_px=2560, shifts=shifts)
        )

    source = made_once("shifted", make)
    request = BuildRequest(
        source=source, output=tmp_path / "p.zarr", overrides={"size": 256, "lr": "20x,10x"}
    )
    build_pairs(prepare(request), runner=SerialRunner())
    store = open_pairs(tmp_path / "p.zarr")
    table = store.table("a")
    assert table.rows >= 20
    assert np.abs(table["residual_x"] - 0.3).max() < 0.06
    assert np.abs(table["residual_y"] - 0.4).max() < 0.06
    x, y = int(table["x"][0]), int(table["y"][0])
    row = int(table["row"][0])
    with open_slide(source / "a.tif") as opened:
        hr = opened.read_level(0, x + 2, y - 4, 256, 256)
        lr = opened.read_level(2, x // 4, y // 4, 64, 64)
    assert np.array_equal(store.patch("a", row, "40x"), hr)
    assert np.array_equal(store.patch("a", row, "10x"), lr)
    transforms = store.slides["a"].attributes["level_transforms"]  # type: ignore[typeddict-item]
    assert [round(t["offset_x_px"], 1) for t in transforms] == [0.5, 2.3]
