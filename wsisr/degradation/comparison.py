"""Native against simulated LR of the same HR: which simulation is like the scanner, and how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.degradation.apply import degrade
from wsisr.degradation.fitted import apply_tone, fit_tone
from wsisr.degradation.scanner_pairs import RealPair, mean_psnr, moved
from wsisr.degradation.spec import Degradation, parse_degradation
from wsisr.errors import DegradationError
from wsisr.files import save_picture, staged_files
from wsisr.metrics.images import as_batch, to_channel
from wsisr.metrics.texture import radial_spectrum, spectrum_error
from wsisr.tables import markdown_table

_EDGE_PX = 4
_BINS = 32
_FLAT_PX = 9
"""Side of the places that are asked for structure."""
_LEAST_PX = 2 * _EDGE_PX + _FLAT_PX + 2


@dataclass(frozen=True, kw_only=True)
class ComparedDegradation:
    """One simulation against the native LR; means over pairs.

    Attributes
    ----------
    name : str
        Spec of the degradation, or ``native``.
    psnr_db : float
        RGB, of the simulated LR as it is (tone differences count).
    toned_psnr_db : float
        After a quadratic map of RGB fitted to the native LR: what kernel and noise leave.
    spectrum_error : float
        Mean |difference of log10 power| of luma.
    noise_levels : float
        Standard deviation where there is no structure, grey levels.
    mtf_quarter, mtf_high : float
        Amplitude against the native LR at 0.25 and 0.4 cycles per LR px (1 = alike).
    """

    name: str
    psnr_db: float
    toned_psnr_db: float
    spectrum_error: float
    noise_levels: float
    mtf_quarter: float
    mtf_high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows of a comparison, native first, and the images of one pair."""

    rows: tuple[ComparedDegradation, ...]
    images: tuple[tuple[str, Tensor], ...]

    def markdown(self) -> str:
        """The rows as a Markdown table."""
        rows = [
            (
                *(r.name, _number(r.psnr_db), _number(r.toned_psnr_db), f"{r.spectrum_error:.3f}"),
                *(f"{value:.2f}" for value in (r.noise_levels, r.mtf_quarter, r.mtf_high)),
            )
            for r in self.rows
        ]
        first = ["LR", "PSNR, dB", "PSNR after tone, dB", "log-spectrum distance"]
        header = [*first, "noise, levels", "MTF 0.25", "MTF 0.4"]
        return "\n".join(markdown_table(header, rows))

    def write_picture(self, path: Path, magnify: int = 3) -> None:
        """Write one pair's images side by side, in the order of the rows, as a PNG."""
        parts = []
        for _, image in self.images:
            big = image.permute(1, 2, 0).numpy().repeat(magnify, 0).repeat(magnify, 1)
            parts.append(np.pad(big, ((4, 4), (4, 4), (0, 0)), constant_values=255))
        with staged_files(path.parent, path.name) as staged:
            save_picture(staged / path.name, np.concatenate(parts, axis=1))


def compare_with_native(
    pairs: Iterable[RealPair], specs: Sequence["str | Path | Degradation"], *, seed: int = 0
) -> Comparison:
    """Degrade the HR of registered pairs in several ways and hold each against the native LR.

    Parameters
    ----------
    pairs : iterable of RealPair
        HR is moved by each pair's residual first.
    specs : sequence
        Degradations; those with a tone of their own (fitted) show it in `psnr_db`.

    Raises
    ------
    DegradationError
        No pairs, pairs that are too small, or a degradation that does not work at their scale.
    """
    used = list(pairs)
    if not used:
        raise DegradationError("There are no pairs to compare.")
    scale = used[0].scale
    hr = torch.stack([_shifted(pair) for pair in used])
    native = torch.stack([torch.as_tensor(pair.lr.copy()).permute(2, 0, 1) for pair in used])
    size = (int(native.shape[2]), int(native.shape[3]))
    if min(size) < _LEAST_PX:
        raise DegradationError(
            f"LR patches of {size[1]} x {size[0]} px are too small to be compared; {_LEAST_PX} px "
            "a side are needed. Take a store of larger patches."
        )
    rows = [_row("native", native, native)]
    images = [("native", native[0])]
    for spec in specs:
        degradation = parse_degradation(spec)
        made = degrade(hr, degradation, float(scale), seed=seed, size=size)
        rows.append(_row(degradation.name, made, native))
        images.append((degradation.name, made[0]))
    return Comparison(rows=tuple(rows), images=tuple(images))


def _shifted(pair: RealPair) -> Tensor:
    hr = torch.as_tensor(pair.hr.copy()).permute(2, 0, 1)[None].float()
    return moved(hr, pair.residual_px)[0].add(0.5).floor().clamp(0, 255).to(torch.uint8)


def _row(name: str, made: Tensor, native: Tensor) -> ComparedDegradation:
    inside = (..., slice(_EDGE_PX, -_EDGE_PX), slice(_EDGE_PX, -_EDGE_PX))
    a, b = made[inside], native[inside]
    toned = apply_tone(a.float(), fit_tone(a.float(), b))
    spectra = [
        radial_spectrum(to_channel(as_batch(x)[0], "y"), _BINS).mean(0).numpy() for x in (a, b)
    ]
    ratio = np.sqrt((spectra[0] + 1e-9) / (spectra[1] + 1e-9))
    return ComparedDegradation(
        name=name,
        psnr_db=mean_psnr(a, b) if name != "native" else float("inf"),
        toned_psnr_db=mean_psnr(toned, b) if name != "native" else float("inf"),
        spectrum_error=float(np.mean(spectrum_error(a, b))),
        noise_levels=noise_level(a),
        mtf_quarter=float(ratio[int(0.25 * 2 * _BINS)]),
        mtf_high=float(ratio[int(0.4 * 2 * _BINS)]),
    )


def noise_level(images: Tensor) -> float:
    """Standard deviation of the noise in the least structured tenth of luma, grey levels.

    A second difference on both axes cancels planes; its response to white noise is 6 sigma.
    """
    luma = to_channel(as_batch(images)[0], "y")
    taps = torch.tensor((1.0, -2.0, 1.0), dtype=luma.dtype)
    fine = F.conv2d(luma, (taps[:, None] * taps[None, :])[None, None])
    energy = F.avg_pool2d(fine.square(), _FLAT_PX).flatten()
    coarse = F.avg_pool2d(luma, 3, 1)[..., : fine.shape[-2], : fine.shape[-1]]
    spread = F.avg_pool2d(coarse.square(), _FLAT_PX) - F.avg_pool2d(coarse, _FLAT_PX).square()
    flat = spread.flatten() <= torch.quantile(spread.flatten(), 0.1)
    return float(energy[flat].mean().sqrt() / 6.0)


def _number(value: float) -> str:
    return "-" if np.isinf(value) else f"{value:.2f}"
