"""Checks of one slide's group: files, metadata, checksums, digests, counts, geometry, own tiles."""

from collections.abc import Mapping
from dataclasses import replace
from math import isclose
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, Int64Array
from wsisr.errors import CorruptStoreError, StoreError, WsisrError, damage_is_clear
from wsisr.store.attributes import digest_algorithm
from wsisr.store.columns import read_plain
from wsisr.store.digests import PatchDigests, patch_digests, slide_digest
from wsisr.store.findings import Finding, error, shorten, warning
from wsisr.store.layout import META, PATCHES, TILES, TISSUE
from wsisr.store.metadata import Node, group_document, read_node, to_json
from wsisr.store.places import Place
from wsisr.store.reader import PairStore
from wsisr.store.schema import COLUMNS, DIGEST, KEPT, ArraySpec, find_column
from wsisr.store.shard_layouts import KnownLayout, known_layout
from wsisr.store.shard_reader import ShardReader
from wsisr.store.slide_view import SlideView
from wsisr.store.tile_array import TABLE, tile_digest
from wsisr.store.window_reader import WindowReader

BATCH_BYTES = 32_000_000
RESOLUTION_TOLERANCE = 0.02


def verify_slide(
    store: PairStore, slide_id: str, *, deep: bool, decode: bool = True
) -> list[Finding]:
    """All faults of one committed slide.

    Parameters
    ----------
    deep : bool
        Also read everything that is stored and compare checksums and patch digests.
    decode : bool
        With `deep`: also where HR is kept as the slide's own tiles. Without it, of such a slide
        checksums are compared, and no digest.
    """
    try:
        with damage_is_clear(store.paths.slide(slide_id).meta, CorruptStoreError, "restore it"):
            found = _findings(store, slide_id, deep, decode)
    except (WsisrError, OSError) as fault:
        # What is said of one slide must not keep the others from being looked at.
        found = [error("metadata", f"{fault}")]
    return [replace(finding, slide=slide_id) for finding in found]


def _findings(store: PairStore, slide_id: str, deep: bool, decode: bool) -> list[Finding]:
    root = store.paths.slide(slide_id).root
    node = read_node(root)
    view = store.slides[slide_id]
    arrays = list(view.arrays)
    findings = _check_document(node)
    findings += _check_digest(root, node.attributes, arrays)
    layouts, faults = _layouts(root, view)
    findings += faults
    findings += _check_files(root, layouts, view)
    columns, faults = _read_columns(view)
    findings += faults
    findings += _check_tissue(root)
    findings += _check_geometry(view, columns)
    findings += _check_funnel(store, view, columns)
    whole = bool(layouts) and len(layouts) == len(arrays)
    good = True
    for window in view.windows().values() if whole else ():
        faults = check_tiles(window, view, columns, read=deep, decode=decode)
        good = good and not faults
        findings += faults
    if deep and whole and good:
        stored = None
        if DIGEST in columns and (decode or not view.tiled):
            stored = PatchDigests(digest_algorithm(store.attributes), columns[DIGEST])
        # Of windows the streams have been looked at.
        names = arrays if decode else [name for name in arrays if name not in view.tiled]
        findings += _check_pixels([view.reader(name) for name in names], stored)
    return findings


def _check_document(node: Node) -> list[Finding]:
    expected = to_json(group_document(node.attributes))
    if (node.place / META).get() != expected:
        text = f"{META} is not as wsisr wrote it: it was edited or written by another program."
        return [error("metadata", text)]
    return []


def _check_digest(root: Place, attributes: Mapping[str, Any], arrays: list[str]) -> list[Finding]:
    if slide_digest(root, attributes, arrays) == attributes.get("digest"):
        return []
    text = (
        "the digest of its files and metadata differs: something was edited, added, removed or cut."
    )
    return [error("digest", text)]


