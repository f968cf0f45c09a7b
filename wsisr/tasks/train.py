"""`wsisr train --task`: a reference network is fitted by the same loop as every other network.

Sampling, optimiser, trainer states and exact resume are `wsisr.training`'s; here is what is
trained, on whom, and what is left of it: ``task.json`` in place of ``run.json``, so that no
reference is ever taken for a super-resolution model.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from wsisr.errors import ConfigError
from wsisr.inference.trained import CONFIG_NAME as SAVED_CONFIG
from wsisr.inference.trained import WEIGHTS_NAME
from wsisr.models.wrapper import SRModel
from wsisr.progress import Reporter, silent
from wsisr.store import PairStore, open_pairs
from wsisr.store.verify_splits import identities
from wsisr.tasks.data import (
    Labelled,
    TaskFeed,
    detection_radius_px,
    folds_of,
    labelled,
    seen_images,
    targets_of,
)
from wsisr.tasks.kinds import Kind, Maps
from wsisr.tasks.networks import TaskModel, build_network
from wsisr.tasks.reference import FOLD, FORMAT, FORMAT_VERSION, RECORD_NAME, ask, read_record
from wsisr.tasks.request import TASKS, TaskRequest, resolve
from wsisr.tasks.scores import SCORES, score_answer
from wsisr.tasks.truth import Truth
from wsisr.training.batches import Batch
from wsisr.training.config import TrainConfig, differences, merge, parse_config
from wsisr.training.engine import run_training
from wsisr.training.interrupts import readable_faults
from wsisr.training.job import Course, TrainingJob, TrainingOutcome
from wsisr.training.outputs import RunFiles
from wsisr.training.parallel import Processes, join, leave
from wsisr.training.recipes import Backward, Logs, Recipe
from wsisr.training.request import FREE_TO_CHANGE, begun_config, only_begun
from wsisr.training.run_record import RunRecord, describe_environment, first_document
from wsisr.training.start import alone, choose_precision, earlier_state, say
from wsisr.words import counted


class TaskRecipe(Recipe):
    """One loss, the task's."""

    kind = "task"

    def __init__(self, task: Kind) -> None:
        super().__init__()
        self.task = task

    def step(self, model: SRModel, batch: Batch, backward: Backward) -> Logs:
        assert batch.hr is not None
        loss = self.task.loss(model(batch.lr).float(), batch.hr)
        backward(loss)
        return {"loss": loss.detach()}


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a network is validated on: images, and what is to be found in them."""

    kind: Kind
    classes: tuple[str, ...]
    images: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    radius_px: float = 12.0


class TaskFiles(RunFiles):
    """The folder of a reference."""

    def __init__(self, *given: Any, names: tuple[str, ...]) -> None:
        self.columns = ("step", *names)  # type: ignore[misc]
        super().__init__(*given)

    def group(self, row: dict[str, float]) -> str:
        return "val"

    def save(self, model: SRModel, folder: Path, step: int, score: float | None) -> None:
        folder.mkdir(parents=True)
        tensors = {
            key: value.detach().cpu().contiguous().clone()
            for key, value in model.state_dict().items()
        }
        save_file(tensors, folder / WEIGHTS_NAME)
        text = json.dumps(self.record.document | {"step": step, "score": score}, indent=2)
        (folder / SAVED_CONFIG).write_text(text + "\n", encoding="utf-8")


class TaskCourse(Course):
    """Validated by the task's own scores; the first of them keeps the best."""

    best_key = "score"

    def __init__(self, held_out: Held) -> None:
        self.held_out = held_out
        self.scores = [score for score in SCORES[held_out.kind.name] if not score.part]
        self.headline = self.scores[0].name  # type: ignore[misc]

    def validate(self, job: TrainingJob, model: SRModel) -> list[dict[str, float]]:
        assert isinstance(model, TaskModel)
        if not self.held_out.images:
            return []
        model.eval()
        own, mine = self.held_out, []
        for image, labels, name in zip(own.images, own.labels, own.names, strict=True):
            answer = ask(model, own.kind, image, own.classes, job.device)
            mine.append(score_answer(own.kind, answer, labels, name, own.radius_px))
        return [{s.name: _mean([row[s.name] for row in mine]) for s in self.scores}]

    def outputs(self, job: TrainingJob, folder: Path, step: int) -> RunFiles:
        names = tuple(score.name for score in self.scores)
        return TaskFiles(folder, job.config, job.record, step, names=names)

    def words(self, row: dict[str, float]) -> str:
        shown = ", ".join(f"{s.title} {row[s.name]:.{s.digits}f}" for s in self.scores[:3])
        return f"held out: {shown}"


