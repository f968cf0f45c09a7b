"""Small parts: padding, upsampling steps, cost, description, community weights."""

import sys
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsisr.errors import ModelError
from wsisr.models import create_model, load_model, save_model
from wsisr.models.community import load_community
from wsisr.models.cost import model_cost
from wsisr.models.describe import describe_model
from wsisr.models.layers.attention import MASKED, cut_windows, join_windows, shift_mask
from wsisr.models.layers.blocks import upsample_factors
from wsisr.models.wrapper import pad_to_multiple

torch.set_num_threads(1)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (5, 16), (2, 7)])
def test_padding_reflects_where_it_can_and_repeats_edges_elsewhere(size: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *size)
    padded = pad_to_multiple(x, 8)
    assert padded.shape[-2] % 8 == 0 and padded.shape[-1] % 8 == 0
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    wanted = x
    for axis, side in ((3, size[1]), (2, size[0])):
        extra = -side % 8
        pad = (0, extra, 0, 0) if axis == 3 else (0, 0, 0, extra)
        wanted = F.pad(wanted, pad, mode="reflect" if extra < side else "replicate")
    assert torch.equal(padded, wanted)


def test_upsampling_steps() -> None:
    assert [upsample_factors(s) for s in (2, 3, 4, 6, 8, 9, 12)] == [
        (2,),
        (3,),
        (2, 2),
        (2, 3),
        (2, 2, 2),
        (3, 3),
        (2, 2, 3),
    ]
    for scale in (1, 5, 7, 10):
        with pytest.raises(ModelError, match="products of 2 and 3"):
            upsample_factors(scale)


def test_windows_are_cut_and_joined() -> None:
    x = torch.randn(2, 8, 12, 3)
    windows = cut_windows(x, 4)
    assert torch.equal(windows[0, 1], x[0, :4, 4:8].reshape(16, 3))
    assert torch.equal(join_windows(windows, 4, 8, 12), x)


def test_shift_mask_separates_what_the_shift_brought_together() -> None:
    mask = shift_mask(8, 8, 4, torch.zeros(1))
    assert mask.shape == (4, 16, 16)
    assert not mask[0].any()
    rows, cols = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    origin = torch.stack((rows, cols), dim=-1).roll((-2, -2), (0, 1))
    place = cut_windows(origin[None].float(), 4)[0]
    # Pixels of one window belong together if their original places are near one another.
    near = (place[:, :, None] - place[:, None]).abs().amax(dim=-1) < 4
    assert torch.equal(mask == 0, near)
    assert mask.min() == MASKED


def test_cost_agrees_with_published_and_measured_numbers() -> None:
    cost = model_cost("swinir", scale=4, preset="paper", lr_px=48)
    assert cost.parameters == 11_900_199
    assert cost.gmac == pytest.approx(30.1, abs=0.05)
    assert cost.saved_mib == pytest.approx(834, abs=2)
    liif = model_cost("liif", preset="tiny", scale=2.0, lr_px=12)
    assert liif.gmac > 0 and liif.scale == 2.0
    with pytest.raises(ModelError, match="whole scales"):
        model_cost("edsr", scale=2.5)


def test_description_has_the_numbers_the_settings_and_the_notes() -> None:
    text = describe_model("iste", preset="tiny", lr_px=8, changes=["lfi=official"])
    assert "x 2^20" in text and "GMAC" in text and "lfi=official" in text
    assert "Scientific\nReports 2025" in text or "Reports 2025" in text
    with pytest.raises(ModelError, match="key=value"):
        describe_model("edsr", changes=["width"])


class _Known(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert min(x.shape[-2:]) >= 8
        assert x.shape[-1] % 4 == 0 and x.shape[-2] % 4 == 0
        return F.interpolate(x, scale_factor=2.0)


def test_community_weights_keep_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"pip install|no such"):
        load_community(tmp_path / "none.pth")

    found = types.SimpleNamespace(
        model=_Known(),
        scale=2,
        input_channels=3,
        output_channels=3,
        supports_bfloat16=False,
        size_requirements=types.SimpleNamespace(multiple_of=4, minimum=8),
        architecture=types.SimpleNamespace(name="Known"),
    )

    class Loader:
        def __init__(self, device: str) -> None:
            self.device = device

        def load_from_state_dict(self, state: dict[str, torch.Tensor]) -> object:
            if "weight" not in state:
                raise RuntimeError("unsupported")
            return found

    monkeypatch.setitem(sys.modules, "spandrel", types.SimpleNamespace(ModelLoader=Loader))
    torch.save({"params": {"weight": torch.zeros(1), "bias": torch.zeros(1)}}, tmp_path / "w.pth")
    model = load_community(tmp_path / "w.pth")
    assert model(torch.rand(1, 3, 5, 7)).shape == (1, 3, 10, 14)
    assert model.info.name == "community:Known" and model.info.dtypes == ("float32",)
    again = load_model(save_model(model, tmp_path / "saved"))
    assert again.info.name == model.info.name
    torch.save({"x.odd": torch.zeros(1), "x.b": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match="unsupported"):
        load_community(tmp_path / "odd.pth")
    found.input_channels = 1
    with pytest.raises(ModelError, match="RGB"):
        load_community(tmp_path / "w.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    for load, place in ((load_model, "saved"), (load_community, "w.pth")):
        with pytest.raises(ModelError, match=r"pip install 'wsisr\[spandrel\]'"):
            load(tmp_path / place)


def test_checkpointing_is_switched_in_every_block() -> None:
    model = create_model("mihatp", scale=2, preset="tiny").set_checkpointing()
    switches = [m for m in model.modules() if hasattr(m, "checkpointing")]
    assert switches and all(m.checkpointing for m in switches)
    model.set_checkpointing(False)
    assert not any(m.checkpointing for m in switches)
