"""CWT-Net: texture transfer, wavelets, the leak, training modes and losses."""

import pytest
import torch
from torch import Tensor

from wsisr.errors import ModelError
from wsisr.models import create_model
from wsisr.models.cwtnet import wt_depth
from wsisr.models.layers.resample import apply_matrices, bicubic_matrix, blur_matrices, enlarge
from wsisr.models.layers.retrieval import best_patch, best_patch_banded, transfer_texture
from wsisr.models.layers.wavelet import haar, haar_diagonal, inverse_haar
from wsisr.models.losses import CwtLossSettings, cwt_loss, ssim
from wsisr.resize import resize
from wsisr.testing.naive_models import naive_transfer_texture

torch.set_num_threads(1)
DOUBLE = torch.float64
SMALL = {"width": 8, "blocks": 2, "sr_depth": 1}


def build(scale: int = 2, **settings: object):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return create_model("cwtnet", scale=scale, preset="tiny", **{**SMALL, **settings})


@pytest.mark.parametrize("size", [(7, 9), (1, 1), (1, 6), (8, 3)])
def test_texture_transfer_equals_unfolding_forward_and_gradients(size: tuple[int, int]) -> None:
    maps = [torch.randn(2, 5, *size, dtype=DOUBLE, requires_grad=True) for _ in range(3)]
    texture, confidence = transfer_texture(*maps)
    plain_texture, plain_confidence = naive_transfer_texture(*maps)
    assert (texture - plain_texture).abs().max() < 1e-12
    assert (confidence - plain_confidence).abs().max() < 1e-12
    for a, b in zip(
        torch.autograd.grad((texture * confidence).sin().sum(), maps),
        torch.autograd.grad((plain_texture * plain_confidence).sin().sum(), maps),
        strict=True,
    ):
        assert (a - b).abs().max() < 1e-12


@pytest.mark.parametrize("block_bytes", [1, 4000, 20_000, 10**9])
def test_bands_of_any_height_find_the_same_patches(block_bytes: int) -> None:
    q, k = (torch.randn(2, 4, 9, 7, dtype=DOUBLE) for _ in "qk")
    assert torch.equal(best_patch_banded(q, k, block_bytes), best_patch(q, k))


def test_haar_is_orthonormal_and_its_diagonal_is_equation_four() -> None:
    x = torch.randn(2, 3, 6, 8, dtype=DOUBLE)
    bands = haar(x)
    torch.testing.assert_close(inverse_haar(bands), x)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    assert torch.equal(bands[:, 9:], haar_diagonal(x))
    assert haar_diagonal(torch.full((1, 3, 4, 4), 0.7)).abs().max() == 0
    board = (torch.arange(4)[:, None] + torch.arange(4)).remainder(2).float().expand(1, 1, 4, 4)
    assert torch.equal(haar_diagonal(1 - board), torch.ones(1, 1, 2, 2))
    assert torch.equal(haar_diagonal(board), -torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize(("a", "b"), [(7, 28), (28, 7), (5, 5), (1, 8), (9, 6)])
def test_bicubic_matrices_are_the_degradations_operator(a: int, b: int) -> None:
    x = torch.rand(1, 2, a, 4, dtype=DOUBLE)
    ours = bicubic_matrix(a, b, x) @ x
    assert (ours - resize(x, (b, 4), kernel="matlab")).abs().max() < 1e-14


def test_enlarging_and_reducing_in_one_matrix() -> None:
    x = torch.rand(1, 2, 7, 5, dtype=DOUBLE)
    for scale in (2, 3, 8):
        rows, cols = blur_matrices((7, 5), scale, x)
        wanted = resize(resize(x, (7 * scale, 5 * scale)), (7, 5))
        assert (apply_matrices(x, rows, cols) - wanted).abs().max() < 1e-13
        assert (enlarge(x, scale) - resize(x, (7 * scale, 5 * scale))).abs().max() < 1e-13


def test_without_a_reference_nothing_from_hr_can_matter() -> None:
    model = build().eval()
    lr = torch.rand(2, 3, 6, 7)
    seen: list[Tensor] = []
    with torch.no_grad():
        for seed in (1, 2):
            # HR and its reductions exist around the call, shuffled and replaced between calls.
            torch.manual_seed(seed)
            hr = torch.rand(2, 3, 12, 14)
            model(lr, reference=hr)
            model.training_step_outputs(lr, hr, feed_wr=bool(seed % 2))
            seen.append(model(lr))
        assert torch.equal(seen[0], seen[1])
        assert not torch.equal(model(lr, reference=hr), seen[0])


def test_the_default_output_depends_on_lr_alone() -> None:
    model = build().double().eval()
    lr = torch.rand(1, 3, 4, 4, dtype=DOUBLE, requires_grad=True)
    reference = torch.rand(1, 3, 8, 8, dtype=DOUBLE, requires_grad=True)
    model(lr).sum().backward()
    assert lr.grad is not None and lr.grad.any() and reference.grad is None
    model(lr, reference=reference).sum().backward()
    assert reference.grad is not None and reference.grad.any()


def test_references_of_a_wrong_size_or_scale_are_refused() -> None:
    lr = torch.rand(1, 3, 4, 5)
    with pytest.raises(ModelError, match="twice the LR size"):
        build()(lr, reference=torch.rand(1, 3, 16, 20))
    for scale in (3, 6):
        with pytest.raises(ModelError, match="no level"):
            build(scale)(lr, reference=torch.rand(1, 3, 8, 10))
        assert build(scale)(lr).shape == (1, 3, 4 * scale, 5 * scale)


def test_joint_training_reaches_every_weight_of_the_reconstruction() -> None:
    lr, reference, hr = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    for feed in (False, True):
        model = build(wr_reduction=1)
        with torch.no_grad():
            for p in model.net.wr.parameters():
                if p.ndim == 1:
                    p.add_(0.1)
        cwt_loss(model.training_step_outputs(lr, reference, feed_wr=feed), hr).backward()
        idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        # The diagonal band of a constant is zero: this bias has no effect on anything.
        assert idle == ["net.wr.tail.2.bias"]


def test_test_only_training_leaves_the_reconstruction_alone() -> None:
    model = build(wr_training="test_only", wr_init="normal")
    outputs = model.training_step_outputs(
        torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8), feed_wr=True
    )
    assert outputs.wr is None
    cwt_loss(outputs, torch.rand(1, 3, 8, 8)).backward()
    assert all(p.grad is None for p in model.net.wr.parameters())
    assert all(p.grad is not None for k, p in model.named_parameters() if ".wr." not in k)


