"""Writing a store: stage a slide beside the store, commit it by one rename.

A slide is one task of one process and becomes visible at once, complete and synced, or not
at all. The bytes depend on the input alone: no times, no orders of arrival, sorted keys.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import StoreError
from wsisr.store.columns import write_column, write_tissue
from wsisr.store.digests import patch_digests, root_json, slide_digest
from wsisr.store.files import (
    disk_full_is_clear,
    recover_swap,
    remove_tree,
    replace_file,
    swap_in,
    sync_directory,
    sync_tree,
    write_buffers,
)
from wsisr.store.layout import META, SLIDES, StorePaths
from wsisr.store.metadata import (
    array_document,
    group_document,
    plain_json,
    read_node,
    sharding_codec,
    to_json,
)
from wsisr.store.presets import CodecPreset, codec_preset
from wsisr.store.schema import (
    DIGEST,
    ArraySpec,
    Columns,
    RootAttributes,
    check_columns,
    check_slide_attributes,
    read_root_attributes,
    root_attributes,
)
from wsisr.store.shards import plan_shards, write_shard
from wsisr.store.splits import stage_splits

UInt8Array = NDArray[np.uint8]


class SlideWriter:
    """Writes the group of one slide; made by `StoreWriter.slide`.

    At most one shard of every array is held in memory (50 to 100 MB for the largest array).
    """

    def __init__(
        self,
        paths: StorePaths,
        slide_id: str,
        arrays: Sequence[ArraySpec],
        preset: CodecPreset,
        threads: int,
    ) -> None:
        names = [spec.name for spec in arrays]
        if len(set(names)) != len(names):
            raise StoreError(f"Slide {slide_id}: array names must be unique: {', '.join(names)}.")
        self.slide_id = slide_id
        self._paths = paths
        self._stage = paths.staged_slide(slide_id)
        self._specs = tuple(arrays)
        self._preset = preset
        self._encode = preset.encoder()
        self._layouts = plan_shards([spec.size_px for spec in arrays], preset.max_tile_px)
        self._per_shard = self._layouts[0].patches
        self._buffers: list[UInt8Array] | None = None
        self._filled = 0
        self._shards = 0
        self._digests: list[NDArray[np.uint64]] = []
        self._pool = (
            ThreadPoolExecutor(threads) if threads > 1 and self._encode is not None else None
        )
        self._open = True
        with disk_full_is_clear(paths.root):
            remove_tree(self._stage.root)
            self._stage.root.mkdir(parents=True)

    @property
    def patches(self) -> int:
        """How many patches have been appended."""
        return self._shards * self._per_shard + self._filled

    @property
    def patches_per_shard(self) -> int:
        """How many patches one `append` may best bring: a shard is written when this is full."""
        return self._per_shard

    def append(self, patches: Mapping[str, UInt8Array]) -> None:
        """Add patches to the end of every array.

        Parameters
        ----------
        patches : mapping of str to ndarray, shape (k, s, s, 3), uint8
            The same k for every array of the slide; any k.
        """
        self._check_open()
        blocks = self._check_patches(patches)
        count, start = len(blocks[0]), 0
        self._digests.append(patch_digests(blocks))
        while start < count:
            if self._filled == 0 and count - start >= self._per_shard:
                stop = start + self._per_shard
                self._write_shards([block[start:stop] for block in blocks])
            else:
                stop = start + min(count - start, self._per_shard - self._filled)
                self._fill([block[start:stop] for block in blocks])
            start = stop

    def finish(self, columns: Columns, tissue: NDArray[np.uint8], attrs: Mapping[str, Any]) -> str:
        """Write what is left, sync everything and commit the slide by one rename.

        Parameters
        ----------
        columns : mapping of str to ndarray, shape (n,)
            See `wsisr.store.schema.COLUMNS`; ``digest`` is computed here.
        tissue : ndarray, shape (h, w), uint8
            Tissue mask at 8 um/px.
        attrs : mapping
            See `wsisr.store.schema.SlideAttributes`; ``arrays``, ``patches``, ``digest`` and
            ``state`` are set here.

        Returns
        -------
        str
            Digest of the slide's files and metadata.
        """
        self._check_open()
        names = [spec.name for spec in self._specs]
        checked = check_columns(columns, names, self.patches)
        attributes = plain_json(check_slide_attributes(attrs, self.slide_id))
        with disk_full_is_clear(self._paths.root):
            if self._filled:
                assert self._buffers is not None
                self._write_shards([buffer[: self._filled] for buffer in self._buffers])
            self._write_metadata(checked)
            write_tissue(self._stage.tissue, tissue)
            attributes |= {"arrays": names, "patches": self.patches, "state": "complete"}
            digest = slide_digest(self._stage.root, attributes, names)
            group = to_json(group_document(attributes | {"digest": digest}))
            write_buffers(self._stage.meta, [group])
            sync_tree(self._stage.root)
            final = self._paths.slide(self.slide_id).root
            swap_in(self._stage.root, final, self._paths.replaced_slides / self.slide_id)
        self._close()
        return digest

    def abort(self) -> None:
        """Drop what was staged. Harmless after `finish`."""
        if self._open:
            self._close()
            remove_tree(self._stage.root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def _close(self) -> None:
        self._open = False
        self._buffers = None
        if self._pool is not None:
            self._pool.shutdown()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"Slide {self.slide_id}: this writer is finished or aborted.")

    def _check_patches(self, patches: Mapping[str, UInt8Array]) -> list[UInt8Array]:
        names = [spec.name for spec in self._specs]
        if sorted(patches) != sorted(names):
            raise StoreError(
                f"Slide {self.slide_id}: got arrays {', '.join(sorted(patches))}, "
                f"need {', '.join(names)}."
            )
        count = len(patches[names[0]])
        for spec in self._specs:
            block, want = patches[spec.name], (count, spec.size_px, spec.size_px, 3)
            if block.dtype != np.uint8 or block.shape != want:
                raise StoreError(
                    f"Slide {self.slide_id}, {spec.name}: patches are {block.shape} {block.dtype}, "
                    f"need {want} uint8."
                )
        return [patches[name] for name in names]

    def _fill(self, blocks: Sequence[UInt8Array]) -> None:
        if self._buffers is None:
            self._buffers = [
                np.empty((self._per_shard, spec.size_px, spec.size_px, 3), np.uint8)
                for spec in self._specs
            ]
        stop = self._filled + len(blocks[0])
        for buffer, block in zip(self._buffers, blocks, strict=True):
            buffer[self._filled : stop] = block
        self._filled = stop
        if stop == self._per_shard:
            self._write_shards(self._buffers)

    def _write_shards(self, blocks: Sequence[UInt8Array]) -> None:
        with disk_full_is_clear(self._paths.root):
            for spec, layout, block in zip(self._specs, self._layouts, blocks, strict=True):
                path = self._stage.shard(spec.name, self._shards)
                write_shard(path, block, layout, self._encode, self._pool)
        if len(blocks[0]) == self._per_shard:
            self._shards += 1
            self._filled = 0

    def _write_metadata(self, columns: Columns) -> None:
        count = self.patches
        for spec, layout in zip(self._specs, self._layouts, strict=True):
            document = array_document(
                shape=(count, spec.size_px, spec.size_px, 3),
                dtype=np.dtype(np.uint8),
                chunk_shape=layout.shard_shape,
                codecs=[sharding_codec(layout.inner_shape, self._preset.inner_codecs)],
                attributes=spec.attributes(),
                dimensions=("patch", "y", "x", "channel"),
            )
            write_buffers(self._stage.array(spec.name) / META, [to_json(document)])
        write_buffers(self._stage.columns / META, [to_json(group_document({}))])
        digests = np.concatenate([np.empty(0, np.uint64), *self._digests])
        names = [spec.name for spec in self._specs]
        for name, values in {**columns, DIGEST: digests}.items():
            write_column(self._stage.column(name), name, values, names)


class StoreWriter:
    """The writing side of a store; holds no open files and so can be pickled to workers.

    Make one with `create`, `resume` or, in worker processes, `attach`.
    """

    def __init__(self, path: Path, codec: str, threads: int = 1) -> None:
        self.paths = StorePaths(Path(path))
        self.codec = codec_preset(codec).name
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
    ) -> "StoreWriter":
        """Make an empty store.

        Parameters
        ----------
        path : Path
            Folder of the store, e.g. ``pairs.zarr``; its parent is made.
        root : mapping
            See `wsisr.store.schema.root_attributes`.
        codec : str
            ``"raw"``, ``"small"`` or ``"zstd"``.
        overwrite : bool
            Replace an existing store; without it an existing one is refused.
        threads : int
            Encoding threads per process (used by ``small`` and ``zstd``).
        """
        writer = cls(path, codec, threads)
        paths = writer.paths
        attributes = plain_json(root_attributes(root, writer.codec))
        with disk_full_is_clear(paths.root):
            writer._recover()
            if paths.root.exists():
                if not overwrite:
                    raise StoreError(
                        f"{paths.root} exists already; add --overwrite to replace it, or choose "
                        "another place with -o."
                    )
                _refuse_foreign(paths.root)
            writer._clean_staging()
            # Parts of one build may start at the same moment: each stages under its own name.
            staged = paths.staged_roots / f"{socket.gethostname()}-{os.getpid()}"
            write_buffers(staged / META, [root_json(attributes)])
            write_buffers(staged / SLIDES / META, [to_json(group_document({}))])
            sync_tree(staged)
            swap_in(staged, paths.root, paths.replaced_root)
        return writer

    @classmethod
    def resume(
        cls, path: Path, root: Mapping[str, Any], *, threads: int = 1, shared: bool = False
    ) -> "StoreWriter":
        """Go on with a store; new slides may have come.

        The manifest must be the store's own (`manifest_sha256` and magnifications are compared).
        If the list of slides changes, the splits, which count slides by their place in it, are
        taken away until `commit_splits` writes them anew.

        Parameters
        ----------
        path, root, threads
            As for `create`.
        shared : bool
            Whether other parts of this build may be running: nothing of theirs is cleaned up.

        Raises
        ------
        StoreError
            If there is no store, or it was built with another manifest.
        """
        probe = StorePaths(Path(path))
        with disk_full_is_clear(probe.root):
            if not shared:
                cls(path, "raw")._recover()
            stored = read_store_attributes(probe.root)
            writer = cls(path, stored["codec"], threads)
            if not shared:
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
                remove_tree(probe.splits)
            if merged != stored:
                replace_file(probe.meta, root_json(merged), staging=probe.partial)
        return writer

    @classmethod
    def attach(cls, path: Path, *, threads: int = 1) -> "StoreWriter":
        """A writer for a worker process: cleans and changes nothing of the store itself."""
        return cls(path, read_store_attributes(Path(path))["codec"], threads)

    def slide(self, slide_id: str, arrays: Sequence[ArraySpec]) -> SlideWriter:
        """Start a slide; staged left-overs of an earlier run of it are removed.

        Parameters
        ----------
        slide_id : str
            One of the root attributes' slides.
        arrays : sequence of ArraySpec
            Finest first; all with the same field of view.
        """
        if not arrays:
            raise StoreError(f"Slide {slide_id}: no image arrays.")
        fields = [spec.factor * spec.size_px for spec in arrays]
        if max(fields) - min(fields) > 1e-6 * fields[0]:
            raise StoreError(f"Slide {slide_id}: its arrays see different fields of view.")
        return SlideWriter(self.paths, slide_id, arrays, codec_preset(self.codec), self.threads)

    def committed(self) -> set[str]:
        """Ids of the slides that are complete in the store."""
        if not self.paths.slides.is_dir():
            return set()
        return {entry.name for entry in self.paths.slides.iterdir() if (entry / META).is_file()}

    def remove(self, slide_id: str) -> None:
        """Take a committed slide out, e.g. because its source file changed."""
        final = self.paths.slide(slide_id).root
        if final.exists():
            aside = self.paths.partial / "removed" / slide_id
            remove_tree(aside)
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.rename(final, aside)
            sync_directory(final.parent)
            remove_tree(aside)

    def set_root(self, changes: Mapping[str, Any]) -> None:
        """Add or replace keys of the root attributes at once, e.g. the splits of new slides.

        Raises
        ------
        StoreError
            For keys that identify the store (format, manifest, slides, ...).
        """
        fixed = {*RootAttributes.__required_keys__, "keep"} & set(changes)
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

    def clean(self) -> None:
        """Remove the staging folder's own parts, and the folder if nothing else is in it."""
        self._clean_staging()
        if self.paths.partial.is_dir() and not any(self.paths.partial.iterdir()):
            self.paths.partial.rmdir()

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
        for folder in (
            paths.staged_roots,
            paths.staged_slides,
            paths.staged_splits,
            paths.replaced_slides,
            paths.replaced_splits,
            paths.partial / "removed",
        ):
            remove_tree(folder)


def read_store_attributes(path: Path) -> RootAttributes:
    """Root attributes of a store, checked.

    Raises
    ------
    StoreError
        If there is no pair store at this path, or one of a newer format.
    """
    node = read_node(path)
    return read_root_attributes(node.attributes, str(path))


def _resumed(stored: RootAttributes, given: RootAttributes, committed: set[str]) -> RootAttributes:
    """The attributes of a store that is gone on with.

    What identifies the store stays as it was written first; the list of slides and whatever else
    the build keeps there is renewed. Committed slides stay listed even if their files are gone.
    """
    fixed = {*RootAttributes.__required_keys__, "keep"}
    merged = dict(stored) | {key: value for key, value in given.items() if key not in fixed}
    merged["slides"] = sorted({*given["slides"], *committed})
    return cast(RootAttributes, merged)


def _refuse_foreign(path: Path) -> None:
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
