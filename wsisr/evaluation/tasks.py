"""Downstream tasks in an evaluation: any callable that turns an image into a number.

A task stands beside PSNR as one more column; slides, intervals and tests are the same for both::

    evaluate(settings, tasks=[Task(name="nuclei_dice", score=score)])

`score` gets the SR as people see it (uint8, RGB) and the sample that it belongs to, so that it can
find its truth. `against_label` and `dice` serve the two usual kinds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import ConfigError

if TYPE_CHECKING:
    from wsisr.evaluation.columns import Sample


@dataclass(frozen=True, kw_only=True)
class Task:
    """One downstream score.

    Attributes
    ----------
    name : str
        Column of the CSV: lower case letters, digits and underscores.
    score : callable
        ``score(image, sample) -> float``: image (H, W, 3) uint8; NaN where there is no answer.
    title : str
        For tables; the name by default.
    digits : int
        After the point, in tables.
    zero_is_best : bool
        In place of a direction.
    part : bool
        Only a part of something pooled: it stands in the CSV and in no table.
    detail : str
        Full name, with whatever decides the score (a network's digest); the title by default.
    """

    name: str
    score: "Callable[[UInt8Array, Sample], float]"
    title: str = ""
    higher_is_better: bool = True
    digits: int = 4
    zero_is_best: bool = False
    part: bool = False
    detail: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ConfigError(
                f"Task name {self.name!r}: use lower case letters, digits and underscores."
            )
        if not self.title:
            object.__setattr__(self, "title", self.name)
        if not self.detail:
            object.__setattr__(self, "detail", self.title)


def of_image(name: str, score: Callable[[UInt8Array], float], **more: Any) -> Task:
    """A task whose score needs the image alone."""
    return Task(name=name, score=lambda image, sample: float(score(image)), **more)


def against_label(name: str, classify: Callable[[UInt8Array], str], **more: Any) -> Task:
    """Accuracy of a classifier against the patches' labels; NaN where a patch has none."""

    def score(image: UInt8Array, sample: "Sample") -> float:
        return float(classify(image) == sample.label) if sample.label else float("nan")

    return Task(name=name, score=score, **more)


def dice(first: AnyArray, second: AnyArray) -> float:
    """Dice coefficient of two masks of one shape; 1 where both are empty.

    Raises
    ------
    ConfigError
        The shapes differ.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape:
        raise ConfigError(f"Masks of {a.shape} and {b.shape} cannot be compared.")
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else 1.0
