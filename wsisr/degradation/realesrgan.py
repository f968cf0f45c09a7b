"""Real-ESRGAN's second-order degradation, batched with every parameter drawn per sample.

The authors draw one resize factor per batch because tensors of different sizes do not stack.
Here the random resizes are per-sample weight matrices on a common grid whose unused part
repeats the last pixel, which is also how libjpeg fills its blocks.

References
----------
Wang, Xie, Dong and Shan, Real-ESRGAN, ICCVW 2021 (arXiv 2107.10833); defaults of its release.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from wsisr.cubic import cubic_pieces
from wsisr.degradation.blur import convolve, turned_places
from wsisr.degradation.draws import Draws
from wsisr.degradation.jpeg import jpeg
from wsisr.degradation.stage import (
    Amount,
    Context,
    Fraction,
    Quality,
    Sigma,
    Stage,
    amount_field,
    highest,
    register_degradation,
    within,
)
from wsisr.resize import to_grey

_TAPS = 21
_SINC_TAPS = 21
_PURPOSES = (
    *("sigma", "kind", "sigma-2", "angle", "beta", "sinc", "sinc-p", "blur", "blur-p", "resize"),
    *("filter", "grey", "grey-p", "sigma-n", "factor", "which", "quality", "final-sinc"),
    *("final-sinc-p", "last-filter", "order", "cutoff"),
)
"""Every single number that one round draws per sample."""


@register_degradation
class RealEsrgan2(Stage):
    """Two rounds of blur, resize, noise and JPEG with sinc filters (Real-ESRGAN).

    Everything is drawn per sample, on the device. Poisson noise is its normal approximation with
    the same variance at 256 levels.
    """

    samples: ClassVar[bool] = True
    always_random: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # For slides: sigma in LR px, no enlargement, no grey noise (spec section 5).
        "mild": {
            "sigma_unit": "lr-px",
            "sigma_1": (0.2, 1.2),
            "sigma_2": (0.2, 0.6),
            "second_blur": 0.3,
            "sinc": 0.0,
            "final_sinc": 0.0,
            "resize_1": (0.5, 1.0),
            "resize_2": (0.7, 1.0),
            "noise_1": (0.5, 4.0),
            "noise_2": (0.5, 3.0),
            "poisson_1": (0.02, 0.3),
            "poisson_2": (0.02, 0.2),
            "grey_noise": 0.0,
            "quality_1": (75.0, 95.0),
            "quality_2": (60.0, 95.0),
        }
    }
    kind: Literal["realesrgan2"] = "realesrgan2"
    sigma_unit: Literal["px", "lr-px"] = Field(
        default="px", description="unit of sigma_1 and sigma_2: the stage's own px, or LR px"
    )
    sigma_1: Sigma = amount_field(0, 50, "first blur", (0.2, 3.0))
    sigma_2: Sigma = amount_field(0, 50, "second blur", (0.2, 1.5))
    second_blur: Fraction = amount_field(0, 1, "probability of the second blur", 0.8)
    sinc: Fraction = amount_field(0, 1, "probability that a blur is a sinc", 0.1)
    final_sinc: Fraction = amount_field(0, 1, "probability of a last sinc", 0.8)
    resize_1: Annotated[Amount, AfterValidator(within(0.05, 2.0))] = amount_field(
        0.05, 2, "first random resize", (0.15, 1.5)
    )
    resize_2: Annotated[Amount, AfterValidator(within(0.05, 2.0))] = amount_field(
        0.05, 2, "second random resize, times 1 / scale", (0.3, 1.2)
    )
    noise_1: Sigma = amount_field(0, 50, "first normal noise, grey levels", (1.0, 30.0))
    noise_2: Sigma = amount_field(0, 50, "second normal noise, grey levels", (1.0, 25.0))
    poisson_1: Sigma = amount_field(0, 50, "first Poisson noise, factor", (0.05, 3.0))
    poisson_2: Sigma = amount_field(0, 50, "second Poisson noise, factor", (0.05, 2.5))
    grey_noise: Fraction = amount_field(0, 1, "probability of equal noise in all channels", 0.4)
    quality_1: Quality = amount_field(1, 100, "first JPEG quality", (30.0, 95.0))
    quality_2: Quality = amount_field(1, 100, "second JPEG quality", (30.0, 95.0))

    def apply(self, x: Tensor, context: Context) -> Tensor:
        size, scale, draws = context.size, context.scale, context.draws
        height, width = int(x.shape[-2]), int(x.shape[-1])
        unit = scale if self.sigma_unit == "lr-px" else 1.0
        here = draws.within("first").prefetch(_PURPOSES)
        x = convolve(x, _blur_kernel(here, self.sigma_1, self.sinc, unit, None))
        factor = _draw(here, self.resize_1, "resize")
        rows, columns = _sizes(factor, height), _sizes(factor, width)
        grid = _grid(self.resize_1, (height, width))
        x = _by_matrices(x, (height, width), rows, columns, grid, here.uniform("filter"))
        x = _noise(here, x, self.noise_1, self.poisson_1, self.grey_noise)
        x = jpeg(to_grey(x), _draw(here, self.quality_1, "quality")).float()

        here = draws.within("second").prefetch(_PURPOSES)
        # After the first resize the unit of blur is that of the shrunken image, about one LR px.
        unit_2 = max(1.0, scale * float(torch.as_tensor(self.resize_1).mean())) if unit > 1 else 1.0
        x = convolve(x, _blur_kernel(here, self.sigma_2, self.sinc, unit_2, self.second_blur))
        factor = _draw(here, self.resize_2, "resize")
        rows_2, columns_2 = _sizes(factor, size[0]), _sizes(factor, size[1])
        grid = _grid(self.resize_2, size)
        x = _by_matrices(x, (rows, columns), rows_2, columns_2, grid, here.uniform("filter"))
        x = _noise(here, x, self.noise_2, self.poisson_2, self.grey_noise)

        last = None if self.final_sinc == 0.0 else _sinc_kernel(here, self.final_sinc)
        quality = _draw(here, self.quality_2, "quality")
        # The order of the last two steps is drawn; both are computed and one is taken.
        kind = here.uniform("order") < 0.5
        first_resized = _to_size(x, (rows_2, columns_2), size, here)
        if last is not None:
            first_resized = convolve(first_resized, last)
        first_resized = jpeg(to_grey(first_resized), quality).float()
        first_coded = jpeg(to_grey(x), quality).float()
        first_coded = _to_size(first_coded, (rows_2, columns_2), size, here)
        if last is not None:
            first_coded = convolve(first_coded, last)
        return torch.where(kind[:, None, None, None], first_resized, first_coded)


def _draw(draws: Draws, value: Amount, name: str) -> Tensor:
    if isinstance(value, tuple):
        return draws.uniform(name, value[0], value[1])
    return torch.full(draws.slots.shape, value, dtype=torch.float32, device=draws.slots.device)


def _grid(value: Amount, size: tuple[int, int]) -> tuple[int, int]:
    # The largest possible size, not the largest drawn one: results must not depend on the batch.
    height, width = (max(2, math.ceil(highest(value) * side)) for side in size)
    return height, width


def _sizes(factor: Tensor, side: int) -> Tensor:
    return (factor * side).round().clamp_min(2.0)


def _blur_kernel(
    draws: Draws, sigma: Amount, sinc: Amount, unit: float, probability: Amount | None
) -> Tensor:
    """Isotropic, anisotropic, generalised, plateau or sinc kernels, shape (B, 1, k, k)."""
    largest = highest(sigma) * unit
    half = max(_TAPS // 2, math.ceil(3.0 * largest)) if unit > 1.0 else _TAPS // 2
    first = _draw(draws, sigma, "sigma")[:, None, None] * unit
    kind = draws.uniform("kind")[:, None, None]
    # Shares of the release: iso .45, aniso .25, generalised .12 + .03, plateau .12 + .03.
    round_ = (kind < 0.45) | ((kind >= 0.70) & (kind < 0.82)) | ((kind >= 0.85) & (kind < 0.97))
    second = torch.where(round_, first, _draw(draws, sigma, "sigma-2")[:, None, None] * unit)
    u, v = turned_places(draws.uniform("angle", -math.pi, math.pi), half)
    q = (u / first.clamp_min(1e-3)) ** 2 + (v / second.clamp_min(1e-3)) ** 2
    shape = draws.uniform("beta")[:, None, None]
    general = torch.exp(-0.5 * q.clamp_min(1e-12) ** _skewed(shape, 0.5, 4.0))
    plateau = 1.0 / (1.0 + q.clamp_min(1e-12) ** _skewed(shape, 1.0, 2.0))
    kernel = torch.where(
        kind < 0.70, torch.exp(-0.5 * q), torch.where(kind < 0.85, general, plateau)
    )
    kernel = _normalised(kernel)
    is_sinc = draws.uniform("sinc")[:, None, None] < _draw(draws, sinc, "sinc-p")[:, None, None]
    mixed = kernel if sinc == 0.0 else torch.where(is_sinc, _sinc(draws, half), kernel)
    if probability is not None:
        skip = draws.uniform("blur") >= _draw(draws, probability, "blur-p")
        mixed = torch.where(skip[:, None, None], _delta(half, mixed), mixed)
    return mixed[:, None]


def _skewed(u: Tensor, low: float, high: float) -> Tensor:
    # Half of the draws lie on each side of 1, as in the release.
    below = low + 2.0 * u * (1.0 - low)
    above = 1.0 + (2.0 * u - 1.0) * (high - 1.0)
    return torch.where(u < 0.5, below, above) if low < 1.0 else 1.0 + u * (high - 1.0)


def _sinc_kernel(draws: Draws, probability: Amount) -> Tensor:
    half = _SINC_TAPS // 2
    kernel = _sinc(draws.within("final"), half)
    use = draws.uniform("final-sinc") < _draw(draws, probability, "final-sinc-p")
    return torch.where(use[:, None, None], kernel, _delta(half, kernel))[:, None]


def _sinc(draws: Draws, half: int) -> Tensor:
    """Circular low-pass of cutoff pi/3..pi, shape (B, k, k)."""
    cutoff = draws.uniform("cutoff", math.pi / 3.0, math.pi)[:, None, None]
    offset = torch.arange(-half, half + 1, device=cutoff.device, dtype=torch.float32)
    radius = torch.sqrt(offset[None, :] ** 2 + offset[:, None] ** 2)
    safe = radius.clamp_min(1e-6)
    kernel = cutoff * torch.special.bessel_j1(cutoff * safe) / (2.0 * math.pi * safe)
    kernel = torch.where(radius == 0.0, cutoff**2 / (4.0 * math.pi), kernel)
    return _normalised(kernel)


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum((-1, -2), keepdim=True)


def _delta(half: int, like: Tensor) -> Tensor:
    kernel = torch.zeros(2 * half + 1, 2 * half + 1, device=like.device, dtype=like.dtype)
    kernel[half, half] = 1.0
    return kernel


def _to_size(
    x: Tensor, source: tuple[Tensor, Tensor], size: tuple[int, int], draws: Draws
) -> Tensor:
    mode = draws.uniform("last-filter")
    ones = torch.ones_like(mode)
    return _by_matrices(x, source, ones * size[0], ones * size[1], size, mode)


def _by_matrices(
    x: Tensor,
    source: tuple[Tensor, Tensor] | tuple[int, int],
    rows: Tensor,
    columns: Tensor,
    grid: tuple[int, int],
    mode: Tensor,
) -> Tensor:
    # A tensor of a number would wait for the device; filling one does not.
    heights, widths = (
        side if isinstance(side, Tensor) else torch.full((len(x),), side, device=x.device)
        for side in source
    )
    vertical = _weights(int(x.shape[-2]), heights, grid[0], rows, mode)
    horizontal = _weights(int(x.shape[-1]), widths, grid[1], columns, mode)
    return vertical[:, None] @ x @ horizontal.mT[:, None]


def _weights(grid: int, in_px: Tensor, count: int, out_px: Tensor, mode: Tensor) -> Tensor:
    """Per-sample weights (B, count, grid): area, bilinear or bicubic by `mode` in [0, 1).

    Rows beyond a sample's output size repeat its last row; columns beyond its input size are 0.
    """
    in_px, out_px = in_px.float()[:, None, None], out_px.float()[:, None, None]
    out = torch.arange(count, device=mode.device, dtype=torch.float32)[None, :, None]
    out = torch.minimum(out, out_px - 1.0)
    tap = torch.arange(grid, device=mode.device, dtype=torch.float32)[None, None, :]
    ratio = in_px / out_px
    shrink = ratio.clamp_min(1.0)
    away = ((out + 0.5) * ratio - 0.5 - tap).abs()
    overlap = (0.5 * ratio.clamp_min(1.0) + 0.5 - away).clamp(0.0, 1.0)
    d = away / shrink
    triangle = (1.0 - d).clamp_min(0.0)
    near, far = cubic_pieces(d)
    cubic = torch.where(d <= 1.0, near, torch.where(d < 2.0, far, torch.zeros_like(d)))
    kind = mode[:, None, None]
    weight = torch.where(kind < 1 / 3, overlap, torch.where(kind < 2 / 3, triangle, cubic))
    weight = torch.where(tap < in_px, weight, torch.zeros_like(weight))
    return weight / weight.sum(-1, keepdim=True)


def _noise(draws: Draws, x: Tensor, normal: Amount, poisson: Amount, grey: Amount) -> Tensor:
    """Normal noise of one deviation, or Poisson noise, each with probability one half."""
    x = x.clamp(0.0, 255.0)
    field = draws.normals("noise", tuple(x.shape[1:]))
    together = draws.uniform("grey") < _draw(draws, grey, "grey-p")
    if grey != 0.0:
        field = torch.where(together[:, None, None, None], field[:, :1], field)
    sigma = _draw(draws, normal, "sigma-n")[:, None, None, None]
    factor = _draw(draws, poisson, "factor")[:, None, None, None]
    is_normal = (draws.uniform("which") < 0.5)[:, None, None, None]
    # Poisson counts at 256 levels: a variance of x in grey levels, times the factor squared.
    deviation = torch.where(is_normal, sigma, factor * torch.sqrt(x))
    return x + field * deviation
