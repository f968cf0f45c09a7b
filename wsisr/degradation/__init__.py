"""Degradation simulation: exact, named, seeded by (seed, step, slot), fitted to real scans."""

from wsisr.degradation.apply import degrade, refuse_identity
from wsisr.degradation.spec import Degradation, names, parse_degradation
from wsisr.degradation.stage import Amount, Context, Stage, register_degradation
from wsisr.resize import crop_to_scale, hr_size, lr_size, resize

__all__ = [
    "Amount",
    "Context",
    "Degradation",
    "Stage",
    "crop_to_scale",
    "degrade",
    "hr_size",
    "lr_size",
    "names",
    "parse_degradation",
    "refuse_identity",
    "register_degradation",
    "resize",
]
