"""How large a tile may be: from what is free, never from hope."""

from dataclasses import dataclass
from math import log

from wsisr.errors import ConfigError
from wsisr.upscaling.engines import Engine
from wsisr.upscaling.tiling import TILE_PX, Frame, TilePlan

SHARE = 0.5
"""Share of the free memory that one batch may take."""
MOST_BYTES = 6 << 30
"""Never more than this for one batch, so that a large card stays usable by others."""
BLEND_SHARE = 0.25
"""Ramp between cores as a share of the halo, where the halo is only a recommendation."""
FADE_PX = 8
"""Ramp between the network and bicubic where the halo is exact, plane px."""
SMALLEST_CORE_PX = 16


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The tiling, and how many windows run at once."""

    plan: TilePlan
    batch: int


def plan_tiles(
    engine: Engine,
    frame: Frame,
    tile_px: int | None,
    *,
    on_gpu: bool,
    masked: bool = False,
    halo_px: int | None = None,
) -> Batching:
    """Choose cores and batch.

    Parameters
    ----------
    engine : Engine
    frame : Frame
    tile_px : int or None
        Side of a core in plane px; None takes the model's recommendation, halved until one
        window fits half of the free memory.
    masked : bool
        Some cores will be filled by bicubic; the network's fade into them, even where its own tiles
        need no ramp.
    halo_px : int, optional
        Context around a core in plane px; None takes the model's recommendation.
    on_gpu : bool
        Fill the memory with a batch; on a CPU one window at a time is as fast.

    Raises
    ------
    ConfigError
        If `tile_px` is too small to be useful, or the halo is negative.
    """
    needs = engine.needs
    scale = max(frame.scale_x, frame.scale_y)
    if tile_px is not None and tile_px < max(8, needs.multiple_px):
        raise ConfigError(
            f"--tile {tile_px} is too small; this model needs at least "
            f"{max(8, needs.multiple_px)} input px."
        )
    halo = needs.halo_px if halo_px is None else halo_px
    exact = needs.halo_exact and halo >= needs.halo_px
    if halo < 0:
        raise ConfigError(f"--halo {halo} is negative; give input px, or leave it out.")
    budget = min(MOST_BYTES, SHARE * engine.free_bytes())
    side = tile_px or _usual_side(needs.tile_px, scale)
    per_px = engine.bytes_per_px(scale, side + 2 * halo)
    while tile_px is None and side > SMALLEST_CORE_PX:
        if per_px * (side + 2 * halo) ** 2 <= budget:
            break
        side //= 2
        per_px = engine.bytes_per_px(scale, side + 2 * halo)
    blend = 0
    if masked or not exact:
        ramp = FADE_PX if exact else max(2.0, BLEND_SHARE * halo)
        blend = min(round(ramp * scale), round(side * scale) // 2)
    window_bytes = per_px * (side + 2 * halo + blend / scale) ** 2
    batch = max(1, min(64, int(budget // max(1.0, window_bytes)))) if on_gpu else 1
    return Batching(
        plan=TilePlan(
            core_px=max(16, round(side * scale)),
            blend_px=blend,
            halo_px=halo,
            multiple_px=needs.multiple_px,
        ),
        batch=batch,
    )


def _usual_side(tile_px: int, scale: float) -> int:
    """The recommended side, moved to where cores fill stored tiles without a rest."""
    whole = TILE_PX / scale
    best = min((whole * 2.0**k for k in range(-4, 4)), key=lambda v: abs(log(v / tile_px)))
    return max(SMALLEST_CORE_PX, round(best))
