"""Degradations on pair stores: registered pairs out, simulated LR arrays in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsisr.arrays import UInt8Array
from wsisr.degradation.apply import Simulation
from wsisr.degradation.comparison import Comparison, compare_with_native
from wsisr.degradation.fitting import fit_degradation
from wsisr.degradation.profile import FittedProfile
from wsisr.degradation.scanner_pairs import FitSettings, RealPair
from wsisr.errors import DegradationError, DiskFullError, StoreError, refuse_remote_output
from wsisr.files import remove_tree, staged_files, swap_in
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store import ArraySpec, BuildLock, PairStore, StoreWriter, open_pairs
from wsisr.store.attributes import WRITTEN_ATTRIBUTES
from wsisr.store.presets import SLIDE
from wsisr.store.schema import WRITTEN_COLUMNS, certificate_column
from wsisr.store.writer import refuse_foreign

SCANNED = ("rescan", "rescan-reduced", "cross-scanner", "stored-level")
"""Origins of LR that a scanner has made."""
_BATCH_PX = 1 << 22
_JPEG_GRID_PX = 16


@dataclass(frozen=True, kw_only=True)
class PairSelection:
    """Which registered pairs of a store are looked at.

    Attributes
    ----------
    hr, lr : str, optional
        Array names; the finest, and the coarsest native one, by default.
    split : str
        Test slides are never used for fitting; a store without splits gives all its kept pairs.
    limit : int
        Largest number of pairs.
    """

    hr: str | None = None
    lr: str | None = None
    split: str = "train"
    limit: int = 24


def registered_pairs(
    store: PairStore, choice: PairSelection = PairSelection()
) -> Iterator[RealPair]:
    """Kept pairs of a store whose LR is native, spread evenly over its slides and rows.

    Raises
    ------
    DegradationError
        The store has no such arrays, or its LR is simulated or reduced.
    """
    if not store.slides:
        raise DegradationError(f"{store.path} has no slides.")
    first = next(iter(store.slides.values()))
    hr = choice.hr or first.arrays[0]
    lr = choice.lr or _coarsest_native(store, hr)
    for name in (hr, lr):
        if name not in first.arrays:
            raise DegradationError(
                f"{store.path} has no array {name!r}; it has {', '.join(first.arrays)}."
            )
    origin = first.spec(lr).origin
    if origin not in SCANNED:
        raise DegradationError(
            f"{lr} of {store.path} is {origin}: made by software, so there is no scanner in it to "
            "fit or to compare with. Name a rescanned or stored array."
        )
    split = choice.split
    kept = store.table(columns=[]).index
    rows = store.split(split) if split in store.split_names() else kept
    allowed = {tuple(pair) for pair in kept.tolist()}
    rows = np.array([pair for pair in rows.tolist() if tuple(pair) in allowed]).reshape(-1, 2)
    if not len(rows):
        raise DegradationError(f"{store.path} has no kept pairs in its {split} split.")
    count = min(choice.limit, len(rows))
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
    for slide, row in chosen.tolist():
        yield _pair(store, int(slide), int(row), hr, lr)


def _coarsest_native(store: PairStore, hr: str) -> str:
    first = next(iter(store.slides.values()))
    for name in reversed(first.arrays):
        if name != hr and first.spec(name).origin in SCANNED:
            return name
    raise DegradationError(
        f"{store.path} has no native LR array (rescan, cross-scanner or stored-level); it has "
        + ", ".join(f"{name} ({first.spec(name).origin})" for name in first.arrays)
        + "."
    )


def _pair(store: PairStore, slide: int, row: int, hr: str, lr: str) -> RealPair:
    view = store.slides[store.attributes["slides"][slide]]
    names = view.columns()

    def value(name: str) -> float:
        column = certificate_column(name, lr, names)
        found = float(view.column(column)[row]) if column else 0.0
        return found if np.isfinite(found) else 0.0

    grid: tuple[int, int] | None = None
    spec = view.spec(lr)
    if spec.origin == "stored-level" and spec.native:
        # The LR lies on its own level's grid at the patch origin (design 3.5).
        x, y = (round(float(view.column(c)[row]) / spec.factor) for c in ("x", "y"))
        grid = (x % _JPEG_GRID_PX, y % _JPEG_GRID_PX)
    return RealPair(
        lr=store.patch(slide, row, lr),
        hr=store.patch(slide, row, hr),
        residual_px=(value("residual_x"), value("residual_y")),
        grid_px=grid,
    )


def fit_store(
    path: Path,
    output: Path,
    choice: PairSelection = PairSelection(),
    *,
    settings: FitSettings | None = None,
    report: Reporter = silent,
) -> FittedProfile:
    """Fit a scanner to a store's registered pairs; writes the profile and the kernel's picture.

    The HR pixel size comes from the store.
    """
    store = open_pairs(path)
    pairs = list(registered_pairs(store, choice))
    first = next(iter(store.slides.values()))
    hr = choice.hr or first.arrays[0]
    um = first.spec(hr).um_per_px
    origin = first.spec(choice.lr or _coarsest_native(store, hr)).origin
    if settings is None:
        settings = FitSettings(um_per_px=um or FitSettings().um_per_px)
    profile = fit_degradation(pairs, settings, name=output.stem, origin=origin, report=report)
    with staged_files(output.parent, output.name) as staged:
        profile.write(staged / output.name)
        profile.write_picture(staged / output.with_suffix(".kernel.png").name)
    return profile


def compare_store(
    path: Path, specs: Sequence[str], choice: PairSelection = PairSelection(limit=8)
) -> Comparison:
    """`wsisr.degradation.comparison.compare_with_native` on a store's registered pairs."""
    return compare_with_native(registered_pairs(open_pairs(path), choice), specs)


