"""Axes in numbers and words: where they end, their ticks, and names that have room."""

from collections.abc import Sequence
from math import ceil

import numpy as np

from wsisr.arrays import Float64Array
from wsisr.drawing.vector import text_width_px


def axis_ends(
    values: Float64Array, *, log: bool = False, zero: bool = False, tight: bool = False
) -> tuple[float, float]:
    """Ends of an axis that holds all values.

    Parameters
    ----------
    values : ndarray
        Finite; positive where `log`. May be empty.
    zero : bool
        The axis holds zero, without room beyond it: for bars and counts.
    tight : bool
        No room beyond the values: for steps of a run.
    """
    if not len(values):
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        if high <= low * 1.0001:
            low, high = low / 2, high * 2
        room = 1.0 if tight else (high / low) ** 0.03
        return low / room, high * room
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) * 0.1 or 1.0
        return (0.0, high or 1.0) if zero else (low - room, high + room)
    if not tight:
        room = 0.06 * (high - low)
        low = low if zero and low == 0 else low - room
        high = high if zero and high == 0 else high + room
    return low, high


def ticks_between(
    low: float, high: float, count: int, *, log: bool = False, whole: bool = False
) -> list[float]:
    """About `count` round values between two ends."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    found: list[float] = []
    for digits in ((1.0,), (1.0, 2.0, 5.0)) if log else ():
        every = LogLocator(subs=digits, numticks=99).tick_values(low, high)
        found = [float(tick) for tick in every if low <= tick <= high]
        if len(found) >= 3:
            return found[:: max(1, ceil(len(found) / max(3, count)))]
    locator = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=2)
    room = 1e-9 * (high - low)
    every = locator.tick_values(low, high)
    return [float(np.round(tick, 12)) for tick in every if low - room <= tick <= high + room]


def tick_labels(ticks: Sequence[float]) -> tuple[str, ...]:
    """The same number of decimals on every tick, thousands separated, k and M where long."""
    top = max((abs(tick) for tick in ticks), default=0.0)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else top or 1.0
    if top >= 1e6:
        return tuple(f"{tick / 1e6:g}M" if tick else "0" for tick in ticks)
    if top >= 1e4 and step >= 100:
        return tuple(f"{tick / 1e3:g}k" if tick else "0" for tick in ticks)
    if top and top < 1e-3:
        return tuple(f"{tick:g}" for tick in ticks)
    decimals = next((d for d in range(8) if abs(step - round(step, d)) < 1e-6 * step), 8)
    return tuple(f"{tick:,.{decimals}f}" for tick in ticks)


def label_rows(names: Sequence[str], width_px: float) -> int:
    """In how many staggered rows, at most three, names of categories can be read; 0 for none."""
    if not names:
        return 0
    widest = max(text_width_px(name) + 4 for name in names)
    return min(3, max(1, ceil(widest / (width_px / len(names)))))


def fitting(name: str, room_px: float) -> str:
    """A name of a category, shortened to the room that it has."""
    while len(name) > 3 and text_width_px(name) > room_px - 4:
        name = name.removesuffix("…")[:-1] + "…"
    return name
