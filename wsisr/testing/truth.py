"""What is true of a generated slide: exact outlines, displacements and missing tiles, as JSON.

All outlines are rings in continuous level-0 pixels (pixel i covers [i, i + 1)).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import ArrayLike
from pydantic import TypeAdapter

from wsisr.arrays import BoolArray, Float64Array
from wsisr.testing.levels import LevelShift
from wsisr.testing.scene import Scene, SceneNuclei
from wsisr.testing.shapes import polygon_of

TRUTH_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LevelTruth:
    """One level of a generated slide.

    Attributes
    ----------
    index, page : int
        Number of the level, and of its TIFF directory.
    width_px, height_px : int
        Size of the picture in level pixels.
    stored_width_px, stored_height_px : int
        Size that the file states; larger where the vendor pads levels to whole tiles.
    shift : LevelShift
        Factor and displacement against level 0.
    missing : tuple of (column, row)
        Tiles with byte count 0, without those of the background.
    """

    index: int
    page: int
    width_px: int
    height_px: int
    stored_width_px: int
    stored_height_px: int
    tile_px: int
    shift: LevelShift
    missing: tuple[tuple[int, int], ...] = ()

    @property
    def factor(self) -> int:
        return self.shift.factor


@dataclass(frozen=True, kw_only=True)
class SlideTruth:
    """Everything that a test may want to know of a generated slide.

    Attributes
    ----------
    file : str
        Name of the slide file.
    layout : str
        ``"philips"``, ``"aperio"`` or ``"generic"``.
    width_px, height_px : int
        Level-0 size.
    um_per_px : float
        True resolution.
    stated_um_per_px : float or None
        What the file says: the same, something wrong, or nothing.
    scene : Scene
        Outlines and seed; renders any region.
    background : str
        ``"encoded"``, ``"shared"`` or ``"missing"``: how tiles of empty glass are stored.
    icc_bytes : int
        Length of the embedded profile; 0 if there is none.
    """

    file: str
    layout: str
    width_px: int
    height_px: int
    um_per_px: float
    stated_um_per_px: float | None
    scene: Scene
    levels: tuple[LevelTruth, ...]
    codec: str
    quality: int
    ycbcr: bool
    subsampling: str
    background: str
    icc_bytes: int = 0
    version: int = TRUTH_VERSION

    @cached_property
    def tissue_area(self) -> shapely.Geometry:
        """Tissue without holes, clipped to the slide; a shapely geometry in level-0 px."""
        plane = shapely.box(0, 0, self.width_px, self.height_px)
        if self.scene.frame is not None:
            plane = plane.intersection(shapely.box(*self.scene.frame))
        return polygon_of(self.scene.tissue, self.scene.holes).intersection(plane)

    @cached_property
    def tumour_area(self) -> shapely.Geometry:
        """Annotated tumour without exclusions (fat and tears inside it count as tumour)."""
        return polygon_of(self.scene.tumour, self.scene.exclusions)

    def tissue_fraction(self, boxes: ArrayLike) -> Float64Array:
        """Exact tissue share of boxes.

        Parameters
        ----------
        boxes : array-like, shape (n, 4)
            x, y, width, height in level-0 px.

        Returns
        -------
        ndarray, shape (n,), float64 in [0, 1]
        """
        return _fraction(self.tissue_area, boxes)

    def tumour_fraction(self, boxes: ArrayLike) -> Float64Array:
        """Exact share of boxes inside the tumour annotation, as `tissue_fraction`."""
        return _fraction(self.tumour_area, boxes)

    def tissue_mask(self, um_per_px: float, *, fill_holes: bool = False) -> BoolArray:
        """Tissue at pixel centres of a coarser grid that starts at the slide's origin.

        Parameters
        ----------
        um_per_px : float
            Resolution of the mask.
        fill_holes : bool
            Count holes and fat vacuoles as tissue.
        """
        step = um_per_px / self.um_per_px
        width, height = (max(1, round(n / step)) for n in (self.width_px, self.height_px))
        area = polygon_of(self.scene.tissue) if fill_holes else self.tissue_area
        shapely.prepare(area)
        xs, ys = (np.arange(width) + 0.5) * step, (np.arange(height) + 0.5) * step
        return np.asarray(shapely.contains_xy(area, *np.meshgrid(xs, ys)))

    def nuclei(self, x: int, y: int, width: int, height: int) -> SceneNuclei:
        """Nuclei with their centre in a level-0 region."""
        return self.scene.nuclei(x, y, width, height)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able description; `from_json` gives an equal truth."""
        return dict(_ADAPTER.dump_python(self, mode="json", warnings="error"))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SlideTruth":
        """Inverse of `to_json`."""
        return _ADAPTER.validate_python(data)

    def save(self, path: Path) -> None:
        """Write `to_json` to a file."""
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "SlideTruth":
        """Read a file that `save` wrote."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


_ADAPTER = TypeAdapter(SlideTruth)


def _fraction(area: shapely.Geometry, boxes: ArrayLike) -> Float64Array:
    x, y, width, height = np.asarray(boxes, np.float64).reshape(-1, 4).T
    squares = shapely.box(x, y, x + width, y + height)
    shapely.prepare(area)
    inside = shapely.contains(area, squares)
    apart = shapely.disjoint(area, squares)
    out = np.where(inside, 1.0, 0.0)
    cut = ~inside & ~apart
    out[cut] = shapely.area(shapely.intersection(area, squares[cut])) / (width * height)[cut]
    return out
