"""One slide class for every format: tiles come from a store, pixels from an assembly in numpy.

A backend is a `TileStore`: it knows the tile grid of each level and decodes one tile at a time.
`TiledSlide` adds the rest once for all of them: the bounded cache of decoded tiles, the assembly
of a region, white where nothing was scanned, and the validity of every pixel. OpenSlide paints
tiles with a general 2-D library, which costs more than decoding them; copying rows between
arrays does not, and changes no pixel.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.errors import SlideError
from wsisr.geometry import level_factor
from wsisr.host import return_freed_memory
from wsisr.slides.faults import DamagedTileError
from wsisr.slides.protocol import Level, Slide, SlideInfo

WHITE = 255
MAX_READ_BYTES = 4 << 30
"""A single read larger than this is a mistake of the caller, not a read."""


class Tile(NamedTuple):
    """One decoded tile.

    Attributes
    ----------
    pixels : ndarray, shape (height, width, 3), uint8, or None
        RGB, alpha composited on white; None where nothing was scanned.
    valid : ndarray of bool, shape (height, width), or None
        Which pixels were scanned; None means all of them.
    stream : bytes or None
        What it was decoded from, where that is to be kept (`wsisr.slides.streams`).
    """

    pixels: UInt8Array | None
    valid: BoolArray | None = None
    stream: bytes | None = None

    @property
    def nbytes(self) -> int:
        parts = (None if part is None else part.nbytes for part in (self.pixels, self.valid))
        return sum(part or 0 for part in parts) + len(self.stream or b"") + 64


MISSING = Tile(None)
DAMAGED = Tile(None)
"""In place of a tile that cannot be decoded, for whoever tolerates it; else like `MISSING`."""


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """How one level is cut into tiles; a tile may be cut off at the right and bottom edge."""

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int

    @classmethod
    def square(cls, width_px: int, height_px: int, side_px: int) -> Self:
        """Square tiles; or the blocks that stand in for tiles."""
        return cls(
            width_px=width_px,
            height_px=height_px,
            tile_width_px=side_px,
            tile_height_px=side_px,
        )

    @property
    def columns(self) -> int:
        return -(-self.width_px // self.tile_width_px)

    @property
    def rows(self) -> int:
        return -(-self.height_px // self.tile_height_px)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """x, y, width and height of what of a tile lies inside the level."""
        x, y = column * self.tile_width_px, row * self.tile_height_px
        width = min(self.tile_width_px, self.width_px - x)
        return x, y, width, min(self.tile_height_px, self.height_px - y)

    def level(self, index: int, finest: "TileGrid") -> Level:
        """The level that is cut so, with its factor by the size of the finest."""
        return Level(
            index=index,
            width_px=self.width_px,
            height_px=self.height_px,
            factor=level_factor(finest.width_px, finest.height_px, self.width_px, self.height_px),
            tile_width_px=self.tile_width_px,
            tile_height_px=self.tile_height_px,
        )

    def touched(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int]]:
        """Rows and columns of the tiles that a region of the level touches, row by row."""
        left, top = max(0, x), max(0, y)
        right, bottom = min(self.width_px, x + width), min(self.height_px, y + height)
        if left >= right or top >= bottom:
            return
        columns = range(left // self.tile_width_px, (right - 1) // self.tile_width_px + 1)
        for row in range(top // self.tile_height_px, (bottom - 1) // self.tile_height_px + 1):
            for column in columns:
                yield row, column


class TileStore(Protocol):
    """What a backend provides; every method may be called from several threads at once."""

    @property
    def grids(self) -> tuple[TileGrid, ...]: ...

    def fetch(self, level: int, row: int, column: int) -> Tile:
        """Decode one tile (at least as large as the part of it inside the level)."""
        ...

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        """Whether all of a tile was scanned, if that is known without decoding it."""
        ...

    def icc_profile(self) -> bytes | None: ...

    def close(self) -> None: ...


TOLERATED_TILES, TOLERATED_SHARE = 3, 0.001
"""Damaged tiles that do not make a slide useless: a few, or one in a thousand of those read."""


DAMAGE_WORDS = "tile(s) are damaged"


@dataclass
class Damage:
    """Tiles of a slide that were met and cannot be decoded.

    Attributes
    ----------
    tiles : dict
        (level, row, column) -> what the decoder says.
    read : int
        How many tiles were decoded.
    patches : int
        Patches that were dropped for lying on one (`wsisr.slides.iter_patches` counts them).
    """

    path: Path
    tiles: dict[tuple[int, int, int], str] = field(default_factory=dict)
    read: int = 0
    patches: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self) -> None:
        """One more tile is decoded, by whichever thread."""
        with self._lock:
            self.read += 1

    def check(self) -> tuple[str, ...]:
        """A sentence if tiles are damaged.

        Raises
        ------
        SlideError
            If they are too many: more than 3, and more than one in a thousand of those read.
        """
        if not self.tiles:
            return ()
        key, first = min(self.tiles.items())
        place = f"level {key[0]}, row {key[1]}, column {key[2]}"
        if len(self.tiles) > max(TOLERATED_TILES, TOLERATED_SHARE * self.read):
            raise SlideError(
                f"{self.path}: {len(self.tiles)} of the {self.read:,} tiles read are damaged; the "
                f"first: {first.removeprefix(f'{self.path}: ')}"
            )
        patches = f"; {self.patches} patch(es) on them were dropped" if self.patches else ""
        return (f"{len(self.tiles)} {DAMAGE_WORDS} (first: {place}) and not shown{patches}.",)


class TileCache:
    """Least recently used decoded tiles, bounded in bytes; safe to share between threads."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._tiles: OrderedDict[tuple[int, int, int], Tile] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int, int]) -> Tile | None:
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: tuple[int, int, int], tile: Tile) -> None:
        with self._lock:
            old = self._tiles.pop(key, None)
            self._bytes += tile.nbytes - (0 if old is None else old.nbytes)
            self._tiles[key] = tile
            while self._bytes > self._limit_bytes and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._tiles.clear()
            self._bytes = 0


