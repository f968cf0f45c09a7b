"""MiHATP's pools, contrastive loss and two-branch step."""

import math

import pytest
import torch
from torch import Tensor

from wsisr.degradation.draws import batch_draws
from wsisr.degradation.pools import LOSSES, SYMMETRIES, draw_symmetries, motion_kernels, negatives
from wsisr.errors import DegradationError, ModelError
from wsisr.models import create_model, save_model
from wsisr.models.contrastive import (
    ContrastiveBranch,
    ContrastiveSettings,
    contrastive_loss,
    contrastive_step,
    level_loss,
    similarities,
)
from wsisr.models.features import FeatureNet
from wsisr.resize import resize

torch.set_num_threads(1)
SMALL = {
    "width": 12,
    "groups": 1,
    "depth": 2,
    "heads": 3,
    "offset_groups": 3,
    "window_px": 4,
    "squeeze": 3,
    "head_width": 8,
}


def draws(step: int = 0, batch: int = 2):  # type: ignore[no-untyped-def]
    return batch_draws(7, step, None, batch, torch.device("cpu"))


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=lambda s: s.name)
def test_each_symmetry_is_undone_bit_for_bit_and_commutes_with_reduction(symmetry) -> None:  # type: ignore[no-untyped-def]
    hr = torch.rand(2, 3, 12, 20)
    moved = symmetry.apply(hr)
    assert torch.equal(symmetry.invert(moved), hr)
    small = resize(hr.double(), (3, 5), kernel="area")
    size = (5, 3) if symmetry.transpose else (3, 5)
    torch.testing.assert_close(
        resize(moved.double(), size, kernel="area"), symmetry.apply(small), rtol=0, atol=1e-12
    )


def test_the_eight_symmetries_are_distinct() -> None:
    x = torch.arange(9.0).view(3, 3)
    assert len({tuple(s.apply(x).flatten().tolist()) for s in SYMMETRIES}) == 8


def test_draws_are_distinct_reproducible_and_leave_the_identity_out() -> None:
    for step in range(20):
        chosen = draw_symmetries(draws(step), 4)
        assert len(set(chosen)) == 4 and SYMMETRIES[0] not in chosen
        assert chosen == draw_symmetries(draws(step, batch=5), 4)
    with pytest.raises(DegradationError, match="8"):
        draw_symmetries(draws(), 8)


def test_negatives_are_worse_than_hr_and_reproducible() -> None:
    hr = torch.rand(2, 3, 32, 32)
    lr = resize(hr, (8, 8))
    made = negatives(hr, draws(), scale=4, count=5, lr=lr)
    assert made.shape == (6, 2, 3, 32, 32)
    assert float(made.min()) >= 0 and float(made.max()) <= 1
    assert ((made - hr).abs().mean(dim=(1, 2, 3, 4)) > 1e-3).all()
    assert torch.equal(made, negatives(hr, draws(), scale=4, count=5, lr=lr))
    assert not torch.equal(made[:5], negatives(hr, draws(1), scale=4, count=5))
    for kind in LOSSES:
        assert negatives(hr, draws(), scale=4, count=1, pool=(kind,)).shape[0] == 1
    with pytest.raises(DegradationError, match="blur"):
        negatives(hr, draws(), scale=4, count=1, pool=("blurr",))  # type: ignore[arg-type]


