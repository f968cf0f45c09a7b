"""Metrics with every convention stated; see `wsisr.metrics.protocols` for named sets of them."""

from wsisr.metrics.images import MetricError
from wsisr.metrics.pixel import ms_ssim, psnr, ssim
from wsisr.metrics.protocols import PROTOCOLS, Protocol, Score, get_protocol
from wsisr.metrics.texture import colour_error, sharpness, sharpness_error, spectrum_error

__all__ = [
    "PROTOCOLS",
    "MetricError",
    "Protocol",
    "Score",
    "colour_error",
    "get_protocol",
    "ms_ssim",
    "psnr",
    "sharpness",
    "sharpness_error",
    "spectrum_error",
    "ssim",
]
