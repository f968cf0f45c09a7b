"""Slides with known truth, and the suites that a third-party part can be checked with.

- `SlideSpec`, `write_slide`, `SlideTruth`: one synthetic H&E slide (`wsisr.testing.slides`);
- `write_camelyon16_like`: a whole CAMELYON16-like folder (`wsisr.testing.camelyon`);
- `write_rescan`, `RescanSpec`: a second scan of the same glass (`wsisr.testing.rescan`);
- `BackendTests`: what every slide backend must pass (`wsisr.testing.conformance`).

Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.testing.camelyon import write_camelyon16_like as write_camelyon16_like
    from wsisr.testing.conformance import BackendTests as BackendTests
    from wsisr.testing.levels import LevelShift as LevelShift
    from wsisr.testing.rescan import RescanSpec as RescanSpec
    from wsisr.testing.rescan import RescanTruth as RescanTruth
    from wsisr.testing.rescan import write_rescan as write_rescan
    from wsisr.testing.scene import Pen as Pen
    from wsisr.testing.scene import Scene as Scene
    from wsisr.testing.slides import write_slide as write_slide
    from wsisr.testing.spec import SlideSpec as SlideSpec
    from wsisr.testing.spec import pen_stroke as pen_stroke
    from wsisr.testing.spec import sparse_spec as sparse_spec
    from wsisr.testing.spec import spec_around as spec_around
    from wsisr.testing.stored import StoredSlide as StoredSlide
    from wsisr.testing.truth import LevelTruth as LevelTruth
    from wsisr.testing.truth import SlideTruth as SlideTruth

_LAZY = {
    "BackendTests": "wsisr.testing.conformance",
    "LevelShift": "wsisr.testing.levels",
    "LevelTruth": "wsisr.testing.truth",
    "Pen": "wsisr.testing.scene",
    "RescanSpec": "wsisr.testing.rescan",
    "RescanTruth": "wsisr.testing.rescan",
    "Scene": "wsisr.testing.scene",
    "SlideSpec": "wsisr.testing.spec",
    "SlideTruth": "wsisr.testing.truth",
    "StoredSlide": "wsisr.testing.stored",
    "pen_stroke": "wsisr.testing.spec",
    "sparse_spec": "wsisr.testing.spec",
    "spec_around": "wsisr.testing.spec",
    "write_camelyon16_like": "wsisr.testing.camelyon",
    "write_rescan": "wsisr.testing.rescan",
    "write_slide": "wsisr.testing.slides",
}

__all__ = [
    "BackendTests",
    "LevelShift",
    "LevelTruth",
    "Pen",
    "RescanSpec",
    "RescanTruth",
    "Scene",
    "SlideSpec",
    "SlideTruth",
    "StoredSlide",
    "pen_stroke",
    "sparse_spec",
    "spec_around",
    "write_camelyon16_like",
    "write_rescan",
    "write_slide",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'wsisr.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
