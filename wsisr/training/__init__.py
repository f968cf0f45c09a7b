"""Training: one readable loop, exact resume, every draw a function of (seed, step, slot).

``wsisr train --model mihatp`` is `train`; `wsisr.inference.open_run` and `find_runs` read what it
leaves, and `PairDataset` is a pair store as a torch Dataset. Nothing here needs a slide library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
