"""One way to run a network, for validation, evaluation and upscaling alike.

`open_trained` says what a trained model on disk is, `load` makes a network of it that is ready to
run on a device, `plan_tiles` how it is tiled, and `super_resolve` gives the pixels of images in
memory: those that `wsisr upscale` writes. Names are loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.inference.images import super_resolve as super_resolve
    from wsisr.inference.loading import load as load
    from wsisr.inference.loading import load_network as load_network
    from wsisr.inference.network import Network as Network
    from wsisr.inference.tiles import TilePlan as TilePlan
    from wsisr.inference.tiles import plan_tiles as plan_tiles
    from wsisr.inference.trained import TrainedModel as TrainedModel
    from wsisr.inference.trained import open_trained as open_trained

_HOME = {
    "Network": "network",
    "TilePlan": "tiles",
    "TrainedModel": "trained",
    "load": "loading",
    "load_network": "loading",
    "open_trained": "trained",
    "plan_tiles": "tiles",
    "super_resolve": "images",
}

__all__ = [
    "Network",
    "TilePlan",
    "TrainedModel",
    "load",
    "load_network",
    "open_trained",
    "plan_tiles",
    "super_resolve",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wsisr.inference.{_HOME[name]}"), name)
    raise AttributeError(f"module 'wsisr.inference' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
