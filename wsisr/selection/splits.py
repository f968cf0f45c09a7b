"""Which slide goes to train, validation or test: by patient and glass, seeded, append-only.

Neighbouring patches are near-duplicates, and so are two scans of one glass or two blocks of
one patient. So what is drawn is a *unit*: all slides that are connected by a shared patient or a
shared group. Units are drawn before any pixel is read, and slides that were assigned before
never move.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import BoolArray, Float64Array, Int64Array, UInt64Array
from wsisr.errors import ManifestError
from wsisr.selection.hashing import hash_draws, hash_key, unit_interval

SPLITS = ("train", "val", "test")
VALIDATION_SHARE = 0.10
"""Share of the training units that validate (design 1)."""

MIN_PATIENTS = 3


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """Splits and what a person should know about them.

    Attributes
    ----------
    splits : dict of slide id to ``"train"``, ``"val"`` or ``"test"``
        In the order of slide ids.
    notes : tuple of str
        Warnings, in words.
    """

    splits: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Slides and what ties them together.

    Attributes
    ----------
    patients : mapping of slide id to patient
    groups : mapping of slide id to group
        Slides of the same glass; they stay together like those of one patient.
    sites : mapping of slide id to site, optional
        Stratifies: every site is divided in the same ratio.
    draws : mapping of patient to str
        What the draw of a patient hangs on in place of its name.
    """

    patients: Mapping[str, str]
    groups: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] | None = None
    draws: Mapping[str, str] = field(default_factory=dict)


def plan_splits(
    cohort: Cohort,
    fractions: Mapping[str, float],
    seed: int,
    existing: Mapping[str, str] | None = None,
    *,
    exact: bool | None = None,
) -> SplitPlan:
    """Assign every slide to a split.

    Parameters
    ----------
    fractions : mapping of split to weight
        E.g. ``{"train": 5, "test": 1}``; normalised. Without an entry ``"val"`` a tenth of the
        training units validates.
    seed : int
        The manifest's.
    existing : mapping of slide id to split, optional
        Earlier assignments. They are kept, and new slides of their units follow them.
    exact : bool, optional
        True: a seeded order is cut in the exact ratio. False: every unit's hash decides, which
        needs no memory of earlier ones. By default exact where the cohort has sites.

    Returns
    -------
    SplitPlan

    Raises
    ------
    ManifestError
        Unknown split names or weights, or a new slide that connects units which already lie
        in different splits.

    Notes
    -----
    With fewer than three units all go to train, with a note. With three or more, train and
    every split of positive weight gets at least one unit: the nearest in the seeded order.
    """
    weights = _checked_fractions(fractions)
    patients, sites = cohort.patients, cohort.sites
    units = _units(patients, cohort.groups)
    members: dict[str, list[str]] = {}
    for slide_id, unit in units.items():
        members.setdefault(unit, []).append(slide_id)
    fixed = _fixed_units(members, existing or {})
    notes: list[str] = []
    if len(members) < MIN_PATIENTS:
        notes.append(
            f"{len(members)} independent patient(s): fewer than {MIN_PATIENTS}, so all slides go "
            "to train and there is no validation or test set; add patients, or name splits in the "
            "table of --mpp-override."
        )
        chosen = {unit: fixed.get(unit, "train") for unit in members}
    else:
        texts = _draw_texts(patients, units, cohort.draws)
        draw = {unit: float(_draw(seed, texts[unit])) for unit in members}
        strata: dict[str, list[str]] = {}
        for unit, slide_ids in members.items():
            name = _majority([sites.get(s, "") for s in slide_ids]) if sites else ""
            strata.setdefault(name, []).append(unit)
        if exact if exact is not None else sites is not None:
            chosen = _exact_assignment(strata, draw, weights, fixed)
        else:
            chosen = _hash_assignment(members, draw, weights, fixed)
        chosen = _at_least_one(chosen, draw, weights, fixed)
    return SplitPlan(
        splits={slide_id: chosen[units[slide_id]] for slide_id in sorted(patients)},
        notes=tuple(notes),
    )


