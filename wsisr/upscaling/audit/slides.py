"""What is looked at of an output: itself, its input, the input enlarged, a finer slide."""

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.geometry import Box
from wsisr.inference import bicubic
from wsisr.slides.protocol import Slide
from wsisr.upscaling.audit.grid import Grid
from wsisr.upscaling.audit.misfit import step_of
from wsisr.upscaling.audit.origin import Origin
from wsisr.upscaling.compare import Match, match_finer, read_finer
from wsisr.upscaling.source import read_plane


@dataclass(frozen=True)
class AuditSlides:
    """Open slides, read by boxes of plane px.

    Attributes
    ----------
    made, low : Slide
        Output and input.
    high : Slide or None
        A finer slide of the same glass.
    """

    made: Slide
    low: Slide
    origin: Origin
    high: Slide | None = None

    @cached_property
    def scale(self) -> float:
        """See `Origin.scale`."""
        return self.origin.scale

    @cached_property
    def grid(self) -> Grid:
        return Grid.of(self.origin, self.scale)

    @cached_property
    def um_per_px(self) -> float | None:
        """Of the output."""
        um, frame = self.origin.plane.um_per_px, self.origin.frame
        return None if um is None else (um[0] * um[1] / frame.scale_x / frame.scale_y) ** 0.5

    def sr(self, box: Box) -> UInt8Array:
        """The output."""
        there = self.grid.made(box)
        return self.made.read_level(0, there.x, there.y, there.width, there.height)

    def lr(self, box: Box) -> UInt8Array:
        """The input."""
        return read_plane(self.low, self.origin.plane, box)

    def pair(self, box: Box) -> tuple[UInt8Array, UInt8Array]:
        """Output and input."""
        return self.sr(box), self.lr(box)

    def with_plain(self, box: Box) -> tuple[UInt8Array, UInt8Array, Float32Array]:
        """Output, input and enlarged input, all read once."""
        plane = self.origin.plane
        whole = Box(x=0, y=0, width=plane.width_px, height=plane.height_px)
        need = box.grown(bicubic.HALO_PX).within(whole)
        around = self.lr(need)
        step = step_of(self.scale)
        out = Box(
            **{name: v * step.numerator // step.denominator for name, v in asdict(box).items()}
        )
        plain = np.clip(bicubic.enlarge(around, need, self.origin.frame, out), 0, 255)
        return self.sr(box), around[box.relative_to(need).slices], plain

    @cached_property
    def _match(self) -> Match:
        assert self.high is not None
        return match_finer(self.origin.plane, self.origin.frame, self.made.info, self.high.info)

    def hr(self, box: Box) -> UInt8Array:
        """The finer slide, at the grid of the output."""
        assert self.high is not None
        return read_finer(self.high, self._match, self.origin.frame, self.grid.made(box))
