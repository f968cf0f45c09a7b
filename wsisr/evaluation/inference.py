"""SR of LR batches: whole or in tiles, plain or averaged over the eight symmetries.

Nothing but the LR and the size of the output reaches a network here; that is the whole signature.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor

from wsisr.errors import ModelError
from wsisr.models import SRModel

WHOLE_LR_PX = 512
"""Up to this side, networks without global context see the whole LR image."""
GLOBAL_HALO_SHARE = 6
"""Where a network sees its whole input, windows have the training size, and this fraction of it
on each side is halo."""

Forward = Callable[[Tensor, Tensor | None, tuple[int, int]], Tensor]


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How an LR image is cut.

    Attributes
    ----------
    core_px : int
        LR px that a tile contributes; 0 for the whole image at once.
    halo_px : int
        LR px around it that the network also sees.
    """

    core_px: int
    halo_px: int

    def __str__(self) -> str:
        return f"tiles of {self.core_px}+{self.halo_px} LR px" if self.core_px else "whole images"


@dataclass(frozen=True, kw_only=True)
class Span:
    """One tile on one axis, LR px: its window, and the part of it that counts."""

    window: int
    start: int
    stop: int


def plan_tiles(model: SRModel, tile: str) -> TilePlan:
    """How a model's inputs are cut above which size; see `needs_tiles`."""
    info = model.info
    if tile == "off" or (info.halo_exact and tile == "auto" and info.name == "bicubic"):
        return TilePlan(core_px=0, halo_px=0)
    core = info.tile_px if tile == "auto" else int(tile)
    halo = info.halo_px
    if info.global_context:
        halo = min(halo, max(1, core // GLOBAL_HALO_SHARE))
        core -= 2 * halo if tile == "auto" else 0
    return TilePlan(core_px=core, halo_px=halo)


def needs_tiles(model: SRModel, plan: TilePlan, lr_px: int, tile: str) -> bool:
    """Whether an LR image of this side is cut.

    ``auto``: networks with global context above their training size, others above
    `WHOLE_LR_PX`. A number: above that number.
    """
    if plan.core_px == 0:
        return False
    if tile != "auto":
        return lr_px > plan.core_px
    limit = plan.core_px + 2 * plan.halo_px if model.info.global_context else WHOLE_LR_PX
    return lr_px > limit


def tile_axis(length: int, core: int, halo: int) -> tuple[int, tuple[Span, ...]]:
    """Windows of one size that cover an axis, each with the part that it contributes.

    Returns
    -------
    (int, tuple of Span)
        Side of all windows, and where they begin. At a border a window is moved inside, so that
        it ends where the image ends and no pixel is invented.
    """
    side = min(length, core + 2 * halo)
    spans = []
    for start in range(0, length, core):
        stop = min(start + core, length)
        spans.append(Span(window=max(0, min(start - halo, length - side)), start=start, stop=stop))
    return side, tuple(spans)


@torch.inference_mode()
def super_resolve(
    model: SRModel,
    lr: Tensor,
    size: tuple[int, int],
    *,
    tile: str = "auto",
    self_ensemble: bool = False,
    precision: str = "float32",
    reference: Tensor | None = None,
) -> Tensor:
    """SR of a batch.

    Parameters
    ----------
    model : SRModel
        In eval mode.
    lr : Tensor, (N, 3, h, w), uint8
        On the model's device.
    size : (int, int)
        Height and width of the output; a fixed-scale model must give exactly this.
    tile : str
        ``auto``, ``off`` or LR px.
    self_ensemble : bool
        Mean over the eight symmetries of the square.
    precision : str
        float32, bfloat16 or float16 (autocast).
    reference : Tensor, optional
        (N, 3, 2h, 2w), uint8: only for `takes_reference` models and never in tables.

    Returns
    -------
    Tensor, (N, 3, H, W), float32 in [0, 1]

    Raises
    ------
    ModelError
        The model gives another size.
    """
    info = model.info
    x = lr.float() / 255.0
    if info.channels_last and lr.device.type == "cuda":
        x = x.contiguous(memory_format=torch.channels_last)
    ref = None if reference is None else reference.float() / 255.0
    plan = plan_tiles(model, tile)
    cut = needs_tiles(model, plan, max(lr.shape[-2:]), tile)

    def forward(part: Tensor, finer: Tensor | None, out: tuple[int, int]) -> Tensor:
        with _autocast(lr.device.type, precision, info.dtypes):
            if info.kind == "arbitrary":
                return model(part, size=out).float()
            if finer is not None:
                return model(part, reference=finer).float()
            return model(part).float()

    def whole(part: Tensor, finer: Tensor | None, out: tuple[int, int]) -> Tensor:
        return _tiled(forward, part, finer, out, plan) if cut else forward(part, finer, out)

    if self_ensemble:
        sr = torch.zeros(len(x), 3, *size, device=x.device)
        for turn in range(8):
            finer = None if ref is None else _turn(ref, turn)
            out = size if turn % 2 == 0 else (size[1], size[0])
            sr += _turn_back(whole(_turn(x, turn), finer, out), turn)
        sr /= 8.0
    else:
        sr = whole(x, ref, size)
    if tuple(sr.shape[-2:]) != tuple(size):
        raise ModelError(
            f"{info.name} gave {tuple(sr.shape[-2:])} px where {tuple(size)} px were asked for; a "
            "fixed-scale model serves its own scale alone."
        )
    return sr.clamp_(0.0, 1.0)


def _tiled(
    forward: Forward, x: Tensor, finer: Tensor | None, size: tuple[int, int], plan: TilePlan
) -> Tensor:
    """Tiles whose output pixels fall on the image's own: windows start on a common grid."""
    axes = []
    for length, out in zip((int(x.shape[-2]), int(x.shape[-1])), size, strict=True):
        step = length // gcd(length, out)
        core = -(-plan.core_px // step) * step
        halo = -(-plan.halo_px // step) * step
        side, spans = tile_axis(length, core, halo)
        axes.append((side, spans, out / length))
    (height, rows, scale_y), (width, cols, scale_x) = axes
    sr = torch.empty(len(x), 3, *size, device=x.device)
    tile_out = (round(height * scale_y), round(width * scale_x))
    count = len(x)
    for row in rows:
        # Windows are of one size: a GPU takes a whole row of them at once.
        group = len(cols) if x.device.type == "cuda" else 1
        for start in range(0, len(cols), group):
            here = cols[start : start + group]
            windows = torch.cat([_cut(x, row, col, height, width) for col in here])
            ref = None
            if finer is not None:
                ref = torch.cat([_cut(finer, row, col, height, width, 2) for col in here])
            parts = forward(windows, ref, tile_out)
            for at, col in enumerate(here):
                part = parts[at * count : (at + 1) * count]
                top, bottom = round(row.start * scale_y), round(row.stop * scale_y)
                left, right = round(col.start * scale_x), round(col.stop * scale_x)
                dy, dx = round(row.window * scale_y), round(col.window * scale_x)
                sr[..., top:bottom, left:right] = part[
                    ..., top - dy : bottom - dy, left - dx : right - dx
                ]
    return sr


def _cut(x: Tensor, row: Span, col: Span, height: int, width: int, times: int = 1) -> Tensor:
    """The window of a tile; of an image `times` as fine as the LR."""
    top, left = times * row.window, times * col.window
    return x[..., top : top + times * height, left : left + times * width]


def _turn(x: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries: quarter turns, then mirrored."""
    x = torch.rot90(x, turn % 4, (-2, -1))
    return x.flip(-1) if turn >= 4 else x


def _turn_back(x: Tensor, turn: int) -> Tensor:
    x = x.flip(-1) if turn >= 4 else x
    return torch.rot90(x, -(turn % 4), (-2, -1))


@contextmanager
def _autocast(device: str, precision: str, dtypes: tuple[str, ...]) -> Iterator[None]:
    if precision == "float32" or precision not in dtypes:
        yield
        return
    dtype: Any = getattr(torch, precision)
    with torch.autocast(device, dtype=dtype):
        yield
