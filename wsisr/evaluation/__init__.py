"""Evaluation: models on held-out pairs, with every convention written beside every number.

`evaluate` runs the whole of it; `wsisr.evaluation.tasks` adds downstream tasks. What comes out is a
folder: `images.csv` (one row per image, model, scale and LR origin: the primary product),
`results.json`, tables, figures and the cost table.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.evaluation.pipeline import evaluate as evaluate
    from wsisr.evaluation.settings import EvalSettings as EvalSettings
    from wsisr.evaluation.settings import parse_scales as parse_scales
    from wsisr.evaluation.tasks import Task as Task
    from wsisr.evaluation.tasks import against_label as against_label
    from wsisr.evaluation.tasks import of_image as of_image

_HOME = {
    "EvalSettings": "settings",
    "Task": "tasks",
    "against_label": "tasks",
    "evaluate": "pipeline",
    "of_image": "tasks",
    "parse_scales": "settings",
}

__all__ = ["EvalSettings", "Task", "against_label", "evaluate", "of_image", "parse_scales"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"wsisr.evaluation.{_HOME[name]}"), name)
    raise AttributeError(f"module 'wsisr.evaluation' has no attribute {name!r}")
