"""The named degradations: the conformance suite on each, and what distinguishes them."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from wsisr.degradation import degrade, hr_size, lr_size, parse_degradation, refuse_identity, resize
from wsisr.degradation.jpeg import jpeg
from wsisr.errors import DegradationError
from wsisr.testing.degradations import DegradationTests


@pytest.fixture(scope="module")
def tissue() -> Tensor:
    image = skimage.data.immunohistochemistry()[:192, :192].copy()
    return torch.as_tensor(image).permute(2, 0, 1)[None]


class TestBicubic(DegradationTests):
    spec = "bicubic"
    scales = (1.0, 2.4, 4.0)


class TestIste(DegradationTests):
    spec = "iste"
    scales = (1.5, 3.3)


class TestIstePaper(DegradationTests):
    spec = "iste-paper"


class TestIsteHalfM(DegradationTests):
    spec = "iste-halfm"


class TestLi2021(DegradationTests):
    spec = "li2021"


class TestGaussian(DegradationTests):
    spec = "gaussian:sigma_px=0.8..3,aspect=0.7..1.4,angle_deg=-90..90"


class TestOptics(DegradationTests):
    spec = "optics:10x"


class TestMild(DegradationTests):
    spec = "realesrgan2:mild"
    scales = (2.0, 3.3)


class TestMix(DegradationTests):
    spec = "bicubic | area+jpeg:random | realesrgan2:mild"


def test_a_mix_gives_each_sample_one_of_its_options_and_nothing_else(tissue: Tensor) -> None:
    many = tissue.expand(64, -1, -1, -1)
    made = degrade(many, "bicubic | area | area", 4.0, seed=3)
    bicubic, area = (degrade(tissue, name, 4.0)[0] for name in ("bicubic", "area"))
    first = [bool(image.equal(bicubic)) for image in made]
    assert all(image.equal(bicubic) or image.equal(area) for image in made)
    assert 10 <= sum(first) <= 33  # a third of 64; named twice is twice the odds
    # What a sample gets depends on its slot alone.
    assert degrade(tissue, "bicubic | area | area", 4.0, seed=3, slots=[5])[0].equal(made[5])


@pytest.mark.parametrize("spec", ["bicubic | arae", "bicubic |", "mix", "mix:options=bicubic"])
def test_a_mix_that_was_not_understood_is_refused(spec: str) -> None:
    with pytest.raises(DegradationError):
        parse_degradation(spec)


def test_a_mix_may_stand_in_no_mix(tissue: Tensor) -> None:
    whole = parse_degradation("bicubic | area").record()
    with pytest.raises(DegradationError, match="a mix within a mix"):
        parse_degradation({"name": "m", "stages": [{"kind": "mix", "options": [whole, "area"]}]})


class TestRealEsrgan(DegradationTests):
    spec = "realesrgan2"
    scales = (4.0,)
    keeps_grey = 6.0


class TestWholeChain(DegradationTests):
    spec = "stain:light+chroma+optics:20x+illumination+colour+sensor:random+stitch+jpeg:random"
    scales = (4.0,)
    keeps_grey = 16.0


@pytest.mark.parametrize("scale", [1.5, 2, 2.4, 3, 3.3, 4, 4.2, 5.1, 6, 8])
def test_iste_is_pillow_bit_for_bit(tissue: Tensor, scale: float) -> None:
    size = lr_size(192, scale)
    hr = tissue[..., : hr_size(size, scale), : hr_size(size, scale)]
    image = Image.fromarray(hr[0].permute(1, 2, 0).numpy())
    blurred = image.filter(ImageFilter.GaussianBlur((scale - 1) / 2))
    wanted = np.asarray(blurred.resize((size, size), Image.BICUBIC))
    got = degrade(tissue, "iste", scale)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(got, wanted)


def test_bicubic_and_area_are_the_resize_kernels(tissue: Tensor) -> None:
    assert torch.equal(degrade(tissue, "bicubic", 4), resize(tissue, (48, 48)))
    assert torch.equal(degrade(tissue, "area", 3), resize(tissue, (64, 64), kernel="area"))


def test_ftms_is_repeated_halving(tissue: Tensor) -> None:
    twice = resize(resize(tissue, (96, 96)), (48, 48))
    assert torch.equal(degrade(tissue, "ftms", 4), twice)
    with pytest.raises(DegradationError, match="2, 4 or 8"):
        degrade(tissue, "ftms", 3)


def test_pyramid_needs_a_store(tissue: Tensor) -> None:
    with pytest.raises(DegradationError, match="native"):
        degrade(tissue, "pyramid", 4)


def test_iste_readings_lie_in_the_order_of_their_blur(tissue: Tensor) -> None:
    detail = {
        name: float(degrade(tissue, name, 4).float().diff(dim=-1).abs().mean())
        for name in ("bicubic", "iste", "iste-halfm", "li2021")
    }
    assert detail["bicubic"] > detail["iste"] > detail["iste-halfm"]
    assert detail["iste"] > detail["li2021"]


def test_defocus_and_small_apertures_blur(tissue: Tensor) -> None:
    def detail(spec: str) -> float:
        return float(degrade(tissue, spec, 4).float().diff(dim=-1).abs().mean())

    sharp = detail("optics:na=0.45")
    assert sharp > detail("optics:na=0.25") > detail("optics:na=0.25,defocus_um=6")
    assert sharp > detail("optics:na=0.45,defocus_um=4")
    assert sharp > detail("optics:na=0.45,sigma_px=2")
    # Focus is symmetric.
    assert detail("optics:defocus_um=3") == detail("optics:defocus_um=-3")


def test_sensor_noise_has_its_variance() -> None:
    for level in (60, 200):
        flat = torch.full((8, 3, 128, 128), level, dtype=torch.uint8)
        lr = degrade(flat, "area+sensor:full_well_e=5000,read_levels=1.5", 2).double()
        wanted = level * 255 / 5000 + 1.5**2 + 1 / 12
        assert float(lr.var()) == pytest.approx(wanted, rel=0.04)


def test_bayer_keeps_constants_and_blurs_colour(tissue: Tensor) -> None:
    quiet = "area+sensor:full_well_e=1e9,read_levels=0,bayer=true"
    flat = torch.full((1, 3, 16, 12), 90, dtype=torch.uint8)
    assert bool((degrade(flat, quiet, 2) == 90).all())
    assert not torch.equal(degrade(tissue, quiet, 2), degrade(tissue, "area", 2))


def test_stain_leaves_white_almost_white_and_moves_tissue() -> None:
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert int(degrade(white, "stain:gain=0.3,offset_od=0", 1).min()) == 255
    pink = torch.tensor([200, 120, 180], dtype=torch.uint8)[None, :, None, None].expand(6, 3, 8, 8)
    drawn = degrade(pink, "stain:gain=0.3,offset_od=0", 1)
    assert len({tuple(image[:, 0, 0].tolist()) for image in drawn}) == 6
    assert torch.equal(degrade(pink, "stain:gain=0,offset_od=0", 1), pink)


def test_chroma_leaves_green_alone(tissue: Tensor) -> None:
    moved, plain = (degrade(tissue, spec, 2) for spec in ("area+chroma:shift_px=1.5", "area"))
    assert torch.equal(moved[:, 1], plain[:, 1])
    assert not torch.equal(moved[:, 0], plain[:, 0])


def test_illumination_is_smooth_and_bounded() -> None:
    flat = torch.full((4, 3, 80, 60), 128, dtype=torch.uint8)
    lr = degrade(flat, "area+illumination:strength=0.1", 2).double() / 128.0
    assert float((lr - 1.0).abs().max()) == pytest.approx(0.1, abs=0.005)
    assert float(lr.diff(dim=-1).abs().max()) < 0.02


def test_colour_is_gain_offset_and_gamma() -> None:
    grey = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    lr = degrade(grey, "colour:gain=1;0.9;1.1,offset=0;5;-5,gamma=0.9", 1)[0, :, 0, 0].tolist()
    wanted = [255 * ((100 * g + o) / 255) ** 0.9 for g, o in ((1, 0), (0.9, 5), (1.1, -5))]
    assert lr == [round(w) for w in wanted]


def test_stitch_moves_one_side_of_a_line(tissue: Tensor) -> None:
    for slot in range(6):
        seam = degrade(tissue, "area+stitch:shift_px=2", 2, slots=[slot])[0]
        same = (seam == degrade(tissue, "area", 2)[0]).all(0)
        rows, columns = same.all(1), same.all(0)
        kept = rows if bool(rows.any()) else columns
        # Everything before the seam is untouched, and there is something on both sides.
        count = int(kept.sum())
        assert 0 < count < len(kept) and bool(kept[:count].all())


def test_jpeg_comes_last_and_is_libjpegs(tissue: Tensor) -> None:
    wanted = jpeg(degrade(tissue, "area", 4), 70, "4:4:4")
    assert torch.equal(degrade(tissue, "area+jpeg:quality=70,subsampling=4:4:4", 4), wanted)


def test_strong_realesrgan_damages_more_than_mild(tissue: Tensor) -> None:
    images = tissue.expand(8, -1, -1, -1)
    plain = degrade(images, "bicubic", 4).double()
    error = {
        spec: float((degrade(images, spec, 4) - plain).square().mean())
        for spec in ("realesrgan2:mild", "realesrgan2")
    }
    assert 0 < error["realesrgan2:mild"] < error["realesrgan2"]


def test_float32_and_float64_agree_to_one_grey_level(
    tissue: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices differ as precisions do, by less: rounding is the only place where it can show."""
    import wsisr.degradation.apply as apply_module

    specs = ("bicubic", "optics:10x", "gaussian", "iste-halfm", "stain+chroma+area+sensor")
    single = {spec: degrade(tissue, spec, 4) for spec in specs}
    levels = apply_module._grey_levels
    monkeypatch.setattr(apply_module, "_grey_levels", lambda hr: levels(hr).double())
    for spec in specs:
        change = (degrade(tissue, spec, 4).int() - single[spec].int()).abs()
        assert int(change.max()) <= 1 and float(change.double().mean()) < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(
    "spec", ["bicubic", "iste", "optics:10x", "realesrgan2:mild", "jpeg:random"]
)
def test_gpu_agrees_to_one_grey_level(tissue: Tensor, spec: str) -> None:
    images = tissue.expand(4, -1, -1, -1)
    change = (degrade(images.cuda(), spec, 4).cpu().int() - degrade(images, spec, 4).int()).abs()
    assert float((change > 1).double().mean()) < 1e-3


