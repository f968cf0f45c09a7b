"""`verify`: is every byte of a store what was written, and do its splits not leak?"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from wsisr.arrays import Int32Array
from wsisr.errors import StoreError
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store.digests import root_digest
from wsisr.store.duplicates import SameTissue, find_same_tissue
from wsisr.store.features import (
    PATCH_BUDGET,
    SlideFeatures,
    common_resolution,
    describe_slide,
    field_um,
    sample_rows,
)
from wsisr.store.findings import Finding, error, shorten, warning
from wsisr.store.layout import META, SLIDES, SPLITS
from wsisr.store.metadata import group_document, to_json
from wsisr.store.object_files import LISTING, MARK
from wsisr.store.places import Address, Place
from wsisr.store.reader import PairStore, open_pairs
from wsisr.store.schema import KEPT
from wsisr.store.verify_slide import verify_slide
from wsisr.store.verify_splits import (
    SlideIdentity,
    check_identities,
    check_patients,
    check_splits,
    identities,
    is_declared_leaky,
    measured_overlap,
    read_splits,
    tie,
    units_of,
)

T = TypeVar("T")

THREADS = min(4, os.cpu_count() or 1)

FINISH_PATCHES = 10_000
"""Sampled patches over all slides in the check at the end of a build."""

CHOOSING = ("train", "val")
"""Splits that shape a model; none of their tissue may be in a test split."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What `verify_store` found.

    Attributes
    ----------
    slides, patches : int
        What was checked.
    findings : tuple of Finding
        Errors first.
    undecoded : int
        Slides whose own tiles were read and not decoded: their digests were not compared.
    """

    path: Path | Place
    slides: int
    patches: int
    findings: tuple[Finding, ...]
    undecoded: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings are allowed."""
        return not any(finding.severity == "error" for finding in self.findings)

    def text(self) -> str:
        """One line per finding and a verdict."""
        lines = [str(finding) for finding in self.findings]
        if self.undecoded:
            lines.append(
                f"The slide's own tiles of {self.undecoded} slide(s) were held against their "
                "checksums and not decoded; --deep compares what they decode to."
            )
        errors = sum(finding.severity == "error" for finding in self.findings)
        verdict = "no fault found" if self.ok else f"{errors} error{'s' * (errors > 1)}"
        lines.append(f"{self.path}: {self.slides} slides, {self.patches} patches: {verdict}.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def verify_store(
    path: Address,
    against: Address | None = None,
    *,
    deep: bool = True,
    decode: bool = False,
    duplicates: bool = True,
    reporter: Reporter = silent,
) -> VerifyReport:
    """Check a store completely.

    Parameters
    ----------
    against : path, URL or Place, or None
        A second store: no patient, group, file or tissue of its test split may be in this one's
        train or val split, nor the other way round.
    deep : bool
        Read every pixel: checksums of all chunks and digests of all patches. Without it only names,
        sizes, metadata and columns are checked.
    decode : bool
        With `deep`: also decode where HR is kept as the slide's own tiles (``--codec slide``).
        Without it the checksums of such streams are compared, and the report says so.
    duplicates : bool
        Look for the same tissue under different patients (reads a sample of patches).

    Raises
    ------
    StoreError
        If there is no readable store at all.
    """
    store = open_pairs(path)
    findings = _check_root(store)
    patches = 0
    readable: list[str] = []
    undecoded = 0

    def check(slide: str) -> list[Finding]:
        return verify_slide(store, slide, deep=deep, decode=decode)

    for slide, faults in _in_threads(check, list(store.slides), "verify", reporter):
        findings += faults
        # Where this fails, `verify_slide` has said what is wrong.
        with suppress(StoreError, KeyError, TypeError, ValueError):
            patches += len(store.slides[slide])
            readable.append(slide)
            undecoded += deep and not decode and bool(store.slides[slide].tiled)
    splits, faults = read_splits(store)
    findings += faults
    findings += check_splits(store, readable, splits)
    slides = identities(store, readable, splits)
    declared = is_declared_leaky(store)
    findings += check_identities(slides, declared=declared)
    findings += check_patients(store, readable)
    if declared:
        findings.append(_declared(store, splits))
    if duplicates:
        findings += _check_duplicates(store, slides, reporter)
    if against is not None:
        findings += _check_against(store, slides, open_pairs(against), duplicates, reporter)
    findings.sort(key=lambda finding: finding.severity != "error")
    return VerifyReport(
        path=store.path,
        slides=len(store.slides),
        patches=patches,
        findings=tuple(findings),
        undecoded=undecoded,
    )


