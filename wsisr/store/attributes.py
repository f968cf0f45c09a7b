"""What the attributes of a store and of its slides say, and the checks of them.

The format is version 2, which names the algorithm of its patch digests; version 1 had BLAKE2b
alone. A reader refuses a newer version instead of guessing; an added optional column or attribute
does not raise the version.
"""

from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict, cast

from wsisr.errors import StoreError
from wsisr.store.layout import check_array_name, check_slide_id
from wsisr.store.schema import OLD_PATCH_DIGEST, PATCH_DIGEST

FORMAT: Final = "wsisr-pairs"
FORMAT_VERSION: Final = 2
WRITTEN_ATTRIBUTES: Final = frozenset({"arrays", "patches", "digest", "state", "tiled"})
"""Those of a slide that follow from its files: the writer's own."""


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
    """Check attributes of a root group; StoreError if this is no pair store, or a newer one."""
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
