"""Plain images: one level, resolution only where a tag can be a microscope's."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from slides_samples import picture

from wsisr.errors import SlideError
from wsisr.registration.presentation import read_image
from wsisr.slides import open_slide
from wsisr.slides.opening import read_whole
from wsisr.slides.plain_images import read_picture
from wsisr.slides.stack import ImageStack, open_stack


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(1500, 1100)


def test_png_is_read_exactly_across_blocks(tmp_path: Path, image) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    with open_slide(path) as slide:
        assert slide.info.backend == "image" and slide.info.levels[0].factor == 1
        got = slide.read_level(0, 900, 900, 600, 220)
        np.testing.assert_array_equal(got[:200], image[900:, 900:])
        assert (got[200:] == 255).all()
        assert slide.info.mpp is None and "--mpp-override" in slide.info.mpp_problem
        assert slide.info.levels[0].compression.codec == "png"


def test_resolution_tags(tmp_path: Path, image) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(image[:64, :64]).save(path, dpi=(72, 72))
    with open_slide(path) as slide:
        assert slide.info.mpp is None and "72 dpi" in slide.info.mpp_problem
    Image.fromarray(image[:64, :64]).save(path, dpi=(50800, 50800))
    with open_slide(path) as slide:
        assert slide.info.mpp is not None
        assert slide.info.mpp.value == pytest.approx(0.5, rel=1e-3)
        assert str(slide.info.mpp.quality) == "derived"


def test_jpeg_tells_its_quality(tmp_path: Path, image) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(image).save(path, quality=83, subsampling=2)
    with open_slide(path) as slide:
        compression = slide.info.levels[0].compression
        assert (compression.codec, compression.quality) == ("jpeg", 83)
        assert (compression.subsampling, compression.generations) == ("4:2:0", 1)
        np.testing.assert_array_equal(
            slide.read_level(0, 0, 0, 1500, 1100), np.asarray(Image.open(path).convert("RGB"))
        )


def test_transparent_pixels_are_white_and_invalid(tmp_path: Path, image) -> None:
    alpha = np.full((1100, 1500), 255, np.uint8)
    alpha[:100, :50] = 0
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([image, alpha])).save(path)
    with open_slide(path) as slide:
        assert (slide.read_level(0, 0, 0, 50, 100) == 255).all()
        valid = slide.read_validity(0, 0, 0, 1500, 1100)
        np.testing.assert_array_equal(valid, alpha > 0)


def test_a_tiff_of_several_pages_is_no_plain_image(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    pages = [Image.fromarray(picture(40, 30, seed)) for seed in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(SlideError, match="3 pages"):
        open_slide(path, backend="image")


def test_no_program_is_run_to_see_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(SlideError, match="EPS is a program that draws"):
        open_slide(tmp_path / "a.png")


def test_broken_images_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    Image.fromarray(picture(300, 300)).save(broken)
    broken.write_bytes(broken.read_bytes()[:20000])
    with open_slide(broken) as slide, pytest.raises(SlideError, match="copy it again"):
        slide.read_level(0, 0, 0, 10, 10)
    jpeg = tmp_path / "broken.jpg"
    Image.fromarray(picture(300, 300)).save(jpeg)
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[:-400] + b"\xff\xd9")
    with open_slide(jpeg) as slide, pytest.raises(SlideError, match="copy it again"):
        slide.read_level(0, 0, 0, 10, 10)


def deep_files(folder: Path) -> dict[str, np.ndarray]:
    """Files of deep samples; what they hold."""
    values = {
        "grey16.png": (picture(60, 40)[..., 1].astype(np.uint16) * 4),
        "rgb16.png": picture(60, 40).astype(np.uint16) * 4,
        "grey16.tif": picture(60, 40)[..., 1].astype(np.uint16) * 4,
        "rgb16.tif": picture(60, 40).astype(np.uint16) * 4,
        "grey.tif": (picture(60, 40)[..., 1] / 255).astype(np.float32),
    }
    for name, array in values.items():
        if name.endswith(".png"):
            (folder / name).write_bytes(imagecodecs.png_encode(array))
        else:
            photometric = "rgb" if array.ndim == 3 else "minisblack"
            tifffile.imwrite(folder / name, array, photometric=photometric, metadata=None)
    return values


def test_deep_samples_are_refused_or_scaled_and_never_cut(tmp_path: Path) -> None:
    for name, array in deep_files(tmp_path).items():
        with pytest.raises(SlideError, match="--white"):
            read_picture(tmp_path / name)
        white = 1020.0 if array.dtype == np.uint16 else 1.0
        pixels, _, facts = read_picture(tmp_path / name, white)
        wanted = np.floor(array * (255.0 / white) + 0.5).astype(np.uint8)
        np.testing.assert_array_equal(pixels, wanted.reshape(pixels.shape))
        assert facts.grey == (array.ndim == 2) and "is white" in facts.notes(white)[-1]
        with pytest.raises(SlideError, match="outside of 0 to --white"):
            read_picture(tmp_path / name, white / 4)
    with pytest.raises(SlideError, match=r"reach [0-9]+ of 65,535"):
        open_slide(tmp_path / "rgb16.png")
    Image.fromarray(picture(20, 20)).save(tmp_path / "plain.png")
    with pytest.raises(SlideError, match="leave --white out"):
        read_picture(tmp_path / "plain.png", 255)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture(60, 40)).save(path, exif=exif, dpi=(50800, 25400))
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    pixels, _, facts = read_picture(path)
    np.testing.assert_array_equal(pixels, wanted)
    assert facts.dpi == pytest.approx(
        (25400, 50800) if orientation > 4 else (50800, 25400), rel=1e-3
    )
    if suffix != "tif":
        with open_slide(path) as slide:
            height, width = wanted.shape[:2]
            np.testing.assert_array_equal(slide.read_level(0, 0, 0, width, height), wanted)
            assert any("upright" in quirk for quirk in slide.info.quirks) == (orientation != 1)


def test_grey_palette_alpha_and_ink(tmp_path: Path) -> None:
    rgb = Image.fromarray(picture(60, 40))
    grey = rgb.convert("L")
    palette = rgb.quantize(200)
    clear = grey.point(lambda value: 0 if value < 170 else 255)
    cmyk = rgb.convert("CMYK")
    cases = {
        "grey.png": (grey, {}, np.asarray(grey)[:, :, None]),
        "bits.png": (rgb.convert("1"), {}, np.asarray(rgb.convert("1").convert("L"))[:, :, None]),
        "palette.png": (palette, {}, np.asarray(palette.convert("RGB"))),
        "palette.bmp": (palette, {}, np.asarray(palette.convert("RGB"))),
        "ink.tif": (cmyk, {}, np.asarray(cmyk.convert("RGB"))),
    }
    for name, (image, options, wanted) in cases.items():
        image.save(tmp_path / name, **options)
        pixels, valid, facts = read_picture(tmp_path / name)
        assert valid is None and facts.grey == (wanted.shape[2] == 1)
        assert np.abs(pixels.astype(int) - wanted).max() <= 1, name
    cmyk.save(tmp_path / "ink.jpg", quality=100)
    pixels, _, facts = read_picture(tmp_path / "ink.jpg")
    with Image.open(tmp_path / "ink.jpg") as image:
        assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() <= 1
    assert "CMYK" in facts.notes()[0]
    Image.merge("LA", [grey, clear]).save(tmp_path / "clear.png")
    pixels, valid, facts = read_picture(tmp_path / "clear.png")
    np.testing.assert_array_equal(valid, np.asarray(clear) > 0)
    assert (pixels[~valid] == 255).all() and "transparency" in facts.notes()[0]
    hole = int(np.asarray(palette)[0, 0])
    palette.save(tmp_path / "hole.png", transparency=hole)
    pixels, valid, _ = read_picture(tmp_path / "hole.png")
    np.testing.assert_array_equal(valid, np.asarray(palette) != hole)


def test_a_grey_image_is_one_channel_in_memory_and_rgb_as_a_slide(tmp_path: Path) -> None:
    grey = picture(1300, 200)[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.info.grey
        np.testing.assert_array_equal(
            slide.read_level(0, 1000, 0, 300, 200), np.repeat(grey[:, 1000:, None], 3, axis=2)
        )


def test_decoding_takes_a_stated_multiple_of_the_pixels(tmp_path: Path) -> None:
    code = """
