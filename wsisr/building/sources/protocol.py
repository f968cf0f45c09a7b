"""What every kind of source offers: scan, extraction and rebuild need not tell them apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Int64Array, UInt8Array
from wsisr.building.layout import Layout, SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import RankedCandidates, Reading
from wsisr.geometry import Layer, PatchGeometry
from wsisr.registration import PairCertificate
from wsisr.selection import TissueMap
from wsisr.selection.annotations import Annotations
from wsisr.slides import Slide
from wsisr.slides.streams import LevelStreams, Window
from wsisr.store import ArraySpec


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a look at the whole of a slide found.

    Attributes
    ----------
    candidates : RankedCandidates
        Places that pass every rule, best rank first.
    funnel : dict of str to int
        How many places were left after each rule, in order.
    mask : ndarray, shape (h, w), bool
        Tissue at `tissue_um_per_px`.
    tissue : dict
        Health numbers of the mask.
    overview_px : int
        Level-0 width that the mask spans.
    transforms, evidence : tuple of dict
        Where the levels in use lie, and what each stored level is against a reduced level 0.
    notes : tuple of str
        Sentences for the summary.
    outlines : dict or None
        How many annotated areas there are, and what they mean (`AnnotationUse`).
    picture : (TissueMap, Annotations or None) or None
        What the overview picture shows; None where there is none.
    """

    reading: Reading
    candidates: RankedCandidates
    funnel: dict[str, int]
    mask: BoolArray
    tissue: dict[str, Any]
    tissue_um_per_px: float
    overview_px: int
    transforms: tuple[dict[str, Any], ...] = ()
    evidence: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    outlines: dict[str, Any] | None = None
    picture: tuple[TissueMap, Annotations | None] | None = None


@dataclass(frozen=True, kw_only=True)
class ReadPair:
    """One place that was read.

    Attributes
    ----------
    index : int
        Row of the origins.
    arrays : dict of str to ndarray, shape (size, size, 3), uint8
        By array name; empty where `drop` says why nothing can be stored.
    certificate : PairCertificate or None
        Of pairs that were searched for one by one.
    resampled : bool
        Whether HR was interpolated.
    drop : {"", "unscanned", "damaged", "outside", "seam", "focus"}
    window : Window or None
        Where HR lies in the slide's own tiles, of a source that was asked to keep them.
    """

    index: int
    arrays: dict[str, UInt8Array] = field(default_factory=dict)
    certificate: PairCertificate | None = None
    resampled: bool = False
    drop: Literal["", "unscanned", "damaged", "outside", "seam", "focus"] = ""
    window: Window | None = None


class Source(Protocol):
    """One slide of a build, opened. Each kind of source implements this in one file.

    `list` and `join` say what a folder holds before anything is opened; places count in level-0
    pixels of the first slide.
    """

    slides: tuple[Slide, ...]
    notes: tuple[str, ...]
    """What opening it found out, for the summary."""

    @staticmethod
    def list(source: Path, manifest: Manifest) -> Layout:
        """The slides of a folder, and how it was understood."""

    @staticmethod
    def join(tasks: Sequence[SlideTask], manifest: Manifest, source: Path) -> tuple[SlideTask, ...]:
        """One task per slide of the store, once the user's table has been applied to the files."""

    @classmethod
    def open(cls, task: SlideTask, manifest: Manifest, backend: str | None = None) -> Self:
        """Open what a task names, by the reader that its scan chose."""

    @classmethod
    def open_checked(cls, task: SlideTask, manifest: Manifest) -> Self:
        """The same with the best reader that a second one agrees with, where there are two."""

    def geometry(self) -> PatchGeometry:
        """Layers of every patch; raises where a magnification is missing or not exact."""

    def places(self, geometry: PatchGeometry, root: Path) -> Survey:
        """Look at the whole slide: where its levels lie, and which places may become patches."""

    def arrays(self, reading: Reading) -> tuple[ArraySpec, ...]:
        """The image arrays of the slide in the store, HR first."""

    def keep_tiles(self, reading: Reading) -> LevelStreams:
        """From now on read HR as windows over the slide's own tiles.

        Raises
        ------
        NotKept
            Why that cannot be.
        """

    def read(self, reading: Reading, origins: Int64Array) -> Iterator[ReadPair]:
        """Read and register places, in the order that is cheapest to read."""

    def read_recorded(
        self, reading: Reading, columns: Mapping[str, AnyArray], rows: Int64Array
    ) -> Iterator[ReadPair]:
        """The patches of rows that a record describes: nothing is decided, only read again."""

    def attributes(self, reading: Reading, root: Path) -> dict[str, Any]:
        """What the store says of such a slide besides what it says of every one."""

    def close(self) -> None: ...


def layer_spec(
    layer: Layer, mpp: float | None, origin: str, extra: dict[str, object] | None = None
) -> ArraySpec:
    """The array of a layer that is read from the slide whose level 0 has `mpp` um/px."""
    return ArraySpec(
        name=layer.name,
        size_px=layer.size_px,
        factor=layer.factor,
        native=layer.native,
        origin=origin,
        level=layer.level,
        reduction=layer.reduction,
        um_per_px=None if mpp is None else mpp * layer.factor,
        extra=extra or {},
    )


def recorded_origins(columns: Mapping[str, AnyArray], rows: Int64Array) -> Int64Array:
    """Level-0 origins of some rows, shape (n, 2)."""
    return np.stack([columns["x"][rows], columns["y"][rows]], axis=1).astype(np.int64)
