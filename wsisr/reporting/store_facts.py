"""What a page says of a store, read once: attributes, columns and the files beside the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Float64Array, Int64Array, UInt8Array
from wsisr.drawing.overlays import fitted_size
from wsisr.errors import StoreError
from wsisr.store import PairStore, Table, open_pairs, summarise_store
from wsisr.store.schema import KEPT, layer_column
from wsisr.store.summarise import StoreSummary
from wsisr.tables import read_table

DEFAULT_MARGIN_PX = 13
"""Search margin of a registration whose manifest states no region, HR px."""
_CERTIFICATE = ("residual_x", "residual_y", "ncc", "ncc_band", "spread", "sharpness")


@dataclass(frozen=True, kw_only=True)
class SlideScene:
    """What is drawn of a slide.

    Attributes
    ----------
    tissue : ndarray, shape (h, w), uint8
        0 is none.
    extent_px : (float, float)
        Width and height that it spans, level-0 px.
    rows : ndarray, shape (n,)
        Places in the table of the patches that are drawn.
    origins : ndarray, shape (n, 2)
        Theirs, level-0 px.
    field_px : float
        Side of a patch, level-0 px.
    """

    tissue: UInt8Array
    extent_px: tuple[float, float]
    rows: Int64Array
    origins: Float64Array
    field_px: float

    def outlines(self, side_px: int = 380) -> list[Float64Array]:
        """Of the tissue, level-0 px, as fine as a drawing of that longer side shows them."""
        import cv2

        size = fitted_size(self.tissue.shape, side_px)
        grey = (self.tissue > 0).astype(np.uint8) * 255
        small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA)) >= 128
        found, _ = cv2.findContours(
            small.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        per_px = self.extent_px[0] / size[0]
        return [
            np.asarray((cv2.approxPolyDP(contour, 0.6, True).reshape(-1, 2) + 0.5) * per_px)
            for contour in found
            if cv2.contourArea(contour) >= 6
        ]


@dataclass(frozen=True)
class StoreFacts:
    """A store and what is known of it.

    Attributes
    ----------
    table : Table
        Every stored pair, kept or not.
    folder : Path
        Report folder of the build, which may not exist.
    failures : tuple of mapping
        Rows of its ``failures.csv``.
    warnings : tuple of str
        Of its ``summary.md``.
    """

    store: PairStore
    summary: StoreSummary
    table: Table
    folder: Path
    failures: tuple[Mapping[str, str], ...]
    warnings: tuple[str, ...]

    @cached_property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """Attributes of every committed slide by id."""
        return {name: dict(view.attributes) for name, view in self.store.slides.items()}

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(self.store.attributes["manifest"])

    @cached_property
    def kept(self) -> BoolArray:
        """Of every stored pair."""
        return np.asarray(self.table[KEPT]).astype(bool)

    @cached_property
    def slide_of(self) -> AnyArray:
        """Place in the store's list of slides of every stored pair."""
        return np.asarray(self.table["slide"])

    @cached_property
    def rows_per_slide(self) -> dict[str, AnyArray]:
        """Positions in the table of a slide's pairs."""
        return {
            name: np.flatnonzero(self.slide_of == self.store.slide_index(name))
            for name in self.store.slides
        }

    @cached_property
    def residuals(self) -> dict[str, Float64Array]:
        """Residual shift of every stored pair by LR array, shape (n, 2), HR px; NaN if unknown.

        A store with one certificate per pair gives it under its coarsest array.
        """
        found: dict[str, Float64Array] = {}
        for array in self.store.arrays[1:]:
            names = [layer_column(f"residual_{axis}", array) for axis in "xy"]
            if all(name in self.table for name in names):
                found[array] = np.stack([self.table[name] for name in names], axis=1)
        if not found and "residual_x" in self.table and len(self.store.arrays) > 1:
            both = [self.table["residual_x"], self.table["residual_y"]]
            found[self.store.arrays[-1]] = np.stack(both, axis=1)
        return {name: values.astype(np.float64) for name, values in found.items()}

    @cached_property
    def splits(self) -> dict[str, AnyArray]:
        """Kept pairs (slide, row) by split; empty while a build is not finished."""
        return {name: self.store.split(name) for name in self.store.split_names()}

    @property
    def labels(self) -> list[str]:
        """Label of every stored pair; empty text for none."""
        if "label" not in self.table:
            return [""] * self.table.rows
        return self.table.names("label")

    def scene(self, slide_id: str, limit: int = 600) -> SlideScene | None:
        """A slide as it is drawn, with at most `limit` of its patches.

        None where the slide's resolution is not known, so that mask and patches do not fit
        together.
        """
        view, attributes = self.store.slides[slide_id], self.attributes[slide_id]
        mpp, mask, rows = attributes.get("mpp"), view.tissue(), self.rows_per_slide[slide_id]
        if not mpp or not mask.size:
            return None
        if len(rows) > limit:
            rows = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
        hr, tissue = view.spec(view.arrays[0]), attributes.get("tissue") or {}
        per_px = float(tissue.get("um_per_px") or 8.0) / float(mpp["value"])
        return SlideScene(
            tissue=mask,
            extent_px=(mask.shape[1] * per_px, mask.shape[0] * per_px),
            rows=rows,
            origins=np.stack([self.table["x"][rows], self.table["y"][rows]], axis=1).astype(float),
            field_px=hr.factor * hr.size_px,
        )

    def column(self, name: str) -> Float64Array | None:
        """A certificate column as floats, or None where the store has none."""
        return np.asarray(self.table[name], np.float64) if name in self.table else None

    def shift_before_px(self, position: int) -> tuple[float, float] | None:
        """How far LR of a pair lay from where the file puts it, before registration, HR px.

        From the pair's own search where it had one, else from its level's calibration; None where
        nothing was measured, or LR is of another scan.
        """
        slide = self.store.attributes["slides"][int(self.slide_of[position])]
        attributes = self.attributes[slide]
        registration = self.manifest.get("registration") or {}
        method = registration.get("method")
        if "hr_scan" in attributes or method in (None, "none"):
            return None
        if method != "levels" and "offset_x" in self.table:
            region, size = registration.get("region_px"), self.manifest.get("size")
            margin = (region - size) // 2 if region and size else DEFAULT_MARGIN_PX
            x, y = (
                float(self.table[f"offset_{axis}"][position])
                + float(self.table[f"residual_{axis}"][position])
                - margin
                for axis in "xy"
            )
            return x, y
        view = self.store.slides[slide]
        hr, lr = view.spec(self.store.arrays[0]), view.spec(view.arrays[-1])
        if not lr.native or not self.residuals:
            return None
        half = hr.factor * hr.size_px / 2
        place = [float(self.table[axis][position]) + half for axis in "xy"]
        coarse = level_shift_px(attributes, lr.level, place)
        fine = level_shift_px(attributes, hr.level, place) or (0.0, 0.0)
        if coarse is None:
            return None
        return (coarse[0] - fine[0]) / hr.factor, (coarse[1] - fine[1]) / hr.factor


