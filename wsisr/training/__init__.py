"""Training: one readable loop, exact resume, every draw a function of (seed, step, slot).

``wsisr train --model mihatp`` is `train`; `open_run` and `find_runs` read what it leaves, and
`PairDataset` is a pair store as a torch Dataset. Nothing here needs a slide library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.inference.trained import find_runs as find_runs
    from wsisr.inference.trained import open_run as open_run
    from wsisr.training.config import TrainConfig as TrainConfig
    from wsisr.training.data import PairDataset as PairDataset
    from wsisr.training.engine import Outcome as Outcome
    from wsisr.training.errors import TrainingError as TrainingError
    from wsisr.training.presets import resolve_config as resolve_config
    from wsisr.training.request import TrainRequest as TrainRequest
    from wsisr.training.start import train as train

_LAZY = {
    "Outcome": "wsisr.training.engine",
    "PairDataset": "wsisr.training.data",
    "TrainConfig": "wsisr.training.config",
    "TrainRequest": "wsisr.training.request",
    "TrainingError": "wsisr.training.errors",
    "find_runs": "wsisr.inference.trained",
    "open_run": "wsisr.inference.trained",
    "resolve_config": "wsisr.training.presets",
    "train": "wsisr.training.start",
}

__all__ = [
    "Outcome",
    "PairDataset",
    "TrainConfig",
    "TrainRequest",
    "TrainingError",
    "find_runs",
    "open_run",
    "resolve_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'wsisr.training' has no attribute {name!r}")
