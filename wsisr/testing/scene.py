"""A slide's tissue as a pure function of level-0 pixels: any region, any time, the same pixels.

Nothing is stored but outlines and a seed. Nuclei sit at places drawn by hashing the indices of
cells of a fixed grid, so a region can be rendered on its own, in any order and block size, and a
100,000-px slide costs no more than its tissue.

A lower level is defined by the level-0 picture alone (`reduce_shifted`): the mean of its
``factor x factor`` pixels, moved by a known distance. For whole-pixel moves that is exact integer
arithmetic; for others the picture is interpolated with a Kaiser-windowed sinc of 16 taps.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np
from scipy import ndimage

from wsisr.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from wsisr.testing import texture
from wsisr.testing.shapes import CLIP_PX, RingSet, lattice_axis, upsample
from wsisr.testing.texture import hash_unit, value_noise

Outline = tuple[tuple[float, float], ...]
PenColour = Literal["blue", "green", "red", "black"]
Kind = Literal["brightfield", "fluorescence"]

PEN_RGB: dict[str, tuple[int, int, int]] = {
    "blue": (52, 78, 178),
    "green": (40, 128, 84),
    "red": (205, 48, 58),
    "black": (42, 42, 46),
}
CHUNK_PX = 512
EDGE_PX = 1.5
"""Tissue and pen fade over this distance to either side of their outline."""
FOLD_GAIN = 1.7
BLUR_SIGMA_UM = 2.0


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Ink on the cover glass.

    Attributes
    ----------
    colour : {"blue", "green", "red", "black"}
    outline : outline
        Level-0 px.
    """

    colour: PenColour
    outline: Outline


