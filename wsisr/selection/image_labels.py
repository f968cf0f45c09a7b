"""What the label file of a published image set says: instances, and the class of a field."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import AnnotationError

CONSEP_CLASSES = {
    1: "miscellaneous",
    2: "inflammatory",
    3: "epithelial",
    4: "epithelial",
    5: "spindle",
    6: "spindle",
    7: "spindle",
}
"""CoNSeP's seven types of nuclei, merged to four as its paper does for the reported scores."""


def instance_map(path: Path) -> NDArray[np.int32]:
    """The instances (glands, nuclei) of an image, for downstream tasks.

    Parameters
    ----------
    path : Path
        GlaS's ``*_anno.bmp`` or CoNSeP's ``.mat`` with ``inst_map``.

    Returns
    -------
    ndarray, shape (h, w), int32
        0 is background; pixels of the image that the file belongs to.

    Raises
    ------
    AnnotationError
        If the file is neither.
    """
    if path.suffix.lower() == ".mat":
        values = _mat(path).get("inst_map")
        if values is None:
            raise AnnotationError(f"{path}: has no inst_map, as CoNSeP's labels do.")
        return np.asarray(values, np.int32)
    from PIL import Image

    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except OSError as error:
        raise AnnotationError(f"{path}: no label image that can be read ({error}).") from error
    if values.ndim != 2:
        raise AnnotationError(f"{path}: a label image has one channel, this one {values.shape}.")
    return values.astype(np.int32)


def field_classes(
    path: Path, origins: NDArray[np.int64], field_px: int, classes: tuple[str, ...]
) -> list[str]:
    """The most frequent type of nucleus in each field of a CoNSeP image.

    Parameters
    ----------
    path : Path
        A ``.mat`` with ``inst_type`` and ``inst_centroid`` (x, y).
    origins : ndarray, shape (n, 2)
        Pixels of the image.
    field_px : int
    classes : tuple of str
        Known classes; ties go to the earlier one.

    Returns
    -------
    list of str
        Empty where a field holds no nucleus.
    """
    labels = _mat(path)
    if not {"inst_type", "inst_centroid"} <= set(labels):
        raise AnnotationError(f"{path}: needs inst_type and inst_centroid, as CoNSeP's labels do.")
    kinds = np.asarray(labels["inst_type"]).astype(np.int64).ravel()
    places = np.asarray(labels["inst_centroid"], np.float64).reshape(-1, 2)
    if len(kinds) != len(places):
        raise AnnotationError(f"{path}: {len(kinds)} types of {len(places)} nuclei.")
    found = []
    for origin in origins:
        inside = ((places >= origin) & (places < origin + field_px)).all(axis=1)
        names = Counter(CONSEP_CLASSES.get(kind, "") for kind in kinds[inside].tolist())
        best = max(classes, key=lambda name: names[name], default="")
        found.append(best if names[best] else "")
    return found


def annotation_attribute(path: Path, root: Path) -> dict[str, Any]:
    """What the store says of an image's label file: where, which bytes, how many instances."""
    instances = np.unique(instance_map(path))
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return {
        "file": name,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "instances": int((instances > 0).sum()),
    }


def _mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(path)
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise AnnotationError(f"{path}: no MATLAB 5 file that can be read ({error}).") from error
    return found
