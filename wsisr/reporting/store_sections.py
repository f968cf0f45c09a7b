"""Sections of a store's page that are read: what it is, funnel, splits, refusals, provenance."""

from collections import Counter
from typing import Any

import numpy as np

from wsisr.reporting.charts import Series, chart
from wsisr.reporting.page import (
    Html,
    badge,
    bullets,
    cards,
    code,
    details,
    figure,
    grid,
    heading,
    join,
    note,
    paragraph,
    table,
)
from wsisr.reporting.store_drawings import funnel_drawing
from wsisr.reporting.store_facts import StoreFacts, funnel_steps
from wsisr.store.places import Place
from wsisr.store.summarise import lr_lines
from wsisr.store.verify_splits import is_declared_leaky

STEP_WORDS = {
    "grid": "places of the grid",
    "candidates": "candidates",
    "scanned": "scanned, no pen",
    "tissue": "enough tissue",
    "label": "one class",
    "texture": "enough texture",
    "colour": "usual colour",
    "overlap": "no overlap",
    "read": "wanted and read",
    "inside": "in both scans",
    "whole": "wholly scanned",
    "off_seams": "off the seams of the stitching",
    "in_focus": "in focus in both scans",
    "registered": "registered",
    "accepted": "accepted",
    "kept": "kept",
}
ORIGIN_WORDS = {
    "rescan": "a second scan of the glass: real",
    "rescan-reduced": "a second scan's finer level, reduced by us",
    "cross-scanner": "a second scanner's picture at HR's own resolution",
    "stored-level": "a lower level of the same file",
    "reduced": "made from the finer level",
    "simulated": "simulated from HR",
}


def store_badges(facts: StoreFacts) -> Html:
    """What must be seen before all else."""
    words = [badge(" / ".join(reversed(facts.store.arrays)))]
    for array in facts.summary.arrays[1:]:
        words.append(badge(f"{array.name}: {' + '.join(array.origins)}"))
    if is_declared_leaky(facts.store):
        words.insert(0, badge("LEAKY: patches are split at random", "bad"))
    if not facts.splits:
        words.insert(0, badge("build not finished", "warn"))
    return join(words)


def overview(facts: StoreFacts) -> Html:
    """The first numbers, and the sentences that a user must not miss."""
    s = facts.summary
    ends = [f"{name} {len(rows):,}" for name, rows in _ordered(facts).items()]
    parts = [
        cards(
            {
                "pairs": s.kept,
                "slides": s.slides,
                "patients": s.patients,
                "slides not in it": s.planned - s.slides,
                "refused pairs": s.stored - s.kept,
                "on disk": _size(facts.store.paths.root),
            }
        ),
        table(
            ["array", "patch, px", "um/px", "origin", "what that means", "stored in the file"],
            [_array_row(facts, array) for array in s.arrays],
            numeric=(),
            caption="Magnifications, finest first",
        ),
    ]
    if ends:
        parts.append(paragraph("Splits: ", ", ".join(ends), "."))
    parts += _warnings(facts)
    return join(parts)


def _array_row(facts: StoreFacts, array: Any) -> list[object]:
    um = "–"
    if array.um_per_px:
        low, high = array.um_per_px
        um = f"{low:.4g}" if high - low < 1e-3 * high else f"{low:.4g} to {high:.4g}"
    finest = array.name == facts.store.arrays[0]
    kinds = [name.split(":", 1)[0] for name in array.origins]
    meaning = "the target" if finest else "; ".join(ORIGIN_WORDS[kind] for kind in kinds)
    native = f"{array.native} of {facts.summary.slides} slides"
    sizes = " / ".join(str(px) for px in array.sizes_px)
    return [array.name, sizes, um, ", ".join(array.origins), meaning, native]