@dataclass(frozen=True, kw_only=True)
class SceneNuclei:
    """Nuclei of a region.

    Attributes
    ----------
    x_px, y_px : ndarray of int64, shape (n,)
        Centres, level-0 px (pixel edges: exactly between pixels).
    kind : ndarray of int64, shape (n,)
        Index into `wsisr.testing.texture.KINDS`.
    variant : ndarray of int64, shape (n,)
        Which picture of the atlas.
    """

    x_px: Int64Array
    y_px: Int64Array
    kind: Int64Array
    variant: Int64Array

    def __len__(self) -> int:
        return len(self.x_px)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that lies under the cover glass, and the ink upon it.

    Attributes
    ----------
    seed : int
        Decides nuclei and staining.
    um_per_px : float
        True size of a level-0 pixel.
    kind : {"brightfield", "fluorescence"}
    glass_rgb : (int, int, int)
        Colour of empty glass; constant, so that background costs nothing.
    tissue, holes : tuple of outline
        Tissue is the union of `tissue` without the union of `holes` (tears and fat vacuoles).
    tumour, exclusions : tuple of outline
        Tumour is the union of `tumour` without `exclusions`, where there is tissue.
    folds, blurs : tuple of outline
        Where the section lies double; where it is out of focus.
    frame : (x0, y0, x1, y1) or None
        Scanned but black outside this box (level-0 px).
    """

    seed: int
    um_per_px: float
    kind: Kind = "brightfield"
    glass_rgb: tuple[int, int, int] = (243, 242, 244)
    tissue: tuple[Outline, ...] = ()
    holes: tuple[Outline, ...] = ()
    tumour: tuple[Outline, ...] = ()
    exclusions: tuple[Outline, ...] = ()
    pens: tuple[Pen, ...] = ()
    folds: tuple[Outline, ...] = ()
    blurs: tuple[Outline, ...] = ()
    frame: tuple[int, int, int, int] | None = None

    @cached_property
    def _sets(self) -> dict[str, RingSet]:
        names = ("tissue", "holes", "tumour", "exclusions", "folds", "blurs")
        sets = {name: RingSet(getattr(self, name)) for name in names}
        for colour in PEN_RGB:
            sets[colour] = RingSet([p.outline for p in self.pens if p.colour == colour])
        return sets

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """Colour of a pixel without tissue, ink or frame."""
        value = int(texture.colour_table(self.glass_rgb, self.kind == "fluorescence")[0])
        return value & 255, (value >> 8) & 255, (value >> 16) & 255

    def is_background(self, x: int, y: int, width: int, height: int) -> bool:
        """Whether a level-0 region is surely nothing but empty glass (by bounding boxes)."""
        if self.frame is not None and not _contains(self.frame, (x, y, x + width, y + height)):
            return False
        # Tissue out of focus reaches a little over its outline.
        reach = self._blur_margin_px if self.blurs else 0
        box = (x - reach, y - reach, x + width + reach, y + height + reach)
        return not any(len(self._sets[name].touching(box)) for name in ("tissue", *PEN_RGB))

    @property
    def _blur_margin_px(self) -> int:
        return int(4 * BLUR_SIGMA_UM / self.um_per_px) + 1

    def render(self, x: int, y: int, width: int, height: int) -> UInt8Array:
        """Level-0 pixels of a region, which may reach outside the slide.

        Returns
        -------
        ndarray, shape (height, width, 3), uint8, RGB
        """
        out = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, CHUNK_PX):
            for left in range(0, width, CHUNK_PX):
                part = out[top : top + CHUNK_PX, left : left + CHUNK_PX]
                self._paint(part, x + left, y + top)
        return out

    def _paint(self, out: UInt8Array, x: int, y: int) -> None:
        height, width = out.shape[:2]
        box = (x, y, x + width, y + height)
        stains = self._stains_in_focus(x, y, width, height)
        if stains is None:
            out[:] = self.background_rgb
        else:
            index = stains[0].astype(np.uint16)
            index <<= 8
            index |= stains[1]
            table = texture.colour_table(self.glass_rgb, self.kind == "fluorescence")
            rgba = table.take(index).view(np.uint8).reshape(height, width, 4)
            out[:] = cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB)
        for colour, rgb in PEN_RGB.items():
            ink = self._coverage(colour, x, y, width, height)
            if ink is not None:
                through = np.array(rgb, np.float32) / 255.0 - 1.0
                out[:] = np.rint(out * (1.0 + ink[..., None] * through))
        if self.frame is not None and not _contains(self.frame, box):
            x0, y0, x1, y1 = self.frame
            cols, rows = np.arange(x, x + width), np.arange(y, y + height)
            out[(rows < y0) | (rows >= y1)] = 0
            out[:, (cols < x0) | (cols >= x1)] = 0

    def _coverage(self, name: str, x: int, y: int, width: int, height: int) -> Float32Array | None:
        """Soft mask (0-1) of a set of outlines, or None where it is empty."""
        rings = self._sets[name]
        if not len(rings.touching((x, y, x + width, y + height))):
            return None
        lattice = rings.distance(lattice_axis(x, width), lattice_axis(y, height))
        if lattice.max() <= -EDGE_PX:
            return None
        return _soft(upsample(lattice, x, y, width, height))

    def _stains_in_focus(
        self, x: int, y: int, width: int, height: int
    ) -> tuple[UInt8Array, UInt8Array] | None:
        """Stain concentrations with blur and folds."""
        focus = self._coverage("blurs", x, y, width, height)
        if focus is None:
            stains = self._stains(x, y, width, height)
        else:
            sigma = BLUR_SIGMA_UM / self.um_per_px
            margin = self._blur_margin_px
            wide = self._stains(x - margin, y - margin, width + 2 * margin, height + 2 * margin)
            if wide is None:
                return None
            inner = slice(margin, margin + height), slice(margin, margin + width)
            parts = []
            for plane in wide:
                soft = ndimage.gaussian_filter(plane.astype(np.float32), sigma)[inner]
                parts.append(np.rint(plane[inner] + focus * (soft - plane[inner])).astype(np.uint8))
            stains = parts[0], parts[1]
        if stains is None:
            return None
        fold = self._coverage("folds", x, y, width, height)
        if fold is None:
            return stains
        gain = 1.0 + fold * (FOLD_GAIN - 1.0)
        eosin, haematoxylin = (
            np.minimum(np.rint(plane * gain), 255).astype(np.uint8) for plane in stains
        )
        return eosin, haematoxylin

    def _fields(self, xs: Float64Array, ys: Float64Array) -> tuple[Float32Array, Float32Array]:
        """Signed distances into tissue and into tumour at lattice points."""
        sets = self._sets
        tissue = np.minimum(sets["tissue"].distance(xs, ys), -sets["holes"].distance(xs, ys))
        tumour = np.minimum(sets["tumour"].distance(xs, ys), -sets["exclusions"].distance(xs, ys))
        return tissue, tumour

    def _stains(
        self, x: int, y: int, width: int, height: int
    ) -> tuple[UInt8Array, UInt8Array] | None:
        """Eosin and haematoxylin concentrations (0-255) of a region; None if there is no tissue."""
        if not len(self._sets["tissue"].touching((x, y, x + width, y + height))):
            return None
        atlas = texture.nucleus_atlas(self.um_per_px)
        margin = atlas.size_px // 2 + 1
        wide = (x - margin, y - margin, width + 2 * margin, height + 2 * margin)
        xs, ys = lattice_axis(wide[0], wide[2]), lattice_axis(wide[1], wide[3])
        tissue, tumour = self._fields(xs, ys)
        if tissue.max() <= -EDGE_PX:
            return None
        place = _Place(xs=xs, ys=ys, x=x, y=y, width=width, height=height)

        gain = 0.82 + 0.36 * value_noise(self.seed, 11, xs, ys[:, None], 360.0 / self.um_per_px)
        cover = place.upsample(gain)
        if tissue.min() < EDGE_PX:
            cover *= _soft(place.upsample(tissue))
        eosin = _tile(texture.stroma_tile(self.um_per_px), self.seed, x, y, width, height)
        base = None
        if tumour.max() > -EDGE_PX:
            share = np.clip(place.upsample(tumour) / (2 * CLIP_PX) + 0.5, 0.0, 1.0)
            cells = _tile(texture.cytoplasm_tile(self.um_per_px), self.seed, x, y, width, height)
            eosin = eosin + share * (cells - eosin.astype(np.float32))
            base = share * 30.0
        eosin = (eosin * cover + 0.5).astype(np.uint8)
        haze = 8.0 * cover if base is None else (8.0 + base) * cover
        haematoxylin = (haze + 0.5).astype(np.uint8)
        self._stamp(haematoxylin, self._nuclei(wide, tissue, tumour, xs, ys), x, y, atlas)
        return eosin, haematoxylin

    def _stamp(
        self, out: UInt8Array, nuclei: SceneNuclei, x: int, y: int, atlas: texture.NucleusAtlas
    ) -> None:
        half = atlas.size_px // 2
        height, width = out.shape
        lefts, tops = nuclei.x_px - half - x, nuclei.y_px - half - y
        for left, top, kind, variant in zip(
            lefts.tolist(),
            tops.tolist(),
            nuclei.kind.tolist(),
            nuclei.variant.tolist(),
            strict=True,
        ):
            r0, c0 = max(0, top), max(0, left)
            r1, c1 = min(height, top + 2 * half), min(width, left + 2 * half)
            if r0 < r1 and c0 < c1:
                window = out[r0:r1, c0:c1]
                sprite = atlas.sprites[kind, variant, r0 - top : r1 - top, c0 - left : c1 - left]
                np.maximum(window, sprite, out=window)

    def nuclei(self, x: int, y: int, width: int, height: int) -> SceneNuclei:
        """All nuclei whose centre lies in a level-0 region."""
        xs, ys = lattice_axis(x, width), lattice_axis(y, height)
        return self._nuclei((x, y, width, height), *self._fields(xs, ys), xs, ys)

    def _nuclei(
        self,
        box: tuple[int, int, int, int],
        tissue: Float32Array,
        tumour: Float32Array,
        xs: Float64Array,
        ys: Float64Array,
    ) -> SceneNuclei:
        """Nuclei with centres in a box; distances are given on a lattice that encloses it."""
        parts: list[Int64Array] = []
        for stream, (pitch_um, in_tumour) in enumerate(((8.6, False), (12.0, True))):
            if in_tumour and tumour.max() <= -CLIP_PX:
                continue
            pitch = pitch_um / self.um_per_px
            cell_x = np.arange(int(box[0] // pitch), int((box[0] + box[2]) // pitch) + 1)
            cell_y = np.arange(int(box[1] // pitch), int((box[1] + box[3]) // pitch) + 1)
            cx, cy = (a.ravel() for a in np.meshgrid(cell_x, cell_y))
            draw = [hash_unit(self.seed, 20 + 10 * stream + k, cx, cy) for k in range(5)]
            px = np.floor((cx + 0.1 + 0.8 * draw[0]) * pitch).astype(np.int64)
            py = np.floor((cy + 0.1 + 0.8 * draw[1]) * pitch).astype(np.int64)
            keep = (px >= box[0]) & (px < box[0] + box[2])
            keep &= (py >= box[1]) & (py < box[1] + box[3])
            depth, in_t = (_at(f, xs, ys, px, py) for f in (tissue, tumour))
            radius = 4.0 / self.um_per_px
            keep &= depth > min(0.8 * radius, CLIP_PX - 1)
            if in_tumour:
                keep &= (in_t > 0.0) & (draw[2] < 0.93)
                kind = np.where(draw[3] < 0.9, texture.TUMOUR, texture.LYMPHOCYTE)
            else:
                crowd = value_noise(self.seed, 12, px, py, 150.0 / self.um_per_px)
                keep &= (in_t <= 0.0) & (draw[2] < 0.22 + 0.75 * crowd)
                round_share = 0.25 + 0.75 * crowd
                kind = np.where(draw[3] < round_share, texture.LYMPHOCYTE, texture.FIBROBLAST)
            variant = (draw[4] * texture.VARIANTS).astype(np.int64)
            parts.append(np.stack([px, py, kind, variant])[:, keep])
        table = np.concatenate(parts, axis=1)
        return SceneNuclei(x_px=table[0], y_px=table[1], kind=table[2], variant=table[3])


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A region inside the lattice that encloses it."""

    xs: Float64Array
    ys: Float64Array
    x: int
    y: int
    width: int
    height: int

    def upsample(self, lattice: Float32Array | Float64Array) -> Float32Array:
        inner_x, inner_y = lattice_axis(self.x, self.width), lattice_axis(self.y, self.height)
        c0 = int(np.searchsorted(self.xs, inner_x[0]))
        r0 = int(np.searchsorted(self.ys, inner_y[0]))
        part = lattice[r0 : r0 + len(inner_y), c0 : c0 + len(inner_x)]
        return upsample(np.asarray(part, np.float32), self.x, self.y, self.width, self.height)


