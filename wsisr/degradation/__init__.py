"""Degradation simulation: exact, named, seeded by (seed, step, slot), fitted to real scans."""

from wsisr.degradation.apply import degrade
from wsisr.degradation.spec import Degradation, names, parse_degradation
from wsisr.resize import crop_to_scale, hr_size, lr_size, resize

__all__ = [
    "Degradation",
    "crop_to_scale",
    "degrade",
    "hr_size",
    "lr_size",
    "names",
    "parse_degradation",
    "resize",
]
