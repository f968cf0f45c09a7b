"""What a stored level really is: a reduction of level 0, a recompression of one, or its own scan.

``native`` means *stored in the file*. Most scanners compute their levels in software, and a level
that was compressed a second time, or made by leaving pixels out, can be worse than a fresh
reduction (design 3.7). So each level is compared with level 0 reduced in the three ways that are
in use.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsisr.slides.protocol import Level, Slide, UInt8Array
from wsisr.slides.resample import read_resampled

Float32Array = NDArray[np.float32]

WARNING_DB = 35.0
PLACES = 8
CANDIDATES = 32
MAX_SIDE_PX = 128
MAX_SOURCE_PX = 1024
MIN_SIDE_PX = 16
MIN_TEXTURE = 4.0
"""Standard deviation (grey levels) below which a place is glass and tells nothing."""


@dataclass(frozen=True, kw_only=True)
class LevelEvidence:
    """How a level compares with level 0 reduced to its size.

    Attributes
    ----------
    level : int
    factor : int
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
    errors = dict.fromkeys(("area", "bicubic", "decimated"), 0.0)
    details = dict.fromkeys(errors, 0.0)
    stored_detail = 0.0
    for x, y in places:
        stored = slide.read_level(level.index, x, y, side, side)
        stored_detail += _detail(stored)
        exact = stored.astype(np.float32)
        source = slide.read_level(0, x * factor, y * factor, side * factor, side * factor)
        made = {
            "area": _area(source, factor),
            "decimated": _decimated(source, exact, factor),
            "bicubic": read_resampled(
                slide, 0, float(x * factor), float(y * factor), float(factor), side, side
            ),
        }
        for name, image in made.items():
            errors[name] += _mse(exact, image)
            details[name] += _detail(image)
    kernel = min(errors, key=lambda name: errors[name])
    mse = errors[kernel] / len(places)
    psnr = float("inf") if mse == 0 else float(10 * np.log10(255**2 / mse))
    # Details are weighed against an antialiased reduction, whatever the level is nearest to.
    ratio = stored_detail / max(details["area"], 1e-9)
    warning = psnr < WARNING_DB or kernel == "decimated"
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
    if kernel == "decimated":
        return start + "pixels were left out without antialiasing: a reduction is the better LR."
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
    found: list[tuple[int, int]] = []
    for _ in range(CANDIDATES):
        x, y = int(rng.integers(0, right + 1)), int(rng.integers(0, bottom + 1))
        if (x, y) in found or not slide.read_validity(level.index, x, y, side, side).all():
            continue
        image = slide.read_level(level.index, x, y, side, side)
        if float(image.std(axis=(0, 1)).max()) >= MIN_TEXTURE:
            found.append((x, y))
        if len(found) == PLACES:
            break
    return found


def _area(source: UInt8Array, factor: int) -> UInt8Array:
    side = len(source) // factor
    # Sums of whole numbers (factors are 64 at most), rows first: several times faster than both
    # axes at once.
    rows = source.reshape(side, factor, -1).sum(axis=1, dtype=np.uint16)
    sums = rows.reshape(side, side, factor, 3).sum(axis=2, dtype=np.uint32)
    return np.floor(sums.astype(np.float32) / np.float32(factor**2) + 0.5).astype(np.uint8)


def _decimated(source: UInt8Array, stored: Float32Array, factor: int) -> UInt8Array:
    """Every n-th pixel, from the phase that is nearest: writers start anew in every tile."""
    phases = sorted({0, factor // 4, factor // 2, factor - 1})
    choices = [source[y::factor, x::factor] for y in phases for x in phases]
    return min(choices, key=lambda image: _mse(stored, image))


def _mse(first: Float32Array, second: UInt8Array) -> float:
    return float(np.mean((first - second) ** 2))


def _detail(image: UInt8Array) -> float:
    """Mean energy of the Laplacian of the mean of the channels."""
    grey: NDArray[np.float64] = image.mean(axis=2)
    laplacian = (
        4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    )
    return float(np.mean(laplacian**2))
