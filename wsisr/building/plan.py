"""What each slide gives to a data set: splits and quotas, pure, before any pixel is extracted.

Nothing here depends on the order of files or on who ran the scan; slides that a store holds
already keep their split, and what they gave counts against the quotas.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import BoolArray, Int64Array, UInt64Array
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import ScanRecord
from wsisr.errors import ManifestError
from wsisr.selection.hashing import hash_key
from wsisr.selection.patients import own_patient
from wsisr.selection.splits import (
    VALIDATION_SHARE,
    Cohort,
    divide_patches,
    patch_draws,
    plan_splits,
    random_patch_splits,
)

ANY = "any"
SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class SlideShare:
    """What one slide is asked for.

    Attributes
    ----------
    split : str
        Empty where its patches are divided one by one.
    wanted : dict of str to int, or None
        Pairs to keep per class name (or `any`); None: all that pass the rules.
    by_patch : dict of str to int, or None
        How many of its pairs each split gets, where patches are divided one by one.
    """

    slide_id: str
    split: str
    wanted: dict[str, int] | None = None
    by_patch: dict[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Shares by slide id, and what a person should know."""

    shares: dict[str, SlideShare]
    warnings: tuple[str, ...] = ()


def decide_splits(
    tasks: Sequence[SlideTask], manifest: Manifest, existing: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Slide id -> split for every planned slide, failed ones included, and warnings.

    Official splits (of the source's layout) count where the manifest says `official`; a tenth of
    the official training patients validates, unless the source names a validation set itself. A
    split in the override table always counts. Where patches are divided one by one, no slide
    has a split: it is the empty text.
    """
    if divides_patches(manifest):
        return {task.slide_id: "" for task in tasks}, ()
    official = manifest.split.kind == "official" or manifest.split.official
    if manifest.split.official:
        # Declared leaky: an image counts by itself, whatever patient it is of.
        tasks = [
            replace(
                task, patient=own_patient(task.slide_id, draw=task.draw_key), group=task.slide_id
            )
            for task in tasks
        ]
    validated = official and any(task.split == "val" for task in tasks)
    kept = ("train", "val", "test") if validated else ("val", "test")
    fixed = dict(existing)
    for task in tasks:
        if task.split_is_override or (official and task.split in kept):
            fixed.setdefault(task.slide_id, task.split)
    _refuse_straddling(tasks, fixed)
    is_training = [official and t.split == "train" and not t.split_is_override for t in tasks]
    training = [t for t, yes in zip(tasks, is_training, strict=True) if yes]
    rest = [t for t, yes in zip(tasks, is_training, strict=True) if not yes]
    splits: dict[str, str] = {}
    notes: list[str] = []
    weights: dict[str, float] = {str(name): w for name, w in manifest.split.weights.items()}
    for members, shares in ((training, {"train": 1.0}), (rest, weights)):
        known = {t.slide_id: fixed[t.slide_id] for t in members if t.slide_id in fixed}
        if len(known) == len(members):
            splits.update(known)
            continue
        cohort = Cohort(
            patients={t.slide_id: t.patient.name for t in members},
            groups={t.slide_id: t.group for t in members},
            sites={t.slide_id: t.site for t in members} if manifest.split.stratify else None,
            draws={t.patient.name: t.patient.draw for t in members},
        )
        exact = True if manifest.split.exact else None
        plan = plan_splits(cohort, shares, manifest.seed, known, exact=exact)
        splits.update(plan.splits)
        notes.extend(plan.notes)
    _refuse_straddling(tasks, splits)
    return {t.slide_id: splits[t.slide_id] for t in tasks}, tuple(notes)


def _refuse_straddling(tasks: Sequence[SlideTask], splits: Mapping[str, str]) -> None:
    """A user's or an official split may not tear a patient or a glass apart."""
    for what in ("patient", "group"):
        seen: dict[str, SlideTask] = {}
        for task in tasks:
            if task.slide_id not in splits:
                continue
            key = task.patient.name if what == "patient" else task.group
            first = seen.setdefault(key, task)
            a, b = splits[first.slide_id], splits[task.slide_id]
            if a != b:
                raise ManifestError(
                    f"{what} {key!r} would lie in two splits: {first.slide_id} in {a}, "
                    f"{task.slide_id} in {b}. Give them one split (--mpp-override CSV, column "
                    "split), or leave one out."
                )


def plan_build(
    records: Mapping[str, ScanRecord],
    splits: Mapping[str, str],
    manifest: Manifest,
    patients: Mapping[str, str],
    kept_before: Mapping[str, Mapping[str, int]] | None = None,
) -> BuildPlan:
    """Divide the quotas among the slides.

    Parameters
    ----------
    records : mapping of slide id to ScanRecord
        Slides still to be extracted.
    splits : mapping of slide id to split
    patients : mapping of slide id to patient
    kept_before : mapping of split to mapping of class to count, optional
        What the store holds already.

    Returns
    -------
    BuildPlan
        A quota is spread as evenly as the candidates of its slides allow; where there are too
        few, a warning says how many.
    """
    if divides_patches(manifest):
        return _plan_by_patch(records, manifest, patients, kept_before or {})
    quotas = resolved_quotas(manifest)
    limits = slide_limits(records, patients, manifest)
    if not quotas:
        shares = {
            slide_id: SlideShare(
                slide_id=slide_id,
                split=splits[slide_id],
                wanted=None if limits[slide_id] is None else {ANY: limits[slide_id] or 0},
            )
            for slide_id in sorted(records)
        }
        return BuildPlan(shares=shares)
    keys = _keys(records)
    wanted: dict[str, dict[str, int]] = {slide_id: {} for slide_id in sorted(records)}
    short: list[str] = []
    for split, counts in quotas.items():
        members = [slide_id for slide_id in sorted(records) if splits[slide_id] == split]
        supplies = {s: _supplies(records[s], manifest, list(counts), limits[s]) for s in members}
        lacking = _lacking(counts, (kept_before or {}).get(split, {}))
        spread, few = _spread(supplies, lacking, manifest.seed, keys)
        wanted |= spread
        short += [f"{split}/{text}" for text in few]
    shares = {
        slide_id: SlideShare(slide_id=slide_id, split=splits[slide_id], wanted=wanted[slide_id])
        for slide_id in sorted(records)
    }
    return BuildPlan(shares=shares, warnings=_shortage(short, len(records)))


def _lacking(counts: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
    """How many pairs of each class are still to be found."""
    return {name: max(0, total - kept.get(name, 0)) for name, total in counts.items()}


def _spread(
    supplies: Mapping[str, Mapping[str, int]],
    lacking: Mapping[str, int],
    seed: int,
    keys: Mapping[str, str],
) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Each slide's share of what lacks, as even as supplies allow; and what there is too few of."""
    wanted: dict[str, dict[str, int]] = {slide_id: {} for slide_id in supplies}
    short = []
    for name, missing in lacking.items():
        supply = {slide_id: counts[name] for slide_id, counts in supplies.items()}
        share = fill_evenly(supply, missing, seed, keys)
        for slide_id, count in share.items():
            wanted[slide_id][name] = count
        if sum(share.values()) < missing:
            short.append(f"{name} {sum(supply.values()):,} of {missing:,}")
    return wanted, short


def _shortage(short: Sequence[str], slides: int) -> tuple[str, ...]:
    """One sentence for all quotas that the candidates do not fill."""
    if not short:
        return ()
    return (
        f"The manifest wants more pairs than there are candidates on {slides} slide(s), so the set "
        f"will be smaller ({', '.join(short)}); --scale-counts asks for less.",
    )


def _keys(records: Mapping[str, ScanRecord]) -> dict[str, str]:
    """Slide id -> what its draws hang on."""
    return {slide_id: record.draw_key for slide_id, record in records.items()}


def divides_patches(manifest: Manifest) -> bool:
    """Whether patches are divided one by one, so that slides belong to no split."""
    return manifest.split.kind == "paper-random" and not manifest.split.official


def _plan_by_patch(
    records: Mapping[str, ScanRecord],
    manifest: Manifest,
    patients: Mapping[str, str],
    kept_before: Mapping[str, Mapping[str, int]],
) -> BuildPlan:
    """Quotas of all splits together over all slides; then every planned patch draws its split."""
    quotas = resolved_quotas(manifest)
    limits = slide_limits(records, patients, manifest)
    names = sorted({name for counts in quotas.values() for name in counts})
    slides, keys = sorted(records), _keys(records)
    supplies = {s: _supplies(records[s], manifest, names, limits[s]) for s in slides}
    totals = {name: sum(counts.get(name, 0) for counts in quotas.values()) for name in names}
    lacking = _lacking(totals, kept_before.get("", {}))
    wanted, short = _spread(supplies, lacking, manifest.seed, keys)
    everything = {s: None if limits[s] is None else {ANY: limits[s] or 0} for s in slides}
    shares = {s: wanted[s] if quotas else everything[s] for s in slides}
    draws = [_planned_draws(records[s], shares[s], manifest) for s in slides]
    splits = random_patch_splits(
        np.concatenate([np.empty(0, np.uint64), *draws]), patch_weights(manifest)
    )
    plan: dict[str, SlideShare] = {}
    start = 0
    for slide_id, own in zip(slides, draws, strict=True):
        here = Counter(splits[start : start + len(own)].tolist())
        start += len(own)
        plan[slide_id] = SlideShare(
            slide_id=slide_id,
            split="",
            wanted=shares[slide_id],
            by_patch={str(name): here[name] for name in SPLITS},
        )
    return BuildPlan(shares=plan, warnings=_shortage(short, len(slides)))


def patch_weights(manifest: Manifest) -> dict[str, float]:
    """In which shares patches are divided: the quotas', else the manifest's weights."""
    quotas = resolved_quotas(manifest)
    if quotas:
        return {name: float(sum(counts.values())) for name, counts in quotas.items()}
    return {str(name): weight for name, weight in manifest.split.weights.items()}


def _planned_draws(
    record: ScanRecord, wanted: Mapping[str, int] | None, manifest: Manifest
) -> UInt64Array:
    """The draws of the patches that a slide gives if every one of its best candidates is good."""
    labels = np.asarray(record.candidates.label, np.int64)
    names = manifest.labels.classes
    chosen = np.ones(len(labels), np.bool_)
    if wanted is not None:
        chosen[:] = False
        for name, count in wanted.items():
            fits = np.arange(len(labels))
            if name != ANY:
                fits = np.flatnonzero(labels == names.index(name))
            chosen[fits[:count]] = True
    return patch_draws(record.draw_key, record.candidates.origins()[chosen], manifest.seed)


def patch_numbers(
    draw_key: str,
    origins: Int64Array,
    kept: BoolArray,
    counts: Mapping[str, int],
    manifest: Manifest,
) -> NDArray[np.int8]:
    """The split of every stored patch of a slide, as an index into `SPLITS`."""
    draws = patch_draws(draw_key, origins, manifest.seed)
    names = divide_patches(draws, kept, counts, patch_weights(manifest))
    return np.array([SPLITS.index(name) for name in names.tolist()], np.int8)


def slide_limits(
    records: Mapping[str, ScanRecord], patients: Mapping[str, str], manifest: Manifest
) -> dict[str, int | None]:
    """Most pairs that each slide may give under the manifest's caps; None: no cap."""
    sampling = manifest.sampling
    if sampling.max_per_slide is None and sampling.max_per_patient is None:
        return dict.fromkeys(records)
    limits = {
        slide_id: min(len(record.candidates), sampling.max_per_slide or len(record.candidates))
        for slide_id, record in records.items()
    }
    if sampling.max_per_patient is not None:
        keys = _keys(records)
        for patient in sorted({patients[slide_id] for slide_id in records}):
            own = {s: limits[s] for s in records if patients[s] == patient}
            limits.update(fill_evenly(own, sampling.max_per_patient, manifest.seed, keys))
    return dict(limits)


def resolved_quotas(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Quotas per split; without one for `val`, a tenth of the training quota is its."""
    quotas: dict[str, dict[str, int]] = {
        str(split): manifest.quotas[split].counts for split in SPLITS if split in manifest.quotas
    }
    if "train" in quotas and "val" not in quotas:
        val = {name: round(count * VALIDATION_SHARE) for name, count in quotas["train"].items()}
        quotas["train"] = {name: count - val[name] for name, count in quotas["train"].items()}
        quotas["val"] = val
    return quotas


def _supplies(
    record: ScanRecord, manifest: Manifest, names: Sequence[str], limit: int | None
) -> dict[str, int]:
    """Candidates per wanted class, a slide's cap divided among its classes."""
    labels = Counter(record.candidates.label)
    have = {
        name: len(record.candidates) if name == ANY else labels[manifest.labels.classes.index(name)]
        for name in names
    }
    return have if limit is None else fill_evenly(have, limit, manifest.seed)


def fill_evenly(
    supply: Mapping[str, int], total: int, seed: int, keys: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Divide `total` as evenly as supplies allow; the remainder goes in a seeded order of `keys`
    (by default of the names themselves).

    >>> fill_evenly({"a": 1, "b": 10, "c": 10}, 9, 0)
    {'a': 1, 'b': 4, 'c': 4}
    """
    names = {s: s for s in supply} | dict(keys or {})
    share = dict.fromkeys(sorted(supply), 0)
    left = min(total, sum(supply.values()))
    open_slides = [s for s in share if supply[s] > 0]
    while left and open_slides:
        each = left // len(open_slides)
        if each == 0:
            order = sorted(open_slides, key=lambda s: hash_key("quota", seed, names[s]))
            for slide_id in order[:left]:
                share[slide_id] += 1
            break
        for slide_id in open_slides:
            step = min(each, supply[slide_id] - share[slide_id])
            share[slide_id] += step
            left -= step
        open_slides = [s for s in open_slides if share[s] < supply[s]]
    return share
