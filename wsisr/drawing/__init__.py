"""The drawing room: charts over matplotlib, sheets and overlays over Pillow, in one style.

It knows arrays and words alone: no slide, no store, no model. matplotlib is loaded when the first
chart is drawn, and never by what builds pairs. Names are loaded at first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
