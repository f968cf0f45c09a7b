"""Weights of other programs: layouts that their own code writes, containers, and refusals."""

import pickle
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_weights import NAMES, official
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from wsisr.errors import ModelError
from wsisr.models import (
    SRModel,
    WeightsAnswers,
    create_model,
    import_weights,
    load_foreign,
    save_model,
    start_from,
)
from wsisr.models.importing import likely_span

torch.set_num_threads(1)
UNSAID = {"rdn-b-x2": 255, "rdn-a-x4": 1}


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def run(model: SRModel, lr: Tensor, scale: int) -> Tensor:
    model = model.double()
    with torch.no_grad():
        return model(lr) if model.info.kind == "fixed" else model(lr, scale=scale)


@pytest.mark.parametrize("name", NAMES)
def test_the_official_layout_gives_the_official_output(name: str, tmp_path: Path) -> None:
    given = official(name)
    done = import_weights(
        save(given.state, tmp_path / "w.pth"), WeightsAnswers(span=UNSAID.get(name))
    )
    assert done.model.info.scale in (None, given.scale)
    found = run(done.model, given.lr, given.scale)
    assert found.shape == given.output.shape
    assert (found - given.output).abs().max() < 1e-5, given.origin
    assert given.output.std() > 0.05
    # Every tensor of the file, and every one of the network.
    assert done.taken + done.dropped == len(given.state)
    assert done.taken == len(done.model.net.state_dict())


def test_every_listed_network_has_a_fixture_that_says_where_it_is_from() -> None:
    listed = ("edsr", "rdn", "rcan", "swinir", "hat", "realesrgan", "esrgan")
    assert all(any(name.startswith(word) for name in NAMES) for word in listed)
    for word in ("liif", "lte", "itsrn", "iste"):
        assert {f"{word}-{encoder}" for encoder in ("edsr", "rdn", "swinir")} <= set(NAMES)
    assert all(official(name).origin.count("/") >= 1 for name in NAMES)


@pytest.mark.parametrize(
    ("settings", "scale", "parameters", "tensors"),
    [
        ({"upsampler": "nearest"}, 4, 11_715_559, 498),
        ({"upsampler": "nearest"}, 2, 11_678_631, 496),
        (
            {"upsampler": "nearest", "group_conv": "3conv", "width": 240, "groups": 9, "heads": 8},
            4,
            28_013_059,
            778,
        ),
    ],
)
def test_real_world_swinir_has_the_released_size(
    settings: dict[str, Any], scale: int, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):
        model = create_model("swinir", scale=scale, preset="paper", **settings)
    assert (model.parameter_count, len(model.net.state_dict())) == (parameters, tensors)


@pytest.mark.parametrize(("scale", "parameters"), [(2, 16_703_171), (1, 16_723_907)])
def test_real_esrgan_of_x2_and_x1_has_the_released_size(scale: int, parameters: int) -> None:
    with torch.device("meta"):
        model = create_model("esrgan", scale=scale, preset="paper", unshuffle=True)
    assert model.parameter_count == parameters and len(model.net.state_dict()) == 702


def test_only_esrgan_restores_without_enlarging() -> None:
    for name, settings, words in (
        ("esrgan", {}, "unshuffle=true alone"),
        ("edsr", {}, "from 2 to"),
        ("esrgan", {"unshuffle": True}, "x1, x2 and x4"),
    ):
        with pytest.raises(ModelError, match=words):
            create_model(name, scale=8 if settings else 1, preset="tiny", **settings)