def train_task(
    request: TaskRequest, report: Reporter = silent
) -> tuple[tuple[TrainingOutcome, ...], Path]:
    """Fit a reference, or one for each fold; returns how they ended and the folder.

    Raises
    ------
    ConfigError, StoreError, TrainingError
        One sentence with the remedy.
    """
    kind = request.kind
    config = resolve(request)
    store = open_pairs(request.data)
    truth = Truth(store, request.truth)
    samples = labelled(store, request.split, kind, truth)
    folder = request.output or TASKS / request.task
    try:
        processes, device = join(request.device)
        if processes.count > 1:
            raise ConfigError("a reference is fitted by one process; leave torchrun out")
        images = seen_images(store, samples, request, device, config.train.seed, report)
        seen = list(zip(samples, images, strict=True))
        if not request.folds:
            held_out: list[tuple[Labelled, Any]] = []
            if "val" in store.split_names() and "val" not in request.split.split(","):
                with suppress(ConfigError):  # without any, the last step counts
                    others = labelled(store, "val", kind, truth)
                    held_out = list(
                        zip(others, [s.image(store) for s in others], strict=True)
                    )  # fmt: skip
            run = _Run(request, config, store, truth, seen, held_out, folder, None)
            return (run.train(processes, device, report),), folder
        if not request.resume and any(folder.glob(f"{FOLD}*/{RECORD_NAME}")):
            raise ConfigError(f"{folder} holds folds already: --resume, or another folder with -o")
        fold = folds_of({s.patient: s.label for s in samples}, request.folds, config.train.seed)
        ended = []
        for at in range(request.folds):
            parts: tuple[list[Any], list[Any]] = ([], [])
            for sample, image in seen:
                parts[fold[sample.patient] == at].append((sample, image))
            place = folder / f"{FOLD}{at + 1}"
            run = _Run(request, config, store, truth, *parts, place, (at + 1, request.folds))
            ended.append(run.train(processes, device, report))
            if ended[-1].state == "interrupted":
                break
        return tuple(ended), folder
    finally:
        leave()


