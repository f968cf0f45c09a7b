"""What wsisr eval --task nuclei=mine --plugin mine.py asks."""

import numpy as np
from skimage.measure import label

from wsisr.tasks import register_segmenter


@register_segmenter("mine")
def find(image: np.ndarray) -> np.ndarray:
    """Image (H, W, 3) uint8 to labels (H, W), 0 is background; or (labels, anything)."""
    return label(image.mean(2) < 130).astype(np.int32)
