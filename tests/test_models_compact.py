"""The network that ships: its anchor."""

import math
from pathlib import Path

import pytest
import torch

from wsisr.models import SRModel, create_model
from wsisr.models.compact import lowpass
from wsisr.models.weights import model_config, model_from


def shifted(grey: float, gate: float) -> SRModel:
    """A network that adds a shade to the enlargement everywhere, its gate open as far as told."""
    model = create_model("compact", scale=2, preset="tiny", anchored=True).eval()
    torch.nn.init.constant_(model.net.tail.bias, grey)
    torch.nn.init.zeros_(model.net.gate.weight)
    torch.nn.init.constant_(model.net.gate.bias, torch.logit(torch.tensor(gate)).item())
    return model


@pytest.mark.parametrize("gate", [0.0, 0.25, 1.0])
def test_what_the_reduced_output_lacks_of_its_input_is_added_as_far_as_the_gate_is_open(
    gate: float,
) -> None:
    lr = torch.full((1, 3, 9, 7), 0.5)
    assert torch.allclose(shifted(0.1, gate)(lr), torch.tensor(0.5 + 0.1 * (1 - gate)), atol=1e-6)


def test_detail_that_reducing_takes_away_stays() -> None:
    # Per 2 x 2 px, +0.2 in one and -0.2 in another: their mean is nothing.
    model = shifted(0.0, 1.0)
    detail = torch.tensor([0.2, -0.2, 0.0, 0.0]).repeat(3)
    model.net.tail.bias.data = detail
    sr = model(torch.full((1, 3, 8, 8), 0.5))
    assert torch.allclose(sr[..., ::2, ::2], torch.tensor(0.7), atol=1e-6)
    assert torch.allclose(sr[..., ::2, 1::2], torch.tensor(0.3), atol=1e-6)


def test_a_model_saved_before_there_was_an_anchor_has_none() -> None:
    plain = create_model("compact", scale=2, preset="tiny", anchored=False)
    config = model_config(plain)
    del config["settings"]["anchored"]
    assert model_from(config, plain.state_dict(), Path("config.json")).net.gate is None


def test_any_scale_is_the_network_at_x4_and_sampled_elsewhere() -> None:
    torch.manual_seed(0)
    sampled, fixed = (
        create_model("compact-any", preset="tiny"),
        create_model("compact", scale=4, preset="tiny"),
    )
    fixed.load_state_dict(sampled.state_dict())
    lr = torch.rand(2, 3, 12, 9)
    with torch.no_grad():
        assert torch.allclose(sampled(lr, scale=4), fixed(lr), atol=1e-5)
        assert sampled(lr, scale=2.5).shape == (2, 3, 30, 22)


def test_detail_finer_than_the_output_is_not_aliased_into_it() -> None:
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1.0
    kept, gone = (lowpass(stripes, torch.tensor([[1.0, step]])) for step in (1.0, 2.0))
    assert torch.allclose(kept, stripes, atol=1e-6)
    inner = gone[..., 8:-8]
    assert torch.allclose(inner.mean(), torch.tensor(0.5), atol=1e-3)
    # A Gaussian of variance 0.75 px^2 leaves 2 exp(-0.75 pi^2 / 2) of stripes at half the sampling
    # rate, where both of their images fall together.
    left = math.exp(-0.75 * math.pi**2 / 2)
    assert torch.allclose((inner - 0.5).abs(), torch.tensor(left), atol=1e-4)
