"""Local pooling is global pooling where its window covers the input, and the same for tiles."""

import pytest
import torch

from wsisr.errors import ModelError
from wsisr.inference.local_pool import box_mean, only_pools_globally, set_local_pooling
from wsisr.models import create_model

POOLING = [
    ("rcan", 2),
    ("masrnet", 2),
    ("masrgan", 3),
    ("dcanet", 2),
    ("swdnet", 2),
    ("hat", 2),
    ("mihatp", 2),
    ("cwtnet", 2),
]


def _model(name: str, scale: int) -> torch.nn.Module:
    torch.manual_seed(5)
    # HAT weighs its pooled branch by 0.01, which would hide it.
    settings = {"alpha": 1.0} if name in ("hat", "mihatp") else {}
    model = create_model(name, scale=scale, preset="tiny", **settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Away from symmetric starts (zero biases, zeroed last layers): every gate matters.
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("sides", [(9, 7), (4, 30), (12, 12)])
@pytest.mark.parametrize("window", [1, 4, 5, 12])
def test_box_means_are_plain_means_of_windows_moved_inside(
    sides: tuple[int, int], window: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    found = box_mean(x, window).expand_as(x)
    for i in range(sides[0]):
        for j in range(sides[1]):
            spans = []
            for at, side in ((i, sides[0]), (j, sides[1])):
                first = max(0, min(at - window // 2, side - window))
                spans.append(slice(first, first + window))
            expected = x[:, :, spans[0], spans[1]].mean(dim=(-2, -1))
            torch.testing.assert_close(found[:, :, i, j], expected)


def test_sums_are_not_made_in_bfloat16() -> None:
    x = torch.full((1, 1, 300, 300), 1.0, dtype=torch.bfloat16)
    assert box_mean(x, 31).dtype == torch.bfloat16
    assert (box_mean(x, 31) == 1.0).all()


@pytest.mark.parametrize(("name", "scale"), POOLING)
@torch.inference_mode()
def test_a_window_that_covers_the_input_changes_nothing_and_a_smaller_one_does(
    name: str, scale: int
) -> None:
    model = _model(name, scale)
    keys = list(model.state_dict())
    x = torch.rand(2, 3, 24, 32) * torch.linspace(0, 1, 32)
    whole = model(x)
    assert set_local_pooling(model, 64) > 0
    torch.testing.assert_close(model(x), whole, atol=1e-6, rtol=1e-6)
    set_local_pooling(model, 8)
    assert (model(x) - whole).abs().max() > 1e-5
    assert list(model.state_dict()) == keys
    set_local_pooling(model, None)
    assert torch.equal(model(x), whole)


@pytest.mark.parametrize(
    ("name", "scale"), [m for m in POOLING if m[0] not in ("mihatp", "cwtnet")]
)
@torch.inference_mode()
def test_pixels_far_away_do_not_matter(name: str, scale: int) -> None:
    model = _model(name, scale)
    x = torch.rand(1, 3, 16, 320)
    other = x.clone()
    other[..., 160:] = 0.2 * torch.rand(1, 3, 16, 160)
    near = slice(0, 16 * scale)
    changed = (model(x) - model(other))[..., near].abs().max()
    set_local_pooling(model, 8)
    assert only_pools_globally(model)
    local = (model(x) - model(other))[..., near].abs().max()
    assert changed > 1e-5 and local < 1e-3 * changed


def test_networks_without_pooling_have_nothing_to_switch() -> None:
    for name, scale in (("edsr", 2), ("swinir", 2), ("li2021", 2), ("iste", None)):
        model = create_model(name, scale=scale, preset="tiny")
        assert set_local_pooling(model, 16) == 0 and not only_pools_globally(model)
    for name in ("mihatp", "cwtnet"):
        assert not only_pools_globally(_model(name, 2))
    spatial = create_model("masrnet", scale=2, preset="tiny", attention="spatial")
    assert set_local_pooling(spatial, 16) == 0


def test_a_window_without_pixels_is_refused() -> None:
    with pytest.raises(ModelError, match="at least 1"):
        set_local_pooling(create_model("rcan", scale=2, preset="tiny"), 0)