def patch_draws(slide_id: str, origins: Int64Array, seed: int) -> UInt64Array:
    """The draw of every patch of a slide for `paper-random`: a hash of its place."""
    return hash_draws(hash_key("paper-random", seed, slide_id), origins[:, 0], origins[:, 1])


def random_patch_splits(draws: UInt64Array, fractions: Mapping[str, float]) -> NDArray[np.str_]:
    """`paper-random`: patches are divided one by one, as MLCamSR and others do.

    Patches of one slide then stand on both sides (LEAKY; `verify_splits.measured_overlap`).

    Parameters
    ----------
    draws : ndarray of uint64, shape (n,)
        `patch_draws` of all patches of the data set, slides one after another in any order.
    fractions : mapping of split to weight
        The counts are exact to rounding.

    Returns
    -------
    ndarray of str, shape (n,)
    """
    weights = _checked_fractions(fractions)
    names, edges = _edges(weights)
    ends = np.rint(edges * len(draws)).astype(np.int64)
    ends[-1] = len(draws)
    result = np.empty(len(draws), f"<U{max(len(name) for name in names)}")
    order = np.argsort(draws, kind="stable")
    start = 0
    for name, end in zip(names, ends.tolist(), strict=True):
        result[order[start:end]] = name
        start = max(start, end)
    return result


def divide_patches(
    draws: UInt64Array,
    kept: BoolArray,
    counts: Mapping[str, int],
    fractions: Mapping[str, float],
) -> NDArray[np.str_]:
    """The splits of one slide's patches, when it is known which of them count.

    Parameters
    ----------
    draws : ndarray of uint64, shape (n,)
        `patch_draws`.
    kept : ndarray of bool, shape (n,)
        The lowest of their draws go to test, the next to val, as many as `counts` says, all
        others to train: with `random_patch_splits` over the patches of all slides before, that is
        its own result wherever no patch was replaced.
    counts : mapping of split to int
    fractions : mapping of split to weight
        Patches that do not count are divided by these, for the case that a rule counts them later.

    Returns
    -------
    ndarray of str, shape (n,)
    """
    names, edges = _edges(_checked_fractions(fractions))
    result = np.asarray(names, "<U5")[
        np.searchsorted(edges[:-1], unit_interval(draws), side="right")
    ]
    order = np.flatnonzero(kept)
    order = order[np.argsort(draws[order], kind="stable")]
    result[order] = "train"
    start = 0
    for name in ("test", "val"):
        result[order[start : start + counts.get(name, 0)]] = name
        start += counts.get(name, 0)
    return result


def _checked_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(fractions) - set(SPLITS))
    if unknown:
        raise ManifestError(f"Unknown split {unknown[0]!r}; there are {', '.join(SPLITS)}.")
    values = {name: float(fractions.get(name, 0.0)) for name in SPLITS}
    total = sum(values.values())
    if not np.isfinite(total) or min(values.values()) < 0 or values["train"] <= 0:
        raise ManifestError(
            f"Split weights {dict(fractions)} must be finite, not negative, and positive for train."
        )
    weights = {name: value / total for name, value in values.items()}
    if "val" not in fractions:
        weights["val"] = weights["train"] * VALIDATION_SHARE
        weights["train"] -= weights["val"]
    return weights


def _units(patients: Mapping[str, str], group: Mapping[str, str]) -> dict[str, str]:
    """Connect slides that share a patient or a group; name each unit by its first patient."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for slide_id, patient in patients.items():
        person = find(("patient", patient))
        if group.get(slide_id):
            glass = find(("group", group[slide_id]))
            parent[max(person, glass)] = min(person, glass)
    names: dict[tuple[str, str], str] = {}
    for patient in sorted(set(patients.values())):
        names.setdefault(find(("patient", patient)), patient)
    return {s: names[find(("patient", patient))] for s, patient in patients.items()}


def _draw_texts(
    patients: Mapping[str, str], units: Mapping[str, str], draws: Mapping[str, str]
) -> dict[str, str]:
    """What each unit's draw hangs on: the first text among its patients."""
    texts: dict[str, str] = {}
    for slide_id, patient in patients.items():
        text, unit = draws.get(patient, patient), units[slide_id]
        texts[unit] = min(texts.get(unit, text), text)
    return texts


