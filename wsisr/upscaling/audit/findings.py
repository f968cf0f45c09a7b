"""What an audit found, in sentences and as files."""

import json
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
import shapely.affinity
import tifffile
from defusedxml import ElementTree
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import AnyArray, BoolArray, Float32Array, Float64Array
from wsisr.geometry import Box
from wsisr.selection.annotation_formats.geojson import feature
from wsisr.selection.regions import mask_to_polygons
from wsisr.tables import csv_table
from wsisr.upscaling.audit.artefacts import INVENTED, LARGEST_PERIOD, OutputSeam, Pattern, Spectrum
from wsisr.upscaling.audit.grid import Grid
from wsisr.upscaling.audit.misfit import CELL_PX, LEAST_THRESHOLD, MOST_THRESHOLD, Chosen
from wsisr.upscaling.job import software
from wsisr.upscaling.ome import NAMESPACE, OmeFacts, ome_xml

MAP_NAME = "map.ome.tiff"
SIDES = ("improvement", "omission", "hallucination")
FIELDS = (
    "x", "y", "width", "height", "misfit_mean", "misfit_max", "places", "inconsistent", "beyond",
    "invented", "seams", "trusted", *SIDES, "nuclei_hr", "nuclei_sr", "vanished", "appeared",
)  # fmt: skip
CONTRADICTS, INVENTS, SEAM = "Contradicts the input", "Invented on glass", "Tile border"
UNTRUSTED = "Not trusted"
VANISHED, APPEARED = "Nucleus vanished", "Nucleus appeared"
"""Classes in QuPath."""
CLASS_COLOURS = {
    CONTRADICTS: (215, 25, 28),
    INVENTS: (200, 0, 200),
    SEAM: (0, 190, 190),
    UNTRUSTED: (245, 125, 21),
    VANISHED: (30, 90, 230),
    APPEARED: (20, 150, 40),
}
"""None of haematoxylin, eosin or glass."""