def net_and_state() -> tuple[SRModel, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = create_model("edsr", scale=2, preset="tiny", width=8, blocks=1)
    return model, model.net.state_dict()


def loaded(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        model = create_model("edsr", scale=2, preset="tiny", width=8, blocks=1)
    notes = load_foreign(model, path)
    return model.net.state_dict(), notes


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


_WRAP = {
    "bare": lambda s: s,
    "DDP": lambda s: prefixed(s, "module."),
    "compiled DDP": lambda s: prefixed(s, "_orig_mod.module."),
    "DDP of compiled": lambda s: prefixed(s, "module._orig_mod."),
    "params": lambda s: {"params": s, "iter": 5},
    "params-ema": lambda s: {"params-ema": s},
    "Lightning": lambda s: {
        "state_dict": prefixed(s, "model.") | {"loss.vgg.0.weight": torch.ones(3)},
        "hyper_parameters": Namespace(scale=4),
        "epoch": np.float64(3),
    },
    "Lightning of compiled": lambda s: {"state_dict": prefixed(s, "net_g._orig_mod.")},
    "GAN": lambda s: {"netG": s, "netD": {"conv0.weight": torch.ones(3)}},
    "G": lambda s: {"G": prefixed(s, "module.")},
    "LIIF": lambda s: {"model": {"name": "edsr", "args": {}, "sd": s}, "epoch": 7},
    "DeepSpeed": lambda s: {"module": s, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "in a list": lambda s: {"models": [s]},
    "own save": lambda s: prefixed(s, "net."),
}


@pytest.mark.parametrize("wrap", _WRAP)
def test_a_container_does_not_matter(wrap: str, tmp_path: Path) -> None:
    _, state = net_and_state()
    found, _ = loaded(save(_WRAP[wrap](dict(state)), tmp_path / "w.pth"))
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [
        ("params", "params_ema"),
        ("model", "ema"),
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("net_g", "net_g_ema"),
        ("G", "G_ema"),
        ("model", "ema_model.module"),
        ("model", "swa_model"),
    ],
)
def test_averaged_weights_are_preferred_and_that_is_said(
    plain: str, averaged: str, tmp_path: Path
) -> None:
    _, state = net_and_state()
    zero = {key: torch.zeros_like(value) for key, value in state.items()}
    outer, _, inner = averaged.partition(".")
    mean = {outer: {inner: dict(state)}} if inner else {outer: dict(state)}
    for content in ({plain: zero} | mean, mean | {plain: zero}):
        found, notes = loaded(save(content, tmp_path / "w.pth"))
        assert all(torch.equal(found[key], value) for key, value in state.items())
        assert averaged in notes[0] and "not the plain ones" in notes[0]


def test_an_averaged_model_says_over_how_many_steps(tmp_path: Path) -> None:
    model, state = net_and_state()
    mean = AveragedModel(model.net)
    mean.update_parameters(model.net)
    found, notes = loaded(save({"swa": mean.state_dict(), "net": state}, tmp_path / "w.pth"))
    assert "over 1 steps" in notes[0]
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_an_average_without_names_is_said(tmp_path: Path) -> None:
    _, state = net_and_state()
    content = {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    _, notes = loaded(save(content, tmp_path / "w.pth"))
    assert notes == ("not part of this network and left alone: optimizer (1) tensors",)
    content["ema"] = {"shadow_params": list(state.values())}
    _, notes = loaded(save(content, tmp_path / "w.pth"))
    assert any("the plain weights are taken" in note for note in notes)
    assert any("left alone" in note and "ema" in note for note in notes)


def test_of_two_networks_one_has_to_be_named(tmp_path: Path) -> None:
    given = official("edsr-pytorch-x2")
    other = {key: value * 2 if "body" in key else value for key, value in given.state.items()}
    path = save({"netG_A": given.state, "netG_B": other}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"netG_A and netG_B.*--part"):
        import_weights(path)
    done = import_weights(path, WeightsAnswers(part="netG_B"))
    assert done.part == "netG_B" and not any("average" in note for note in done.notes)
    assert torch.allclose(
        done.model.net.body[1].body[0].weight, other["body.1.body.0.weight"].float()
    )
    with pytest.raises(ModelError, match="no part 'netG_C'"):
        import_weights(path, WeightsAnswers(part="netG_C"))


def test_the_same_names_in_safetensors(tmp_path: Path) -> None:
    given = official("swinir-real-x4")
    save_file({k: v.contiguous() for k, v in given.state.items()}, tmp_path / "w.safetensors")
    assert import_weights(tmp_path / "w.safetensors").layout == "SwinIR"


def test_a_weights_file_of_ours_alone_is_what_its_header_says(tmp_path: Path) -> None:
    model, _ = net_and_state()
    folder = save_model(model, tmp_path / "m")
    alone = (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    lr = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        assert torch.equal(import_weights(alone).model(lr), model.eval()(lr))
    with pytest.raises(ModelError, match="is edsr, x2; leave --model and --scale out"):
        import_weights(alone, WeightsAnswers(scale=4))
    data = bytearray(alone.read_bytes())
    data[-1001] ^= 64
    alone.write_bytes(data)
    with pytest.raises(ModelError, match="do not match the digest"):
        import_weights(alone)


def test_own_names_need_the_network_to_be_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("srcnn", scale=3, preset="tiny")
    path = save({"state_dict": prefixed(model.state_dict(), "model.")}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="--model and --scale"):
        import_weights(path)
    ours = WeightsAnswers(model="srcnn", scale=3, preset="tiny")
    done = import_weights(path, ours)
    assert done.part == "state_dict.model.net"
    with pytest.raises(ModelError, match="of another shape"):
        import_weights(path, replace(ours, changes=("width2=9",)))
    with pytest.raises(ModelError, match="no preset 'small'"):
        import_weights(path, replace(ours, preset="small"))
    # Its preset hangs on the scale.
    with pytest.raises(ModelError, match="built for one scale"):
        import_weights(path, WeightsAnswers(model="mihatp"))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("edsr-pytorch-x2", {"extra.weight": torch.ones(2)}, r"1 left over \(net.extra.weight"),
        ("edsr-pytorch-x2", {"tail.1.bias": None}, r"1 missing \(net.tail.1.bias"),
        ("edsr-pytorch-x2", {"head.0.weight": torch.ones(8, 1, 3, 3)}, "takes 1 channels"),
        ("edsr-pytorch-x2", {"tail.0.0.weight": torch.ones(40, 8, 3, 3)}, "40 rows"),
        ("edsr-pytorch-x2", {"sub_mean.weight": torch.ones(3, 3, 1, 1)}, "no shift by one mean"),
        ("edsr-pytorch-x2", {"body.2.bias": torch.full((8,), float("inf"))}, "body.2.bias holds"),
        ("hat-x2", {"absolute_pos_embed": torch.ones(1, 4, 12)}, "left over"),
        ("swinir-real-x4", {"conv_last.bias": torch.full((3,), float("nan"))}, "conv_last.bias"),
        ("realesrgan-x2", {"conv_first.weight": torch.ones(8, 27, 3, 3)}, "takes 27 channels"),
        ("liif-edsr", {"encoder.head.0.weight": torch.ones(48, 3, 3, 3)}, "48 channels"),
        ("liif-edsr", {"imnet.layers.0.weight": torch.ones(24, 34)}, "of another shape"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(
    name: str, change: dict[str, Tensor | None], words: str, tmp_path: Path
) -> None:
    state = {**official(name).state, **change}
    path = save({k: v for k, v in state.items() if v is not None}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=words) as caught:
        import_weights(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_encoder_of_more_groups_is_known_by_its_blocks(tmp_path: Path) -> None:
    model = create_model("lte", preset="tiny", encoder="swinir", encoder_groups=3)
    done = import_weights(save({"params": model.net.state_dict()}, tmp_path / "w.pth"))
    assert done.model.settings.encoder_groups == 3
    assert done.model.settings.encoder_size == "tiny"


def test_what_enlarges_nothing_is_refused_by_name(tmp_path: Path) -> None:
    state = official("swinir-light-x2").state
    denoising = {k: v for k, v in state.items() if not k.startswith("upsample")}
    with pytest.raises(ModelError, match="denoising or JPEG"):
        import_weights(save(denoising, tmp_path / "w.pth"))


def test_layers_of_esrgan_plus_are_not_dropped(tmp_path: Path) -> None:
    state = official("realesrgan-x4").state
    more = {"body.0.rdb1.conv1x1.weight": torch.ones(4, 8, 1, 1)}
    with pytest.raises(ModelError, match="names of no network"):
        import_weights(save(state | more, tmp_path / "w.pth"))


def test_what_is_said_about_a_file_is_checked(tmp_path: Path) -> None:
    path = save(official("edsr-pytorch-x2").state, tmp_path / "w.pth")
    for options, words in (
        ({"model": "swinir"}, "which is edsr and not swinir"),
        ({"scale": 4}, "enlarges by 2, not by 4"),
        ({"span": 1}, "says its range itself"),
        ({"changes": ("wings=2",)}, "no setting 'wings'"),
    ):
        with pytest.raises(ModelError, match=words):
            import_weights(path, WeightsAnswers(**options))
    done = import_weights(path, WeightsAnswers(changes=("res_scale=0.5",)))
    assert done.model.settings.res_scale == 0.5
    with pytest.raises(ModelError, match="leave --scale out"):
        import_weights(
            save(official("lte-edsr").state, tmp_path / "l.pth"), WeightsAnswers(scale=2)
        )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.pth", b"<html>404</html>", "no plain file of weights"),
        ("empty.pth", b"", "no plain file of weights"),
        ("text.safetensors", b"version https://git-lfs", "cannot be read as safetensors"),
        ("numbers.pth", {"epoch": 3}, "no tensors by name"),
        ("one.pth", torch.ones(3), "names of no network"),
    ],
)
def test_what_is_no_file_of_weights_is_said(
    name: str, content: Any, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match=words):
        import_weights(path)
    with pytest.raises(ModelError, match="no such weights file"):
        import_weights(tmp_path / "none.pth")
    with pytest.raises(ModelError, match="is a folder"):
        import_weights(tmp_path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (mark,))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    torch.save({"a": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(ModelError, match="never code"):
            import_weights(tmp_path / name)
    assert not mark.exists()


def test_a_range_that_nothing_shows_is_asked_for(tmp_path: Path) -> None:
    path = save(official("rdn-b-x2").state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"--range 1 or --range 255"):
        import_weights(path)


def test_a_network_that_enlarges_shows_its_range() -> None:
    """An RDN that gives back the nearest pixel for inputs near its range, and its bias beyond."""
    model = create_model("rdn", scale=2, preset="tiny", width=8, blocks=1, layers=1, growth=4)
    state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    for c in range(3):
        state["net.SFENet1.weight"][c, c, 1, 1] = 1
        state["net.UPNet.0.weight"][4 * c : 4 * c + 4, c, 1, 1] = 1
        state["net.UPNet.2.weight"][c, c, 1, 1] = 1
    state["net.UPNet.2.bias"] += 0.2
    state["net.SFENet1.bias"] -= 0.2
    state["net.SFENet1.bias"][3:] = 0
    ruined = {key: value.clone() for key, value in state.items()}
    ruined["net.UPNet.2.bias"] += 0.5
    assert likely_span(model, {1: state, 255: ruined}) == 1
    assert likely_span(model, {1: ruined, 255: state}) == 255
    assert likely_span(model, {1: state, 255: state}) is None


def test_a_start_names_what_found_no_place(tmp_path: Path) -> None:
    _, state = net_and_state()
    more = {"conv_up1.weight": torch.ones(2), "conv_hr.bias": torch.ones(2)}
    path = save({"params": {**state, **more}}, tmp_path / "w.pth")
    model = create_model("edsr", scale=3, preset="tiny", width=8, blocks=1)
    done = start_from(model, path)
    assert done.left_over == (
        "net.conv_hr.bias",
        "net.conv_up1.weight",
        "net.tail.0.0.bias",
        "net.tail.0.0.weight",
    )
    assert "4 of the file found no place (conv_hr.bias, conv_up1.weight" in done.sentence()
    bad = {key: value * float("nan") for key, value in state.items()}
    with pytest.raises(ModelError, match="no numbers"):
        start_from(model, save(bad, tmp_path / "bad.pth"))


def test_a_start_from_another_layout_maps_and_folds(tmp_path: Path) -> None:
    given = official("basicsr-edsr-x2")
    model = create_model("edsr", scale=4, preset="tiny", width=8, blocks=2)
    done = start_from(model, save({"params": given.state}, tmp_path / "w.pth"))
    assert done.fresh == ("net.tail.0.2.bias", "net.tail.0.2.weight") and not done.left_over
    assert "rgb_mean is (0.4488, 0.4371, 0.404) in the file and (0.8, 0.65" in done.sentence()
    wanted = given.state["conv_first.weight"] * 255
    assert torch.allclose(model.net.head[0].weight.double(), wanted, atol=1e-4)
