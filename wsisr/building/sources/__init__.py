"""Where pairs come from: the levels of one slide, two scans of one glass, ready-made images.

Each kind is one file that implements `Source`; the manifest says which it is.
"""

from wsisr.building.manifest import Manifest
from wsisr.building.records import Reading
from wsisr.building.sources.images import Images
from wsisr.building.sources.levels import Levels
from wsisr.building.sources.protocol import Pair, Source, Survey
from wsisr.building.sources.rescan import Rescan

__all__ = ["Pair", "Reading", "Source", "Survey", "source_kind"]


def source_kind(manifest: Manifest) -> type[Source]:
    """The kind of source that a manifest is about."""
    if manifest.images is not None:
        return Images
    return Levels if manifest.rescan is None else Rescan