def test_motion_kernels_are_centred_lines_of_unit_sum() -> None:
    kernels = motion_kernels(torch.tensor([5.0, 9.0]), torch.tensor([0.0, math.pi / 2]), 6)
    torch.testing.assert_close(kernels.sum(dim=(1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(kernels, kernels.flip((-2, -1)))
    assert (kernels[0, 0] > 1e-3).sum() == 5 and (kernels[0, 0, 6] > 1e-3).sum() == 5


def reference_loss(r: Tensor, p: Tensor, n: Tensor, tau: float) -> float:
    """Equation 9 as it stands, in float64."""
    total = 0.0
    for i in range(r.shape[0]):

        def sim(x: Tensor, i: int = i) -> float:
            a, b = r[i].flatten().double(), x.flatten().double()
            return float(a @ b / a.norm() / b.norm())

        for k in range(p.shape[0]):
            up = math.exp(sim(p[k, i]) / tau)
            down = up + sum(math.exp(sim(n[j, i]) / tau) for j in range(n.shape[0]))
            total -= math.log(up / down)
    return total / r.shape[0] / p.shape[0]


@pytest.mark.parametrize("positives", [1, 2])
def test_loss_equals_equation_nine(positives: int) -> None:
    r = torch.rand(3, 3, 6, 6, dtype=torch.double)
    p = torch.rand(positives, 3, 3, 6, 6, dtype=torch.double)
    n = torch.rand(4, 3, 3, 6, 6, dtype=torch.double)
    settings = ContrastiveSettings(temperature=0.2, positives=positives)
    ours = contrastive_loss(r, p, n, None, settings)
    assert float(ours) == pytest.approx(reference_loss(r, p, n, 0.2), abs=1e-12)


def test_equal_similarities_give_the_logarithm_of_the_number_of_terms() -> None:
    same = torch.full((1, 2), 1.0)
    for count in (1, 4, 8):
        loss = level_loss(same, torch.ones(count, 2), 0.05)
        assert float(loss) == pytest.approx(math.log(1 + count), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_is_finite_at_similarity_one_in_half_precision(dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 8, 8).to(dtype)
    stack = x[None].repeat(3, 1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = contrastive_loss(x, stack[:1], stack, None, ContrastiveSettings())
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(math.log(4), abs=1e-3)


def test_similarity_kinds() -> None:
    a = torch.rand(2, 3, 4, 4) + 5
    b = torch.rand(1, 2, 3, 4, 4) + 5
    flat, centred = (similarities(a, b, k) for k in ("flat", "centred"))  # type: ignore[arg-type]
    assert (flat > 0.99).all() and (centred.abs() < 0.9).all()
    pixelwise = similarities(a, b, "per_pixel")
    wanted = torch.nn.functional.cosine_similarity(a, b[0], dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(pixelwise[0], wanted)


def test_gradient_reaches_sr_at_every_level_and_nothing_else() -> None:
    features = FeatureNet(("relu1_1", "relu2_1"))
    others = torch.rand(2, 2, 3, 16, 16, requires_grad=True)
    settings = ContrastiveSettings()
    for image_space, levels in ((True, None), (False, features)):
        sr = torch.rand(2, 3, 16, 16, requires_grad=True)
        one = ContrastiveSettings(image_space=image_space)
        contrastive_loss(sr, others[:1], others, levels, one).backward()
        assert sr.grad is not None and sr.grad.abs().max() > 0
    assert others.grad is None
    assert all(p.grad is None for p in features.parameters())
    sr = torch.rand(2, 3, 16, 16)
    through = ContrastiveSettings(backprop_positive=True)
    contrastive_loss(sr, others[:1], others, None, through).backward()
    assert others.grad is not None and others.grad[0].any() and not others.grad[1].any()
    assert settings.weight == 0.01


def test_ablation_switches() -> None:
    sr, p, n = torch.rand(1, 3, 8, 8), torch.rand(1, 1, 3, 8, 8), torch.rand(4, 1, 3, 8, 8)
    features = FeatureNet(("relu1_1",))
    both = {"reversible": False, "irreversible": False}
    loss = contrastive_loss(sr, p, n, features, ContrastiveSettings(**both))
    assert float(loss) == pytest.approx(math.log(5), abs=1e-6)
    with pytest.raises(ModelError, match="level"):
        contrastive_loss(sr, p, n, None, ContrastiveSettings(image_space=False))


def build() -> tuple[torch.nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = create_model("mihatp", scale=2, preset="tiny", **SMALL).double()
    hr = torch.rand(2, 3, 16, 16, dtype=torch.double)
    return model, resize(hr, (8, 8)), hr


def test_one_branch_after_the_other_gives_the_gradients_of_both_at_once() -> None:
    model, lr, hr = build()
    settings = ContrastiveSettings(positives=2, temperature=0.2, weight=0.5)
    branch = ContrastiveBranch(model, settings).double()  # type: ignore[arg-type]
    losses = contrastive_step(model, branch, (lr, hr), draws(), None)  # type: ignore[arg-type]
    stepwise = [
        p.grad.clone() for m in (model, branch) for p in m.parameters() if p.grad is not None
    ]
    model.zero_grad()
    branch.zero_grad()
    con, made = torch.zeros((), dtype=torch.double), []
    for symmetry in draw_symmetries(draws(), 2):
        out = branch.own(symmetry.apply(lr))  # type: ignore[misc]
        con = con + torch.nn.functional.l1_loss(out, symmetry.apply(hr)) / 2
        made.append(symmetry.invert(out).detach())
    sr = model(lr)
    worse = negatives(hr, draws(), scale=2, count=4, lr=lr)
    term = contrastive_loss(sr, torch.stack(made), worse, None, settings)
    base = torch.nn.functional.l1_loss(sr, hr)
    (base + con + 0.5 * term).backward()
    joint = [p.grad for m in (model, branch) for p in m.parameters() if p.grad is not None]
    for a, b in zip(stepwise, joint, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(losses["base"], base.detach())
    torch.testing.assert_close(losses["con"], con.detach())
    torch.testing.assert_close(losses["contrastive"], term.detach())


def test_no_gradient_of_the_term_reaches_the_detached_branch() -> None:
    model, lr, hr = build()
    gradients = []
    for weight in (0.0, 5.0):
        settings = ContrastiveSettings(weight=weight)
        torch.manual_seed(4)
        branch = ContrastiveBranch(model, settings).double()  # type: ignore[arg-type]
        model.zero_grad()
        contrastive_step(model, branch, (lr, hr), draws(), None)  # type: ignore[arg-type]
        gradients.append([p.grad for p in branch.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_kinds_of_branch() -> None:
    model, lr, hr = build()
    separate = ContrastiveBranch(model, ContrastiveSettings())  # type: ignore[arg-type]
    count = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in separate.parameters()) == count
    shared = ContrastiveBranch(model, ContrastiveSettings(con="shared"))  # type: ignore[arg-type]
    assert shared.network(model) is model and not list(shared.parameters())  # type: ignore[arg-type]
    settings = ContrastiveSettings(con="ema", ema_decay=0.5)
    ema = ContrastiveBranch(model, settings)  # type: ignore[arg-type]
    losses = contrastive_step(model, ema, (lr, hr), draws(), None)  # type: ignore[arg-type]
    assert all(p.grad is None for p in ema.parameters()) and float(losses["con"]) == 0
    before = next(iter(ema.parameters())).clone()
    with torch.no_grad():
        next(iter(model.parameters())).add_(1.0)
    ema.follow(model)  # type: ignore[arg-type]
    torch.testing.assert_close(next(iter(ema.parameters())), before + 0.5)


def test_the_saved_model_is_the_base_branch_alone(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import load_file

    model, _, _ = build()
    ContrastiveBranch(model, ContrastiveSettings())  # type: ignore[arg-type]
    folder = save_model(model, tmp_path / "m")  # type: ignore[arg-type]
    stored = load_file(folder / "model.safetensors")
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in model.parameters())
