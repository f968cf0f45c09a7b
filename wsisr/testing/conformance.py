"""What every slide backend must pass, as a pytest class to be subclassed.

A third-party reader proves itself with a few lines in its own tests::

    from wsisr.testing import BackendTests

    class TestMyReader(BackendTests):
        def open(self, path):
            return MyReader(path)

The suite writes small synthetic slides (`CASES`) whose stored pixels are known bit for bit. A
reader that cannot open some of them names the ones it claims in `cases`.
"""

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from wsisr.arrays import UInt8Array
from wsisr.magnification import nominal_magnification
from wsisr.slides.protocol import Slide
from wsisr.testing.levels import LevelShift
from wsisr.testing.slides import write_slide
from wsisr.testing.spec import SlideSpec
from wsisr.testing.stored import StoredSlide

Region = tuple[int, int, int, int, int]

CASES: dict[str, SlideSpec] = {
    # Levels padded to whole tiles; at the last one the size ratio alone points to a wrong factor.
    "philips": SlideSpec(
        seed=1,
        layout="philips",
        width_px=1536,
        height_px=1024,
        shifts=(LevelShift(factor=4, x_px=3.0, y_px=-2.0),),
        missing_tiles=((0, 2, 1), (1, 1, 0)),
        icc=b"not a real profile, but bytes all the same" * 8,
    ),
    "philips-shared": SlideSpec(
        seed=2, layout="philips", width_px=1024, height_px=1536, background="shared"
    ),
    "aperio": SlideSpec(
        seed=3, layout="aperio", width_px=1503, height_px=1101, tile_px=240, quality=70
    ),
    "aperio-ycc": SlideSpec(
        seed=4, layout="aperio", width_px=1201, height_px=1333, ycbcr=True, um_per_px=0.499
    ),
    "aperio-no-mpp": SlideSpec(
        seed=5, layout="aperio", width_px=800, height_px=600, stated_um_per_px=None
    ),
    # 1443 -> 721: the reported downsample is 2.0014, and dividing by it drifts by a pixel.
    "aperio-half": SlideSpec(
        seed=11, layout="aperio", width_px=1443, height_px=603, factors=(1, 2), codec="deflate"
    ),
    "generic": SlideSpec(
        seed=6,
        layout="generic",
        width_px=1275,
        height_px=1031,
        missing_tiles=((0, 0, 0), (0, 4, 4), (1, 1, 1)),
    ),
    "generic-lossless": SlideSpec(
        seed=7, layout="generic", width_px=1023, height_px=769, codec="deflate"
    ),
    "generic-lzw-bigtiff": SlideSpec(
        seed=8,
        layout="generic",
        width_px=701,
        height_px=902,
        codec="lzw",
        big_tiff=True,
        background="missing",
    ),
    "generic-raw": SlideSpec(seed=9, layout="generic", width_px=640, height_px=513, codec="none"),
    "aperio-j2k": SlideSpec(
        seed=10, layout="aperio", width_px=777, height_px=612, codec="jpeg2000"
    ),
}
"""Slides of the suite by name; all are small."""


