"""What every format is read into, and the limits that hostile files meet.

An annotation file comes from outside. Its size, its number of vertices, the depth of its
nesting and the range of its coordinates are limited before any geometry is built; nothing in
it is executed, fetched or expanded.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import Float64Array
from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.markup import decoded
from wsisr.selection.annotation_formats.names import Role

MAX_FILE_BYTES = 256 * 1024**2
MAX_VERTICES = 5_000_000
MAX_SHAPES = 2_000_000
MAX_COORDINATE_PX = 10_000_000.0
"""The largest slides have under a million pixels a side."""


@dataclass(frozen=True, kw_only=True)
class ParsedShape:
    """One drawn object as the file has it.

    Attributes
    ----------
    label : str
        Class, normalised (`TUMOR` for CAMELYON's tumour groups).
    parents : tuple of str
        Names that say the class where `label` is none, the nearest first.
    name : str
        The object's own name; may be empty.
    geometry : shapely geometry or None
        Area in level-0 px, not yet repaired; None for points.
    points : ndarray, shape (n, 2)
        Level-0 x, y; empty for areas.
    """

    label: str
    parents: tuple[str, ...] = ()
    name: str = ""
    geometry: BaseGeometry | None = None
    points: Float64Array = field(default_factory=lambda: NO_POINTS)
    role: Role = "area"


NO_POINTS: Float64Array = np.empty((0, 2))


class VertexBudget:
    """Counts vertices of a file and checks their values.

    Parameters
    ----------
    path : Path
        For messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = MAX_VERTICES
        self._shapes = MAX_SHAPES

    def coordinates(self, values: Iterable[Any]) -> Float64Array:
        """Pairs of numbers -> (n, 2), checked.

        Raises
        ------
        AnnotationError
            Too many vertices, or a coordinate that is no finite plausible number.
        """
        rows = []
        for value in values:
            self._left -= 1
            if self._left < 0:
                raise AnnotationError(
                    f"{self._path}: more than {MAX_VERTICES} vertices; thin the outlines out."
                )
            rows.append(self._pair(value))
        return np.asarray(rows, np.float64).reshape(-1, 2)

    def shape(self) -> None:
        """Count one more object."""
        self._shapes -= 1
        if self._shapes < 0:
            raise AnnotationError(f"{self._path}: more than {MAX_SHAPES} objects.")

    def ring(self, values: Iterable[Any]) -> Float64Array:
        """Like `coordinates`; fewer than three vertices give an empty array."""
        ring = self.coordinates(values)
        return ring if len(ring) >= 3 else NO_POINTS

    def polygon(self, rings: Iterable[Iterable[Any]]) -> Polygon | None:
        """Outer ring and holes -> polygon (perhaps invalid); None without an outer ring."""
        arrays = [self.ring(ring) for ring in rings]
        if not arrays or not len(arrays[0]):
            return None
        return Polygon(arrays[0], [ring for ring in arrays[1:] if len(ring)])

    def _pair(self, value: Any) -> tuple[float, float]:
        try:
            x, y = value[0], value[1]
            if isinstance(x, bool) or isinstance(y, bool):
                raise TypeError
            pair = _number(x), _number(y)
        except (TypeError, ValueError, IndexError, KeyError, OverflowError):
            raise AnnotationError(
                f"{self._path}: {str(value)[:60]!r} is no pair of coordinates."
            ) from None
        if not all(isfinite(v) and abs(v) <= MAX_COORDINATE_PX for v in pair):
            raise AnnotationError(
                f"{self._path}: coordinate {pair} is not finite or beyond {MAX_COORDINATE_PX:g} px."
            )
        return pair


def _number(value: Any) -> float:
    """A number, or its text; programs of some countries write a decimal comma."""
    if isinstance(value, str) and value.count(",") == 1 and "." not in value:
        value = value.replace(",", ".")
    return float(value)


def read_bytes(path: Path) -> bytes:
    """The file's bytes, if it is there and not absurdly large.

    Raises
    ------
    AnnotationError
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise AnnotationError(
                f"{path}: {size / 1024**2:.0f} MiB is more than an annotation file may have "
                f"({MAX_FILE_BYTES // 1024**2} MiB)."
            )
        return path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read ({error.strerror or error}).") from error


def parse_json(path: Path, data: bytes) -> Any:
    """JSON without NaN, Infinity or stack-breaking depth.

    Raises
    ------
    AnnotationError
    """

    def refuse(constant: str) -> float:
        raise AnnotationError(f"{path}: holds {constant}, which is no coordinate.")

    try:
        text = decoded(data)
        return json.loads(data.decode("utf-8") if text is None else text, parse_constant=refuse)
    except AnnotationError:
        raise
    except RecursionError:
        raise AnnotationError(f"{path}: is nested too deeply to be annotations.") from None
    except ValueError as error:
        raise AnnotationError(f"{path}: is no valid JSON ({str(error)[:120]}).") from error