import resource, sys
from wsisr.slides.plain_images import read_picture
import imagecodecs, simplejpeg, PIL.Image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels, _, _ = read_picture(__import__("pathlib").Path(sys.argv[1]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024 / pixels.size)
"""
    path = tmp_path / "flat.png"
    Image.fromarray(np.full((4000, 4000, 3), 210, np.uint8)).save(path)
    told = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert float(told.stdout) < 1.3  # bytes a sample; through Pillow's own copies it was 3.5


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_no_other_reader_shows_a_deep_or_turned_tiff(tmp_path: Path, tile) -> None:
    image = picture(96, 64)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, image.astype(np.uint16) * 16, photometric="rgb", tile=tile)
    with pytest.raises(SlideError, match="--white N"):
        open_slide(path)
    with open_slide(path, white=4080) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 96, 64), image)
    path = tmp_path / "turned.tif"
    turn = [(274, 3, 1, 6, True)]
    tifffile.imwrite(path, image, photometric="rgb", tile=tile, extratags=turn, metadata=None)
    if tile is not None:  # readers do not agree how to turn tiles
        with pytest.raises(SlideError, match="nothing tells who is right"):
            open_slide(path)
        return
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 0, 0, 64, 96), np.rot90(image, -1))
        assert slide.info.backend == "image"


def test_deep_images_are_compared_with_a_second_reader(tmp_path: Path) -> None:
    for name, array in deep_files(tmp_path).items():
        white = 1020.0 if array.dtype == np.uint16 else 1.0
        with open_slide(tmp_path / name, white=white) as slide:
            verdict = slide.info.verdict
            assert verdict is not None and verdict.status == "agree" and verdict.regions, name
            assert slide.info.white == white


def test_images_of_every_command_come_through_the_door(tmp_path: Path) -> None:
    """A TIFF whose tag says RGB over YCbCr streams: Pillow shows it 46 grey levels off."""
    image = picture(256, 256)
    path = tmp_path / "a.tif"
    stream = imagecodecs.jpeg_encode(image, level=95, subsampling="444")
    given = {"photometric": "rgb", "compression": "jpeg", "tile": (256, 256), "metadata": None}
    tifffile.imwrite(path, iter([stream]), shape=image.shape, dtype=np.uint8, **given)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite(2)
    shown, info = read_whole(path)
    assert np.abs(shown.astype(int) - image).mean() < 7 and info.verdict is not None
    with Image.open(path) as other:
        assert np.abs(np.asarray(other.convert("RGB")).astype(int) - image).mean() > 20
    np.testing.assert_array_equal(read_image(path), shown)


def test_a_stack_is_judged_by_some_of_its_images(tmp_path: Path) -> None:
    files = []
    for number in range(20):
        files.append(tmp_path / f"{number:02}.png")
        Image.fromarray(picture(32, 32, number)).save(files[-1])
    with open_stack(tmp_path, ImageStack(files=tuple(files)), 32) as slide:
        verdict = slide.info.verdict
        assert verdict is not None and (verdict.status, verdict.regions) == ("agree", 8)
        assert "8 of 8 images looked at (of 20)" in verdict.line()
    deep = tmp_path / "deep.png"
    deep.write_bytes(imagecodecs.png_encode(picture(32, 32).astype(np.uint16) * 4))
    mixed = ImageStack(files=(files[0], deep))
    with open_stack(tmp_path, mixed, 32, white=1020) as slide:
        np.testing.assert_array_equal(slide.read_level(0, 32, 0, 32, 32), picture(32, 32))
    with pytest.raises(SlideError, match="--white N"):
        open_stack(tmp_path, mixed, 32)
    rows = ImageStack(files=(tmp_path / "none.h5",), rows=(0,), dataset="x")
    (tmp_path / "none.h5").write_bytes(b"no HDF5, and not opened before a row is asked for")
    with open_stack(tmp_path, rows, 32) as slide:
        assert slide.info.verdict is not None and slide.info.verdict.status == "unchecked"


def test_rare_samples_pass_the_door(tmp_path: Path) -> None:
    """Ink, opacity, halves, planes apart, turned TIFFs: read by two readers alike."""
    image = picture(96, 64)
    grey, alpha = image[..., 1], np.full((64, 96), 255, np.uint8)
    alpha[:9] = 0
    laid = np.where(alpha[..., None] > 0, image, 255)
    deep = image.astype(np.uint16) * 257
    Image.fromarray(image).convert("CMYK").save(tmp_path / "ink.jpg", quality=97)
    rgb = {"photometric": "rgb", "metadata": None}
    files: dict[str, tuple[Any, dict[str, Any], np.ndarray, float | None]] = {
        "alpha.tif": (np.dstack([image, alpha]), {"extrasamples": ["unassalpha"]}, laid, None),
        "half.tif": ((image / 255).astype(np.float16), {}, image, 1.0),
        "float.tif": ((image / 255).astype(np.float32), {"tile": (32, 32)}, image, 1.0),
        "planes.tif": (np.moveaxis(deep, 2, 0), {"planarconfig": "separate"}, image, 65535.0),
        "turned.tif": (image, {"extratags": [(274, 3, 1, 3, True)]}, image[::-1, ::-1], None),
    }
    for name, (array, given, wanted, white) in files.items():
        tifffile.imwrite(tmp_path / name, array, **rgb, **given)
        with open_slide(tmp_path / name, white=white) as slide:
            level = slide.info.levels[0]
            shown = slide.read_level(0, 0, 0, level.width_px, level.height_px)
            verdict = slide.info.verdict
        assert verdict is not None and verdict.status == "agree", name
        np.testing.assert_allclose(shown, wanted, atol=float(white == 1.0), err_msg=name)
    shown, info = read_whole(tmp_path / "ink.jpg")
    assert np.abs(shown.astype(int) - image).mean() < 3 and info.verdict is not None
    both = np.dstack([grey.astype(np.uint16) * 257, np.full((64, 96), 65535, np.uint16)])
    (tmp_path / "both.png").write_bytes(imagecodecs.png_encode(both))
    shown, info = read_whole(tmp_path / "both.png", 65535)
    assert info.grey and (shown == grey[..., None]).all()


def test_stacks_and_signed_samples_are_refused_for_what_they_are(tmp_path: Path) -> None:
    image = picture(96, 64)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([image, image[::-1]]), photometric="rgb")
    with pytest.raises(SlideError, match="does not say what they are"):
        open_slide(tmp_path / "stack.tif")
    tifffile.imwrite(tmp_path / "signed.tif", image[..., 0].astype(np.int16))
    with pytest.raises(SlideError, match="signed"):
        open_slide(tmp_path / "signed.tif")


def test_damaged_exif_is_said_of_the_file_and_a_refused_file_is_said_once(
    tmp_path: Path, image, caplog, recwarn
) -> None:
    turned, short = tmp_path / "turned.jpg", tmp_path / "short.tif"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image[:64, :96]).save(turned, exif=exif)
    data = turned.read_bytes()
    at = data.index(b"Exif\0\0") + 6
    turned.write_bytes(data[: at + 4] + b"\xff\xff\xff\x0f" + data[at + 8 :])  # no such place
    read_picture(turned)
    assert "turned.jpg: its EXIF is damaged" in caplog.text and not recwarn.list
    caplog.clear()
    short.write_bytes(b"II*\0\x08\0\0\0\x01\0")
    with pytest.raises(SlideError, match=r"short\.tif"):
        open_slide(short)
    assert not caplog.records and not recwarn.list
