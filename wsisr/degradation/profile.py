"""A fitted scanner: its degradation, and what the fit was worth on pairs held out from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsisr.arrays import Float64Array
from wsisr.degradation.fitted import Fitted
from wsisr.degradation.scanner_jpeg import JpegSettings, compressed
from wsisr.degradation.scanner_kernel import kernel_shape
from wsisr.degradation.scanner_noise import Noise, with_noise
from wsisr.degradation.scanner_pairs import Aligned, mean_psnr, pair_psnr
from wsisr.degradation.spec import Degradation
from wsisr.degradation.uncertainty import centroid_errors, known, mean_gain
from wsisr.files import save_picture
from wsisr.metrics.texture import spectrum_error
from wsisr.resize import to_grey
from wsisr.tables import markdown_table


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """How well a fitted degradation predicts real LR that it has not seen.

    Attributes
    ----------
    family : str
        Kernel family that the taps began from.
    psnr_db : dict
        Held-out PSNR (RGB) of ``fitted`` (kernel, tone and JPEG, no noise), ``fitted without
        JPEG``, ``rendered`` (noise drawn too, as used), ``bicubic``, ``area`` and ``best
        gaussian`` (none of the three with JPEG, each with its own fitted tone).
    spectrum_error : dict
        Mean |difference of log10 power| of luma to the real LR, for the same.
    centroid_x_px, centroid_y_px, width_px : float
        Of the green kernel about the LR pixel's centre, HR px.
    noise_at_200 : float
        Standard deviation at grey level 200, before JPEG.
    origin : str
        Of the LR: ``rescan``, ``rescan-reduced``, ``cross-scanner``, ``stored-level``; empty
        where the pairs did not come from a store.
    um_per_px : float
        HR pixel size.
    uncertainty : dict
        Standard errors (`wsisr.degradation.uncertainty`); None where one pair cannot tell.
    gain_db, gain_error_db : float or None
        Held-out PSNR of ``fitted`` above ``bicubic``, mean over the held-out pairs, and its
        standard error.
    """

    pairs: int
    held_out_pairs: int
    family: str
    psnr_db: dict[str, float]
    spectrum_error: dict[str, float]
    centroid_x_px: float
    centroid_y_px: float
    width_px: float
    noise_at_200: float
    quality: int | None
    subsampling: str | None
    origin: str
    scale: int
    um_per_px: float
    uncertainty: dict[str, float | None]
    gain_db: float
    gain_error_db: float | None

    def lines(self) -> list[str]:
        """The report as lines of a Markdown table and three facts."""
        rows = [
            (name, f"{value:.2f}", f"{self.spectrum_error[name]:.3f}")
            for name, value in self.psnr_db.items()
        ]
        jpeg = "none found" if self.quality is None else f"Q{self.quality} {self.subsampling}"
        gain = "" if self.gain_error_db is None else f" +- {self.gain_error_db:.2f}"
        width = self.uncertainty.get("width_px")
        doubt = "" if width is None else f" +- {width:.3f}"
        return [
            *markdown_table(["simulator", "held-out PSNR, dB", "log-spectrum distance"], rows),
            "",
            f"LR: {self.origin or 'origin not known'}, x{self.scale}, HR {self.um_per_px:.4g} "
            f"um/px. Held-out gain over bicubic {self.gain_db:+.2f}{gain} dB.",
            f"{self.pairs} pairs fitted, {self.held_out_pairs} held out; kernel family "
            f"{self.family}, width {self.width_px:.2f}{doubt} HR px, centroid "
            f"({self.centroid_x_px:+.3f}, {self.centroid_y_px:+.3f}) HR px.",
            f"Noise {self.noise_at_200:.2f} grey levels at 200; LR JPEG {jpeg}.",
        ]


@dataclass(frozen=True, kw_only=True)
class FittedProfile:
    """A fitted degradation with its report."""

    degradation: Degradation
    report: FitReport

    @property
    def stage(self) -> Fitted:
        """The fitted parameters."""
        stage = self.degradation.stages[0]
        assert isinstance(stage, Fitted)
        return stage

    def kernel(self) -> Float64Array:
        """Taps on HR pixels, shape (C, k, k)."""
        return np.asarray(self.stage.kernel, dtype=np.float64)

    def write(self, path: Path) -> None:
        """Write ``scanner.json``, which works wherever a degradation's name does."""
        self.degradation.write(path)

    def write_picture(self, path: Path, magnify: int = 12) -> None:
        """Write the kernel as a PNG: planes side by side, white = largest tap, red = negative."""
        taps = self.kernel()
        parts = []
        for plane in taps:
            positive = np.clip(plane / plane.max(), 0, 1) ** 0.5
            negative = np.clip(-plane / plane.max(), 0, 1) ** 0.5
            shown = np.stack((np.maximum(positive, negative), positive, positive), -1)
            parts.append(
                np.pad(np.kron(shown, np.ones((magnify, magnify, 1))), ((4, 4), (4, 4), (0, 0)))
            )
        image = (np.concatenate(parts, axis=1) * 255).round().astype(np.uint8)
        save_picture(path, image)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScannerFit:
    """What was found of a scanner.

    Attributes
    ----------
    family : str
        Of the kernel.
    taps : ndarray, shape (k, k)
    tone : ndarray
    pairs : (int, int)
        Fitted and held out.
    errors : mapping of str to float
        Standard errors by the names of the report.
    """

    family: str
    taps: Float64Array
    tone: Float64Array
    noise: Noise
    jpeg: JpegSettings | None
    pairs: tuple[int, int]
    errors: Mapping[str, float]


