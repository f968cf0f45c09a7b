"""An OME-Zarr 0.5 pyramid (Zarr v3) made from the tiles that a run has stored.

Planes lie apart (c, y, x: the specification wants spatial axes last). Inner chunks are the stored
tiles, compressed already: (3, 512, 512), or one plane of a grey image, zstd with a CRC-32C; a shard
holds 8 x 8 of them, so that a slide is some hundred files and not a hundred thousand.

Reference: https://ngff.openmicroscopy.org/0.5
"""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from wsisr.files import sync_tree
from wsisr.store.metadata import BYTES, CRC32C, Json, array_document, sharding_codec, to_json
from wsisr.store.shards import ABSENT, encode_index
from wsisr.upscaling.codecs import ZSTD_LEVEL

if TYPE_CHECKING:
    from wsisr.upscaling.sinks import Output
    from wsisr.upscaling.tiff_file import LevelImage

TILES = 8
"""Tiles along a side of a shard."""
_CHANNELS = {
    1: (("Grey", "FFFFFF"),),
    3: (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF")),
}
"""Name and colour."""
_ZSTD: Json = {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}


def write_ome_zarr(
    folder: Path, tiles: BinaryIO, levels: "list[LevelImage]", output: "Output"
) -> None:
    """Write the whole hierarchy into an empty folder; memory holds one tile.

    Parameters
    ----------
    tiles : binary file
        Where the levels' offsets point into.
    levels : list of LevelImage
        Finest first.
    """
    for index, level in enumerate(levels):
        _write_level(folder / str(index), tiles, level, output.codec.channels)
    attributes: dict[str, Any] = {"ome": _ome(levels, output)}
    attributes["wsisr"] = {"software": output.software, "description": output.description}
    if output.icc is not None:
        # OME-Zarr has no place for a profile; it is kept rather than lost.
        attributes["wsisr"]["icc_profile_base64"] = base64.b64encode(output.icc).decode("ascii")
    root = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (folder / "zarr.json").write_bytes(to_json(root))
    sync_tree(folder)


def _write_level(folder: Path, tiles: BinaryIO, level: "LevelImage", channels: int) -> None:
    tile, side = level.tile_px, level.tile_px * TILES
    columns, rows = -(-level.width_px // tile), -(-level.height_px // tile)
    for shard_row in range(-(-rows // TILES)):
        for shard_column in range(-(-columns // TILES)):
            path = folder / "c" / "0" / str(shard_row) / str(shard_column)
            path.parent.mkdir(parents=True, exist_ok=True)
            places = np.full((2, TILES, TILES), ABSENT, np.uint64)
            with open(path, "wb") as shard:
                for y in range(min(TILES, rows - shard_row * TILES)):
                    for x in range(min(TILES, columns - shard_column * TILES)):
                        at = (shard_row * TILES + y) * columns + shard_column * TILES + x
                        tiles.seek(int(level.offsets[at]))
                        data = tiles.read(int(level.byte_counts[at]))
                        places[:, y, x] = shard.tell(), len(data)
                        shard.write(data)
                shard.write(encode_index(places[0].ravel(), places[1].ravel()))
                shard.flush()
                os.fsync(shard.fileno())
    document = array_document(
        shape=(channels, level.height_px, level.width_px),
        dtype=np.dtype(np.uint8),
        chunk_shape=(channels, side, side),
        codecs=[sharding_codec((channels, tile, tile), [BYTES, _ZSTD, CRC32C])],
        attributes={},
        dimensions=("c", "y", "x"),
    )
    (folder / "zarr.json").write_bytes(to_json(document))


def _ome(levels: "list[LevelImage]", output: "Output") -> Json:
    unit = {} if output.um_per_px is None else {"unit": "micrometer"}
    datasets = []
    for index, level in enumerate(levels):
        x, y = level.um_per_px or (
            levels[0].width_px / level.width_px,
            levels[0].height_px / level.height_px,
        )
        scale = {"type": "scale", "scale": [1.0, y, x]}
        datasets.append({"path": str(index), "coordinateTransformations": [scale]})
    channels = [
        {
            "label": name,
            "color": colour,
            "active": True,
            "window": {"min": 0, "max": 255, "start": 0, "end": 255},
        }
        for name, colour in _CHANNELS[output.codec.channels]
    ]
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": output.path.name.partition(".")[0],
                "type": "mean",
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", "type": "space", **unit},
                    {"name": "x", "type": "space", **unit},
                ],
                "datasets": datasets,
            }
        ],
        "omero": {
            "channels": channels,
            "rdefs": {"model": "greyscale" if output.codec.grey else "color"},
        },
    }
