"""The record of a built store: everything that rebuilds it from the slides, and no pixel.

``pairs.report/record.json.gz`` holds the store's root attributes (the resolved manifest and the
package versions among them) and per slide its attributes, geometry, tissue mask and the table of
its pairs: place, certificate, digest. 12,000 pairs take a few MB, so that a data set of
licensed slides can be published. A slide's identity is the store's fingerprint (sizes and sampled
parts of its files, see `wsisr.slides.fingerprint`): reading terabytes for a full hash would prove
no more, because every rebuilt patch is compared with its own digest.
"""

import base64
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.building.layout import SlideTask
from wsisr.building.scan_records import Reading, ScanRecord, load_scan
from wsisr.errors import BuildError, damage_is_clear
from wsisr.files import replace_file
from wsisr.geometry import PatchGeometry
from wsisr.slides.stack import ImageStack
from wsisr.store import PairStore, open_pairs
from wsisr.store.layout import StorePaths, check_slide_id

FORMAT = "wsisr-record"
FORMAT_VERSION = 2
"""The newest; a record is of the format version of its store."""

_GEOMETRY = TypeAdapter(PatchGeometry)
_ENTRY = {"attributes": dict, "arrays": list, "columns": dict, "tissue": str, "geometry": dict}
_PACKED, _ALWAYS_BYTES = 50, 16 << 20
"""Text of a record packs about ten to one."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record that was read.

    Attributes
    ----------
    root : dict
        Root attributes of the store.
    slides : dict of slide id to dict
        Entries; see `slide_entry`.
    lacking : tuple of str
        Slides of the store without an entry; such a record rebuilds nothing.
    """

    root: dict[str, Any]
    slides: dict[str, dict[str, Any]]
    path: Path
    lacking: tuple[str, ...] = ()


def write_record(store_path: Path, scans: Path, tasks: Sequence[SlideTask]) -> Path:
    """Write the record of a finished store beside it.

    Parameters
    ----------
    scans : Path
        Scans of this build. Slides of earlier builds come from the record that they left.

    Returns
    -------
    Path
        The file; the same bytes for the same store.
    """
    store = open_pairs(store_path)
    path = StorePaths(store_path).record
    earlier = load_record(path).slides if path.is_file() else {}
    by_id = {task.slide_id: task for task in tasks}
    entries: dict[str, dict[str, Any]] = {}
    lacking = []
    for slide_id in store.slides:
        scan = load_scan(scans, slide_id)
        if scan is not None and slide_id in by_id:
            how = _how(scan, by_id[slide_id])
        elif slide_id in earlier:
            how = {key: earlier[slide_id][key] for key in ("geometry", "scans", "mpp", "stacked")}
        else:
            # Committed before records were written, or the record was deleted.
            lacking.append(slide_id)
            continue
        entries[slide_id] = how | slide_entry(store, slide_id)
    save_record(path, dict(store.attributes), entries, lacking)
    return path


def save_record(
    path: Path,
    root: Mapping[str, Any],
    slides: Mapping[str, Any],
    lacking: Sequence[str] = (),
) -> None:
    """Write a record: one line per slide, gzip without a time. `lacking` are slides of the store
    that it does not cover."""
    lines = [
        f'{{"format":"{FORMAT}","format_version":{int(root["format_version"])},',
        f'"lacking":{_json(list(lacking))},',
        f'"root":{_json(root)},',
        '"slides":{',
        ",\n".join(f"{_json(slide_id)}:{_json(slides[slide_id])}" for slide_id in sorted(slides)),
        "}}",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, gzip.compress("\n".join(lines).encode(), compresslevel=9, mtime=0))


