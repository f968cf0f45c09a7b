"""What the label file of a published image set says: instances, and the class of a field."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import Float64Array, Int32Array, Int64Array
from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.markup import parse_xml
from wsisr.selection.annotation_formats.shapes import VertexBudget, read_bytes

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


UNION_FOLDER = "binary_masks"
"""Where masks lie that show all nuclei of an image as one area: touching ones are merged."""


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """What is labelled in an image.

    Attributes
    ----------
    map : ndarray, shape (h, w), int32
        0 is background.
    instances : bool
        Whether each label is one object; False: 1 is the union of all.
    types : mapping of int to str, or None
        What each object is, where the file says so.
    """

    map: Int32Array
    instances: bool
    types: Mapping[int, str] | None = None


def read_labels(path: Path, shape: tuple[int, int] | None = None) -> ImageLabels:
    """The objects (glands, nuclei) of an image, for downstream tasks.

    Parameters
    ----------
    path : Path
        GlaS's ``*_anno.bmp``, CoNSeP's ``.mat`` with ``inst_map``, MoNuSeg's Aperio XML, or a
        mask of all nuclei in a folder ``binary_masks``.
    shape : (int, int), optional
        Height and width of the image. XML needs them; others are checked by them.

    Raises
    ------
    AnnotationError
        If the file is none of these, or belongs to an image of another size.
    """
    if path.suffix.lower() == ".xml":
        if shape is None:
            raise AnnotationError(f"{path}: outlines have no pixels without their image's size.")
        return ImageLabels(_filled(outlines(path), shape), instances=True)
    values = _pixels(path)
    if shape is not None and values.shape != shape:
        height, width = values.shape
        raise AnnotationError(
            f"{path}: labels of {width} x {height} px do not belong to an image of {shape[1]} x "
            f"{shape[0]} px."
        )
    if path.parent.name.lower() == UNION_FOLDER:
        return ImageLabels((values > 127).astype(np.int32), instances=False)
    types = _types(path, values) if path.suffix.lower() == ".mat" else None
    return ImageLabels(values, instances=True, types=types)


def instance_map(path: Path, shape: tuple[int, int] | None = None) -> Int32Array:
    """`read_labels` where each label has to be one object.

    Raises
    ------
    AnnotationError
        If the file is no such labels, or shows all objects as one area.
    """
    found = read_labels(path, shape)
    if not found.instances:
        raise AnnotationError(f"{path}: shows the union of all nuclei, in which none is one.")
    return found.map


def outlines(path: Path) -> list[Float64Array]:
    """The regions of an Aperio XML as they were drawn: x and y of each corner, shape (n, 2).

    Nothing is repaired and nothing is cut out: most outlines of MoNuSeg follow pixels and cross
    themselves by a hair.
    """
    root = parse_xml(path, read_bytes(path))
    budget = VertexBudget(path)
    found = []
    for region in root.iter("Region"):
        budget.shape()
        corners = budget.coordinates((v.get("X"), v.get("Y")) for v in region.iter("Vertex"))
        if len(corners) >= 3:
            found.append(np.asarray(corners, np.float64))
    if root.tag != "Annotations":
        raise AnnotationError(f"{path}: is no Aperio XML, as MoNuSeg's outlines are.")
    return found


def _filled(rings: list[Float64Array], shape: tuple[int, int]) -> Int32Array:
    """Labels from 1 in the order of the file; where two claim a pixel, the later has it.

    The pixels under an outline belong to it: so filled, the union is MoNuSeg's own mask (all but
    0 to 3 of 300,000 pixels), where pixel centres inside the outline alone are 6 % fewer.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("I", (shape[1], shape[0]))
    draw = ImageDraw.Draw(canvas)
    for label, ring in enumerate(rings, start=1):
        draw.polygon(list(map(tuple, ring.tolist())), fill=label, outline=label)
    return np.asarray(canvas, np.int32)


def _pixels(path: Path) -> Int32Array:
    if path.suffix.lower() == ".mat":
        values = _mat(path).get("inst_map")
        if values is None:
            raise AnnotationError(f"{path}: has no inst_map, as CoNSeP's labels do.")
        return np.asarray(values, np.int32)
    from PIL import Image

    try:
        with Image.open(path) as image:
            values = np.asarray(image)
            grey_and_alpha = image.mode == "LA"
    except OSError as error:
        raise AnnotationError(f"{path}: no label image that can be read ({error}).") from error
    if grey_and_alpha:
        values = values[..., 0]
    if values.ndim != 2:
        raise AnnotationError(f"{path}: a label image has one channel, this one {values.shape}.")
    return values.astype(np.int32)


def _types(path: Path, labels: Int32Array) -> dict[int, str] | None:
    """Type of each nucleus of a CoNSeP file: that of its pixels; None where there is no map."""
    values = _mat(path).get("type_map")
    if values is None:
        return None
    kinds = np.asarray(values).astype(np.int64)
    if kinds.shape != labels.shape or kinds.min(initial=0) < 0:
        raise AnnotationError(f"{path}: its type_map of {kinds.shape} is none of its inst_map.")
    known = int(kinds.max(initial=0)) + 1
    numbers, at = np.unique(labels, return_inverse=True)
    counts = np.bincount(at.ravel() * known + kinds.ravel(), minlength=len(numbers) * known)
    most = counts.reshape(len(numbers), known).argmax(1)
    unknown = sorted({k for n, k in zip(numbers, most, strict=True) if n} - set(CONSEP_CLASSES))
    if unknown:
        raise AnnotationError(f"{path}: nuclei of type {unknown[0]}; CoNSeP's are 1 to 7.")
    return {int(n): CONSEP_CLASSES[int(k)] for n, k in zip(numbers, most, strict=True) if n}


def field_classes(
    path: Path, origins: Int64Array, field_px: int, classes: tuple[str, ...]
) -> list[str]:
    """The most frequent type of nucleus in each field of a CoNSeP image.

    Parameters
    ----------
    path : Path
        A ``.mat`` with ``inst_type`` and ``inst_centroid`` (x, y).
    origins : ndarray, shape (n, 2)
        Pixels of the image.
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
    """What the store says of an image's label file: where, which bytes, how many instances (or
    None: nobody knows)."""
    if path.suffix.lower() == ".xml":
        count: int | None = len(outlines(path))
    else:
        labels = read_labels(path)
        count = int((np.unique(labels.map) > 0).sum()) if labels.instances else None
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return {
        "file": name,
        "sha256": sha256(path.read_bytes()).hexdigest(),
        "instances": count,
    }


def _mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(path)
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise AnnotationError(f"{path}: no MATLAB 5 file that can be read ({error}).") from error
    return found
