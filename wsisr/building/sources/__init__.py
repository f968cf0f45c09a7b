"""Where pairs come from: the levels of one slide, two scans of one glass, ready-made images.

Each kind is one file that implements `Source`; the manifest says which it is.
"""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import Reading
from wsisr.building.sources.protocol import ReadPair, Source, Survey
from wsisr.errors import WsisrError

__all__ = [
    "ReadPair",
    "Reading",
    "Source",
    "Survey",
    "fingerprints",
    "recorded_fingerprints",
    "source_kind",
]


def source_kind(manifest: Manifest) -> type[Source]:
    """The kind of source that a manifest is about; the others are not even imported."""
    if manifest.images is not None:
        from wsisr.building.sources.images import Images

        return Images
    if manifest.rescan is not None:
        from wsisr.building.sources.rescan import Rescan

        return Rescan
    from wsisr.building.sources.levels import Levels

    return Levels


def fingerprints(task: SlideTask, manifest: Manifest) -> tuple[str, ...]:
    """Of every file of a slide as it is now; empty where one cannot be opened."""
    try:
        with closing(source_kind(manifest).open(task, manifest)) as source:
            return tuple(slide.info.fingerprint for slide in source.slides)
    except WsisrError:
        return ()


def recorded_fingerprints(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The same as a store's slide has them."""
    scans = [attributes[key] for key in ("hr_scan",) if key in attributes]
    return (str(attributes["fingerprint"]), *(str(scan["fingerprint"]) for scan in scans))
