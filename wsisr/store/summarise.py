"""What a store contains, in numbers and in text."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from wsisr.arrays import AnyArray
from wsisr.store.layout import META
from wsisr.store.places import Address, Place, place_of
from wsisr.store.reader import PairStore, open_pairs
from wsisr.store.schema import KEPT, funnel_steps
from wsisr.store.slide_view import SlideView
from wsisr.words import counted

RESIDUAL_EDGES_PX = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, np.inf)
"""Bins of the sub-pixel residual, HR px."""
_ALIGNMENT = ("ncc", "ncc_band", "spread", "sharpness")


@dataclass(frozen=True, kw_only=True)
class ArraySummary:
    """One magnification over all slides.

    Attributes
    ----------
    um_per_px : (float, float) or None
        Smallest and largest true resolution.
    origins : dict of str to int
        Slides per LR origin.
    native : int
        Slides whose file stores it.
    """

    name: str
    sizes_px: tuple[int, ...]
    um_per_px: tuple[float, float] | None
    origins: dict[str, int]
    native: int


@dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """What `describe_store` prints.

    Attributes
    ----------
    patient_sources : dict of str to int
        Slides by how their patient is known; without those of stores that do not say.
    stored, kept : int
        Pairs.
    splits : dict of str to int
        Kept pairs; empty while the build is not finished.
    labels : dict of str to int
        Kept pairs.
    funnel : dict of str to int
        Sums over slides, in the order of the build.
    residuals : tuple of int or None
        Kept pairs per bin of `RESIDUAL_EDGES_PX`; None where pairs are not registered.
    alignment : dict of str to float
        Medians and 95th percentiles of certificate columns over kept pairs.
    reasons : dict of str to int
        Rejected pairs.
    """

    path: Path | Place
    format_version: int
    codec: str
    manifest: str
    planned: int
    slides: int
    patients: int
    patient_sources: dict[str, int]
    stored: int
    kept: int
    arrays: tuple[ArraySummary, ...]
    splits: dict[str, int]
    labels: dict[str, int]
    funnel: dict[str, int]
    residuals: tuple[int, ...] | None
    alignment: dict[str, float]
    reasons: dict[str, int]
    keep_rule: str

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def summarise_store(path: Address) -> StoreSummary:
    """Count and summarise a store; reads columns, not pixels.

    Raises
    ------
    StoreError
        If there is no pair store.
    """
    store = open_pairs(path)
    views = list(store.slides.values())
    names = {name for view in views for name in view.columns()}
    wanted = ("label", "reason", "residual_x", "residual_y", *_ALIGNMENT)
    columns = [KEPT, *(name for name in wanted if name in names)]
    table = store.table(kept=False, columns=columns)
    kept = table[KEPT].astype(bool)
    funnel: Counter[str] = Counter()
    for view in views:
        funnel.update(view.attributes.get("funnel") or {})
    in_order = {step: int(funnel[step]) for step in funnel_steps(funnel)}
    residuals = None
    alignment: dict[str, float] = {}
    if {"residual_x", "residual_y"} <= names:
        length = np.hypot(table["residual_x"], table["residual_y"])[kept]
        length = length[np.isfinite(length)]
        counts, _ = np.histogram(length, RESIDUAL_EDGES_PX)
        residuals = tuple(counts.tolist())
        alignment |= _percentiles("residual", length)
    for name in _ALIGNMENT:
        if name in names:
            values = table[name][kept]
            alignment |= _percentiles(name, values[np.isfinite(values)])
    manifest = store.attributes["manifest"]
    return StoreSummary(
        path=store.path,
        format_version=store.attributes["format_version"],
        codec=store.attributes["codec"],
        manifest=str(manifest.get("name", "")),
        planned=len(store.attributes["slides"]),
        slides=len(views),
        patients=len({view.attributes["patient"] for view in views}),
        patient_sources=patient_sources(store),
        stored=len(kept),
        kept=int(kept.sum()),
        arrays=_arrays(store, views),
        splits={name: len(store.split(name)) for name in store.split_names()},
        labels=_count(compress(table.names("label"), kept)) if "label" in names else {},
        funnel=in_order,
        residuals=residuals,
        alignment=alignment,
        reasons=_count(compress(table.names("reason"), ~kept)) if "reason" in names else {},
        keep_rule=str((store.attributes.get("keep") or {}).get("rule", "")),
    )


def patient_sources(store: PairStore) -> dict[str, int]:
    """Slides by how their patient is known, most first."""
    return _count(
        str(view.attributes.get("patient_source") or "") for view in store.slides.values()
    )


def overrides_of(store: PairStore) -> dict[str, int]:
    """For how many slides the user's table gave each column; empty where there was none."""
    given: Counter[str] = Counter()
    for view in store.slides.values():
        given.update(view.attributes.get("overridden", []))
    return dict(sorted(given.items()))


