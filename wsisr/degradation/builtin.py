"""Every degradation that is built in, in the order in which lists name them."""

from wsisr.degradation.samplers import Bicubic  # isort: skip
from wsisr.degradation.realesrgan import RealEsrgan2  # isort: skip
from wsisr.degradation.modifiers import Jpeg  # isort: skip
from wsisr.degradation.fitted import Fitted  # isort: skip
from wsisr.degradation.mix import Mix  # isort: skip

__all__ = [
    "Bicubic",
    "Fitted",
    "Jpeg",
    "Mix",
    "RealEsrgan2",
]