def _layouts(root: Place, view: SlideView) -> tuple[dict[str, KnownLayout], list[Finding]]:
    layouts: dict[str, KnownLayout] = {}
    findings: list[Finding] = []
    for name, folder in view.folders.items():
        try:
            document = read_node(root / folder).document
        except StoreError as fault:
            findings.append(error("metadata", str(fault), array=name))
            continue
        layout = known_layout(document)
        if layout is None:
            text = "its shard layout is not one that wsisr writes."
            findings.append(error("metadata", text, array=name))
        elif name not in view.tiled and layout.patches != len(view):
            text = f"it has {layout.patches} patches, the slide has {len(view)}."
            findings.append(error("counts", text, array=name))
        else:
            layouts[name] = layout
    if len({la.shards.patches for name, la in layouts.items() if name not in view.tiled}) > 1:
        text = "its arrays differ in patches per shard."
        findings.append(error("metadata", text))
    return layouts, findings


def _check_files(root: Place, layouts: Mapping[str, KnownLayout], view: SlideView) -> list[Finding]:
    """Every file that must be there, and no other."""
    expected = {META, f"{PATCHES}/{META}", f"{TISSUE}/{META}", f"{TISSUE}/c/0/0"}
    for name, layout in layouts.items():
        folder = view.folders[name]
        expected.add(f"{folder}/{META}")
        shards = layout.shards.shards(layout.patches)
        expected.update(f"{folder}/c/{shard}/0/0/0" for shard in range(shards))
        if name in view.tiled:
            expected.add(f"{TILES}/{META}")
            expected.update(f"{TILES}/{column}/{META}" for column in TABLE)
            expected.update(f"{TILES}/{column}/c/0" for column in TABLE if layout.patches)
    for name in view.columns():
        expected.add(f"{PATCHES}/{name}/{META}")
        if len(view):
            expected.add(f"{PATCHES}/{name}/c/0")
    present = set(root.sizes())
    others = tuple(f"{folder}/" for name, folder in view.folders.items() if name not in layouts)
    present = {name for name in present if not (others and name.startswith(others))}
    findings = []
    if missing := sorted(expected - present):
        findings.append(error("files", f"missing: {shorten(missing)}."))
    if extra := sorted(present - expected):
        findings.append(error("files", f"not part of the store: {shorten(extra)}."))
    return findings


def _read_columns(view: SlideView) -> tuple[dict[str, AnyArray], list[Finding]]:
    columns: dict[str, AnyArray] = {}
    findings: list[Finding] = []
    names = view.columns()
    required = [c.name for c in COLUMNS.values() if c.required] + [DIGEST]
    if missing := [name for name in required if name not in names]:
        findings.append(error("metadata", f"no column {', '.join(missing)}."))
    for name in names:
        column = find_column(name, view.arrays)
        try:
            values = view.column(name)
        except CorruptStoreError as fault:
            findings.append(error("checksum", str(fault), array=name))
            continue
        if column is None:
            findings.append(error("metadata", "unknown column.", array=name))
        elif values.dtype != column.dtype or values.shape != (len(view),):
            text = f"{values.shape} {values.dtype}, expected ({len(view)},) {column.dtype}."
            findings.append(error("counts", text, array=name))
        else:
            columns[name] = values
    return columns, findings


def _check_tissue(root: Place) -> list[Finding]:
    try:
        read_plain(root / TISSUE)
    except StoreError as fault:
        return [error("checksum", str(fault), array=TISSUE)]
    return []


