"""What an evaluation will do, decided before the first network runs."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from wsisr import __version__
from wsisr.degradation import refuse_identity
from wsisr.degradation.spec import without_folders
from wsisr.device import choose_devices
from wsisr.device import describe as device_words
from wsisr.errors import ConfigError, WsisrError
from wsisr.evaluation.columns import (
    Sample,
    ScaleColumn,
    plan_columns,
    read_samples,
    same_origin,
    without_constant,
)
from wsisr.evaluation.entries import (
    HR_ITSELF,
    ORACLES,
    ModelFailure,
    changed,
    failed_of,
    find_entries,
    record,
    reference_of,
    refuse_twins,
)
from wsisr.evaluation.judges import Judge, open_judges
from wsisr.evaluation.leaks import find_leaks, refuse_leaks, stamps, unknown
from wsisr.evaluation.scoring import Scorer, found_metrics
from wsisr.evaluation.settings import EvalSettings
from wsisr.evaluation.sr_images import SrImages, find_sr_images, sr_image_notes
from wsisr.evaluation.tasks import Task
from wsisr.inference.loading import load_trained
from wsisr.inference.trained import TrainedModel
from wsisr.models.registry import MODELS
from wsisr.store import PairStore, open_pairs
from wsisr.store.verify_splits import identities, is_declared_leaky


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before the first network runs.

    Attributes
    ----------
    entries : tuple of TrainedModel
        Bicubic first; models fed from HR (``oracle``) last.
    failures : tuple of ModelFailure
        Models that cannot be read.
    empty : int
        Patches left out because their HR is constant.
    stamps : tuple of str
        What stands on every table.
    notes : tuple of str
        What a person should know.
    pictures : mapping of str to SrImages
        Sets that were made elsewhere, by the name of their entry.
    judges : tuple of Judge
        Downstream references.
    """

    settings: EvalSettings
    store: PairStore
    entries: tuple[TrainedModel, ...]
    failures: tuple[ModelFailure, ...]
    columns: tuple[ScaleColumn, ...]
    samples: tuple[Sample, ...]
    empty: int
    scorer: Scorer
    device: str
    stamps: tuple[str, ...]
    notes: tuple[str, ...]
    pictures: Mapping[str, SrImages] = field(default_factory=dict)
    judges: tuple[Judge, ...] = ()

    def jobs(self) -> Iterator[tuple[TrainedModel, ScaleColumn]]:
        """Models with the columns that are theirs."""
        for entry in self.entries:
            for column in self.columns:
                made = self.pictures.get(entry.name)
                if entry.serves(column.scale) and (made is None or made.array == column.array):
                    yield entry, column

    def key(self, entry: TrainedModel, column: ScaleColumn) -> str:
        """Hash of what decides the scores of a model in a column."""
        parts = {
            "store": self.store.content_digest(),
            "weights": self._digest(entry),
            "reference": reference_of(entry),
            "origin": column.origin,
            "array": column.array,
            "degradation": None if column.degradation is None else column.degradation.digest,
            "scale": column.scale,
            "scores": self.scorer.describe(column.scale),
            "settings": self.settings.identity(),
        }
        plugin = MODELS.record(entry.model)
        if plugin is not None:  # its code decides them too
            parts["plugin"] = plugin["sha256"]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _digest(self, entry: TrainedModel) -> str:
        made = self.pictures.get(entry.name)
        return made.digest if made is not None else entry.weights_sha256 or entry.model


def prepare(settings: EvalSettings, tasks: Sequence[Task] = ()) -> Plan:
    """Decide what is evaluated on what, and refuse what would be no test.

    Raises
    ------
    ConfigError
        Nothing to test on, models that have seen test patients, scores that cannot be had.
    StoreError
        There is no pair store.
    """
    store = open_pairs(settings.data)
    device = choose_devices(settings.device)[0]
    entries, failures = find_entries(settings.models, settings.runs)
    samples, empty = without_constant(
        store, read_samples(store, settings.split, settings.limit, whole=settings.whole)
    )
    if not samples:
        raise ConfigError(
            f"{store.path}: all {len(empty)} patches of the {settings.split} split are constant "
            "fields; there is nothing to tell models apart by."
        )
    declared = is_declared_leaky(store)
    slides = identities(store, sorted({sample.slide for sample in samples}), {})
    leaks = find_leaks(entries, slides, settings.split, store.content_digest())
    if not settings.allow_leak:
        refuse_leaks(leaks, settings.split)
    columns, more = plan_columns(store, samples, settings)
    for column in columns:
        if column.degradation is not None:
            refuse_identity(column.degradation, column.scale)
    sets = find_sr_images(store, columns, settings.images)
    entries = (*entries, *(made.entry for made in sets))
    refuse_twins([entry.name for entry in entries] + [failure.name for failure in failures])
    if settings.weights_dir is not None:
        # Part of the settings from here on: results of other scores are not mixed in.
        more_scores = [n for n in found_metrics(settings.weights_dir) if n not in settings.metrics]
        settings = replace(settings, metrics=(*settings.metrics, *more_scores))
    judges = open_judges(settings, store, torch.device(device))
    for judge in judges:
        judge.check(samples, settings.allow_leak)
        tasks = (*tasks, *judge.tasks())
    scorer = Scorer(settings.protocols, settings.metrics, tasks, settings.weights_dir, device)
    smallest = min(sample.hr_px for sample in samples)
    for scale in (min(settings.scales), max(settings.scales)):
        scorer.check(smallest, scale)
    words = list(more)
    if settings.whole:
        words.append(f"{len(samples)} whole images, put together from the patches that cover them.")
    if empty:
        words.append(
            f"{len(empty)} of {len(samples) + len(empty)} patches are left out for every model: "
            "their HR is one value in each channel."
        )
    blind = unknown(entries)
    if blind:
        words.append(
            f"{', '.join(blind)}: training patients are not recorded, so that a leak cannot be "
            "excluded (give the run's folder instead of its saved model)."
        )
    words += sr_image_notes(sets)
    for entry in entries[1:]:
        words += changed(entry)
        if not any(entry.serves(column.scale) for column in columns):
            words.append(f"{entry.name} serves x{entry.scale} alone and stands in no column.")
        origins = {column.origin for column in columns if entry.serves(column.scale)}
        other = [o for o in sorted(origins) if not trained_on(entry, o)]
        if other:
            words.append(
                f"{entry.name} was trained on LR of origin {entry.lr_origin} and is tested on "
                f"{', '.join(other)} too: marked in the tables."
            )
    if len(entries) == 1 and not failures:
        words.append(f"No run was found below {settings.runs}: bicubic alone is evaluated.")
    if judges:
        entries += (HR_ITSELF,)
        words += [judge.note(samples) for judge in judges]
    if settings.reference != "none":
        mark = ORACLES[settings.reference]
        fed = [replace(entry, name=entry.name + mark) for entry in _takers(entries)]
        entries += tuple(fed)
        words.append(
            "ORACLE: pixels made from HR reach "
            f"{', '.join(e.name for e in fed) or 'no model here'}; no table counts them."
        )
    return Plan(
        settings=settings,
        store=store,
        entries=entries,
        failures=failures,
        columns=columns,
        samples=samples,
        empty=len(empty),
        scorer=scorer,
        device=device,
        stamps=stamps(leaks=leaks, declared=declared, split=settings.split),
        notes=tuple(words),
        pictures={made.entry.name: made for made in sets},
        judges=judges,
    )


