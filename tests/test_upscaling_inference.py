"""Tiled is untiled, borders do not show, and a failed run of the network leaves no pixel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from slides_samples import picture
from upscaling_samples import MoodyEngine, render_all

from wsisr.errors import ConfigError, ModelError
from wsisr.models import create_model
from wsisr.upscaling.engines import BicubicEngine, TorchEngine, choose_device, is_out_of_memory
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


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: ..."))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_values_that_are_no_numbers_are_an_error_and_not_pixels() -> None:
    engine, model = _engine("srcnn", 2)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
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


def test_a_smaller_halo_is_blended_and_a_negative_one_refused() -> None:
    frame = plan_frame(400, 400, 2.0)
    engine, _ = _engine("srcnn", 2)
    assert plan_tiles(engine, frame, None, on_gpu=False).plan.blend_px == 0
    assert plan_tiles(engine, frame, None, on_gpu=False, masked=True).plan.blend_px == 16
    cut = plan_tiles(engine, frame, None, on_gpu=False, halo_px=2).plan
    assert (cut.halo_px, cut.blend_px) == (2, 4)
    with pytest.raises(ConfigError, match="--halo"):
        plan_tiles(engine, frame, None, on_gpu=False, halo_px=-1)


def test_devices_that_are_not_there_are_named() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="no device"):
        choose_device("toaster")
    with pytest.raises(ConfigError, match="no such GPU"):
        choose_device("cuda:99")
