"""Writing the group of one slide: patches into shards, commit by one rename."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from wsisr.arrays import UInt8Array, UInt64Array
from wsisr.errors import StoreError, StoreLockedError
from wsisr.files import disk_full_is_clear, remove_tree, swap_in, sync_tree
from wsisr.store.attributes import (
    RootAttributes,
    check_slide_attributes,
    digest_algorithm,
    read_root_attributes,
)
from wsisr.store.columns import write_column, write_tissue
from wsisr.store.digests import patch_digests, slide_digest
from wsisr.store.layout import META, SlidePaths, StorePaths
from wsisr.store.lock import SlideLock
from wsisr.store.metadata import (
    array_document,
    group_document,
    plain_json,
    read_node,
    sharding_codec,
    to_json,
)
from wsisr.store.places import Place, place_of
from wsisr.store.presets import SLIDE, codec_preset
from wsisr.store.schema import DIGEST, PATCH_DIGESTS, ArraySpec, Columns, check_columns
from wsisr.store.shards import ShardFile, plan_shards
from wsisr.store.tile_array import TilePlan, TileWriter

if TYPE_CHECKING:
    from wsisr.slides.streams import Window


class SlideWriter:
    """Writes the group of one slide; made by `StoreWriter.slide`.

    Of arrays whose patches are several inner chunks one shard is held in memory (50 to 100 MB).
    """

    def __init__(
        self,
        paths: StorePaths,
        slide_id: str,
        arrays: Sequence[ArraySpec],
        *,
        threads: int,
        wait_s: float,
        tiles: TilePlan | None = None,
    ) -> None:
        stored = read_store_attributes(paths.root)
        codec = stored["codec"]
        names = [spec.name for spec in arrays]
        if len(set(names)) != len(names):
            raise StoreError(f"Slide {slide_id}: array names must be unique: {', '.join(names)}.")
        if tiles is not None and (codec != SLIDE or tiles.array not in names):
            raise StoreError(f"Slide {slide_id}: tiles of {tiles.array} in a store of {codec}.")
        self.slide_id = slide_id
        self._paths = paths
        self._specs = tuple(arrays)
        self._tile_plan = tiles
        self._preset = codec_preset(codec, tiled=tiles is not None)
        self._encode = self._preset.encoder()
        layouts = plan_shards([spec.size_px for spec in arrays], self._preset.max_tile_px)
        self._per_shard = layouts[0].patches
        # Of those whose pixels are written; of the other one the slide's own tiles are.
        self._layouts = {
            spec.name: layout
            for spec, layout in zip(arrays, layouts, strict=True)
            if tiles is None or spec.name != tiles.array
        }
        self._open_shards: list[ShardFile] = []
        self._patches = 0
        self._algorithm = digest_algorithm(stored)
        self._digests: list[UInt64Array] = []
        self._pool = (
            ThreadPoolExecutor(threads) if threads > 1 and self._encode is not None else None
        )
        self._manifest_sha256 = stored["manifest_sha256"]
        self._lock = SlideLock(paths.slide_lock(slide_id))
        self._open = True
        with disk_full_is_clear(paths.root):
            if not self._lock.acquire(wait_s, watch=True):
                raise StoreLockedError(
                    f"{paths.root}: another process is writing slide {slide_id}. Wait for it, or "
                    "stop it, and run the same command again."
                )
            self._stage = paths.staged_slide(slide_id, self._lock.token)
            remove_tree(self._stage.root.parent)
            self._stage.root.mkdir(parents=True)
            # Where its files are put; what is moved and removed is the folder.
            self._put: SlidePaths[Place] = SlidePaths(place_of(self._stage.root))
        self._tiles: TileWriter | None = None
        if tiles is not None:
            (spec,) = (spec for spec in arrays if spec.name == tiles.array)
            self._tiles = TileWriter(self._put, spec, tiles)

    @property
    def patches(self) -> int:
        """How many patches have been appended."""
        return self._patches

    def append(self, patches: Mapping[str, UInt8Array], windows: "Sequence[Window]" = ()) -> None:
        """Add patches to the end of every array.

        Parameters
        ----------
        patches : mapping of str to ndarray, shape (k, s, s, 3), uint8
            The same k for every array of the slide; any k.
        windows : sequence of Window
            Where a slide's own tiles are kept: of each patch in the level, with its tiles.
        """
        self._check_open()
        blocks = self._check_patches(patches)
        if len(windows) != (0 if self._tiles is None else len(blocks[0])):
            raise StoreError(
                f"Slide {self.slide_id}: {len(windows)} windows for {len(blocks[0])} patches."
            )
        with disk_full_is_clear(self._paths.root):
            for row in range(len(blocks[0])):
                # Digested and written while it is in the processor's cache.
                parts = [block[row : row + 1] for block in blocks]
                self._digests.append(patch_digests(parts, self._algorithm).values)
                if self._tiles is not None:
                    self._tiles.add(windows[row])
                self._add({s.name: part[0] for s, part in zip(self._specs, parts, strict=True)})

    def finish(self, columns: Columns, tissue: UInt8Array, attrs: Mapping[str, Any]) -> str:
        """Write what is left, sync everything and commit the slide by one rename.

        Parameters
        ----------
        columns : mapping of str to ndarray, shape (n,)
            See `wsisr.store.schema.COLUMNS`; ``digest`` and windows are computed here.
        tissue : ndarray, shape (h, w), uint8
            Tissue mask at 8 um/px.
        attrs : mapping
            See `wsisr.store.attributes.SlideAttributes`; `WRITTEN_ATTRIBUTES` are set here.

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
            self._close_shards()
            if self._tiles is not None:
                checked |= self._tiles.close()
            self._write_metadata(checked)
            write_tissue(self._put.tissue, tissue)
            attributes |= {"arrays": names, "patches": self.patches, "state": "complete"}
            if self._tile_plan is not None:
                attributes["tiled"] = [self._tile_plan.array]
            digest = slide_digest(self._put.root, attributes, names)
            group = to_json(group_document(attributes | {"digest": digest}))
            self._put.meta.put(group)
            sync_tree(self._stage.root)
            self._check_store()
            self._lock.check()
            final = self._paths.slide(self.slide_id).root
            swap_in(self._stage.root, final, self._paths.replaced_slides / self.slide_id)
            remove_tree(self._stage.root.parent)
        self._close()
        return digest

    def abort(self) -> None:
        """Drop what was staged. Harmless after `finish`."""
        if self._open:
            remove_tree(self._stage.root)
            with suppress(OSError):
                self._stage.root.parent.rmdir()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.abort()

    def _close(self) -> None:
        self._open = False
        for shard in self._open_shards:
            shard.abandon()
        if self._tiles is not None:
            self._tiles.abandon()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._lock.release()

    def _check_store(self) -> None:
        """A worker that outlived its build must not put its slide into another store."""
        if read_store_attributes(self._paths.root)["manifest_sha256"] != self._manifest_sha256:
            raise StoreError(
                f"{self._paths.root} was replaced while slide {self.slide_id} was being written; "
                "the slide is dropped."
            )

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

    def _add(self, patches: Mapping[str, UInt8Array]) -> None:
        if not self._open_shards:
            number = self._patches // self._per_shard
            self._open_shards = [
                ShardFile(self._put.shard(name, number), layout, self._encode, self._pool)
                for name, layout in self._layouts.items()
            ]
        for shard, name in zip(self._open_shards, self._layouts, strict=True):
            shard.add(patches[name])
        self._patches += 1
        if self._patches % self._per_shard == 0:
            self._close_shards()

    def _close_shards(self) -> None:
        for shard in self._open_shards:
            shard.close()
        self._open_shards = []

    def _write_metadata(self, columns: Columns) -> None:
        count = self.patches
        for spec in self._specs:
            layout = self._layouts.get(spec.name)
            if layout is None:
                continue
            document = array_document(
                shape=(count, spec.size_px, spec.size_px, 3),
                dtype=np.dtype(np.uint8),
                chunk_shape=layout.shard_shape,
                codecs=[sharding_codec(layout.inner_shape, self._preset.inner_codecs)],
                attributes=spec.attributes(),
                dimensions=("patch", "y", "x", "channel"),
            )
            (self._put.array(spec.name) / META).put(to_json(document))
        (self._put.columns / META).put(to_json(group_document({})))
        digests = np.concatenate([np.empty(0, np.uint64), *self._digests])
        names = [spec.name for spec in self._specs]
        for name, values in {**columns, DIGEST: digests}.items():
            words = PATCH_DIGESTS[self._algorithm]
            write_column(self._put.column(name), name, values, names, words)


def read_store_attributes(path: Path) -> RootAttributes:
    """Root attributes of a store, checked.

    Raises
    ------
    StoreError
        If there is no pair store at this path, or one of a newer format.
    """
    node = read_node(path)
    return read_root_attributes(node.attributes, str(path))
