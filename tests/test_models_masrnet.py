"""MASRNet, its attention, and MASRGAN's discriminators, features and losses."""

import logging
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from wsisr.errors import ModelError
from wsisr.models import create_model
from wsisr.models.adversarial import (
    AdversarialSettings,
    PatchDiscriminator,
    build_discriminator,
    discriminator_loss,
    generator_loss,
    generator_term,
)
from wsisr.models.features import RELU2_2, RELU_X_1, FeatureNet
from wsisr.models.masrnet import MasrnetSettings, MixAttention
from wsisr.testing.naive_models import naive_mix_attention

torch.set_num_threads(1)
DOUBLE = torch.float64


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_one_group_channel_attention_and_pixel_shuffle_is_rcan(scale: int) -> None:
    torch.manual_seed(0)
    shape = {"width": 32, "groups": 2, "blocks": 3}
    rcan = create_model("rcan", scale=scale, preset="paper", **shape, reduction=16)
    masrnet = create_model(
        "masrnet",
        scale=scale,
        preset="paper",
        **shape,
        attention="channel",
        attention_groups=1,
        reduction=16,
        upsampler="pixelshuffle",
    )
    ours, theirs = list(masrnet.parameters()), list(rcan.parameters())
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            a.copy_(b)
    lr = torch.rand(2, 3, 7, 9)
    assert torch.equal(masrnet(lr), rcan(lr))


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("attention", ["mix", "channel", "spatial"])
def test_mix_attention_equals_a_loop_over_groups(groups: int, attention: str) -> None:
    settings = MasrnetSettings(
        width=16,
        attention_groups=groups,
        reduction=2,
        attention=attention,  # type: ignore[arg-type]
    )
    module = MixAttention(settings).double()
    x = torch.randn(2, 16, 6, 5, dtype=DOUBLE, requires_grad=True)
    fast, plain = module(x), naive_mix_attention(module, x)
    assert (fast - plain).abs().max() < 1e-14
    wanted = torch.autograd.grad(plain.sin().sum(), (x, *module.parameters()))
    got = torch.autograd.grad(fast.sin().sum(), (x, *module.parameters()))
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() < 1e-12


def test_shuffle_is_undone_by_the_complementary_shuffle() -> None:
    x = torch.randn(1, 12, 2, 3)
    once = torch.nn.functional.channel_shuffle(x, 4)
    assert torch.equal(torch.nn.functional.channel_shuffle(once, 3), x)
    assert not torch.equal(once, x)


def test_groups_must_divide_the_width() -> None:
    with pytest.raises(ModelError, match="multiple of attention_groups"):
        create_model("masrnet", scale=4, attention_groups=5)


def test_one_mix_attention_block_of_the_paper_has_1172_parameters() -> None:
    assert count(MixAttention(MasrnetSettings())) == 1172


def test_channels_last_gives_the_same() -> None:
    model = create_model("masrnet", scale=2, preset="tiny").eval()
    lr = torch.rand(2, 3, 8, 9)
    with torch.no_grad():
        plain = model(lr)
        layout = torch.channels_last
        again = model.to(memory_format=layout)(lr.to(memory_format=layout))
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("upsampler", ["deconv", "pixelshuffle"])
@pytest.mark.parametrize("scale", [2, 3, 6, 9])
def test_upsamplers_reach_the_exact_size(upsampler: str, scale: int) -> None:
    shape = {"width": 8, "groups": 1, "blocks": 1, "attention_groups": 2}
    model = create_model("masrnet", scale=scale, preset="tiny", upsampler=upsampler, **shape)
    assert model(torch.rand(1, 3, 5, 4)).shape == (1, 3, 5 * scale, 4 * scale)


def test_patch_discriminators() -> None:
    assert count(PatchDiscriminator()) == 2_765_633
    assert count(PatchDiscriminator(norm="instance")) == 2_764_737
    assert count(PatchDiscriminator(norm="none")) == 2_764_737
    assert count(PatchDiscriminator(layers=2)) == 663_361
    assert count(PatchDiscriminator(layers=4)) == 6_960_961
    assert count(PatchDiscriminator(inputs=6)) == 2_768_705
    with torch.device("meta"):
        patch = PatchDiscriminator()
        sizes = {s: tuple(patch(torch.rand(1, 3, s, s)).shape[2:]) for s in (96, 128, 192, 256)}
    assert sizes == {96: (10, 10), 128: (14, 14), 192: (22, 22), 256: (30, 30)}


def test_patch_discriminator_sees_seventy_pixels() -> None:
    patch = PatchDiscriminator(norm="none", width=4).double()
    image = torch.rand(1, 3, 160, 160, dtype=DOUBLE, requires_grad=True)
    out = patch(image)
    out[0, 0, 9, 9].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == 70


@pytest.mark.parametrize("kind", ["patch", "vgg16", "vgg128"])
def test_discriminators_of_table_three(kind: str) -> None:
    settings = AdversarialSettings(discriminator=kind)  # type: ignore[arg-type]
    judge = build_discriminator(settings, hr_px=64)
    out = judge(torch.rand(2, 3, 64, 64))
    assert out.shape == ((2, 1, 6, 6) if kind == "patch" else (2, 1))
    if kind != "patch":
        with pytest.raises(ModelError, match="multiple of"):
            build_discriminator(settings, hr_px=65)


