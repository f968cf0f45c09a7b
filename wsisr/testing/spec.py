"""What slide to make: settings, random outlines, and everything decided before pixels exist."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import shapely
from numpy.typing import ArrayLike

from wsisr.arrays import Float64Array
from wsisr.errors import ConfigError
from wsisr.testing import vendors
from wsisr.testing.levels import LevelShift
from wsisr.testing.scene import Kind, Outline, Pen, PenColour, Scene
from wsisr.testing.shapes import blob, stroke
from wsisr.testing.truth import LevelTruth, SlideTruth

Layout = Literal["philips", "aperio", "generic"]
Background = Literal["encoded", "shared", "missing"]


@dataclass(frozen=True, kw_only=True)
class SlideSpec:
    """What slide to make. Everything left at None follows the layout and the seed.

    Attributes
    ----------
    seed : int
        Same seed and settings, same bytes.
    layout : {"philips", "aperio", "generic"}
        Philips: 512-px tiles, factors 1, 2, 4, ..., YCbCr 4:2:0, levels padded to whole tiles, no
        objective tag. Aperio: 256-px tiles, factors 1, 4, 16, RGB JPEG, sizes cut off,
        thumbnail, label and macro. Generic: 256-px tiles, factors 1, 2, 4, ..., resolution tag.
    width_px, height_px : int
        Level-0 size; Philips rounds up to whole tiles as its scanners do.
    um_per_px : float
        True resolution.
    stated_um_per_px : float, "true" or None
        What the file says; None leaves the resolution out.
    factors : tuple of int or None
        Levels.
    shifts : tuple of LevelShift
        Displacements of the levels that have one.
    tissue, holes, tumour, exclusions : tuple of outline or None
        None draws them from the seed; `tumour` then depends on `with_tumour`.
    pens, folds, blurs : see `Scene`
    frame_px : int
        Width of a black border on all four sides.
    kind : {"brightfield", "fluorescence"}
    blank : bool
        Glass only.
    glass_rgb : (int, int, int)
    missing_tiles : tuple of (level, column, row)
        Tiles with byte count 0.
    background : {"encoded", "shared", "missing"}
        Tiles of empty glass: each its own bytes, one copy for all, or byte count 0.
    codec : {"jpeg", "jpeg2000", "deflate", "lzw", "none"}
    quality : int
        JPEG quality.
    subsampling : {"444", "422", "420"}
    icc : bytes or None
        Profile to embed.
    big_tiff : bool or None
        None decides by size.
    """

    seed: int = 0
    layout: Layout = "philips"
    width_px: int = 3072
    height_px: int = 2560
    um_per_px: float = 0.243
    stated_um_per_px: float | Literal["true"] | None = "true"
    factors: tuple[int, ...] | None = None
    shifts: tuple[LevelShift, ...] = ()
    tissue: tuple[Outline, ...] | None = None
    holes: tuple[Outline, ...] | None = None
    tumour: tuple[Outline, ...] | None = None
    exclusions: tuple[Outline, ...] = ()
    with_tumour: bool = True
    pens: tuple[Pen, ...] = ()
    folds: tuple[Outline, ...] = ()
    blurs: tuple[Outline, ...] = ()
    frame_px: int = 0
    kind: Kind = "brightfield"
    blank: bool = False
    glass_rgb: tuple[int, int, int] = (243, 242, 244)
    missing_tiles: tuple[tuple[int, int, int], ...] = ()
    background: Background = "encoded"
    codec: str = "jpeg"
    quality: int = 85
    ycbcr: bool | None = None
    subsampling: str = "420"
    tile_px: int | None = None
    icc: bytes | None = None
    big_tiff: bool | None = None


def sparse_spec(
    *,
    width_px: int = 100_000,
    height_px: int = 100_000,
    islands: int = 8,
    island_px: float = 1800.0,
    seed: int = 0,
    layout: Layout = "philips",
) -> SlideSpec:
    """A slide as large as real ones with little tissue on it, written in seconds.

    Parameters
    ----------
    islands : int
        Pieces of tissue, spread over the slide; every other one is tumour. One lies near the far
        corner, where wrong downsamples show most.
    island_px : float
        Mean diameter, level-0 px.
    seed, layout
        As `SlideSpec`.
    """
    rng = np.random.default_rng((seed, 8))
    radius = island_px / 2
    edge = min(1.4 * radius, width_px / 2, height_px / 2)
    tissue, tumour = [], []
    for n in range(islands):
        x, y = rng.uniform(edge, width_px - edge), rng.uniform(edge, height_px - edge)
        if n == 0:
            x, y = width_px - edge, height_px - edge
        tissue.append(outline(blob(rng, (x, y), (radius, radius * rng.uniform(0.8, 1.0)))))
        if n % 2:
            tumour.append(outline(blob(rng, (x, y), (0.75 * radius, 0.6 * radius), 0.05)))
    return SlideSpec(
        seed=seed,
        layout=layout,
        width_px=width_px,
        height_px=height_px,
        tissue=tuple(tissue),
        holes=(),
        tumour=tuple(tumour),
        background="shared",
    )


def spec_around(
    points: ArrayLike,
    *,
    tumour: Sequence[Outline] = (),
    exclusions: Sequence[Outline] = (),
    reach_px: float = 700.0,
) -> SlideSpec:
    """A slide just large enough for given coordinates, with tissue wherever one of them lies.

    For published point lists and annotations whose slides are not at hand. Beyond the largest
    coordinate follow 2,000 px of empty glass.

    Parameters
    ----------
    points : array-like, shape (n, 2)
        Places that must be tissue, level-0 px.
    tumour, exclusions : sequence of outline
        Annotation, taken as it is.
    reach_px : float
        Tissue reaches at least so far around every point.
    """
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    # Thinned to a grid first: thousands of discs of nearly the same place are one disc.
    grid = np.unique(np.rint(xy / (reach_px / 4)), axis=0) * (reach_px / 4)
    discs = shapely.buffer(shapely.points(grid), 1.2 * reach_px, quad_segs=6)
    area = shapely.simplify(shapely.union_all(discs), reach_px / 50)
    pieces = [p for p in shapely.get_parts(area) if not p.is_empty]
    tissue = [outline(np.asarray(p.exterior.coords)[:-1]) for p in pieces]
    holes = [outline(np.asarray(r.coords)[:-1]) for p in pieces for r in p.interiors]
    far = np.max([xy.max(0), *(np.max(ring, axis=0) for ring in tumour)], axis=0)
    return SlideSpec(
        width_px=int(far[0] + reach_px) + 2000,
        height_px=int(far[1] + reach_px) + 2000,
        tissue=tuple(tissue),
        holes=tuple(holes),
        tumour=tuple(tumour),
        exclusions=tuple(exclusions),
        background="shared",
    )


def outline(ring: Float64Array) -> Outline:
    """A ring as plain tuples, rounded to 1/16 px (exact in JSON and in XML)."""
    return tuple((float(x), float(y)) for x, y in np.rint(np.asarray(ring) * 16) / 16)


def pen_stroke(colour: PenColour, points: Sequence[tuple[float, float]], width_px: float) -> Pen:
    """Ink drawn along points (level-0 px) with a round pen; real tips are 500-1,000 um wide."""
    return Pen(colour=colour, outline=outline(stroke(points, width_px)))


def make_scene(spec: SlideSpec) -> Scene:
    """The scene of a spec: outlines that are not given are drawn from the seed."""
    width, height = _size(spec)
    tissue, holes, tumour = spec.tissue, spec.holes, spec.tumour
    if spec.blank:
        tissue, holes, tumour = (), (), ()
    elif tissue is None:
        drawn = _draw_outlines(spec, width, height)
        tissue = drawn[0]
        holes = drawn[1] if holes is None else holes
        tumour = (drawn[2] if spec.with_tumour else ()) if tumour is None else tumour
    frame = None
    if spec.frame_px:
        edge = spec.frame_px
        frame = (edge, edge, width - edge, height - edge)
    return Scene(
        seed=spec.seed,
        um_per_px=spec.um_per_px,
        kind=spec.kind,
        glass_rgb=spec.glass_rgb,
        tissue=tissue,
        holes=holes or (),
        tumour=tumour or (),
        exclusions=spec.exclusions if tumour else (),
        pens=spec.pens,
        folds=spec.folds,
        blurs=spec.blurs,
        frame=frame,
    )


def _draw_outlines(
    spec: SlideSpec, width: int, height: int
) -> tuple[tuple[Outline, ...], tuple[Outline, ...], tuple[Outline, ...]]:
    """One section with fat along its rim and a nest of tumour: tissue, holes, tumour."""
    rng = np.random.default_rng((spec.seed, 7))
    centre = width * rng.uniform(0.46, 0.54), height * rng.uniform(0.46, 0.54)
    radius = width * rng.uniform(0.38, 0.42), height * rng.uniform(0.38, 0.42)
    main = blob(rng, centre, radius, 0.10, vertices=240)
    holes = []
    vacuole = 32.0 / spec.um_per_px
    for _ in range(max(3, int(width * height * spec.um_per_px**2 / 60_000.0))):
        # Fat sits near the rim, in clusters, so that most of the section is solid.
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 0.98)
        x = centre[0] + depth * radius[0] * np.cos(angle)
        y = centre[1] + depth * radius[1] * np.sin(angle)
        for _ in range(int(rng.integers(1, 4))):
            size = vacuole * rng.uniform(0.5, 1.2)
            where = x + rng.normal(0, 1.6 * vacuole), y + rng.normal(0, 1.6 * vacuole)
            holes.append(blob(rng, where, (size, size * rng.uniform(0.8, 1.0)), 0.1, vertices=32))
    side = rng.choice([-1.0, 1.0])
    middle = centre[0] + side * 0.42 * radius[0], centre[1] + rng.uniform(-0.1, 0.1) * radius[1]
    nest = blob(rng, middle, (0.46 * radius[0], 0.62 * radius[1]), 0.10)
    return (outline(main),), tuple(outline(h) for h in holes), (outline(nest),)


def _tile_px(spec: SlideSpec) -> int:
    return spec.tile_px or (512 if spec.layout == "philips" else 256)


def _size(spec: SlideSpec) -> tuple[int, int]:
    if spec.layout != "philips":
        return spec.width_px, spec.height_px
    tile = _tile_px(spec)
    return ceil(spec.width_px / tile) * tile, ceil(spec.height_px / tile) * tile


def _factors(spec: SlideSpec) -> tuple[int, ...]:
    if spec.factors is not None:
        return spec.factors
    if spec.layout == "aperio":
        return (1, 4, 16)
    longest = max(_size(spec))
    count = 1
    while longest / 2**count > _tile_px(spec):
        count += 1
    return tuple(2**n for n in range(count if spec.layout == "generic" else count + 1))


def plan_truth(spec: SlideSpec, file: str) -> SlideTruth:
    """Everything that is decided before a pixel is rendered (pure).

    Raises
    ------
    ConfigError
        For settings that contradict each other.
    """
    width, height = _size(spec)
    tile, factors = _tile_px(spec), _factors(spec)
    if factors[0] != 1 or list(factors) != sorted(set(factors)):
        raise ConfigError(f"factors {factors} must start with 1 and grow.")
    if tile % 16:
        raise ConfigError(f"tile_px={tile} must be a multiple of 16 (a rule of TIFF).")
    by_factor = {shift.factor: shift for shift in spec.shifts}
    if 1 in by_factor or set(by_factor) - set(factors):
        raise ConfigError(
            f"shifts name factors {sorted(by_factor)}; levels above 0: {factors[1:]}."
        )
    levels = []
    for index, factor in enumerate(factors):
        # Aperio cuts off the rest, the others keep a last column that is only partly covered.
        cut = spec.layout == "aperio"
        size = [n // factor if cut else ceil(n / factor) for n in (width, height)]
        stored = [ceil(n / tile) * tile if spec.layout == "philips" else n for n in size]
        levels.append(
            LevelTruth(
                index=index,
                page=vendors.page_of_level(spec.layout, index),
                width_px=size[0],
                height_px=size[1],
                stored_width_px=stored[0],
                stored_height_px=stored[1],
                tile_px=tile,
                shift=by_factor.get(factor, LevelShift(factor=factor)),
                missing=tuple((c, r) for n, c, r in spec.missing_tiles if n == index),
            )
        )
    stated = spec.um_per_px if spec.stated_um_per_px == "true" else spec.stated_um_per_px
    ycbcr = spec.ycbcr if spec.ycbcr is not None else spec.layout != "aperio"
    return SlideTruth(
        file=file,
        layout=spec.layout,
        width_px=width,
        height_px=height,
        um_per_px=spec.um_per_px,
        stated_um_per_px=stated,
        scene=make_scene(spec),
        levels=tuple(levels),
        codec=spec.codec,
        quality=spec.quality,
        ycbcr=ycbcr,
        subsampling=spec.subsampling if ycbcr else "444",
        background=spec.background,
        icc_bytes=len(spec.icc) if spec.icc else 0,
    )