def _check_geometry(view: SlideView, columns: Mapping[str, AnyArray]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        specs = [view.spec(name) for name in view.arrays]
    except StoreError as fault:
        return [error("metadata", str(fault))]
    mpp = view.attributes.get("mpp")
    for spec in specs:
        findings += _check_spec(spec, specs[0], mpp)
        if view.reader(spec.name).shape[1] != spec.size_px:
            text = f"its patches are not {spec.size_px} px wide and high."
            findings.append(error("geometry", text, array=spec.name))
    if {"x", "y"} <= columns.keys() and len(columns["x"]):
        x, y = columns["x"], columns["y"]
        if min(x.min(), y.min()) < 0:
            findings.append(error("geometry", "patches lie outside the slide.", array="x, y"))
        findings += _check_bounds(view, specs[0], x, y)
        for spec in specs:
            step = spec.factor
            if spec.origin.startswith(("rescan", "cross-scanner", "simulated")):
                continue  # Made from HR, or from another slide with its own grid.
            if float(step).is_integer() and (np.any(x % int(step)) or np.any(y % int(step))):
                text = f"origins are not whole pixels of {spec.name} (multiples of {step:g})."
                findings.append(error("geometry", text, array="x, y"))
        places = np.unique(np.stack((x, y), axis=1), axis=0)
        if len(places) < len(x):
            text = f"{len(x) - len(places)} patches lie where another one lies."
            findings.append(warning("geometry", text, array="x, y"))
    for name, words in (("label", "labels"), ("reason", "reasons")):
        known: Any = view.attributes.get(words) or []
        count = len(known)
        values = columns.get(name)
        if values is not None and len(values) and (values.min() < -1 or values.max() >= count):
            text = f"values outside the slide's {count} {words}."
            findings.append(error("metadata", text, array=name))
    return findings


def _check_spec(spec: ArraySpec, hr: ArraySpec, mpp: Any) -> list[Finding]:
    findings = []
    field, want = spec.factor * spec.size_px, hr.factor * hr.size_px
    if not isclose(field, want, rel_tol=1e-6):
        text = f"its field of view is {field:g} level-0 px, that of {hr.name} is {want:g}."
        findings.append(error("geometry", text, array=spec.name))
    if mpp and spec.um_per_px is not None:
        true = float(mpp["value"]) * spec.factor
        if not isclose(true, spec.um_per_px, rel_tol=RESOLUTION_TOLERANCE):
            text = f"{spec.um_per_px:g} um/px, but the slide's mpp and its factor give {true:g}."
            findings.append(error("geometry", text, array=spec.name))
    return findings


def _check_bounds(view: SlideView, hr: ArraySpec, x: AnyArray, y: AnyArray) -> list[Finding]:
    levels = view.attributes.get("levels") or [{}]
    width, height = levels[0].get("width_px"), levels[0].get("height_px")
    if not isinstance(width, int) or not isinstance(height, int):
        return []
    field = hr.factor * hr.size_px
    # One pixel of grace: a field of a physical size need not end on a whole pixel.
    if x.max() + field > width + 1 or y.max() + field > height + 1:
        text = f"patches reach beyond the slide ({width} x {height} px)."
        return [error("geometry", text, array="x, y")]
    return []


def _check_funnel(
    store: PairStore, view: SlideView, columns: Mapping[str, AnyArray]
) -> list[Finding]:
    funnel = view.attributes.get("funnel") or {}
    kept = columns.get(KEPT)
    # After `wsisr keep` the funnel still tells of the build.
    if kept is None or "kept" not in funnel or store.attributes.get("keep"):
        return []
    if funnel["kept"] != int(kept.sum()):
        text = f"the funnel says {funnel['kept']} kept pairs, the column {int(kept.sum())}."
        return [error("counts", text, array=KEPT)]
    return []


def _check_pixels(readers: list[ShardReader], stored: PatchDigests | None) -> list[Finding]:
    """Read every chunk, which checks its CRC-32C, and compare the digest of every patch."""
    if not readers:
        return []
    findings: list[Finding] = []
    patches = len(readers[0])
    patch_bytes = sum(int(np.prod(reader.shape[1:])) for reader in readers)
    step = max(1, BATCH_BYTES // patch_bytes)
    wrong: list[int] = []
    for start in range(0, patches, step):
        rows = np.arange(start, min(start + step, patches))
        try:
            blocks = [reader.read(rows) for reader in readers]
        except CorruptStoreError:
            # Something in this batch is broken: find out what, patch by patch.
            findings += _broken_rows(readers, rows)
            continue
        if stored is not None:
            wanted = replace(stored, values=stored.values[rows])
            found = patch_digests(blocks, stored.algorithm)
            wrong += rows[found.differ(wanted)].tolist()
    if wrong:
        text = f"{len(wrong)} patches do not match their digest (rows {shorten(wrong)})."
        findings.append(error("digest", text))
    return findings


def _broken_rows(readers: list[ShardReader], rows: Int64Array) -> list[Finding]:
    findings = []
    for reader in readers:
        broken: list[int] = []
        first = ""
        for row in rows.tolist():
            try:
                reader.read([row])
            except CorruptStoreError as fault:
                broken.append(row)
                first = first or str(fault)
        if broken:
            text = f"{len(broken)} patches cannot be read (rows {shorten(broken)}): {first}"
            findings.append(error("checksum", text, array=reader.place.name))
    return findings


def check_tiles(
    reader: WindowReader,
    view: SlideView,
    columns: Mapping[str, AnyArray],
    *,
    read: bool,
    decode: bool,
) -> list[Finding]:
    """All faults of the tiles of one array.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (n,)
        Of the patches.
    read : bool
        Read every stream, which checks its CRC-32C.
    decode : bool
        Also decode each and compare its digest.
    """
    name = reader.place.name
    try:
        used, faults = _used(reader)
    except CorruptStoreError as fault:
        return [error("metadata", str(fault), array=name)]
    faults += _check_places(reader, view, columns)
    if idle := sorted(set(range(reader.tile_shape[0])) - used):
        text = f"no patch uses {len(idle)} of its tiles (numbers {shorten(idle)})."
        faults.append(error("metadata", text, array=name))
    return faults + (_check_streams(reader, decode) if read else [])


def _used(reader: WindowReader) -> tuple[set[int], list[Finding]]:
    """Tiles that patches use, and what is wrong with the table."""
    table, name = reader.table, reader.place.name
    faults = []
    rows, columns = table.grid
    outside = (table.rows < 0) | (table.rows >= rows)
    outside |= (table.columns < 0) | (table.columns >= columns)
    if outside.any():
        text = f"{int(outside.sum())} tiles lie outside the level's grid."
        faults.append(error("geometry", text, array=name))
    places = np.unique(np.stack([table.rows, table.columns], axis=1), axis=0)
    if len(places) < len(table.rows):
        text = f"{len(table.rows) - len(places)} tiles are stored twice."
        faults.append(error("metadata", text, array=name))
    used: set[int] = set()
    for row in range(len(reader)):
        used.update(reader.tiles(row))
    return used, faults


def _check_places(
    reader: WindowReader, view: SlideView, columns: Mapping[str, AnyArray]
) -> list[Finding]:
    """Windows lie where `x` and `y` say, moved by what the calibration of the levels says."""
    if not {"x", "y"} <= columns.keys() or not len(reader):
        return []
    factor = view.spec(view.tiled[0]).factor
    origins = np.stack([columns["x"], columns["y"]], axis=1) / factor
    moved = reader.table.corners - np.floor(origins + 1e-6)
    if isclose(float(np.ptp(moved, axis=0).max()), 0.0, abs_tol=1e-6):
        return []
    text = "its windows are not where the patches' x and y say."
    return [error("geometry", text, array="window_x, window_y")]


def _check_streams(reader: WindowReader, decode: bool) -> list[Finding]:
    broken: list[int] = []
    wrong: list[int] = []
    first = ""
    for number, digest in enumerate(reader.table.digests.tolist()):
        try:
            if not decode:
                reader.stored(number)
            elif tile_digest(reader.tile(number)) != digest:
                wrong.append(number)
        except CorruptStoreError as fault:
            broken.append(number)
            first = first or str(fault)
    faults = []
    if broken:
        text = f"{len(broken)} tiles cannot be read (numbers {shorten(broken)}): {first}"
        faults.append(error("checksum", text, array=reader.place.name))
    if wrong:
        text = f"{len(wrong)} tiles do not match their digest (numbers {shorten(wrong)})."
        faults.append(error("digest", text, array=reader.place.name))
    return faults
