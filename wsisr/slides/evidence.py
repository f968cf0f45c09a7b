"""What a stored level really is: a reduction of level 0, a recompression of one, or its own scan.

``native`` means *stored in the file*. Most scanners compute their levels in software, and a level
that was compressed a second time can be worse than a fresh reduction (design 3.7). So each level
is compared with level 0 reduced by the two kernels that scanners use.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsisr.slides.protocol import Level, Slide, UInt8Array
from wsisr.slides.resample import read_resampled

WARNING_DB = 35.0
PLACES = 8
CANDIDATES = 48
MAX_SIDE_PX = 128
MAX_SOURCE_PX = 2048
MIN_SIDE_PX = 16
MIN_TEXTURE = 2.0
"""Standard deviation (grey levels) below which a place tells nothing."""


@dataclass(frozen=True, kw_only=True)
class LevelEvidence:
    """How a level compares with level 0 reduced to its size.

    Attributes
    ----------
    level : int
    factor : int
    kernel : str
        ``"area"`` or ``"bicubic"``: the reduction that is nearer; empty if nothing was compared.
    psnr_db : float
        RGB PSNR of the level against it over all places, dB; inf for identical pixels, nan if
        nothing was compared.
    detail_ratio : float
        Energy of the finest details (Laplacian of green) of the level over that of the reduction:
        below 1 blurred, above 1 sharpened or noisier.
    places : int
        Textured places that were compared.
    warning : bool
        Below 35 dB: a reduction may be the better LR.
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
    slide : Slide
    seed : int
        Places are drawn by it; up to 8 textured ones a level.

    Returns
    -------
    tuple of LevelEvidence
        Levels without an exact factor or exact reads are left out.
    """
    return tuple(
        _judge(slide, level, seed)
        for level in slide.info.levels
        if level.index > 0 and level.exact and level.factor is not None
    )


def _judge(slide: Slide, level: Level, seed: int) -> LevelEvidence:
    factor = level.factor or 1
    side = min(MAX_SIDE_PX, MAX_SOURCE_PX // factor, level.width_px // 2, level.height_px // 2)
    places = _textured_places(slide, level, side, seed) if side >= MIN_SIDE_PX else []
    if not places:
        return LevelEvidence(
            level=level.index,
            factor=factor,
            kernel="",
            psnr_db=float("nan"),
            detail_ratio=float("nan"),
            places=0,
            warning=False,
            verdict=f"Level {level.index}: too little texture or too small to be judged.",
        )
    errors = {"area": 0.0, "bicubic": 0.0}
    details = {"area": 0.0, "bicubic": 0.0}
    stored_detail = 0.0
    for x, y in places:
        stored = slide.read_level(level.index, x, y, side, side)
        stored_detail += _detail(stored)
        made = {
            "area": _area(slide, x, y, side, factor),
            "bicubic": read_resampled(
                slide, 0, float(x * factor), float(y * factor), float(factor), side, side
            ),
        }
        for name, image in made.items():
            difference = stored.astype(np.float64) - image.astype(np.float64)
            errors[name] += float(np.mean(difference**2))
            details[name] += _detail(image)
    kernel = min(errors, key=lambda name: errors[name])
    mse = errors[kernel] / len(places)
    psnr = float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse))
    ratio = stored_detail / max(details[kernel], 1e-9)
    warning = psnr < WARNING_DB
    return LevelEvidence(
        level=level.index,
        factor=factor,
        kernel=kernel,
        psnr_db=psnr,
        detail_ratio=ratio,
        places=len(places),
        warning=warning,
        verdict=_verdict(level.index, kernel, psnr, ratio, warning),
    )


def _verdict(level: int, kernel: str, psnr: float, ratio: float, warning: bool) -> str:
    start = f"Level {level}: {psnr:.1f} dB from level 0 reduced ({kernel}), details x{ratio:.2f}; "
    if not warning:
        return start + "made from level 0 in software."
    if ratio < 0.8:
        return start + "blurred or heavily recompressed: a reduction may be the better LR."
    if ratio > 1.25:
        return start + "sharpened, aliased or noisier than a reduction: its own processing."
    return start + "recompressed, shifted or scanned on its own: compare it with a reduction."


def _textured_places(slide: Slide, level: Level, side: int, seed: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng([seed, level.index])
    factor = level.factor or 1
    # The last pixels of a truncated level have no whole block of level 0 behind them.
    right = min(level.width_px, slide.info.levels[0].width_px // factor) - side
    bottom = min(level.height_px, slide.info.levels[0].height_px // factor) - side
    found: dict[tuple[int, int], float] = {}
    for _ in range(CANDIDATES):
        x, y = int(rng.integers(0, right + 1)), int(rng.integers(0, bottom + 1))
        if not slide.read_validity(level.index, x, y, side, side).all():
            continue
        texture = float(slide.read_level(level.index, x, y, side, side)[:, :, 1].std())
        if texture >= MIN_TEXTURE:
            found[x, y] = texture
    return sorted(found, key=lambda place: (-found[place], place))[:PLACES]


def _area(slide: Slide, x: int, y: int, side: int, factor: int) -> UInt8Array:
    size = side * factor
    pixels = slide.read_level(0, x * factor, y * factor, size, size)
    blocks = pixels.reshape(side, factor, side, factor, 3).astype(np.float32)
    return np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def _detail(image: UInt8Array) -> float:
    green: NDArray[np.float64] = image[:, :, 1].astype(np.float64)
    laplacian = (
        4 * green[1:-1, 1:-1]
        - green[:-2, 1:-1]
        - green[2:, 1:-1]
        - green[1:-1, :-2]
        - green[1:-1, 2:]
    )
    return float(np.mean(laplacian**2))