def _warnings(facts: StoreFacts) -> list[Html]:
    found = []
    if is_declared_leaky(facts.store):
        found.append(
            note(
                _leak_words(facts),
                tone="bad",
                title="LEAKY, as the manifest declares.",
            )
        )
    else:
        crossing = _crossing_patients(facts)
        if crossing:
            found.append(
                note(
                    f"{len(crossing)} patients stand in more than one split: "
                    f"{', '.join(crossing[:8])}. Run wsisr verify.",
                    tone="bad",
                    title="Leak.",
                )
            )
    assumed = facts.summary.patient_sources.get("assumed", 0)
    if assumed and facts.summary.slides > 1:
        found.append(
            note(
                f"Nothing says whose {assumed} of {facts.summary.slides} slides are: one slide is "
                "assumed to be one patient, and the splits rest on it. Name patients with "
                "--mpp-override or --patient-from.",
                tone="warn",
                title="Patients are assumed.",
            )
        )
    mixed = [array.name for array in facts.summary.arrays[1:] if len(array.origins) > 1]
    if mixed:
        found.append(
            note(
                f"{', '.join(mixed)} has several origins, by slide. A model trained on it sees "
                "both; results should name them.",
                tone="warn",
                title="Mixed LR.",
            )
        )
    warned = sum(
        any(item.get("warning") for item in _used_evidence(attributes))
        for attributes in facts.attributes.values()
    )
    if warned:
        found.append(
            note(
                f"On {warned} of {facts.summary.slides} slides a stored level in use differs much "
                "from a reduction of level 0: decimated, recompressed or scanned on its own. See ",
                Html('<a href="#levels">Levels</a>'),
                ".",
                tone="warn",
                title="Level evidence.",
            )
        )
    flagged = lr_lines(facts.store)
    if flagged:
        found.append(note(bullets(flagged), tone="warn", title="Flagged LR."))
    known = [t for t in facts.warnings if not t.startswith("LEAKY") and t not in flagged]
    if known:
        found.append(note(bullets(known), tone="warn", title="The build warned."))
    return found


def _leak_words(facts: StoreFacts) -> str:
    stamp = dict(facts.store.attributes).get("leaky")
    words = "Patches, not patients, are divided: test pairs have neighbours in training. "
    if isinstance(stamp, dict) and stamp.get("test_pairs"):
        total, both = int(stamp["test_pairs"]), int(stamp.get("overlapping", 0))
        same = int(stamp.get("same_patient", 0))
        words += (
            f"Of {total:,} test pairs {both:,} ({100 * both / total:.1f} %) overlap a training "
            f"pair and {same:,} ({100 * same / total:.1f} %) are of a patient that is trained on. "
        )
    return words + "Results on it are no measure of new patients."


def _crossing_patients(facts: StoreFacts) -> list[str]:
    seen: dict[str, set[str]] = {}
    for split, rows in facts.splits.items():
        for slide in _slides_of(facts, rows):
            seen.setdefault(str(facts.attributes[slide]["patient"]), set()).add(split)
    return sorted(patient for patient, splits in seen.items() if len(splits) > 1)


def _slides_of(facts: StoreFacts, pairs: Any) -> list[str]:
    """Committed slides that a split draws on."""
    ids = facts.store.attributes["slides"]
    places = [index for index in np.unique(pairs[:, 0]).tolist() if 0 <= index < len(ids)]
    return [ids[index] for index in places if ids[index] in facts.attributes]


def funnel(facts: StoreFacts) -> Html:
    """From candidates to kept, for all slides and for each."""
    total = facts.summary.funnel
    if not total:
        return paragraph("The build recorded no funnel.")
    steps = funnel_steps(total)
    drawn = [(STEP_WORDS.get(step, step), total[step]) for step in steps]
    head = ["slide", *(STEP_WORDS.get(step, step) for step in steps)]
    rows = [
        [slide_id, *((attributes.get("funnel") or {}).get(step) for step in steps)]
        for slide_id, attributes in facts.attributes.items()
    ]
    s = facts.summary
    since = (
        f"The funnel is of the build. wsisr keep has decided anew since: {s.kept:,} of "
        f"{s.stored:,} stored pairs count, by the rule {s.keep_rule}."
    )
    return join(
        [
            note(since, tone="warn") if s.keep_rule else "",
            figure(
                funnel_drawing(drawn, title="From candidates to kept pairs", width_px=900.0),
                "funnel",
                "Pairs left after each step, over all slides; the pale part is what the step lost.",
                narrow=funnel_drawing(drawn, title="From candidates to kept", width_px=380.0),
            ),
            details(
                f"The same for each of {len(rows)} slides",
                table(head, rows, sortable=True, caption="Pairs left after each step, by slide"),
            ),
        ]
    )


