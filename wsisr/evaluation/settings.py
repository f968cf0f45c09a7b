"""What an evaluation is asked to do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsisr.errors import ConfigError
from wsisr.inference.network import PRECISIONS, Precision
from wsisr.metrics import get_protocol
from wsisr.metrics.encoders import DEFAULT_INPUT, parse_input
from wsisr.metrics.images import MetricError


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """One evaluation.

    Attributes
    ----------
    scales : tuple of float
        HR over LR, from 1 (restoration alone); real scales too.
    models : tuple of str
        Run folders, saved models or registry names without weights (``bicubic``); empty: every
        run below `runs`. Bicubic is always added.
    lr_source : str
        ``auto`` (simulated for every scale, and native where the store has it), ``native``,
        ``simulated``, the name of an array, or a degradation.
    images : tuple of str
        Sets of SR images made elsewhere (`wsisr.evaluation.sr_images`): ``NAME=FOLDER``.
    protocols : tuple of str
        Named sets of scores; the first one's first score is the headline.
    metrics : tuple of str
        More scores by name (`wsisr.evaluation.scoring.EXTRA`).
    self_ensemble : bool
        Average over the eight turns and mirrors of the input.
    limit : int or None
        Patches, spread evenly over the split; None for all.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``; several, ``cuda:0,cuda:1`` or ``all`` GPUs.
    precision : str
        Element type of inference; a model that does not support it runs in float32.
    weights_dir : Path or None
        Where the weights of perceptual metrics lie.
    features : Path or None
        TorchScript or ONNX encoder for FID and KID; what it executes: `wsisr.metrics.encoders`.
    features_input : str
        Side and scaling of its input.
    tasks : tuple of str
        Downstream references (`wsisr.tasks.reference.open_reference`): ``nuclei``, a folder,
        ``glands=FOLDER`` or ``nuclei=NAME`` of a registered function.
    truth : tuple of Path
        Folders of the labelled images that the store was built from.
    whole : bool
        Score whole images, put together from the patches that cover them.
    margin : float or None
        Loss against HR, in the units of a task's first score, that would not matter: tables say
        which models are shown to lose less.
    tile : str
        ``auto``: the tiling of `wsisr upscale`, so that what is scored is what it writes; ``off``:
        whole images, pooled over as a whole, as papers evaluate; or the side of a tile in LR px.
    reference : str
        ``none``; ``oracle`` also runs models that take a finer image with one made from HR, which
        no table counts; ``oracle-updown`` with that one reduced by 2 and enlarged again.
    allow_leak : bool
        Go on where a model has seen test patients; everything is stamped LEAKY.
    overwrite : bool
        Replace results of other settings.
    seed : int
        Of random degradations.
    figures : int
        Example sheets per model and column at most (best, median, worst); 0 for none.
    """

    scales: tuple[float, ...]
    data: Path = Path("pairs.zarr")
    models: tuple[str, ...] = ()
    runs: Path = Path("runs")
    split: str = "test"
    lr_source: str = "auto"
    images: tuple[str, ...] = ()
    output: Path = Path("eval")
    protocols: tuple[str, ...] = ("wsisr",)
    metrics: tuple[str, ...] = ()
    self_ensemble: bool = False
    limit: int | None = None
    device: str = "auto"
    precision: Precision = "float32"
    weights_dir: Path | None = None
    features: Path | None = None
    features_input: str = DEFAULT_INPUT
    tasks: tuple[str, ...] = ()
    truth: tuple[Path, ...] = ()
    whole: bool = False
    margin: float | None = None
    tile: str = "auto"
    reference: Literal["none", "oracle", "oracle-updown"] = "none"
    allow_leak: bool = False
    overwrite: bool = False
    seed: int = 0
    figures: int = 3
    cost: bool = True

    def __post_init__(self) -> None:
        if not self.scales:
            raise ConfigError("Name at least one scale, e.g. --scales 2,3,4,6,8.")
        for scale in self.scales:
            if not 1.0 <= scale <= 64.0:
                raise ConfigError(f"Scale {scale:g}: give factors HR / LR from 1 to 64.")
        if len(set(self.scales)) < len(self.scales):
            raise ConfigError("A scale is named twice.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit}: give at least one patch.")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precision {self.precision!r}: use one of {', '.join(PRECISIONS)}.")
        if self.reference not in ("none", "oracle", "oracle-updown"):
            raise ConfigError(f"reference {self.reference!r}: use none, oracle or oracle-updown.")
        if self.tile not in ("auto", "off") and not (self.tile.isdigit() and int(self.tile) >= 8):
            raise ConfigError(f"tile {self.tile!r}: use auto, off, or LR px from 8.")
        if not self.protocols:
            raise ConfigError("Name at least one protocol, e.g. wsisr.")
        if self.whole and self.features is not None:
            raise ConfigError("--features compares patches of one size; leave --whole out.")
        if self.margin is not None and not (self.tasks and 0 < self.margin < math.inf):
            raise ConfigError(f"margin={self.margin:g}: a loss above 0 in a score of a --task.")
        if self.figures < 0:
            raise ConfigError(f"figures={self.figures}: give 0 or more sheets.")
        try:
            for name in self.protocols:
                get_protocol(name)
            parse_input(self.features_input)
        except MetricError as error:
            raise ConfigError(str(error)) from None

    def identity(self) -> dict[str, Any]:
        """What all rows of one results file must share, besides the store."""
        return {
            "split": self.split,
            "protocols": list(self.protocols),
            "metrics": list(self.metrics),
            "self_ensemble": self.self_ensemble,
            "limit": self.limit,
            "precision": self.precision,
            "tile": self.tile,
            "seed": self.seed,
            # Absent where there are none, as in results from before there were any.
            **({"tasks": [Path(text).name for text in self.tasks]} if self.tasks else {}),
            **({"whole": True} if self.whole else {}),
        }


def parse_scales(text: str) -> tuple[float, ...]:
    """``"2,3,4.2"`` -> ``(2.0, 3.0, 4.2)``.

    Raises
    ------
    ConfigError
        Something is no number.
    """
    try:
        scales = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--scales {text!r}: give numbers, e.g. 2,3,4.2,6,8.") from None
    if any(not math.isfinite(scale) for scale in scales):
        raise ConfigError(f"--scales {text!r}: give finite numbers.")
    return scales


def scale_label(scale: float) -> str:
    """``x4``, ``x2.4``."""
    return f"x{scale:g}"


def spread(count: int, limit: int | None) -> Sequence[int]:
    """Indices of at most `limit` of `count` items, evenly spread, first and last included."""
    if limit is None or limit >= count:
        return range(count)
    if limit == 1:
        return [count // 2]
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]
