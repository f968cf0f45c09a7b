"""Pages and figures: one self-contained HTML file for a store, a run or an evaluation.

`charts` and `page` need numpy and Pillow only, so training and evaluation use them freely. Names
are loaded at first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
