"""Which candidates stay: rules with counts, so that every drop has a name.

Candidates are columns of numpy arrays. Every rule sees the whole column and returns who stays;
the funnel counts them. Rules that choose among candidates (overlap, caps) go through them in rank
order, a hash of where a patch lies: the result does not depend on file order or on workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsisr.arrays import BoolArray, Float64Array, Int64Array
from wsisr.errors import ConfigError
from wsisr.selection.annotation_formats.names import IGNORED
from wsisr.selection.annotations import Annotations
from wsisr.selection.candidates import (
    boxes_of,
    first_occurrences,
    greedy_non_overlapping,
    ranked_order,
)
from wsisr.selection.quality import mean_rgb, texture_map
from wsisr.selection.tissue_map import TissueMap


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateTable:
    """Candidates of one slide in rank order.

    Attributes
    ----------
    columns : mapping of name to ndarray, shape (n, ...)
        ``x, y`` (int64, level-0 origin), ``tissue``, ``invalid``, ``pen`` (shares of the field),
        ``texture``, ``rgb`` (n, 3), ``label`` (str) and ``label_share``.
    """

    columns: Mapping[str, NDArray[np.generic]]

    def __len__(self) -> int:
        return len(self.columns["x"])

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        return self.columns[name]

    @property
    def origins(self) -> Int64Array:
        """Level-0 origins, shape (n, 2)."""
        return np.stack([self.columns["x"], self.columns["y"]], axis=1).astype(np.int64)

    def take(self, chosen: ArrayLike) -> "CandidateTable":
        """Rows by index or mask, in the given order."""
        index = np.asarray(chosen)
        return CandidateTable(columns={k: v[index] for k, v in self.columns.items()})


@dataclass(frozen=True, kw_only=True)
class SelectionRules:
    """What a patch must be.

    Attributes
    ----------
    min_tissue : float
        Least share of the field that is tissue.
    min_label_share : float
        Share of the field that must belong to one label; 0 asks for none. Exactly this share is
        not enough ("> 80 % of one class").
    min_texture : float
        Least mean texture (`wsisr.selection.cues.Cues.texture`); 0 asks for none.
    max_invalid, max_pen : float
        Largest shares never scanned and under pen.
    max_overlap : float
        Largest share of a field shared with any better-ranked one; 1 allows everything.
    rgb_outliers : float
        Patches whose mean R, G or B is more than this many robust standard deviations from the
        slide's median are dropped; 0 keeps all.
    max_brightness : float
        Patches whose mean luma reaches this share of the glass's are blank.
    """

    min_tissue: float = 0.8
    min_label_share: float = 0.0
    min_texture: float = 0.0
    max_invalid: float = 0.0
    max_pen: float = 0.05
    max_overlap: float = 0.0
    rgb_outliers: float = 0.0
    max_brightness: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "min_tissue", "min_label_share", "max_invalid", "max_pen", "max_overlap",
            "max_brightness",
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name}={value!r} is no share between 0 and 1.")
        if self.min_texture < 0 or self.rgb_outliers < 0:
            raise ConfigError("min_texture and rgb_outliers must not be negative.")


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What says of which class a place is.

    Attributes
    ----------
    labels : tuple of str
        Labels to measure.
    other : str
        Label of everything that none of `labels` covers, e.g. ``"normal"``; with no annotations
        the whole slide has it. Empty: such area has no label.
    """

    annotations: Annotations | None = None
    labels: tuple[str, ...] = ()
    other: str = ""


def describe_candidates(
    origins: Int64Array,
    field_px: int,
    tissue: TissueMap,
    labelling: Labelling = Labelling(),
    *,
    seed: int,
    slide_id: str,
) -> CandidateTable:
    """Measure candidates and put them in rank order.

    Parameters
    ----------
    origins : ndarray, shape (n, 2)
        Level-0; duplicates are left out.
    field_px : int
        Level-0 side of the field of view.
    seed, slide_id
        For the ranks.
    """
    origins = first_occurrences(np.asarray(origins, np.int64).reshape(-1, 2))
    origins = origins[ranked_order(seed, slide_id, origins)]
    boxes = boxes_of(origins, field_px)
    label, share = label_shares(boxes, labelling)
    columns: dict[str, NDArray[np.generic]] = {
        "x": origins[:, 0],
        "y": origins[:, 1],
        "tissue": tissue.fraction(boxes),
        "invalid": tissue.mean_of(tissue.invalid, boxes),
        "pen": tissue.mean_of(tissue.pen, boxes),
        "label": label,
        "label_share": share,
    }
    if tissue.overview is not None:
        columns["rgb"] = mean_rgb(tissue, boxes)
        columns["texture"] = tissue.mean_of(texture_map(tissue), boxes)
    return CandidateTable(columns=columns)


