"""Alignment: of LR patches with HR, of the levels of one slide, of two scans of one glass.

Names are loaded at first use, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
