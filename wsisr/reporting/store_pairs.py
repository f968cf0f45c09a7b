"""Pairs to look at: which, which part of them, and how they are laid over one another."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.drawing.overlays import checkerboard, red_cyan
from wsisr.reporting.store_facts import StoreFacts

VIEW_PX = 384
"""Side of what is shown of a pair, HR px."""


@dataclass(frozen=True, kw_only=True)
class PairView:
    """The middle of a pair, in all its magnifications.

    Attributes
    ----------
    position : int
        In the table of all stored pairs.
    words : str
        Which pair it is, with its certificate.
    shown : mapping of str to ndarray
        ``"LR 10x"``, ``"HR 40x"`` to uint8 RGB of one field, coarsest first.
    before, after, board : ndarray or None
        Red/cyan overlay as the file places LR, and as registered; LR and HR in squares.
    """

    position: int
    slide_id: str
    row: int
    words: str
    shown: Mapping[str, UInt8Array]
    before: UInt8Array | None = None
    after: UInt8Array | None = None
    board: UInt8Array | None = None

    @property
    def coarse(self) -> list[str]:
        """Names of the LR, which is enlarged by nearest neighbour."""
        return list(self.shown)[:-1]


def choose_gallery(facts: StoreFacts, count: int) -> list[int]:
    """Positions of kept pairs, drawn evenly from the slides in an order that stays.

    Slides take turns, so that a slide with many pairs does not fill the gallery; where there are
    more slides than pictures, the slides are drawn.
    """
    rng = np.random.default_rng(0)
    pools = [
        rng.permutation(rows[facts.kept[rows]]).tolist() for rows in facts.rows_per_slide.values()
    ]
    pools = [pools[index] for index in rng.permutation(len(pools)) if pools[index]]
    chosen: list[int] = []
    while pools and len(chosen) < count:
        for pool in pools[: count - len(chosen)]:
            chosen.append(int(pool.pop()))
        pools = [pool for pool in pools if pool]
    return sorted(chosen)


def choose_extremes(facts: StoreFacts) -> dict[str, int]:
    """Positions of the best, the median and the worst kept pair by certificate.

    By agreement in the shared band where pairs were compared one by one, else by the length of
    the residual.
    """
    band = facts.column("ncc_band")
    badness = None if band is None else -band
    if badness is None or not np.isfinite(badness[facts.kept]).any():
        if not facts.residuals:
            return {}
        badness = np.hypot(*list(facts.residuals.values())[-1].T)
    rows = np.flatnonzero(facts.kept & np.isfinite(badness))
    if not len(rows):
        return {}
    order = rows[np.argsort(badness[rows], kind="stable")]
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    return {name: int(place) for name, place in places.items()}


def choose_refused(facts: StoreFacts, count: int) -> list[int]:
    """Positions of pairs that registration turned down: one of each reason first."""
    rows = np.flatnonzero(~facts.kept)
    if "reason" not in facts.table:
        return rows[:count].tolist()
    words = facts.table.names("reason")
    first = list({words[row]: int(row) for row in reversed(rows.tolist())}.values())
    rest = [row for row in rows.tolist() if row not in first]
    return sorted((first + rest)[:count])


def read_pair(facts: StoreFacts, position: int, *, overlays: bool = False) -> PairView:
    """The middle of a pair at every magnification; with `overlays` also the coarsest LR over HR."""
    store = facts.store
    slide_id = store.attributes["slides"][int(facts.slide_of[position])]
    row = int(facts.table["row"][position])
    view = store.slides[slide_id]
    hr = view.spec(view.arrays[0])
    scales = {name: round(view.spec(name).factor / hr.factor) for name in view.arrays}
    step = int(np.lcm.reduce(list(scales.values())))
    side = min(hr.size_px, max(step, VIEW_PX // step * step))
    start = (hr.size_px - side) // 2 // step * step
    images = {}
    for name in reversed(view.arrays):
        scale = scales[name]
        at, size = [start // scale], side // scale
        part = store.read([[view.index, row]], name, y=at, x=at, h=size, w=size)[0]
        images[f"{'HR' if name == view.arrays[0] else 'LR'} {name}"] = part
    words = _words(facts, position, f"{slide_id}, row {row}")
    pair = PairView(position=position, slide_id=slide_id, row=row, words=words, shown=images)
    if not overlays or len(view.arrays) < 2:
        return pair
    lr, fine = (images[f"{k} {name}"] for k, name in (("LR", view.arrays[-1]), ("HR", hr.name)))
    shift = facts.shift_before_px(position)
    before, lr, fine = _moved(lr, fine, scales[view.arrays[-1]], shift)
    return replace(
        pair,
        before=None if before is None else red_cyan(lr, before),
        after=red_cyan(lr, fine),
        board=checkerboard(lr, fine),
    )


def _words(facts: StoreFacts, position: int, words: str) -> str:
    if facts.labels[position]:
        words += f", {facts.labels[position]}"
    for residual in list(facts.residuals.values())[-1:]:
        if np.isfinite(residual[position]).all():
            words += f"; residual {np.hypot(*residual[position]):.3f} px"
    band = facts.column("ncc_band")
    if band is not None and np.isfinite(band[position]):
        words += f", agreement {band[position]:.3f}"
    return words


def _moved(
    lr: UInt8Array, hr: UInt8Array, scale: int, shift: tuple[float, float] | None
) -> tuple[UInt8Array | None, UInt8Array, UInt8Array]:
    """HR as it would have been cut without registration, with LR and HR of the same field.

    The patch was cut where LR lies, `shift` away from where the file says; so what the file says
    is found by going back inside the patch. Borders that this leaves are cut from all.
    """
    if shift is None or not np.isfinite(shift).all():
        return None, lr, hr
    x, y = round(shift[0]), round(shift[1])
    border = ceil(max(abs(x), abs(y)) / scale)
    if (x, y) == (0, 0) or 4 * border > min(lr.shape[:2]):
        return None, lr, hr
    edge, side = border * scale, hr.shape[0] - 2 * border * scale
    before = hr[edge - y : edge - y + side, edge - x : edge - x + side]
    return before, lr[border:-border, border:-border], hr[edge:-edge, edge:-edge]
