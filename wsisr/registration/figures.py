"""Pictures of alignment: what is easier to see than to read. All are uint8 RGB arrays."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
FloatArray = NDArray[np.float64]

INK = (40, 40, 40)
ARROW = (200, 30, 30)
FAINT = (170, 170, 170)
BAR = (70, 110, 180)
SEAM = (205, 220, 245)


def _enlarge(lr: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    return np.asarray(cv2.resize(lr, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def checkerboard(lr: UInt8Array, hr: UInt8Array, squares: int = 8) -> UInt8Array:
    """Squares of the enlarged LR and of the HR in turn: structures must run on.

    Parameters
    ----------
    lr : ndarray, shape (h, w, 3), uint8
    hr : ndarray, shape (H, W, 3), uint8
        The same field.
    squares : int
        Per side.
    """
    height, width = hr.shape[:2]
    big = _enlarge(lr, (width, height))
    rows = np.arange(height) * squares // height
    columns = np.arange(width) * squares // width
    odd = (rows[:, None] + columns[None, :]) % 2 == 1
    return np.where(odd[..., None], big, hr)


def red_cyan(lr: UInt8Array, hr: UInt8Array) -> UInt8Array:
    """LR in red over HR in cyan: grey where aligned, coloured fringes where not."""
    height, width = hr.shape[:2]
    first = cv2.cvtColor(_enlarge(lr, (width, height)), cv2.COLOR_RGB2GRAY).astype(np.float32)
    second = cv2.cvtColor(hr, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if first.std() > 0:  # the same contrast on both sides, so that only places differ
        first = (first - first.mean()) * (second.std() / first.std()) + second.mean()
    red = np.clip(np.rint(first), 0, 255).astype(np.uint8)
    cyan = second.astype(np.uint8)
    return np.stack([red, cyan, cyan], axis=-1)


def side_by_side(images: list[UInt8Array], titles: list[str]) -> UInt8Array:
    """Pictures of one height in a row, with a line of text above each."""
    band = 26
    columns = []
    for image, title in zip(images, titles, strict=True):
        panel = np.full((image.shape[0] + band, image.shape[1] + 6, 3), 255, np.uint8)
        panel[band:, :-6] = image
        _text(panel, title, (4, 18))
        columns.append(panel)
    return np.concatenate(columns, axis=1)


def residual_field(
    positions: FloatArray,
    residuals: FloatArray,
    extent: tuple[float, float],
    *,
    title: str = "",
    unused: NDArray[np.bool_] | None = None,
    errors: FloatArray | None = None,
    soft: NDArray[np.bool_] | None = None,
    boxes: Sequence[tuple[float, float, float, float]] = (),
    side_px: int = 900,
) -> UInt8Array:
    """Arrows of residual shifts over a slide, magnified so that they can be seen.

    Parameters
    ----------
    positions : ndarray, shape (n, 2)
        Where, px of the slide.
    residuals : ndarray, shape (n, 2)
        HR px.
    extent : (float, float)
        Width and height of the slide, same px as `positions`.
    title : str
    unused : ndarray, shape (n,), bool, optional
        Places to draw faintly: outliers.
    errors : ndarray, shape (n,), optional
        Standard error of each residual, HR px: drawn as a ring around its end.
    soft : ndarray, shape (n,), bool, optional
        Places out of focus: drawn as open squares.
    boxes : sequence of (left, top, right, bottom)
        Seams, same px as `positions`.
    side_px : int
        Longer side of the figure.
    """
    scale = side_px / max(extent)
    band = 44
    width, height = (max(64, round(value * scale)) for value in extent)
    image = np.full((height + band, max(width, 320), 3), 255, np.uint8)
    cv2.rectangle(image, (0, band), (width - 1, height + band - 1), FAINT, 1)
    used = np.ones(len(positions), bool) if unused is None else ~unused
    length = np.linalg.norm(residuals, axis=1)
    top = float(np.percentile(length[used], 95)) if used.any() else 0.0
    magnify = 0.05 * side_px / max(top, 1e-3)
    for left, upper, right, lower in boxes:
        first = (round(left * scale), round(upper * scale) + band)
        cv2.rectangle(image, first, (round(right * scale), round(lower * scale) + band), SEAM, -1)
    for index, (point, residual, draw) in enumerate(zip(positions, residuals, used, strict=True)):
        start = point * scale + [0, band]
        end = start + residual * magnify
        ends = [(round(float(x)), round(float(y))) for x, y in (start, end)]
        colour = ARROW if draw else FAINT
        if soft is not None and soft[index]:
            corner = (ends[0][0] - 4, ends[0][1] - 4)
            cv2.rectangle(image, corner, (ends[0][0] + 4, ends[0][1] + 4), BAR, 1)
        cv2.circle(image, ends[0], 2, colour, -1, cv2.LINE_AA)
        if np.isfinite(end).all() and np.abs(end).max() < 10 * side_px:
            cv2.line(image, ends[0], ends[1], colour, 1, cv2.LINE_AA)
            if errors is not None and draw:
                radius = min(round(float(errors[index]) * magnify), side_px // 20)
                cv2.circle(image, ends[1], max(1, radius), FAINT, 1, cv2.LINE_AA)
    _text(image, title, (4, 16))
    _text(image, f"arrow of {0.05 * side_px:.0f} figure px = {top:.2f} HR px", (4, 36))
    return image


def residual_histogram(
    residuals: FloatArray, *, title: str = "", limit_px: float | None = None, bins: int = 40
) -> UInt8Array:
    """Histogram of the lengths of residual shifts.

    Parameters
    ----------
    residuals : ndarray, shape (n, 2)
        HR px.
    title : str
    limit_px : float, optional
        Right end of the axis; by default the largest length.
    bins : int
    """
    width, height, left, bottom, top = 640, 360, 20, 320, 60
    image = np.full((height, width, 3), 255, np.uint8)
    length = np.linalg.norm(np.asarray(residuals, dtype=np.float64).reshape(-1, 2), axis=1)
    limit = limit_px or (float(length.max()) if len(length) else 1.0) or 1.0
    counts, _ = np.histogram(np.minimum(length, limit), bins=bins, range=(0.0, limit))
    step = (width - 2 * left) / bins
    for index, count in enumerate(counts):
        x = left + index * step
        y = bottom - (bottom - top) * count / max(1, counts.max())
        cv2.rectangle(image, (round(x) + 1, round(y)), (round(x + step) - 1, bottom), BAR, -1)
    cv2.line(image, (left, bottom), (width - left, bottom), INK, 1)
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        place = (round(left + part * (width - 2 * left)) - 14, bottom + 20)
        _text(image, f"{part * limit:.2f}", place)
    _text(image, title, (4, 16))
    if len(length):
        middle, high = np.percentile(length, [50, 95])
        text = f"{len(length)} pairs, median {middle:.3f}, 95th percentile {high:.3f} HR px"
        _text(image, text, (4, 38))
    return image


def _text(image: UInt8Array, text: str, place: tuple[int, int]) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
