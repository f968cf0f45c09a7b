"""From an open slide to the finished file: levels, places, metadata, interruptions."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from slides_samples import box_level, picture, write_pyramid
from upscaling_samples import MoodyEngine, repeated, slide_file

from wsisr.errors import ConfigError, DiskFullError, LockedError, MppError
from wsisr.geometry import Box
from wsisr.inference import load
from wsisr.progress import ProgressEvent
from wsisr.slides import open_slide
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling.pyramid import partial_folder
from wsisr.upscaling.sinks import lock_file

ROOT = Path(__file__).resolve().parents[1]
LOSSLESS = UpscaleOptions(scale=2.0, compression="zstd")


class Stopped(Exception):
    """Stands for whatever ends a run."""


def _pixels(path: Path, level: int = 0) -> Any:
    with open_slide(path) as slide:
        info = slide.info.levels[level]
        return slide.read_level(level, 0, 0, info.width_px, info.height_px)


def test_a_stored_level_is_enlarged_exactly_and_its_resolution_follows(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 1200, 900)
    out = tmp_path / "o.ome.tiff"
    options = replace(LOSSLESS, magnification=5.0, scale=4.0)
    result = upscale_slide(source, out, load("bicubic"), options)
    assert (result.plane.level, result.plane.origin) == (1, "stored-level")
    assert result.um_per_px == pytest.approx((0.5, 0.5))
    with open_slide(out) as slide:
        assert slide.info.mpp is not None and slide.info.mpp.value == pytest.approx(0.5)
        assert slide.info.objective_power == 20
        assert [level.factor for level in slide.info.levels] == [1, 2, 4]
    import torch

    from wsisr.degradation import resize

    lr = torch.from_numpy(box_level(repeated(1200, 900), 4)).permute(2, 0, 1)
    expected = resize(lr, (900, 1200)).permute(1, 2, 0).numpy()
    difference = np.abs(_pixels(out).astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    np.testing.assert_array_equal(_pixels(out, 1), _halved(_pixels(out)))


def _halved(rgb: Any) -> Any:
    import cv2

    return cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)


def test_a_level_that_is_not_stored_is_made_from_the_finer_one(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 600, 500)
    options = replace(LOSSLESS, level_um_per_px=1.0)
    result = upscale_slide(source, tmp_path / "o.ome.tiff", load("bicubic"), options)
    assert (result.plane.level, result.plane.reduction) == (0, 2.0)
    assert (result.width_px, result.height_px) == (600, 500)


@pytest.mark.parametrize("scale", [2.0, 2.37])
def test_a_region_is_cut_from_what_the_whole_would_be(tmp_path: Path, scale: float) -> None:
    source = slide_file(tmp_path / "s.tiff", 500, 400)
    options = replace(LOSSLESS, scale=scale)
    whole, part = tmp_path / "whole.ome.tiff", tmp_path / "part.ome.tiff"
    upscale_slide(source, whole, load("bicubic"), options)
    result = upscale_slide(
        source,
        part,
        load("bicubic"),
        replace(options, region=Box(x=101, y=53, width=220, height=99)),
    )
    r = result.frame.region
    assert r.x == round(101 * result.frame.scale_x)
    np.testing.assert_array_equal(_pixels(part), _pixels(whole)[r.y : r.bottom, r.x : r.right])


def test_what_was_never_scanned_is_white_and_glass_never_meets_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = np.clip(242 + rng.normal(0, 0.6, (768, 1024, 3)), 0, 255).astype(np.uint8)
    image[200:600, 200:600] = picture(400, 400) // 2 + np.array([60, 0, 60], np.uint8)
    source = write_pyramid(
        tmp_path / "s.tiff", [image], compression="zlib", um_per_px=0.5, missing={3}
    )
    out, plain = tmp_path / "o.ome.tiff", tmp_path / "p.ome.tiff"
    result = upscale_slide(source, out, MoodyEngine(), LOSSLESS)
    upscale_slide(source, plain, load("bicubic"), LOSSLESS)
    assert 0 < result.windows < 16 * 12
    made, glass = _pixels(out), _pixels(plain)
    assert (made[:512, 1536:] == 255).all()  # tile 3 of level 0, twice as large
    np.testing.assert_array_equal(made[1400:, 1800:], glass[1400:, 1800:])
    assert np.abs(made[500:1100, 500:1100].astype(int) - glass[500:1100, 500:1100]).mean() > 3
    everything = upscale_slide(
        source, out, MoodyEngine(), replace(LOSSLESS, mask=False, overwrite=True)
    )
    assert everything.windows > result.windows


def _kill(run: str, source: Path, out: Path, after: int) -> None:
    """Run in another process that kills itself (-9) after some blocks."""
    code = f"""