def splits(facts: StoreFacts) -> Html:
    """Who is in which split."""
    if not facts.splits:
        return note("The build is not finished; run the same command again.", tone="warn")
    place = {
        (int(slide), int(row)): index
        for index, (slide, row) in enumerate(zip(facts.slide_of, facts.table["row"], strict=True))
    }
    labels = facts.labels
    counts: dict[str, Counter[str]] = {}
    rows, unknown = [], 0
    total = sum(len(pairs) for pairs in facts.splits.values()) or 1
    for name, pairs in _ordered(facts).items():
        slides = _slides_of(facts, pairs)
        patients = {str(facts.attributes[slide]["patient"]) for slide in slides}
        sites = Counter(str(facts.attributes[slide].get("site") or "") for slide in slides)
        found = [place.get((int(a), int(b))) for a, b in pairs.tolist()]
        counts[name] = Counter(labels[at] for at in found if at is not None)
        unknown += found.count(None)
        site_words = ", ".join(f"{site} {count}" for site, count in sorted(sites.items()) if site)
        share = f"{100 * len(pairs) / total:.1f} %"
        rows.append([name, len(pairs), share, len(slides), len(patients), site_words or "–"])
    by_split = table(
        ["split", "pairs", "share", "slides", "patients", "slides by site"],
        rows,
        numeric=(1, 2, 3, 4),
        caption="Kept pairs by split",
    )
    if unknown:
        fault = f"The splits name {unknown:,} pairs that the store does not hold; run wsisr verify."
        by_split = join([note(fault, tone="bad"), by_split])
    names = sorted({label for counted in counts.values() for label in counted if label})
    if not names:
        return by_split
    by_label = table(
        ["split", *names],
        [[split, *(counted[name] for name in names)] for split, counted in counts.items()],
        caption="Kept pairs by split and label",
    )
    series = [
        Series(name, list(counts), [counted[name] for counted in counts.values()], kind="bars")
        for name in names
    ]
    drawn = chart(
        series, title="Labels by split", x_label="", y_label="pairs", width_px=580, height_px=280
    )
    return grid(join([by_split, by_label]), figure(drawn, "labels by split"), width_px=460)


def refused(facts: StoreFacts) -> Html:
    """Slides and pairs that are not in the store, and why."""
    s = facts.summary
    parts: list[Html] = []
    if facts.failures:
        parts += [
            heading(f"{len(facts.failures)} slides gave nothing"),
            table(
                ["slide", "stage", "kind of fault", "why, and what to do"],
                [
                    [row.get("slide"), row.get("stage"), row.get("kind"), row.get("error")]
                    for row in facts.failures
                ],
                numeric=(),
                caption="From failures.csv",
            ),
        ]
    named = {row.get("slide") for row in facts.failures}
    missing = [
        name
        for name in facts.store.attributes["slides"]
        if name not in facts.store.slides and name not in named
    ]
    if missing:
        more = "" if len(missing) <= 40 else f" and {len(missing) - 40} more"
        parts.append(
            note(
                f"{len(missing)} planned slides are not in the store, and no failure is recorded: "
                f"{', '.join(missing[:40])}{more}. Run the same build again.",
                tone="warn",
            )
        )
    if s.stored > s.kept:
        parts.append(heading(f"{s.stored - s.kept:,} pairs are stored, but not kept"))
        if s.reasons:
            rows = [[word, count] for word, count in s.reasons.items()]
            parts.append(table(["reason", "pairs"], rows, caption="Why registration refused them"))
        rest = s.stored - s.kept - sum(s.reasons.values())
        if rest > 0:
            why = (
                f"by the rule {s.keep_rule}"
                if s.keep_rule
                else "because their levels do not fit together well enough"
            )
            parts.append(paragraph(f"{rest:,} were left out {why}."))
        parts.append(
            paragraph(
                "They stay in the store: decide anew, without reading a slide, with ",
                code(f'wsisr keep {facts.store.path.name} "{_example_rule(facts)}"'),
                ".",
            )
        )
    if not parts:
        return note("No slide failed and every stored pair is kept.", tone="good")
    return join(parts)


def _example_rule(facts: StoreFacts) -> str:
    """A rule over columns that this store has."""
    if "spread" in facts.table and "ncc_band" in facts.table:
        return "spread<0.25 and ncc_band>0.85"
    return "abs(residual_x)<0.5" if "residual_x" in facts.table else "tissue>0.9"


def _used_evidence(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    used = {level["index"] for level in attributes.get("levels") or [] if level.get("used")}
    return [item for item in attributes.get("evidence") or [] if item["level"] in used]


def _ordered(facts: StoreFacts) -> dict[str, Any]:
    """Splits in the order in which they are used."""
    order = {"train": 0, "val": 1, "test": 2}
    names = sorted(facts.splits, key=lambda name: (order.get(name, 3), name))
    return {name: facts.splits[name] for name in names}


def _size(place: Place) -> str:
    total = sum(place.sizes().values())
    for unit in ("B", "KB", "MB", "GB"):
        if total < 1000:
            return f"{total:.3g} {unit}"
        total = int(total / 1000) if total >= 1e5 else total / 1000  # type: ignore[assignment]
    return f"{total:,.3g} TB"
