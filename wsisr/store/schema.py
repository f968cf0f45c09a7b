"""What a store contains: columns and image arrays, with names, types, units and their checks."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from wsisr.arrays import AnyArray
from wsisr.errors import StoreError
from wsisr.store.layout import check_array_name

PATCH_DIGEST: Final = "xxh3-64"
OLD_PATCH_DIGEST: Final = "blake2b-64"
"""Of stores of version 1, which do not name it."""
PATCH_DIGESTS: Final = {PATCH_DIGEST: "XXH3-64", OLD_PATCH_DIGEST: "BLAKE2b-64"}
"""Algorithms that are known, and their names for people."""
TISSUE_UM_PER_PX: Final = 8.0
SPLIT_NAMES: Final = ("train", "val", "test")
LR_ORIGINS: Final = (
    "rescan",
    "rescan-reduced",
    "cross-scanner",
    "stored-level",
    "reduced",
    "simulated",
)
VERDICTS: Final = ("reject", "accept")

FUNNEL_WORDS: Final = {
    "grid": "places of the grid",
    "candidates": "candidates",
    "scanned": "scanned, no pen",
    "tissue": "enough tissue",
    "label": "one class",
    "texture": "enough texture",
    "colour": "usual colour",
    "overlap": "no overlap",
    "read": "wanted and read",
    "inside": "in both scans",
    "whole": "wholly scanned",
    "off_seams": "off the seams of the stitching",
    "in_focus": "in focus in both scans",
    "registered": "registered",
    "accepted": "accepted",
    "kept": "kept",
}
"""Steps of the funnel in the order of a build, and what people call them."""

Columns = Mapping[str, AnyArray]


def funnel_steps(funnel: Iterable[str]) -> list[str]:
    """The steps that a funnel has, in the order of the build, which sorted JSON does not keep."""
    order = {step: place for place, step in enumerate(FUNNEL_WORDS)}
    return sorted(funnel, key=lambda step: order.get(step, len(order)))


@dataclass(frozen=True, kw_only=True)
class Column:
    """One per-patch column.

    Attributes
    ----------
    unit : str
        Empty for pure numbers.
    meaning : str
        A sentence for people.
    required : bool
        Whether every slide must have it.
    per_layer : bool
        Whether it may also come once per LR array, as ``<name>_<array>`` (``ncc_10x``).
    """

    name: str
    dtype: np.dtype[Any]
    unit: str = ""
    meaning: str
    required: bool = False
    per_layer: bool = False


def _column(
    name: str, dtype: str, unit: str, meaning: str, *, required: bool = False, layer: bool = False
) -> Column:
    return Column(
        name=name,
        dtype=np.dtype(dtype),
        unit=unit,
        meaning=meaning,
        required=required,
        per_layer=layer,
    )


_ALL = (
    _column("x", "i8", "level-0 px", "left edge of the HR field of view", required=True),
    _column("y", "i8", "level-0 px", "top edge of the HR field of view", required=True),
    _column("label", "i1", "", "index into the slide's labels; -1 for none"),
    _column("tissue", "f4", "", "share of tissue in the field of view, 0 to 1"),
    _column("texture", "f4", "", "texture score of the field of view"),
    _column("split", "i1", "", "index into SPLIT_NAMES where splits are by patch; -1 for none"),
    _column("offset_x", "i4", "HR px", "integer crop in the search region", layer=True),
    _column("offset_y", "i4", "HR px", "integer crop in the search region", layer=True),
    _column("residual_x", "f4", "HR px", "sub-pixel shift left after the crop", layer=True),
    _column("residual_y", "f4", "HR px", "sub-pixel shift left after the crop", layer=True),
    _column("ncc", "f4", "", "normalised cross-correlation of the pair", layer=True),
    _column("ncc_band", "f4", "", "the same in the shared frequency band", layer=True),
    _column("spread", "f4", "HR px", "disagreement of independent offset estimates", layer=True),
    _column("error", "f4", "HR px", "bound of the place's error, 95 % (calibrated)", layer=True),
    _column("sharpness", "f4", "", "sharpness of the LR against the reduced HR", layer=True),
    *(
        _column(
            f"affine_{row}{col}",
            "f4",
            "HR px" if col == 2 else "",
            "LR px to HR px, pixel edges",
            layer=True,
        )
        for row in (0, 1)
        for col in (0, 1, 2)
    ),
    _column("verdict", "i1", "", "index into VERDICTS", layer=True),
    _column("reason", "i2", "", "index into the slide's reasons; -1 for none", layer=True),
    _column("hr_resampled", "?", "", "whether the HR patch was resampled, not cropped", layer=True),
    _column("window_x", "i4", "px of its level", "where HR begins in the slide's own tiles"),
    _column("window_y", "i4", "px of its level", "where HR begins in the slide's own tiles"),
    _column("kept", "?", "", "whether readers see the pair by default", required=True),
    _column("digest", "u8", "", "{algorithm} of the decoded bytes of all arrays, in order"),
)

COLUMNS: Final[Mapping[str, Column]] = {column.name: column for column in _ALL}
"""Every column by name."""

KEPT: Final = "kept"
DIGEST: Final = "digest"
WINDOW: Final = ("window_x", "window_y")
"""Where HR is kept as the slide's own tiles (`wsisr.store.tile_array`)."""
WRITTEN_COLUMNS: Final = frozenset({DIGEST, *WINDOW})
"""Those that follow from the pixels: the writer's own."""


