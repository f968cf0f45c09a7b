"""How far a fitted scanner can be trusted: refits that leave a part of its pairs out.

The delete-a-group jackknife: the fit is made again without each of a few groups of pairs, and the
scatter of those refits, times the root of (groups - 1), is the standard error of the whole. The
place of the kernel is asked of the held-out pairs instead, one by one: what the fit leaves of a
pair is explained by a small shift (an image moved by s changes by s times its gradient). Both
know nothing of errors that all pairs have in common, such as a stain that faded between scans.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.degradation.fitted import apply_tone
from wsisr.degradation.scanner_jpeg import luma_of

CHANNELS = ("red", "green", "blue")
COLOURS = {
    "glass": (240.0, 240.0, 240.0),
    "eosin": (225.0, 150.0, 190.0),
    "haematoxylin": (110.0, 80.0, 150.0),
}
"""HR colours at which tones are compared."""
MIN_PAIRS = 4
"""Fewest pairs, fitted or held out, whose scatter says something."""
GROUPS = 5


def tones(tone: Float64Array) -> dict[str, float]:
    """What becomes of `COLOURS`, grey levels by channel and colour."""
    pixels = torch.tensor(list(COLOURS.values())).mT.reshape(1, 3, 1, len(COLOURS))
    seen = apply_tone(pixels, tone)[0, :, 0]
    return {
        f"{channel} of {colour}": float(seen[i, j])
        for j, colour in enumerate(COLOURS)
        for i, channel in enumerate(CHANNELS)
    }


def jackknife(count: int, fit: Callable[[Tensor], dict[str, float]]) -> dict[str, float]:
    """Standard errors of the numbers that `fit` gives for the indices of some of `count` pairs.

    NaN for all where there are fewer than `MIN_PAIRS` pairs.
    """
    groups = min(GROUPS, count)
    every = torch.arange(count)
    if count < MIN_PAIRS:
        return dict.fromkeys(fit(every), float("nan"))
    refits = [fit(every[every % groups != group]) for group in range(groups)]
    return {
        key: float(np.sqrt(groups - 1) * np.std([refit[key] for refit in refits]))
        for key in refits[0]
    }


def centroid_errors(expected: Tensor, real: Tensor, scale: int) -> dict[str, float]:
    """Standard error of the kernel's place, HR px, from held-out pairs (float and uint8, RGB)."""
    luma, seen = luma_of(expected.double()), luma_of(real.double())
    table = np.array([_shift(a, b) for a, b in zip(luma, seen, strict=True)])
    count = len(table)
    error = table.std(axis=0, ddof=1) / np.sqrt(count) if count >= MIN_PAIRS else (np.nan,) * 2
    return {"centroid_x_px": float(scale * error[0]), "centroid_y_px": float(scale * error[1])}


def _shift(expected: Tensor, real: Tensor) -> tuple[float, float]:
    """Shift of a pair that its fit has left, LR px; further blur and an offset are let be."""
    inner = (slice(1, -1), slice(1, -1))
    gx = (expected[1:-1, 2:] - expected[1:-1, :-2]) / 2
    gy = (expected[2:, 1:-1] - expected[:-2, 1:-1]) / 2
    around = expected[1:-1, 2:] + expected[1:-1, :-2] + expected[2:, 1:-1] + expected[:-2, 1:-1]
    laplacian = around - 4 * expected[inner]
    design = torch.stack([-gx, -gy, laplacian, torch.ones_like(gx)]).flatten(1).mT
    wanted = (real - expected)[inner].flatten()
    solution = torch.linalg.lstsq(design, wanted[:, None]).solution[:, 0]
    return float(solution[0]), float(solution[1])


def mean_gain(first: Float64Array, second: Float64Array) -> tuple[float, float]:
    """Mean of paired differences, dB, and its standard error (NaN for one pair)."""
    gain = first - second
    error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else float("nan")
    return float(gain.mean()), error


def known(errors: Mapping[str, float]) -> dict[str, float | None]:
    """The errors for JSON: what is not known is None."""
    return {key: None if np.isnan(v) else round(v, 5) for key, v in errors.items()}
