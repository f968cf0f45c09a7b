"""The papers' tables, each as one file that trains and evaluates every row of it.

`load_study` reads one, `run_study` runs it, `study_table` is ours beside theirs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
