"""Slides with known truth, and the suites that a third-party part can be checked with.

- `SlideSpec`, `write_slide`, `SlideTruth`: one synthetic H&E slide (`wsisr.testing.slides`);
- `write_camelyon16_like`: a whole CAMELYON16-like folder (`wsisr.testing.camelyon`);
- `write_rescan`, `RescanSpec`: a second scan of the same glass (`wsisr.testing.rescan`);
- `BackendTests`: what every slide backend must pass (`wsisr.testing.conformance`).

Names are loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
