"""What a slide is, whoever reads it: the contract of every backend.

Nothing here imports a slide library. `wsisr.testing.BackendTests` checks an implementation.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.magnification import Mpp


@dataclass(frozen=True, kw_only=True)
class Compression:
    """How the pixels of a level are stored; it bounds what HR can be (design 3.10).

    Attributes
    ----------
    codec : str
        ``"jpeg"``, ``"jpeg2000"``, ``"none"``, ``"lzw"``, ``"deflate"``, ``"webp"``, ``"png"``,
        ``"unknown"``, ...
    photometric : str
        Colour space of the stored stream, e.g. ``"rgb"`` or ``"ycbcr"``.
    colour_by : str
        What says so: ``"photometric tag"``, or a part of the stream, e.g. ``"Adobe marker"``.
    tag : str
        What the photometric tag says where the stream says otherwise; empty where they agree.
    quality : int or None
        Equivalent libjpeg quality of the luminance table, where the codec is JPEG.
    tables_sha256 : str or None
        Hash of the JPEG quantisation tables.
    subsampling : str or None
        Chroma subsampling, e.g. ``"4:2:0"``.
    generations : int
        How many lossy passes are known of (1 for an ordinary JPEG slide, 2 for a level that was
        made from one and compressed again); 0 for lossless from the sensor or unknown.
    sharpened : bool or None
        Whether the vendor's metadata says that the scanner sharpened; None if it is silent.
    """

    codec: str = "unknown"
    photometric: str = "rgb"
    colour_by: str = "photometric tag"
    tag: str = ""
    quality: int | None = None
    tables_sha256: str | None = None
    subsampling: str | None = None
    generations: int = 0
    sharpened: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Level:
    """One stored level.

    Attributes
    ----------
    index : int
        0 is the finest.
    width_px, height_px : int
        True stored size.
    factor : int or None
        Exact downsample (`wsisr.geometry.level_factor`); None where there is none. Such a
        level is never used for pairs.
    tile_width_px, tile_height_px : int
        Stored tile (or strip) size: reads snapped to it decode each tile once.
    exact : bool
        Whether `Slide.read_level` returns this level's stored pixels bit for bit.
    moved_px : (int, int)
        By how many of its own pixels, right and down, it was moved to lie on level 0, because
        the file states where it starts; (0, 0) nearly always.
    """

    index: int
    width_px: int
    height_px: int
    factor: int | None
    tile_width_px: int
    tile_height_px: int
    exact: bool = True
    compression: Compression = field(default_factory=Compression)
    moved_px: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class ReaderVerdict:
    """What a second reader says of the pixels of a file; holds no name and no path.

    Attributes
    ----------
    status : str
        ``"agree"``: every compared region is the same to both. ``"differ"``: they are not, and
        `reader` is the one that is believed. ``"unchecked"``: no region was compared, which is no
        pass.
    reader : str
        Who reads the slide after the verdict.
    second : str or None
        Who compared; several are joined by ``" and "``.
    regions : int
        How many regions with scanned pixels were compared.
    levels : tuple of int
        The levels that they lie on.
    max_difference : int
        Largest difference found, grey levels.
    detail : str
        The same as a sentence.
    """

    status: Literal["agree", "differ", "unchecked"]
    reader: str
    detail: str
    second: str | None = None
    regions: int = 0
    levels: tuple[int, ...] = ()
    max_difference: int = 0

    def line(self) -> str:
        """One line that begins with what the reader must know."""
        start = {"agree": "", "differ": "READERS DISAGREE: ", "unchecked": "UNCHECKED: "}
        return start[self.status] + self.detail


@dataclass(frozen=True, kw_only=True)
class SlideInfo:
    """What is known of a slide without reading pixels.

    Attributes
    ----------
    path : Path
        The file, or the folder of a DICOM series.
    vendor : str
        ``"aperio"``, ``"hamamatsu"``, ``"philips"``, ``"dicom"``, ``"generic-tiff"``, ...
    backend : str
        Which reader: ``"direct"``, ``"dicom"``, ``"tiffslide"``, ``"openslide"`` or ``"image"``.
    mpp : Mpp or None
        None where the file states none (`mpp_problem` says why).
    mpp_problem : str
        Empty, or why there is no usable resolution.
    objective_power : float or None
        As stated by the file; informative only (design 3.2).
    icc_sha256 : str or None
        Hash of the embedded ICC profile; profiles are never applied silently (design 3.9).
    bytes : int
        Total size of the files.
    fingerprint : str
        Cheap identity of the content: hash over size and sampled parts of every file.
    quirks : tuple of str
        Sentences about anything unusual, for `inspect` and the store.
    origin_px : (int, int)
        Level-0 x, y of OpenSlide's bounds (SCN, MRXS, BIF: a scan within a larger plane): QuPath
        crops to them and counts from there; everything here counts from the plane's corner.
    verdict : ReaderVerdict or None
        Of the checked door (`open_slide`); None for a reader that was named by the caller.
    focal_plane : int or None
        Which of several focal planes is read, counted from 1; None where there is one.
    white : float or None
        Sample value that was stated to be white, of an image of more than 8 bits.
    blind_readers : tuple of str
        Readers that do not know how this file is organised (they show its first page or plane)
        and so have no say in its pixels.
    """

    path: Path
    vendor: str
    backend: str
    mpp: Mpp | None
    mpp_problem: str = ""
    objective_power: float | None = None
    levels: tuple[Level, ...]
    icc_sha256: str | None = None
    bytes: int
    fingerprint: str
    quirks: tuple[str, ...] = ()
    origin_px: tuple[int, int] = (0, 0)
    verdict: ReaderVerdict | None = None
    focal_plane: int | None = None
    white: float | None = None
    blind_readers: tuple[str, ...] = ()

    @property
    def grey(self) -> bool:
        """Whether one channel is stored; the three that are read are equal then."""
        return self.levels[0].compression.photometric in ("minisblack", "miniswhite")


@runtime_checkable
class Slide(Protocol):
    """An open slide. Handles belong to one process; threads may share one."""

    @property
    def info(self) -> SlideInfo: ...

    def read_level(self, level: int, x: int, y: int, width: int, height: int) -> UInt8Array:
        """Stored pixels of a level, in that level's own pixel grid.

        Returns
        -------
        ndarray, shape (height, width, 3), uint8, RGB
            Bit for bit what is stored where the level is `exact`. Alpha is composited on white;
            pixels outside the level and pixels that were never scanned are white.
        """
        ...

    def read_validity(self, level: int, x: int, y: int, width: int, height: int) -> BoolArray:
        """Which of the same pixels were scanned: False outside the level, where alpha is 0 and
        in missing tiles. Shape (height, width)."""
        ...

    def icc_profile(self) -> bytes | None:
        """The embedded ICC profile, if any."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
