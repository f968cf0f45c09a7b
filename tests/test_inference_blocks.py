"""Tiled is untiled, borders do not show, and a failed run of the network leaves no pixel."""

from typing import Any

import numpy as np
import pytest
import torch
from slides_samples import picture
from upscaling_samples import MoodyEngine, render_all

from wsisr.errors import MemoryLimitError, OutputError
from wsisr.geometry import Box
from wsisr.inference.blocks import PlanePixels, Renderer
from wsisr.inference.engine import BicubicEngine, Capacity, WindowBatch
from wsisr.inference.images import super_resolve
from wsisr.inference.network import Network
from wsisr.inference.tiles import Frame, Tiling, plan_frame, plan_tiles
from wsisr.models import create_model


def _renderer(engine: Any, frame: Frame, tile: int | None = None, **more: Any) -> Renderer:
    plan = plan_tiles(engine.needs, frame.scale_x, tile)
    return Renderer(engine=engine, frame=frame, plan=plan, **more)


def _engine(name: str, scale: int | None) -> tuple[Network, Any]:
    torch.manual_seed(3)
    model = create_model(name, scale=scale, preset="tiny").eval()
    return Network(model, torch.device("cpu")), model


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
    tiled = render_all(
        _renderer(engine, frame, tile, capacity=Capacity(batch=3)), image, block_px=64
    )
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
        engine = Network(model, torch.device("cpu"), pool_px=pool_px)
        whole = render_all(_renderer(engine, frame, 240), image, block_px=512)
        plan = plan_tiles(engine.needs, 2.0, 32)
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
    plan = Tiling(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    pictures = [
        render_all(Renderer(engine=MoodyEngine(), frame=frame, plan=plan), image, side)
        for side in (64, 128, 1024)
    ]
    # Sums handed on are kept in 1/256 grey level, so that a tie may round the other way.
    for other in pictures[1:]:
        assert np.abs(pictures[0].astype(int) - other).max() <= 1
        assert (pictures[0] != other).mean() < 0.01
    hard = Tiling(core_px=64, blend_px=0, halo_px=8, multiple_px=4)
    sharp = render_all(Renderer(engine=MoodyEngine(), frame=frame, plan=hard), image, 64)
    step = [np.abs(np.diff(p.astype(float), axis=1))[:, 63].mean() for p in (pictures[0], sharp)]
    assert step[0] < 0.6 * step[1]


def test_the_next_row_may_be_inferred_while_one_is_blended() -> None:
    image = picture(160, 128)
    frame = plan_frame(160, 128, 2.0)
    plan = Tiling(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    found = [
        render_all(Renderer(engine=MoodyEngine(), frame=frame, plan=plan, ahead=ahead), image, 256)
        for ahead in (False, True)
    ]
    np.testing.assert_array_equal(*found)


def test_the_difference_of_overlapping_tiles_is_measured() -> None:
    image = picture(96, 96)
    frame = plan_frame(96, 96, 2.0)
    plan = Tiling(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    block = Box(x=0, y=0, width=192, height=192)
    source = PlanePixels(lr=image, box=Box(x=0, y=0, width=96, height=96))
    found = [
        Renderer(engine=engine, frame=frame, plan=plan).render(block, source)
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
    half = alone.render(block, source, lambda core: core.x != 64 and core.y != 64)
    assert half.overlap == (0.0, 0)


def test_background_cores_are_bicubic_and_never_reach_the_network() -> None:
    image = picture(64, 64)
    frame = plan_frame(64, 64, 2.0)
    plan = Tiling(core_px=32, blend_px=0, halo_px=8, multiple_px=4)
    engine = MoodyEngine()
    out = render_all(
        Renderer(engine=engine, frame=frame, plan=plan), image, 128, lambda core: core.x >= 64
    )
    plain = render_all(Renderer(engine=BicubicEngine(), frame=frame, plan=plan), image, 128)
    assert engine.calls == 8
    np.testing.assert_array_equal(out[:, :64], plain[:, :64])
    assert (out[:, 64:] != plain[:, 64:]).mean() > 0.9


class _Cramped:
    """Has memory for so many input px at once, and no more."""

    trained = MoodyEngine.trained
    needs = MoodyEngine.needs

    def __init__(self, most_px: int) -> None:
        self.most_px = most_px
        self.tried: list[int] = []

    def render(self, batch: WindowBatch) -> list[Any]:
        self.tried.append(sum(part.shape[0] * part.shape[1] for part in batch.lr))
        if self.tried[-1] > self.most_px:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return BicubicEngine().render(batch)


@pytest.mark.parametrize("most_px", [40_000, 6_000, 900])
def test_out_of_memory_is_answered_by_smaller_batches_and_tiles_with_the_same_pixels(
    most_px: int,
) -> None:
    image = picture(160, 120)
    frame = plan_frame(160, 120, 2.0)
    plan = Tiling(core_px=128, blend_px=16, halo_px=8, multiple_px=4)

    def renderer(engine: _Cramped, **more: Any) -> Renderer:
        return Renderer(
            engine=engine,  # type: ignore[arg-type]
            frame=frame,
            plan=plan,
            capacity=Capacity(batch=8),
            **more,
        )

    roomy = render_all(renderer(_Cramped(10**9)), image, 512)
    told: list[str] = []
    engine = _Cramped(most_px)
    cramped = renderer(engine, on_shrink=told.append)
    np.testing.assert_array_equal(render_all(cramped, image, 512), roomy)
    assert cramped.capacity.shrunk == (most_px < 10_000)
    if most_px < 10_000:
        assert told and "Memory ran out" in told[0]
        # What was learnt is kept: no more failures than halvings.
        assert sum(px > most_px for px in engine.tried) == len(told)


def test_no_memory_at_all_is_a_sentence() -> None:
    frame = plan_frame(64, 64, 2.0)
    renderer = _renderer(_Cramped(10), frame, 16, on_shrink=lambda text: None)
    with pytest.raises(MemoryLimitError, match="smallest tile"):
        render_all(renderer, picture(64, 64), 128)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_values_that_are_no_numbers_are_an_error_and_not_pixels(value: str) -> None:
    engine, model = _engine("srcnn", 2)
    with torch.no_grad():
        list(model.parameters())[-1].fill_(float(value))
    with pytest.raises(OutputError, match="no numbers in the window at 0, 0 of 32 x 32 px"):
        render_all(_renderer(engine, plan_frame(16, 16, 2.0)), picture(16, 16), 64)


def test_the_image_and_the_window_that_failed_are_named() -> None:
    engine, model = _engine("srcnn", 2)
    model.net.register_forward_hook(  # only what is bright fails
        lambda net, given, out: torch.where(given[0].mean() > 0.9, out / 0, out)
    )
    dark = picture(40, 16) // 2
    lr = np.stack([dark, dark])
    lr[1, :, 20:] = 255
    with pytest.raises(OutputError) as caught:
        super_resolve(engine, lr, 2.0, plan_tiles(engine.needs, 2.0, 8, 0))
    assert caught.value.item == 1 and "48, 0 of" in caught.value.place


def test_images_in_memory_are_made_as_slides_are_block_by_block() -> None:
    """Single precision, before any rounding; several images at once as each by itself."""
    engine = MoodyEngine()
    plan = Tiling(core_px=64, blend_px=16, halo_px=8, multiple_px=4)
    image = picture(150, 110)
    found = super_resolve(engine, image, 2.4, plan)
    frame = plan_frame(150, 110, 2.4)
    box = Box(x=0, y=0, width=150, height=110)
    slide = Renderer(engine=engine, frame=frame, plan=plan, rounded=False)
    source = PlanePixels(lr=image, box=slide.source_box(frame.region) or box)
    block = slide.render(frame.region, source)
    assert found.dtype == np.float32 and found.shape == (264, 360, 3)
    np.testing.assert_array_equal(block.pixels, found)
    both = super_resolve(engine, np.stack([image, image[::-1]]), 2.4, plan)
    np.testing.assert_array_equal(both[0], found)
    np.testing.assert_array_equal(both[1], super_resolve(engine, image[::-1], 2.4, plan))


@pytest.mark.parametrize("exact", [False, True])
def test_a_region_has_the_pixels_of_the_whole(exact: bool) -> None:
    image = picture(150, 110)
    plan = Tiling(core_px=64, blend_px=16, halo_px=8, multiple_px=4, exact=exact)
    engine: Any = BicubicEngine() if exact else MoodyEngine()
    whole = super_resolve(engine, image, 2.0, plan)
    for region in (
        Box(x=33, y=20, width=70, height=60),  # begins inside of a ramp
        Box(x=32, y=32, width=32, height=32),  # one core
        Box(x=45, y=0, width=105, height=9),
    ):
        part = super_resolve(engine, image, 2.0, plan, region=region)
        y, x = 2 * region.y, 2 * region.x
        np.testing.assert_array_equal(part, whole[y : y + part.shape[0], x : x + part.shape[1]])