def label_shares(boxes: ArrayLike, labelling: Labelling) -> tuple[NDArray[np.str_], Float64Array]:
    """The label with the largest exact share of each box, and that share.

    Ties go to the earlier label.
    """
    values = np.asarray(boxes, np.float64).reshape(-1, 4)
    annotations, names = labelling.annotations, list(labelling.labels)
    shares = [
        annotations.label_fraction(values, name) if annotations else np.zeros(len(values))
        for name in names
    ]
    if labelling.other:
        # Labels may overlap in a file; together they cover no more than everything. What a person
        # asked to ignore is nothing, the background included.
        ignored = annotations.label_fraction(values, IGNORED) if annotations else 0.0
        covered = np.sum([*shares, np.zeros(len(values)) + ignored], axis=0)
        shares.append(np.clip(1.0 - covered, 0.0, 1.0))
        names.append(labelling.other)
    if not names:
        return np.full(len(values), "", np.str_), np.zeros(len(values))
    stacked = np.stack(shares)
    best = np.argmax(stacked, axis=0)
    share: Float64Array = stacked[best, np.arange(len(values))]
    return np.where(share > 0, np.asarray(names)[best], ""), share


def apply_rules(
    table: CandidateTable,
    rules: SelectionRules,
    field_px: int,
    *,
    white_rgb: tuple[float, float, float] = (255.0, 255.0, 255.0),
) -> tuple[CandidateTable, dict[str, int]]:
    """Drop what the rules forbid and count.

    Returns
    -------
    table : CandidateTable
        The ranked reserve: best rank first.
    funnel : dict
        Counts after each step: ``candidates, scanned, tissue, label, texture, colour, overlap``.
    """
    funnel = {"candidates": len(table)}
    clean = _column(table, "invalid") <= rules.max_invalid
    inked = _column(table, "pen") > rules.max_pen
    table = _step(table, clean & ~inked, "scanned", funnel)
    table = _step(table, _column(table, "tissue") >= rules.min_tissue, "tissue", funnel)
    if rules.min_label_share:
        table = table.take(_column(table, "label_share") > rules.min_label_share)
    funnel["label"] = len(table)
    if rules.min_texture:
        table = table.take(_column(table, "texture") >= rules.min_texture)
    funnel["texture"] = len(table)
    keep = np.ones(len(table), np.bool_)
    if rules.max_brightness < 1.0:
        keep &= ~is_blank(_column(table, "rgb"), white_rgb, rules.max_brightness)
    if rules.rgb_outliers:
        keep &= ~rgb_outliers(_column(table, "rgb"), rules.rgb_outliers)
    table = _step(table, keep, "colour", funnel)
    kept = greedy_non_overlapping(table.origins, field_px, rules.max_overlap)
    return _step(table, kept, "overlap", funnel), funnel


def rgb_outliers(rgb: ArrayLike, deviations: float) -> BoolArray:
    """Rows of (n, 3) mean colours that lie far from the median in any channel.

    The spread is 1.4826 times the median absolute deviation, and never below two grey levels,
    so that an even slide does not lose patches for nothing.
    """
    values = np.asarray(rgb, np.float64).reshape(-1, 3)
    if not len(values):
        return np.zeros(0, np.bool_)
    centre = np.median(values, axis=0)
    spread = np.maximum(2.0, 1.4826 * np.median(np.abs(values - centre), axis=0))
    far: BoolArray = np.any(np.abs(values - centre) > deviations * spread, axis=1)
    return far


def is_blank(rgb: ArrayLike, white_rgb: tuple[float, float, float], share: float) -> BoolArray:
    """Rows of (n, 3) mean colours whose luma reaches a share of the glass's."""
    weights = np.array([0.299, 0.587, 0.114])
    luma = np.asarray(rgb, np.float64).reshape(-1, 3) @ weights
    return np.asarray(luma >= share * float(np.asarray(white_rgb) @ weights), np.bool_)


def _column(table: CandidateTable, name: str) -> Float64Array:
    if name not in table.columns:
        raise ConfigError(f"A rule asks for {name!r}, which was not measured for these candidates.")
    return np.asarray(table.columns[name], np.float64)


def _step(
    table: CandidateTable, keep: ArrayLike, name: str, funnel: dict[str, int]
) -> CandidateTable:
    table = table.take(keep)
    funnel[name] = len(table)
    return table
