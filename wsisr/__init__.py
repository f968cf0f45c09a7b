"""wsisr: whole-slide images in, trustworthy super-resolution pairs, models and slides out.

Importing this package is fast and imports neither torch nor any slide library:
the few names offered here are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wsisr.slides import open_slide as open_slide
    from wsisr.store import open_pairs as open_pairs

_LAZY = {"open_pairs": "wsisr.store", "open_slide": "wsisr.slides"}

__all__ = ["__version__", "open_pairs", "open_slide"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'wsisr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
