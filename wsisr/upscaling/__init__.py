"""Apply a model to whole slides: streamed, tiled, blended, as pyramids that every viewer opens.

Names are loaded at first use, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
