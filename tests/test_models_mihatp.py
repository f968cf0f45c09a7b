"""HAT and MiHATP: parity with plain forms, residual forms, deformable attention, sizes."""

import pytest
import torch
from torch import Tensor

from wsisr.errors import ModelError
from wsisr.models import create_model
from wsisr.models.layers import deformable
from wsisr.models.layers.attention import attend, relative_index
from wsisr.models.layers.deformable import DeformableAttention, reference_axis
from wsisr.models.layers.hybrid import HybridBlock, overlap_index, released_roll
from wsisr.testing.naive_models import (
    naive_deformable,
    naive_hat,
    naive_hybrid_block,
    naive_window_attention,
)

torch.set_num_threads(1)
SMALL = {
    "width": 12,
    "groups": 1,
    "depth": 2,
    "heads": 3,
    "window_px": 4,
    "squeeze": 3,
    "head_width": 8,
    "image_skip": False,
}


def scramble(module: torch.nn.Module, seed: int = 3) -> None:
    """Fully random weights: smooth ones hide swapped indices."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.3)


def gradients(out: Tensor, module: torch.nn.Module) -> list[Tensor]:
    module.zero_grad()
    out.sin().sum().backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def assert_same(
    fast: list[Tensor] | Tensor, plain: list[Tensor] | Tensor, limit: float = 1e-10
) -> None:
    for a, b in zip(
        fast if isinstance(fast, list) else [fast],
        plain if isinstance(plain, list) else [plain],
        strict=True,
    ):
        assert (a - b).abs().max() <= limit * (1 + b.abs().max())


def test_whole_hat_equals_the_plain_form_forward_and_gradients() -> None:
    model = create_model("hat", scale=2, preset="tiny", **SMALL).double().eval()
    scramble(model)
    lr = torch.rand(2, 3, 8, 12, dtype=torch.double)
    fast = model(lr)
    fast_gradients = gradients(fast, model)
    plain = naive_hat(model.net, lr)
    assert_same(fast, plain)
    assert_same(fast_gradients, gradients(plain, model))


def test_mihatp_with_hat_residual_equals_the_plain_form() -> None:
    model = create_model("mihatp", scale=2, preset="tiny", **SMALL, offset_groups=3, beta=0.5)
    model.double().eval()
    scramble(model)
    lr = torch.rand(1, 3, 8, 8, dtype=torch.double)
    fast = model(lr)
    fast_gradients = gradients(fast, model)
    plain = naive_hat(model.net, lr)
    assert_same(fast, plain)
    assert_same(fast_gradients, gradients(plain, model), limit=1e-8)


def test_beta_zero_is_hat_under_copied_weights() -> None:
    hat = create_model("hat", scale=3, preset="tiny", **SMALL).double().eval()
    mihatp = create_model("mihatp", scale=3, preset="tiny", **SMALL, offset_groups=3, beta=0.0)
    mihatp.double().eval()
    scramble(hat)
    missing = mihatp.load_state_dict(hat.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(".deformable." in key for key in missing.missing_keys)
    lr = torch.rand(1, 3, 6, 9, dtype=torch.double)
    assert_same(mihatp(lr), hat(lr), limit=1e-12)


def test_without_the_deformable_branch_the_parameters_are_hats() -> None:
    with torch.device("meta"):
        hat = create_model("hat", scale=4, preset="paper")
        mihatp = create_model("mihatp", scale=4, preset="paper", deformable=False)
    assert mihatp.parameter_count == hat.parameter_count


def test_paper_residual_adds_the_normed_input_to_a_block() -> None:
    made = {
        "width": 12,
        "heads": 3,
        "window": 4,
        "shifted": True,
        "mlp_hidden": 24,
        "compress": 3,
        "squeeze": 3,
        "alpha": 0.01,
    }
    plain = HybridBlock(**made).double()
    literal = HybridBlock(**made, add_normed=True).double()
    scramble(plain)
    literal.load_state_dict(plain.state_dict())
    x = torch.randn(1, 8, 8, 12, dtype=torch.double)
    index = relative_index(4)
    from wsisr.models.layers.attention import shift_mask

    mask = shift_mask(8, 8, 4, x)
    added = literal(x, index, mask) - plain(x, index, mask)
    assert_same(added, plain.norm1(x), limit=1e-12)
    assert_same(plain(x, index, mask), naive_hybrid_block(plain, x))


@pytest.mark.parametrize("rule", ["v1", "dat++"])
@pytest.mark.parametrize("size", [(8, 8), (4, 12), (12, 4)])
def test_deformable_attention_equals_the_plain_form(rule: str, size: tuple[int, int]) -> None:
    module = DeformableAttention(
        width=12,
        heads=6,
        groups=3,
        stride_px=4,
        kernel_px=5,
        table_px=8,
        reference_points=rule,  # type: ignore[arg-type]
    ).double()
    scramble(module)
    tokens = torch.randn(2, *size, 12, dtype=torch.double)
    fast = module(tokens)
    fast_gradients = gradients(fast, module)
    plain = naive_deformable(module, tokens)
    assert_same(fast, plain)
    assert_same(fast_gradients, gradients(plain, module), limit=1e-9)


@pytest.mark.parametrize("scores", [1, 40, 1 << 20])
def test_deformable_attention_in_pieces_is_the_same(
    scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = DeformableAttention(
        width=12,
        heads=6,
        groups=3,
        stride_px=4,
        kernel_px=5,
        table_px=8,
        reference_points="v1",
    ).double()
    scramble(module)
    tokens = torch.randn(2, 8, 12, 12, dtype=torch.double)
    whole = module(tokens).detach()
    monkeypatch.setattr(deformable, "CPU_SCORES", scores)
    with torch.no_grad():
        assert_same(module(tokens), whole)


def test_attention_takes_any_strides() -> None:
    q, k, v = torch.randn(3, 2, 3, 8, 5, dtype=torch.double).mT
    score = (q * 8**-0.5) @ k.mT
    assert_same(attend(q, k, v, None, pad_head=False), score.softmax(-1) @ v)


def test_symmetric_reference_points_make_flips_commute_and_the_others_do_not() -> None:
    def difference(rule: str) -> float:
        module = DeformableAttention(
            width=12,
            heads=3,
            groups=3,
            stride_px=2,
            kernel_px=5,
            table_px=8,
            reference_points=rule,  # type: ignore[arg-type]
        ).double()
        scramble(module)
        with torch.no_grad():
            module.conv_offset[3].weight.zero_()
            module.rpe_table.copy_(module.rpe_table + module.rpe_table.flip((1, 2)))
            module.rpe_table.copy_(module.rpe_table + module.rpe_table.flip(2))
        tokens = torch.randn(1, 8, 8, 12, dtype=torch.double)
        flipped = module(tokens.flip(2)).flip(2)
        return float((flipped - module(tokens)).detach().abs().max())

    assert difference("v1") < 1e-12
    assert difference("dat++") > 1e-3


def test_one_key_has_a_finite_reference_point() -> None:
    like = torch.zeros(1)
    assert reference_axis(1, "dat++", like).tolist() == [0.0]
    assert reference_axis(1, "v1", like).tolist() == [0.0]
    assert reference_axis(12, "dat++", like)[[0, -1]].tolist() == pytest.approx(
        [-0.909, 1.091], abs=1e-3
    )


def test_overlap_indices_are_a_bijection_that_the_released_table_is_rolled_to() -> None:
    index = overlap_index(16, 24)
    assert index.min() == 0 and index.max() == 39 * 39 - 1
    assert len(index.unique()) == 1521
    assert released_roll(16, 24) == 880
    rows, cols = torch.arange(256), torch.arange(576)
    dy = cols[None] // 24 - rows[:, None] // 16 - 7
    dx = cols[None] % 24 - rows[:, None] % 16 - 7
    assert torch.equal((dy * 39 + dx) % 1521, (index - 880) % 1521)


@pytest.mark.parametrize("head", [8, 10, 30])
def test_padded_heads_give_the_same_attention_and_gradients(head: int) -> None:
    q, k, v = (torch.randn(2, 3, 5, head, dtype=torch.double, requires_grad=True) for _ in "qkv")
    bias = torch.randn(1, 3, 5, 5, dtype=torch.double, requires_grad=True)
    plain = (q @ k.transpose(-2, -1) / head**0.5 + bias).softmax(-1) @ v
    wanted = torch.autograd.grad(plain.sin().sum(), (q, k, v, bias))
    for pad in (False, True):
        out = attend(q, k, v, bias, pad_head=pad)
        assert_same(out, plain, limit=1e-13)
        got = torch.autograd.grad(out.sin().sum(), (q, k, v, bias))
        assert_same(list(got), list(wanted), limit=1e-12)


def test_math_backend_agrees() -> None:
    model = create_model("hat", scale=2, preset="tiny", **SMALL).eval()
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        fused = model(lr)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            plain = model(lr)
    assert (fused - plain).abs().max() < 1e-5


def test_window_attention_of_one_window_is_not_mixed_across_a_shift() -> None:
    model = create_model("swinir", scale=2, preset="tiny", width=12, heads=3, window_px=4).double()
    scramble(model)
    attention = model.net.layers[0].residual_group.blocks[1].attn
    x = torch.randn(1, 4, 4, 12, dtype=torch.double)
    from wsisr.models.layers.attention import shift_mask

    fast = attention(x, model.net.index, shift_mask(4, 4, 4, x))
    assert_same(fast, naive_window_attention(attention, x, 2))


SIZES = [(i, i * 37 % 70 + 1) for i in range(1, 71)]


@pytest.mark.parametrize("scale", [2, 3, 4, 6, 8])
def test_any_size_up_to_70_runs_at_every_scale(scale: int) -> None:
    model = create_model("mihatp", scale=scale, preset="tiny", **SMALL, offset_groups=3).eval()
    for height, width in SIZES[scale % 5 :: 5]:
        with torch.no_grad():
            out = model(torch.rand(1, 3, height, width))
        assert tuple(out.shape) == (1, 3, scale * height, scale * width)
        assert torch.isfinite(out).all()


def test_a_size_that_is_a_multiple_of_the_window_is_not_padded() -> None:
    model = create_model("mihatp", scale=2, preset="tiny", **SMALL, offset_groups=3).eval()
    lr = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(model(lr), model.net(lr))


@pytest.mark.parametrize(
    "wrong",
    [{"width": 50}, {"offset_groups": 4}, {"key_stride_px": 3}, {"offset_kernel_px": 4}],
)
def test_impossible_shapes_are_refused_in_words(wrong: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="mihatp"):
        create_model("mihatp", scale=4, **wrong)