def _check_root(store: PairStore) -> list[Finding]:
    findings: list[Finding] = []
    attributes = store.attributes
    expected = to_json(group_document(attributes))
    if root_digest(attributes) != attributes["digest"] or store.paths.meta.get() != expected:
        findings.append(error("metadata", f"the root's {META} was edited."))
    empty = to_json(group_document({}))
    slides = store.paths.slides
    if not (slides / META).exists() or (slides / META).get() != empty:
        findings.append(error("metadata", f"{SLIDES}/{META} is missing or was edited."))
    extra = sorted(set(store.paths.root.names()) - {META, SLIDES, SPLITS, LISTING, MARK})
    listed = set(attributes["slides"])
    for name in sorted(set(slides.names()) - {META}):
        if name not in listed:
            extra.append(f"{SLIDES}/{name}")
        elif not (slides / name / META).exists():
            findings.append(error("files", f"{META} is missing.", name))
    if extra:
        findings.append(error("files", f"not part of the store: {shorten(extra)}."))
    if missing := sorted(listed - set(store.slides)):
        text = f"{len(missing)} planned slides are not in it: {shorten(missing)}."
        findings.append(warning("counts", text))
    if attributes["slides"] != sorted(listed):
        findings.append(error("metadata", "the list of slides is not sorted and unique."))
    keep = attributes.get("keep")
    if keep and keep.get("state") != "complete":
        text = f"wsisr keep was interrupted: run it again with {keep.get('rule')!r}."
        findings.append(error("counts", text))
    elif keep:
        for slide, count in keep.get("kept", {}).items():
            if slide in store.slides:
                have = int(np.count_nonzero(store.slides[slide].column(KEPT)))
                if have != count:
                    text = f"the rule {keep['rule']!r} kept {count} pairs, the column {have}."
                    findings.append(error("counts", text, slide, KEPT))
    return findings


def _declared(store: PairStore, splits: dict[str, Int32Array]) -> Finding:
    touched, total = measured_overlap(store, splits)
    share = 100.0 * touched / total if total else 0.0
    return warning(
        "footprint",
        "LEAKY as declared: the manifest's split shares patients between training and test; "
        f"{touched} of {total} test patches ({share:.1f} %) overlap a training patch.",
    )


def _found_twice(
    slides: Mapping[str, tuple[PairStore, SlideIdentity]],
    units: Mapping[str, str],
    compared: int,
    reporter: Reporter,
) -> Iterator[tuple[SameTissue, SlideIdentity, SlideIdentity]]:
    """Slides of different units that show the same tissue, of those that can be read.

    Parameters
    ----------
    slides : mapping of str to (PairStore, SlideIdentity)
        By what messages call them.
    compared : int
        How many slides are taken to share the sampled patches.
    """
    fields = []
    for store, slide in slides.values():
        with suppress(StoreError):
            fields.append(field_um(store, slide.slide))
    if not fields:
        return
    um_per_px = common_resolution(fields)

    def describe(name: str) -> SlideFeatures | None:
        store, slide = slides[name]
        try:
            kept = np.flatnonzero(store.slides[slide.slide].column(KEPT))
            return describe_slide(store, slide.slide, sample_rows(kept, compared), um_per_px)
        except StoreError:
            return None  # Its pixels cannot be read; `verify_slide` has said so.

    described = _in_threads(describe, list(slides), "duplicates", reporter)
    features = {name: found for name, found in described if found is not None}
    for pair in find_same_tissue(features, units):
        yield pair, slides[pair.first][1], slides[pair.second][1]


def _in_threads(
    work: Callable[[str], T], names: Sequence[str], stage: str, reporter: Reporter
) -> Iterator[tuple[str, T]]:
    """Results in the order of the names; reading, hashing and OpenCV release Python's lock."""
    with ThreadPoolExecutor(THREADS) as pool:
        for done, (name, result) in enumerate(zip(names, pool.map(work, names), strict=True), 1):
            yield name, result
            reporter(
                ProgressEvent(stage=stage, done=done, total=len(names), unit="slide", item=name)
            )


def _check_duplicates(
    store: PairStore, slides: Sequence[SlideIdentity], reporter: Reporter
) -> list[Finding]:
    units = units_of(list(slides))
    if len(set(units.values())) < 2:
        return []
    named = {slide.slide: (store, slide) for slide in slides}
    findings = []
    for pair, one, two in _found_twice(named, units, len(slides), reporter):
        splits = sorted({*one.splits, *two.splits})
        text = _same_tissue(pair, f"patients {one.patient} and {two.patient}")
        if len(splits) > 1 and not is_declared_leaky(store):
            findings.append(error("duplicates", f"{text}, in {' and '.join(splits)}."))
        else:
            findings.append(
                warning("duplicates", f"{text}. Give them one patient or group (override CSV).")
            )
    return findings


