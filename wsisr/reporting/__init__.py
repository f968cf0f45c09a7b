"""Pages: one self-contained HTML file for a store, a run, an evaluation or a study.

It stands on top of all rooms: Python gathers facts, ``templates/`` say them. Names are loaded at
first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