@pytest.mark.parametrize(
    "spec", ["bicubic", "iste", "optics", "realesrgan2:mild", "jpeg", "stitch"]
)
def test_one_pixel_images_work(spec: str) -> None:
    one = torch.full((1, 3, 1, 1), 130, dtype=torch.uint8)
    assert degrade(one, spec, 1).shape == (1, 3, 1, 1)
    assert degrade(torch.full((1, 3, 4, 4), 130, dtype=torch.uint8), spec, 4).shape == (1, 3, 1, 1)


def test_training_settings_do_not_change_the_lr(tissue: Tensor) -> None:
    wanted, plain = (degrade(tissue, spec, 4) for spec in ("optics:10x+sensor", "bicubic"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(degrade(tissue, "optics:10x+sensor", 4), wanted)
        assert torch.equal(degrade(tissue, "bicubic", 4), plain)
    with torch.inference_mode():
        assert torch.equal(degrade(tissue, "optics:10x+sensor", 4), wanted)


def test_a_given_size_takes_hr_as_it_is(tissue: Tensor) -> None:
    lr = degrade(tissue[..., :191, :191], "bicubic", 3.3, size=(58, 58))
    assert torch.equal(lr, degrade(tissue, "bicubic", 3.3))


def test_slots_must_match_the_images(tissue: Tensor) -> None:
    with pytest.raises(DegradationError, match="slots"):
        degrade(tissue, "sensor", 2, slots=[1, 2])


@pytest.mark.parametrize("spec", ["jpeg:quality=50", "sensor", "gaussian", "realesrgan2:mild"])
def test_x1_is_restored_where_lr_is_not_hr(spec: str) -> None:
    refuse_identity(parse_degradation(spec), 1.0)


@pytest.mark.parametrize("spec", ["bicubic", "area", "nearest", "iste"])
def test_x1_is_refused_where_lr_is_hr(spec: str) -> None:
    refuse_identity(parse_degradation(spec), 1.5)
    with pytest.raises(DegradationError, match=f"x1 by {spec}: LR is HR itself"):
        refuse_identity(parse_degradation(spec), 1.0)
