"""Pages and figures: one self-contained HTML file for a store, a run or an evaluation.

`charts` and `page` need numpy and Pillow only, so training and evaluation use them freely. Names
are loaded at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.reporting.charts import Chart as Chart
    from wsisr.reporting.charts import Series as Series
    from wsisr.reporting.charts import chart as chart
    from wsisr.reporting.charts import histogram as histogram
    from wsisr.reporting.page import Page as Page

_LAZY = {
    "Chart": "charts",
    "Page": "page",
    "Series": "charts",
    "chart": "charts",
    "histogram": "charts",
}

__all__ = ["Chart", "Page", "Series", "chart", "histogram"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"wsisr.reporting.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'wsisr.reporting' has no attribute {name!r}")
