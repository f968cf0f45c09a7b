"""Scoring protocols by name: channel, crop, rounding and window fixed, and written with a score.

A protocol is data. Its scores carry full names such as ``psnr_y[crop=4,uint8]``, so that two
tables can only be compared where the columns mean the same.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np

from wsisr.arrays import Float64Array
from wsisr.metrics.images import Channel, Images, MetricError, as_uint8
from wsisr.metrics.pixel import Window, psnr, ssim
from wsisr.words import closest


@dataclass(frozen=True, kw_only=True)
class Score:
    """One pixel metric with all its conventions.

    Attributes
    ----------
    metric : {"psnr", "ssim"}
    channel : str
        See `wsisr.metrics.pixel.psnr`.
    crop_px : int
        Border that does not count, HR px; `crop_scales` times the scale (rounded up) is added.
    rounding : bool
        Whether SR is rounded to 8 bit first.
    window : str
        SSIM window.
    """

    metric: Literal["psnr", "ssim"]
    channel: Channel = "rgb"
    crop_px: int = 0
    crop_scales: int = 0
    rounding: bool = True
    window: Window = "gaussian11"

    @property
    def column(self) -> str:
        """Short column name, e.g. ``psnr_y``."""
        return f"{self.metric}_{self.channel.replace('-', '_')}"

    def crop(self, scale: float) -> int:
        """Border in px at a scale."""
        return self.crop_px + self.crop_scales * ceil(scale - 1e-9)

    def describe(self, scale: float) -> str:
        """Full name at a scale, e.g. ``ssim_y[crop=4,uint8,gaussian11]``."""
        parts = [f"crop={self.crop(scale)}", "uint8" if self.rounding else "float"]
        if self.metric == "ssim":
            parts.append(self.window)
        return f"{self.column}[{','.join(parts)}]"

    def __call__(self, sr: Images, hr: Images, scale: float) -> Any:
        """Score each image."""
        crop = self.crop(scale)
        if self.metric == "psnr":
            return psnr(sr, hr, self.channel, crop, self.rounding)
        return ssim(sr, hr, self.channel, crop, self.rounding, self.window)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named set of scores.

    Attributes
    ----------
    scores : tuple of Score
        The first is the headline.
    source : str
        What it reproduces, and what was left open there.
    image_tests : bool
        Whether its paper tests images in pairs; evaluations print that beside their own tests.
    """

    name: str
    scores: tuple[Score, ...]
    source: str
    image_tests: bool = False

    def __call__(self, sr: Images, hr: Images, scale: float) -> dict[str, Float64Array]:
        """All scores of a batch: column name -> float64 (N,), `inf` for identical images kept."""
        # Rounded once for all scores that round: conversions cost more than the errors.
        rounded = as_uint8(sr, "SR images"), as_uint8(hr, "HR images")
        given = {s.column: rounded if s.rounding else (sr, hr) for s in self.scores}
        return {s.column: np.atleast_1d(s(*given[s.column], scale)) for s in self.scores}

    def describe(self, scale: float) -> dict[str, str]:
        """Column name -> full name with every convention, for the results' metadata."""
        return {s.column: s.describe(scale) for s in self.scores}


def _both(channel: Channel, **conventions: Any) -> tuple[Score, Score]:
    return (
        Score(metric="psnr", channel=channel, **conventions),
        Score(metric="ssim", channel=channel, **conventions),
    )


_ALL = (
    Protocol(
        name="wsisr",
        scores=(*_both("rgb", crop_scales=1), *_both("y", crop_scales=1)),
        source="Ours: RGB and BT.601 luma, 8 bit, border of ceil(scale) px, Gaussian SSIM.",
    ),
    Protocol(
        name="hat-y",
        scores=_both("y", crop_scales=1),
        source="BasicSR, SwinIR, HAT: luma, 8 bit, border of the scale.",
    ),
    Protocol(
        name="liif-rgb",
        scores=_both("rgb", crop_px=6, crop_scales=1, rounding=False),
        source="LIIF's div2k rule: RGB, not rounded, border of scale + 6. LIIF reports no SSIM.",
    ),
    Protocol(
        name="pirm",
        scores=_both("y-rounded", crop_px=4),
        source="PIRM 2018: rounded luma, border of 4 px.",
    ),
    Protocol(
        name="mihatp",
        scores=(*_both("y", crop_scales=1), *_both("rgb", crop_scales=1)),
        source="MiHATP states no convention; its code descends from BasicSR, so luma first.",
    ),
    Protocol(
        name="iste",
        scores=(
            Score(metric="psnr", channel="rgb", crop_px=8),
            Score(metric="ssim", channel="rgb", window="uniform7"),
        ),
        source="ISTE's tester: RGB, border 8 at every scale; SSIM as scikit-image's default, no "
        "border. Whether it rounded is unknown; here 8 bit. Paired t-tests over images.",
        image_tests=True,
    ),
    Protocol(
        name="swdnet",
        scores=(
            Score(metric="psnr", channel="each", crop_px=8),
            Score(metric="ssim", channel="rgb"),
        ),
        source="SWD-Net on HistoSR: mean of the channels' PSNR, border 8; SSIM on the whole image.",
    ),
    Protocol(
        name="cwtnet",
        scores=_both("rgb"),
        source="CWT-Net states no convention: RGB, 8 bit, no border.",
    ),
    Protocol(
        name="masrnet",
        scores=_both("y", crop_px=4),
        source="MASRNet: luminance of YCbCr; perceptual index as PIRM, hence a border of 4 px.",
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def get_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises
    ------
    MetricError
        Unknown name, with the nearest one.
    """
    if name not in PROTOCOLS:
        raise MetricError(f"No protocol {name!r}; {closest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