import os, signal
from pathlib import Path
from upscaling_samples import MoodyEngine
from wsisr.inference import load
from wsisr.upscaling import UpscaleOptions, upscale_slide
def report(event):
    if event.done == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
model = MoodyEngine() if {run!r} == "moody" else load("bicubic")
upscale_slide(Path({str(source)!r}), Path({str(out)!r}), model,
              UpscaleOptions(scale=2.0, mask=False, compression="jpeg"), report)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "tests", capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(
    ("run", "width", "height"), [("bicubic", 4200, 90), ("moody", 4200, 90), ("moody", 90, 4200)]
)
def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, run: str, width: int, height: int
) -> None:
    # Blocks are 4096 px: three of them in a row or a column, the last one cut off.
    source = slide_file(tmp_path / "s.tiff", width, height)
    model = MoodyEngine() if run == "moody" else load("bicubic")
    options = UpscaleOptions(scale=2.0, mask=False, compression="jpeg")
    whole, out = tmp_path / "whole.ome.tiff", tmp_path / "out.ome.tiff"
    expected = upscale_slide(source, whole, model, options)
    _kill(run, source, out, after=2)
    assert not out.exists() and partial_folder(out).is_dir()
    with open(partial_folder(out) / "journal.jsonl", "ab") as file:
        file.write(b'{"tiles": [[0, 0, 99')  # the line that the kill cut off
    result = upscale_slide(source, out, model, options)
    assert result.resumed == 2 and not partial_folder(out).exists()
    assert out.read_bytes() == whole.read_bytes()
    assert result.seams == expected.seams and result.windows == expected.windows


def test_an_interruption_keeps_what_is_there_for_the_same_options_only(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 4200, 90)
    out = tmp_path / "o.ome.tiff"

    def stop(event: ProgressEvent) -> None:
        if event.done == 1:
            with pytest.raises(LockedError, match="another upscale is writing"):
                upscale_slide(source, out, load("bicubic"), LOSSLESS)
            raise Stopped

    with pytest.raises(Stopped):
        upscale_slide(source, out, load("bicubic"), LOSSLESS, stop)
    other = replace(LOSSLESS, compression="deflate")
    with pytest.raises(ConfigError, match=r"another run \(compression: zstd"):
        upscale_slide(source, out, load("bicubic"), other)
    assert upscale_slide(source, out, load("bicubic"), LOSSLESS).resumed >= 1
    with pytest.raises(ConfigError, match="--overwrite"):
        upscale_slide(source, out, load("bicubic"), LOSSLESS)
    again = upscale_slide(source, out, load("bicubic"), replace(other, overwrite=True))
    assert again.resumed == 0 and not partial_folder(out).exists()


