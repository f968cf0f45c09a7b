"""Where to trust a super-resolved slide: what its own low resolution and a finer slide say of it.

Names are loaded at first use, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
