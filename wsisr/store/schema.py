"""What a store contains: names, types, units and the checks of all of them.

The format is version 2, which names the algorithm of its patch digests; version 1 had BLAKE2b
alone. A reader refuses a newer version instead of guessing; an added optional column or attribute
does not raise the version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NotRequired, TypedDict, cast

import numpy as np

from wsisr.arrays import AnyArray
from wsisr.errors import StoreError
from wsisr.store.layout import check_array_name, check_slide_id

FORMAT: Final = "wsisr-pairs"
FORMAT_VERSION: Final = 2
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

FUNNEL_STEPS: Final = (
    "grid",
    "candidates",
    "scanned",
    "tissue",
    "label",
    "texture",
    "colour",
    "overlap",
    "read",
    "inside",
    "whole",
    "off_seams",
    "in_focus",
    "registered",
    "accepted",
    "kept",
)
"""Steps of the funnel in the order of a build; JSON keys are sorted and do not keep it."""

Columns = Mapping[str, AnyArray]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One per-patch column.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
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
WRITTEN_ATTRIBUTES: Final = frozenset({"arrays", "patches", "digest", "state", "tiled"})
"""Of a slide, likewise."""


def layer_column(name: str, array: str) -> str:
    """Name of a certificate column of one LR array: ``("ncc", "10x")`` -> ``"ncc_10x"``.

    A point becomes ``p``, so that every column name is a plain identifier (``ncc_2p5x``).
    """
    return f"{name}_{array.replace('.', 'p').replace('-', '_')}"


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
            if column.dtype.kind in "iu" and not np.array_equal(checked[name], values):
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


class RootAttributes(TypedDict):
    """``attrs["wsisr"]`` of the root group (design 5)."""

    format: str
    format_version: int
    created_with: dict[str, str]
    manifest: dict[str, Any]
    manifest_sha256: str
    magnifications: list[str]
    slides: list[str]
    codec: str
    digest: str
    patch_digest: NotRequired[str]
    """Algorithm of the column `digest`; BLAKE2b-64 where it is not named."""
    rules: NotRequired[int]
    keep: NotRequired[dict[str, Any]]
    pseudonyms: NotRequired[dict[str, Any]]
    """`key`: what tells keys of patient pseudonyms apart; `ids`: whether slide ids are some too."""


class SlideAttributes(TypedDict):
    """``attrs["wsisr"]`` of a slide's group. More keys are allowed and kept."""

    source: str
    draw_key: NotRequired[str]
    bytes: NotRequired[int]
    fingerprint: str
    vendor: NotRequired[str]
    backend: NotRequired[str]
    mpp: dict[str, Any] | None
    levels: NotRequired[list[dict[str, Any]]]
    patient: str
    patient_source: NotRequired[str]
    """How the patient is known: table, dicom, layout, barcode, rule or assumed."""
    patient_quality: NotRequired[str]
    """stated, recognised (from names), or assumed: one slide, one patient."""
    site: NotRequired[str | None]
    group: NotRequired[str | None]
    label: NotRequired[str | None]
    labels: NotRequired[list[str]]
    reasons: NotRequired[list[str]]
    split: str | None
    part: NotRequired[str]
    """Which of several published parts of its split it belongs to."""
    overridden: NotRequired[list[str]]
    """Columns of the user's table that had a value for it: mpp, patient, group, label, split."""
    notes: NotRequired[list[str]]
    funnel: NotRequired[dict[str, int]]
    not_tiled: NotRequired[str]
    """Why its HR is not kept as the slide's own tiles, in a store that does so."""
    tiled: NotRequired[list[str]]
    """Arrays that are kept as the slide's own tiles."""
    arrays: list[str]
    patches: int
    digest: str
    state: str


_ROOT_TYPES: Mapping[str, type] = {
    "created_with": dict,
    "manifest": dict,
    "manifest_sha256": str,
    "magnifications": list,
    "slides": list,
}
_SLIDE_TYPES: Mapping[str, type] = {
    "source": str,
    "fingerprint": str,
    "patient": str,
}


def root_attributes(
    given: Mapping[str, Any], codec: str, version: int = FORMAT_VERSION
) -> RootAttributes:
    """Complete and check what a build says of its store.

    Parameters
    ----------
    given : mapping
        `created_with` (package name to version), `manifest` (resolved), `manifest_sha256`,
        `magnifications` (array names), `slides` (every planned slide id; sorted here); other
        keys are kept.
    codec : str
        Codec preset.
    version : int
        Of the format; an older one for what is rebuilt from its record.

    Returns
    -------
    RootAttributes
        With an empty ``digest``, which `wsisr.store.digests.root_json` fills in.
    """
    _check_types(given, _ROOT_TYPES, "The store's attributes")
    slides = sorted(check_slide_id(str(name)) for name in given["slides"])
    if len(set(slides)) != len(slides):
        raise StoreError("The store's attributes: slide ids must be unique.")
    magnifications = [check_array_name(str(name)) for name in given["magnifications"]]
    own = {
        "format": FORMAT,
        "format_version": version,
        "codec": codec,
        "slides": slides,
        "magnifications": magnifications,
    }
    if version > 1:
        own["patch_digest"] = PATCH_DIGEST
    return cast(RootAttributes, dict(given) | own | {"digest": ""})


def read_root_attributes(attributes: Mapping[str, Any], where: str) -> RootAttributes:
    """Check attributes read from a root group.

    Raises
    ------
    StoreError
        If this is no pair store, or one of a newer format.
    """
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{where} is a Zarr group but no wsisr pair store; build one with wsisr build-pairs."
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{where}: format_version {version!r} is no version.")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{where} was written by a newer wsisr (store format {version}; this one reads up to "
            f"{FORMAT_VERSION}): pip install --upgrade wsisr."
        )
    _check_types(attributes, {**_ROOT_TYPES, "codec": str}, where)
    return cast(RootAttributes, dict(attributes))


def digest_algorithm(attributes: Mapping[str, Any]) -> str:
    """What the patches of a store are digested by, from its root attributes."""
    return str(attributes.get("patch_digest", OLD_PATCH_DIGEST))


def check_slide_attributes(given: Mapping[str, Any], slide_id: str) -> dict[str, Any]:
    """Check what a build says of a slide; extra keys are kept."""
    _check_types(given, _SLIDE_TYPES, f"Slide {slide_id}")
    split = given.get("split")
    if split is not None and not isinstance(split, str):
        raise StoreError(f"Slide {slide_id}: split must be a name or null.")
    mpp = given.get("mpp")
    value = mpp.get("value") if isinstance(mpp, dict) else None
    if mpp is not None and not (isinstance(value, int | float) and value > 0):
        raise StoreError(
            f"Slide {slide_id}: mpp must be null or have a positive value (um/px), not {mpp!r}."
        )
    reserved = WRITTEN_ATTRIBUTES & set(given)
    if reserved:
        raise StoreError(f"Slide {slide_id}: the writer sets {', '.join(sorted(reserved))}.")
    return dict(given)


def _check_types(given: Mapping[str, Any], types: Mapping[str, type], where: str) -> None:
    wrong = [
        f"{name} ({'missing' if name not in given else 'not a ' + kind.__name__})"
        for name, kind in types.items()
        if not isinstance(given.get(name), kind)
    ]
    if wrong:
        raise StoreError(f"{where}: {', '.join(wrong)}.")
