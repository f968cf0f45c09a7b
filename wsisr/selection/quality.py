"""Numbers about patches: texture, nuclei and colour at overview scale, folds and blur in tiles.

Folds and blur judge single tiles. They are no part of the tissue mask: a fold is tissue, but a
poor target.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import Float32Array, Float64Array, UInt8Array
from wsisr.errors import ConfigError
from wsisr.selection.cues import (
    TEXTURE_WINDOW_UM,
    DensityMap,
    TextureMap,
    WhitePoint,
    odd_px,
    tissue_cues,
)
from wsisr.selection.tissue_map import TissueMap, box_means

BLUR_UM_PER_PX = 1.0
HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
"""Optical-density directions of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23, 2001."""
FOLD_DENSITY = 0.75
FOLD_CHROMA = 0.18


@dataclass(frozen=True, kw_only=True)
class TileQuality:
    """How usable one tile is.

    Attributes
    ----------
    sharpness : float
        Variance of the Laplacian of the luma at 1 um/px, grey levels squared. Blurred tissue lies
        well below the rest of its slide; compare within a slide.
    fold_share : float
        Share of the tile that is very dark and still coloured, as doubled tissue is.
    structured_share : float
        Share of the tile with visible structure; below 0.05 it is blank for SR.
    """

    sharpness: float
    fold_share: float
    structured_share: float


def tile_quality(rgb: UInt8Array, um_per_px: float, white: WhitePoint) -> TileQuality:
    """Judge a tile of a slide.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
        At 1 um/px or finer.
    white : WhitePoint
        Of the whole slide: a tile may have no glass.

    Raises
    ------
    ConfigError
        If the tile is coarser than blur can be judged at.
    """
    if um_per_px > 1.5 * BLUR_UM_PER_PX:
        raise ConfigError(
            f"Blur is judged at 1 um/px; a tile at {um_per_px:g} um/px is too coarse."
        )
    scale = min(1.0, um_per_px / BLUR_UM_PER_PX)
    size = (max(8, round(rgb.shape[1] * scale)), max(8, round(rgb.shape[0] * scale)))
    tile = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    luma = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    cues = tissue_cues(tile, white, BLUR_UM_PER_PX)
    _, chroma = cues.colours(tile)
    local = cv2.blur(luma.astype(np.float32), (5, 5))
    deviation = cv2.blur(luma.astype(np.float32) ** 2, (5, 5)) - local**2
    return TileQuality(
        sharpness=float(cv2.Laplacian(luma, cv2.CV_32F).var()),
        fold_share=float(((cues.density[:] > FOLD_DENSITY) & (chroma > FOLD_CHROMA)).mean()),
        structured_share=float((deviation > 9.0).mean()),
    )


def texture_map(tissue: TissueMap) -> TextureMap:
    """Texture of the overview inside tissue, 0 elsewhere. Shape (h, w)."""
    rgb, white = _picture(tissue)
    return TextureMap(DensityMap(rgb, white), tissue.um_per_px, where=tissue.mask)


def nuclei_map(tissue: TissueMap) -> Float32Array:
    """Haematoxylin in optical density inside tissue, 0 elsewhere. Shape (h, w).

    Fixed two-stain unmixing (least squares) of densities over the slide's own glass, looked up in
    three tables: a weight for sampling, no cell count. (scikit-image's `separate_stains` measures
    against white 1.0, through logarithms of every pixel.)
    """
    rgb, white = _picture(tissue)
    stains = np.array([HAEMATOXYLIN, EOSIN])
    unmix = np.linalg.pinv(stains)[:, 0].astype(np.float32)
    tables = [
        (unmix[c] * np.maximum(0, -np.log10((np.arange(256) + 1) / (white.rgb[c] + 1)))).astype(
            np.float32
        )
        for c in range(3)
    ]
    amount = sum(table[rgb[..., c]] for c, table in enumerate(tables))
    side = odd_px(TEXTURE_WINDOW_UM, tissue.um_per_px)
    smooth = cv2.blur(np.maximum(amount, 0).astype(np.float32), (side, side))
    return np.where(tissue.mask, np.asarray(smooth, np.float32), np.float32(0))


def mean_rgb(tissue: TissueMap, boxes: ArrayLike) -> Float64Array:
    """Mean colour of level-0 boxes (n, 4), from the overview. Shape (n, 3), grey levels."""
    rgb, _ = _picture(tissue)
    values = np.asarray(boxes, np.float64)
    return np.stack(
        [box_means(rgb[..., channel], values, tissue.factor) for channel in range(3)], axis=1
    )


def _picture(tissue: TissueMap) -> tuple[UInt8Array, WhitePoint]:
    if tissue.overview is None:
        raise ConfigError("This tissue map has no overview (it was imported); find tissue anew.")
    return tissue.overview, WhitePoint(rgb=tissue.health.white_rgb, noise=1.0, found=True)
