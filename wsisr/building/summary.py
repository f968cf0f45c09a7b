"""What a build tells a person: its last lines, `summary.md` and `failures.csv`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsisr.building.layout import Layout
from wsisr.building.manifest import Manifest
from wsisr.files import replace_file
from wsisr.selection.patients import WORDS
from wsisr.store import PairStore
from wsisr.store.layout import StorePaths
from wsisr.store.schema import FUNNEL_WORDS, funnel_steps
from wsisr.store.summarise import overrides_of, patient_sources
from wsisr.tables import csv_lines, markdown_cell, markdown_table
from wsisr.words import counted

NOTHING = "Nothing"
"""Kind of failure of a slide that was read and gave no pair."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One slide that gave nothing, and why."""

    slide_id: str
    path: str
    stage: str
    kind: str
    error: str
    trace: str = ""


@dataclass(frozen=True, kw_only=True)
class BuildSummary:
    """What a finished build holds.

    Attributes
    ----------
    store, report : Path
        The store, and the folder with `summary.md`, `failures.csv` and the pictures.
    slides : int
        Slides in the store.
    pairs : dict of str to int
        Kept pairs per split.
    """

    store: Path
    report: Path
    slides: int
    pairs: dict[str, int]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some slides failed or gave nothing, 2 no pairs at all."""
        if not sum(self.pairs.values()):
            return 2
        return 1 if self.failures else 0

    def text(self) -> str:
        """The last lines of a build; the very last says what to do next, or why nothing came."""
        table = self.report / "failures.csv"
        if not self.slides:
            return f"No slide could be used, so no store was made ({table}). {self._first()}"
        counts = ", ".join(f"{name} {count:,}" for name, count in self.pairs.items())
        total = sum(self.pairs.values())
        made = f"{counted(total, 'pair')} ({counts}) from {counted(self.slides, 'slide')}"
        lines = [f"{self.store}: {made}."]
        lines += [f"Warning: {text}" for text in self.warnings]
        for kind, what in ((False, "failed"), (True, "gave nothing")):
            if count := sum((f.kind == NOTHING) is kind for f in self.failures):
                lines.append(f"{count} slide{'' if count == 1 else 's'} {what}: {table}")
        lines.append(f"Summary: {self.report / 'summary.md'}")
        if total:
            lines.append(f"Next: wsisr verify {self.store}, then wsisr train --data {self.store}")
        else:
            lines.append(f"No pairs. {self._first()}")
        return "\n".join(lines)

    def _first(self) -> str:
        """The reason that most slides share, by the first of them."""
        if not self.failures:
            return "No slide gave a pair; summary.md has the funnel of each."
        first = min(self.failures, key=lambda failure: failure.slide_id)
        more = (
            f" ({counted(len(self.failures) - 1, 'more slide')} in the table)"
            if self.failures[1:]
            else ""
        )
        return f"{about(first.error, first.path, first.slide_id)}{more}"


def about(text: str, *names: str) -> str:
    """A sentence under the first of a slide's names, unless it begins with one of them."""
    return text if text.startswith(tuple(f"{n}:" for n in names)) else f"{names[0]}: {text}"


def report_failures(path: Path, failures: tuple[Failure, ...], layout: Layout) -> BuildSummary:
    """The report of a build in which no slide could be used, and so no store was made."""
    folder = StorePaths(path).report
    folder.mkdir(parents=True, exist_ok=True)
    write_failures(folder, failures, layout)
    return BuildSummary(
        store=path,
        report=folder,
        slides=0,
        pairs={},
        failures=failures,
        warnings=(),
    )


def write_failures(folder: Path, failures: Sequence[Failure], layout: Layout) -> None:
    """The table, and the tracebacks of faults that are ours to mend.

    What would be a slide if it could be read has a row too: pixels that a person may count on.
    """
    lost = [
        Failure(slide_id="", path=i.relative, stage="list", kind="LeftOut", error=i.reason)
        for i in layout.left_out
        if i.loses_slides
    ]
    rows = [
        (failure.slide_id, failure.path, failure.stage, failure.kind, failure.error)
        for failure in sorted((*failures, *lost), key=lambda item: item.slide_id)
    ]
    heads = ("slide", "file", "stage", "kind", "error")
    replace_file(folder / "failures.csv", csv_lines([heads, *rows]))
    traces = [f"{f.slide_id} ({f.stage})\n{f.trace}" for f in failures if f.trace]
    if traces:
        replace_file(folder / "failures.log", "\n".join(traces).encode())
    else:
        (folder / "failures.log").unlink(missing_ok=True)