def test_spectral_norm_bounds_the_weights() -> None:
    judge = PatchDiscriminator(norm="spectral", width=8)
    judge(torch.rand(1, 3, 64, 64))
    weight = judge.body[0].weight.detach()
    assert float(torch.linalg.matrix_norm(weight.flatten(1), 2)) < 1.6


def test_adversarial_terms_are_cross_entropies_and_never_overflow() -> None:
    logits = torch.tensor([-2.0, 0.0, 3.0])
    bce = nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(generator_term(logits), bce(logits, torch.ones(3)))
    wanted = 0.5 * (bce(logits, torch.ones(3)) + bce(-logits, torch.zeros(3)))
    torch.testing.assert_close(discriminator_loss(logits, -logits), wanted)
    assert math.isfinite(float(generator_term(torch.tensor([-1e4]))))


def test_generator_loss_sums_its_terms_and_leaves_the_judges_alone() -> None:
    torch.manual_seed(0)
    model = create_model("masrgan", scale=2, preset="tiny")
    settings = AdversarialSettings(colour_weight=1.0)
    judge = PatchDiscriminator(width=8).requires_grad_(False)
    features = FeatureNet(("relu1_2",))
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    total, terms = generator_loss(model(lr), hr, lr, judge, features, settings)
    assert list(terms) == ["pixel", "adversarial", "perceptual", "colour"]
    torch.testing.assert_close(total.detach(), torch.stack(list(terms.values())).sum())
    assert float(terms["colour"]) > 0
    total.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in (*judge.parameters(), *features.parameters()))
    assert AdversarialSettings().colour_weight == 0


def test_adversarial_training_stays_finite_and_both_sides_move() -> None:
    torch.manual_seed(0)
    model = create_model("masrgan", scale=2, preset="tiny", width=8, groups=1, blocks=1)
    settings = AdversarialSettings()
    judge = PatchDiscriminator(layers=1, width=8)
    features = FeatureNet(("relu1_1",))
    start = [p.detach().clone() for m in (model, judge) for p in m.parameters()]
    g_opt = torch.optim.Adam(model.parameters(), 1e-3)
    d_opt = torch.optim.Adam(judge.parameters(), 1e-3)
    lr, hr = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 24, 24)
    for _ in range(50):
        sr = model(lr)
        judge.requires_grad_(False)
        loss, _ = generator_loss(sr, hr, lr, judge, features, settings)
        g_opt.zero_grad()
        loss.backward()
        g_opt.step()
        judge.requires_grad_(True)
        d_loss = discriminator_loss(judge(hr), judge(sr.detach()))
        d_opt.zero_grad()
        d_loss.backward()
        d_opt.step()
        assert torch.isfinite(loss) and torch.isfinite(d_loss)
    moved = [p for m in (model, judge) for p in m.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(start, moved, strict=True))


def test_feature_trunks_have_vgg19s_sizes() -> None:
    assert count(FeatureNet(RELU2_2)) == 260_160
    assert count(FeatureNet(RELU_X_1)) == 12_944_960


def test_random_trunk_is_fixed_by_its_seed_recorded_and_announced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        a, b, c = (FeatureNet(RELU2_2, seed=s) for s in (0, 0, 1))
    assert "no weights were given" in caplog.text
    assert a.record == "vgg19-random seed:0" and c.record == "vgg19-random seed:1"
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(a(x)[0], b(x)[0]) and not torch.equal(a(x)[0], c(x)[0])
    assert 0.05 < float(a(x)[0].square().mean()) < 5


@pytest.mark.parametrize("whole", [True, False])
def test_a_weights_file_is_read_whole_or_cut(tmp_path: Path, whole: bool) -> None:
    source = FeatureNet(RELU2_2, seed=3)
    state = dict(source.state_dict())
    if whole:
        state["features.10.weight"] = torch.zeros(256, 128, 3, 3)
        state["classifier.0.weight"] = torch.zeros(4, 4)
    torch.save(state, tmp_path / "vgg.pth")
    net = FeatureNet(RELU2_2, weights=tmp_path / "vgg.pth")
    assert net.record.startswith("vgg19-file sha256:")
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(net(x)[0], source(x)[0])


def test_a_wrong_weights_file_fails_at_once(tmp_path: Path) -> None:
    state = FeatureNet(("relu1_1",)).state_dict()
    torch.save(dict(state), tmp_path / "short.pth")
    with pytest.raises(ModelError, match=r"features\.2\.weight is missing"):
        FeatureNet(RELU2_2, weights=tmp_path / "short.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ModelError, match="has shape"):
        FeatureNet(("relu1_1",), weights=tmp_path / "wrong.pth")
    with pytest.raises(ModelError, match="no VGG19 level"):
        FeatureNet(("relu9_9",))


def test_images_too_small_for_the_poolings_are_refused() -> None:
    with pytest.raises(ModelError, match="16 px at least"):
        FeatureNet(RELU_X_1)(torch.rand(1, 3, 8, 8))
