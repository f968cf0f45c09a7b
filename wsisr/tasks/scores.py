"""The numbers of a task for one image, and those of many together.

Names begin with the task's. Parts (`TaskScore.part`) are what pooled values are made of; no table
shows them by themselves.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import numpy as np

from wsisr.arrays import Int32Array
from wsisr.metrics.classes import accuracy, auc, balanced_accuracy
from wsisr.metrics.object_distances import (
    TypeDetection,
    centroid_pairs,
    object_hausdorff,
    type_detection,
)
from wsisr.metrics.objects import (
    Detection,
    Panoptic,
    Sums,
    Weighted,
    aji,
    aji_plus,
    binary_dice,
    gland_detection,
    object_dice,
    overlap,
    panoptic,
)
from wsisr.selection.image_labels import ImageLabels
from wsisr.tasks.kinds import GLAND_PX, Answer, Kind

Better = Literal["high", "low", "zero"]
Parts = Mapping[str, np.ndarray]
S = TypeVar("S", bound=Sums)


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One number of an image.

    Attributes
    ----------
    part : bool
        Only a part of something pooled.
    """

    name: str
    title: str
    better: Better = "high"
    digits: int = 4
    part: bool = False


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Something that is computed once over all images.

    Attributes
    ----------
    value : callable
        Of the parts (each an array over images) and the images' classes.
    """

    title: str
    value: Callable[[Parts, Sequence[str]], float]
    better: Literal["high", "low"] = "high"
    digits: int = 4


def _names(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def _parts(prefix: str, kind: type[Sums]) -> list[TaskScore]:
    return [TaskScore(name=f"{prefix}_{n}", title=n, part=True) for n in _names(kind)]


SCORES: Mapping[str, tuple[TaskScore, ...]] = {
    "nuclei": (
        TaskScore(name="nuclei_aji", title="nuclei: AJI"),
        TaskScore(name="nuclei_aji_plus", title="nuclei: AJI+"),
        TaskScore(name="nuclei_pq", title="nuclei: PQ"),
        TaskScore(name="nuclei_dq", title="nuclei: DQ"),
        TaskScore(name="nuclei_sq", title="nuclei: SQ"),
        TaskScore(name="nuclei_dice", title="nuclei: Dice (all pixels)"),
        TaskScore(name="nuclei_f1d", title="nuclei: F1 of detection"),
        TaskScore(
            name="nuclei_count",
            title="nuclei: too many (+) or too few (-), share of the truth",
            better="zero",
            digits=3,
        ),
        *_parts("nuclei_found", Detection),
        *_parts("nuclei_panoptic", Panoptic),
    ),
    "glands": (
        TaskScore(name="glands_f1", title="glands: F1"),
        TaskScore(name="glands_dice", title="glands: object Dice"),
        TaskScore(
            name="glands_hausdorff", title="glands: object Hausdorff, px", better="low", digits=1
        ),
        *_parts("glands_found", Detection),
        *_parts("glands_pooled_dice", Weighted),
        *_parts("glands_pooled_hausdorff", Weighted),
    ),
    "classes": (
        TaskScore(name="classes_accuracy", title="classes: accuracy"),
        TaskScore(name="classes_probability", title="probability", part=True),
        TaskScore(name="classes_said", title="said", part=True),
    ),
}
"""The first is what a task is judged by."""


def scores_of(task: str, types: Sequence[str] = ()) -> tuple[TaskScore, ...]:
    """The scores of a task, with the parts of its types of objects.

    Parameters
    ----------
    types : sequence of str
        That truth and reference tell apart.
    """
    typed = (score for name in types for score in _parts(_type(name), TypeDetection))
    return (*SCORES[task], *typed)


def _type(name: str) -> str:
    return "nuclei_type_" + re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def score_answer(
    kind: Kind,
    answer: Any,
    labels: Any,
    name: str,
    radius_px: float,
    types: Sequence[str] = (),
) -> dict[str, float]:
    """All numbers of an image (`scores_of`); see `nuclei_scores`.

    Parameters
    ----------
    labels : ImageLabels or None
        Of tasks whose truth are objects.
    name : str
        The image's class, for the others.
    """
    if kind.name == "nuclei":
        return nuclei_scores(labels, answer, radius_px, types)
    if kind.name == "glands":
        return gland_scores(labels, answer.labels)
    return class_scores(name, answer)


def nuclei_scores(
    truth: ImageLabels, answer: Answer, radius_px: float, types: Sequence[str] = ()
) -> dict[str, float]:
    """Scores of nuclei in one image; where single ones are not known, Dice alone.

    Parameters
    ----------
    radius_px : float
        Of `centroid_detection`.
    types : sequence of str
        Types of nuclei to be told apart.
    """
    scores = dict.fromkeys((score.name for score in scores_of("nuclei", types)), math.nan)
    found = answer.labels
    assert found is not None
    pair = overlap(truth.map, found)
    scores["nuclei_dice"] = binary_dice(pair)
    if not truth.instances:
        return scores
    paired = centroid_pairs(truth.map, found, radius_px)
    hits = len(paired[0])
    quality, there = panoptic(pair), Detection(hits, len(paired[2]) - hits, len(paired[1]) - hits)
    if truth.types is not None and answer.types is not None:
        for name in types:
            sums = type_detection(paired, truth.types, answer.types, name)
            scores |= _filled(_type(name), sums)
    scores |= {
        "nuclei_aji": aji(pair),
        "nuclei_aji_plus": aji_plus(pair),
        "nuclei_pq": quality.pq,
        "nuclei_dq": quality.dq,
        "nuclei_sq": quality.sq,
        "nuclei_f1d": there.f1,
    }
    if len(pair.truth_area):
        scores["nuclei_count"] = len(pair.found_area) / len(pair.truth_area) - 1.0
    return scores | _filled("nuclei_found", there) | _filled("nuclei_panoptic", quality)


def gland_scores(truth: ImageLabels, found: Int32Array) -> dict[str, float]:
    """Scores of glands in one image.

    What the image's border leaves of a gland and is smaller than anything that is taken for a
    gland counts in neither map.
    """
    labels = truth.map
    border = np.unique(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    small = [k for k in border.tolist() if k and int((labels == k).sum()) < GLAND_PX]
    labels = np.where(np.isin(labels, small), 0, labels)
    pair = overlap(labels, found)
    there, dice = gland_detection(pair), object_dice(pair)
    far = object_hausdorff(labels, found, pair)
    missed = not pair.empty and not pair.shared.size
    return {
        "glands_f1": there.f1,
        # One map is empty: nothing is alike, and there is no distance.
        "glands_dice": 0.0 if missed else dice.value,
        "glands_hausdorff": far.value,
        **_filled("glands_found", there),
        **_filled("glands_pooled_dice", dice),
        **_filled("glands_pooled_hausdorff", far),
    }


def class_scores(truth: str, answer: Answer) -> dict[str, float]:
    """Whether the likeliest class of one image is its own."""
    names = list(answer.classes)
    said = max(names, key=lambda name: answer.classes[name])
    return {
        "classes_accuracy": float(said == truth) if truth else math.nan,
        "classes_probability": answer.classes[names[-1]],
        "classes_said": float(names.index(said)),
    }


def pooled(task: str, classes: Sequence[str] = (), types: Sequence[str] = ()) -> tuple[Pooled, ...]:
    """What is computed over all images of a task at once."""

    if task == "nuclei":
        return (
            Pooled(
                title="F1 of detection", value=lambda p, _: _added(Detection, "nuclei_found", p).f1
            ),
            Pooled(title="PQ", value=lambda p, _: _added(Panoptic, "nuclei_panoptic", p).pq),
            *_typed(types),
        )
    if task == "glands":
        return (
            Pooled(title="F1", value=lambda p, _: _added(Detection, "glands_found", p).f1),
            Pooled(
                title="object Dice",
                value=lambda p, _: _added(Weighted, "glands_pooled_dice", p).value,
            ),
            Pooled(
                title="object Hausdorff, px",
                value=lambda p, _: _added(Weighted, "glands_pooled_hausdorff", p).value,
                better="low",
                digits=1,
            ),
        )

    def said(parts: Parts) -> list[str]:
        return [classes[int(k)] for k in parts["classes_said"]]

    measures = [
        Pooled(title="accuracy", value=lambda p, t: accuracy(t, said(p))),
        Pooled(title="balanced accuracy", value=lambda p, t: balanced_accuracy(t, said(p))),
    ]
    if len(classes) == 2:
        measures.append(
            Pooled(
                title=f"AUC ({classes[-1]})",
                value=lambda p, t: auc([x == classes[-1] for x in t], p["classes_probability"]),
            )
        )
    return tuple(measures)


def _typed(types: Sequence[str]) -> list[Pooled]:
    """F1c of each type, and the share of right types among the nuclei that were found."""

    def sums(parts: Parts, name: str) -> TypeDetection:
        return _added(TypeDetection, _type(name), parts)

    def right(parts: Parts, _: Sequence[str]) -> float:
        each = [sums(parts, name) for name in types]
        total = sum(one.right + one.lost for one in each)
        return sum(one.right for one in each) / total if total else math.nan

    made = [
        Pooled(title=f"F1c, {name}", value=lambda p, _, name=name: sums(p, name).f1)  # type: ignore[misc]
        for name in types
    ]
    return [*made, Pooled(title="types right", value=right)] if types else []


def _filled(prefix: str, sums: Sums) -> dict[str, float]:
    return {f"{prefix}_{name}": float(value) for name, value in vars(sums).items()}


def _added(kind: type[S], prefix: str, parts: Parts) -> S:
    """What `_filled` made of each image, added up over all of them."""
    make: Any = kind
    return make(*(float(np.nansum(parts[f"{prefix}_{name}"])) for name in _names(kind)))
