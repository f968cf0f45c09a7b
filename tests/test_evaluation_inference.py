"""SR of batches: tiles, symmetries, sizes."""

import pytest
import torch

from wsisr.errors import ModelError
from wsisr.evaluation.inference import (
    Span,
    needs_tiles,
    plan_tiles,
    super_resolve,
    tile_axis,
)
from wsisr.models import create_model


def _lr(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)


def test_windows_have_one_size_and_cover_the_axis_once() -> None:
    side, spans = tile_axis(50, 20, 4)
    assert side == 28
    assert spans == (
        Span(window=0, start=0, stop=20),
        Span(window=16, start=20, stop=40),
        Span(window=22, start=40, stop=50),
    )
    assert tile_axis(10, 20, 4) == (10, (Span(window=0, start=0, stop=10),))


@pytest.mark.parametrize("size", [(40, 52), (47, 33)])
def test_tiles_with_an_exact_halo_change_nothing(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("edsr", preset="tiny", scale=2).eval()
    assert model.info.halo_exact
    lr, out = _lr(*size), (2 * size[0], 2 * size[1])
    whole = super_resolve(model, lr, out, tile="off")
    assert (super_resolve(model, lr, out, tile="16") - whole).abs().max() < 1e-6


def test_tiles_of_a_real_scale_fall_on_the_image_s_own_pixels() -> None:
    torch.manual_seed(0)
    model = create_model("liif", preset="tiny").eval()
    lr = _lr(60, 60)
    whole = super_resolve(model, lr, (144, 144), tile="off")  # x2.4 = 12 / 5: steps of 5 LR px
    tiled = super_resolve(model, lr, (144, 144), tile="20")
    # The encoder's halo is long enough for all but rounding where windows end inside the image.
    assert (tiled - whole).abs().max() < 2e-3
    shifted = (whole[..., 1:, :] - whole[..., :-1, :]).abs().max()
    assert shifted > 20 * (tiled - whole).abs().max()


def test_a_ratio_without_a_common_grid_is_not_cut() -> None:
    model = create_model("liif", preset="tiny").eval()
    lr = _lr(29, 29)
    whole = super_resolve(model, lr, (96, 96), tile="off")
    assert torch.equal(super_resolve(model, lr, (96, 96), tile="8"), whole)


def test_networks_with_global_context_get_windows_of_their_training_size() -> None:
    model = create_model("mihatp", preset="tiny", scale=4)
    plan = plan_tiles(model, "auto")
    assert (plan.core_px, plan.halo_px) == (32, 8)  # windows of 48 px, as in training
    assert not needs_tiles(model, plan, 48, "auto") and needs_tiles(model, plan, 49, "auto")
    plain = create_model("edsr", preset="tiny", scale=4)
    assert not needs_tiles(plain, plan_tiles(plain, "auto"), 512, "auto")
    assert plan_tiles(model, "off").core_px == 0


def test_self_ensemble_is_the_mean_over_eight_symmetries() -> None:
    torch.manual_seed(0)
    model = create_model("srcnn", preset="tiny", scale=2).eval()
    lr, out = _lr(10, 14), (20, 28)
    total = torch.zeros(1, 3, *out)
    for turn in range(4):
        for mirror in (False, True):
            x = torch.rot90(lr.float() / 255, turn, (-2, -1))
            x = x.flip(-1) if mirror else x
            with torch.no_grad():
                y = model(x)
            y = y.flip(-1) if mirror else y
            total += torch.rot90(y, -turn, (-2, -1))
    ensemble = super_resolve(model, lr, out, self_ensemble=True)
    assert torch.allclose(ensemble, (total / 8).clamp(0, 1), atol=1e-6)
    turned = super_resolve(model, lr.flip(-1), out, self_ensemble=True)
    assert torch.allclose(turned.flip(-1), ensemble, atol=1e-6)


def test_a_wrong_size_is_an_error_not_a_resized_number() -> None:
    model = create_model("srcnn", preset="tiny", scale=2).eval()
    with pytest.raises(ModelError, match="its own scale alone"):
        super_resolve(model, _lr(10, 10), (40, 40))


def test_bfloat16_is_near_and_unsupported_types_stay_float32() -> None:
    torch.manual_seed(0)
    model = create_model("edsr", preset="tiny", scale=2).eval()
    lr = _lr(16, 16)
    exact = super_resolve(model, lr, (32, 32))
    assert (super_resolve(model, lr, (32, 32), precision="bfloat16") - exact).abs().max() < 0.05
    if "float16" not in model.info.dtypes:
        assert torch.equal(super_resolve(model, lr, (32, 32), precision="float16"), exact)


def test_a_reference_is_cut_with_its_tiles() -> None:
    torch.manual_seed(0)
    model = create_model("cwtnet", preset="tiny", scale=4).eval()
    lr, finer = _lr(20, 20), _lr(40, 40, seed=1)
    whole = super_resolve(model, lr, (80, 80), tile="off", reference=finer)
    tiled = super_resolve(model, lr, (80, 80), tile="12", reference=finer)
    assert tiled.shape == whole.shape and not torch.equal(tiled, super_resolve(model, lr, (80, 80)))
