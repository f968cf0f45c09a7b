"""Apply a model to whole slides: streamed, tiled, blended, as pyramids that every viewer opens.

Names are loaded at first use, so that importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.upscaling.batch import UpscaleRequest as UpscaleRequest
    from wsisr.upscaling.batch import UpscaleSummary as UpscaleSummary
    from wsisr.upscaling.batch import upscale as upscale
    from wsisr.upscaling.compare import compare_slides as compare_slides
    from wsisr.upscaling.job import UpscaleOptions as UpscaleOptions
    from wsisr.upscaling.pipeline import UpscaleResult as UpscaleResult
    from wsisr.upscaling.pipeline import upscale_slide as upscale_slide
    from wsisr.upscaling.seams import SeamEnergy as SeamEnergy
    from wsisr.upscaling.seams import seam_energy as seam_energy

_HOME = {
    "SeamEnergy": "seams",
    "UpscaleOptions": "job",
    "UpscaleRequest": "batch",
    "UpscaleResult": "pipeline",
    "UpscaleSummary": "batch",
    "compare_slides": "compare",
    "seam_energy": "seams",
    "upscale": "batch",
    "upscale_slide": "pipeline",
}

__all__ = [
    "SeamEnergy",
    "UpscaleOptions",
    "UpscaleRequest",
    "UpscaleResult",
    "UpscaleSummary",
    "compare_slides",
    "seam_energy",
    "upscale",
    "upscale_slide",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wsisr.upscaling.{_HOME[name]}"), name)
    raise AttributeError(f"module 'wsisr.upscaling' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
