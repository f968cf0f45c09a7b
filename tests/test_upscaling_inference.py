"""Tiled is untiled, borders do not show, and a failed run of the network leaves no pixel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from slides_samples import picture
from upscaling_samples import MoodyEngine, render_all

from wsisr.errors import ConfigError, ModelError
from wsisr.geometry import Box
from wsisr.models import create_model, list_models, model_spec
from wsisr.upscaling.engines import BicubicEngine, TorchEngine
from wsisr.upscaling.inference import Renderer
from wsisr.upscaling.memory import plan_tiles
from wsisr.upscaling.tiling import Frame, TilePlan, Window, plan_frame


def _renderer(engine: Any, frame: Frame, tile: int | None = None, **more: Any) -> Renderer:
    found = plan_tiles(engine, frame, tile, on_gpu=False)
    return Renderer(engine=engine, frame=frame, plan=found.plan, **more)


def _engine(name: str, scale: int | None) -> tuple[TorchEngine, Any]:
    torch.manual_seed(3)
    model = create_model(name, scale=scale, preset="tiny").eval()
    return TorchEngine(model, torch.device("cpu")), model


@pytest.mark.parametrize(
    ("name", "scale", "tile"),
    [("edsr", 3.0, 24), ("srcnn", 2.0, 16), ("liif", 2.4, 24), ("swinir", 2.0, 32)],
)
def test_tiles_equal_the_whole(name: str, scale: float, tile: int) -> None:
    image = picture(72, 52)
    fixed = name in ("edsr", "srcnn", "swinir")
    engine, model = _engine(name, int(scale) if fixed else None)
    frame = plan_frame(72, 52, scale)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    size = (frame.height_px, frame.width_px)
    with torch.inference_mode():
        whole = model(x) if fixed else model(x, size=size)
    expected = (whole.clamp(0, 1) * 255)[0].permute(1, 2, 0).numpy()
    tiled = render_all(_renderer(engine, frame, tile, batch=3), image, block_px=64)
    # Half a grey level of rounding, and 1e-2 for what swinir's windows see beyond the halo.
    assert np.abs(tiled - expected).max() < 0.5 + (0.01 if name == "swinir" else 0.005)


@pytest.mark.parametrize("name", ["rcan", "masrnet"])
def test_with_local_pooling_tiles_equal_the_whole(name: str) -> None:
    image = picture(120, 48)
    image[:, :60] //= 3  # tiles of their own means
    frame = plan_frame(120, 48, 2.0)
    away = []
    for pool_px in (8, None):
        torch.manual_seed(3)
        model = create_model(name, scale=2, preset="tiny").eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            # Into [0, 1], where no difference is clipped away.
            last = [p for p in model.parameters() if p.ndim == 4][-1]
            last.mul_(0.05)
        engine = TorchEngine(model, torch.device("cpu"), pool_px=pool_px)
        whole = render_all(_renderer(engine, frame, 240), image, block_px=512)
        plan = plan_tiles(engine, frame, 32, on_gpu=False).plan
        found = render_all(Renderer(engine=engine, frame=frame, plan=plan), image, block_px=128)
        away.append(np.abs(found.astype(int) - whole).max())
    assert away[0] <= 1 and away[1] > 3


def test_texture_retrieval_runs_per_window_at_any_scale() -> None:
    engine, _ = _engine("iste", None)
    image = picture(40, 30)
    frame = plan_frame(40, 30, 2.37)
    out = render_all(_renderer(engine, frame), image, block_px=128)
    assert out.shape == (71, 95, 3) and out.std() > 0


def test_blending_does_not_depend_on_blocks() -> None:
    image = picture(160, 128)
    frame = plan_frame(160, 128, 2.0)
    plan = TilePlan(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    pictures = [
        render_all(Renderer(engine=MoodyEngine(), frame=frame, plan=plan), image, side)
        for side in (64, 128, 1024)
    ]
    # Sums handed on are kept in 1/256 grey level, so that a tie may round the other way.
    for other in pictures[1:]:
        assert np.abs(pictures[0].astype(int) - other).max() <= 1
        assert (pictures[0] != other).mean() < 0.01
    hard = TilePlan(core_px=64, blend_px=0, halo_px=8, multiple_px=4)
    sharp = render_all(Renderer(engine=MoodyEngine(), frame=frame, plan=hard), image, 64)
    step = [np.abs(np.diff(p.astype(float), axis=1))[:, 63].mean() for p in (pictures[0], sharp)]
    assert step[0] < 0.6 * step[1]


def test_the_next_row_may_be_inferred_while_one_is_blended() -> None:
    image = picture(160, 128)
    frame = plan_frame(160, 128, 2.0)
    plan = TilePlan(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    found = [
        render_all(Renderer(engine=MoodyEngine(), frame=frame, plan=plan, ahead=ahead), image, 256)
        for ahead in (False, True)
    ]
    np.testing.assert_array_equal(*found)


def test_the_difference_of_overlapping_tiles_is_measured() -> None:
    image = picture(96, 96)
    frame = plan_frame(96, 96, 2.0)
    plan = TilePlan(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    block, box = Box(x=0, y=0, width=192, height=192), Box(x=0, y=0, width=96, height=96)
    found = [
        Renderer(engine=engine, frame=frame, plan=plan).render(block, image, box, lambda core: True)
        for engine in (MoodyEngine(), _engine("srcnn", 2)[0])
    ]
    # Offsets of 41 levels by place: their differences at the 12 borders, clipping aside.
    moods = np.array([[(x * 7 + y * 13) % 41 for x in (0, 64, 128)] for y in (0, 64, 128)])
    steps = np.concatenate([np.diff(moods, axis=0).ravel(), np.diff(moods, axis=1).ravel()])
    squares, count = found[0].overlap
    assert squares / count == pytest.approx(np.square(steps).mean(), rel=0.05)
    squares, count = found[1].overlap
    assert count > 0 and (squares / count) ** 0.5 < 1e-3
    alone = Renderer(engine=MoodyEngine(), frame=frame, plan=plan)
    half = alone.render(block, image, box, lambda core: core.x != 64 and core.y != 64)
    assert half.overlap == (0.0, 0)


def test_background_cores_are_bicubic_and_never_reach_the_network() -> None:
    image = picture(64, 64)
    frame = plan_frame(64, 64, 2.0)
    plan = TilePlan(core_px=32, blend_px=0, halo_px=8, multiple_px=4)
    engine = MoodyEngine()
    out = render_all(
        Renderer(engine=engine, frame=frame, plan=plan), image, 128, lambda core: core.x >= 64
    )
    plain = render_all(Renderer(engine=BicubicEngine(), frame=frame, plan=plan), image, 128)
    assert engine.calls == 8
    np.testing.assert_array_equal(out[:, :64], plain[:, :64])
    assert (out[:, 64:] != plain[:, 64:]).mean() > 0.9


class _Cramped(BicubicEngine):
    """Has memory for so many input px at once, and no more."""

    needs = MoodyEngine.needs

    def __init__(self, most_px: int) -> None:
        self.most_px = most_px
        self.tried: list[int] = []

    def render(self, frame: Frame, windows: Sequence[Window], lr: Sequence[Any]) -> list[Any]:
        self.tried.append(sum(part.shape[0] * part.shape[1] for part in lr))
        if self.tried[-1] > self.most_px:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return [
            part
            for w, pixels in zip(windows, lr, strict=True)
            for part in BicubicEngine.render(self, frame, [w], [pixels])
        ]


class _CrampedNetwork:
    """Not a `BicubicEngine` to the renderer, so that windows go through its batches."""

    def __init__(self, most_px: int) -> None:
        self._inner = _Cramped(most_px)
        self.needs = self._inner.needs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("most_px", [40_000, 6_000, 900])
def test_out_of_memory_is_answered_by_smaller_batches_and_tiles_with_the_same_pixels(
    most_px: int,
) -> None:
    image = picture(160, 120)
    frame = plan_frame(160, 120, 2.0)
    plan = TilePlan(core_px=128, blend_px=16, halo_px=8, multiple_px=4)
    roomy = render_all(
        Renderer(engine=_CrampedNetwork(10**9), frame=frame, plan=plan, batch=8), image, 512
    )
    told: list[str] = []
    engine = _CrampedNetwork(most_px)
    renderer = Renderer(engine=engine, frame=frame, plan=plan, batch=8, on_shrink=told.append)
    np.testing.assert_array_equal(render_all(renderer, image, 512), roomy)
    if most_px < 10_000:
        assert told and "Memory ran out" in told[0]
        # What was learnt is kept: no more failures than halvings.
        assert sum(px > most_px for px in engine.tried) == len(told)


def test_no_memory_at_all_is_a_sentence() -> None:
    frame = plan_frame(64, 64, 2.0)
    renderer = _renderer(_CrampedNetwork(10), frame, 16, on_shrink=lambda text: None)
    with pytest.raises(ModelError, match="smallest tile"):
        render_all(renderer, picture(64, 64), 128)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_values_that_are_no_numbers_are_an_error_and_not_pixels(value: str) -> None:
    engine, model = _engine("srcnn", 2)
    with torch.no_grad():
        list(model.parameters())[-1].fill_(float(value))
    with pytest.raises(ModelError, match="no numbers"):
        render_all(_renderer(engine, plan_frame(16, 16, 2.0)), picture(16, 16), 64)


def test_tiles_shrink_with_the_free_memory_and_fill_stored_tiles() -> None:
    engine = MoodyEngine()
    frame = plan_frame(4000, 4000, 4.0)
    assert plan_tiles(engine, frame, None, on_gpu=False).plan.core_px == 256
    engine.free_bytes = lambda: 10 << 20  # type: ignore[method-assign]
    small = plan_tiles(engine, frame, None, on_gpu=False)
    assert small.plan.core_px < 256 and small.batch == 1
    engine.free_bytes = lambda: 4 << 30  # type: ignore[method-assign]
    assert plan_tiles(engine, frame, None, on_gpu=True).batch > 1
    with pytest.raises(ConfigError, match="--tile 4 is too small"):
        plan_tiles(engine, frame, 4, on_gpu=False)


def test_a_probe_that_does_not_fit_asks_for_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = _engine("srcnn", 2)

    def full(*arguments: Any) -> list[Any]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(engine, "render", full)
    plan = plan_tiles(engine, plan_frame(900, 900, 2.0), None, on_gpu=True)
    assert (plan.plan.core_px, plan.batch) == (32, 1)
    monkeypatch.setattr(engine, "render", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.bytes_per_px(2.0, 64)


def test_on_a_gpu_the_window_itself_tells_how_much_memory_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, _ = _engine("srcnn", 2)
    sides: list[int] = []
    render = engine.render

    def watched(frame: Frame, windows: Sequence[Window], lr: Sequence[Any]) -> list[Any]:
        sides.append(lr[0].shape[0])
        return render(frame, windows, lr)

    peak = {"memory_allocated": 1000, "max_memory_allocated": 1000 + 4096 * 72**2}
    peak |= {"reset_peak_memory_stats": 0, "memory_reserved": 1000}
    for name, value in peak.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 << 30, 8 << 30))
    monkeypatch.setattr(TorchEngine, "_on_gpu", True)
    monkeypatch.setattr(engine, "render", watched)
    assert engine.bytes_per_px(2.0, 72) == 1.25 * 4096 and sides == [72]
    found = plan_tiles(engine, plan_frame(900, 900, 2.0), 60, on_gpu=True, halo_px=6)
    # Half of what is free, in windows of core and halo.
    assert found.batch == (1 << 30) // round(1.25 * 4096 * (60 + 12) ** 2) == 40


def test_float32_is_not_rounded_to_tf32_and_the_switch_is_put_back() -> None:
    seen: list[bool] = []
    for bfloat16 in (False, True):
        engine, model = _engine("srcnn", 2)
        engine = TorchEngine(model, torch.device("cpu"), bfloat16)
        model.register_forward_pre_hook(
            lambda *given: seen.append(torch.backends.cudnn.allow_tf32)  # type: ignore[attr-defined]
        )
        engine.bytes_per_px(2.0, 32)
        seen.append(torch.backends.cudnn.allow_tf32)  # type: ignore[attr-defined]
    assert seen == [False, True, True, True]


@pytest.mark.parametrize("name", sorted(set(list_models()) - {"bicubic"}))
def test_bfloat16_as_on_a_gpu_is_near_float32_for_every_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = model_spec(name)
    scale = 2 if spec.kind == "fixed" else None
    frame = plan_frame(16, 12, 2.0)
    found = []
    for bfloat16 in (False, True):
        torch.manual_seed(1)
        monkeypatch.setattr(TorchEngine, "_on_gpu", bfloat16)  # channels last, where it pays
        model = create_model(name, scale=scale, preset="tiny").eval()
        engine = TorchEngine(model, torch.device("cpu"), bfloat16, pool_px=8)
        monkeypatch.setattr(TorchEngine, "_on_gpu", False)  # memory is the host's
        plan = plan_tiles(engine, frame, 16, on_gpu=False).plan
        monkeypatch.setattr(TorchEngine, "_on_gpu", bfloat16)
        renderer = Renderer(engine=engine, frame=frame, plan=plan)
        found.append(render_all(renderer, picture(16, 12), 64).astype(float))
    assert np.abs(found[0] - found[1]).mean() < 0.02 * max(25.0, found[0].std())


def test_a_smaller_halo_is_blended_and_a_negative_one_refused() -> None:
    frame = plan_frame(400, 400, 2.0)
    engine, _ = _engine("srcnn", 2)
    assert plan_tiles(engine, frame, None, on_gpu=False).plan.blend_px == 0
    assert plan_tiles(engine, frame, None, on_gpu=False, masked=True).plan.blend_px == 16
    cut = plan_tiles(engine, frame, None, on_gpu=False, halo_px=2).plan
    assert (cut.halo_px, cut.blend_px) == (2, 4)
    with pytest.raises(ConfigError, match="--halo"):
        plan_tiles(engine, frame, None, on_gpu=False, halo_px=-1)
