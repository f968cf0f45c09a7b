"""Fit a scanner's degradation to registered real pairs, with JPEG in the loop.

Steps (physics first, statistics last):

1. HR is moved by each pair's stored residual, so that LR pixel ``i`` covers HR
   ``[s i, s (i + 1))``; the LR is never resampled. Pairs are cut to the LR's 8 x 8 JPEG grid.
2. Kernel families (Gaussian; objective with NA, defocus and extra blur), each times the pixel
   aperture, are fitted by analysis by synthesis: render, tone, compress at the file's own
   quality, compare. The tone (a quadratic map of RGB) is linear least squares within each trial.
3. The best family gets a free correction of its taps (Tikhonov on the gradient); the luma before
   JPEG is its expectation given the simulation and the quantisation intervals.
4. Noise is read off places without structure, as it was before JPEG.
5. Pairs held out from all of this score it, beside bicubic, area and the best Gaussian, every
   one with its own fitted tone.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.degradation import scanner_kernel as kernels
from wsisr.degradation.blur import pad_mirror
from wsisr.degradation.fitted import apply_tone, fit_tone
from wsisr.degradation.profile import FittedProfile, ScannerFit, build_profile
from wsisr.degradation.scanner_jpeg import (
    compress_luma,
    compressed,
    estimate_jpeg,
    expected_before_jpeg,
    luma_of,
)
from wsisr.degradation.scanner_noise import fit_noise
from wsisr.degradation.scanner_pairs import Aligned, FitSettings, RealPair, align
from wsisr.degradation.uncertainty import jackknife, tones
from wsisr.errors import DegradationError
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.resize import Kernel, resize, to_grey

_LOG = logging.getLogger(__name__)
_MAX_EQUATIONS = 24_000
_FREE_HALF_PX = 9
"""Reach of the free correction beyond the pixel aperture, HR px."""
_LEAST_CONTRAST = 2.0
"""Standard deviation of HR, grey levels, below which there is nothing to fit."""
_STRENGTHS = ((3e-2, 3e-3), (3e-3, 3e-4))
"""Smoothness and ridge of the free correction, strong first."""


def fit_degradation(
    pairs: Iterable[RealPair],
    settings: FitSettings | None = None,
    *,
    name: str = "fitted",
    origin: str = "",
    report: Reporter = silent,
) -> FittedProfile:
    """Fit kernel, tone, noise and JPEG to registered pairs.

    Parameters
    ----------
    pairs : iterable of RealPair
        At least two, of one scanner and one whole-number scale.
    name : str
        Name of the degradation, which becomes part of ``simulated:<name>``.
    origin : str
        Of the LR, for the report.

    Raises
    ------
    DegradationError
        Too few or too small pairs, scales that differ, or pairs that do not match at all.
    """
    settings = settings or FitSettings()
    used = list(pairs)
    if len(used) < 2:
        raise DegradationError(f"A fit needs at least 2 pairs, one to hold out; got {len(used)}.")
    every = min(max(2, round(1.0 / max(settings.held_out, 1e-3))), len(used))
    test = used[every - 1 :: every]
    fit = [pair for i, pair in enumerate(used) if (i + 1) % every][: settings.max_pairs]
    train, held = align(fit, settings), align(test[: settings.max_pairs], settings)
    jpeg = estimate_jpeg(train.lr) if settings.jpeg == "estimate" else settings.jpeg
    quality = None if jpeg is None else jpeg.quality
    if float(train.hr.std()) < _LEAST_CONTRAST:
        raise DegradationError(
            "These pairs show no structure (blank glass?); a kernel cannot be seen in them."
        )
    candidates = {
        family: _fit_family(family, train, quality, settings) for family in ("gaussian", "optics")
    }
    for i, family in enumerate(candidates):
        report(ProgressEvent(stage="fit", done=i + 1, total=4, unit="step", item=family))
    chosen = min(candidates, key=lambda k: loss(train, candidates[k], quality))
    taps = candidates[chosen]
    if settings.free_taps:
        taps = _correct_taps(train, taps, quality)
    report(ProgressEvent(stage="fit", done=3, total=4, unit="step", item="taps"))
    tone = fit_tone(train.linear(taps), train.lr)
    noise = fit_noise(apply_tone(train.linear(taps), tone), train.lr, jpeg)
    report(ProgressEvent(stage="fit", done=4, total=4, unit="step", item="noise"))
    _LOG.info("fitted %s (%s) to %d pairs", name, chosen, len(fit))

    def by_taps(kernel: Float64Array) -> Tensor:
        return apply_tone(held.linear(kernel), fit_tone(train.linear(kernel), train.lr))

    def by_resize(kernel: Kernel) -> Tensor:
        return apply_tone(_resized(held, kernel), fit_tone(_resized(train, kernel), train.lr))

    fewer = replace(settings, evaluations=settings.evaluations // 2)

    def without(kept: Tensor) -> dict[str, float]:
        part = _subset(train, kept)
        kernel = _fit_family(chosen, part, quality, fewer)
        mapped = fit_tone(part.linear(kernel), part.lr)
        grain = fit_noise(apply_tone(part.linear(kernel), mapped), part.lr, jpeg)
        width = kernels.kernel_shape(kernel).width_px
        return {"width_px": width, "noise_at_200": grain.deviation(200.0), **tones(mapped)}

    found = ScannerFit(
        family=chosen,
        taps=taps,
        tone=tone,
        noise=noise,
        jpeg=jpeg,
        pairs=(len(fit), len(test)),
        errors=jackknife(len(fit), without),
    )
    expected = apply_tone(held.linear(taps), tone)
    coded = expected if jpeg is None else compressed(to_grey(expected), jpeg).float()
    return build_profile(
        name,
        found,
        held,
        {
            "fitted": coded,
            "fitted without JPEG": expected,
            "bicubic": by_resize("matlab"),
            "area": by_resize("area"),
            "best gaussian": by_taps(candidates["gaussian"]),
        },
        origin=origin,
        um_per_px=settings.um_per_px,
    )


def _resized(pairs: Aligned, kernel: Kernel) -> Tensor:
    height, width = (int(n) // pairs.scale for n in pairs.hr.shape[-2:])
    return pairs.inner(resize(pairs.hr, (height, width), kernel=kernel))


def loss(pairs: Aligned, taps: Float64Array, quality: int | None) -> float:
    """Mean squared error of luma after tone and JPEG."""
    linear = pairs.linear(taps)
    luma = luma_of(apply_tone(linear, fit_tone(linear, pairs.lr)).double())
    if quality is not None:
        luma = compress_luma(luma, quality)
    return float((luma - luma_of(pairs.lr.double())).square().mean())


def _fit_family(
    family: str, pairs: Aligned, quality: int | None, settings: FitSettings
) -> Float64Array:
    scale, half = pairs.scale, settings.half_px

    def gaussian(p: Float64Array) -> Float64Array:
        return kernels.gaussian_taps(p[0] * np.exp(p[1]), p[0] * np.exp(-p[1]), p[2], scale, half)

    def optics(p: Float64Array) -> Float64Array:
        na = 0.05 + 0.9 / (1.0 + np.exp(-p[0]))
        return kernels.optics_taps(na, p[1], p[2], scale, half, settings.um_per_px)

    # Coarse grids first: defocus against aperture has narrow, curved valleys.
    if family == "gaussian":
        build, steps = gaussian, (0.15 * scale, 0.15, 0.5)
        starts = [(sigma * scale, 0.0, 0.0) for sigma in (0.15, 0.3, 0.45, 0.6)]
    else:
        build, steps = optics, (0.3, 0.6, 0.3)
        starts = [(na, z, 0.6) for na in (-1.2, -0.7, -0.2) for z in (0.0, 1.5, 3.0, 5.0)]
    ranked = sorted(starts, key=lambda start: loss(pairs, build(np.array(start)), quality))
    first = np.array(ranked[0])
    simplex = np.stack([first, *(first + np.diag(steps))])
    found = optimize.minimize(
        lambda p: loss(pairs, build(p), quality),
        first,
        method="Nelder-Mead",
        options={
            "maxfev": max(8, settings.evaluations - len(starts)),
            "initial_simplex": simplex,
            "xatol": 2e-3,
            "fatol": 1e-4,
        },
    )
    return build(found.x)


def _correct_taps(pairs: Aligned, taps: Float64Array, quality: int | None) -> Float64Array:
    """Gauss-Newton on all taps about a family's kernel; kept only if it predicts better.

    A third of the pairs judges, so that the correction's strength is chosen on other pixels.
    """
    count = len(pairs.lr)
    if count < 2:
        return taps
    judge = torch.arange(count) % 3 == 2 if count > 2 else torch.arange(count) == 1
    learn, other = _subset(pairs, ~judge), _subset(pairs, judge)
    # It must earn its freedom: half a percent on pixels that it has not seen.
    best, best_loss = taps, 0.995 * loss(other, taps, quality)
    for strength in _STRENGTHS:
        current = taps
        for _ in range(2):
            current = _newton_step(learn, current, quality, strength)
        value = loss(other, current, quality)
        if value < best_loss:
            best, best_loss = current, value
    return best


def _subset(pairs: Aligned, which: Tensor) -> Aligned:
    return replace(pairs, hr=pairs.hr[which], lr=pairs.lr[which])


def _newton_step(
    pairs: Aligned, taps: Float64Array, quality: int | None, strength: tuple[float, float]
) -> Float64Array:
    """One Gauss-Newton step: a plane per colour without JPEG, else one plane from the luma."""
    linear = pairs.linear(taps)
    tone = fit_tone(linear, pairs.lr)
    toned = apply_tone(linear, tone)
    # Derivatives of the tone by differences: it is smooth.
    slopes = torch.zeros(3, *linear.shape[:1], 3, *linear.shape[2:])
    for channel in range(3):
        nudge = torch.zeros(1, 3, 1, 1)
        nudge[0, channel] = 1.0
        slopes[channel] = apply_tone(linear + nudge, tone) - toned
    if quality is None:
        error = pairs.lr.float() - toned
        steps = [
            _solve_step(pairs, taps, slopes[c : c + 1, :, c], error[:, c], (c,), strength)
            for c in range(3)
        ]
    else:
        luma, real = luma_of(toned.double()), luma_of(pairs.lr.double())
        deviation = float((compress_luma(luma, quality) - real).square().mean().sqrt())
        wanted = expected_before_jpeg(luma, real, quality, deviation)
        slope = torch.stack([luma_of(s) for s in slopes])
        error = (wanted - luma).float()
        steps = [_solve_step(pairs, taps, slope, error, (0, 1, 2), strength)]
    result = taps + np.stack(steps)
    total: Float64Array = result / result.sum((-1, -2), keepdims=True)
    return total


def _solve_step(
    pairs: Aligned,
    taps: Float64Array,
    slope: Tensor,
    error: Tensor,
    channels: tuple[int, ...],
    strength: tuple[float, float],
) -> Float64Array:
    """Taps that explain `error` (B, h, w), seen through `slope` (channels, B, h, w)."""
    scale = pairs.scale
    # Only the middle is free: far taps are hardly seen, and the family knows its tails.
    side = min(int(taps.shape[-1]), 2 * _FREE_HALF_PX + scale)
    pad = (side - scale) // 2
    height, width = (int(n) for n in pairs.lr.shape[-2:])
    per_pair = max(1, min(height * width, _MAX_EQUATIONS // len(pairs.lr)))
    generator = torch.Generator().manual_seed(0)
    first = pairs.margin_lr_px * scale
    wide = pad_mirror(pairs.hr[:, list(channels)], pad, pad, pad, pad)[..., first:, first:]
    designs, targets = [], []
    for i in range(len(pairs.lr)):
        chosen = torch.randperm(height * width, generator=generator)[:per_pair]
        views = wide[i].unfold(1, side, scale).unfold(2, side, scale)
        patches = views[:, chosen // width, chosen % width].flatten(2)
        weights = slope[:, i].flatten(1)[:, chosen].float()
        designs.append(torch.einsum("cn,cnt->nt", weights, patches))
        targets.append(error[i].flatten()[chosen])
    smoothness, ridge = strength
    step = kernels.solve_taps(
        torch.cat(designs), torch.cat(targets), side, smoothness=smoothness, ridge=ridge
    )
    return np.pad(step, (int(taps.shape[-1]) - side) // 2)