def build_profile(
    name: str,
    fit: ScannerFit,
    held: Aligned,
    expected: Mapping[str, torch.Tensor],
    *,
    origin: str = "",
    um_per_px: float = 0.25,
) -> FittedProfile:
    """Put a fit together and score it on the pairs that were held out of it.

    Parameters
    ----------
    expected : mapping of str to Tensor (B, 3, h, w)
        LR of the held-out pairs under each simulator, without noise; ``fitted``, ``fitted without
        JPEG`` and ``bicubic`` must be among them.
    origin : str
        Of the LR.
    um_per_px : float
        Of the HR.
    """
    taps, noise, jpeg = fit.taps, fit.noise, fit.jpeg
    noisy = to_grey(with_noise(expected["fitted without JPEG"], noise, seed=1))
    simulated = {**expected, "rendered": compressed(noisy, jpeg).float()}
    psnr = {key: mean_psnr(value, held.lr) for key, value in simulated.items()}
    spectra = {
        key: float(np.mean(spectrum_error(value.clamp(0, 255) / 255.0, held.lr)))
        for key, value in simulated.items()
    }
    shape = kernel_shape(taps)
    errors = {**fit.errors, **centroid_errors(expected["fitted"], held.lr, held.scale)}
    gain, gain_error = mean_gain(
        pair_psnr(expected["fitted"], held.lr), pair_psnr(expected["bicubic"], held.lr)
    )
    report = FitReport(
        pairs=fit.pairs[0],
        held_out_pairs=fit.pairs[1],
        family=fit.family,
        psnr_db={key: round(value, 3) for key, value in psnr.items()},
        spectrum_error={key: round(value, 4) for key, value in spectra.items()},
        centroid_x_px=round(shape.centroid_x_px, 4),
        centroid_y_px=round(shape.centroid_y_px, 4),
        width_px=round(shape.width_px, 4),
        noise_at_200=round(noise.deviation(200.0), 3),
        quality=None if jpeg is None else jpeg.quality,
        subsampling=None if jpeg is None else jpeg.subsampling,
        origin=origin,
        scale=held.scale,
        um_per_px=um_per_px,
        uncertainty=known(errors),
        gain_db=round(gain, 3),
        gain_error_db=None if np.isnan(gain_error) else round(gain_error, 3),
    )
    stage: dict[str, Any] = {
        "kind": "fitted",
        "scale": held.scale,
        "kernel": np.round(taps, 9).tolist(),
        "tone": np.round(fit.tone, 6).tolist(),
        "shot": noise.shot,
        "read_variance": noise.read_variance,
    }
    if jpeg is not None:
        stage |= {"quality": jpeg.quality, "subsampling": jpeg.subsampling}
    degradation = Degradation(name=name, stages=(Fitted(**stage),), report=asdict(report))
    return FittedProfile(degradation=degradation, report=report)
