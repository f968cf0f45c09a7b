"""Label masks: a picture whose grey levels are classes."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.names import TUMOR
from wsisr.selection.annotation_formats.shapes import ParsedShape
from wsisr.selection.regions import mask_to_polygons

MAX_MASK_PX = 400_000_000
DEFAULT_LABELS: Mapping[int, str] = {1: TUMOR, 255: TUMOR}


def read_mask(path: Path, data: bytes) -> NDArray[np.integer]:
    """Grey levels (or palette indices) of a PNG or TIFF, shape (h, w).

    Raises
    ------
    AnnotationError
        No single-channel image, or an absurdly large one.
    """
    try:
        with Image.open(BytesIO(data), formats=("PNG", "TIFF", "BMP")) as image:
            if image.width * image.height > MAX_MASK_PX:
                raise AnnotationError(
                    f"{path}: {image.width} x {image.height} px is too large for a label mask; "
                    "store it at 2-8 um per px."
                )
            if image.mode not in ("1", "L", "P", "I;16", "I"):
                raise AnnotationError(
                    f"{path}: a label mask has one channel, this image is {image.mode}."
                )
            values: NDArray[np.integer] = np.asarray(image).astype(np.int64, copy=False)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{path}: cannot be read as a mask ({str(error)[:120]}).") from error
    return values


def parse_label_mask(
    path: Path, data: bytes, px_per_mask_px: float, labels: Mapping[int, str]
) -> list[ParsedShape]:
    """Outline every class of a mask along its pixel edges.

    Parameters
    ----------
    px_per_mask_px : float
        Level-0 pixels per mask pixel.
    labels : mapping of grey level to label
        Other grey levels are background.
    """
    values = read_mask(path, data)
    shapes = []
    for value, label in sorted(labels.items()):
        for polygon in mask_to_polygons(values == value, px_per_mask_px):
            shapes.append(ParsedShape(label=label, geometry=polygon))
    return shapes