def level_shift_px(
    attributes: Mapping[str, Any], level: int | None, place: Sequence[float]
) -> tuple[float, float] | None:
    """Measured shift of a level at a level-0 place, level-0 px; None where it was not measured."""
    for transform in attributes.get("level_transforms") or []:
        if transform["level"] == level and transform["measured"]:
            return (
                transform["offset_x_px"] + transform["slope_x"] * place[0],
                transform["offset_y_px"] + transform["slope_y"] * place[1],
            )
    return None


def read_facts(path: Path, folder: Path) -> StoreFacts:
    """Read a store and the report folder of its build, where that left its failures and summary.

    Raises
    ------
    StoreError
        If there is no store, or no slide in it.
    """
    store = open_pairs(path)
    if not len(store.slides):
        raise StoreError(
            f"{path} holds no finished slide, so there is nothing to report; run the same "
            "wsisr build-pairs command again, and look at failures.csv beside it."
        )
    have = {name for view in store.slides.values() for name in view.columns()}
    layers = [layer_column(f"residual_{axis}", a) for a in store.arrays[1:] for axis in "xy"]
    wanted = ["x", "y", "label", "reason", "verdict", "offset_x", "offset_y", *_CERTIFICATE]
    names = [KEPT, *(name for name in [*wanted, *layers] if name in have)]
    return StoreFacts(
        store=store,
        summary=summarise_store(path),
        table=store.table(kept=False, columns=names),
        folder=folder,
        failures=_failures(folder),
        warnings=_warnings(folder),
    )


def _failures(folder: Path) -> tuple[Mapping[str, str], ...]:
    path = folder / "failures.csv"
    if not path.is_file():
        return ()
    return tuple(
        {key: value or "" for key, value in row.items() if key} for row in read_table(path)[1]
    )


def _warnings(folder: Path) -> tuple[str, ...]:
    """The bullets under "Warnings" of the summary that the build wrote."""
    path = folder / "summary.md"
    if not path.is_file():
        return ()
    found, inside = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            inside = line.removeprefix("## ").strip() == "Warnings"
        elif inside and line.startswith("- "):
            found.append(line.removeprefix("- ").strip())
    return tuple(found)
