"""Axes: where ticks lie, what they say, and where values fall on the canvas."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes
    ----------
    low, high : float
        Ends in data units (`low` < `high`).
    start_px, end_px : float
        Where they fall on the canvas.
    ticks : tuple of float
    labels : tuple of str
    log : bool
    """

    low: float
    high: float
    start_px: float
    end_px: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Canvas px of a value."""
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        at = log10(value) if self.log else value
        return self.start_px + (at - low) / (high - low) * (self.end_px - self.start_px)


def axis(
    values: Sequence[float],
    start_px: float,
    end_px: float,
    *,
    log: bool = False,
    zero: bool = False,
    tight: bool = False,
    whole: bool = False,
    per_tick_px: float = 70.0,
) -> Axis:
    """An axis that holds all values, with round ticks.

    Parameters
    ----------
    values : sequence of float
        Finite; positive where `log`. May be empty.
    start_px, end_px : float
        Of the canvas.
    log : bool
    zero : bool
        The axis holds zero, without room beyond it: for bars and counts.
    tight : bool
        No room beyond the values: for steps of a run.
    whole : bool
        Ticks at whole numbers only: for counts.
    per_tick_px : float
        Wanted distance of ticks.
    """
    low, high = (min(values), max(values)) if len(values) else (1.0, 10.0) if log else (0.0, 1.0)
    count = max(2, round(abs(end_px - start_px) / per_tick_px))
    if log:
        if high <= low * 1.0001:
            low, high = low / 2, high * 2
        room = 0.0 if tight else 0.03 * log10(high / low)
        low, high = low / 10**room, high * 10**room
        ticks = log_ticks(low, high, count)
        return Axis(
            low=low,
            high=high,
            start_px=start_px,
            end_px=end_px,
            ticks=ticks,
            labels=tuple(_log_label(tick) for tick in ticks),
            log=True,
        )
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(high) * 0.1 or 1.0
        low, high = (0.0, high or 1.0) if zero else (low - room, high + room)
    elif not tight:
        room = 0.06 * (high - low)
        low = low if zero and low == 0 else low - room
        high = high if zero and high == 0 else high + room
    ticks = linear_ticks(low, high, count, whole=whole)
    return Axis(
        low=low,
        high=high,
        start_px=start_px,
        end_px=end_px,
        ticks=ticks,
        labels=tick_labels(ticks),
    )


def linear_ticks(low: float, high: float, count: int, *, whole: bool = False) -> tuple[float, ...]:
    """About `count` round values (1, 2, 2.5 or 5 times a power of ten) between two ends."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** floor(log10(rough))
    step = min(
        (f * power for f in (1.0, 2.0, 2.5, 5.0, 10.0)), key=lambda size: abs(log10(size / rough))
    )
    step = max(1.0, ceil(step)) if whole else step
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return tuple(float(np.round(index * step, 12)) for index in range(first, last + 1))


def log_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Decades between two ends; with 2 and 5, or all digits, where there are few."""
    first, last = floor(log10(low)), ceil(log10(high))
    decades = [10.0**power for power in range(first, last + 1)]
    inside = [tick for tick in decades if low <= tick <= high]
    if len(inside) >= 3:
        return tuple(inside[:: max(1, ceil(len(inside) / count))])
    for digits in ((1.0, 2.0, 5.0), tuple(float(d) for d in range(1, 10))):
        found = [d * tick for tick in decades for d in digits if low <= d * tick <= high]
        if len(found) >= 3:
            return tuple(found[:: max(1, ceil(len(found) / max(3, count)))])
    return linear_ticks(low, high, 3)


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


def _log_label(tick: float) -> str:
    if tick >= 1e6:
        return f"{tick / 1e6:g}M"
    if tick >= 1e4:
        return f"{tick / 1e3:g}k"
    return f"{tick:g}"
