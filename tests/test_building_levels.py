"""What a slide can give is decided exactly, and refused in a sentence otherwise."""

from dataclasses import replace
from pathlib import Path

import pytest

from wsisr.building.manifest import load_manifest
from wsisr.building.sources.geometry import plan_geometry
from wsisr.errors import MagnificationError, MppError
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides import Level, SlideInfo


def slide(um_per_px: float, *factors: int, exact: bool = True) -> SlideInfo:
    return SlideInfo(
        path=Path("a.svs"),
        vendor="aperio",
        backend="direct",
        mpp=make_mpp(um_per_px, um_per_px, MppSource.VENDOR),
        levels=tuple(
            Level(
                index=index,
                width_px=40_000 // factor,
                height_px=30_000 // factor,
                factor=factor,
                tile_width_px=256,
                tile_height_px=256,
                exact=exact or index == 0,
            )
            for index, factor in enumerate(factors)
        ),
        bytes=1,
        fingerprint="f",
    )


def test_stored_levels_are_used_and_missing_ones_are_made_from_the_level_of_hr() -> None:
    geometry = plan_geometry(slide(0.243, 1, 4, 16), load_manifest("default"), "s")
    layers = {layer.name: layer for layer in geometry.layers}
    assert (layers["40x"].level, layers["40x"].native) == (0, True)
    assert (layers["20x"].level, layers["20x"].reduction) == (0, 2.0)
    assert (layers["10x"].level, layers["10x"].native) == (1, True)
    assert geometry.step_px == 4
    assert [layer.size_px for layer in geometry.layers] == [1024, 512, 256]


def test_hr_may_be_a_stored_level_of_a_finer_slide() -> None:
    manifest = load_manifest("default", {"hr": "20x", "lr": "5x", "size": 512})
    geometry = plan_geometry(slide(0.25, 1, 2, 4), manifest, "s")
    assert [(layer.level, layer.reduction) for layer in geometry.layers] == [(1, 1.0), (1, 4.0)]


def test_a_level_that_cannot_be_read_exactly_is_made_instead() -> None:
    geometry = plan_geometry(slide(0.25, 1, 4, exact=False), load_manifest("default"), "s")
    assert not geometry.layers[2].native


def test_a_coarse_slide_is_never_enlarged() -> None:
    with pytest.raises(MagnificationError, match=r"s is 20x, so 40x does not exist.*--hr 20x"):
        plan_geometry(slide(0.499, 1, 4), load_manifest("default"), "s")


def test_an_unusual_resolution_is_refused_or_resampled() -> None:
    with pytest.raises(MagnificationError, match="none of 80x, 40x"):
        plan_geometry(slide(28.97, 1), load_manifest("default"), "s")
    geometry = plan_geometry(slide(0.2, 1, 4), load_manifest("default", {"mpp": 0.25}), "s")
    assert geometry.hr.factor == pytest.approx(1.25)
    assert not any(layer.native for layer in geometry.layers)
    with pytest.raises(MagnificationError, match="never upsampled"):
        plan_geometry(slide(0.3, 1), load_manifest("default", {"mpp": 0.25}), "s")


def test_a_required_native_level_that_is_missing_is_named() -> None:
    with pytest.raises(MagnificationError, match="does not store 20x"):
        plan_geometry(slide(0.243, 1, 4, 16), load_manifest("mlcamsr"), "s")


def test_a_slide_without_resolution_is_refused_with_the_remedy() -> None:
    with pytest.raises(MppError, match="--mpp-override"):
        plan_geometry(replace(slide(0.25, 1), mpp=None), load_manifest("default"), "s")


def test_the_paper_region_is_a_margin_around_hr_alone() -> None:
    geometry = plan_geometry(slide(0.243, 1, 2, 4), load_manifest("pathimgsr"), "s")
    assert [layer.read_size_px for layer in geometry.layers] == [1050, 256]