def describe_store(path: Address) -> str:
    """A store in words: contents, funnel, alignment."""
    return str(summarise_store(path))


def is_store(path: Address) -> bool:
    """Whether a path or URL looks like a pair store (and not like a slide)."""
    return (place_of(path) / META).exists()


def _percentiles(name: str, values: AnyArray) -> dict[str, float]:
    if not len(values):
        return {}
    median, high = np.percentile(values, [50, 95])
    return {f"{name} median": float(median), f"{name} p95": float(high)}


def _count(words: Iterable[str]) -> dict[str, int]:
    counts = Counter(word for word in words if word)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _arrays(store: PairStore, views: list[SlideView]) -> tuple[ArraySummary, ...]:
    found = []
    for name in store.arrays:
        specs = [view.spec(name) for view in views if name in view.arrays]
        scales = [spec.um_per_px for spec in specs if spec.um_per_px is not None]
        found.append(
            ArraySummary(
                name=name,
                sizes_px=tuple(sorted({spec.size_px for spec in specs})),
                um_per_px=(min(scales), max(scales)) if scales else None,
                origins=dict(sorted(Counter(spec.origin for spec in specs).items())),
                native=sum(spec.native for spec in specs),
            )
        )
    return tuple(found)


def _lines(s: StoreSummary) -> list[str]:
    lines = [
        f"{s.path}: {counted(s.kept, 'pair')} from {counted(s.slides, 'slide')} of "
        f"{counted(s.patients, 'patient')}",
        f"  format {s.format_version}, codec {s.codec}, manifest {s.manifest or '(unnamed)'}",
    ]
    if s.patient_sources:
        lines.append(f"  patients known by: {_listed(s.patient_sources)}")
    if s.slides < s.planned:
        lines.append(f"  {s.planned - s.slides} of {s.planned} planned slides are not in it")
    if s.keep_rule:
        lines.append(f"  kept by the rule: {s.keep_rule} ({s.kept:,} of {s.stored:,} stored)")
    for array in s.arrays:
        size = "/".join(str(px) for px in array.sizes_px) or "-"
        scale = ""
        if array.um_per_px:
            low, high = array.um_per_px
            text = f"{low:.4g}" if abs(high - low) < 1e-3 * high else f"{low:.4g}-{high:.4g}"
            scale = f", {text} um/px"
        origins = ", ".join(f"{name} ({count})" for name, count in array.origins.items())
        lines.append(f"  {array.name}: {size} px{scale}; {origins}")
    if s.splits:
        lines.append(f"  splits: {_listed(dict(sorted(s.splits.items())))}")
    else:
        lines.append("  splits: none yet, the build is not finished")
    if s.labels:
        lines.append(f"  labels: {_listed(s.labels)}")
    if s.funnel:
        built = " of the build" if s.keep_rule else ""
        lines.append(f"  funnel{built}: {_listed(s.funnel, ' > ')}")
    if s.residuals is not None:
        lines.append("  residual of kept pairs (HR px):")
        top = max(max(s.residuals), 1)
        for low, high, count in zip(
            RESIDUAL_EDGES_PX, RESIDUAL_EDGES_PX[1:], s.residuals, strict=False
        ):
            span = f"{low:g} - {high:g}" if np.isfinite(high) else f"{low:g} and more"
            lines.append(f"    {span:>12}  {count:>9,}  {'#' * round(40 * count / top)}")
    for name in ("residual", *_ALIGNMENT):
        if f"{name} median" in s.alignment:
            lines.append(
                f"  {name}: median {s.alignment[f'{name} median']:.3f}, "
                f"95th percentile {s.alignment[f'{name} p95']:.3f}"
            )
    if s.reasons:
        lines.append(f"  not kept: {_listed(s.reasons)}")
    return lines


def _listed(counts: Mapping[str, int], between: str = ", ") -> str:
    return between.join(f"{name} {count:,}" for name, count in counts.items())


def lr_lines(store: PairStore) -> list[str]:
    """One line for each LR that the evidence speaks against, kept or made instead."""
    found: dict[tuple[str, bool], list[str]] = {}
    for slide_id in store.slides:
        view = store.slides[slide_id]
        flags: dict[str, str] = dict(view.attributes).get("lr_flags", {})  # type: ignore[assignment]
        for name, why in flags.items():
            found.setdefault((name, view.spec(name).native), []).append(f"{slide_id}: {why}")
    lines = []
    for (name, native), slides in sorted(found.items()):
        what = (
            "is a stored level that the evidence calls worse than a reduction and was kept; "
            "native: evidence makes it from the finer level"
            if native
            else "was made from the finer level in place of the stored one"
        )
        lines.append(f"{name} of {len(slides)} slide(s) {what} (first {slides[0]})")
    return lines