class TiledSlide:
    """An open slide over `store`, where its tiles come from; implements `wsisr.slides.Slide`.

    Pickling one ships how it was opened, not its handles: the copy opens the file again.
    """

    def __init__(
        self,
        info: SlideInfo,
        store: TileStore,
        *,
        cache_mib: float = 64,
        convert: Callable[[UInt8Array], UInt8Array] | None = None,
        reopen: Callable[[], Any] | None = None,
    ) -> None:
        self.info = info
        self.store = store
        self._cache = TileCache(int(cache_mib * 2**20))
        self._convert = convert
        self._reopen = reopen
        self._closed = False
        self.damage: Damage | None = None

    def tolerate(self) -> Damage:
        """From now on take damaged tiles for not scanned, and count them.

        Without it each is an error of the read that meets it. For whoever reads a whole slide and
        asks `Damage.check` in the end.
        """
        self.damage = self.damage or Damage(self.info.path)
        return self.damage

    def __repr__(self) -> str:
        level = self.info.levels[0]
        size = f"{level.width_px} x {level.height_px} px"
        return f"<slide {self.info.path.name!r} {size}, {self.info.backend}>"

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        if self._reopen is None:
            raise TypeError("This slide was not opened by open_slide and cannot be pickled.")
        return self._reopen, ()

    def grid(self, level: int) -> TileGrid:
        """The tile grid of a level."""
        self._check(level)
        return self.store.grids[level]

    def decode_tile(
        self,
        level: int,
        row: int,
        column: int,
        fetch: Callable[[int, int, int], Tile] | None = None,
    ) -> Tile:
        """One tile, decoded now and not kept (`wsisr.slides.iter_patches` keeps its own).

        With `fetch` in place of the store's own (`wsisr.slides.streams.LevelStreams`).
        """
        self._check(level)
        if self.damage is not None:
            self.damage.count()
        try:
            tile = (fetch or self.store.fetch)(level, row, column)
        except DamagedTileError as error:
            if self.damage is None:
                raise
            self.damage.tiles[level, row, column] = str(error)
            return DAMAGED
        if self._convert is None or tile.pixels is None:
            return tile
        pixels = self._convert(tile.pixels)
        if tile.valid is not None:
            pixels[~tile.valid] = WHITE
        return Tile(pixels, tile.valid)

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> UInt8Array:
        """Stored pixels of a level, in that level's own pixels: see `Slide.read_level`."""
        self._check(level, width, height)
        grid = self.store.grids[level]
        keys = list(grid.touched(x, y, width, height))
        tiles = ((row, column, self._tile(level, row, column)) for row, column in keys)
        return assemble_pixels(grid, tiles, x, y, width, height)

    def read_validity(self, level: int, x: int, y: int, width: int, height: int) -> BoolArray:
        """Which of the same pixels were scanned: see `Slide.read_validity`."""
        self._check(level, width, height)
        grid = self.store.grids[level]
        out = np.zeros((height, width), dtype=np.bool_)
        for row, column in grid.touched(x, y, width, height):
            scanned = self.store.scanned(level, row, column)
            if scanned and self.damage is not None:
                scanned = None  # only decoding it tells
            if scanned is False:
                continue
            target, source = overlap(grid, row, column, (x, y, width, height))
            tile = Tile(None) if scanned else self._tile(level, row, column)
            if scanned or (tile.valid is None and tile.pixels is not None):
                out[target] = True
            elif tile.valid is not None:
                out[target] = tile.valid[source]
        return out

    @property
    def converts(self) -> bool:
        """Whether pixels are not those of the stored tiles."""
        return self._convert is not None

    def icc_profile(self) -> bytes | None:
        """The embedded ICC profile, if any."""
        return self.store.icc_profile()

    def forget_tiles(self) -> None:
        """Let go of the decoded tiles that are kept."""
        self._cache.clear()

    def close(self) -> None:
        """Let go of handles and memory; closing twice is no error."""
        if not self._closed:
            self._closed = True
            self._cache.clear()
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _tile(self, level: int, row: int, column: int) -> Tile:
        key = (level, row, column)
        tile = self._cache.get(key)
        if tile is None:
            tile = self.decode_tile(level, row, column)
            self._cache.put(key, tile)
        return tile

    def _check(self, level: int, width: int = 1, height: int = 1) -> None:
        if self._closed:
            raise SlideError(f"{self.info.path} is closed; open it again to read.")
        if not 0 <= level < len(self.store.grids):
            raise SlideError(
                f"{self.info.path} has no level {level}; it has {len(self.store.grids)}."
            )
        if width < 1 or height < 1 or width * height * 3 > MAX_READ_BYTES:
            raise SlideError(
                f"{self.info.path}: cannot read {width} x {height} px at once; read at least "
                f"1 x 1 px and at most {MAX_READ_BYTES >> 30} GiB, in blocks."
            )


