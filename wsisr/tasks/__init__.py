"""Downstream tasks: nuclei, glands and classes on tissue, whoever restored it.

``wsisr train --task nuclei`` fits a reference network on labelled images, and
``wsisr eval --task nuclei`` asks it what it finds on super-resolved ones. A program of one's own
takes its place by `register_segmenter`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
