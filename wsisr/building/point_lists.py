"""The points of one slide from published lists (NCRF's ``coords/*.txt``)."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import BuildError
from wsisr.selection.points import load_points


def points_of(root: Path, pattern: str, slide: str) -> NDArray[np.float64]:
    """All points of one slide in the lists that fit a pattern.

    Parameters
    ----------
    root : Path
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
def _by_name(path: Path, changed_ns: int) -> dict[str, NDArray[np.float64]]:
    """A list by lower-case name; read once for the slides of one process."""
    return {name.lower(): values for name, values in load_points(path).items()}