def summary_text(
    store: PairStore,
    manifest: Manifest,
    layout: Layout,
    pairs: Mapping[str, int],
    failures: Sequence[Failure],
    warnings: Sequence[str],
) -> str:
    sizes = ", ".join(_arrays(store)) or f"{manifest.hr} and {', '.join(manifest.lr_arrays)}"
    lines = [
        f"# {store.path.name}",
        "",
        f"{counted(sum(pairs.values()), 'pair')} from {counted(len(store.slides), 'slide')}; "
        f"{counted(sum(f.kind != NOTHING for f in failures), 'slide')} failed, "
        f"{sum(f.kind == NOTHING for f in failures)} gave nothing.",
        "",
        f"- Source: {layout.sentence}",
        *_patients(store),
        *_overrides(store),
        f"- Manifest: `{manifest.name}` version {manifest.version}, "
        f"sha256 `{manifest.sha256()[:16]}`",
        f"- Arrays: {sizes}",
        f"- Splits: {', '.join(f'{name} {count:,}' for name, count in pairs.items())}",
        "",
    ]
    if warnings:
        lines += ["## Warnings", "", *(f"- {text}" for text in warnings), ""]
    lines += ["## Slides", "", *_slide_table(store), ""]
    lines += [
        "`slides/<slide>.png` shows mask, annotations and patches (blue kept, orange rejected), "
        "`slides/<slide>-pairs.png` some pairs.",
        "",
    ]
    if failures:
        ordered = sorted(failures, key=lambda item: item.slide_id)
        rows = [(f.slide_id, f.stage, f.error) for f in ordered]
        table = markdown_table(["slide", "stage", "why"], rows)
        lines += ["## Failed, or gave nothing", "", *table, ""]
    notes = [
        (slide_id, note)
        for slide_id in store.slides
        for note in _attributes(store, slide_id).get("notes", [])
    ]
    if notes:
        lines += ["## Notes", "", *(f"- {slide_id}: {note}" for slide_id, note in notes), ""]
    if layout.left_out:
        named = [f"- {markdown_cell(item.relative)}: {item.reason}" for item in layout.left_out]
        lines += ["## Left out", "", *named, ""]
    if manifest.readings:
        lines += ["## Readings of the paper", "", *(f"- {text}" for text in manifest.readings), ""]
    return "\n".join(lines)


def _patients(store: PairStore) -> list[str]:
    """How patients are known."""
    words: dict[str, str] = {str(source): text for source, text in WORDS.items()}
    known = [
        f"{n} {words.get(name, f'by {name} (of another version of wsisr)')}"
        for name, n in patient_sources(store).items()
    ]
    return [f"- Patients: of the slides {', '.join(known)}"] if known else []


def _overrides(store: PairStore) -> list[str]:
    """What the user's table said in place of the files."""
    named = ", ".join(f"{name} of {count} slide(s)" for name, count in overrides_of(store).items())
    return [f"- Overridden by a table (--mpp-override): {named}"] if named else []


def _arrays(store: PairStore) -> list[str]:
    """Each magnification with its size and the origins that occur."""
    found: dict[str, tuple[int, set[str]]] = {}
    for slide_id in store.slides:
        view = store.slides[slide_id]
        for spec in map(view.spec, view.arrays):
            _, origins = found.setdefault(spec.name, (spec.size_px, set()))
            origins.add(spec.origin)
    hr = store.attributes["magnifications"][0]
    return [
        f"{name} {size} px" + ("" if name == hr else f" ({' / '.join(sorted(origins))})")
        for name, (size, origins) in found.items()
    ]


def _slide_table(store: PairStore) -> list[str]:
    present = {step for s in store.slides for step in _attributes(store, s).get("funnel", {})}
    steps = funnel_steps(present)
    head = [
        "slide",
        "patient",
        "split",
        "um/px",
        "reader",
        *(FUNNEL_WORDS.get(s, s) for s in steps),
    ]
    rows = []
    for slide_id in store.slides:
        attrs = _attributes(store, slide_id)
        mpp = f"{attrs['mpp']['value']:.4f}" if attrs.get("mpp") else ""
        split = attrs["split"] or "by patch"
        row = [slide_id, attrs["patient"], split, mpp, attrs.get("backend", "")]
        row += [attrs.get("funnel", {}).get(step, "") for step in steps]
        rows.append(row)
    return markdown_table(head, rows)


def _attributes(store: PairStore, slide_id: str) -> dict[str, Any]:
    return dict(store.slides[slide_id].attributes)


def not_tiled_sentences(reasons: Mapping[str, str]) -> list[str]:
    """Slides whose own tiles are not kept although that was asked for, by the reason.

    Parameters
    ----------
    reasons : mapping of slide id to str
        Of every slide; empty where its tiles are kept.
    """
    slides: dict[str, list[str]] = {}
    for slide_id, reason in reasons.items():
        if reason:
            slides.setdefault(reason, []).append(slide_id)
    return [
        f"{len(names)} of {len(reasons)} slides are stored as codec small, not as their own "
        f"tiles (first {names[0]}): {reason}."
        for reason, names in sorted(slides.items())
    ]
