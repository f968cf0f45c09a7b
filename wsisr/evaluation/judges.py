"""Downstream references as scores of an evaluation (`wsisr.tasks`): one answer for each image."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError
from wsisr.evaluation.columns import Sample
from wsisr.evaluation.entries import refuse_twins
from wsisr.evaluation.settings import EvalSettings
from wsisr.evaluation.tasks import Task
from wsisr.selection.image_labels import ImageLabels
from wsisr.store import PairStore
from wsisr.tasks.data import detection_radius_px
from wsisr.tasks.kinds import Answer, Maps
from wsisr.tasks.reference import FittedReference, Reference, open_reference
from wsisr.tasks.scores import score_answer, scores_of
from wsisr.tasks.truth import Truth


@dataclass(kw_only=True)
class Judge:
    """A reference and what it is to find.

    Attributes
    ----------
    name : str
        What its columns begin with.
    radius_px : float
        Of the detection of nuclei.
    types : tuple of str
        Types of nuclei that truth and reference may tell apart.
    """

    name: str
    reference: Reference
    truth: Truth
    radius_px: float
    types: tuple[str, ...] = ()
    _known: dict[bytes, dict[str, float]] = field(default_factory=dict)

    def tasks(self) -> tuple[Task, ...]:
        """One for each score; all of an image come from one answer."""
        task = self.reference.kind.name
        return tuple(
            Task(
                name=self.column(score.name),
                title=score.title.replace(task, self.name, 1),
                higher_is_better=score.better == "high",
                zero_is_best=score.better == "zero",
                digits=score.digits,
                part=score.part,
                score=self._of(score.name),
                detail=f"{score.title}: {self.reference.words}",
            )
            for score in scores_of(task, self.types)
        )

    def _of(self, score: str) -> Callable[[UInt8Array, Sample], float]:
        return lambda image, sample: self._scores(image, sample)[score]

    def column(self, score: str) -> str:
        """The CSV's name of a score of the task."""
        return self.name + score.removeprefix(self.reference.kind.name)

    def answer(self, image: UInt8Array, sample: Sample) -> Answer:
        """What is found in an image of a sample."""
        return self.reference.answer(image, sample.patient)

    def labels(self, image: UInt8Array, sample: Sample) -> ImageLabels | None:
        """What is to be found in it: HR's labels, cut as HR is."""
        if sample.whole is not None:
            found = self.truth.image(sample.slide)
        else:
            found = self.truth.patch(sample.slide, sample.row)
        if found is None:
            return None
        height, width = image.shape[:2]
        return replace(found, map=found.map[:height, :width])

    def check(self, samples: Sequence[Sample], allow_leak: bool) -> None:
        """Refuse a test that is none.

        Raises
        ------
        ConfigError
            The reference was fitted on patients of the test, or nothing here is labelled.
        """
        kind = self.reference.kind
        patients = {s.patient for s in samples}
        seen = self.reference.seen(patients)
        if seen and not allow_leak:
            raise ConfigError(
                f"--task {self.name}: the reference was fitted on {', '.join(seen[:5])}"
                f"{' and more' if len(seen) > 5 else ''}, whom this split also holds; fit it on "
                "others (wsisr train --task ... --folds N), or give --allow-leak"
            )
        if isinstance(kind, Maps):
            labelled = [s for s in samples if self.truth.has(s.slide)]
            if labelled:
                self.truth.patch(labelled[0].slide, labelled[0].row)
        else:
            labelled = [s for s in samples if s.label]
        if not labelled:
            raise ConfigError(
                f"--task {self.name}: no image of the split has labels for {kind.name}"
            )

    def note(self, samples: Sequence[Sample]) -> str:
        """What a person should know of it."""
        slides = [sample.slide for sample in samples]
        words = f"{self.name}: {self.reference.words}."
        if isinstance(self.reference.kind, Maps) and len(set(slides)) < len(slides):
            words += (
                " Scored in patches, whose borders cut objects in truth and answer alike; --whole "
                "scores whole images."
            )
        return words

    def record(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "name": self.name,
            "task": self.reference.kind.name,
            "classes": list(self.reference.classes),
            **({"types": list(self.types)} if self.types else {}),
            "reference": self.reference.words,
        }

    def _scores(self, image: UInt8Array, sample: Sample) -> dict[str, float]:
        key = blake2b(f"{sample.slot} {image.shape}".encode() + image.tobytes()).digest()
        if key not in self._known:
            kind = self.reference.kind
            labels = self.labels(image, sample) if isinstance(kind, Maps) else None
            if labels is None if isinstance(kind, Maps) else not sample.label:
                names = (s.name for s in scores_of(kind.name, self.types))
                self._known[key] = dict.fromkeys(names, float("nan"))
            else:
                answer = self.answer(image, sample)
                self._known[key] = score_answer(
                    kind, answer, labels, sample.label, self.radius_px, self.types
                )
        return self._known[key]


def open_judges(
    settings: EvalSettings, store: PairStore, device: torch.device
) -> tuple[Judge, ...]:
    """The references of an evaluation.

    Raises
    ------
    ConfigError
        One of them is not there, or two have one name.
    """
    named: Any = store.attributes["manifest"].get("labels") or {}
    classes = tuple(named.get("classes", ()))
    opened = [(text, open_reference(text, device, classes)) for text in settings.tasks]
    kinds = [reference.kind.name for _, reference in opened]
    judges = []
    for text, reference in opened:
        kind = reference.kind.name
        alone = kinds.count(kind) == 1
        name = kind if alone else _slug(Path(text.rpartition("=")[2]).name)
        truth = Truth(store, settings.truth)
        judges.append(
            Judge(
                name=name,
                reference=reference,
                truth=truth,
                radius_px=detection_radius_px(store),
                # References that are fitted here draw nuclei and do not name them.
                types=() if isinstance(reference, FittedReference) else _types(truth, classes),
            )
        )
    refuse_twins([judge.name for judge in judges], "references")
    return tuple(judges)


def _types(truth: Truth, classes: Sequence[str]) -> tuple[str, ...]:
    """Types of the objects in the labels, in the order of the manifest's classes."""
    slide = next((slide for slide in truth.store.slides if truth.has(slide)), None)
    labels = truth.image(slide) if slide is not None else None
    return tuple(classes) if labels is not None and labels.types is not None else ()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
