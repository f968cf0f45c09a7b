"""What blocks are rendered by, and how much of it runs at once; bicubic interpolation is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.inference import bicubic
from wsisr.inference.tiles import Frame, NetworkWindow, Tiling, TilingNeeds
from wsisr.inference.trained import BICUBIC, TrainedModel


@dataclass
class Capacity:
    """How much runs at once; corrected when memory runs out all the same.

    Attributes
    ----------
    batch : int
        Windows.
    largest_px : int or None
        Largest side of a part, output px, since a single window did not fit: then pixels may
        depend on the free memory.
    """

    batch: int = 1
    largest_px: int | None = None

    @property
    def shrunk(self) -> bool:
        return self.largest_px is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowBatch:
    """Windows that run at once: all of one shape, and so are their reaches.

    Attributes
    ----------
    lr : sequence of ndarray, shape (h, w, 3), uint8
        The plane pixels of each.
    finer : sequence of ndarray, shape (2h, 2w, 3), uint8, or None
        References, for models that take one.
    """

    frame: Frame
    windows: Sequence[NetworkWindow]
    lr: Sequence[UInt8Array]
    finer: Sequence[UInt8Array] | None = None


class Engine(Protocol):
    """What blocks are rendered by: a network, or bicubic interpolation."""

    @property
    def trained(self) -> TrainedModel: ...

    @property
    def needs(self) -> TilingNeeds: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def pooling(self) -> str:
        """Over what a network pools that does so over its input; empty for others."""

    def render(self, batch: WindowBatch) -> list[Float32Array]:
        """The reach of each window, (height, width, 3) float32 in grey levels, 0 to 255."""

    def capacity(self, plan: Tiling, scale: float, side_px: int) -> Capacity:
        """How many windows of a plan run at once on planes of at most `side_px`."""


class BicubicEngine:
    """Bicubic interpolation: the same pixels for any tiling."""

    trained = BICUBIC
    needs = TilingNeeds(
        halo_px=bicubic.HALO_PX, halo_exact=True, tile_px=256, multiple_px=1, seamless=True
    )
    device = "cpu"
    precision = "float32"
    pooling = ""

    def render(self, batch: WindowBatch) -> list[Float32Array]:
        return [
            bicubic.enlarge(pixels, window.lr, batch.frame, window.reach)
            for window, pixels in zip(batch.windows, batch.lr, strict=True)
        ]

    def capacity(self, plan: Tiling, scale: float, side_px: int) -> Capacity:
        return Capacity()