def layer_column(name: str, array: str) -> str:
    """Name of a certificate column of one LR array: ``("ncc", "10x")`` -> ``"ncc_10x"``.

    A point becomes ``p``, so that every column name is a plain identifier (``ncc_2p5x``).
    """
    return f"{name}_{array.replace('.', 'p').replace('-', '_')}"


def certificate_column(name: str, array: str, have: Container[str]) -> str | None:
    """The column of an LR array's certificate: its own, else that of the pair; None without one."""
    return next((each for each in (layer_column(name, array), name) if each in have), None)


def find_column(name: str, arrays: Sequence[str]) -> Column | None:
    """The column that a name means in a slide with these image arrays, or None."""
    if name in COLUMNS:
        return COLUMNS[name]
    for array in arrays:
        suffix = layer_column("", array)
        base = COLUMNS.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base is not None and base.per_layer:
            return base
    return None


def check_columns(columns: Columns, arrays: Sequence[str], patches: int) -> dict[str, AnyArray]:
    """Columns in their stored types, or one error naming all that is wrong.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (patches,)
        Without `WRITTEN_COLUMNS`, which the writer computes. Integers may come in any integer type,
        floats in any float or integer type; values must fit.
    arrays : sequence of str
        Names of the slide's image arrays.
    patches : int
        How many patches the slide has.

    Raises
    ------
    StoreError
        On unknown or missing columns, wrong shapes, kinds of type, or values that do not fit.
    """
    faults: list[str] = []
    checked: dict[str, AnyArray] = {}
    for name in sorted(columns):
        values, column = np.asarray(columns[name]), find_column(name, arrays)
        if column is None or name in WRITTEN_COLUMNS:
            faults.append(f"unknown column {name!r}")
        elif values.shape != (patches,):
            faults.append(f"{name} has shape {values.shape}, not ({patches},)")
        elif values.size and not _kind_fits(values.dtype, column.dtype):
            faults.append(f"{name} is {values.dtype}, not {column.dtype}")
        else:
            with np.errstate(over="ignore"):
                checked[name] = np.ascontiguousarray(values.astype(column.dtype))
            if column.dtype.kind == "f":
                lost = np.isfinite(values) & ~np.isfinite(checked[name])
            else:
                lost = checked[name] != values
            if lost.any():
                faults.append(f"{name} has values that do not fit {column.dtype}")
    missing = [c.name for c in COLUMNS.values() if c.required and c.name not in columns]
    if missing:
        faults.append(f"missing {', '.join(missing)}")
    if faults:
        raise StoreError(f"Patch columns do not fit the store: {'; '.join(faults)}.")
    return checked


def _kind_fits(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    return given.kind in {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[wanted.kind]


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One image array of a slide: a magnification of all its patches.

    Attributes
    ----------
    name : str
        ``"40x"``.
    size_px : int
        Side of the square patches.
    factor : float
        Level-0 px per px of this array; ``factor * size_px`` is the field of view and equal for
        all arrays of a slide.
    native : bool
        Whether the pixels are stored in the slide file (design 3.7).
    origin : str
        ``"rescan"``, ``"rescan-reduced"``, ``"cross-scanner"``, ``"stored-level"``,
        ``"reduced"`` or ``"simulated:<degradation>"``.
    level : int or None
        Level of the file that was read.
    reduction : float
        How much that level was reduced; 1.0 = stored pixels.
    um_per_px : float or None
        True resolution of this array.
    extra : mapping
        Anything else worth keeping with the array (plain JSON values).
    """

    name: str
    size_px: int
    factor: float = 1.0
    native: bool = True
    origin: str = "stored-level"
    level: int | None = None
    reduction: float = 1.0
    um_per_px: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_array_name(self.name)
        if self.size_px < 1 or not self.factor > 0:
            raise StoreError(f"Array {self.name}: size and factor must be positive.")
        if self.origin.split(":", 1)[0] not in LR_ORIGINS:
            raise StoreError(
                f"Array {self.name}: {self.origin!r} is no origin; use one of "
                f"{', '.join(LR_ORIGINS[:-1])} or simulated:<degradation>."
            )

    def attributes(self) -> dict[str, Any]:
        """The array's attributes in the store."""
        return asdict(self) | {"extra": dict(self.extra)}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "ArraySpec":
        """Read back `attributes`, ignoring keys of later minor additions."""
        try:
            known = {name: attributes[name] for name in cls.__dataclass_fields__}
        except KeyError as err:
            raise StoreError(f"Image array attributes lack {err.args[0]!r}.") from err
        return cls(**known)