@dataclass(kw_only=True)
class Findings:
    """What is collected over the blocks, and then decided about all of them.

    Attributes
    ----------
    maps : dict
        A value for each place: the largest ``misfit``; ``beyond``, the detail (rms) that the input
        cannot carry; with a finer slide the means of `SIDES`; with a calibration ``doubt``, and
        ``trusted`` (1 or 0; NaN where glass was not judged).
    rows, boxes : list
        Of ``places.csv``, a block each, and the places of each block.
    spectrum : Spectrum
        Of tissue.
    vanished, appeared : list of ndarray, shape (N, 3)
        x, y and diameter in um of blobs: output px.
    nuclei : bool
        Whether they were looked for.
    tissue, glass : ndarray of bool
        Which places count, and which are empty; the fringe of tissue is neither.
    """

    scale: Fraction
    maps: dict[str, Float32Array]
    rows: list[dict[str, Any]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    seams: list[OutputSeam] = field(default_factory=list)
    spectrum: Spectrum = field(default_factory=Spectrum)
    pattern: Pattern = field(init=False)
    vanished: list[Float64Array] = field(default_factory=list)
    appeared: list[Float64Array] = field(default_factory=list)
    nuclei: bool = False
    tissue: BoolArray = field(default_factory=lambda: np.zeros((0, 0), bool))
    glass: BoolArray = field(default_factory=lambda: np.zeros((0, 0), bool))
    threshold: float = float("nan")

    def __post_init__(self) -> None:
        self.pattern = Pattern(step=self.scale)

    @property
    def misfit(self) -> Float32Array:
        """The largest of each place."""
        return self.maps["misfit"]

    @property
    def flagged(self) -> BoolArray:
        """Places that contradict the input, glass too."""
        return self.misfit > self.threshold

    @property
    def invented(self) -> BoolArray:
        """Places of glass that are not empty beyond what the input can carry."""
        found: BoolArray = (self.maps["beyond"] > INVENTED) & self.glass
        return found

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
            *self._by_itself(),
        ]
        return said + self._beside_finer()

    def _by_itself(self) -> list[str]:
        """Spectrum, pattern, tile borders, glass."""
        said = []
        beyond, plain = self.spectrum.beyond(float(self.scale))
        if np.isfinite(beyond):
            said.append(
                f"{beyond:.2%} of the variance of tissue lies beyond what the input can carry and "
                f"is the model's own, right or wrong (the enlarged input: {plain:.2%})."
            )
        if self.pattern.wrong:
            said.append(
                f"PATTERN: px repeat every {self.scale.numerator} px, "
                f"{self.pattern.amplitude:.2f} grey levels off: the trace of an upsampling layer."
            )
        elif self.pattern.looked:
            said.append(
                f"No pattern of the scale: px of one phase lie {self.pattern.amplitude:.2f} grey "
                "levels off at most."
            )
        else:
            said.append(
                "A pattern of the scale was not looked for: it would repeat every "
                f"{self.scale.numerator} px, and only 2 to {LARGEST_PERIOD} are looked at."
            )
        if self.seams:
            worst = max(self.seams, key=lambda seam: (seam.step, seam.ratio))
            said.append(
                f"SEAMS: along {len(self.seams)} straight lines the output jumps and its input "
                f"does not, the worst from px {worst.x0}, {worst.y0} ({worst.step:.1f} grey levels "
                f"in the mean, {worst.ratio:.1f} times the energy of steps nearby)."
            )
        elif any(row["seams"] is not None for row in self.rows):
            said.append("No line along which the output jumps as tiles do.")
        else:
            said.append("Tile borders were not looked for: the output is too small.")
        if self.glass.any():
            wrong = int((self.flagged & self.glass).sum())
            made = int(self.invented.sum())
            said.append(
                f"Of {int(self.glass.sum())} places of glass, {wrong} contradict the input and "
                f"{made} hold detail (above {INVENTED:g} grey levels) that it cannot carry."
            )
        else:
            said.append("What is made of empty glass was not looked at: no place is glass.")
        return said

    def _beside_finer(self) -> list[str]:
        if SIDES[0] not in self.maps:
            return [
                "Detail that the input cannot carry was not checked: that takes a finer slide "
                "(--hr)."
            ]
        parts = {side: self.maps[side] for side in SIDES}
        seen = {k: v[self.tissue & ~np.isnan(v)] for k, v in parts.items()}
        told = ", ".join(f"{side} {v.mean():.1%}" for side, v in seen.items() if v.size)
        said = [f"Against the finer slide, of what differs in tissue: {told or 'nothing differs'}."]
        if not self.nuclei:
            lacking = "Nuclei were not looked for: the resolution is unknown or too coarse."
            return [*said, lacking]
        total = {
            name: sum(row[name] for row in self.rows)
            for name in ("nuclei_hr", "nuclei_sr", "vanished", "appeared")
        }
        return [
            *said,
            f"Blobs of the size of nuclei: {total['vanished']} of {total['nuclei_hr']} vanished, "
            f"{total['appeared']} of {total['nuclei_sr']} appeared; two scans of one field differ "
            "by 2 to 6 % of them.",
        ]