def _contains(outer: tuple[int, int, int, int], box: tuple[int, int, int, int]) -> bool:
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _soft(distance: Float32Array) -> Float32Array:
    distance /= 2 * EDGE_PX
    distance += 0.5
    return np.clip(distance, 0.0, 1.0, out=distance)


def _at(
    lattice: Float32Array,
    xs: Float64Array,
    ys: Float64Array,
    px: Int64Array,
    py: Int64Array,
) -> Float32Array:
    """Nearest lattice value to points (clamped: points outside are dropped by the caller)."""
    step = xs[1] - xs[0]
    col = np.clip(np.floor((px - xs[0]) / step + 0.5).astype(np.intp), 0, len(xs) - 1)
    row = np.clip(np.floor((py - ys[0]) / step + 0.5).astype(np.intp), 0, len(ys) - 1)
    return lattice[row, col]


def _tile(tile: UInt8Array, seed: int, x: int, y: int, width: int, height: int) -> UInt8Array:
    """A region of a periodic tile, moved by an amount that the seed decides."""
    period = tile.shape[0]
    ox, oy = (seed * 389) % period, (seed * 683) % period
    rows = np.arange(y + oy, y + oy + height) % period
    cols = np.arange(x + ox, x + ox + width) % period
    return tile[rows].take(cols, axis=1)