def trained_on(entry: TrainedModel, origin: str) -> bool:
    """Whether a model was trained on LR of this origin (or on nothing, or on nothing known)."""
    return entry.lr_origin is None or same_origin(entry.lr_origin, origin)


def _takers(entries: Sequence[TrainedModel]) -> list[TrainedModel]:
    found = []
    for entry in entries:
        with suppress(WsisrError):  # those that cannot be loaded are named when they are tried
            if entry.is_network and load_trained(entry).info.takes_reference:
                found.append(entry)
    return found


def describe(plan: Plan) -> dict[str, Any]:
    """results.json before anything is computed."""
    store, settings = plan.store, plan.settings
    return {
        "state": "running",
        "created_with": {
            "wsisr": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "environment": {
            "device": device_words(plan.device),
            "threads": torch.get_num_threads(),
            "platform": platform.platform(terse=True),
        },
        "store": {
            "path": store.path.name,
            "digest": store.content_digest(),
            "manifest": store.attributes["manifest"].get("name"),
            "hr": store.arrays[0],
        },
        "settings": settings.identity(),
        "lr_source": without_folders(settings.lr_source),
        "samples": {
            "images": len(plan.samples),
            "slides": len({s.slide for s in plan.samples}),
            "patients": len({s.patient for s in plan.samples} - {""}),
            "constant": plan.empty,
            "test_sets": _test_sets(plan),
            **({"parts": parts} if (parts := _parts(plan)) else {}),
        },
        "entries": [record(entry) for entry in plan.entries],
        "pictures": {
            name: {"array": made.array, "files": len(made.files), "blake2b": made.digest}
            for name, made in plan.pictures.items()
        },
        "columns": [
            {
                "origin": column.origin,
                "scale": column.scale,
                "array": column.array,
                "degradation": None if column.degradation is None else column.degradation.record(),
                "images": len(column.samples),
                "scores": plan.scorer.describe(column.scale),
            }
            for column in plan.columns
        ],
        "scores": [
            {key: getattr(score, key) for key in ("name", "title", "better", "digits", "protocol")}
            for score in plan.scorer.columns
            if not score.part
        ],
        **({"tasks": [judge.record() for judge in plan.judges]} if plan.judges else {}),
        **({"margin": settings.margin} if settings.margin is not None else {}),
        "protocols": {protocol.name: protocol.source for protocol in plan.scorer.protocols},
        "failed": failed_of(plan.failures),
        "stamps": list(plan.stamps),
        "notes": list(plan.notes),
        "ceilings": None,
    }


def _parts(plan: Plan) -> dict[str, list[tuple[str, int]]]:
    """Slide and row of the patches of each published part of a test split, where it is kept."""
    rule: Any = plan.store.attributes["manifest"].get("split") or {}
    kept = rule.get("official") or rule.get("kind") == "official"
    if plan.settings.split != "test" or not kept:
        return {}
    found: dict[str, list[tuple[str, int]]] = {}
    for sample in plan.samples:
        part = plan.store.slides[sample.slide].attributes.get("part") or ""
        found.setdefault(part, []).append((sample.slide, sample.row))
    return dict(sorted(found.items())) if len(found) > 1 and "" not in found else {}


def _test_sets(plan: Plan) -> list[list[tuple[str, int]]]:
    """Slide and row of the patches of each disjoint test set that the manifest deals out."""
    if plan.settings.split != "test":
        return []
    attributes: Any = plan.store.attributes
    here = {(sample.slide, sample.row) for sample in plan.samples}
    return [
        [place for s, row in part if (place := (attributes["slides"][s], int(row))) in here]
        for part in attributes.get("test_sets") or []
    ]
