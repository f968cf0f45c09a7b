"""Training: one readable loop, exact resume, every draw a function of (seed, step, slot).

``wsisr train --model mihatp`` is `train`; `open_run` and `find_runs` read what it leaves, and
`PairDataset` is a pair store as a torch Dataset. Nothing here needs a slide library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.training.config import TrainConfig as TrainConfig
    from wsisr.training.data import PairDataset as PairDataset
    from wsisr.training.engine import Outcome as Outcome
    from wsisr.training.errors import TrainingError as TrainingError
    from wsisr.training.presets import resolve_config as resolve_config
    from wsisr.training.request import TrainRequest as TrainRequest
    from wsisr.training.runs import Run as Run
    from wsisr.training.runs import find_runs as find_runs
    from wsisr.training.runs import open_run as open_run
    from wsisr.training.start import train as train

_LAZY = {
    "Outcome": "engine",
    "PairDataset": "data",
    "Run": "runs",
    "TrainConfig": "config",
    "TrainRequest": "request",
    "TrainingError": "errors",
    "find_runs": "runs",
    "open_run": "runs",
    "resolve_config": "presets",
    "train": "start",
}

__all__ = [
    "Outcome",
    "PairDataset",
    "Run",
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
        return getattr(import_module(f"wsisr.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'wsisr.training' has no attribute {name!r}")
