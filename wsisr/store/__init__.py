"""The pair store: Zarr v3 shards written once, read fast, and verified to the last bit.

Nothing here imports torch or a slide library; zarr-python is imported only where a layout is met
that this package does not read itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
