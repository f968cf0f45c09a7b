"""Checks of splits: valid, complete, and without leaks between them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.arrays import BoolArray, Float64Array, Int32Array, Int64Array
from wsisr.errors import StoreError
from wsisr.store.findings import Finding, error, shorten, warning
from wsisr.store.layout import META
from wsisr.store.reader import PairStore
from wsisr.store.schema import KEPT
from wsisr.store.slide_view import SlideView
from wsisr.store.splits import by_slide, split_digest, splits_json

PAPER_RANDOM = "paper-random"


@dataclass(frozen=True, kw_only=True)
class SlideIdentity:
    """What ties a slide to others.

    Attributes
    ----------
    patient, group, fingerprint : str
        `group` is empty where none is known.
    splits : tuple of str
        In which splits its pairs are.
    patient_known, group_known : bool
        Whether the name stands for the same patient or glass in another store too. What is assumed
        of a slide is called like it, and slides of two hospitals may be called alike.
    """

    slide: str
    patient: str
    group: str
    fingerprint: str
    splits: tuple[str, ...]
    patient_known: bool = True
    group_known: bool = True

    def elsewhere(self, what: str) -> str:
        """What ties it to slides of another store: a value of ``"patient"``, ``"group"`` or
        ``"fingerprint"``, or the empty text."""
        known = {"patient": self.patient_known, "group": self.group_known}.get(what, True)
        return str(getattr(self, what)) if known else ""


def tie(what: str, value: str) -> str:
    """What two slides share, in words."""
    return "the same file" if what == "fingerprint" else f"{what} {value}"


def is_declared_leaky(store: PairStore) -> bool:
    """Whether the manifest splits patches at random, as some papers do (design 5)."""
    split = store.attributes["manifest"].get("split")
    kind = split.get("kind") if isinstance(split, dict) else split
    return kind == PAPER_RANDOM


def read_splits(store: PairStore) -> tuple[dict[str, Int32Array], list[Finding]]:
    """All splits that can be read, and what is wrong with them."""
    findings: list[Finding] = []
    names = store.split_names()
    if not names:
        text = "there are none: the build is not finished; run the same command again."
        return {}, [error("splits", text)]
    splits: dict[str, Int32Array] = {}
    digests: dict[str, str] = {}
    for name in names:
        try:
            rows = store.split(name)
        except StoreError as fault:
            findings.append(error("splits", str(fault), array=name))
            continue
        digests[name] = split_digest(store.paths.splits / name, rows)
        splits[name] = rows
    expected = {META, *(f"{name}/{META}" for name in names)}
    expected |= {f"{name}/c/0/0" for name, rows in splits.items() if len(rows)}
    if extra := sorted(set(store.paths.splits.sizes()) - expected):
        findings.append(error("files", f"not part of the splits: {shorten(extra)}."))
    if not findings and (store.paths.splits / META).get() != splits_json(digests):
        findings.append(error("splits", "they were changed since the build or wsisr keep."))
    return splits, findings


def check_splits(
    store: PairStore, readable: list[str], splits: Mapping[str, Int32Array]
) -> list[Finding]:
    """Indices are valid, and every kept pair is in exactly one split.

    Parameters
    ----------
    readable : list of str
        Slides whose attributes can be read.
    splits : mapping of str to ndarray, shape (m, 2), int
    """
    findings: list[Finding] = []
    slides = store.attributes["slides"]
    seen: dict[str, Int64Array] = {}
    for name in readable:
        try:
            seen[name] = np.zeros(len(store.slides[name].column(KEPT)), np.int64)
        except StoreError:
            continue  # `verify_slide` says what is wrong with it.
    for split, rows in splits.items():
        for index, members in by_slide(rows):
            slide = slides[index] if 0 <= index < len(slides) else ""
            if slide in store.slides and slide not in seen:
                continue  # `verify_slide` says what is wrong with it.
            if slide not in seen:
                what = f"slide {slide or index}, which is not in the store"
                findings.append(error("splits", f"it names {what}.", array=split))
            elif members.min() < 0 or members.max() >= len(seen[slide]):
                findings.append(error("splits", "rows beyond the slide's.", slide, split))
            else:
                np.add.at(seen[slide], members, 1)
                findings += _check_declared(store, slide, split)
    for slide, times in seen.items():
        kept = store.slides[slide].column(KEPT)
        for rows_, text in (
            (kept & (times == 0), "kept pairs are in no split"),
            (kept & (times > 1), "pairs are in more than one split"),
            (~kept & (times > 0), "pairs that are not kept are in a split"),
        ):
            if rows_.any():
                findings.append(error("splits", f"{int(rows_.sum())} {text}.", slide))
    return findings


def _check_declared(store: PairStore, slide: str, split: str) -> list[Finding]:
    declared = store.slides[slide].attributes.get("split")
    if declared is None or declared == split or is_declared_leaky(store):
        return []
    return [error("splits", f"pairs are in {split}, its slide is of {declared}.", slide, split)]


def identities(
    store: PairStore, readable: list[str], splits: Mapping[str, Int32Array]
) -> list[SlideIdentity]:
    """Identity of every readable slide, in the given order."""
    members: dict[int, set[str]] = defaultdict(set)
    for split, rows in splits.items():
        for index in np.unique(rows[:, 0]).tolist():
            members[index].add(split)
    found = []
    for slide in readable:
        attributes: Mapping[str, Any] = store.slides[slide].attributes
        found.append(
            SlideIdentity(
                slide=slide,
                patient=str(attributes.get("patient", "")),
                group=str(attributes.get("group") or ""),
                fingerprint=str(attributes.get("fingerprint", "")),
                splits=tuple(sorted(members[store.slide_index(slide)])),
                patient_known=attributes.get("patient_quality") != "assumed",
                group_known=_is_stated(slide, attributes),
            )
        )
    return found


def _is_stated(slide: str, attributes: Mapping[str, Any]) -> bool:
    """Whether the user's table named the glass; stores of older rules only tell names apart."""
    if "patient_source" in attributes:
        return "group" in attributes.get("overridden", ())
    return attributes.get("group") != slide