def load_record(path: Path) -> Record:
    """Read a record, gzipped or plain.

    Raises
    ------
    BuildError
        If the file is missing, no record, or of a newer wsisr.
    """
    path = Path(path)
    try:
        body = json.loads(_read_limited(path))
    except FileNotFoundError:
        raise BuildError(f"{path}: there is no such record.") from None
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise BuildError(f"{path}: cannot be read as a record ({error}); copy it again.") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise BuildError(f"{path}: is no record of a pair store (record.json of its report).")
    if body.get("format_version") not in range(1, FORMAT_VERSION + 1):
        raise BuildError(
            f"{path}: record format {body.get('format_version')!r}; this wsisr reads up to "
            f"{FORMAT_VERSION}: pip install --upgrade wsisr."
        )
    with damage_is_clear(path, BuildError, "copy it again"):
        root, slides, lacking = body["root"], body["slides"], tuple(body.get("lacking", ()))
        manifest, versions, listed = root["manifest"], root["created_with"], root["slides"]
        for value in (manifest, versions):
            _check(value, dict)
        _check(root["format_version"], int)
        _check(listed, list)
        for slide_id, entry in slides.items():
            check_slide_id(slide_id)
            for name, of in _ENTRY.items():
                _check(entry[name], of)
            _check(entry["attributes"]["source"], str)
            _check(entry["attributes"]["fingerprint"], str)
    return Record(root=root, slides=slides, path=path, lacking=lacking)


def _read_limited(path: Path) -> bytes:
    """A record's text; what no record packs so tightly is no record, and is not unpacked."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.read_bytes()
    limit = _PACKED * path.stat().st_size + _ALWAYS_BYTES
    with gzip.open(path) as packed:
        data = packed.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it unpacks to more than {_PACKED} times its size, as no record does")
    return data


def _check(value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where there should be {kind.__name__}")


def slide_entry(store: PairStore, slide_id: str) -> dict[str, Any]:
    """What the store holds of a slide besides pixels: attributes, arrays, table and mask."""
    view = store.slides[slide_id]
    return {
        "attributes": dict(view.attributes),
        "arrays": [view.spec(name).attributes() for name in view.arrays],
        "columns": {name: pack_column(view.column(name)) for name in view.columns()},
        "tissue": pack_mask(view.tissue()),
    }


def _how(scan: ScanRecord, task: SlideTask) -> dict[str, Any]:
    """What the scan decided of how pixels are read."""
    return {
        "geometry": asdict(scan.geometry),
        "scans": scan.scans,
        "mpp": task.mpp,
        "stacked": isinstance(task.detail, ImageStack),
    }


def reading_of(entry: Mapping[str, Any]) -> Reading:
    """How the patches of an entry are read.

    Raises
    ------
    BuildError
        If the entry is damaged.
    """
    try:
        return Reading(geometry=_GEOMETRY.validate_python(entry["geometry"]), scans=entry["scans"])
    except (KeyError, ValidationError) as error:
        raise BuildError(f"The record is damaged: {error}") from None


def pack_column(values: AnyArray) -> dict[str, Any]:
    """A column as JSON that gives back its bits: floats in their shortest exact text."""
    if values.dtype.kind == "f":
        plain: list[Any] = [float(str(v)) if np.isfinite(v) else str(v) for v in values]
    elif values.dtype.kind == "b":
        plain = values.astype(np.uint8).tolist()
    else:
        plain = values.tolist()
    return {"dtype": values.dtype.newbyteorder("<").str, "values": plain}


def unpack_column(packed: Mapping[str, Any]) -> AnyArray:
    """Back from `pack_column`."""
    dtype = np.dtype(packed["dtype"])
    if dtype.kind == "f":
        values = np.array([float(v) for v in packed["values"]], np.float64)
        return values.astype(dtype)
    return np.array(packed["values"], dtype)


def pack_mask(mask: UInt8Array) -> str:
    """A mask of 0 and 1 as base64 of a TIFF in CCITT Group 4: a few kB for the largest slide, a
    third of what general compressors make of it."""
    from PIL import Image, TiffImagePlugin  # noqa: F401 - else Pillow loads every format

    out = io.BytesIO()
    Image.fromarray(mask > 0).save(out, "TIFF", compression="group4")
    return base64.b64encode(out.getvalue()).decode()


def unpack_mask(packed: str) -> UInt8Array:
    """Back from `pack_mask`."""
    from PIL import Image, TiffImagePlugin  # noqa: F401 - else Pillow loads every format

    with Image.open(io.BytesIO(base64.b64decode(packed)), formats=("TIFF",)) as image:
        return np.asarray(image).astype(np.uint8)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
