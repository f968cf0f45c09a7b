"""NIQE: distance of an image's natural-scene statistics from those of pristine images.

``official`` holds the parameters of the original release (photographs); on H&E they are only
relative. `fit_niqe` makes a model of HR tissue instead, which says how far SR is from tissue.

References
----------
Mittal, Soundararajan and Bovik, Making a completely blind image quality analyzer, IEEE Signal
Processing Letters 20 (2013) 209-212. Parameters: NIQE software release, LIVE, The University of
Texas at Austin; its notice stands in ``niqe_official.txt``.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.ndimage import correlate1d
from scipy.special import gamma

from wsisr.arrays import Float64Array
from wsisr.metrics.images import Images, MetricError, as_batch, crop_border, to_channel
from wsisr.resize import resize

_LOG = logging.getLogger(__name__)
BLOCK_PX = 96
LEAST_BLOCKS = 9
ENOUGH_BLOCKS = 25
_SHARP_SHARE = 0.75
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_OFFICIAL = Path(__file__).with_name("niqe_official.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class NiqeModel:
    """Mean (36,) and covariance (36, 36) of the features of pristine blocks.

    Attributes
    ----------
    name : str
        ``official``, or what `fit_niqe` was given; it belongs into every table.
    """

    name: str
    mean: Float64Array
    covariance: Float64Array

    def write(self, path: Path) -> None:
        """Write as safetensors."""
        save_file({"mean": self.mean, "covariance": self.covariance}, path, {"name": self.name})


def read_niqe(path: Path | None = None) -> NiqeModel:
    """Read a model; the official one by default.

    Raises
    ------
    MetricError
        No NIQE model in the file.
    """
    path = path or _OFFICIAL
    try:
        content = load_file(path)
        mean, covariance = content["mean"], content["covariance"]
    except (OSError, KeyError, SafetensorError) as error:
        raise MetricError(f"{path}: no NIQE model ({error}); write one with fit_niqe.") from None
    if mean.shape != (36,) or covariance.shape != (36, 36):
        raise MetricError(f"{path}: a NIQE model has a mean of 36 and a covariance of 36 x 36.")
    name = "official" if path == _OFFICIAL else path.stem
    return NiqeModel(name=name, mean=mean.astype(float), covariance=covariance.astype(float))


def niqe(
    images: Images,
    crop: int = 0,
    model: NiqeModel | None = None,
    luma: Literal["y", "y-rounded"] = "y",
) -> float | Float64Array:
    """NIQE of each image, lower is better.

    Parameters
    ----------
    images : array or tensor
        One RGB image or a batch, uint8 or floating in [0, 1]; rounded to 8 bit first.
    crop : int
        Border that does not count (PIRM: 4).
    model : NiqeModel, optional
        The official one by default.
    luma : {"y", "y-rounded"}
        Luma as it is, or rounded to whole levels (MATLAB's uint8 conversion, BasicSR). Rounding
        alone moves the score by about one percent.

    Raises
    ------
    MetricError
        Fewer than 9 blocks of 96 px (the score of a 256 px patch is noise: stitch patches of one
        region first), or an image without any structure.

    Notes
    -----
    Below 25 blocks a warning is logged.
    """
    model = model or read_niqe()
    x, single = as_batch(images)
    planes = to_channel(torch.floor(crop_border(x, crop) + 0.5), luma)
    values = [_distance(plane[0].cpu().numpy(), model) for plane in planes]
    return values[0] if single else np.array(values)


def perceptual_index(niqe_mean: float, nrqm_mean: float | None = None) -> float:
    """PIRM's perceptual index ``(NIQE + 10 - Ma) / 2`` of means over a data set.

    Raises
    ------
    MetricError
        Without the mean NRQM (Ma) score, whose model must come from the user.
    """
    if nrqm_mean is None:
        raise MetricError(
            "The perceptual index needs the NRQM (Ma) score, whose model is not part of wsisr; "
            "give the mean score of the official code, or report NIQE alone."
        )
    return (niqe_mean + 10.0 - nrqm_mean) / 2.0


def fit_niqe(images: Iterable[Images], name: str, crop: int = 0) -> NiqeModel:
    """Model of pristine images, e.g. HR tissue, from their sharpest blocks of 96 px: at least 37 in
    all, hundreds for a stable model.
    """
    kept = []
    for image in images:
        x, _ = as_batch(image)
        luma = to_channel(torch.floor(crop_border(x, crop) + 0.5), "y")
        for plane in luma:
            features, sharpness = niqe_features(plane[0].cpu().numpy())
            kept.append(features[sharpness > _SHARP_SHARE * sharpness.max()])
    blocks = np.concatenate(kept) if kept else np.empty((0, 36))
    blocks = blocks[np.isfinite(blocks).all(axis=1)]
    if len(blocks) < 37:
        raise MetricError(
            f"A NIQE model needs at least 37 sharp blocks of {BLOCK_PX} px; these images have "
            f"{len(blocks)}. Give more or larger images."
        )
    return NiqeModel(name=name, mean=blocks.mean(axis=0), covariance=np.cov(blocks.T))


def niqe_features(luma: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Features (n, 36) and sharpness (n,) of the 96 px blocks of a luma plane."""
    rows, columns = luma.shape[0] // BLOCK_PX, luma.shape[1] // BLOCK_PX
    if rows * columns < 1:
        raise MetricError(f"NIQE needs blocks of {BLOCK_PX} px; the image has {luma.shape}.")
    plane = luma[: rows * BLOCK_PX, : columns * BLOCK_PX].astype(np.float64)
    parts, sharpness = [], np.empty(0)
    for side in (BLOCK_PX, BLOCK_PX // 2):
        normal, deviation = _normalised(plane)
        blocks = _blocks(normal, side)
        parts.append(np.stack([_block_features(block) for block in blocks]))
        if side == BLOCK_PX:
            sharpness = _blocks(deviation, side).mean(axis=(1, 2))
            plane = resize(torch.as_tensor(plane), scale=0.5).numpy()
    return np.concatenate(parts, axis=1), sharpness


def _distance(luma: Float64Array, model: NiqeModel) -> float:
    count = (luma.shape[0] // BLOCK_PX) * (luma.shape[1] // BLOCK_PX)
    if count < LEAST_BLOCKS:
        raise MetricError(
            f"NIQE of {luma.shape[1]} x {luma.shape[0]} px has {count} blocks of {BLOCK_PX} px and "
            f"would be noise; {LEAST_BLOCKS} are needed. Stitch the patches of one region first."
        )
    if count < ENOUGH_BLOCKS:
        _LOG.warning(
            "NIQE of %d blocks is rough; %d make it stable: stitch patches of one region first.",
            count,
            ENOUGH_BLOCKS,
        )
    features, _ = niqe_features(luma)
    whole = features[np.isfinite(features).all(axis=1)]
    if len(whole) < 2:
        raise MetricError("NIQE is not defined on an image without structure.")
    with np.errstate(invalid="ignore"):
        mean = np.nanmean(np.where(np.isfinite(features), features, np.nan), axis=0)
    middle = np.linalg.pinv((model.covariance + np.cov(whole.T)) / 2)
    away = model.mean - mean
    return float(np.sqrt(away @ middle @ away))


def _normalised(plane: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Mean-subtracted, contrast-normalised coefficients, and the local deviation."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    taps /= taps.sum()

    def smooth(x: Float64Array) -> Float64Array:
        result: Float64Array = correlate1d(
            correlate1d(x, taps, 0, mode="nearest"), taps, 1, mode="nearest"
        )
        return result

    mean = smooth(plane)
    deviation = np.sqrt(np.abs(smooth(plane * plane) - mean * mean))
    return (plane - mean) / (deviation + 1.0), deviation


def _blocks(x: Float64Array, side: int) -> Float64Array:
    rows, columns = x.shape[0] // side, x.shape[1] // side
    return x.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _block_features(block: Float64Array) -> Float64Array:
    alpha, left, right = _asymmetric_gaussian(block)
    features = [alpha, (left + right) / 2]
    for shift in _SHIFTS:
        alpha, left, right = _asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / alpha) / gamma(1 / alpha)
        features += [alpha, mean, left, right]
    return np.array(features)


@lru_cache(maxsize=1)
def _shape_table() -> tuple[Float64Array, Float64Array]:
    shape = np.arange(0.2, 10.0005, 0.001)
    ratio = gamma(2 / shape) ** 2 / (gamma(1 / shape) * gamma(3 / shape))
    return shape, ratio


def _asymmetric_gaussian(values: Float64Array) -> tuple[float, float, float]:
    """Shape and both scales of an asymmetric generalised Gaussian, by moments."""
    flat = values.ravel()
    low, high = flat[flat < 0], flat[flat > 0]
    if not len(low) or not len(high):
        return 1.0, float("nan"), float("nan")
    left, right = np.sqrt((low * low).mean()), np.sqrt((high * high).mean())
    g = left / right
    r = np.abs(flat).mean() ** 2 / (flat * flat).mean()
    wanted = r * (g**3 + 1) * (g + 1) / (g * g + 1) ** 2
    shape, ratio = _shape_table()
    alpha = float(shape[np.argmin((ratio - wanted) ** 2)])
    width = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
    return alpha, float(left * width), float(right * width)
