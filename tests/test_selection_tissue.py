"""The consensus finds tissue, and only tissue, whatever the glass, stain and stage dirt."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from selection_scenes import ArraySlide, disk, glass, paint_tissue

from wsisr.errors import ConfigError, MppError
from wsisr.selection import consensus, cues, strips
from wsisr.selection.compare import mask_agreement
from wsisr.selection.tissue import TissueSettings, clam_like, segment, tissue_of

SHAPE = (260, 320)
UM = 8.0


def _two_pieces(colour=(243, 242, 244)):
    truth = disk(SHAPE, 110, 130, 70) | disk(SHAPE, 250, 90, 32)
    picture = glass(SHAPE, colour)
    paint_tissue(picture, truth)
    return picture, truth


def test_finds_textured_tissue_to_a_pixel_of_its_border():
    picture, truth = _two_pieces()
    found = segment(picture, UM)
    agreement = mask_agreement(found.mask, truth, UM)
    assert found.kind == "brightfield"
    assert agreement.iou > 0.97
    assert agreement.boundary_f1 > 0.99
    assert found.health.components == 2
    assert found.health.stability > 0.95
    assert found.health.flags == ()
    assert found.health.tissue_mm2 == pytest.approx(truth.sum() * 64e-6, rel=0.03)


@pytest.mark.parametrize("colour", [(225, 220, 205), (205, 207, 212), (250, 238, 243)])
def test_tinted_and_dim_glass_change_nothing(colour):
    picture, truth = _two_pieces()
    tinted = np.rint(picture * (np.asarray(colour) / np.array([243, 242, 244]))).astype(np.uint8)
    found = segment(tinted, UM)
    assert mask_agreement(found.mask, truth, UM).iou > 0.96
    assert np.abs(np.asarray(found.health.white_rgb) - colour).max() <= 2


def test_pure_white_filler_is_not_taken_for_the_glass():
    picture, truth = _two_pieces((226, 221, 229))
    picture[:, :30] = 255
    picture[220:] = 255
    found = segment(picture, UM)
    assert np.abs(np.asarray(found.health.white_rgb) - (226, 221, 229)).max() <= 1
    assert mask_agreement(found.mask, truth, UM).iou > 0.96
    assert not segment(np.full((*SHAPE, 3), 255, np.uint8), UM).mask.any()


def test_pale_and_brown_tissue_are_found():
    for colour, contrast in (((228, 208, 222), 6.0), ((190, 160, 120), 20.0)):
        truth = disk(SHAPE, 150, 130, 80)
        picture = glass(SHAPE)
        paint_tissue(picture, truth, colour=colour, contrast=contrast)
        assert mask_agreement(segment(picture, UM).mask, truth, UM).iou > 0.9, colour


def test_grey_counterstain_is_found_and_blurred_dirt_is_not():
    truth = disk(SHAPE, 90, 130, 70)
    picture = glass(SHAPE)
    paint_tissue(picture, truth, colour=(216, 217, 224), contrast=12.0)
    dirt = np.zeros(SHAPE, np.float32)
    for x, y in ((230, 60), (270, 180), (220, 220)):
        dirt[y, x] = 1.0
    dirt = cv2.GaussianBlur(dirt, (0, 0), 9.0)
    picture = (picture * (1 - 0.35 * dirt / dirt.max())[..., None]).astype(np.uint8)
    found = segment(picture, UM)
    assert mask_agreement(found.mask[:, :180], truth[:, :180], UM).iou > 0.93
    assert not found.mask[:, 180:].any()


@pytest.mark.parametrize("noise_seed", range(4))
def test_blank_slide_has_no_tissue(noise_seed):
    found = segment(glass(SHAPE, seed=noise_seed), UM)
    assert found.kind == "blank"
    assert not found.mask.any()
    assert any(flag.startswith("no tissue was found") for flag in found.health.flags)


def test_illumination_falloff_and_dust_are_no_tissue():
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    falloff = 1 - 0.06 * ((columns - 160) ** 2 + (rows - 130) ** 2) / 160**2
    picture = (glass(SHAPE) * falloff[..., None]).astype(np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(40):
        y, x = rng.integers(2, 255), rng.integers(2, 315)
        picture[y : y + 2, x : x + 2] = 90
    assert not segment(picture, UM).mask.any()


@pytest.mark.parametrize("contrast", [0.3, 0.15])
def test_a_pale_stain_is_found_where_the_glass_is_quiet(shared_data, contrast):
    """H&E of a real section with its contrast to the glass reduced, and noise of its own."""
    path = shared_data / "registration" / "rat-kidney_5pc" / "Rat-Kidney_HE.jpg"
    picture = _tile(path)[::2, ::2]
    full = segment(picture, 16.0).mask
    white = np.array([243.0, 243.0, 243.0])
    noise = np.random.default_rng(0).normal(0, 0.7, picture.shape)
    pale = np.clip(np.rint(white + contrast * (picture - white) + noise), 0, 255).astype(np.uint8)
    assert mask_agreement(segment(pale, 16.0).mask, full, 16.0).iou > 0.95


def test_a_small_field_full_of_tissue_is_not_too_small():
    """112 um across, as published patches are: less than the smallest piece that counts."""
    picture = np.full((56, 56, 3), 200, np.uint8)
    paint_tissue(picture, np.ones((56, 56), np.bool_))
    assert segment(picture, 2.0).mask.mean() > 0.99


def test_field_without_glass_is_all_tissue_and_says_so():
    picture = np.full((*SHAPE, 3), 200, np.uint8)
    paint_tissue(picture, np.ones(SHAPE, np.bool_))
    found = segment(picture, UM)
    assert found.mask.mean() > 0.99
    assert any("no bare glass" in flag for flag in found.health.flags)


def test_fluorescence_is_recognised_not_called_tissue():
    rng = np.random.default_rng(2)
    picture = np.zeros((*SHAPE, 3), np.uint8)
    picture[..., 2] = np.clip(rng.normal(12, 4, SHAPE), 0, 255)
    for _ in range(150):
        y, x = rng.integers(5, 250), rng.integers(5, 310)
        cv2.circle(picture, (int(x), int(y)), 3, (10, 20, 220), -1)
    found = segment(picture, UM)
    assert found.kind == "fluorescence"
    assert not found.mask.any()
    assert any("fluorescence" in flag for flag in found.health.flags)


@pytest.mark.parametrize(
    ("name", "ink"),
    [
        ("blue", (60, 100, 190)),
        ("green", (40, 150, 120)),
        ("red", (205, 35, 50)),
        ("black", (40, 38, 42)),
    ],
)
def test_pen_strokes_go_and_tissue_stays(name, ink):
    picture, truth = _two_pieces()
    stroke = np.zeros(SHAPE, np.uint8)
    cv2.line(stroke, (200, 180), (310, 240), 255, 18)
    blurred = cv2.GaussianBlur(stroke, (0, 0), 2.0)[..., None] / 255.0
    picture = np.rint(picture * (1 - blurred) + np.asarray(ink) * blurred).astype(np.uint8)
    found = segment(picture, UM)
    assert name in found.health.pen_colours
    assert found.pen[stroke > 0].mean() > 0.97
    assert found.mask[stroke > 0].mean() < 0.01
    far = truth & (cv2.dilate(stroke, np.ones((41, 41), np.uint8)) == 0)
    assert found.mask[far].mean() > 0.97
    away = ~truth & (cv2.dilate(stroke, np.ones((15, 15), np.uint8)) == 0)
    assert found.mask[away].mean() < 0.01


def test_black_frame_and_never_scanned_area_are_invalid():
    picture, truth = _two_pieces()
    picture[:18] = 0
    picture[:, :14] = 0
    valid = np.ones(SHAPE, np.bool_)
    valid[:, 300:] = False
    found = segment(picture, UM, valid=valid)
    assert found.invalid[:18].all()
    assert found.invalid[:, :14].all()
    assert found.invalid[:, 300:].all()
    assert mask_agreement(found.mask, truth & ~found.invalid, UM).iou > 0.96
    assert found.health.scanned_mm2 == pytest.approx((~found.invalid).sum() * 64e-6)


def test_holes_are_filled_up_to_the_set_size():
    truth = disk(SHAPE, 150, 130, 100)
    small, large = disk(SHAPE, 110, 110, 12), disk(SHAPE, 190, 150, 40)
    picture = glass(SHAPE)
    paint_tissue(picture, truth & ~small & ~large)
    generous = segment(picture, UM, settings=TissueSettings(max_hole_mm2=0.1))
    assert generous.mask[small].all()
    assert not generous.mask[disk(SHAPE, 190, 150, 30)].any()
    strict = segment(picture, UM, settings=TissueSettings(max_hole_mm2=0.0))
    assert not strict.mask[disk(SHAPE, 110, 110, 6)].any()


def test_small_pieces_go_below_the_set_area():
    picture = glass(SHAPE)
    truth = disk(SHAPE, 60, 60, 12)  # 0.029 mm2
    paint_tissue(picture, truth)
    assert segment(picture, UM).mask.any()
    assert not segment(picture, UM, settings=TissueSettings(min_area_mm2=0.05)).mask.any()


def test_mask_survives_brightness_jpeg_and_blur():
    picture, _ = _two_pieces()
    reference = segment(picture, UM).mask
    _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 50])
    for changed in (
        np.rint(picture * 0.9).astype(np.uint8),
        np.clip(np.rint(picture * 1.1), 0, 255).astype(np.uint8),
        cv2.imdecode(coded, cv2.IMREAD_COLOR),
        cv2.GaussianBlur(picture, (0, 0), 1.0),
    ):
        assert mask_agreement(segment(changed, UM).mask, reference, UM).iou > 0.95


def test_texture_does_not_depend_on_the_strips(monkeypatch):
    density = np.random.default_rng(0).random((300, 90)).astype(np.float32)
    whole = cues.TextureMap(density, UM)[:]
    assert np.array_equal(cues.TextureMap(density, UM)[200:261], whole[200:261])
    monkeypatch.setattr(strips, "STRIP_PX", 37)
    assert np.abs(cues.TextureMap(density, UM)[:] - whole).max() < 1e-5


def test_a_mask_does_not_depend_on_the_strips(monkeypatch):
    """Strips of 37 rows cut through the pieces, the stroke of a pen and the black border."""
    picture, _ = _two_pieces()
    cv2.line(picture, (20, 10), (60, 250), (30, 60, 200), 9)
    picture[:, -50:] = 3
    whole = segment(picture, UM)
    assert whole.mask.any() and whole.pen.any() and whole.invalid.any()
    monkeypatch.setattr(strips, "STRIP_PX", 37)
    cut = segment(picture, UM)
    assert np.array_equal(cut.mask, whole.mask)
    assert np.array_equal(cut.pen, whole.pen)
    assert np.array_equal(cut.invalid, whole.invalid)


@pytest.mark.parametrize("inked", [False, True])
def test_memory_of_a_large_picture_is_a_few_masks(monkeypatch, inked):
    """Of every pixel one map of bytes after the other, and never one of floats: 11 bytes each."""
    monkeypatch.setattr(strips, "STRIP_PX", 16)
    monkeypatch.setattr(strips, "BLOCK_PIXELS", 1024)
    monkeypatch.setattr(cues, "SAMPLE", 4000)
    monkeypatch.setattr(consensus, "SAMPLE", 4000)
    monkeypatch.setattr(consensus, "STABILITY_PX", 4000)
    shape = (300, 256)
    picture = glass(shape)
    paint_tissue(picture, disk(shape, 100, 150, 60))
    if inked:
        cv2.line(picture, (210, 20), (190, 260), (40, 60, 180), 15)
        picture[:, -20:] = 3
    valid = np.ones(shape, np.bool_)
    segment(picture, UM, valid=valid)  # what the first call imports and keeps is not counted
    tracemalloc.start()
    found = segment(picture, UM, valid=valid)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.mask.any() and found.pen.any() == found.invalid.any() == inked
    assert most < (9 if inked else 8) * valid.size


@pytest.mark.parametrize("colour", [(243, 243, 242), (240, 240, 240), (255, 255, 255)])
def test_glass_of_one_colour_has_no_noise(colour):
    """The luma of the first, 242.89, is counted as 243: no pixel is as bright as that."""
    picture = np.full((60, 80, 3), colour, np.uint8)
    white = cues.white_point(picture, np.ones((60, 80), np.bool_))
    assert white.found and white.rgb == colour
    assert white.noise == 0


def test_same_pixels_give_the_same_mask():
    picture, _ = _two_pieces()
    first, second = segment(picture, UM), segment(picture.copy(), UM)
    assert np.array_equal(first.mask, second.mask)
    assert first.health == second.health


def test_tissue_of_reads_the_coarsest_level_that_is_fine_enough():
    picture, truth = _two_pieces()
    base = picture.repeat(8, axis=0).repeat(8, axis=1)
    levels = [base, base[::2, ::2], base[::4, ::4], base[::16, ::16]]
    slide = ArraySlide(levels, 1.0)
    found = tissue_of(slide, 8.0)
    assert {level for level, _, _ in slide.reads} == {2}
    assert found.factor == 8.0
    assert found.mask.shape == SHAPE
    assert mask_agreement(found.mask, truth, UM).iou > 0.97


def test_slide_coarser_than_the_mask_is_used_as_it_is_with_a_flag():
    picture, _ = _two_pieces()
    found = tissue_of(ArraySlide([picture], 28.97), 8.0)
    assert found.factor == 1.0
    assert found.um_per_px == pytest.approx(28.97)
    assert any("coarser" in flag for flag in found.health.flags)


def test_slide_without_resolution_is_refused_with_the_remedy():
    picture, _ = _two_pieces()
    with pytest.raises(MppError, match=r"memory\.tif.*states no resolution.*--mpp"):
        tissue_of(ArraySlide([picture], None))


def test_clam_like_finds_coloured_tissue_and_is_an_alternative_method():
    picture, truth = _two_pieces()
    assert mask_agreement(clam_like(picture, UM), truth, UM).iou > 0.8
    found = segment(picture, UM, method="clam-like")
    assert mask_agreement(found.mask, truth, UM).iou > 0.8
    with pytest.raises(ConfigError, match="consensus"):
        segment(picture, UM, method="guess")


def test_misshapen_pictures_are_refused():
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ConfigError, match="uint8"):
            segment(wrong, UM)


def _tile(path: Path) -> np.ndarray:
    image = Image.open(path).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return np.asarray(white.convert("RGB"))


def test_real_tiles_are_sorted_into_tissue_and_none(shared_data):
    """Names say what is on them; about 2 um/px."""
    wrong = []
    for path in sorted((shared_data / "patches" / "histolab_tiles").glob("*.png")):
        share = segment(_tile(path), 2.0).mask.mean()
        empty = path.name.startswith("no-tissue") or path.name == "almost-white-1.png"
        if (share > 0.0) if empty else (share < 0.08):
            wrong.append((path.name, round(float(share), 3)))
    assert wrong == []


def test_real_sections_of_one_kidney_in_two_stains_have_one_piece_each(shared_data):
    """H&E and a pale IHC of neighbouring sections; about 65 % of either picture is kidney."""
    for stain in ("HE", "PanCytokeratin"):
        path = shared_data / "registration" / "rat-kidney_5pc" / f"Rat-Kidney_{stain}.jpg"
        found = segment(_tile(path), UM)
        assert found.mask.mean() == pytest.approx(0.65, abs=0.02), stain
        assert found.health.components == 1
        assert found.health.stability > 0.97


@pytest.mark.parametrize(
    ("name", "um_per_px", "colour", "inked", "box"),
    [
        ("tcga-green-pen.png", 30.0, "green", 0.10, (340, 20, 90, 60)),
        ("wsi-blue-pen.png", 60.0, "blue", 0.02, (152, 60, 20, 12)),
    ],
)
def test_real_pen_strokes_are_found(shared_data, name, um_per_px, colour, inked, box):
    found = segment(_tile(shared_data / "patches" / "histolab_thumbs" / name), um_per_px)
    x, y, width, height = box
    assert colour in found.health.pen_colours
    assert found.pen.mean() > inked
    assert found.pen[y : y + height, x : x + width].mean() > 0.6
    assert found.mask[y : y + height, x : x + width].mean() < 0.4
    assert found.mask.mean() > 0.2
