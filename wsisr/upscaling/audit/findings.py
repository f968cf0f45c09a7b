"""What an audit found, in sentences and as files."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
import shapely.affinity
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from wsisr.geometry import Box
from wsisr.selection.annotation_formats.geojson import feature
from wsisr.selection.regions import mask_to_polygons
from wsisr.tables import csv_table
from wsisr.upscaling.audit.grid import Grid
from wsisr.upscaling.audit.misfit import CELL_PX, LEAST_THRESHOLD, MOST_THRESHOLD, Chosen, FloatMap
from wsisr.upscaling.job import software
from wsisr.upscaling.ome import OmeFacts, ome_xml

SIDES = ("improvement", "omission", "hallucination")
FIELDS = (
    "x", "y", "width", "height", "misfit_mean", "misfit_max", "places", "inconsistent",
    *SIDES, "nuclei_hr", "nuclei_sr", "vanished", "appeared",
)  # fmt: skip
CONTRADICTS, VANISHED, APPEARED = "Contradicts the input", "Nucleus vanished", "Nucleus appeared"
"""Classes in QuPath."""


@dataclass(kw_only=True)
class Findings:
    """What is collected over the blocks, and then decided about all of them.

    Attributes
    ----------
    misfit : ndarray
        The largest of each place.
    sides : dict
        Means over each place of improvement, omission and hallucination; empty without HR.
    rows, boxes : list
        Of ``places.csv``, a block each, and the places of each block.
    vanished, appeared : list of ndarray, shape (N, 3)
        x, y and diameter in um of blobs: output px.
    nuclei : bool
        Whether they were looked for.
    tissue : ndarray of bool
        Which places count.
    threshold : float
    """

    misfit: FloatMap
    sides: dict[str, FloatMap] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    vanished: list[NDArray[np.float64]] = field(default_factory=list)
    appeared: list[NDArray[np.float64]] = field(default_factory=list)
    nuclei: bool = False
    tissue: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))
    threshold: float = float("nan")

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Places that contradict the input, glass too."""
        return self.misfit > self.threshold

    @property
    def inconsistent(self) -> int:
        """Those of tissue."""
        return int((self.flagged & self.tissue).sum())

    def sentences(self, chosen: Chosen, given: bool) -> list[str]:
        """For people; `given` says whether the threshold was the user's."""
        places, bad = int(self.tissue.sum()), self.inconsistent
        how = "unlike the rest of this slide"
        if given:
            how = "as given"
        elif self.threshold == LEAST_THRESHOLD:
            how = "more than rounding and compression make"
        elif self.threshold == MOST_THRESHOLD:
            how = "more than any place may, though much of this slide has it"
        said = [
            f"{bad} of {places} places of tissue ({bad / places:.2%}) contradict the input: misfit "
            f"above {self.threshold:.2f} grey levels ({how}).",
            f"Looked at through {chosen.degradation.name}, {chosen.why}; degraded output and input "
            f"differ by {chosen.rms:.2f} grey levels (rms).",
        ]
        glass = ~self.tissue
        if glass.any():
            wrong = int((self.flagged & glass).sum())
            said.append(f"Of {int(glass.sum())} places of glass, {wrong} contradict it.")
        if not self.sides:
            said.append(
                "Detail that the input cannot carry was not checked: that takes a finer slide "
                "(--hr)."
            )
            return said
        seen = {k: v[self.tissue & ~np.isnan(v)] for k, v in self.sides.items()}
        told = ", ".join(f"{side} {v.mean():.1%}" for side, v in seen.items() if v.size)
        said.append(
            f"Against the finer slide, of what differs in tissue: {told or 'nothing differs'}."
        )
        if not self.nuclei:
            said.append("Nuclei were not looked for: the resolution is unknown or too coarse.")
            return said
        total = {
            name: sum(row[name] for row in self.rows)
            for name in ("nuclei_hr", "nuclei_sr", "vanished", "appeared")
        }
        said.append(
            f"Blobs of the size of nuclei: {total['vanished']} of {total['nuclei_hr']} vanished, "
            f"{total['appeared']} of {total['nuclei_sr']} appeared; two scans of one field differ "
            "by 2 to 6 % of them."
        )
        return said


def write_findings(
    folder: Path,
    found: Findings,
    grid: Grid,
    um_per_px: tuple[float, float] | None,
    document: dict[str, Any],
) -> None:
    """Write ``places.csv``, a map for each number, ``suspect.geojson`` and ``audit.json``.

    Parameters
    ----------
    folder : Path
    found : Findings
    grid : Grid
    um_per_px : (float, float) or None
        Of the input.
    document : dict
        What else ``audit.json`` says.
    """
    flagged = found.flagged
    for row, cells in zip(found.rows, found.boxes, strict=True):
        row["inconsistent"] = int(flagged[cells.y : cells.bottom, cells.x : cells.right].sum())
    (folder / "places.csv").write_bytes(csv_table(FIELDS, found.rows, ".4g"))
    pixel = None if um_per_px is None else (um_per_px[0] * CELL_PX, um_per_px[1] * CELL_PX)
    for name, values in {"misfit": found.misfit, **found.sides}.items():
        _write_map(folder / f"{name}.ome.tiff", name, values, pixel)
    collection = {"type": "FeatureCollection", "features": _features(found, grid)}
    (folder / "suspect.geojson").write_text(json.dumps(collection), encoding="utf-8")
    summary = {
        "format": "wsisr-audit",
        "format_version": 1,
        **document,
        "threshold": found.threshold,
        "places": int(found.tissue.sum()),
        "inconsistent": found.inconsistent,
        "place_px": CELL_PX * grid.num / grid.den,
        "wsisr": software(),
    }
    (folder / "audit.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _features(found: Findings, grid: Grid) -> list[dict[str, Any]]:
    """Pieces that contradict the input, and nuclei, in px of the output."""
    side = CELL_PX * grid.num / grid.den
    shift = grid.made(grid.area)
    # Pieces are numbered as `mask_to_polygons` orders them.
    count, labels = cv2.connectedComponents(found.flagged.astype(np.uint8), connectivity=4)
    worst = ndimage.maximum(found.misfit, labels, np.arange(1, count))
    features = []
    for polygon, value in zip(mask_to_polygons(found.flagged, side), worst, strict=True):
        moved = shapely.affinity.translate(polygon, shift.x, shift.y)
        features.append(feature(moved, CONTRADICTS, f"misfit {value:.2f}"))
    for label, places in ((VANISHED, found.vanished), (APPEARED, found.appeared)):
        points = np.concatenate(places)[:, :2] if places else np.zeros((0, 2))
        if len(points):
            features.append(feature(shapely.multipoints(points), label))
    return features


def _write_map(
    path: Path, name: str, values: FloatMap, um_per_px: tuple[float, float] | None
) -> None:
    facts = OmeFacts(
        name=name,
        width_px=values.shape[1],
        height_px=values.shape[0],
        um_per_px=um_per_px,
        magnification=None,
        notice=f"{name} of each place of {CELL_PX} input px",
        provenance={"wsisr": software()},
        channels=1,
        type="float",
    )
    with tifffile.TiffWriter(path) as file:
        file.write(
            values,
            description=ome_xml(facts),
            metadata=None,
            compression="zlib",
            photometric="minisblack",
            tile=(256, 256),
            software=software(),
        )
