"""Closing a build: splits, and a summary that a person reads first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np

from wsisr.arrays import BoolArray, Int32Array
from wsisr.building.manifest import Manifest
from wsisr.building.plan import SPLITS, resolved_quotas
from wsisr.building.state import Prepared
from wsisr.building.summary import (
    NOTHING,
    BuildSummary,
    Failure,
    not_tiled_sentences,
    summary_text,
    write_failures,
)
from wsisr.files import remove_partials, replace_file
from wsisr.progress import Reporter, silent
from wsisr.registration.factors import largest_field
from wsisr.selection.hashing import hash_draws, hash_key
from wsisr.selection.patients import PatientSource
from wsisr.slides.tiles import DAMAGE_WORDS
from wsisr.store import PairStore, StoreWriter, open_pairs
from wsisr.store.schema import funnel_steps
from wsisr.store.slide_view import SlideView
from wsisr.store.summarise import lr_lines, patient_sources


def finish_store(
    prepared: Prepared,
    failures: tuple[Failure, ...],
    writer: StoreWriter,
    report: Reporter = silent,
) -> BuildSummary:
    """Write the splits, the record and the summary of everything that is committed.

    Then the same tissue is looked for in two splits, which no name of a file would show.
    """
    path, manifest, layout = prepared.paths.root, prepared.manifest, prepared.layout
    committed = open_pairs(path)
    rows = split_rows(committed)
    writer.set_root(_declarations(committed, rows, manifest))
    writer.commit_splits(rows)
    store = open_pairs(path)
    failures = (*failures, *_empty_slides(store, manifest))
    warnings = (*_warnings(store, manifest, rows), *_same_tissue(store, rows, report))
    pairs = {str(name): len(rows[name]) for name in SPLITS}
    folder = prepared.paths.report
    folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / "slides"):
        remove_partials(place)
    text = summary_text(store, manifest, layout, pairs, failures, warnings)
    replace_file(folder / "summary.md", text.encode())
    write_failures(folder, failures, layout)
    return BuildSummary(
        store=path,
        report=folder,
        slides=len(store.slides),
        pairs=pairs,
        failures=failures,
        warnings=warnings,
    )


def _same_tissue(store: PairStore, rows: Mapping[str, Int32Array], report: Reporter) -> list[str]:
    """What leaks under other names; the pairs are written, so that no fault here costs them."""
    if sum(len(found) > 0 for found in rows.values()) < 2:
        return []
    from wsisr.store.verify import tissue_in_two_splits  # late: a build of one split needs none

    try:
        found = tissue_in_two_splits(store, rows, report)
    except Exception as error:
        return [
            "Whether the same tissue is in two splits could not be checked "
            f"({type(error).__name__}); run wsisr verify."
        ]
    if not found:
        return []
    more = f" (and {len(found) - 1} more pairs of slides, see wsisr verify)" if found[1:] else ""
    return [
        f"Leak between splits: {found[0]}{more}. Give such slides one patient or group "
        "(--mpp-override CSV) and build with --overwrite."
    ]


def _empty_slides(store: PairStore, manifest: Manifest) -> list[Failure]:
    """Committed slides that gave nothing, each with the rule that emptied it."""
    found = []
    for slide_id, view in store.slides.items():
        if not view.column("kept").any() and (reason := why_nothing(view, manifest)):
            path = str(view.attributes["source"])
            found.append(
                Failure(slide_id=slide_id, path=path, stage="select", kind=NOTHING, error=reason)
            )
    return found


def why_nothing(view: SlideView, manifest: Manifest) -> str:
    """The sentence for a committed slide without kept pairs; empty where nothing is wrong with
    it: its share of the quotas was none.

    Parameters
    ----------
    manifest : Manifest
        The store's.
    """
    attributes: Mapping[str, Any] = dict(view.attributes)
    funnel: dict[str, int] = attributes.get("funnel", {})
    steps = [(name, funnel[name]) for name in funnel_steps(funnel)]
    if not steps or funnel.get("kept", 0):
        return ""
    if steps[0][1] == 0:
        return (
            f"no field of {manifest.size} px at {manifest.hr} fits it; {_smaller(view, manifest)}."
        )
    before = steps[0][1]
    for name, count in steps:
        if count == 0:
            if name == "read":
                return ""
            return _emptied(name, before, view, manifest)
        before = count
    return ""


def _smaller(view: SlideView, manifest: Manifest) -> str:
    """The largest patch size that has a place at all, for a refusal of a larger one."""
    attributes: Mapping[str, Any] = dict(view.attributes)
    base, hr = attributes["levels"][0], view.spec(manifest.hr).factor
    step = ceil(max((manifest.scale_of(name) for name in manifest.lr), default=1))
    size = (base["width_px"], base["height_px"])
    second = attributes.get("hr_scan")
    if second is None:
        room = min(size) / hr - 2 * manifest.margin_px
    else:
        other = second["levels"][0]
        matrix = second["registration"]["matrix"]
        unit = max(1, round(step * hr))
        room = largest_field(matrix, size, (other["width_px"], other["height_px"]), unit) / hr
    largest = int(room + 1e-6) // step * step
    if largest <= 0:
        return "no smaller --size does either"
    where = "both scans hold" if second else "it holds"
    return f"the largest that {where} is {largest} px: choose that --size or a smaller one"


def _emptied(name: str, before: int, view: SlideView, manifest: Manifest) -> str:
    """The rule behind a step of the funnel that left none of `before` places."""
    attributes: Mapping[str, Any] = dict(view.attributes)
    tissue: Mapping[str, Any] = attributes.get("tissue", {})
    area = float(tissue.get("tissue_mm2", 0.0))
    if name == "scanned":
        return f"each of {before} fields has pixels that were never scanned, or lie under pen."
    if name == "tissue":
        blank = [flag for flag in tissue.get("flags", ()) if flag.startswith("no tissue")]
        if blank and not area:
            return f"{blank[0]}."
        more = "more than " if manifest.tissue.strict else ""
        return (
            f"none of {before} fields of {manifest.size} px is {more}"
            f"{100 * manifest.tissue.min_fraction:g} % tissue (tissue.min_fraction); the slide has "
            f"{area:.3g} mm2 of it: lower the share, or choose a smaller --size."
        )
    if name == "label":
        classes = ", ".join(manifest.labels.classes) or "a class"
        return (
            f"none of {before} fields is {100 * manifest.labels.min_fraction:g} % of one class "
            f"({classes}; labels.min_fraction): look at its annotation."
        )
    if name == "texture":
        least = manifest.filters.min_texture
        return f"none of {before} fields has a texture of {least:g} (filters.min_texture)."
    if name == "colour":
        limit = manifest.filters.rgb_outlier_sd or 0.0
        return f"each of {before} fields is over {limit:g} deviations off (filters.rgb_outlier_sd)."
    if name in ("registered", "accepted", "kept"):
        reasons = "; ".join(attributes.get("reasons", [])) or "their levels drift apart"
        return f"none of {before} pairs passed registration: {reasons}."
    if name == "inside":
        return (
            f"each of {before} places of {manifest.size} px at {manifest.hr} reaches beyond the "
            f"edge of the second scan: {_smaller(view, manifest)}, or scan the same area twice."
        )
    if name == "whole":
        return f"each of {before} places that were read has pixels that were never scanned."
    return f"none of {before} places was left by the rule {name!r}."


def _declarations(store: PairStore, rows: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """What the root says of the splits besides their rows."""
    found: dict[str, Any] = {}
    if manifest.split.kind == "paper-random":
        found["leaky"] = leak_stamp(store, rows)
    if manifest.split.test_sets is not None:
        found["test_sets"] = divide_test_sets(store, rows["test"], manifest)
    return found


def leak_stamp(store: PairStore, rows: Mapping[str, Int32Array]) -> dict[str, Any]:
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
    from wsisr.store.verify_splits import measured_overlap  # late: few manifests leak by design

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


def divide_test_sets(
    store: PairStore, rows: Int32Array, manifest: Manifest
) -> list[list[list[int]]]:
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
    drawn = {}
    for index in np.unique(rows[:, 0]).tolist():
        # Stores of the first rules drew by id.
        drawn[str(store.slides[ids[index]].attributes.get("draw_key", ids[index]))] = index
    keyed = []
    for name, index in sorted(drawn.items()):
        own = rows[rows[:, 0] == index, 1]
        view = store.slides[ids[index]]
        key = hash_key("test-sets", manifest.seed, name)
        draws = hash_draws(key, view.column("x")[own], view.column("y")[own])
        order = np.argsort(draws, kind="stable")
        keyed += [[int(index), int(own[i])] for i in order.tolist()]
    return [sorted(keyed[start::count]) for start in range(count)]


def split_rows(store: PairStore) -> dict[str, Any]:
    """Kept rows of every committed slide under the slide's split, or each under its own:
    arrays (m, 2) int32."""
    position = {slide_id: index for index, slide_id in enumerate(store.attributes["slides"])}
    rows: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in SPLITS}
    for slide_id in store.slides:
        kept = np.flatnonzero(store.slides[slide_id].column("kept"))
        pairs = np.stack([np.full(len(kept), position[slide_id]), kept], axis=1)
        for name in SPLITS:
            rows[name].append(pairs[_belongs(store, slide_id, name)[kept]].astype(np.int32))
    empty = np.empty((0, 2), np.int32)
    return {name: np.concatenate([empty, *parts]) for name, parts in rows.items()}


def _belongs(store: PairStore, slide_id: str, split: str) -> BoolArray:
    """Which stored patches of a slide are of a split, by the slide or by patch."""
    view = store.slides[slide_id]
    declared = view.attributes["split"]
    if declared is not None:
        return np.full(len(view), declared == split)
    mine: BoolArray = view.column("split") == SPLITS.index(split)  # type: ignore[arg-type]
    return mine


def _warnings(store: PairStore, manifest: Manifest, rows: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know before training on this."""
    notes = []
    leaky = dict(store.attributes).get("leaky")
    if isinstance(leaky, dict):
        notes.append(leak_sentence(leaky))
    short = []
    for split, counts in resolved_quotas(manifest).items():
        for name, wanted in counts.items():
            have = _count(store, split, name, manifest)
            if have < wanted:
                short.append(f"{split}/{name} {have:,} of {wanted:,}")
    if short:
        notes.append(f"Fewer pairs than the manifest wants: {', '.join(short)}.")
    notes += _outline_warnings(store)
    assumed = patient_sources(store).get(PatientSource.ASSUMED, 0)
    if assumed and len(store.slides) > 1:
        notes.append(
            f"Patients of {assumed} of {len(store.slides)} slides are assumed (one slide, one "
            "patient), and the splits rest on it."
        )
    empty = [name for name in SPLITS if not len(rows[name])]
    if empty and any(len(rows[name]) for name in SPLITS):
        notes.append(
            f"No pairs in {' and '.join(empty)}: there are too few patients, or their slides gave "
            "nothing."
        )
    notes += not_tiled_sentences(
        {slide_id: view.attributes.get("not_tiled", "") for slide_id, view in store.slides.items()}
    )
    damaged = [
        slide_id
        for slide_id, view in store.slides.items()
        if any(DAMAGE_WORDS in note for note in view.attributes.get("notes", []))
    ]
    if damaged:
        notes.append(
            f"Damaged tiles on {len(damaged)} slide(s), {damaged[0]} first: no patch lies on them "
            "(see the notes of the summary); copy these files again."
        )
    return (*notes, *lr_lines(store))


