"""What a stored level really is: a reduction of level 0, a recompression of one, or its own scan.

``native`` means *stored in the file*. Most scanners compute their levels in software, and a level
that was compressed a second time, or made by leaving pixels out, can be worse than a fresh
reduction (design 3.7). So each level is compared with level 0 reduced in the three ways that are
in use.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.runners import in_threads
from wsisr.slides.protocol import Level, Slide
from wsisr.slides.resample import resample_box, source_span

WARNING_DB = 35.0
PLACES = 8
CANDIDATES = 32
MAX_SIDE_PX = 128
MAX_SOURCE_PX = 1024
MIN_SIDE_PX = 16
KERNELS = ("area", "bicubic", "decimated")
MIN_TEXTURE = 4.0
"""Standard deviation (grey levels) below which a place is glass and tells nothing."""


@dataclass(frozen=True, kw_only=True)
class LevelEvidence:
    """How a level compares with level 0 reduced to its size.

    Attributes
    ----------
    kernel : str
        The reduction that is nearest: ``"area"`` (block means), ``"bicubic"`` (antialiased) or
        ``"decimated"`` (every n-th pixel); empty if nothing was compared.
    psnr_db : float
        RGB PSNR of the level against it over all places, dB; inf for identical pixels, nan if
        nothing was compared.
    detail_ratio : float
        Energy of the finest details (Laplacian of grey) of the level over that of block means:
        below 1 softer, above 1 sharpened, aliased or noisier.
    places : int
        Textured places that were compared.
    warning : bool
        Below 35 dB, or decimated (aliased): a reduction may be the better LR.
    verdict : str
        The same in words.
    """

    level: int
    factor: int
    kernel: str
    psnr_db: float
    detail_ratio: float
    places: int
    warning: bool
    verdict: str


def level_evidence(slide: Slide, seed: int = 0) -> tuple[LevelEvidence, ...]:
    """Compare every level above 0 that pairs may use with a reduction of level 0.

    Parameters
    ----------
    seed : int
        Places are drawn by it, for all levels together; up to 8 textured ones a level.

    Returns
    -------
    tuple of LevelEvidence
        Levels without an exact factor or exact reads are left out.
    """
    compared = [
        _Compared.to_level_0(slide, level)
        for level in slide.info.levels
        if level.index > 0 and level.exact and level.factor is not None
    ]
    windows = _choose(slide, compared, seed)

    def look(window: list[_Place]) -> list[_Difference]:
        return [_compare(slide, place) for place in window]

    for window, found in zip(windows, in_threads(look, windows), strict=True):
        for place, difference in zip(window, found, strict=True):
            place.compared.found.append(difference)
    return tuple(one.judged() for one in compared)


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """Of one place: squared errors of each reduction, details of the level and of block means."""

    errors: dict[str, float]
    stored_detail: float
    area_detail: float


@dataclass(kw_only=True)
class _Compared:
    """A level, and what was found of it; `side` of its places in level px."""

    level: Level
    factor: int
    side: int
    right: int
    bottom: int
    found: list[_Difference] = field(default_factory=list)

    @classmethod
    def to_level_0(cls, slide: Slide, level: Level) -> "_Compared":
        factor, base = level.factor or 1, slide.info.levels[0]
        side = min(MAX_SIDE_PX, MAX_SOURCE_PX // factor, level.width_px // 2, level.height_px // 2)
        # The last pixels of a truncated level have no whole block of level 0 behind them.
        return cls(
            level=level,
            factor=factor,
            side=side,
            right=min(level.width_px, base.width_px // factor) - side,
            bottom=min(level.height_px, base.height_px // factor) - side,
        )

    def judged(self) -> LevelEvidence:
        index, places = self.level.index, len(self.found)
        if not places:
            return LevelEvidence(
                level=index,
                factor=self.factor,
                kernel="",
                psnr_db=float("nan"),
                detail_ratio=float("nan"),
                places=0,
                warning=False,
                verdict=f"Level {index}: too little texture or too small to be judged.",
            )
        errors = {name: sum(one.errors[name] for one in self.found) for name in KERNELS}
        kernel = min(errors, key=lambda name: errors[name])
        mse = errors[kernel] / places
        psnr = float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse))
        # Details are weighed against an antialiased reduction, whatever the level is nearest to.
        area = sum(one.area_detail for one in self.found)
        ratio = sum(one.stored_detail for one in self.found) / max(area, 1e-9)
        warning = psnr < WARNING_DB or kernel == "decimated"
        return LevelEvidence(
            level=index,
            factor=self.factor,
            kernel=kernel,
            psnr_db=psnr,
            detail_ratio=ratio,
            places=places,
            warning=warning,
            verdict=_verdict(index, kernel, psnr, ratio, warning),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """Where a level is compared (level px), and what it shows there."""

    compared: _Compared
    x: int
    y: int
    stored: UInt8Array


def _choose(slide: Slide, compared: list[_Compared], seed: int) -> list[list[_Place]]:
    """Windows of the slide, each with the places of the levels that have texture there.

    A window is the same share of the way across and down in every level, so that all of them are
    held against the same pixels of level 0, which are decoded once.
    """
    rng = np.random.default_rng(seed)
    sought = [one for one in compared if one.side >= MIN_SIDE_PX]
    taken: dict[int, set[tuple[int, int]]] = {one.level.index: set() for one in sought}
    windows = []
    for _ in range(CANDIDATES):
        across, down = rng.random(2)
        window = []
        for one in sought:
            places = taken[one.level.index]
            place = (int(across * (one.right + 1)), int(down * (one.bottom + 1)))
            if len(places) == PLACES or place in places:
                continue
            stored = _textured(slide, one, *place)
            if stored is not None:
                places.add(place)
                window.append(_Place(compared=one, x=place[0], y=place[1], stored=stored))
        if window:
            windows.append(window)
        if all(len(places) == PLACES for places in taken.values()):
            break
    return windows


def _textured(slide: Slide, one: _Compared, x: int, y: int) -> UInt8Array | None:
    """What a level shows at a place; None where it is glass or not scanned."""
    index, side = one.level.index, one.side
    if not slide.read_validity(index, x, y, side, side).all():
        return None
    image = slide.read_level(index, x, y, side, side)
    return image if float(cv2.meanStdDev(image)[1].max()) >= MIN_TEXTURE else None


def _compare(slide: Slide, place: _Place) -> _Difference:
    """One place of a level against level 0, of which the kernels see some pixels around it."""
    one, stored, base = place.compared, place.stored, slide.info.levels[0]
    factor, side = one.factor, one.side
    left, top = place.x * factor, place.y * factor
    x0, x1 = source_span(float(left), float(factor), side, base.width_px)
    y0, y1 = source_span(float(top), float(factor), side, base.height_px)
    around = slide.read_level(0, x0, y0, x1 - x0, y1 - y0)
    source = around[top - y0 :, left - x0 :][: side * factor, : side * factor]
    area = _area(source, factor)
    limits = (base.width_px, base.height_px)
    bicubic = resample_box(around, (x0, y0), limits, (left, top), float(factor), (side, side))
    return _Difference(
        errors={
            "area": _mse(stored, area),
            "bicubic": _mse(stored, bicubic),
            "decimated": _decimated(source, stored, factor),
        },
        stored_detail=_detail(stored),
        area_detail=_detail(area),
    )


def _verdict(level: int, kernel: str, psnr: float, ratio: float, warning: bool) -> str:
    start = f"Level {level}: {psnr:.1f} dB from level 0 reduced ({kernel}), details x{ratio:.2f}; "
    if kernel == "decimated":
        return start + "pixels were left out without antialiasing: a reduction is the better LR."
    if not warning:
        return start + "made from level 0 in software."
    if ratio < 0.8:
        return start + "blurred or heavily recompressed: a reduction may be the better LR."
    if ratio > 1.25:
        return start + "sharpened, aliased or noisier than a reduction: its own processing."
    return start + "recompressed, shifted or scanned on its own: compare it with a reduction."


def _area(source: UInt8Array, factor: int) -> UInt8Array:
    side = len(source) // factor
    # Sums of whole numbers (factors are 64 at most), pixel by pixel of the block: several times
    # faster than sums over an axis.
    rows = np.zeros((side, source.shape[1], 3), np.uint16)
    for n in range(factor):
        rows += source[n::factor]
    sums = np.zeros((side, side, 3), np.uint32)
    for n in range(factor):
        sums += rows[:, n::factor]
    return np.floor(sums.astype(np.float32) / np.float32(factor**2) + 0.5).astype(np.uint8)


def _decimated(source: UInt8Array, stored: UInt8Array, factor: int) -> float:
    """Error of every n-th pixel, from the phase that is nearest: writers start anew in every
    tile."""
    phases = sorted({0, factor // 4, factor // 2, factor - 1})
    side = len(stored)
    padded = _padded(stored)
    least = np.inf
    for y in phases:
        # Whole pixels of 4 bytes are picked several times faster than triples; the fourth is 255
        # on both sides and adds nothing.
        rows = _padded(source[y::factor]).view(np.uint32)[..., 0]
        for x in phases:
            picked = np.ascontiguousarray(rows[:, x::factor]).view(np.uint8)
            error = cv2.norm(padded, picked.reshape(side, side, 4), cv2.NORM_L2SQR)
            least = min(least, error)
    return float(least / stored.size)


def _padded(image: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2RGBA), np.uint8)


def _mse(first: UInt8Array, second: UInt8Array) -> float:
    return cv2.norm(first, second, cv2.NORM_L2SQR) / first.size


def _detail(image: UInt8Array) -> float:
    """Mean energy of the Laplacian of the mean of the channels."""
    red, green, blue = cv2.split(image)
    grey = np.add(red, green, dtype=np.int32) + blue
    laplacian = (
        4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    )
    # Sums of squares of whole numbers: exact in whatever order.
    return cv2.norm(laplacian, cv2.NORM_L2SQR) / laplacian.size / 9
