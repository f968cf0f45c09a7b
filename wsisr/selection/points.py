"""Lists of points: ``slide,x,y`` with level-0 centres, as NCRF publishes them."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from wsisr.arrays import Float64Array
from wsisr.errors import AnnotationError, BuildError
from wsisr.selection.annotation_formats.shapes import MAX_COORDINATE_PX, read_bytes

MAX_POINTS = 20_000_000


def load_points(path: Path | str) -> dict[str, Float64Array]:
    """Read a point list.

    Parameters
    ----------
    path : Path
        Lines ``slide,x,y``; a heading line, blank lines and lines with ``#`` are skipped.

    Returns
    -------
    dict of slide name to ndarray, shape (n, 2)
        Slides sorted by name, points in file order.

    Raises
    ------
    AnnotationError
        A line that is no point; the message gives its number.
    """
    path = Path(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: is no text file of points.") from error
    points: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if number > MAX_POINTS:
            raise AnnotationError(f"{path}: more than {MAX_POINTS} lines.")
        parts = [part.strip() for part in line.rsplit(",", 2)]
        try:
            slide, x, y = parts[0], float(parts[1]), float(parts[2])
        except (IndexError, ValueError):
            if not points and number == 1:
                continue
            raise AnnotationError(
                f"{path}, line {number}: {line[:60]!r} is not slide,x,y."
            ) from None
        if not (abs(x) <= MAX_COORDINATE_PX and abs(y) <= MAX_COORDINATE_PX):
            raise AnnotationError(f"{path}, line {number}: ({x}, {y}) is no place on a slide.")
        points.setdefault(slide, []).append((x, y))
    return {slide: np.asarray(points[slide], np.float64) for slide in sorted(points)}


def points_of(root: Path, pattern: str, slide: str) -> Float64Array:
    """All points of one slide in the lists that fit a pattern.

    Parameters
    ----------
    pattern : str
        Relative to `root`; ``*`` stands for any name (``coords/*_train.txt``).
    slide : str
        Name in the lists, whatever its case (NCRF writes ``Tumor_001``, the slides' files
        ``tumor_001``).

    Returns
    -------
    ndarray, shape (n, 2), float64
        Lists in the order of their names.

    Raises
    ------
    BuildError
        If no list is there.
    AnnotationError
        If one is damaged.
    """
    lists = sorted(path for path in Path(root).glob(pattern) if path.is_file())
    if not lists:
        raise BuildError(f"{Path(root) / pattern}: the manifest's list of points is not there.")
    found = [_by_name(path, path.stat().st_mtime_ns).get(slide.lower()) for path in lists]
    return np.concatenate([np.empty((0, 2)), *(item for item in found if item is not None)])


@lru_cache(maxsize=4)
def _by_name(path: Path, changed_ns: int) -> dict[str, Float64Array]:
    """A list by lower-case name; read once for the slides of one process."""
    return {name.lower(): values for name, values in load_points(path).items()}
