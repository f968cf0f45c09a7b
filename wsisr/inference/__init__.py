"""One way to run a network, for validation, evaluation and upscaling alike.

`open_trained` says what a trained model on disk is, `load` makes a network of it that is ready to
run on a device, `plan_tiles` how it is tiled, and `super_resolve` gives the pixels of images in
memory: those that `wsisr upscale` writes. Names are loaded at first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
