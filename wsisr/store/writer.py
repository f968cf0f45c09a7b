"""Writing a store: stage a slide beside the store, commit it by one rename.

A slide is one task of one process and becomes visible at once, complete and synced, or not
at all. The bytes depend on the input alone: no times, no orders of arrival, sorted keys.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import StoreError
from wsisr.files import (
    disk_full_is_clear,
    recover_swap,
    remove_tree,
    replace_file,
    swap_in,
    sync_directory,
    sync_tree,
)
from wsisr.locks import left_over
from wsisr.store.attributes import FORMAT_VERSION, RootAttributes, root_attributes
from wsisr.store.digests import root_json
from wsisr.store.layout import META, SLIDES, StorePaths
from wsisr.store.lock import ORPHAN_WAIT_S, SlideLock
from wsisr.store.metadata import group_document, plain_json, read_node, to_json
from wsisr.store.places import place_of
from wsisr.store.presets import check_codec
from wsisr.store.schema import ArraySpec
from wsisr.store.slide_writer import SlideWriter as SlideWriter
from wsisr.store.slide_writer import read_store_attributes as read_store_attributes
from wsisr.store.splits import stage_splits
from wsisr.store.tile_array import TilePlan

_NOT_STAGED = frozenset({"scan", "errors", "plan", "locks", SLIDES, "writing"})
"""In the staging folder: what an unfinished build knows, and what living processes hold."""

_FIXED = frozenset({*RootAttributes.__required_keys__, "patch_digest", "rules", "keep"})
"""Root attributes that identify a store: as it was written first."""


class StoreWriter:
    """The writing side of a store; holds no open files and so can be pickled to workers.

    Make one with `create`, `resume` or, in worker processes, `attach`.
    """

    def __init__(self, path: Path, codec: str, threads: int = 1) -> None:
        self.paths = StorePaths(Path(path))
        self.codec = check_codec(codec)
        self.threads = threads

    @classmethod
    def create(
        cls,
        path: Path,
        root: Mapping[str, Any],
        *,
        codec: str = "raw",
        overwrite: bool = False,
        threads: int = 1,
        version: int = FORMAT_VERSION,
    ) -> "StoreWriter":
        """Make an empty store.

        Parameters
        ----------
        path : Path
            Folder of the store, e.g. ``pairs.zarr``; its parent is made.
        root : mapping
            See `wsisr.store.attributes.root_attributes`.
        codec : str
            ``"raw"``, ``"small"``, ``"zstd"`` or ``"slide"``.
        overwrite : bool
            Replace an existing store; without it an existing one is refused.
        threads : int
            Encoding threads per process (used by ``small`` and ``zstd``).
        version : int
            Of the format; older ones are written for rebuilding what was of them.
        """
        writer = cls(path, codec, threads)
        paths = writer.paths
        attributes = plain_json(root_attributes(root, writer.codec, version))
        with disk_full_is_clear(paths.root):
            writer._recover()
            if paths.root.exists():
                if not overwrite:
                    raise StoreError(
                        f"{paths.root} exists already; add --overwrite to replace it, or choose "
                        "another place with -o."
                    )
                refuse_foreign(paths.root)
            writer._clean_staging()
            # Parts of one build may start at the same moment: each stages under its own name.
            staged = paths.staged_roots / f"{socket.gethostname()}-{os.getpid()}"
            place = place_of(staged)
            (place / META).put(root_json(attributes))
            (place / SLIDES / META).put(to_json(group_document({})))
            sync_tree(staged)
            swap_in(staged, paths.root, paths.replaced_root)
        return writer

    @classmethod
    def resume(cls, path: Path, root: Mapping[str, Any]) -> "StoreWriter":
        """Go on with a store; new slides may have come.

        The manifest must be the store's own (`manifest_sha256` and magnifications are compared).
        If the list of slides changes, the splits, which count slides by their place in it, are
        taken away until `commit_splits` writes them anew.

        Parameters
        ----------
        path, root
            As for `create`.

        Raises
        ------
        StoreError
            If there is no store, or it was built with another manifest.
        """
        probe = StorePaths(Path(path))
        with disk_full_is_clear(probe.root):
            cls(path, "raw")._recover()
            stored = read_store_attributes(probe.root)
            writer = cls(path, stored["codec"])
            writer._clean_staging()
            given = cast(RootAttributes, plain_json(root_attributes(root, stored["codec"])))
            for key, what in (("manifest_sha256", "manifest"), ("magnifications", "layers")):
                if given.get(key) != stored.get(key):
                    raise StoreError(
                        f"{probe.root} was built with another manifest or other settings ({what} "
                        "differ). Use those, write to another place with -o, or start anew with "
                        "--overwrite."
                    )
            merged = _resumed(stored, given, writer.committed())
            if merged["slides"] != stored["slides"]:
                _take_away(probe.splits, probe.removed_splits)
            if merged != stored:
                replace_file(probe.meta, root_json(merged), staging=probe.partial)
        return writer

    @classmethod
    def attach(cls, path: Path, *, threads: int = 1) -> "StoreWriter":
        """A writer for a worker process: cleans and changes nothing of the store itself."""
        return cls(path, read_store_attributes(Path(path))["codec"], threads)

    def slide(
        self,
        slide_id: str,
        arrays: Sequence[ArraySpec],
        wait_s: float = ORPHAN_WAIT_S,
        tiles: TilePlan | None = None,
    ) -> SlideWriter:
        """Start a slide; staged left-overs of an earlier run of it are removed.

        Parameters
        ----------
        slide_id : str
            One of the root attributes' slides.
        arrays : sequence of ArraySpec
            Finest first; all with the same field of view.
        wait_s : float
            How long another process that writes the slide is waited for.
        tiles : TilePlan or None
            In a store of the codec ``"slide"``: which array is kept as the slide's own tiles; None
            where it cannot be, so that all are stored as ``"small"``.

        Raises
        ------
        StoreLockedError
            If it still does then.
        """
        if not arrays:
            raise StoreError(f"Slide {slide_id}: no image arrays.")
        fields = [spec.factor * spec.size_px for spec in arrays]
        if max(fields) - min(fields) > 1e-6 * fields[0]:
            raise StoreError(f"Slide {slide_id}: its arrays see different fields of view.")
        return SlideWriter(
            self.paths, slide_id, arrays, threads=self.threads, wait_s=wait_s, tiles=tiles
        )

    def committed(self) -> set[str]:
        """Ids of the slides that are complete in the store."""
        if not self.paths.slides.is_dir():
            return set()
        return {entry.name for entry in self.paths.slides.iterdir() if (entry / META).is_file()}

    def remove(self, slide_id: str) -> None:
        """Take a committed slide out, e.g. because its source file changed.

        The splits, which name its rows, go first, so that the store is not finished until
        `commit_splits` writes them anew; what `keep` kept of the slide is forgotten.
        """
        final = self.paths.slide(slide_id).root
        if final.exists():
            _take_away(self.paths.splits, self.paths.removed_splits)
            stored = read_store_attributes(self.paths.root)
            keep = stored.get("keep", {})
            if slide_id in keep.get("kept", {}):
                kept = {slide: count for slide, count in keep["kept"].items() if slide != slide_id}
                changed = dict(stored) | {"keep": {**keep, "kept": kept}}
                replace_file(self.paths.meta, root_json(changed), staging=self.paths.partial)
            _take_away(final, self.paths.removed_slides / slide_id)

    def set_root(self, changes: Mapping[str, Any]) -> None:
        """Add or replace keys of the root attributes at once, e.g. the splits of new slides.

        Raises
        ------
        StoreError
            For keys that identify the store (format, manifest, slides, ...).
        """
        fixed = _FIXED & set(changes)
        if fixed:
            raise StoreError(f"Root attributes {', '.join(sorted(fixed))} cannot be changed.")
        stored = read_store_attributes(self.paths.root)
        merged = dict(stored) | plain_json(changes)
        if merged != stored:
            replace_file(self.paths.meta, root_json(merged), staging=self.paths.partial)

    def commit_splits(self, splits: Mapping[str, NDArray[np.integer[Any]]]) -> None:
        """Write all splits, replacing earlier ones at once.

        Parameters
        ----------
        splits : mapping of str to ndarray, shape (m, 2), integer
            Rows of (index into the root attributes' slides, row in that slide).
        """
        slides = read_store_attributes(self.paths.root)["slides"]
        with disk_full_is_clear(self.paths.root):
            stage_splits(self.paths.staged_splits, splits, len(slides))
            swap_in(self.paths.staged_splits, self.paths.splits, self.paths.replaced_splits)

    def clean(self) -> bool:
        """Remove whatever is staged and not in work, and the staging folder if nothing is left.

        Returns whether there was anything besides what the present run needs itself.

        Only while no other part of a build can be at work. What a build that is not finished has
        found out so far stays.
        """
        self._clean_staging()
        partial = self.paths.partial
        if not partial.is_dir():
            return False
        staged = [entry for entry in partial.iterdir() if entry.name not in _NOT_STAGED]
        for entry in staged:
            remove_tree(entry)
        if not any(partial.iterdir()):
            partial.rmdir()
        return bool(staged)

    def recover(self) -> None:
        """Bring replacements that a kill interrupted to one of their two ends."""
        with disk_full_is_clear(self.paths.root):
            self._recover()

    def _recover(self) -> None:
        paths = self.paths
        paths.root.parent.mkdir(parents=True, exist_ok=True)
        recover_swap(paths.root, paths.replaced_root)
        recover_swap(paths.splits, paths.replaced_splits)
        if paths.replaced_slides.is_dir():
            for aside in sorted(paths.replaced_slides.iterdir()):
                recover_swap(paths.slides / aside.name, aside)

    def _clean_staging(self) -> None:
        paths = self.paths
        # A kill can leave a slide's lock without its folder, and its folder without its lock.
        begun = {path.name for path in _entries(paths.staged_slides)}
        begun |= {path.stem for path in _entries(paths.slide_locks) if path.suffix == ".lock"}
        for slide_id in sorted(begun):
            # A worker that outlived its killed build may finish the slide in hand.
            lock = SlideLock(paths.slide_lock(slide_id))
            if lock.acquire():
                remove_tree(paths.staged_slides / slide_id)
                lock.release()
        for stale in left_over(paths.slide_locks):
            stale.unlink(missing_ok=True)
        for folder in (paths.staged_slides, paths.slide_locks):
            with suppress(OSError):
                folder.rmdir()
        for folder in (
            paths.staged_roots,
            paths.staged_splits,
            paths.replaced_slides,
            paths.replaced_splits,
            paths.removed_slides,
            paths.removed_splits,
        ):
            remove_tree(folder)


def _take_away(final: Path, aside: Path) -> None:
    """Take a folder of a store out of it: whatever kills this, it is there whole or not at all."""
    if final.exists():
        remove_tree(aside)
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.rename(final, aside)
        sync_directory(final.parent)
        remove_tree(aside)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _resumed(stored: RootAttributes, given: RootAttributes, committed: set[str]) -> RootAttributes:
    """The attributes of a store that is gone on with.

    What identifies the store stays as it was written first; the list of slides and whatever else
    the build keeps there is renewed. Committed slides stay listed even if their files are gone.
    """
    merged = dict(stored) | {key: value for key, value in given.items() if key not in _FIXED}
    merged["slides"] = sorted({*given["slides"], *committed})
    return cast(RootAttributes, merged)


def refuse_foreign(path: Path) -> None:
    """Never delete anything that is not a pair store."""
    if path.is_dir() and not any(path.iterdir()):
        return
    try:
        foreign = read_node(path).attributes.get("format") is None
    except StoreError:
        foreign = True
    if foreign:
        raise StoreError(
            f"{path} exists and is no pair store, so --overwrite does not delete it; "
            "move it away or choose another place with -o."
        )
