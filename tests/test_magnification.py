"""Resolution and the magnification that follows from it."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsisr.errors import MagnificationError, MppError
from wsisr.magnification import (
    MppQuality,
    MppSource,
    downsample_factor,
    magnification_name,
    make_mpp,
    nominal_magnification,
    parse_magnification,
)


@pytest.mark.parametrize(
    ("um_per_px", "nominal"),
    [
        (0.121, 80),
        (0.2282, 40),
        (0.243, 40),
        (0.2526, 40),
        (0.499, 20),
        (0.5022, 20),
        (1.0, 10),
        (2.0, 5),
        (0.972, 10),
        (0.33, None),
        (29.0, None),
        (0.05, None),
    ],
)
def test_nominal_magnification_of_real_resolutions(um_per_px: float, nominal: int | None) -> None:
    assert nominal_magnification(um_per_px) == nominal


@given(st.floats(0.05, 50.0))
def test_a_nominal_magnification_is_within_20_percent(um_per_px: float) -> None:
    nominal = nominal_magnification(um_per_px)
    if nominal is not None:
        assert abs(nominal - 10 / um_per_px) <= 0.2 * nominal * (1 + 1e-12)


@given(st.floats(0.05, 50.0))
def test_plausible_resolutions_are_kept_as_they_are(um_per_px: float) -> None:
    mpp = make_mpp(um_per_px, um_per_px, MppSource.VENDOR)
    assert mpp.value == pytest.approx(um_per_px) and mpp.quality is MppQuality.STATED
    assert pickle.loads(pickle.dumps(mpp)) == mpp  # noqa: S301


@pytest.mark.parametrize("bad", [0.0, -1.0, 0.049, 50.1, float("nan"), float("inf"), 352.8])
def test_implausible_resolutions_are_refused(bad: float) -> None:
    for x, y in ((bad, 0.25), (0.25, bad)):
        with pytest.raises(MppError, match="um/px"):
            make_mpp(x, y, MppSource.TIFF)


def test_uneven_axes_are_refused_beyond_2_percent() -> None:
    mpp = make_mpp(0.2500, 0.2549, MppSource.DICOM)
    assert mpp.value == pytest.approx((0.25 * 0.2549) ** 0.5)
    with pytest.raises(MppError, match="axes differ"):
        make_mpp(0.25, 0.2552, MppSource.DICOM)


@given(st.floats(0.01, 400).map(lambda value: round(value, 3)).filter(lambda value: value > 0))
def test_names_are_read_back(value: float) -> None:
    assert parse_magnification(magnification_name(value)) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "0x", "-5x", "40 40", "4e1", "nanx", "401x", "40xx"])
def test_words_that_are_no_magnification(text: str) -> None:
    with pytest.raises(MagnificationError, match="write it like"):
        parse_magnification(text)


def test_spellings() -> None:
    assert [parse_magnification(text) for text in ("40x", " 2.5X ", "10")] == [40.0, 2.5, 10.0]


def test_downsample_factors() -> None:
    assert [downsample_factor(40, value) for value in (40, 20, 10, 5, 2.5, 1.25)] == [
        1,
        2,
        4,
        8,
        16,
        32,
    ]
    with pytest.raises(MagnificationError, match=r"CMU is 20x, so 40x does not exist.*--hr 20x"):
        downsample_factor(20, 40, "CMU")
    with pytest.raises(MagnificationError, match="no whole fraction"):
        downsample_factor(40, 15)


@given(st.sampled_from([80, 40, 20, 10, 5]), st.integers(1, 64))
def test_every_whole_fraction_is_found(nominal: int, factor: int) -> None:
    assert downsample_factor(nominal, nominal / factor) == factor