@dataclass(frozen=True, kw_only=True)
class SimulatedArray(Simulation):
    """The array that a copy of a store has on top: of what it is made, and how.

    Its scale must divide the side of the patches; draws are a function of its seed and of the
    pair's place in the store.

    Attributes
    ----------
    hr : str
        Array that is degraded; empty: the finest.
    name : str
        Of the new array; empty: ``x<scale>-<first part of the spec>``.
    """

    hr: str = ""
    name: str = ""

    def within(self, store: PairStore) -> "SimulatedArray":
        """The same with the names that it gets in a store."""
        stem = "".join(c if c.isalnum() else "-" for c in self.degradation.name).strip("-")
        name = self.name or f"x{self.scale:g}-{stem}"[:64]
        return replace(self, hr=self.hr or store.arrays[0], name=name)

    def spec_of(self, source: ArraySpec) -> ArraySpec:
        """What a slide's new array is, from the one that is degraded."""
        small = source.size_px / self.scale
        if abs(small - round(small)) > 1e-9:
            raise DegradationError(
                f"Patches of {source.size_px} px do not divide by {self.scale:g}; a store holds "
                "whole fractions only. Training and evaluation degrade by any scale on the fly."
            )
        um = source.um_per_px
        return ArraySpec(
            name=self.name,
            size_px=round(small),
            factor=source.factor * self.scale,
            native=False,
            origin=f"simulated:{self.degradation.name}",
            um_per_px=None if um is None else um * self.scale,
            extra={**self.document(), "hr": self.hr},
        )

    def pixels_of(self, hr: UInt8Array, slots: list[int]) -> UInt8Array:
        """LR of HR patches, shape (n, side, side, 3); a slot is a pair's place in the store."""
        lr = self.apply(torch.as_tensor(hr).permute(0, 3, 1, 2), slots)
        return np.ascontiguousarray(lr.permute(0, 2, 3, 1).numpy())


