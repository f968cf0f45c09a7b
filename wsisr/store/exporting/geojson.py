"""Where the pairs lie, as GeoJSON that QuPath opens over the slide.

One file a slide: a *tile* object a pair (light in QuPath, thousands are fine) in level-0 pixels of
QuPath's frame, which begins at OpenSlide's bounds; its class is the label or the split. Ids are
UUIDs of the keys, so that a second import is recognised.

Reference: qupath, `PathObjectTypeAdapters`.
"""

import json
import uuid
from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from wsisr.store.exporting.pair_records import Record
from wsisr.store.reader import PairStore

_SPLIT_COLOURS = {"train": [53, 121, 199], "val": [224, 159, 33], "test": [196, 64, 64]}
_NAMESPACE = uuid.UUID("3c1f4a52-6d1e-5b0a-9a44-0f5d8d4a7e10")


def write_geojson(store: PairStore, records: Iterator[Record], folder: Path) -> None:
    """Append the tiles of one split to the files of their slides; memory holds one tile."""
    for _, tiles in groupby(records, key=itemgetter("slide_index")):
        first = next(tiles)
        path = folder / f"{first['key'].rpartition('_r')[0]}.geojson"
        before = ",\n" if path.exists() else '{"type":"FeatureCollection","features":[\n'
        with open(path, "a", encoding="utf-8") as file:
            for record in chain((first,), tiles):
                file.write(before + json.dumps(_feature(store, record), separators=(",", ":")))
                before = ",\n"


def close_geojson(folder: Path) -> None:
    """End the files that `write_geojson` began."""
    for path in folder.glob("*.geojson"):
        with open(path, "a", encoding="utf-8") as file:
            file.write("\n]}\n")


def _feature(store: PairStore, record: Record) -> dict[str, Any]:
    view = store.slides[store.attributes["slides"][record["slide_index"]]]
    attributes: Any = view.attributes
    left, top = attributes.get("origin_px") or (0, 0)
    array = view.arrays[0]
    side = record[f"{array}_size_px"] * record[f"{array}_factor"]
    x, y = record["x"] - left, record["y"] - top
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    name = record["label"] or record["split"]
    numbers = {
        key: value
        for key, value in record.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, record["key"])),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "tile",
            "name": record["key"],
            "classification": {
                "name": name,
                "color": _SPLIT_COLOURS.get(record["split"], [120, 120, 120]),
            },
            "measurements": numbers,
            "metadata": {"split": record["split"], "patient": record["patient"]},
        },
    }