def test_always_feeds_the_branch_from_the_reconstruction() -> None:
    model = build(wr_training="always").eval()
    lr = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        a = model.training_step_outputs(lr, torch.rand(1, 3, 8, 8), feed_wr=False).sr
        assert torch.equal(a, model(lr))


def test_four_bands_and_swapped_keys() -> None:
    lr, reference = torch.rand(1, 3, 5, 6), torch.rand(1, 3, 10, 12)
    model = build(wt_bands="all", kv="ttsr")
    outputs = model.training_step_outputs(lr, reference, feed_wr=False)
    assert outputs.wt.shape == outputs.target.shape == (1, 12, 5, 6)
    assert outputs.sr.shape == (1, 3, 10, 12)


def test_depth_rules() -> None:
    assert [wt_depth(s, "log2") for s in (2, 3, 4, 6, 8)] == [2, 3, 3, 4, 4]
    assert [wt_depth(s, "linear") for s in (2, 3, 4, 6, 8)] == [2, 3, 4, 6, 8]


def test_ssim_equals_its_definition() -> None:
    from skimage.metrics import structural_similarity

    torch.manual_seed(0)
    a = torch.rand(1, 3, 20, 24, dtype=DOUBLE)
    b = (a + 0.1 * torch.randn_like(a)).clamp(0, 1)
    _, full = structural_similarity(
        a[0].permute(1, 2, 0).numpy(),
        b[0].permute(1, 2, 0).numpy(),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert float(ssim(a, b)) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-6)
    assert float(ssim(a, a)) == pytest.approx(1.0, abs=1e-12)
    assert torch.isfinite(ssim(a[..., :3, :1], b[..., :3, :1]))


def test_ablations_have_the_sizes_of_their_rows() -> None:
    with torch.device("meta"):

        def count(**settings: object) -> int:
            return create_model("cwtnet", scale=2, preset="paper", **settings).parameter_count

        assert count(branches="sr") == 1_923_779
        assert count(wr=False) == 4_585_350
        # Stride 2 and three channels in place of one diagonal band of each: the same count.
        assert count(wt_input="image") == count()


def test_ablations_train_and_need_lr_alone() -> None:
    torch.manual_seed(0)
    lr, finer, hr = torch.rand(1, 3, 8, 9), torch.rand(1, 3, 16, 18), torch.rand(1, 3, 16, 18)
    for settings in ({"branches": "sr"}, {"wr": False}, {"wt_input": "image", "wr": False}):
        model = create_model("cwtnet", scale=2, preset="tiny", **settings)
        alone = "branches" in settings
        assert model.info.takes_reference is not alone
        outputs = model.training_step_outputs(lr, None if alone else finer, feed_wr=True)
        cwt_loss(outputs, hr).backward()
        assert all(p.grad is not None for p in model.parameters())
        with torch.no_grad():
            sr = model(lr)
            assert sr.shape == hr.shape and (outputs.wt is None) == alone and outputs.wr is None
            if alone:
                with pytest.raises(ModelError, match="no use for a reference"):
                    model(lr, reference=finer)
            else:  # without WR the branch sees LR enlarged, as I_LR of table III does
                rgb = model.net.rgb
                given = model(lr, reference=rgb.restore(enlarge(rgb.remove(lr), 2)))
                assert (given - sr).abs().max() < 1e-5


def test_terms_of_the_loss_are_settings() -> None:
    torch.manual_seed(0)
    model = create_model("cwtnet", scale=2, preset="tiny")
    lr, finer, hr = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        out = model.training_step_outputs(lr, finer, feed_wr=False)

        def loss(**changes: object) -> float:
            return float(cwt_loss(out, hr, CwtLossSettings(wr_weight=0.0, **changes)))

        l1, mse = (out.sr - hr).abs().mean(), (out.sr - hr).square().mean()
        assert loss(branch_weights=(1.0, 0.0), ssim_weight=0.0) == pytest.approx(float(l1))
        alone = loss(branch_weights=(1.0, 0.0), ssim_weight=0.0, pixel="mse")
        assert alone == pytest.approx(float(mse))
        wt = (out.wt - out.target).abs().mean()
        assert loss(branch_weights=(0.0, 1.0), ssim_weight=0.0) == pytest.approx(float(wt))
    with pytest.raises(ModelError, match="branch_weights"):
        CwtLossSettings(branch_weights=(0.0, 0.0))
