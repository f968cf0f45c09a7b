"""Checks of HR that is kept as a slide's own tiles: table, windows, streams and their pixels."""

from collections.abc import Mapping
from math import isclose

import numpy as np

from wsisr.arrays import AnyArray
from wsisr.errors import CorruptStoreError
from wsisr.store.findings import Finding, error, shorten
from wsisr.store.slide_view import SlideView
from wsisr.store.tile_array import tile_digest
from wsisr.store.window_reader import WindowReader


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