class BackendTests:
    """Checks of one backend; subclass it and define `open`.

    Attributes
    ----------
    cases : tuple of str
        Which of `CASES` the backend claims to read exactly; all by default.
    regions_per_level : int
        Random regions compared on each level.
    """

    cases: ClassVar[tuple[str, ...]] = tuple(CASES)
    regions_per_level: ClassVar[int] = 12

    def open(self, path: Path) -> Slide:
        """Open a slide with the backend under test."""
        raise NotImplementedError("a subclass of BackendTests defines open(path)")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run every check on every claimed case (a pytest hook)."""
        if "stored" in metafunc.fixturenames:
            metafunc.parametrize("stored", metafunc.cls.cases, indirect=True)

    @pytest.fixture
    def stored(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> StoredSlide:
        """A written slide and what it stores."""
        return written_case(request.param, tmp_path_factory)

    @pytest.fixture
    def slide(self, stored: StoredSlide) -> Iterator[Slide]:
        with self.open(stored.path) as slide:
            yield slide

    def test_is_a_slide(self, slide: Slide, stored: StoredSlide) -> None:
        assert isinstance(slide, Slide)
        assert slide.info.path == stored.path
        assert slide.info.bytes == stored.path.stat().st_size

    def test_levels_have_true_sizes_and_exact_factors(
        self, slide: Slide, stored: StoredSlide
    ) -> None:
        found = [(v.index, v.width_px, v.height_px, v.factor) for v in slide.info.levels]
        wanted = [(v.index, v.width_px, v.height_px, v.factor) for v in stored.truth.levels]
        assert found == wanted, f"(index, width, height, factor): {found}, stored: {wanted}"

    def test_resolution(self, slide: Slide, stored: StoredSlide) -> None:
        stated = stored.truth.stated_um_per_px
        if stated is None:
            assert slide.info.mpp is None
            assert slide.info.mpp_problem
            return
        assert slide.info.mpp is not None
        assert slide.info.mpp.value == pytest.approx(stated, rel=1e-4)
        assert nominal_magnification(slide.info.mpp.value) == nominal_magnification(stated)

    def test_stored_pixels_bit_for_bit(self, slide: Slide, stored: StoredSlide) -> None:
        """On every level that the reader calls exact; level 0 has to be."""
        assert slide.info.levels[0].exact
        for region in _regions(stored, self.regions_per_level):
            rgb, valid = stored.read(*region)
            found = slide.read_level(*region)
            assert found.dtype == np.uint8 and found.shape == rgb.shape
            if not slide.info.levels[region[0]].exact:
                continue
            np.testing.assert_array_equal(found, rgb, err_msg=f"level, x, y, w, h = {region}")
            found_valid = slide.read_validity(*region)
            assert found_valid.dtype == np.bool_ and found_valid.shape == valid.shape
            np.testing.assert_array_equal(found_valid, valid, err_msg=f"validity at {region}")

    def test_outside_is_white_and_invalid(self, slide: Slide, stored: StoredSlide) -> None:
        for level in stored.truth.levels:
            w, h = level.width_px, level.height_px
            if not slide.info.levels[level.index].exact:
                continue
            for x, y in ((-40, -30), (w - 25, h - 20), (w + 500, 3), (-900, -900), (5, h)):
                region = (level.index, x, y, 64, 48)
                rgb, valid = stored.read(*region)
                np.testing.assert_array_equal(slide.read_level(*region), rgb)
                np.testing.assert_array_equal(slide.read_validity(*region), valid)

    def test_missing_tiles_are_white_and_invalid(self, slide: Slide, stored: StoredSlide) -> None:
        for level in stored.truth.levels:
            for column, row in level.missing:
                x, y = column * level.tile_px, row * level.tile_px
                width = min(level.tile_px, level.width_px - x)
                height = min(level.tile_px, level.height_px - y)
                assert (slide.read_level(level.index, x, y, width, height) == 255).all()
                assert not slide.read_validity(level.index, x, y, width, height).any()

    def test_result_belongs_to_the_caller(self, slide: Slide, stored: StoredSlide) -> None:
        region = (0, 300, 200, 100, 90)
        first = slide.read_level(*region)
        kept = first.copy()
        first[:] = 0
        np.testing.assert_array_equal(slide.read_level(*region), kept)

    def test_threads_may_share_a_slide(self, slide: Slide, stored: StoredSlide) -> None:
        levels = slide.info.levels
        regions = [r for r in _regions(stored, 3, seed=5) if levels[r[0]].exact] * 3
        wanted = [stored.read(*region)[0] for region in regions]
        barrier = threading.Barrier(4)

        def read(part: int) -> list[UInt8Array]:
            barrier.wait(timeout=30)
            return [slide.read_level(*region) for region in regions[part::4]]

        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(read, range(4)))
        for part, arrays in enumerate(parts):
            for found, expected in zip(arrays, wanted[part::4], strict=True):
                np.testing.assert_array_equal(found, expected)

    def test_icc_profile_is_handed_out(self, slide: Slide, stored: StoredSlide) -> None:
        profile = slide.icc_profile()
        assert len(profile or b"") == stored.truth.icc_bytes
        assert (slide.info.icc_sha256 is None) == (stored.truth.icc_bytes == 0)

    def test_compression_is_recorded(self, slide: Slide, stored: StoredSlide) -> None:
        """A reader that cannot know says ``unknown``; it must not say something wrong."""
        truth = stored.truth
        for level in slide.info.levels:
            if level.compression.codec == "unknown":
                continue
            assert level.compression.codec == truth.codec
            if truth.codec == "jpeg":
                assert level.compression.quality == truth.quality
                wanted = ":".join(truth.subsampling)
                assert level.compression.subsampling == wanted
                assert level.compression.photometric == ("ycbcr" if truth.ycbcr else "rgb")

    def test_close_can_be_repeated(self, stored: StoredSlide) -> None:
        slide = self.open(stored.path)
        slide.read_level(0, 0, 0, 16, 16)
        slide.close()
        slide.close()

    def test_two_handles_are_independent(self, stored: StoredSlide) -> None:
        first, second = self.open(stored.path), self.open(stored.path)
        region = (0, 256, 256, 64, 64)
        wanted = first.read_level(*region)
        first.close()
        np.testing.assert_array_equal(second.read_level(*region), wanted)
        assert first.info.fingerprint == second.info.fingerprint
        second.close()

    def test_opens_in_a_spawned_process(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        stored = written_case(self.cases[0], tmp_path_factory)
        region = (0, 700, 400, 200, 150)
        with self.open(stored.path) as slide:
            here = slide.read_level(*region)
            # Reading before the child starts shows handles that leak into it.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                there = pool.submit(_read_in_child, type(self), stored.path, region).result(120)
            np.testing.assert_array_equal(slide.read_level(*region), here)
        np.testing.assert_array_equal(there, here)


_FILES: dict[str, StoredSlide] = {}


def written_case(case: str, factory: pytest.TempPathFactory) -> StoredSlide:
    """One of `CASES` on disk with its oracle; each is written once per process."""
    if case not in _FILES:
        spec = CASES[case]
        suffix = ".svs" if spec.layout == "aperio" else ".tif"
        path = factory.mktemp("conformance") / f"{case}{suffix}"
        _FILES[case] = StoredSlide(path, write_slide(path, spec))
    return _FILES[case]


def _regions(stored: StoredSlide, count: int, seed: int = 0) -> Iterator[Region]:
    """The whole of every level, random parts of it, the corners and the last tile."""
    rng = np.random.default_rng(seed)
    for level in stored.truth.levels:
        w, h = level.width_px, level.height_px
        yield level.index, 0, 0, w, h
        for _ in range(count):
            width, height = (int(rng.integers(1, min(300, n) + 1)) for n in (w, h))
            x, y = int(rng.integers(0, w - width + 1)), int(rng.integers(0, h - height + 1))
            yield level.index, x, y, width, height
        side = min(40, w, h)
        for x, y in ((0, 0), (w - side, 0), (0, h - side), (w - side, h - side)):
            yield level.index, x, y, side, side
        tile = level.tile_px
        x, y = (w - 1) // tile * tile, (h - 1) // tile * tile
        yield level.index, x, y, w - x, h - y


def _read_in_child(suite: type[BackendTests], path: Path, region: Region) -> UInt8Array:
    with suite().open(path) as slide:
        return slide.read_level(*region)
