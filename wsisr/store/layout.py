"""Where everything of a store lies: the only place that knows paths.

A store that is read lies at a `Place`, local or not; one that is written lies in a folder and has a
staging sibling.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from wsisr.errors import StoreError
from wsisr.store.places import Place

META = "zarr.json"
SLIDES = "slides"
SPLITS = "splits"
PATCHES = "patches"
TISSUE = "tissue"
TILES = "tiles"
RESERVED_ARRAYS = frozenset({PATCHES, TISSUE, TILES, "c", META})
_OF_TILES = "-tiles"

_SLIDE_ID = re.compile(r"(?!__)[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}")
_ARRAY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_slide_id(slide_id: str) -> str:
    """The id itself, if it can be a group's name in a Zarr v3 store.

    Raises
    ------
    StoreError
        Where it is empty, has a separator or control character, starts with ``.`` or ``__``, or is
        longer than 200 bytes.
    """
    if not _SLIDE_ID.fullmatch(slide_id) or len(slide_id.encode(errors="replace")) > 200:
        raise StoreError(
            f"{slide_id!r} cannot be a slide id: use 1 to 200 bytes without / or \\, "
            "and no . or __ at the start."
        )
    return slide_id


def check_array_name(name: str) -> str:
    """The name itself, if it can be an image array's name beside `patches` and `tissue`."""
    reserved = name in RESERVED_ARRAYS or name.endswith(_OF_TILES)
    if not _ARRAY_NAME.fullmatch(name) or reserved:
        raise StoreError(f"{name!r} cannot be the name of an image array; use one like 40x.")
    return name


def tiles_of(array: str) -> str:
    """Folder of an image array that is kept as the slide's own tiles: ``40x`` -> ``40x-tiles``.

    No array of the plain name exists then, so that nobody pairs tile i with patch i.
    """
    return array + _OF_TILES


def stored_as(arrays: Iterable[str], attributes: Mapping[str, Any]) -> dict[str, str]:
    """Folders of a slide's image arrays by name, from the slide's attributes."""
    tiled = attributes.get("tiled") or ()
    return {name: tiles_of(name) if name in tiled else name for name in arrays}


P = TypeVar("P", Path, Place)


@dataclass(frozen=True)
class SlidePaths(Generic[P]):
    """Paths of one slide's group, staged or committed."""

    root: P

    @property
    def meta(self) -> P:
        return self.root / META

    def array(self, name: str) -> P:
        return self.root / name

    def shard(self, name: str, index: int) -> P:
        return self.root / f"{name}/c/{index}/0/0/0"

    @property
    def columns(self) -> P:
        return self.root / PATCHES

    def column(self, name: str) -> P:
        return self.root / PATCHES / name

    @property
    def tissue(self) -> P:
        return self.root / TISSUE

    @property
    def tiles(self) -> P:
        """The table of the tiles that are kept."""
        return self.root / TILES


@dataclass(frozen=True)
class StoreTree(Generic[P]):
    """Paths within a store, wherever it lies."""

    root: P

    @property
    def meta(self) -> P:
        return self.root / META

    @property
    def slides(self) -> P:
        return self.root / SLIDES

    def slide(self, slide_id: str) -> SlidePaths[P]:
        return SlidePaths(self.root / SLIDES / check_slide_id(slide_id))

    @property
    def splits(self) -> P:
        return self.root / SPLITS


class _Staging:
    """A folder of the staging sibling."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, paths: "StorePaths", owner: type) -> Path:
        return paths.partial / self._name


@dataclass(frozen=True)
class StorePaths(StoreTree[Path]):
    """Paths of a store that is written, and of its staging sibling ``<name>.partial``."""

    staged_roots = _Staging("roots")
    replaced_root = _Staging("replaced-root")
    staged_slides = _Staging(SLIDES)
    replaced_slides = _Staging("replaced-slides")
    removed_slides = _Staging("removed")
    staged_splits = _Staging(SPLITS)
    replaced_splits = _Staging("replaced-splits")
    removed_splits = _Staging("removed-splits")
    slide_locks = _Staging("writing")
    locks = _Staging("locks")

    @property
    def report(self) -> Path:
        """``pairs.zarr`` -> ``pairs.report``: summary, failures and pictures of the build."""
        return self.root.with_name(self.root.name.removesuffix(".zarr") + ".report")

    @property
    def record(self) -> Path:
        """The record that rebuilds the store, in its report folder."""
        return self.report / "record.json.gz"

    @property
    def partial(self) -> Path:
        return self.root.with_name(self.root.name + ".partial")

    def staged_slide(self, slide_id: str, token: str) -> SlidePaths[Path]:
        """Where one holder of the slide's lock stages it: no two write into one folder."""
        return SlidePaths(self.staged_slides / check_slide_id(slide_id) / token)

    def slide_lock(self, slide_id: str) -> Path:
        """Held by the process that stages a slide."""
        return self.slide_locks / f"{check_slide_id(slide_id)}.lock"
