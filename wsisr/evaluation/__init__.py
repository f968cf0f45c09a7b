"""Evaluation: models on held-out pairs, with every convention written beside every number.

`evaluate` runs the whole of it; `wsisr.evaluation.tasks` adds downstream tasks. What comes out is a
folder: `images.csv` (one row per image, model, scale and LR origin: the primary product),
`results.json`, tables, figures and the cost table.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