@pytest.mark.parametrize("step", ["sync_directory", "shutil.rmtree"])
def test_what_a_kill_after_the_rename_left_goes(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = slide_file(tmp_path / "s.tiff", 200, 150), tmp_path / "o.ome.tiff"

    def stop(*arguments: object, **more: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(f"wsisr.upscaling.pyramid.{step}", stop)
        upscale_slide(source, out, load("bicubic"), LOSSLESS)
    whole = out.read_bytes()
    assert partial_folder(out).is_dir()
    lock_file(out).touch()  # a kill leaves it, too
    with pytest.raises(ConfigError, match="give --overwrite"):
        upscale_slide(source, out, load("bicubic"), LOSSLESS)
    assert out.read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.ome.tiff", "s.tiff"]
    # What is to replace a finished output goes on: it is no leftover.
    other = replace(LOSSLESS, compression="deflate", overwrite=True)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("wsisr.upscaling.pyramid.check_pyramid", stop)
        upscale_slide(source, out, load("bicubic"), other)
    with pytest.raises(ConfigError, match="give --overwrite"):
        upscale_slide(source, out, load("bicubic"), LOSSLESS)
    assert upscale_slide(source, out, load("bicubic"), other).resumed == 1


def test_a_dicom_folder_has_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    pytest.importorskip("wsidicomizer", reason="wsidicomizer is not installed")
    source = slide_file(tmp_path / "s.tiff", 200, 150)
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        out = tmp_path / name / "o.dcm"
        upscale_slide(source, out, load("bicubic"), UpscaleOptions(scale=2.0))
        made.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert made[0] == made[1] and made[0]


def test_two_runs_into_one_picture_are_kept_apart(tmp_path: Path) -> None:
    Image.fromarray(picture(60, 50)).save(tmp_path / "i.png")
    out = tmp_path / "o.png"

    def second(event: ProgressEvent) -> None:
        if event.done:
            with pytest.raises(LockedError, match="another upscale is writing into it"):
                upscale_slide(tmp_path / "i.png", out, load("bicubic"), UpscaleOptions(scale=3))

    upscale_slide(tmp_path / "i.png", out, load("bicubic"), UpscaleOptions(scale=2), second)
    with Image.open(out) as made:
        assert made.size == (120, 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["i.png", "o.png"]


def test_a_resolution_that_we_do_not_read_back_is_written_and_said(tmp_path: Path) -> None:
    Image.fromarray(picture(60, 50)).save(tmp_path / "i.png")
    out = tmp_path / "o.png"
    options = UpscaleOptions(scale=4, mpp=0.1)
    result = upscale_slide(tmp_path / "i.png", out, load("bicubic"), options)
    assert any("0.025 um/px, which wsisr itself will not read" in m for m in result.messages)
    with Image.open(out) as made:
        assert 25_400 / made.info["dpi"][0] == pytest.approx(0.025, rel=1e-4)
    with open_slide(out, check=False) as slide:
        assert slide.info.mpp is None and "outside 0.05-50" in slide.info.mpp_problem


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = slide_file(tmp_path / "s.tiff", 4200, 90)
    out, calls = tmp_path / "o.ome.tiff", 0

    def full(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DiskFullError, match="disk is full"):
        patch.setattr(os, "fdatasync", full)
        upscale_slide(source, out, load("bicubic"), LOSSLESS)
    assert upscale_slide(source, out, load("bicubic"), LOSSLESS).resumed == 1


def test_pictures_stay_pictures(tmp_path: Path) -> None:
    image = picture(90, 70)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(image).save(tmp_path / "i.png", icc_profile=srgb)
    out = tmp_path / "o.png"
    result = upscale_slide(tmp_path / "i.png", out, load("bicubic"), UpscaleOptions(scale=3))
    assert result.um_per_px is None
    with Image.open(out) as made:
        assert made.size == (270, 210) and made.info["icc_profile"] == srgb
        assert "not for diagnosis" in made.info["Description"]
        png = np.asarray(made)
    pyramid = tmp_path / "o.ome.tiff"
    upscale_slide(tmp_path / "i.png", pyramid, load("bicubic"), replace(LOSSLESS, scale=3))
    np.testing.assert_array_equal(_pixels(pyramid), png)
    result = upscale_slide(
        tmp_path / "i.png", tmp_path / "o.jpg", MoodyEngine(), UpscaleOptions(scale=3, tile_px=16)
    )
    assert result.windows == 30


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 600, 500, um_per_px=None)
    out = tmp_path / "o.ome.tiff"
    with pytest.raises(MppError, match="--mpp"):
        upscale_slide(source, out, load("bicubic"), LOSSLESS)
    upscale_slide(source, out, load("bicubic"), replace(LOSSLESS, mpp=0.25))
    with open_slide(out) as slide:
        assert slide.info.mpp is not None and slide.info.mpp.value == pytest.approx(0.125)
    for name, word in (("o.czi", ".ome.tiff"), ("missing/o.ome.tiff", "does not exist")):
        with pytest.raises(ConfigError, match=word):
            upscale_slide(source, tmp_path / name, load("bicubic"), LOSSLESS)
    with pytest.raises(ConfigError, match="--compression"):
        upscale_slide(
            source, tmp_path / "x.tiff", load("bicubic"), replace(LOSSLESS, compression="gif")
        )
