"""Distances between sets of images in a feature space: FID and KID.

The extractor is the caller's: any callable from uint8 images (N, 3, H, W) to features (N, d). Its
name belongs into every table, with the number of images: FID is badly biased for few of them
(two samples of 1,000 of one distribution in 2,048 dimensions lie 0.3 traces apart), KID is not.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.metrics.images import MetricError

_LOG = logging.getLogger(__name__)
Extractor = Callable[[Tensor], Tensor]
ENOUGH_IMAGES = 2048


@dataclass(frozen=True, kw_only=True)
class Kid:
    """Kernel inception distance: mean and standard deviation over subsets.

    The deviation is NaN where all subsets are the same images: it would say nothing.
    """

    mean: float
    deviation: float


@torch.inference_mode()
def extract(batches: Iterable[Tensor], extractor: Extractor) -> Float64Array:
    """Features (N, d) of batches of uint8 images, float64."""
    parts = [extractor(batch).double().cpu().numpy() for batch in batches]
    if not parts:
        raise MetricError("No images to take features of.")
    features = np.concatenate(parts)
    if features.ndim != 2:
        raise MetricError(
            f"An extractor must give (N, d); this gave {features.shape[1:]} per image."
        )
    return features


def fid(first: Float64Array, second: Float64Array) -> float:
    """Frechet distance of two sets of features (N, d) and (M, d).

    Exact and real for any N: the trace of the root of the product of both covariances is the
    sum of the singular values of one matrix of the centred features, so that no matrix root of a
    singular product is needed.

    Raises
    ------
    MetricError
        Fewer than two samples, different dimensions, or features that are not finite.
    """
    a, b = _checked(first, second)
    fewest = min(len(a), len(b))
    if fewest < ENOUGH_IMAGES:
        _LOG.warning("FID of %d images is biased upwards: below 2,048, compare by KID.", fewest)
    mean = a.mean(0) - b.mean(0)
    xa = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    xb = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    # tr sqrt(A^T A B^T B) = sum of singular values of A B^T; reduce tall factors by QR first.
    if len(xa) > xa.shape[1]:
        xa = np.linalg.qr(xa, mode="r")
    if len(xb) > xb.shape[1]:
        xb = np.linalg.qr(xb, mode="r")
    cross = np.linalg.svd(xa @ xb.T, compute_uv=False).sum()
    return float(max(0.0, mean @ mean + (xa**2).sum() + (xb**2).sum() - 2.0 * cross))


def kid(
    first: Float64Array,
    second: Float64Array,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> Kid:
    """Unbiased squared maximum mean discrepancy with the cubic kernel ``(x y / d + 1)^3``.

    Parameters
    ----------
    first, second : ndarray, (N, d) and (M, d)
    subsets : int
        Drawn without replacement within a subset; from 2, so that there is a deviation.
    subset_size : int
        Images of each set in a subset; smaller than the smaller set, or else every subset is the
        whole set.

    Raises
    ------
    MetricError
        Fewer images than a subset has; features as for `fid`.
    """
    a, b = _checked(first, second)
    fewest = min(len(a), len(b))
    if subsets < 2 or subset_size < 2:
        raise MetricError(f"KID of {subsets} subsets of {subset_size} images: give 2 or more.")
    if fewest < subset_size:
        raise MetricError(
            f"KID with subsets of {subset_size} needs as many images, and the smaller set has "
            f"{fewest}: every subset would be the whole set. Give "
            f"subset_size={max(2, fewest // 2)}, or more images."
        )
    rng = np.random.default_rng(seed)
    values = [
        _mmd(a[rng.permutation(len(a))[:subset_size]], b[rng.permutation(len(b))[:subset_size]])
        for _ in range(subsets)
    ]
    drawn = max(len(a), len(b)) > subset_size
    return Kid(
        mean=float(np.mean(values)),
        deviation=float(np.std(values)) if drawn else float("nan"),
    )


def _mmd(a: Float64Array, b: Float64Array) -> float:
    size, dimensions = a.shape

    def kernel(x: Float64Array, y: Float64Array) -> Float64Array:
        result: Float64Array = (x @ y.T / dimensions + 1.0) ** 3
        return result

    own = [k.sum() - np.trace(k) for k in (kernel(a, a), kernel(b, b))]
    return float(sum(own) / (size * (size - 1)) - 2.0 * kernel(a, b).mean())


def _checked(first: Float64Array, second: Float64Array) -> tuple[Float64Array, Float64Array]:
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise MetricError(
            f"Two sets (N, d) of at least 2 features are needed: {a.shape}, {b.shape}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise MetricError("The features hold values that are not finite.")
    return a, b
