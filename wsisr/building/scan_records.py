"""What a scan found on a slide, as a JSON file that later phases and later days read.

The file is written last and by rename, so a scan that exists is whole.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import TypeAdapter, ValidationError

from wsisr.arrays import BoolArray, Int64Array
from wsisr.errors import BuildError
from wsisr.files import replace_file
from wsisr.geometry import PatchGeometry
from wsisr.slides.protocol import SlideInfo

SCAN_FORMAT = 3
RULES = 4
"""Version of what decides about slides besides the manifest: ids, patients, labels, tissue, colour
and the choice of LR. Written into the store's root; 1 where a store says nothing (ids without
suffix, LR always from a stored level, colours by tags); 2 knew patients by names that begin with
TCGA alone, and outlines by the stem of a slide wherever they lay."""


@dataclass(frozen=True, kw_only=True)
class RankedCandidates:
    """Places that passed every rule of the scan, best rank first.

    Attributes
    ----------
    x, y : tuple of int
        Level-0 origin of the field of view.
    label : tuple of int
        Index into the manifest's classes; -1 for none or a mixture.
    label_fraction : tuple of float
        Share of the labelled class in the field.
    tissue : tuple of float
        Share of tissue in the field.
    texture : tuple of float
        Structure of the tissue overview in the field.
    """

    x: tuple[int, ...] = ()
    y: tuple[int, ...] = ()
    label: tuple[int, ...] = ()
    label_fraction: tuple[float, ...] = ()
    tissue: tuple[float, ...] = ()
    texture: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def origins(self) -> Int64Array:
        """Shape (n, 2): x, y."""
        return np.array([self.x, self.y], np.int64).T.reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the pixels of a slide's patches are found: all that reading needs besides places.

    Attributes
    ----------
    geometry : PatchGeometry
        With every layer moved to where the slide's calibration says.
    scans : dict or None
        The registration of two scans (`wsisr.registration.ScanRegistration`).
    flags : dict of str to str
        What the evidence says against an LR: of a stored one that is used all the same, or of
        the stored one in whose place another was made. Empty where nothing does.
    """

    geometry: PatchGeometry
    scans: dict[str, Any] | None = None
    flags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """One slide after the scan.

    Attributes
    ----------
    draw_key : str
        What its random draws hang on.
    identity : str
        Hash of what the scan depends on; another one makes the record void.
    info : SlideInfo
        Of the file whose level 0 counts places, as the chosen backend reports it.
    fingerprints : tuple of str
        Of all its files (two scans have two).
    icc : str
        ``"keep"`` or ``"srgb"``.
    transforms : tuple of dict
        Measured place of every level in use (`wsisr.registration.LevelTransform`).
    scans : dict or None
        The registration of two scans; see `Reading`.
    evidence : tuple of dict
        What each stored level is against a reduced level 0 (design 3.7).
    tissue : dict
        Health numbers of the mask.
    overview_px : int
        Level-0 width that the overview picture spans.
    funnel : dict of str to int
        How many places were left after each rule, in order.
    notes : tuple of str
        Sentences for the summary.
    extras : dict
        More attributes of the slide in the store, and values that replace others.
    """

    slide_id: str
    draw_key: str
    identity: str
    info: SlideInfo
    geometry: PatchGeometry
    icc: str
    fingerprints: tuple[str, ...] = ()
    transforms: tuple[dict[str, Any], ...] = ()
    scans: dict[str, Any] | None = None
    evidence: tuple[dict[str, Any], ...] = ()
    tissue: dict[str, Any] = field(default_factory=dict)
    tissue_um_per_px: float = 8.0
    overview_px: int = 0
    funnel: dict[str, int] = field(default_factory=dict)
    candidates: RankedCandidates = RankedCandidates()
    notes: tuple[str, ...] = ()
    extras: dict[str, Any] = field(default_factory=dict)
    format: int = SCAN_FORMAT

    @property
    def reading(self) -> Reading:
        return Reading(geometry=self.geometry, scans=self.scans)


_ADAPTER = TypeAdapter(ScanRecord)


def scan_path(folder: Path, slide_id: str) -> Path:
    return folder / f"{slide_id}.json"


def mask_path(folder: Path, slide_id: str) -> Path:
    return folder / f"{slide_id}.tissue.png"


def save_scan(folder: Path, record: ScanRecord, mask: BoolArray) -> None:
    """Write the mask, then the record that vouches for it."""
    folder.mkdir(parents=True, exist_ok=True)
    encoded, png = cv2.imencode(".png", mask.view(np.uint8) * np.uint8(255))
    if not encoded:
        raise BuildError(f"{record.slide_id}: the tissue mask could not be encoded.")
    replace_file(mask_path(folder, record.slide_id), png.tobytes())
    replace_file(scan_path(folder, record.slide_id), _ADAPTER.dump_json(record, warnings="error"))


def load_scan(folder: Path, slide_id: str) -> ScanRecord | None:
    """The record of an earlier scan, or None where there is none or it is of another format."""
    path = scan_path(folder, slide_id)
    try:
        text = path.read_bytes()
        if json.loads(text).get("format") != SCAN_FORMAT:
            return None
        return _ADAPTER.validate_json(text)
    except FileNotFoundError:
        return None
    except (ValueError, ValidationError, AttributeError):
        return None


def load_mask(folder: Path, slide_id: str) -> BoolArray:
    path = mask_path(folder, slide_id)
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise BuildError(f"{path}: the tissue mask of the scan is gone; run the build again.")
    kept: BoolArray = mask.view(np.bool_)
    return np.greater(mask, 127, out=kept)  # in place: of a large slide each copy counts