def tissue_in_two_splits(
    store: PairStore, splits: Mapping[str, Int32Array], reporter: Reporter = silent
) -> list[str]:
    """The duplicate check alone, between slides of different splits, for the end of a build.

    Beyond a hundred slides it samples fewer patches of each than `verify_store` does, about
    10,000 in all (16 of every slide at the least), so that a build of many slides ends soon; what
    it does not find is not proven to be absent.

    Parameters
    ----------
    splits : mapping of split to ndarray, shape (m, 2), int
        Index into the store's slides, row in that slide.

    Returns
    -------
    list of str
        A sentence for each pair of slides; empty where the manifest declares its leaks.
    """
    slides = [s for s in identities(store, list(store.slides), splits) if len(s.splits) == 1]
    if is_declared_leaky(store) or len({slide.splits for slide in slides}) < 2:
        return []
    named = {slide.slide: (store, slide) for slide in slides}
    units = {slide.slide: slide.splits[0] for slide in slides}
    compared = len(slides) * PATCH_BUDGET // FINISH_PATCHES
    return [
        f"{_same_tissue(pair, f'patients {one.patient} and {two.patient}')}, in {one.splits[0]} "
        f"and {two.splits[0]}"
        for pair, one, two in _found_twice(named, units, compared, reporter)
    ]


def _same_tissue(pair: SameTissue, who: str) -> str:
    turned = f", turned {pair.rotation_deg:.0f} deg" if abs(pair.rotation_deg) > 5 else ""
    mirror = ", mirrored" if pair.mirrored else ""
    return (
        f"{pair.first} and {pair.second} show the same tissue ({pair.patch_pairs} patch pairs, "
        f"correlation {pair.ncc:.2f}{turned}{mirror}; {who})"
    )


def _check_against(
    store: PairStore,
    slides: Sequence[SlideIdentity],
    other: PairStore,
    duplicates: bool,
    reporter: Reporter,
) -> list[Finding]:
    """Leaks between two stores: what one learns from must not be in the other's test split."""
    splits, faults = read_splits(other)
    if faults:
        raise StoreError(f"{other.path}: {faults[0].text} Run wsisr verify on it first.")
    theirs = identities(other, list(other.slides), splits)
    findings: list[Finding] = _check_keys(store, other)
    findings += _check_assumed(slides, theirs, other.path.name, duplicates)
    for what in ("patient", "group", "fingerprint"):
        table: dict[str, list[SlideIdentity]] = defaultdict(list)
        for slide in theirs:
            table[slide.elsewhere(what)].append(slide)
        for slide in slides:
            value = slide.elsewhere(what)
            for match in table[value] if value else ():
                text = f"{tie(what, value)}: {slide.slide} here, {match.slide} in {other.path.name}"
                findings.append(_crossing(text, slide, match, other.path.name))
    if not duplicates:
        return findings
    named = {f"A:{slide.slide}": (store, slide) for slide in slides}
    named |= {f"B:{slide.slide}": (other, slide) for slide in theirs}
    units = {name: name[0] for name in named}
    for pair, one, two in _found_twice(named, units, len(named), reporter):
        if one.fingerprint == two.fingerprint:
            continue
        text = _same_tissue(pair, f"A is {store.path.name}, B is {other.path.name}")
        findings.append(_crossing(text, one, two, other.path.name))
    return findings


def _check_keys(store: PairStore, other: PairStore) -> list[Finding]:
    """Pseudonyms of different keys are never equal: comparing them proves nothing."""
    keys = [dict(s.attributes).get("pseudonyms", {}) for s in (store, other)]
    ours, theirs = (key.get("key") if isinstance(key, dict) else None for key in keys)
    if ours == theirs:
        return []
    text = (
        f"pseudonyms of patients here and in {other.path.name} were made with different keys, or "
        "in one of them alone: whether they share such patients cannot be told. Build both with "
        "one --patient-key."
    )
    return [warning("patients", text)]


def _check_assumed(
    ours: Sequence[SlideIdentity], theirs: Sequence[SlideIdentity], other: str, tissue: bool
) -> list[Finding]:
    """Of whom nobody is known no name was compared: what was compared is said."""
    here, there = (sum(not slide.patient_known for slide in side) for side in (ours, theirs))
    if not here and not there:
        return []
    how = "by their files and their tissue" if tissue else "by their files"
    text = (
        f"patients of {here} of {len(ours)} slides here and {there} of {len(theirs)} in {other} "
        f"are assumed: such slides were compared {how}, not by names, which mean nothing there."
    )
    return [warning("patients", text)]


def _crossing(text: str, one: SlideIdentity, two: SlideIdentity, other: str) -> Finding:
    ours, theirs = " and ".join(one.splits) or "none", " and ".join(two.splits) or "none"
    text = f"{text} ({ours} here, {theirs} in {other})."
    leak = ("test" in two.splits and set(one.splits) & set(CHOOSING)) or (
        "test" in one.splits and set(two.splits) & set(CHOOSING)
    )
    return error("patients", text) if leak else warning("patients", text)
