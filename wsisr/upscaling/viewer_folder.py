"""A side-by-side viewer as one static folder: opens from disk, asks no network for anything."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.files import remove_tree, save_picture
from wsisr.upscaling.codecs import Codec
from wsisr.upscaling.pyramid import halve

TILE_PX = 256
_ASSETS = ("index.html", "viewer.js", "openseadragon.min.js", "openseadragon.LICENSE.txt")


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewerPicture:
    """One image of the viewer; all of them show the same field, at any size.

    Attributes
    ----------
    name : str
        Shown to the user.
    rgb : ndarray, shape (h, w, 3), uint8
    """

    name: str
    rgb: UInt8Array


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewerLayer:
    """A map that can be laid over the pictures.

    Attributes
    ----------
    rgba : ndarray, shape (h, w, 4), uint8
    x, y, width, height : float
        The field it covers, px of the first picture.
    """

    name: str
    rgba: UInt8Array
    x: float
    y: float
    width: float
    height: float


def write_viewer(
    folder: Path,
    pictures: Sequence[ViewerPicture],
    *,
    title: str,
    note: str,
    layers: Sequence[ViewerLayer] = (),
) -> Path:
    """Write the folder; returns its ``index.html``.

    Parameters
    ----------
    folder : Path
        Made, or replaced.
    pictures : sequence of ViewerPicture
        The first two are shown first.
    layers : sequence of ViewerLayer
        Switched off at first.
    """
    remove_tree(folder)
    folder.mkdir(parents=True)
    assets = resources.files("wsisr.upscaling").joinpath("viewer")
    for name in _ASSETS:
        (folder / name).write_bytes(assets.joinpath(name).read_bytes())
    codec = Codec(name="jpeg", quality=92)
    images = []
    for number, picture in enumerate(pictures):
        levels = _write_tiles(folder / f"image-{number}", picture.rgb, codec)
        images.append(
            {
                "name": picture.name,
                "folder": f"image-{number}",
                "width": picture.rgb.shape[1],
                "height": picture.rgb.shape[0],
                "tile": TILE_PX,
                "levels": levels,
            }
        )
    maps = []
    side = pictures[0].rgb.shape[1]
    for number, layer in enumerate(layers):
        save_picture(folder / f"map-{number}.png", layer.rgba)
        # In widths of the picture, as the viewer counts.
        place = {key: getattr(layer, key) / side for key in ("x", "y", "width", "height")}
        maps.append({"name": layer.name, "file": f"map-{number}.png", **place})
    facts = {"title": title, "note": note, "images": images, "layers": maps}
    document = json.dumps(facts, indent=1)
    (folder / "images.js").write_text(f"const COMPARE = {document};\n", encoding="utf-8")
    return folder / "index.html"


def _write_tiles(folder: Path, rgb: UInt8Array, codec: Codec) -> int:
    """Deep-zoom tiles, finest level in folder 0; returns the number of levels."""
    level = 0
    while True:
        place = folder / str(level)
        place.mkdir(parents=True)
        for top in range(0, rgb.shape[0], TILE_PX):
            for left in range(0, rgb.shape[1], TILE_PX):
                tile = rgb[top : top + TILE_PX, left : left + TILE_PX]
                name = f"{left // TILE_PX}_{top // TILE_PX}.jpg"
                (place / name).write_bytes(codec.encode(tile))
        level += 1
        if max(rgb.shape[:2]) <= TILE_PX:
            return level
        # Deep Zoom rounds sizes up: an odd side keeps its last px.
        rgb = halve(
            np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
        )
