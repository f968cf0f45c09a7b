"""Where the pixels of a patch are: pure functions and frozen values, no I/O.

Conventions
-----------
Level-0 coordinates are continuous and pixel ``i`` covers ``[i, i + 1)``. A level of factor
``f`` is the level-0 plane divided by ``f``: its pixel ``i`` covers level-0 ``[i f, (i + 1) f)``.
A patch is a place and a field of view that all its magnifications share; its origins are
whole pixels on every level that it uses, because the origin is chosen on a grid that all of
them share and divided exactly. Dividing level-0 coordinates by a reported downsample
instead (a ratio of truncated sizes, 4.0001 or 16.003) shifts patches by up to tens of level-0
pixels towards the far edge, and makes OpenSlide interpolate.
"""

from dataclasses import dataclass
from math import ceil, lcm

from wsisr.errors import GeometryError

FACTOR_TOLERANCE = 0.005
"""Largest relative distance of a true size ratio from its nearest integer."""


def level_factor(
    base_width_px: int, base_height_px: int, width_px: int, height_px: int
) -> int | None:
    """Downsample of a level as an exact integer, or None where there is none.

    Parameters
    ----------
    base_width_px, base_height_px : int
        Size of level 0.
    width_px, height_px : int
        Size of the level.

    Returns
    -------
    int or None
        The nearest integer of the size ratio of the longer side, if reducing level 0 by it
        gives the stored size on both axes to one pixel or to 0.5 %; None otherwise.

    Notes
    -----
    4443 -> 2221 is a factor 2 although the ratio is 2.00045.
    """
    if min(base_width_px, base_height_px, width_px, height_px) < 1:
        raise GeometryError("A level must be at least one pixel wide and high.")
    if base_width_px >= base_height_px:
        factor = max(1, round(base_width_px / width_px))
    else:
        factor = max(1, round(base_height_px / height_px))
    for base, size in ((base_width_px, width_px), (base_height_px, height_px)):
        expected = base / factor
        if abs(expected - size) > max(1.0, FACTOR_TOLERANCE * expected):
            return None
    return factor


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in whole pixels of a stated level: ``[x, x + width) x [y, y + height)``."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def between(cls, left: int, top: int, right: int, bottom: int) -> "Box":
        """From its edges."""
        return cls(x=left, y=top, width=right - left, height=bottom - top)

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array that begins at 0, 0."""
        return slice(self.y, self.bottom), slice(self.x, self.right)

    def moved(self, x: int, y: int) -> "Box":
        return Box(x=self.x + x, y=self.y + y, width=self.width, height=self.height)

    def relative_to(self, other: "Box") -> "Box":
        """The same, counted from the corner of another."""
        return self.moved(-other.x, -other.y)

    def grown(self, margin: int) -> "Box":
        """With a margin on every side."""
        width, height = self.width + 2 * margin, self.height + 2 * margin
        return Box(x=self.x - margin, y=self.y - margin, width=width, height=height)

    def within(self, other: "Box") -> "Box":
        """What of it lies in another; a side is 0 or negative where nothing does."""
        return Box.between(
            max(self.x, other.x),
            max(self.y, other.y),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    def blocks(self, side: int) -> list["Box"]:
        """Squares that cover it, row by row from its corner; the last ones of a side are cut."""
        return [
            Box.between(x, y, min(x + side, self.right), min(y + side, self.bottom))
            for y in range(self.y, self.bottom, side)
            for x in range(self.x, self.right, side)
        ]

    def contains(self, other: "Box") -> bool:
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One magnification of a patch on one slide.

    Attributes
    ----------
    name : str
        Array name in the store, e.g. ``"40x"``.
    factor : float
        Level-0 pixels per pixel of this layer; a whole number unless a physical resolution
        was asked for.
    size_px : int
        Side of the square patch in pixels of this layer.
    level : int
        Level of the slide that is read.
    reduction : float
        How much the read level is reduced: 1.0 means stored pixels, bit for bit.
    margin_px : int
        Pixels read in addition on every side: the search region of a registration
        (1050 = 1024 + 2 x 13). Whatever reads a layer returns `read_size_px` squared.
    shift_x_px, shift_y_px : int
        Added to the origin in whole pixels of the level that is read: what the slide's
        calibration says of the places of its levels.
    """

    name: str
    factor: float
    size_px: int
    level: int
    reduction: float
    margin_px: int = 0
    shift_x_px: int = 0
    shift_y_px: int = 0

    @property
    def read_size_px(self) -> int:
        return self.size_px + 2 * self.margin_px

    @property
    def native(self) -> bool:
        """Whether the pixels are stored in the file (design 3.7)."""
        return self.reduction == 1.0


@dataclass(frozen=True, kw_only=True)
class PatchGeometry:
    """The layers of every patch of one slide, and the grid on which origins lie.

    Attributes
    ----------
    layers : tuple of Layer
        Finest first; all share one field of view.
    step_px : int
        Origins are multiples of this many level-0 pixels, so that they are whole pixels on
        every layer and on every level that is read.
    field_px : int
        Side of the field of view in level-0 pixels, rounded up to a whole pixel.
    """

    layers: tuple[Layer, ...]
    step_px: int
    field_px: int

    @property
    def hr(self) -> Layer:
        return self.layers[0]

    def origin_px(self, layer: Layer, origin: int) -> int:
        """Whole-pixel origin on a layer's own grid of a level-0 origin (one axis)."""
        if origin % self.step_px:
            raise GeometryError(
                f"Origin {origin} is off the patch grid of {self.step_px} level-0 px."
            )
        value = origin / layer.factor
        return int(value) if value.is_integer() else round(value)


def patch_geometry(
    layers: tuple[Layer, ...], level_factors: tuple[int | None, ...]
) -> PatchGeometry:
    """Check that the layers of a patch fit together and find the grid of their origins.

    Parameters
    ----------
    layers : tuple of Layer
        Finest first.
    level_factors : tuple of int or None
        Exact downsample of each level of the slide.

    Raises
    ------
    GeometryError
        If the fields of view differ, or a layer reads a level without an exact factor.
    """
    if not layers:
        raise GeometryError("A patch needs at least one magnification.")
    fields = [layer.factor * layer.size_px for layer in layers]
    if max(fields) - min(fields) > 1e-6 * fields[0]:
        sizes = ", ".join(f"{la.name}: {la.size_px} px x {la.factor:g}" for la in layers)
        raise GeometryError(f"The magnifications of a patch see different fields: {sizes}.")
    units = []
    for layer in layers:
        factor = level_factors[layer.level]
        if factor is None:
            raise GeometryError(f"Level {layer.level} has no exact downsample.")
        if abs(factor * layer.reduction - layer.factor) > 1e-9 * layer.factor:
            raise GeometryError(
                f"{layer.name}: level {layer.level} (1/{factor}) reduced {layer.reduction:g} "
                f"times is not 1/{layer.factor:g}."
            )
        units.append(factor)
        if float(layer.factor).is_integer():
            units.append(int(layer.factor))
    return PatchGeometry(layers=layers, step_px=lcm(*units), field_px=ceil(fields[0] - 1e-6))
