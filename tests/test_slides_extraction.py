"""Many patches at once: the pixels of one-by-one reads, each tile decoded once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slides_samples import box_level, picture, write_pyramid

from wsisr.errors import GeometryError, SlideError
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.slides import iter_patches, open_slide, read_layer, read_layer_validity
from wsisr.slides.extraction import reading_order
from wsisr.slides.tiles import TiledSlide

LEVELS = (1, 2, 4)


def layer(name: str, factor: int, level: int, margin: int = 0) -> Layer:
    size = 64 // factor
    reduction = factor / LEVELS[level]
    return Layer(
        name=name,
        factor=float(factor),
        size_px=size,
        level=level,
        reduction=reduction,
        margin_px=margin,
    )


GEOMETRY = patch_geometry(
    (
        layer("40x", 1, 0),
        layer("20x", 2, 0),
        layer("10x", 4, 2),
        layer("5x", 8, 1),
    ),
    LEVELS,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    image = picture(837, 611)
    return write_pyramid(
        tmp_path_factory.mktemp("x") / "a.tif",
        [image, box_level(image, 2), box_level(image, 4)],
        tile=96,
        compression="deflate",
        missing={5, 31},
    )


def origins(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    step = GEOMETRY.step_px
    x = rng.integers(-8, 837 // step, count) * step
    y = rng.integers(-8, 611 // step, count) * step
    return np.stack([x, y], axis=1).astype(np.int64)


def collect(slide, where, **options):
    return {
        i: (patch, valid) for i, patch, valid in iter_patches(slide, GEOMETRY, where, **options)
    }


def assert_same(first, second) -> None:
    assert first.keys() == second.keys()
    for index, (patch, valid) in first.items():
        other, other_valid = second[index]
        assert valid == other_valid
        assert patch.keys() == other.keys()
        for name in patch:
            np.testing.assert_array_equal(patch[name], other[name])


@pytest.mark.parametrize("backend", ["direct", "tiffslide"])
def test_equals_reading_one_by_one(path: Path, backend: str) -> None:
    where = origins(60)
    with open_slide(path, backend=backend) as slide:
        found = collect(slide, where)
        assert sorted(found) == list(range(60))
        assert 0 < sum(valid for _, valid in found.values()) < 60
        for index, (patch, valid) in found.items():
            x, y = where[index].tolist()
            expected = [read_layer_validity(slide, GEOMETRY, la, x, y) for la in GEOMETRY.layers]
            assert valid == all(expected)
            for la in GEOMETRY.layers:
                np.testing.assert_array_equal(patch[la.name], read_layer(slide, GEOMETRY, la, x, y))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), threads=st.sampled_from([1, 2, 3]), cache=st.floats(0.0, 0.3))
def test_order_threads_and_budget_change_nothing(path: Path, seed, threads, cache) -> None:
    where = origins(25, seed=3)
    shuffle = np.random.default_rng(seed).permutation(25)
    with open_slide(path) as slide:
        plain = collect(slide, where)
        other = collect(slide, where[shuffle], threads=threads, cache_mib=cache)
    assert_same(plain, {int(shuffle[i]): value for i, value in other.items()})


class CountingSlide(TiledSlide):
    """Counts decoded tiles."""

    def __init__(self, slide: TiledSlide) -> None:
        super().__init__(slide.info, slide.store)
        self.decoded: Counter[tuple[int, int, int]] = Counter()

    def decode_tile(self, level, row, column):
        self.decoded[level, row, column] += 1
        return super().decode_tile(level, row, column)


@pytest.mark.parametrize("threads", [1, 2])
def test_each_tile_is_decoded_once_for_all_patches_and_layers(path: Path, threads: int) -> None:
    with open_slide(path) as slide:
        counting = CountingSlide(slide)
        list(iter_patches(counting, GEOMETRY, origins(150), threads=threads))
        assert max(counting.decoded.values()) == 1
        assert len(counting.decoded) > 50


def test_a_small_budget_costs_time_not_pixels(path: Path) -> None:
    with open_slide(path) as slide:
        counting = CountingSlide(slide)
        tight = collect(counting, origins(80), cache_mib=0.05)
        assert max(counting.decoded.values()) > 1
        assert_same(tight, collect(slide, origins(80)))


def test_search_margins_are_read_and_must_be_scanned(path: Path) -> None:
    geometry = patch_geometry((layer("40x", 1, 0, margin=13), layer("10x", 4, 2)), LEVELS)
    with open_slide(path) as slide:
        where = np.array([[0, 0], [320, 320], [100, 100]], dtype=np.int64)
        for index, patch, valid in iter_patches(slide, geometry, where):
            x, y = where[index].tolist()
            assert patch["40x"].shape == (90, 90, 3)
            np.testing.assert_array_equal(patch["40x"], slide.read_level(0, x - 13, y - 13, 90, 90))
            assert valid == bool(slide.read_validity(0, x - 13, y - 13, 90, 90).all())


class OwnSlide:
    """A third party's slide: only what the protocol asks for."""

    def __init__(self, slide) -> None:
        self._slide = slide
        self.info = slide.info
        self.read_level = slide.read_level
        self.read_validity = slide.read_validity


def test_slides_of_third_parties_are_read_in_blocks(path: Path) -> None:
    with open_slide(path) as slide:
        own = OwnSlide(slide)
        assert_same(collect(own, origins(30)), collect(slide, origins(30)))


def test_real_slide(shared_data: Path) -> None:
    file = shared_data / "slides" / "derived_cmu_generic_3level.tif"
    layers = tuple(
        Layer(name=f"{20 // f}x", factor=float(f), size_px=512 // f, level=i, reduction=1.0)
        for i, f in enumerate((1, 2, 4))
    )
    geometry = patch_geometry(layers, LEVELS)
    where = np.array([[x, y] for x in range(0, 1700, 512) for y in range(0, 2400, 512)])
    with open_slide(file) as slide:
        for index, patch, valid in iter_patches(slide, geometry, where):
            x, y = where[index].tolist()
            assert valid
            for level, f in enumerate((1, 2, 4)):
                np.testing.assert_array_equal(
                    patch[f"{20 // f}x"],
                    slide.read_level(level, x // f, y // f, 512 // f, 512 // f),
                )


def test_wrong_arguments(path: Path) -> None:
    with open_slide(path) as slide:
        for bad in (np.array([[1, 0]]), np.zeros(2, np.int64), np.zeros((1, 3), np.int64)):
            with pytest.raises(GeometryError):
                list(iter_patches(slide, GEOMETRY, bad))
        with pytest.raises(GeometryError, match="thread"):
            list(iter_patches(slide, GEOMETRY, origins(1), threads=0))
        assert list(iter_patches(slide, GEOMETRY, np.zeros((0, 2), np.int64))) == []


def test_errors_of_decoding_threads_arrive(tmp_path: Path) -> None:
    file = write_pyramid(tmp_path / "b.tif", [picture(500, 500)], tile=96, compression="jpeg")
    data = bytearray(file.read_bytes())
    data[2000:-3000] = bytes(len(data) - 5000)
    geometry = PatchGeometry(layers=(layer("40x", 1, 0),), step_px=1, field_px=64)
    with open_slide(file) as slide:
        file.write_bytes(data)
        with pytest.raises(SlideError, match="cannot be decoded"):
            list(iter_patches(slide, geometry, np.array([[0, 0], [300, 300]]), threads=2))


def test_reading_order_is_by_band_then_column() -> None:
    where = np.array([[0, 5000], [900, 0], [0, 100], [0, 0]])
    assert reading_order(where, 2048).tolist() == [3, 2, 1, 0]
