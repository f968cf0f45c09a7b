"""A network on a device: precision, symmetries, memory, and the way from disk."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slides_samples import picture
from upscaling_samples import render_all

from wsisr import device as devices
from wsisr.errors import ConfigError, ModelError
from wsisr.inference import load, load_network, open_trained, super_resolve
from wsisr.inference import trained as disk
from wsisr.inference.blocks import Renderer
from wsisr.inference.engine import Capacity
from wsisr.inference.network import Network
from wsisr.inference.tiles import WHOLE, Tiling, plan_frame, plan_tiles
from wsisr.models import create_model, list_models, model_spec, save_model
from wsisr.models.weights import CONFIG_NAME, WEIGHTS_NAME

CPU = torch.device("cpu")
DOCUMENT = {
    "format": "wsisr-run",
    "format_version": 1,
    "model": "srcnn",
    "preset": "tiny",
    "kind": "fixed",
    "scale": 2,
    "scale_range": [2, 2],
    "seed": 0,
    "state": "finished",
    "step": 1,
    "steps": 1,
    "lr_origin": "simulated:bicubic",
    "degradation": "bicubic",
    "store": {},
    "patients": [],
    "groups": [],
    "arrays": {"hr": "40x", "lr": "20x"},
    "config": {"data": {"crop_lr_px": 16}},
}


def _saved(folder: Path, name: str = "srcnn", scale: int | None = 2) -> Path:
    model = create_model(name, scale=scale, preset="tiny")
    extra = {
        "lr_origin": "simulated:bicubic",
        "degradation": "bicubic",
        "scale_range": [2, 2] if scale else [1, 4],
    }
    return save_model(model, folder, extra=extra)


def test_a_saved_model_brings_its_provenance(tmp_path: Path) -> None:
    found = open_trained(_saved(tmp_path / "m"))
    assert (found.model, found.scale, found.preset, found.kind) == ("srcnn", 2, "tiny", "fixed")
    assert (found.degradation, len(found.weights_sha256)) == ("bicubic", 64)
    assert found.patients is None and found.recipe == found.weights_sha256
    weights = open_trained(tmp_path / "m" / "model.safetensors")
    assert weights.weights_sha256 == found.weights_sha256
    assert (disk.WEIGHTS_NAME, disk.CONFIG_NAME) == (WEIGHTS_NAME, CONFIG_NAME)


def test_a_run_is_taken_by_its_best_weights(tmp_path: Path) -> None:
    _saved(tmp_path / "run" / "best")
    (tmp_path / "run" / "run.json").write_text(json.dumps(DOCUMENT))
    run = open_trained("run", tmp_path)
    assert (run.lr_origin, run.hr_magnification, run.crop_px) == ("simulated:bicubic", 40.0, 16)
    best = open_trained(tmp_path / "run" / "best")
    assert (best.name, best.weights, best.patients) == ("run/best", run.weights, frozenset())
    assert load(tmp_path / "run").pooling == ""


def test_what_is_not_there_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such run or model folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="--precision"):
        load("bicubic", precision="float8")
    ranges = (3, [1, math.inf], [math.nan, 2], [0, 2], [4, 2], [1e400, 1e400], ["x", 2])
    wrong = [{"scale_range": value} for value in ranges] + [{"scale": math.inf}, {"scale": [4]}]
    for change in wrong:
        (tmp_path / "run.json").write_text(json.dumps(DOCUMENT | change))
        with pytest.raises(ConfigError, match=r"run\.json is damaged .* copy it again"):
            open_trained(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps([DOCUMENT]))
    with pytest.raises(ConfigError, match="is no training run: it holds no JSON object"):
        open_trained(tmp_path)


def test_pools_take_the_training_size_where_a_run_records_it(tmp_path: Path) -> None:
    _saved(tmp_path / "run" / "last", "rcan")
    (tmp_path / "run" / "run.json").write_text(json.dumps(DOCUMENT | {"model": "rcan"}))
    run = load(tmp_path / "run")
    assert run.pooling == "local, 16 px (the size of its training crops)"
    assert (run.needs.halo_px, run.needs.tile_px) == (32, 192)
    alone = load(_saved(tmp_path / "alone", "rcan"))
    assert alone.pooling == "local, 192 px (the size of its recommended tile)"
    # A large window needs more context than the network's own 32 px, and a core to match.
    assert (alone.needs.halo_px, alone.needs.tile_px) == (112, 448)
    tile = load(tmp_path / "run", pool="tile")
    assert (tile.pooling, tile.needs.halo_px) == ("over each tile", 32)
    whole = load_network(open_trained(tmp_path / "run"), whole=True)
    assert whole.pooling == "over each tile"
    # Where attention sees the whole tile all the same, tiles stay near the training size.
    mihatp = load(_saved(tmp_path / "mihatp", "mihatp"))
    assert mihatp.pooling.startswith("local") and mihatp.needs.halo_px == 32
    with pytest.raises(ConfigError, match="local or tile"):
        load("bicubic", pool="everything")


def _network(name: str, scale: int | None, **more: Any) -> Network:
    torch.manual_seed(3)
    return Network(create_model(name, scale=scale, preset="tiny").eval(), CPU, **more)


@pytest.mark.parametrize(("name", "scale"), [("srcnn", 2), ("liif", None)])
def test_symmetries_are_the_mean_over_eight(name: str, scale: int | None) -> None:
    image = picture(14, 10)
    total = np.zeros((20, 28, 3))
    plain = _network(name, scale)
    for turn in range(4):
        for mirror in (False, True):
            turned = np.rot90(image, turn)
            turned = np.ascontiguousarray(turned[:, ::-1] if mirror else turned)
            made = super_resolve(plain, turned, 2.0, WHOLE)
            made = made[:, ::-1] if mirror else made
            total += np.rot90(made, -turn)
    found = super_resolve(_network(name, scale, symmetries="mean"), image, 2.0, WHOLE)
    # The mean is taken before values are clipped to what can be shown.
    inside = (found > 0.5) & (found < 254.5)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside], (total / 8)[inside], atol=0.5)
    mirrored = super_resolve(
        _network(name, scale, symmetries="mean"), image[:, ::-1].copy(), 2.0, WHOLE
    )
    np.testing.assert_allclose(mirrored[:, ::-1], found, atol=2e-3)


def test_whole_images_go_through_the_model_s_own_forward() -> None:
    for name, scale in (("iste", None), ("masrnet", 2)):
        network = _network(name, scale, whole=True)
        image = picture(36, 30)
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            out = network.model(x) if scale else network.model(x, size=(60, 72))
        expected = (out.clamp(0, 1) * 255)[0].permute(1, 2, 0).numpy()
        found = super_resolve(network, image, 2.0, WHOLE)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_reference_is_cut_with_its_windows() -> None:
    network = _network("cwtnet", 4)
    lr, finer = picture(24, 20), picture(48, 40, seed=1)
    plan = Tiling(core_px=48, blend_px=0, halo_px=4, multiple_px=1)
    found = super_resolve(network, lr, 4.0, plan, finer=finer)
    x, ref = (torch.from_numpy(i).permute(2, 0, 1)[None].float() / 255 for i in (lr, finer))
    with torch.inference_mode():  # the core at 48, 48: LR 8 to 24, its reference 16 to 48
        out = network.model(x[..., 8:20, 8:24], reference=ref[..., 16:40, 16:48])
    expected = (out.clamp(0, 1) * 255)[0, :, 16:, 16:].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[48:, 48:], expected[:32, :48], atol=1e-3)
    plain = super_resolve(network, lr, 4.0, plan)
    assert np.abs(plain - found).max() > 1e-3


def test_a_network_is_given_back_as_it_was() -> None:
    torch.manual_seed(0)
    model = create_model("rcan", scale=2, preset="tiny").eval()
    x = torch.rand(1, 3, 20, 20)
    with torch.inference_mode():
        before = model(x)
        network = Network(model, CPU, pool_px=8)
        pooled = model(x)
        network.close()
        assert not torch.equal(pooled, before) and torch.equal(model(x), before)


def test_on_a_gpu_the_window_itself_tells_how_much_memory_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = _network("srcnn", 2)
    sides: list[int] = []

    def peak(place: Any, run: Any) -> int:
        run()
        return 4096 * 72**2

    monkeypatch.setattr(devices, "peak_bytes", peak)
    monkeypatch.setattr(devices, "free_bytes", lambda place: 2 << 30)
    monkeypatch.setattr(network, "_on_gpu", True)
    monkeypatch.setattr(network, "_probe", lambda scale, side: sides.append(side))
    plan = Tiling(core_px=120, blend_px=0, halo_px=6, multiple_px=1)
    # Half of what is free, in windows of core and halo.
    expected = (1 << 30) // round(1.25 * 4096 * 72**2)
    assert network.capacity(plan, 2.0, 900) == Capacity(batch=expected) and sides == [72]


def test_a_window_that_does_not_fit_is_cut_and_the_result_is_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = _network("edsr", 2)
    plan = plan_tiles(network.needs, 2.0)
    assert network.capacity(plan, 2.0, 64) == Capacity()  # small images need no probe
    monkeypatch.setattr(devices, "free_bytes", lambda place: 1 << 40)
    assert network.capacity(plan, 2.0, 5000) == Capacity()
    monkeypatch.setattr(devices, "free_bytes", lambda place: 8 << 20)
    small = network.capacity(plan, 2.0, 5000)
    assert small.shrunk and small.largest_px is not None and small.largest_px < plan.core_px

    def full(*arguments: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(network, "_probe", full)
    assert network.capacity(plan, 2.0, 5000).largest_px == plan.core_px // 2
    monkeypatch.setattr(network, "_probe", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network.capacity(plan, 2.0, 5000)


def test_float32_is_not_rounded_to_tf32_and_the_switch_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    convolution: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolution.fp32_precision
    monkeypatch.setattr(devices, "on_gpu", lambda place: True)
    try:
        convolution.fp32_precision = "tf32"
        with devices.exact_float32("cpu"):
            assert convolution.fp32_precision == "ieee"
        assert convolution.fp32_precision == "tf32"
    finally:
        convolution.fp32_precision = before


@pytest.mark.parametrize("name", sorted(set(list_models()) - {"bicubic"}))
def test_bfloat16_as_on_a_gpu_is_near_float32_for_every_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = model_spec(name)
    scale = 2 if spec.kind == "fixed" else None
    frame = plan_frame(16, 12, 2.0)
    found = []
    for precision in ("float32", "bfloat16"):
        network = _network(name, scale, pool_px=8)
        network.precision = precision
        monkeypatch.setattr(network, "_on_gpu", precision != "float32")  # channels last
        renderer = Renderer(engine=network, frame=frame, plan=plan_tiles(network.needs, 2.0, 16))
        found.append(render_all(renderer, picture(16, 12), 64).astype(float))
    assert np.abs(found[0] - found[1]).mean() < 0.02 * max(25.0, found[0].std())


def test_a_model_of_another_size_is_an_error_not_a_resized_number() -> None:
    network = _network("srcnn", 2)
    network.model.register_forward_hook(lambda net, given, out: out[..., :-1, :])
    with pytest.raises(ModelError, match=r"gave .* px for .* px at x2"):
        super_resolve(network, picture(10, 10), 2.0, WHOLE)