def _outline_warnings(store: PairStore) -> list[str]:
    """Annotations that label less than a person may think, over all slides."""
    unknown: Counter[str] = Counter()
    outside, silent = [], []
    for slide_id in store.slides:
        use = dict(store.slides[slide_id].attributes).get("outlines")
        if not isinstance(use, dict):
            continue
        unknown.update(use["unknown"])
        outside += [slide_id] if use["outside"] else []
        silent += [] if use["used"] else [slide_id]
    found = []
    if unknown:
        named = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common(5))
        found.append(f"Annotations of unknown classes label nothing: {named}.")
    if outside:
        found.append(f"Annotated areas outside of the slide: {_slides_named(outside)}.")
    if silent:
        found.append(f"Annotation files that label nothing: {_slides_named(silent)}.")
    return found


def _slides_named(slides: Sequence[str]) -> str:
    more = f" and {len(slides) - 3} more" if len(slides) > 3 else ""
    return f"{len(slides)} slide(s) ({', '.join(slides[:3])}{more})"


def _count(store: PairStore, split: str, name: str, manifest: Manifest) -> int:
    total = 0
    for slide_id in store.slides:
        view = store.slides[slide_id]
        mine = _belongs(store, slide_id, split) & view.column("kept")
        if name != "any":
            mine &= view.column("label") == manifest.labels.classes.index(name)
        total += int(mine.sum())
    return total
