"""The rows of a batch of images by one model; here, or by a process of its own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from torch import Tensor

from wsisr.device import choose_devices, release_memory
from wsisr.errors import ConfigError, ModelError, OutputError, StoreError
from wsisr.evaluation.columns import Sample, ScaleColumn, read_pair
from wsisr.evaluation.entries import HR_ITSELF, reference_of
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.plan import Plan, prepare
from wsisr.evaluation.results import ImageRow
from wsisr.evaluation.settings import EvalSettings
from wsisr.host import is_out_of_memory
from wsisr.inference.trained import TrainedModel
from wsisr.plugins import given, load_plugins
from wsisr.resize import resize, to_grey
from wsisr.runners import Outcome, ProcessRunner, Runner, Task, own_device

Batch = tuple[Sample, ...]


def runner_of(plan: Plan, given_runner: Runner | None) -> Runner | None:
    """Where batches are scored; None: in this process."""
    devices = choose_devices(plan.settings.device)
    if given_runner is None and len(devices) > 1:
        return ProcessRunner(workers=len(devices), devices=devices)
    return given_runner


def score_elsewhere(
    plan: Plan,
    runner: Runner,
    jobs: Sequence[tuple[TrainedModel, ScaleColumn, Batch]],
) -> Iterator[tuple[TrainedModel, ScaleColumn, Batch, Outcome]]:
    """Batches on other processes, in the order of the jobs: rows are the same whoever made them.

    An outcome's value is the rows and the words of `Engines.words`.

    Raises
    ------
    ConfigError
        Scores of a function that was handed over, which other processes do not have; references
        and what --plugin registers they open themselves.
    """
    if len(plan.scorer.tasks) > sum(len(judge.tasks()) for judge in plan.judges):
        raise ConfigError("Scores of one's own are computed on one device; give --device cpu.")
    settings = plan.settings
    tasks: list[Task] = [
        (str(n), (settings, given(), entry.name, column.key, batch))
        for n, (entry, column, batch) in enumerate(jobs)
    ]
    early: dict[int, Outcome] = {}
    turn = 0
    for outcome in runner(_score, tasks):
        early[int(outcome.key)] = outcome
        while turn in early:
            yield (*jobs[turn], early.pop(turn))
            turn += 1


def _score(
    settings: EvalSettings,
    plugins: tuple[str, ...],
    name: str,
    key: tuple[str, float],
    batch: Batch,
) -> tuple[list[ImageRow], Mapping[str, str]]:
    plan, engines = _opened(replace(settings, device=own_device("auto")), plugins)
    entry = next(entry for entry in plan.entries if entry.name == name)
    column = next(column for column in plan.columns if column.key == key)
    return score_batch(plan, engines, entry, column, batch), dict(engines.words)


@lru_cache(maxsize=1)
def _opened(settings: EvalSettings, plugins: tuple[str, ...]) -> tuple[Plan, Engines]:
    """Once a process; its models stay loaded as long as batches of them come."""
    load_plugins(plugins)
    plan = prepare(settings)
    return plan, Engines(plan)


def score_batch(
    plan: Plan, engines: Engines, entry: TrainedModel, column: ScaleColumn, batch: Sequence[Sample]
) -> list[ImageRow]:
    """The rows of some images by one model.

    Raises
    ------
    ModelError
        Memory runs out for one image.
    StoreError
        HR and LR do not belong together.
    """
    pair = read_pair(plan.store, column, batch, plan.settings.seed, plan.device)
    try:
        scores = _scores(plan, engines, entry, column, batch, pair)
    except (OutputError, RuntimeError, MemoryError) as error:
        failed = isinstance(error, OutputError)
        if not failed and not is_out_of_memory(error):
            raise
        if len(batch) > 1:
            release_memory(error)
            alone = (score_batch(plan, engines, entry, column, [sample]) for sample in batch)
            return [row for rows in alone for row in rows]
        if not failed:
            size = f"{pair[1].shape[-1]} x {pair[1].shape[-2]}"
            raise ModelError(
                f"{entry.name}: memory runs out for one image of {size} px; close other programs "
                "that use it, or run with --device cpu."
            ) from error
        # No number is its score: never what clamping would make of it.
        scores = [dict.fromkeys((score.name for score in plan.scorer.columns), math.nan)]
    key = plan.key(entry, column)
    return [
        ImageRow(
            slide=sample.slide,
            patient=sample.patient,
            group=sample.group,
            row=sample.row,
            label=sample.label,
            model=entry.model,
            run=entry.name,
            seed=entry.seed,
            scale=column.scale,
            origin=column.origin,
            in_range=entry.in_range(column.scale),
            trained_origin=entry.lr_origin or "",
            reference=reference_of(entry),
            key=key,
            scores=values,
        )
        for sample, values in zip(batch, scores, strict=True)
    ]


def _scores(
    plan: Plan,
    engines: Engines,
    entry: TrainedModel,
    column: ScaleColumn,
    batch: Sequence[Sample],
    pair: tuple[Tensor, Tensor],
) -> list[dict[str, float]]:
    """Scores of LR and HR. Nothing of HR but the LR reaches a network, unless it is an oracle."""
    (lr, hr), finer = pair, None
    kind = reference_of(entry)
    if kind == HR_ITSELF.model:
        return plan.scorer(hr.double() / 255.0, hr, column.scale, batch)
    if kind != "none":
        # Twice the LR side, made from HR: an upper bound, never a result.
        twice = (2 * int(lr.shape[-2]), 2 * int(lr.shape[-1]))
        same = twice == tuple(hr.shape[-2:])
        finer = hr if same else to_grey(resize(hr.float(), twice, kernel="matlab"))
        if kind == "oracle-updown":
            # CWT-Net's table III, "I_GT enlarged and reduced". Enlarging first would change almost
            # nothing (50.7 dB), too little for the printed loss of 5 dB: reduced first.
            half = (int(lr.shape[-2]), int(lr.shape[-1]))
            coarse = to_grey(resize(finer.float(), half, kernel="matlab"))
            finer = to_grey(resize(coarse.float(), twice, kernel="matlab"))
    sr = engines.predict(entry, column, lr, finer, samples=batch)
    if sr.shape != hr.shape:
        raise StoreError(
            f"{plan.store.path}: HR of {tuple(hr.shape[-2:])} px does not belong to LR of "
            f"{tuple(lr.shape[-2:])} px at {column.label}; run wsisr verify."
        )
    return plan.scorer(sr, hr, column.scale, batch)
