"""Reading a store: slides, tables, splits and patches, with numpy alone."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import AnyArray, Int32Array, UInt8Array
from wsisr.errors import NoSuchSlideError, StoreError
from wsisr.store.attributes import RootAttributes, read_root_attributes
from wsisr.store.caches import ShardIndexes
from wsisr.store.columns import read_plain
from wsisr.store.digests import canonical_digest
from wsisr.store.layout import META, StoreTree, check_array_name, check_slide_id
from wsisr.store.metadata import child_names, damage_of, read_node
from wsisr.store.places import Address, Place, local_path, place_of
from wsisr.store.schema import COLUMNS, KEPT, find_column
from wsisr.store.shard_reader import Job, ShardReader, fetch_ahead
from wsisr.store.slide_view import SlideView
from wsisr.store.table import Table, concatenate, data_frame, empty_column
from wsisr.store.window_reader import DecodedTiles


class _Slides(Mapping[str, SlideView]):
    """Committed slides by id, opened when first used; which are open, the store knows."""

    def __init__(self, store: "PairStore") -> None:
        self._store = store

    def __getitem__(self, slide_id: str) -> SlideView:
        store, opened = self._store, self._store._views
        if slide_id not in opened:
            if slide_id not in self:
                fits = store.named(slide_id)
                if len(fits) != 1 or fits[0] not in self:
                    raise NoSuchSlideError(
                        f"{store.path} has no slide {slide_id!r}; if its own list names it, "
                        "run wsisr verify."
                    )
                return self[fits[0]]
            opened[slide_id] = SlideView(store, slide_id, store.slide_index(slide_id))
        return opened[slide_id]

    def __contains__(self, slide_id: object) -> bool:
        # Answered without opening the slide, which may be broken.
        return slide_id in self._store._present

    def __iter__(self) -> Iterator[str]:
        return iter(self._store._present)

    def __len__(self) -> int:
        return len(self._store._present)

    def __repr__(self) -> str:
        return f"<{len(self)} slides>"


class PairStore:
    """A pair store opened for reading; made by `open_pairs`.

    Attributes
    ----------
    path : Path or Place
        A path where the store lies on this machine.
    attributes : RootAttributes
        Manifest, magnifications, every planned slide id.
    slides : mapping of str to SlideView
        The committed ones, sorted by id.
    """

    def __init__(self, path: Address, *, verify: bool = True, threads: int = 1) -> None:
        self.paths: StoreTree[Place] = StoreTree(place_of(path))
        self.path = local_path(self.paths.root) or self.paths.root
        node = read_node(self.paths.root)
        self.attributes: RootAttributes = read_root_attributes(node.attributes, str(self.path))
        with damage_of(self.paths.meta):
            for name in self.attributes["slides"]:
                check_slide_id(name)
            for name in self.attributes["magnifications"]:
                check_array_name(name)
        self._index = {name: at for at, name in enumerate(self.attributes["slides"])}
        self._short: dict[str, list[str]] | None = None
        there = self.paths.root.files.together(
            lambda name: self.paths.slide(name).meta.exists(), list(self._index)
        )
        self._present = dict.fromkeys(
            name for name, is_there in zip(self._index, there, strict=True) if is_there
        )
        if self.paths.root.files.remote:
            # What every array is like is asked of all slides, one after the other.
            arrays = [
                self.paths.slide(name).array(a) / META
                for name in self._present
                for a in self.arrays
            ]
            self.paths.root.files.together(Place.exists, arrays)
        self._views: dict[str, SlideView] = {}
        self._verify = verify
        self._threads = max(1, threads)
        self._indexes = ShardIndexes()
        self._tiles = DecodedTiles()
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.paths.root, "verify": self._verify, "threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], verify=state["verify"], threads=state["threads"])  # type: ignore[misc]

    def __repr__(self) -> str:
        names = ", ".join(self.attributes["magnifications"])
        return f"<PairStore {self.path}: {len(self.slides)} slides, {names}>"

    @property
    def slides(self) -> Mapping[str, SlideView]:
        """The committed slides, sorted by id."""
        return _Slides(self)

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the image arrays, finest first."""
        return tuple(self.attributes["magnifications"])

    def content_digest(self) -> str:
        """Digest of what the store holds: its root, and every committed slide by its own digest.

        Two stores of one content digest have the same patches; which of them count (`kept`, and
        the rule that chose them) is not part of it.
        """
        root = {k: v for k, v in self.attributes.items() if k not in ("digest", "keep")}
        slides = [[name, view.attributes["digest"]] for name, view in self.slides.items()]
        return canonical_digest([root, slides])

    def slide_index(self, slide: str | int) -> int:
        """Place of a slide in the root attributes' list.

        Parameters
        ----------
        slide : str or int
            Its id, a short form of it that is unique (``tumor_001`` of ``tumor__tumor_001.tif``,
            see `wsisr.slides.ids.short_forms`), or the place itself.

        Raises
        ------
        StoreError
            If the store does not list it, or a short form fits several slides.
        """
        if isinstance(slide, str):
            if slide in self._index:
                return self._index[slide]
            fits = self.named(slide)
            if len(fits) > 1:
                raise StoreError(f"{self.path}: {slide!r} fits {', '.join(fits)}; use an id.")
            if not fits:
                raise StoreError(f"{self.path} lists no slide {slide!r}.")
            return self._index[fits[0]]
        if not 0 <= slide < len(self._index):
            raise StoreError(f"{self.path} lists {len(self._index)} slides; there is no {slide}.")
        return int(slide)

    def named(self, short: str) -> tuple[str, ...]:
        """Ids of the slides that a short form fits."""
        if self._short is None:
            from wsisr.slides.ids import short_forms  # reports go without wsisr.slides

            self._short = {}
            for slide_id in self._index:
                for form in short_forms(slide_id):
                    self._short.setdefault(form, []).append(slide_id)
        return tuple(self._short.get(short, ()))

    def table(
        self,
        slide: str | int | None = None,
        *,
        kept: bool = True,
        columns: Sequence[str] | None = None,
    ) -> Table:
        """Per-patch columns of one slide or of all.

        Parameters
        ----------
        slide : str, int or None
            Id or index; None for all committed slides.
        kept : bool
            Only pairs that count (the default); False for every stored one.
        columns : sequence of str or None
            Only these (cheaper on large stores); None for all that any slide has.

        Returns
        -------
        Table
            With the columns ``slide`` (index) and ``row`` first. Values that a slide lacks
            are NaN, -1, 0 (unsigned) or False.
        """
        ids = list(self.slides) if slide is None else [self._id(slide)]
        parts = self.paths.root.files.together(
            lambda name: self._slide_table(self.slides[name], kept, columns), ids
        )
        return concatenate(parts, self.arrays)

    def to_pandas(self) -> Any:
        """The kept pairs of all splits as a pandas DataFrame, one record a row, as exports have.

        Raises
        ------
        StoreError
            If pandas is not installed.
        """
        from wsisr.store.exporting.pair_records import table_of

        return data_frame(table_of(self))

    def to_arrow(self) -> Any:
        """The same as a pyarrow Table.

        Raises
        ------
        StoreError
            If pyarrow is not installed.
        """
        from wsisr.store.exporting.pair_records import table_of
        from wsisr.store.exporting.tables import require

        return require("pyarrow").table(table_of(self))

    def split(self, name: str) -> Int32Array:
        """Pairs of a split, shape (m, 2): slide index, row.

        Raises
        ------
        StoreError
            If the build is not finished or has no such split.
        """
        folder = self.paths.splits / name
        if not (folder / META).exists() and not self.paths.splits.names():
            raise StoreError(
                f"{self.path} has no splits yet: its build is not finished. Run the same "
                "wsisr build-pairs command again."
            )
        if not (folder / META).exists():
            names = ", ".join(self.split_names())
            raise StoreError(f"{self.path} has no split {name!r}; it has {names}.")
        rows = read_plain(folder)
        if rows.ndim != 2 or rows.shape[1] != 2:
            raise StoreError(f"{folder} is no split.")
        return cast(Int32Array, rows)

    def split_names(self) -> tuple[str, ...]:
        """Names of the splits; empty while a build is not finished."""
        return child_names(self.paths.splits)

    def patch(self, slide: str | int, row: int, array: str) -> UInt8Array:
        """One patch, shape (s, s, 3), uint8."""
        return self.reader(self._id(slide), array).read([row])[0]

    def read(
        self,
        rows: ArrayLike,
        array: str,
        *,
        y: ArrayLike = 0,
        x: ArrayLike = 0,
        h: int | None = None,
        w: int | None = None,
        out: UInt8Array | None = None,
    ) -> UInt8Array:
        """Patches of any slides as one batch.

        Parameters
        ----------
        rows : int array, shape (k, 2)
            Slide index and row, e.g. part of a `split`.
        array : str
            ``"40x"``.
        y, x, h, w, out
            Crop and target as in `ShardReader.read`.

        Returns
        -------
        ndarray, shape (k, h, w, 3), uint8
        """
        pairs = np.asarray(rows)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise StoreError("rows must have the shape (k, 2): slide index, row.")
        count = len(pairs)
        tops = np.broadcast_to(np.asarray(y), (count,))
        lefts = np.broadcast_to(np.asarray(x), (count,))
        names = self.attributes["slides"]
        indices = np.unique(pairs[:, 0]).tolist()
        readers = self.paths.root.files.together(
            lambda index: self.reader(names[self.slide_index(index)], array), indices
        )
        groups = [
            (reader, pairs[:, 0] == index) for reader, index in zip(readers, indices, strict=True)
        ]
        sizes = {reader.shape[1] for reader, _ in groups}
        if len(sizes) > 1 and (h is None or w is None):
            raise StoreError(f"{array} has patches of several sizes; say h and w.")
        size = max(sizes, default=0)
        height = size - int(tops.max(initial=0)) if h is None else int(h)
        width = size - int(lefts.max(initial=0)) if w is None else int(w)
        if out is None:
            out = np.empty((count, height, width, 3), np.uint8)
        elif out.shape != (count, height, width, 3) or out.dtype != np.uint8:
            raise StoreError(f"out must be uint8 of shape {(count, height, width, 3)}.")
        jobs = []
        for reader, members in groups:
            reader.check(pairs[members, 1], tops[members], lefts[members], height, width)
            for at in np.flatnonzero(members).tolist():
                jobs.append((reader, int(pairs[at, 1]), int(tops[at]), int(lefts[at]), out[at]))
        fetch_ahead(jobs)
        _run(jobs, self._executor() if self._threads > 1 else None, self._threads)
        return out

    def reader(self, slide_id: str, array: str) -> ShardReader:
        """The reader of one image array of one slide."""
        if slide_id not in self._present:
            slide_id = self._id(slide_id)
        return self.slides[slide_id].reader(array)

    def _id(self, slide: str | int) -> str:
        name = self.attributes["slides"][self.slide_index(slide)]
        if name not in self.slides:
            raise StoreError(
                f"{self.path} has no pairs of slide {name!r}: it failed or is to come."
            )
        return name

    def _slide_table(self, slide: SlideView, kept: bool, columns: Sequence[str] | None) -> Table:
        names = slide.columns()
        wanted = names if columns is None else [c for c in columns if c not in ("slide", "row")]
        unknown = [c for c in wanted if c not in names and find_column(c, slide.arrays) is None]
        if unknown:
            raise StoreError(
                f"{', '.join(unknown)}: no such column; there are {', '.join(sorted(COLUMNS))}."
            )
        chosen = (
            np.flatnonzero(slide.column(KEPT)) if kept else np.arange(len(slide), dtype=np.int64)
        )
        data: dict[str, AnyArray] = {
            "slide": np.full(len(chosen), slide.index, np.int32),
            "row": chosen.astype(np.int32),
        }
        for name in wanted:
            if name in names:
                data[name] = slide.column(name)[chosen]
            else:
                data[name] = empty_column(name, slide.arrays, len(chosen))
        attributes = slide.attributes
        words = {
            "label": list(attributes.get("labels") or []),
            "reason": list(attributes.get("reasons") or []),
        }
        return Table(data, words)

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None or self._pool_pid != os.getpid():
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="wsisr-read")
            self._pool_pid = os.getpid()
        return self._pool


def _run(jobs: list[Job], pool: ThreadPoolExecutor | None, threads: int) -> None:
    def read(part: list[Job]) -> None:
        for reader, row, y, x, out in part:
            reader.read_into(row, y, x, out)

    if pool is None or len(jobs) < 2:
        read(jobs)
        return
    step = -(-len(jobs) // threads)
    list(pool.map(read, [jobs[start : start + step] for start in range(0, len(jobs), step)]))


def open_pairs(
    path: Address, *, verify: bool = True, threads: int = 1, check: bool = False
) -> PairStore:
    """Open a pair store for reading.

    Parameters
    ----------
    path : path
        ``pairs.zarr``.
    verify : bool
        Check the CRC-32C of everything that is read.
    threads : int
        Threads that read and decode a batch.
    check : bool
        Compare every slide's attributes and files with its digest first, as for a store that came
        from others; reads all files but the image shards.

    Raises
    ------
    StoreError
        If there is no pair store, or one of a newer format.
    CorruptStoreError
        With `check`: naming the first slide that is not as it was written.
    """
    store = PairStore(path, verify=verify, threads=threads)
    for view in store.slides.values() if check else ():
        view.check()
    return store