def write_findings(
    folder: Path,
    found: Findings,
    grid: Grid,
    um_per_px: tuple[float, float] | None,
    document: dict[str, Any],
) -> None:
    """Write ``places.csv``, ``map.ome.tiff``, ``suspect.geojson`` and ``audit.json``.

    Parameters
    ----------
    um_per_px : (float, float) or None
        Of the input.
    document : dict
        What else ``audit.json`` says.
    """
    counted = {"inconsistent": found.flagged, "invented": found.invented}
    if "trusted" in found.maps:
        counted["trusted"] = found.maps["trusted"] == 1
    for row, cells in zip(found.rows, found.boxes, strict=True):
        row |= {name: int(places[cells.slices].sum()) for name, places in counted.items()}
    (folder / "places.csv").write_bytes(csv_table(FIELDS, found.rows, ".4g"))
    pixel = None if um_per_px is None else (um_per_px[0] * CELL_PX, um_per_px[1] * CELL_PX)
    _write_map(folder / MAP_NAME, found.maps, pixel)
    collection = {"type": "FeatureCollection", "features": _features(found, grid)}
    (folder / "suspect.geojson").write_text(json.dumps(collection), encoding="utf-8")
    summary = {
        "format": "wsisr-audit",
        "format_version": 2,
        **document,
        "threshold": found.threshold,
        "places": int(found.tissue.sum()),
        "inconsistent": found.inconsistent,
        "invented_on_glass": int(found.invented.sum()),
        "pattern": {
            "looked_for": found.pattern.looked,
            "period_px": found.scale.numerator,
            "amplitude": found.pattern.amplitude if found.pattern.looked else None,
            "wrong": found.pattern.wrong,
        },
        "seams": [asdict(seam) for seam in found.seams],
        "spectrum": {**found.spectrum.record(), "scale": float(found.scale)},
        "place_px": CELL_PX * grid.num / grid.den,
        "wsisr": software(),
    }
    (folder / "audit.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _features(found: Findings, grid: Grid) -> list[dict[str, Any]]:
    """Pieces that contradict the input or are invented, seams, and nuclei; px of the output."""
    features = [
        *_pieces(grid, found.flagged, found.misfit, CONTRADICTS, "misfit"),
        *_pieces(grid, found.invented, found.maps["beyond"], INVENTS, "detail"),
    ]
    if "trusted" in found.maps:
        untrusted = found.maps["trusted"] == 0
        features += _pieces(grid, untrusted, found.maps["doubt"], UNTRUSTED, "doubt")
    for seam in found.seams:
        line = shapely.LineString([(seam.x0, seam.y0), (seam.x1, seam.y1)])
        features.append(_found(line, SEAM, f"{seam.ratio:.2f} times, {seam.step:.1f} grey levels"))
    for label, places in ((VANISHED, found.vanished), (APPEARED, found.appeared)):
        points = np.concatenate(places)[:, :2] if places else np.zeros((0, 2))
        if len(points):
            features.append(_found(shapely.multipoints(points), label))
    return features


def _found(geometry: BaseGeometry, label: str, name: str = "") -> dict[str, Any]:
    return feature(geometry, label, name, CLASS_COLOURS[label])


def _pieces(
    grid: Grid, mask: BoolArray, values: Float32Array, label: str, called: str
) -> list[dict[str, Any]]:
    """Connected places as polygons, each with the largest of its values."""
    if not mask.any():
        return []
    side, shift = CELL_PX * grid.num / grid.den, grid.made(grid.area)
    # Pieces are numbered as `mask_to_polygons` orders them.
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    worst = ndimage.maximum(values, labels, np.arange(1, count))
    made = []
    for polygon, value in zip(mask_to_polygons(mask, side), worst, strict=True):
        moved = shapely.affinity.translate(polygon, shift.x, shift.y)
        made.append(_found(moved, label, f"{called} {value:.2f}"))
    return made


def _write_map(
    path: Path, maps: dict[str, Float32Array], um_per_px: tuple[float, float] | None
) -> None:
    """All maps as the channels of one OME-TIFF."""
    height, width = next(iter(maps.values())).shape
    facts = OmeFacts(
        name="audit",
        width_px=width,
        height_px=height,
        um_per_px=um_per_px,
        magnification=None,
        notice=f"one px for each place of {CELL_PX} input px; not for diagnosis",
        provenance={"wsisr": software()},
        channels=1,
        planes=tuple(maps),
        type="float",
    )
    with tifffile.TiffWriter(path) as file:
        for number, values in enumerate(maps.values()):
            file.write(
                values,
                description=None if number else ome_xml(facts),
                metadata=None,
                compression="zlib",
                photometric="minisblack",
                tile=(256, 256),
                software=software(),
            )


def map_top(name: str, values: AnyArray, threshold: float) -> float:
    """Grey levels that a map is drawn up to.

    What contradicts the input is not left in the dark by one place that does so by far.
    """
    top = max(2.0, float(np.ceil(np.nanpercentile(values, 99.9))))
    return min(top, float(np.ceil(4 * threshold))) if name == "misfit" else top


def read_maps(folder: Path) -> dict[str, Float32Array]:
    """The maps of an audit by name; ValueError where the file is none of an audit."""
    with tifffile.TiffFile(folder / MAP_NAME) as file:
        root = ElementTree.fromstring((file.ome_metadata or "").encode())
        names = [str(c.get("Name")) for c in root.iter(f"{{{NAMESPACE}}}Channel")]
        if len(names) != len(file.pages):
            raise ValueError(f"{MAP_NAME} has {len(file.pages)} pages and {len(names)} names")
        return {name: page.asarray() for name, page in zip(names, file.pages, strict=True)}
