"""`keep`: decide anew which registered pairs count, without reading a slide or a pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Int32Array
from wsisr.errors import StoreError
from wsisr.files import replace_file
from wsisr.store.column_rules import Rule, parse_rule
from wsisr.store.columns import with_crc
from wsisr.store.digests import root_json
from wsisr.store.lock import BuildLock
from wsisr.store.reader import PairStore, open_pairs
from wsisr.store.schema import COLUMNS, DIGEST, KEPT, SPLIT_NAMES
from wsisr.store.splits import split_rows
from wsisr.store.writer import StoreWriter


@dataclass(frozen=True, kw_only=True)
class KeepResult:
    """What a rule left.

    Attributes
    ----------
    before, kept, stored : int
        Pairs that counted before, that count now, and that are stored.
    splits : dict of str to int
        Kept pairs of each split.
    """

    rule: str
    before: int
    kept: int
    stored: int
    splits: dict[str, int]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        return (
            f"{self.rule!r} keeps {self.kept:,} of {self.stored:,} stored pairs "
            f"(before: {self.before:,}); {parts}."
        )


def keep_pairs(path: Path, rule: str) -> KeepResult:
    """Rewrite the column ``kept`` and the splits from a rule over the certificate columns.

    Nothing else of the store changes, and the digests of its slides stay valid. The rule and
    what it kept are recorded in the root attributes. A kill in the middle is seen by `verify`
    and repaired by running the same rule again.

    Parameters
    ----------
    rule : str
        E.g. ``"spread<0.25 and ncc_band>0.85"``; all stored pairs are judged anew.

    Raises
    ------
    StoreError
        If the rule is none, names an unknown column, or the store is not finished.
    """
    with BuildLock(path, command=f"wsisr keep {path} {rule!r}"):
        writer = StoreWriter.attach(path)
        writer.recover()
        store = open_pairs(path)
        if not store.split_names():
            raise StoreError(f"{path}: its build is not finished; run the same command again.")
        # A slide without pairs has no certificates to have columns of.
        have = [set(view.columns()) for view in store.slides.values() if len(view)]
        usable = sorted(set.intersection(*have) - {DIGEST, KEPT}) if have else []
        parsed = parse_rule(rule, sorted({*usable, *COLUMNS} - {DIGEST, KEPT}))
        _refuse_lacking(store, parsed, usable)
        chosen = {slide: _judge(store, slide, parsed) for slide in store.slides}
        before = sum(int(store.slides[s].column(KEPT).sum()) for s in store.slides)
        splits = _splits(store, chosen)
        _record(writer, store, {"rule": parsed.text, "state": "applying"})
        for slide, kept in chosen.items():
            _write_kept(writer, slide, kept)
        writer.commit_splits(splits)
        counts = {slide: int(kept.sum()) for slide, kept in chosen.items()}
        _record(writer, store, {"rule": parsed.text, "state": "complete", "kept": counts})
        writer.clean()
    return KeepResult(
        rule=parsed.text,
        before=before,
        kept=sum(counts.values()),
        stored=sum(len(kept) for kept in chosen.values()),
        splits={name: len(rows) for name, rows in splits.items()},
    )


def _refuse_lacking(store: PairStore, rule: Rule, usable: Sequence[str]) -> None:
    """Say why a column that stores may have is not one to judge this store's pairs by."""
    for name in rule.columns:
        if name in usable:
            continue
        without = [s for s, v in store.slides.items() if len(v) and name not in v.columns()]
        method = dict(store.attributes["manifest"]).get("registration", {}).get("method", "")
        why = f"{len(without)} of {len(store.slides)} slides lack it (first: {without[:1]})"
        if len(without) == sum(len(view) > 0 for view in store.slides.values()):
            why = (
                f"its pairs were made with registration {method!r}, which leaves no such number"
                if method in ("none", "levels")
                else "no slide of it has one"
            )
        raise StoreError(f"{store.path}: no column {name!r}: {why}. There are {', '.join(usable)}.")


def _judge(store: PairStore, slide: str, rule: Rule) -> BoolArray:
    view = store.slides[slide]
    if not len(view):
        return np.zeros(0, bool)
    columns = {name: view.column(name) for name in rule.columns}
    return rule.apply(columns, len(view))


def _splits(store: PairStore, chosen: Mapping[str, BoolArray]) -> dict[str, Int32Array]:
    """Splits of the kept rows: by slide, or by patch where the store says so."""
    members: dict[str, dict[str, AnyArray]] = {name: {} for name in SPLIT_NAMES}
    members |= {name: {} for name in store.split_names()}
    for slide, kept in chosen.items():
        view = store.slides[slide]
        declared = view.attributes.get("split")
        if declared is not None:
            members.setdefault(declared, {})[slide] = np.flatnonzero(kept)
            continue
        if "split" not in view.columns():
            raise StoreError(
                f"{store.path}: {slide} belongs to no split and has no column 'split', so it "
                "cannot be said where newly kept pairs belong."
            )
        numbers = view.column("split")
        for number, name in enumerate(SPLIT_NAMES):
            members[name][slide] = np.flatnonzero(kept & (numbers == number))
    return split_rows(store.attributes["slides"], members)


def _record(writer: StoreWriter, store: PairStore, keep: dict[str, Any]) -> None:
    attributes = {**store.attributes, "keep": keep}
    replace_file(writer.paths.meta, root_json(attributes), staging=writer.paths.partial)


def _write_kept(writer: StoreWriter, slide: str, kept: BoolArray) -> None:
    if not len(kept):
        return
    path = writer.paths.slide(slide).column(KEPT) / "c" / "0"
    data = with_crc(kept.astype(COLUMNS[KEPT].dtype).tobytes())
    if path.read_bytes() != data:
        replace_file(path, data, staging=writer.paths.partial)