def overlap(
    grid: TileGrid, row: int, column: int, region: tuple[int, int, int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a tile lands in a region (x, y, width, height), and which part of it that is.

    Both as row and column slices.
    """
    x, y, width, height = region
    tile_x, tile_y = column * grid.tile_width_px, row * grid.tile_height_px
    left, top = max(x, tile_x), max(y, tile_y)
    right = min(x + width, tile_x + grid.tile_width_px, grid.width_px)
    bottom = min(y + height, tile_y + grid.tile_height_px, grid.height_px)
    return (
        (slice(top - y, bottom - y), slice(left - x, right - x)),
        (slice(top - tile_y, bottom - tile_y), slice(left - tile_x, right - tile_x)),
    )


def assemble_pixels(
    grid: TileGrid,
    tiles: Iterable[tuple[int, int, Tile]],
    x: int,
    y: int,
    width: int,
    height: int,
) -> UInt8Array:
    """Copy tiles into a region of their level; white outside the level and where missing."""
    inside = x >= 0 and y >= 0 and x + width <= grid.width_px and y + height <= grid.height_px
    out = np.empty((height, width, 3), dtype=np.uint8)
    if not inside:
        out.fill(WHITE)
    for row, column, tile in tiles:
        target, source = overlap(grid, row, column, (x, y, width, height))
        out[target] = WHITE if tile.pixels is None else tile.pixels[source]
    return out


def tolerate(slide: Slide) -> None:
    """Take damaged tiles of a slide for not scanned and count them (`TiledSlide.tolerate`)."""
    if isinstance(slide, TiledSlide):
        slide.tolerate()


def forget_tiles(slide: Slide) -> None:
    """Let go of decoded tiles that a slide keeps for reads nearby, where none are to come, and give
    the memory that reading took back to the system."""
    if isinstance(slide, TiledSlide):
        slide.forget_tiles()
    return_freed_memory()


def damaged_patches(slide: Slide) -> int:
    """Patches of a tolerant slide that were dropped for a damaged tile."""
    return 0 if not isinstance(slide, TiledSlide) or slide.damage is None else slide.damage.patches


def check_damage(slides: Iterable[Slide]) -> tuple[str, ...]:
    """A sentence for each tolerant slide that has damaged tiles.

    Raises
    ------
    SlideError
        If one has too many (`Damage.check`).
    """
    damages = (slide.damage for slide in slides if isinstance(slide, TiledSlide))
    return tuple(line for damage in damages if damage is not None for line in damage.check())