@dataclass
class _Run:
    request: TaskRequest
    config: TrainConfig
    store: PairStore
    truth: Truth
    fitted: list[tuple[Labelled, Any]]
    held_out: list[tuple[Labelled, Any]]
    folder: Path
    fold: tuple[int, int] | None

    def train(
        self, processes: Processes, device: torch.device, report: Reporter
    ) -> TrainingOutcome:
        """One network, from its beginning or from where it stopped."""
        known = (self.folder / RECORD_NAME).is_file()
        if self.folder.exists() and not known and not only_begun(self.folder):
            raise ConfigError(
                f"{self.folder} is there and is no reference; name another folder with -o"
            )
        with alone(self.folder, RECORD_NAME):
            earlier = None
            if (self.folder / RECORD_NAME).is_file():
                earlier = read_record(self.folder)
                self._go_on(earlier)
            if earlier and earlier["state"] == "finished" and earlier["step"] >= earlier["steps"]:
                say(report, f"{self.folder} is finished.")
                return TrainingOutcome(
                    state="finished", step=earlier["step"], validation=(), best=earlier["best"]
                )
            job = self._job(earlier, processes, device, report)
            return run_training(job)

    def _go_on(self, earlier: Mapping[str, Any]) -> None:
        old = begun_config(self.folder, earlier, self.request.resume)
        if earlier["task"] != self.request.task:
            raise ConfigError(f"{self.folder} is a reference for {earlier['task']}")
        new = parse_config(merge(old.to_dict(), self.request.changes))
        changed = differences(old, new, FREE_TO_CHANGE - {"data.batch", "train.accumulate"})
        if self.request.words != earlier["images"]:
            changed.append(f"images were {earlier['images']}, not {self.request.words}")
        if earlier["store"]["content"] != self._content():
            changed.append("the store or its patients are others")
        if changed:
            raise ConfigError(
                f"--resume goes on with {self.folder} as it was, and {'; '.join(changed)}; start "
                "another one with -o"
            )
        self.config = new

    def _content(self) -> str:
        total = hashlib.blake2b(self.store.content_digest().encode(), digest_size=16)
        rows = np.array([(s.slide_index, s.row) for s, _ in self.fitted], "<i4")
        total.update(rows.tobytes())
        return total.hexdigest()

    def _job(
        self,
        earlier: Mapping[str, Any] | None,
        processes: Processes,
        device: torch.device,
        report: Reporter,
    ) -> TrainingJob:
        request, config, kind = self.request, self.config, self.request.kind
        classes = self._classes()
        samples = [sample for sample, _ in self.fitted]
        targets, _ = targets_of(kind, samples, self.truth, classes)
        chosen = self._spread(self.held_out, config.val.count)
        _, whole = targets_of(kind, [s for s, _ in chosen], self.truth, classes)
        # What a scale does not divide, or no patch holds, is missing at the bottom and right.
        labels = [
            found and replace(found, map=found.map[: image.shape[0], : image.shape[1]])
            for found, (_, image) in zip(whole, chosen, strict=True)
        ]
        held_out = Held(
            kind=kind,
            classes=classes,
            images=[image for _, image in chosen],
            labels=labels,
            names=[sample.label for sample, _ in chosen],
            radius_px=detection_radius_px(self.store),
        )
        model = build_network(
            kind.network, kind.channels(classes), config.model.settings, config.train.seed,
            config.model.preset,
        )  # fmt: skip
        state = None if earlier is None else earlier_state(self.folder, earlier["step"], report)
        where = f"fold {self.fold[0]} of {self.fold[1]}, " if self.fold else ""
        patients = sorted({sample.patient for sample in samples})
        say(
            report,
            f"{kind.name}: {where}{config.model.name}, {model.parameter_count:,} parameters; "
            f"{_count(samples)} ({request.words}) of {counted(len(patients), 'patient')}, "
            f"{len({s.patient for s, _ in self.held_out})} held out.",
        )
        with readable_faults(config):
            feed = TaskFeed([image for _, image in self.fitted], targets, config, device, processes)
        return TrainingJob(
            config=config,
            precision=choose_precision(config.train.precision, device, model.info),
            model=model,
            recipe=TaskRecipe(kind),
            feed=feed,
            samples={},
            record=self._record(model, classes, patients, processes, device, state),
            device=device,
            processes=processes,
            report=report,
            folder=self.folder,
            state=state,
            course=TaskCourse(held_out),
        )

    def _spread(self, items: list[Any], count: int) -> list[Any]:
        at = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round())
        return [items[int(k)] for k in at] if items else []

    def _classes(self) -> tuple[str, ...]:
        if isinstance(self.request.kind, Maps):
            return ()
        known = {s.label for s, _ in (*self.fitted, *self.held_out)}
        named: Any = self.store.attributes["manifest"].get("labels") or {}
        order = [name for name in named.get("classes", ()) if name in known]
        classes = (*order, *sorted(known - set(order)))
        if len(classes) < 2:
            raise ConfigError(f"{self.store.path}: all images are {classes[0]}; classes are two")
        return classes

    def _record(
        self,
        model: TaskModel,
        classes: tuple[str, ...],
        patients: list[str],
        processes: Processes,
        device: torch.device,
        state: Any,
    ) -> RunRecord:
        config, store = self.config, self.store
        slides = identities(store, sorted({s.slide for s, _ in self.fitted}), {})
        source = {
            "path": store.path.name,
            "digest": store.content_digest(),
            "manifest": str(store.attributes["manifest"].get("name", "")),
            "content": self._content(),
        }
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "task": self.request.task,
            "network": config.model.name,
            "settings": vars(model.settings),
            "classes": list(classes),
            "images": self.request.words,
            "fold": list(self.fold) if self.fold else None,
            **first_document(config, model, source, describe_environment(device, processes)),
            "best": None if state is None else state.scalars["best"],
            "patients": patients,
            "files": sorted({slide.fingerprint for slide in slides} - {""}),
            "samples": {"fitted": len(self.fitted), "held_out": len(self.held_out)},
        }
        return RunRecord(folder=self.folder, document=document, name=RECORD_NAME)


def _count(samples: list[Labelled]) -> str:
    whole = sum(sample.whole is not None for sample in samples)
    parts = {"whole images": whole, "patches": len(samples) - whole}
    return ", ".join(f"{count} {name}" for name, count in parts.items() if count)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
