"""One slide of a store: its arrays, columns and mask."""

from typing import TYPE_CHECKING, cast

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import CorruptStoreError, StoreError
from wsisr.store.attributes import SlideAttributes
from wsisr.store.columns import read_plain
from wsisr.store.digests import slide_digest
from wsisr.store.layout import META, check_array_name, stored_as
from wsisr.store.metadata import child_names, damage_of, read_node
from wsisr.store.schema import ArraySpec
from wsisr.store.shard_reader import ShardReader
from wsisr.store.window_reader import WindowReader

if TYPE_CHECKING:
    from wsisr.store.reader import PairStore


class SlideView:
    """One committed slide of a store."""

    def __init__(self, store: "PairStore", slide_id: str, index: int) -> None:
        self.slide_id = slide_id
        self.index = index
        # Not the store, which keeps this: in a circle, files would stay open for a long while.
        self._indexes, self._verify = store._indexes, store._verify
        self._tiles = store._tiles
        self._readers: dict[str, ShardReader] = {}
        self._paths = store.paths.slide(slide_id)
        self.attributes = cast(SlideAttributes, read_node(self._paths.root).attributes)
        if self.attributes.get("state") != "complete":
            raise StoreError(f"{self._paths.root}: this slide is not complete; run wsisr verify.")
        with damage_of(self._paths.meta):
            # Names become paths, here and in exports.
            for name in self.attributes["arrays"]:
                check_array_name(name)
                if name not in store.arrays:
                    raise ValueError(f"an array {name!r} that the store does not name")
            if len(self) < 0:
                raise ValueError("a negative number of patches")
            if not set(self.tiled) <= set(self.arrays):
                raise ValueError("tiles of an array that it does not have")

    def __len__(self) -> int:
        return int(self.attributes["patches"])

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the image arrays, finest first."""
        return tuple(self.attributes["arrays"])

    @property
    def tiled(self) -> tuple[str, ...]:
        """Those that are kept as the slide's own tiles."""
        return tuple(self.attributes.get("tiled") or ())

    @property
    def folders(self) -> dict[str, str]:
        """Where each image array lies in the slide's group."""
        return stored_as(self.arrays, self.attributes)

    def check(self) -> None:
        """Compare the slide's attributes and files with its digest; CorruptStoreError where it
        differs."""
        root = self._paths.root
        if slide_digest(root, self.attributes, self.arrays) != self.attributes.get("digest"):
            raise CorruptStoreError(
                f"{root} is not as it was written: its digest differs; run wsisr verify."
            )

    def spec(self, array: str) -> ArraySpec:
        """What is known of an image array: size, factor, origin, native or made."""
        attributes = self.reader(array).attributes
        with damage_of(self._paths.array(self.folders[array]) / META):
            return ArraySpec.from_attributes(attributes)

    def reader(self, array: str) -> ShardReader:
        """The reader of one image array."""
        if array not in self._readers:
            if array not in self.arrays:
                root, have = self._paths.root, ", ".join(self.arrays)
                raise StoreError(f"{root} has no {array}; it has {have}.")
            if array in self.tiled:
                self._readers[array] = WindowReader(
                    self._paths,
                    array,
                    len(self),
                    verify=self._verify,
                    indexes=self._indexes,
                    tiles=self._tiles,
                )
            else:
                self._readers[array] = ShardReader(
                    self._paths.array(array), verify=self._verify, indexes=self._indexes
                )
        return self._readers[array]

    def windows(self) -> dict[str, WindowReader]:
        """The readers of arrays that are kept as the slide's own tiles."""
        readers = {array: self.reader(array) for array in self.tiled}
        return {name: r for name, r in readers.items() if isinstance(r, WindowReader)}

    def columns(self) -> tuple[str, ...]:
        """Names of the columns that this slide has."""
        return child_names(self._paths.columns)

    def column(self, name: str) -> AnyArray:
        """One column, shape (n,), all rows.

        Raises
        ------
        StoreError
            If the slide has no such column.
        """
        folder = self._paths.column(name)
        if not (folder / META).exists():
            raise StoreError(
                f"{self._paths.root} has no column {name!r}; it has {', '.join(self.columns())}."
            )
        return read_plain(folder)

    def tissue(self) -> UInt8Array:
        """Tissue mask, shape (h, w), uint8, 8 um/px; 0 is none."""
        return cast(UInt8Array, read_plain(self._paths.tissue))
