"""The maps of an audit as layers over pictures of its output."""

from math import ceil, floor
from pathlib import Path

import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.drawing.sheets import enlarged, heat
from wsisr.files import read_document
from wsisr.geometry import Box
from wsisr.upscaling.audit.findings import CLASS_COLOURS, UNTRUSTED, map_top, read_maps
from wsisr.upscaling.viewer_folder import ViewerLayer

TITLES = {
    "misfit": "misfit",
    "trusted": "not trusted",
    "beyond": "detail beyond the input",
    "hallucination": "hallucination",
    "omission": "omission",
}
LONGEST_PX = 2048


def audit_layers(folder: Path, view: Box) -> list[ViewerLayer]:
    """Those of a part of the output.

    Parameters
    ----------
    folder : Path
        Of the audit.
    view : Box
        What the pictures show, px of the output file.
    """
    found = read_document(folder / "audit.json", "an audit", "wsisr-audit")
    area, side = Box(**found["area_px"]), float(found["place_px"])
    first = floor((view.y - area.y) / side), floor((view.x - area.x) / side)
    last = ceil((view.bottom - area.y) / side), ceil((view.right - area.x) / side)
    (top, left), (bottom, right) = (max(0, v) for v in first), last
    layers = []
    for name, values in read_maps(folder).items():
        part = values[top:bottom, left:right]
        if name not in TITLES or not part.size:
            continue
        top_value = 1.0
        if name in ("misfit", "beyond"):
            top_value = map_top(name, values, float(found["threshold"]))
        rgba = _untrusted(part) if name == "trusted" else _coloured(part, top_value)
        times = max(1, min(16, LONGEST_PX // max(part.shape)))
        size = part.shape[0] * times, part.shape[1] * times
        x, y = area.x + left * side, area.y + top * side
        # The last places of a side are narrower.
        shown = [round(v / side * times) for v in (area.bottom - y, area.right - x)]
        cut = np.s_[: shown[0], : shown[1]]
        grown = np.dstack([enlarged(rgba[..., i], *size)[cut] for i in range(4)])
        layers.append(
            ViewerLayer(
                name=TITLES[name],
                # Each place stays one square, whatever a viewer smooths.
                rgba=grown,
                x=x - view.x,
                y=y - view.y,
                width=grown.shape[1] * side / times,
                height=grown.shape[0] * side / times,
            )
        )
    return layers


def _coloured(part: Float32Array, top: float) -> UInt8Array:
    """As on the page; where there is nothing to see, the picture is as it was."""
    share = np.clip(np.nan_to_num(part.astype(np.float64)) / top, 0.0, 1.0)
    return np.dstack((heat(share, 1.0), (230 * share).astype(np.uint8)))


def _untrusted(part: Float32Array) -> UInt8Array:
    colour = np.broadcast_to(np.array(CLASS_COLOURS[UNTRUSTED], np.uint8), (*part.shape, 3))
    return np.dstack((colour, np.where(part == 0, 130, 0).astype(np.uint8)))