def degrade_store(
    source: Path,
    target: Path,
    added: SimulatedArray,
    *,
    codec: str | None = None,
    overwrite: bool = False,
    report: Reporter = silent,
) -> str:
    """Copy a store with one more LR array, simulated from its HR; returns the array's name.

    Committed stores are never changed in place: `target` is a new one, by default of the codec of
    `source`. The array's attributes hold the whole degradation, scale and seed.
    """
    refuse_remote_output(target)
    store = open_pairs(source)
    added = added.within(store)
    if added.name in store.arrays:
        raise DegradationError(
            f"{source} already has an array {added.name!r}; give another --name."
        )
    root: dict[str, Any] = {
        key: value
        for key, value in store.attributes.items()
        if key not in ("format", "format_version", "codec", "digest", "magnifications")
    }
    root["magnifications"] = [*store.arrays, added.name]
    _check_target(target, overwrite)
    if codec == SLIDE != store.attributes["codec"]:
        raise DegradationError(
            f"{source} is of codec {store.attributes['codec']}: it holds no tiles of its slides "
            f"that a store of codec {SLIDE} could keep; leave out the codec, or build one from the "
            "slides."
        )
    with BuildLock(target, command=f"wsisr degrade apply {source}"), _remedy(target):
        place = StoreWriter(target, store.attributes["codec"])
        place.recover()
        if place.clean():
            text = f"{target}: what an interrupted run left is removed; it begins anew."
            report(ProgressEvent(stage="degrade", message=text))
        # Once more: it may have been made, or brought back, since the first look.
        _check_target(target, overwrite)
        staged = place.paths.partial / "new" / target.name
        writer = StoreWriter.create(staged, root, codec=codec or store.attributes["codec"])
        try:
            _write_degraded(store, writer, added, report)
        except BaseException:
            remove_tree(staged.parent)
            raise
        swap_in(staged, target, place.paths.replaced_root)
        place.clean()
    return added.name


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse to replace a store unasked, and what is no store at all."""
    if not target.exists():
        return
    if not overwrite:
        raise StoreError(
            f"{target} exists already; add --overwrite to replace it, or choose another place "
            "with -o."
        )
    refuse_foreign(target)


@contextmanager
def _remedy(target: Path) -> Iterator[None]:
    try:
        yield
    except DiskFullError as error:
        raise DiskFullError(
            f"{target}: the disk is full; what was written of it is removed again and the source "
            "is untouched. Make room, or write to another disk with -o, and run it again."
        ) from error


def _write_degraded(
    store: PairStore, writer: StoreWriter, added: SimulatedArray, report: Reporter
) -> None:
    """Every slide of a store with one more array, and its splits."""
    for done, (slide_id, view) in enumerate(store.slides.items(), start=1):
        specs = [view.spec(array) for array in view.arrays]
        source = view.spec(added.hr)
        # The slide's own tiles stay what they are; another codec gets their pixels.
        kept = iter(view.windows().values() if writer.codec == SLIDE else ())
        tiled = next(kept, None)
        plan = None if tiled is None else tiled.plan
        with writer.slide(slide_id, [*specs, added.spec_of(source)], tiles=plan) as out:
            count = max(1, _BATCH_PX // source.size_px**2)
            for start in range(0, len(view), count):
                rows = list(range(start, min(start + count, len(view))))
                block = {array: view.reader(array).read(rows) for array in view.arrays}
                slots = [(view.index << 32) + row for row in rows]
                block[added.name] = added.pixels_of(block[added.hr], slots)
                out.append(block, [tiled.window(row) for row in rows] if tiled else ())
            columns = {c: view.column(c) for c in view.columns() if c not in WRITTEN_COLUMNS}
            own = {*WRITTEN_ATTRIBUTES, *(() if writer.codec == SLIDE else ("not_tiled",))}
            attrs = {key: value for key, value in view.attributes.items() if key not in own}
            out.finish(columns, view.tissue(), attrs)
        report(
            ProgressEvent(
                stage="degrade", done=done, total=len(store.slides), unit="slide", item=slide_id
            )
        )
    if store.split_names():
        writer.commit_splits({split: store.split(split) for split in store.split_names()})
    writer.clean()
