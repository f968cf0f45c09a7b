"""The backend suite: a correct reader passes, and each classic fault is caught."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import tifffile

from wsisr.geometry import level_factor
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides.protocol import Compression, Level, SlideInfo
from wsisr.testing import BackendTests
from wsisr.testing.conformance import CASES, written_case
from wsisr.testing.stored import StoredSlide
from wsisr.testing.truth import SlideTruth

TRUTHS: dict[str, SlideTruth] = {}


class WholeImageReader:
    """Decodes whole levels with tifffile: slow, simple, and independent of the suite's oracle.

    What is no matter of pixels (resolution, compression) it takes from the truth.
    """

    def __init__(self, path: Path) -> None:
        truth = TRUTHS[path.name]
        self.pixels: list[np.ndarray] = []
        self.valid: list[np.ndarray] = []
        levels = []
        with tifffile.TiffFile(path) as file:
            icc = file.pages[0].tags.get("InterColorProfile")
            self._icc = None if icc is None else bytes(icc.value)
            for index, known in enumerate(truth.levels):
                page = file.pages[known.page]
                tile = known.tile_px
                counts = np.array(page.databytecounts).reshape(page.chunked[-3:-1])
                valid = (counts > 0).repeat(tile, 0).repeat(tile, 1)
                # The description's sizes are known to suites alone; readers parse them.
                width, height = known.width_px, known.height_px
                pixels = page.asarray()[:height, :width].copy()
                valid = valid[:height, :width]
                pixels[~valid] = 255
                self.pixels.append(pixels)
                self.valid.append(valid)
                levels.append(
                    Level(
                        index=index,
                        width_px=width,
                        height_px=height,
                        factor=level_factor(truth.width_px, truth.height_px, width, height),
                        tile_width_px=tile,
                        tile_height_px=tile,
                        compression=Compression(
                            codec=truth.codec,
                            quality=truth.quality,
                            photometric="ycbcr" if truth.ycbcr else "rgb",
                            subsampling=":".join(truth.subsampling),
                        ),
                    )
                )
        stated = truth.stated_um_per_px
        self._info = SlideInfo(
            path=path,
            vendor=truth.layout,
            backend="reference",
            mpp=None if stated is None else make_mpp(stated, stated, MppSource.VENDOR),
            mpp_problem="states none" if stated is None else "",
            levels=tuple(levels),
            icc_sha256="hash" if self._icc else None,
            bytes=path.stat().st_size,
            fingerprint=path.name,
        )

    @property
    def info(self) -> SlideInfo:
        return self._info

    def _cut(self, plane: np.ndarray, fill: int, x: int, y: int, w: int, h: int) -> np.ndarray:
        out = np.full((h, w, *plane.shape[2:]), fill, plane.dtype)
        x0, x1 = max(0, x), min(plane.shape[1], x + w)
        y0, y1 = max(0, y), min(plane.shape[0], y + h)
        if x0 < x1 and y0 < y1:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = plane[y0:y1, x0:x1]
        return out

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._cut(self.pixels[level], 255, x, y, width, height)

    def read_validity(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._cut(self.valid[level], False, x, y, width, height)

    def icc_profile(self) -> bytes | None:
        return self._icc

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TestReference(BackendTests):
    regions_per_level = 4

    def open(self, path: Path) -> WholeImageReader:
        if not TRUTHS:  # a spawned child starts empty
            name = path.name
            TRUTHS.update({name: SlideTruth.load(path.with_suffix(".json"))})
        return WholeImageReader(path)

    @pytest.fixture
    def stored(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> StoredSlide:
        return _remembered(request.param, tmp_path_factory)


def _remembered(case: str, factory: pytest.TempPathFactory) -> StoredSlide:
    stored = written_case(case, factory)
    TRUTHS[stored.path.name] = stored.truth
    stored.truth.save(stored.path.with_suffix(".json"))
    return stored


@pytest.fixture
def philips(tmp_path_factory: pytest.TempPathFactory) -> StoredSlide:
    return _remembered("philips", tmp_path_factory)


class Drifting(WholeImageReader):
    """Divides by a ratio of truncated sizes: a pixel off at the far side."""

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return super().read_level(level, round(x * 1.001), y, width, height)


class BlackGaps(WholeImageReader):
    """Leaves tiles that were never scanned black."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for pixels, valid in zip(self.pixels, self.valid, strict=True):
            pixels[~valid] = 0


class BlindToGaps(WholeImageReader):
    """Calls everything scanned."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.valid = [np.ones_like(v) for v in self.valid]


class Approximate(WholeImageReader):
    """One grey level off, as readers with a fast inverse DCT are."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pixels[1][40:60, 40:60] ^= 1  # 400 of 400,000 pixels


class SharedBuffer(WholeImageReader):
    """Hands out its cache."""

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self.pixels[level][y : y + height, x : x + width]


@pytest.mark.parametrize(
    ("reader", "check"),
    [
        (Drifting, BackendTests.test_stored_pixels_bit_for_bit),
        (BlackGaps, BackendTests.test_missing_tiles_are_white_and_invalid),
        (BlindToGaps, BackendTests.test_missing_tiles_are_white_and_invalid),
        (Approximate, BackendTests.test_stored_pixels_bit_for_bit),
        (SharedBuffer, BackendTests.test_result_belongs_to_the_caller),
    ],
)
def test_classic_faults_are_caught(
    philips: StoredSlide, reader: type[WholeImageReader], check: Callable[..., None]
) -> None:
    with pytest.raises(AssertionError):
        check(BackendTests(), reader(philips.path), philips)


def test_cases_are_small_and_cover_the_traps() -> None:
    for spec in CASES.values():
        assert spec.width_px * spec.height_px < 2_000_000
    assert {spec.layout for spec in CASES.values()} == {"philips", "aperio", "generic"}
    assert {spec.codec for spec in CASES.values()} >= {"jpeg", "jpeg2000", "deflate", "lzw"}
    assert any(spec.missing_tiles for spec in CASES.values())
    assert any(spec.stated_um_per_px is None for spec in CASES.values())


def test_open_must_be_defined() -> None:
    with pytest.raises(NotImplementedError):
        BackendTests().open(Path("slide.tif"))
