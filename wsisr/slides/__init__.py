"""Open any slide and read its stored pixels exactly.

Names are loaded at first use, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.slides.colour import colour_check as colour_check
    from wsisr.slides.discovery import Listing as Listing
    from wsisr.slides.discovery import SlideSource as SlideSource
    from wsisr.slides.discovery import find_slides as find_slides
    from wsisr.slides.discovery import list_source as list_source
    from wsisr.slides.evidence import LevelEvidence as LevelEvidence
    from wsisr.slides.evidence import level_evidence as level_evidence
    from wsisr.slides.extraction import iter_patches as iter_patches
    from wsisr.slides.ids import sanitise_id as sanitise_id
    from wsisr.slides.leftout import LeftOut as LeftOut
    from wsisr.slides.leftout import describe_left_out as describe_left_out
    from wsisr.slides.opening import judge_slide as judge_slide
    from wsisr.slides.opening import open_slide as open_slide
    from wsisr.slides.protocol import Compression as Compression
    from wsisr.slides.protocol import Level as Level
    from wsisr.slides.protocol import ReaderVerdict as ReaderVerdict
    from wsisr.slides.protocol import Slide as Slide
    from wsisr.slides.protocol import SlideInfo as SlideInfo
    from wsisr.slides.reading import read_layer as read_layer
    from wsisr.slides.reading import read_layer_validity as read_layer_validity
    from wsisr.slides.resample import read_resampled as read_resampled
    from wsisr.slides.resample import reduce_image as reduce_image

_HOME = {
    "Compression": "protocol",
    "Level": "protocol",
    "LeftOut": "leftout",
    "LevelEvidence": "evidence",
    "Listing": "discovery",
    "ReaderVerdict": "protocol",
    "Slide": "protocol",
    "SlideInfo": "protocol",
    "SlideSource": "discovery",
    "colour_check": "colour",
    "describe_left_out": "leftout",
    "find_slides": "discovery",
    "iter_patches": "extraction",
    "judge_slide": "opening",
    "level_evidence": "evidence",
    "list_source": "discovery",
    "open_slide": "opening",
    "read_layer": "reading",
    "read_layer_validity": "reading",
    "read_resampled": "resample",
    "reduce_image": "resample",
    "sanitise_id": "ids",
}

__all__ = [
    "Compression",
    "LeftOut",
    "Level",
    "LevelEvidence",
    "Listing",
    "ReaderVerdict",
    "Slide",
    "SlideInfo",
    "SlideSource",
    "colour_check",
    "describe_left_out",
    "find_slides",
    "iter_patches",
    "judge_slide",
    "level_evidence",
    "list_source",
    "open_slide",
    "read_layer",
    "read_layer_validity",
    "read_resampled",
    "reduce_image",
    "sanitise_id",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wsisr.slides.{_HOME[name]}"), name)
    raise AttributeError(f"module 'wsisr.slides' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