def check_identities(slides: list[SlideIdentity], *, declared: bool) -> list[Finding]:
    """No patient, group or file crosses splits, unless the manifest declares that patients do
    (`declared`); no file belongs to two patients."""
    findings: list[Finding] = []
    for what in ("patient", "group", "fingerprint"):
        groups: dict[str, list[SlideIdentity]] = defaultdict(list)
        for slide in slides:
            if value := getattr(slide, what):
                groups[value].append(slide)
        for value, members in sorted(groups.items()):
            names, name = shorten([m.slide for m in members]), tie(what, value)
            crossed = sorted({split for m in members for split in m.splits})
            if len(crossed) > 1 and not declared:
                text = f"{name} is in {' and '.join(crossed)}: {names}."
                check = "footprint" if what == "fingerprint" else "patients"
                findings.append(error(check, text))
            patients = sorted({m.patient for m in members})
            if what != "patient" and len(patients) > 1 and len(crossed) < 2:
                text = f"{name} belongs to patients {shorten(patients)}: {names}."
                findings.append(warning("patients", text))
    return findings


def check_patients(store: PairStore, readable: list[str]) -> list[Finding]:
    """Whether splits by patient rest on an assumption; stores of older rules do not say."""
    assumed = [
        slide
        for slide in readable
        if store.slides[slide].attributes.get("patient_quality") == "assumed"
    ]
    if not assumed or len(readable) < 2:
        return []
    text = (
        f"{len(assumed)} of {len(readable)} slides: nothing says whose they are, and one slide is "
        f"assumed to be one patient ({shorten(assumed)}); that no patient crosses splits rests on "
        "it."
    )
    return [warning("patients", text)]


def units_of(slides: list[SlideIdentity]) -> dict[str, str]:
    """Slides that are known to belong together: by patient, group or file, transitively."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for slide in slides:
        for what in ("patient", "group", "fingerprint"):
            if value := getattr(slide, what):
                parent[root(f"{what}:{value}")] = root(f"slide:{slide.slide}")
    return {slide.slide: root(f"slide:{slide.slide}") for slide in slides}


def measured_overlap(store: PairStore, splits: Mapping[str, Int32Array]) -> tuple[int, int]:
    """How many pairs of test overlap one of train on the same slide, and how many there are."""
    train, test = splits.get("train"), splits.get("test")
    if train is None or test is None:
        return 0, 0
    touched, learnt = 0, dict(by_slide(train))
    for index, rows in by_slide(test):
        boxes = footprints(store.slides[store.attributes["slides"][index]])
        touched += int(overlapping(boxes[rows], boxes[learnt.get(index, rows[:0])]).sum())
    return touched, len(test)


def footprints(view: SlideView) -> Float64Array:
    """What of its slide is stored with each patch, shape (n, 4): left, top, right, bottom.

    In level-0 px; of windows over the slide's own tiles, which are stored whole, in px of their
    level. Boxes of one slide compare.
    """
    for reader in view.windows().values():
        corners, side = reader.table.corners, reader.tile_shape[1]
        size = reader.shape[1]
        ends = -(-(corners + size) // side) * side
        return np.concatenate([corners // side * side, ends], axis=1).astype(np.float64)
    spec = view.spec(view.arrays[0])
    corners = np.stack((view.column("x"), view.column("y")), axis=1)
    return np.concatenate([corners, corners + spec.factor * spec.size_px], axis=1)


def overlapping(ours: Float64Array, theirs: Float64Array) -> BoolArray:
    """Which boxes (a, 4) share area with any of others, (b, 4); edges: left, top, right, bottom."""
    hit = np.zeros(len(ours), bool)
    if not len(theirs):
        return hit
    theirs = theirs[np.argsort(theirs[:, 0], kind="stable")]
    widest = float((theirs[:, 2] - theirs[:, 0]).max())
    low = np.searchsorted(theirs[:, 0], ours[:, 0] - widest, side="right")
    high = np.searchsorted(theirs[:, 0], ours[:, 2], side="left")
    for at in range(len(ours)):
        left, top, _, bottom = ours[at]
        near = theirs[low[at] : high[at]]
        near = near[(near[:, 2] > left) & (near[:, 1] < bottom) & (near[:, 3] > top)]
        hit[at] = len(near) > 0
    return hit
