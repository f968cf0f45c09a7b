"""Transformation pools of contrastive super-resolution (MiHATP, sections 2.1 and 2.3).

*Reversible*: the eight symmetries of the square. They only move pixels, so that
``invert(apply(x))`` is `x` bit for bit. Applied to LR and HR alike they agree with reduction
only where LR is centre-aligned with HR (antialiased or area reduction, registered pairs without
residual).
Interpolating rotations and colour changes are lossy and are not in the pool.

*Irreversible*: ways to lose what super-resolution must restore, applied to HR: Gaussian blur,
bicubic reduction and enlargement, noise, JPEG, motion blur. The paper names none; these are the
customary ones (PCL-SR) with wider ranges. Stain and contrast changes are left out on purpose:
a negative must not teach the network to shun a stain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from wsisr.degradation.blur import convolve, gaussian_blur, turned_places
from wsisr.degradation.draws import Draws
from wsisr.degradation.jpeg import jpeg
from wsisr.errors import DegradationError
from wsisr.resize import resize, to_grey

Loss = Literal["blur", "reduce", "noise", "jpeg", "motion"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
BLUR_SIGMA_PX = (0.5, 3.0)
NOISE_SIGMA_GREY = (5.0, 25.0)
JPEG_QUALITY = (30, 70)
MOTION_LENGTH_PX = (5.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class Symmetry:
    """One symmetry of the square: flips, then a transposition of rows and columns."""

    name: str
    flip_rows: bool = False
    flip_columns: bool = False
    transpose: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """Move the pixels of (..., H, W); sides swap where `transpose` is set."""
        x = self._flip(x)
        return x.transpose(-2, -1) if self.transpose else x

    def invert(self, x: Tensor) -> Tensor:
        """Undo `apply`, bit for bit."""
        return self._flip(x.transpose(-2, -1) if self.transpose else x)

    def _flip(self, x: Tensor) -> Tensor:
        axes = [axis for axis, on in ((-2, self.flip_rows), (-1, self.flip_columns)) if on]
        return x.flip(axes) if axes else x


SYMMETRIES: tuple[Symmetry, ...] = (
    Symmetry(name="identity"),
    Symmetry(name="flip-rows", flip_rows=True),
    Symmetry(name="flip-columns", flip_columns=True),
    Symmetry(name="rotate-180", flip_rows=True, flip_columns=True),
    Symmetry(name="transpose", transpose=True),
    Symmetry(name="rotate-90", flip_rows=True, transpose=True),
    Symmetry(name="rotate-270", flip_columns=True, transpose=True),
    Symmetry(name="anti-transpose", flip_rows=True, flip_columns=True, transpose=True),
)
"""The reversible pool, the identity first."""


def draw_symmetries(draws: Draws, count: int) -> tuple[Symmetry, ...]:
    """`count` distinct symmetries, one set for the whole batch of a step.

    Without the identity: with shared weights it would make the positive the anchor.
    """
    pool = SYMMETRIES[1:]
    if not 1 <= count <= len(pool):
        raise DegradationError(f"{count} symmetries cannot be drawn from a pool of {len(pool)}.")
    order = _order(draws, "symmetry", len(pool))
    return tuple(pool[i] for i in order[:count])


def negatives(
    hr: Tensor,
    draws: Draws,
    *,
    scale: int,
    count: int,
    pool: Sequence[Loss] = LOSSES,
    lr: Tensor | None = None,
) -> Tensor:
    """Low-quality versions of HR patches: (count [+ 1], N, 3, H, W) in [0, 1], without gradient.

    Parameters
    ----------
    hr : Tensor
        (N, 3, H, W), float in [0, 1].
    draws : Draws
        Random numbers of the batch; parameters are drawn for each sample.
    scale : int
        The super-resolution scale; `reduce` draws from 2, s and 2s.
    count : int
        Negatives drawn, of distinct kinds while the pool lasts.
    pool : sequence of str
        Kinds to draw from.
    lr : Tensor, optional
        (N, 3, H / s, W / s): adds its bicubic enlargement as one more, fixed negative.
    """
    unknown = set(pool) - set(LOSSES)
    if unknown or not pool:
        raise DegradationError(
            f"Irreversible pool {sorted(pool)}: choose from {', '.join(LOSSES)}, at least one."
        )
    if count < 0 or count + (lr is not None) < 1:
        raise DegradationError(f"{count} negatives: give at least one, or an LR batch.")
    order = _order(draws, "kinds", len(pool))
    with torch.no_grad():
        made = [
            _lose(pool[order[i % len(pool)]], hr, draws.within(f"negative-{i}"), scale)
            for i in range(count)
        ]
        if lr is not None:
            made.append(resize(lr, (int(hr.shape[-2]), int(hr.shape[-1]))))
        return torch.stack(made).clamp(0.0, 1.0)


def motion_kernels(length_px: Tensor, angle: Tensor, half_px: int) -> Tensor:
    """Antialiased line segments, (B, 1, 2 half + 1, 2 half + 1), each summing to one.

    `length_px` and `angle` (radians) are (B,); the segment is centred.
    """
    along, across = turned_places(angle, half_px)
    beyond = (along.abs() - (length_px[:, None, None] - 1) / 2).clamp_min(0)
    line = (1 - (beyond.square() + across.square()).sqrt()).clamp_min(0)
    return (line / line.sum(dim=(-2, -1), keepdim=True))[:, None]


def _order(draws: Draws, purpose: str, count: int) -> list[int]:
    # One order for the step, whatever samples this process holds: slot 0 stands for all.
    step = replace(draws, slots=torch.zeros(1, dtype=torch.int64), ready={})
    return [int(i) for i in step.words(purpose, count)[0].argsort()]


def _lose(kind: Loss, hr: Tensor, draws: Draws, scale: int) -> Tensor:
    if kind == "blur":
        return gaussian_blur(
            hr, draws.uniform("sigma", *BLUR_SIGMA_PX).to(hr), largest=BLUR_SIGMA_PX[1]
        )
    if kind == "reduce":
        factors = (2, scale, 2 * scale)
        factor = factors[_order(draws, "factor", len(factors))[0]]
        height, width = int(hr.shape[-2]), int(hr.shape[-1])
        small = resize(hr, (max(1, height // factor), max(1, width // factor)))
        return resize(small, (height, width))
    if kind == "noise":
        sigma = draws.uniform("sigma", *NOISE_SIGMA_GREY).to(hr) / 255
        return hr + sigma[:, None, None, None] * draws.normals("noise", tuple(hr.shape[1:])).to(hr)
    if kind == "jpeg":
        quality = draws.uniform("quality", JPEG_QUALITY[0], JPEG_QUALITY[1] + 1).floor()
        return jpeg(to_grey(hr * 255), quality).to(hr.dtype) / 255
    length = draws.uniform("length", *MOTION_LENGTH_PX).to(hr)
    angle = draws.uniform("angle", 0.0, torch.pi).to(hr)
    return convolve(hr, motion_kernels(length, angle, int(MOTION_LENGTH_PX[1]) // 2 + 1))
