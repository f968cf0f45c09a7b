"""Continuous image coordinates, as the local implicit image function family uses them.

An axis of n pixels spans [-1, 1]; pixel i has its centre at (2 i + 1) / n - 1. Points are
(row, column). One LR pixel is 2 units of a relative coordinate times the LR side.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.errors import ModelError

CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_EPS = 1e-6


def axis_centres(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of `count` pixels in [-1, 1], shape (count,)."""
    return (2 * torch.arange(count, device=device, dtype=dtype) + 1) / count - 1


def grid_of(rows: Tensor, cols: Tensor) -> Tensor:
    """(h,), (w,) -> (h, w, 2) as (row, column)."""
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"), dim=-1)


def pixel_centres(size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of all pixels of an image, (H W, 2), row-major, (row, column)."""
    return grid_of(*(axis_centres(side, device, dtype) for side in size)).reshape(-1, 2)


def as_image(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Row-major pixels (N, H W, C) -> (N, C, H, W)."""
    return pixels.transpose(1, 2).reshape(pixels.shape[0], -1, *size)


def cell_size(size: tuple[int, int]) -> tuple[float, float]:
    """Height and width of one pixel of an image in coordinate units."""
    return 2.0 / size[0], 2.0 / size[1]


def output_size(
    lr_size: torch.Size | tuple[int, int], scale: float | None, size: tuple[int, int] | None
) -> tuple[int, int]:
    """Resolve ``scale=`` or ``size=`` into whole output px; exactly one must be given."""
    if (scale is None) == (size is None):
        raise ModelError("give either scale= or size=(height, width) to an arbitrary-scale model")
    if size is not None:
        if min(size) < 1:
            raise ModelError(f"size={size}: both sides must be at least 1 px")
        return int(size[0]), int(size[1])
    assert scale is not None
    if not 0 < scale < float("inf"):
        raise ModelError(f"scale={scale}: it must be a positive number")
    height, width = int(lr_size[0]), int(lr_size[1])
    return max(1, round(height * scale)), max(1, round(width * scale))


@dataclass(frozen=True, kw_only=True)
class Corner:
    """One of the four LR cells around each query.

    Attributes
    ----------
    index : Tensor
        (N, Q) row-major index of the cell in the h x w LR grid.
    rel : Tensor
        (N, Q, 2) query minus cell centre, times (h, w): 2 units are one LR pixel.
    """

    index: Tensor
    rel: Tensor


def _nearest(coord: Tensor, count: int) -> Tensor:
    # The rule of grid_sample(mode="nearest", align_corners=False): round half to even.
    return (((coord + 1) * count - 1) / 2).round().clamp(0, count - 1)


def corner_of(coord: Tensor, size: tuple[int, int], shift: tuple[int, int]) -> Corner:
    """The LR cell diagonally shifted by half a cell from each query.

    Parameters
    ----------
    coord : Tensor
        (N, Q, 2) queries in [-1, 1].
    size : tuple of int
        LR height and width.
    shift : tuple of int
        -1 or 1 for rows and columns; (0, 0) gives the cell that holds the query.
    """
    height, width = size
    eps = _EPS if shift != (0, 0) else 0.0
    return cell_near(
        coord,
        coord[..., 0] + (shift[0] / height + eps),
        coord[..., 1] + (shift[1] / width + eps),
        size,
    )


def cell_near(coord: Tensor, row: Tensor, col: Tensor, size: tuple[int, int]) -> Corner:
    """The LR cell at (row, col), clamped into the image, seen from the queries `coord`."""
    height, width = size
    low, high = -1 + _EPS, 1 - _EPS
    i, j = _nearest(row.clamp(low, high), height), _nearest(col.clamp(low, high), width)
    rel_row = (coord[..., 0] - ((2 * i + 1) / height - 1)) * height
    rel_col = (coord[..., 1] - ((2 * j + 1) / width - 1)) * width
    return Corner(
        index=(i * width + j).long(),
        rel=torch.stack((rel_row, rel_col), dim=-1),
    )


def ensemble_weights(corners: list[Corner]) -> Tensor:
    """Area weights of the four corners, (4, N, Q), summing to one.

    Each corner gets the area spanned towards the diagonally opposite one (LIIF, eq. 4).
    """
    areas = torch.stack([c.rel.prod(dim=-1).abs() + 1e-9 for c in corners])
    return areas.flip(0) / areas.sum(dim=0)


def ensemble(coord: Tensor, size: tuple[int, int]) -> list[tuple[Corner, Tensor]]:
    """The four cells around each query, each with its weight, (N, Q, 1)."""
    corners = [corner_of(coord, size, shift) for shift in CORNERS]
    return list(zip(corners, ensemble_weights(corners).unsqueeze(-1), strict=True))


def scaled_cell(cell: Tensor, size: tuple[int, int]) -> Tensor:
    """Cells in LR-pixel units: (N, Q or 1, 2) times (h, w)."""
    return torch.stack((cell[..., 0] * size[0], cell[..., 1] * size[1]), dim=-1)


def gather_cells(rows: Tensor, index: Tensor) -> Tensor:
    """Take rows (N, n, C) at (N, Q) -> (N, Q, C)."""
    return rows.gather(1, index.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


def as_rows(feature: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w, C)."""
    return feature.flatten(2).transpose(1, 2)


def sample_at(x: Tensor, coord: Tensor, mode: str = "bilinear", beyond: str = "border") -> Tensor:
    """Interpolate (N, C, h, w) at (N, Q, 2) -> (N, Q, C); `beyond` the edges: ``grid_sample``'s."""
    grid = coord.flip(-1).unsqueeze(1)
    out = F.grid_sample(x.to(grid.dtype), grid, mode=mode, padding_mode=beyond, align_corners=False)
    return out[:, :, 0].transpose(1, 2).to(x.dtype)