def _fixed_units(members: Mapping[str, list[str]], existing: Mapping[str, str]) -> dict[str, str]:
    fixed: dict[str, str] = {}
    for unit, slide_ids in members.items():
        earlier = {s: existing[s] for s in sorted(slide_ids) if s in existing}
        if unknown := sorted(set(earlier.values()) - set(SPLITS)):
            raise ManifestError(f"Unknown split {unknown[0]!r}; there are {', '.join(SPLITS)}.")
        if len(set(earlier.values())) > 1:
            raise ManifestError(
                f"Patient or glass {unit!r} would connect slides that are already in different "
                f"splits ({', '.join(f'{s}: {v}' for s, v in earlier.items())}). Slides never "
                "move: leave the connecting slide out, or build a new store."
            )
        if earlier:
            fixed[unit] = next(iter(earlier.values()))
    return fixed


def _draw(seed: int, unit: str) -> float:
    return float(unit_interval(hash_draws(hash_key("split", seed, unit), [0]))[0])


def _edges(weights: Mapping[str, float]) -> tuple[list[str], Float64Array]:
    # Test first: the share that validates can change without moving a test unit.
    names = [name for name in ("test", "val", "train") if weights[name] > 0]
    return names, np.cumsum([weights[name] for name in names])


def _hash_assignment(
    members: Mapping[str, list[str]],
    draw: Mapping[str, float],
    weights: Mapping[str, float],
    fixed: Mapping[str, str],
) -> dict[str, str]:
    names, edges = _edges(weights)
    return {
        unit: fixed.get(unit, names[int(np.searchsorted(edges[:-1], draw[unit], side="right"))])
        for unit in members
    }


def _exact_assignment(
    strata: Mapping[str, list[str]],
    draw: Mapping[str, float],
    weights: Mapping[str, float],
    fixed: Mapping[str, str],
) -> dict[str, str]:
    """Cut the seeded order of every site in the asked ratio.

    What a site cannot divide (two units by 8:1:1) goes where the sites so far fall short, so that
    many small sites add up to the ratio as well.
    """
    names, _ = _edges(weights)
    chosen: dict[str, str] = {}
    given: Counter[str] = Counter()
    for stratum in sorted(strata):
        units = sorted(strata[stratum], key=lambda unit: (draw[unit], unit))
        here = Counter(fixed[unit] for unit in units if unit in fixed)
        quota = _quotas(len(units), weights, names, here, given)
        for unit in units:
            name = fixed.get(unit) or next(n for n in names if quota[n] > 0)
            if unit not in fixed:
                quota[name] -= 1
            given[name] += 1
            chosen[unit] = name
    return chosen


def _quotas(
    count: int,
    weights: Mapping[str, float],
    names: list[str],
    here: Mapping[str, int],
    given: Mapping[str, int],
) -> dict[str, int]:
    """How many new units of a site each split gets: whole shares first, then shortfalls."""
    quota = dict.fromkeys(names, 0)
    so_far = sum(given.values()) + count
    for _ in range(count - sum(here.values())):
        lacking = max(
            names,
            key=lambda n: (
                np.floor(weights[n] * count + 1e-9) > here.get(n, 0) + quota[n],
                round(weights[n] * so_far - given.get(n, 0) - here.get(n, 0) - quota[n], 9),
                n,
            ),
        )
        quota[lacking] += 1
    return quota


def _at_least_one(
    chosen: Mapping[str, str],
    draw: Mapping[str, float],
    weights: Mapping[str, float],
    fixed: Mapping[str, str],
) -> dict[str, str]:
    result = dict(chosen)
    names, edges = _edges(weights)
    for index, name in enumerate(names):
        if name in result.values():
            continue
        counts = Counter(result.values())
        spare = [u for u in result if u not in fixed and counts[result[u]] > 1]
        if not spare:
            continue
        middle = edges[index] - weights[name] / 2
        nearest = min(spare, key=lambda unit: (abs(draw[unit] - middle), unit))
        result[nearest] = name
    return result


def _majority(names: list[str]) -> str:
    counts = Counter(names)
    return min(counts, key=lambda name: (-counts[name], name))
