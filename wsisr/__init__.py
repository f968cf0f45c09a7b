"""wsisr: whole-slide images in, trustworthy super-resolution pairs, models and slides out.

Importing this package is fast and imports neither torch nor any slide library:
the few names offered here are loaded when they are first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
