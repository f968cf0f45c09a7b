"""Pictures state their true resolution or none, keep their profile, and are looked at again."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms
from slides_samples import picture

from wsisr.errors import ConfigError, SlideError
from wsisr.slides import open_slide
from wsisr.upscaling.plain_images import (
    PICTURE_SUFFIXES,
    PictureTags,
    check_picture_size,
    save_picture,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGB = cv2.GaussianBlur(picture(90, 70), (0, 0), 2.0)


def _stated(path: Path) -> float | None:
    """um per px as Pillow understands the file, along x."""
    with Image.open(path) as image:
        dpi = image.info.get("dpi")
        if dpi is not None:
            return 25_400 / float(dpi[0])
        exif = image.getexif()
        return None if 282 not in exif else 10_000 / float(exif[282])


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
@pytest.mark.parametrize("um", [0.5, 0.25, 0.1, 0.0621])
def test_resolution_is_true_at_any_magnification(tmp_path: Path, suffix: str, um: float) -> None:
    path = tmp_path / f"a{suffix}"
    tags = PictureTags(um_per_px=(um, um), icc=SRGB, description="x")
    save_picture(path, RGB, quality=90, tags=tags)
    assert _stated(path) == pytest.approx(um, rel=1e-4)
    with Image.open(path) as image:
        assert image.info.get("icc_profile") == (None if suffix == ".bmp" else SRGB)
        assert image.getexif().get(274, 1) == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_resolution_is_read_back_by_our_own_slides(tmp_path: Path, suffix: str) -> None:
    for um in (0.0621, 0.25, 6.0):
        path = tmp_path / f"{um}{suffix}"
        save_picture(path, RGB, quality=90, tags=PictureTags(um_per_px=(um, um)))
        with open_slide(path) as slide:
            assert slide.info.mpp is not None
            assert slide.info.mpp.value == pytest.approx(um, rel=1e-3)
    # Finer than a field's integers reach: none is stated, or the true one.
    save_picture(
        tmp_path / f"fine{suffix}", RGB, quality=90, tags=PictureTags(um_per_px=(1e-5, 1e-5))
    )
    shown = _stated(tmp_path / f"fine{suffix}")
    assert shown is None or shown > 200 or shown == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_every_quality_is_written(tmp_path: Path, suffix: str) -> None:
    for quality in (1, 30, 50, 89, 100):
        save_picture(tmp_path / f"{quality}{suffix}", RGB, quality=quality)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_unknown_resolution_is_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_picture(path, RGB, quality=100)
    with Image.open(path) as image:
        stated = image.info.get("dpi")
        shown = np.asarray(image.convert("RGB")).astype(int)
    # BMP's field is not optional; zero, or its readers' 96 dpi, is no microscope's.
    assert stated is None or stated[0] < 600
    assert np.abs(shown - RGB).max() <= (4 if suffix in (".jpg", ".jpeg") else 0)


def test_what_another_decoder_shows_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cv2.imread

    def swapped(*arguments: Any) -> Any:
        found = real(*arguments)
        return None if found is None else np.ascontiguousarray(found[..., ::-1])

    monkeypatch.setattr(cv2, "imread", swapped)
    tinted = RGB.copy()
    tinted[..., 0] = 255 - tinted[..., 0] // 4
    with pytest.raises(SlideError, match="grey levels off; nothing was kept"):
        save_picture(tmp_path / "a.png", tinted, quality=90)
    assert not list(tmp_path.iterdir())


def test_too_large_for_the_format_is_refused_before_work(tmp_path: Path) -> None:
    check_picture_size(tmp_path / "a.png", 20_000, 100)
    with pytest.raises(ConfigError, match=r"too large for a \.webp"):
        check_picture_size(tmp_path / "a.webp", 20_000, 100)
