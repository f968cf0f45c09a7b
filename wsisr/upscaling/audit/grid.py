"""Which input px and output px are looked at together."""

from dataclasses import dataclass
from math import ceil

from wsisr.errors import ConfigError
from wsisr.geometry import Box
from wsisr.upscaling.audit.misfit import CELL_PX, MARGIN_PX, step_of
from wsisr.upscaling.audit.origin import Origin

BLOCK_CELLS = 32
"""Places along one side of a block."""
AROUND_CELLS = 2
"""Context of a place in its pictures."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Blocks of input px that begin and end with whole output px.

    `area` is what is looked at of the plane; `num / den` output px lie on one plane px.
    """

    area: Box
    num: int
    den: int
    origin_x: int
    origin_y: int

    @classmethod
    def of(cls, origin: Origin, scale: float) -> "Grid":
        step = step_of(scale)
        num, den, made = step.numerator, step.denominator, origin.frame.region
        x0, y0 = (ceil(v * den / num / den) * den for v in (made.x, made.y))
        x1 = min(origin.plane.width_px, made.right * den // num) // den * den
        y1 = min(origin.plane.height_px, made.bottom * den // num) // den * den
        if x1 - x0 < CELL_PX or y1 - y0 < CELL_PX:
            raise ConfigError(
                f"{made.width} x {made.height} px of output are too few to be audited: "
                f"{CELL_PX} px of input a side at least."
            )
        area = Box.between(x0, y0, x1, y1)
        return cls(area=area, num=num, den=den, origin_x=made.x, origin_y=made.y)

    @property
    def shape(self) -> tuple[int, int]:
        """Places along y and x."""
        return -(-self.area.height // CELL_PX), -(-self.area.width // CELL_PX)

    def blocks(self) -> list[Box]:
        """In plane px; all but the last of a side hold whole places."""
        side = BLOCK_CELLS * CELL_PX
        # Places and whole output px must both fit.
        return self.area.blocks(-(-side // (CELL_PX * self.den)) * CELL_PX * self.den)

    def wider(self, block: Box, margin_px: int = MARGIN_PX) -> Box:
        """A block with its context, inside of the area."""
        return block.grown(-(-margin_px // self.den) * self.den).within(self.area)

    def around(self, row: int, column: int) -> Box:
        """A place with its surroundings, inside of the area, of whole output px."""
        area, step = self.area, self.den
        reach = AROUND_CELLS * CELL_PX
        left = max(area.x, area.x + column * CELL_PX - reach) // step * step
        top = max(area.y, area.y + row * CELL_PX - reach) // step * step
        side = (CELL_PX + 2 * reach) // step * step
        left, top = max(left, area.x), max(top, area.y)
        return Box(x=left, y=top, width=side, height=side).within(area)

    def made(self, box: Box) -> Box:
        """The same field in px of the output file."""
        sides = box.x, box.y, box.width, box.height
        x, y, width, height = (v * self.num // self.den for v in sides)
        return Box(x=x - self.origin_x, y=y - self.origin_y, width=width, height=height)

    def cells(self, block: Box) -> Box:
        """Its places."""
        return Box(
            x=(block.x - self.area.x) // CELL_PX,
            y=(block.y - self.area.y) // CELL_PX,
            width=-(-block.width // CELL_PX),
            height=-(-block.height // CELL_PX),
        )
