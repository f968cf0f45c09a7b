"""The stamp of a data set whose split is not by patient, with what was measured of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.building.manifest import Manifest
from wsisr.selection.hashing import hash_draws, hash_key
from wsisr.store import PairStore
from wsisr.store.verify_splits import measured_overlap

Rows = NDArray[np.int32]


def leak_stamp(store: PairStore, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Root attribute `leaky` of a store with declared leaks.

    Parameters
    ----------
    store : PairStore
        With its slides committed.
    rows : mapping of split to ndarray, shape (m, 2)
        Index into the store's slides, row in that slide.

    Returns
    -------
    dict
        `test_pairs`; `overlapping`: how many of them share tissue with a training pair of the
        same slide; `same_patient`: how many are of a patient that is trained on.
    """
    overlapping, total = measured_overlap(store, rows)
    ids = store.attributes["slides"]
    patient = {s: str(store.slides[s].attributes["patient"]) for s in store.slides}
    trained = {patient[ids[i]] for i in np.unique(rows["train"][:, 0]).tolist()}
    shared = sum(patient[ids[i]] in trained for i in rows["test"][:, 0].tolist())
    return {"test_pairs": total, "overlapping": overlapping, "same_patient": shared}


def leak_sentence(stamp: Mapping[str, Any]) -> str:
    """The stamp for a person."""
    total = max(1, int(stamp["test_pairs"]))
    return (
        f"LEAKY, as the manifest declares: of {stamp['test_pairs']:,} test pairs "
        f"{stamp['overlapping']:,} ({100 * stamp['overlapping'] / total:.1f} %) overlap a training "
        f"pair and {stamp['same_patient']:,} ({100 * stamp['same_patient'] / total:.1f} %) are of "
        "a patient that is trained on. Results on it say nothing of new patients; use a "
        "manifest that splits by patient for those."
    )


def divide_test_sets(store: PairStore, rows: Rows, manifest: Manifest) -> list[list[list[int]]]:
    """The test pairs in disjoint sets of equal size (to one): root attribute `test_sets`.

    A seeded order of the pairs is dealt round, so that every set sees every test slide alike.

    Returns
    -------
    list of list of [slide index, row]
        Each set sorted; empty if the manifest asks for none.
    """
    count = manifest.split.test_sets
    if count is None:
        return []
    ids = store.attributes["slides"]
    keyed = []
    for index in np.unique(rows[:, 0]).tolist():
        own = rows[rows[:, 0] == index, 1]
        view = store.slides[ids[index]]
        key = hash_key("test-sets", manifest.seed, ids[index])
        draws = hash_draws(key, view.column("x")[own], view.column("y")[own])
        order = np.argsort(draws, kind="stable")
        keyed += [[int(index), int(own[i])] for i in order.tolist()]
    return [sorted(keyed[start::count]) for start in range(count)]
