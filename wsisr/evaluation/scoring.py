"""From an SR and its HR to the numbers of a row."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.errors import ConfigError
from wsisr.evaluation.columns import Sample
from wsisr.evaluation.tasks import Task
from wsisr.files import file_sha256
from wsisr.metrics import (
    Protocol,
    Score,
    colour_error,
    get_protocol,
    ms_ssim,
    sharpness_error,
    spectrum_error,
)
from wsisr.metrics.images import MetricError
from wsisr.metrics.niqe import niqe
from wsisr.metrics.perceptual import Dists, Lpips
from wsisr.metrics.weights import find_weights
from wsisr.words import closest

Better = Literal["high", "low", "zero"]
Metric = Callable[[Tensor, Tensor, int], Any]


@dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """One column of numbers.

    Attributes
    ----------
    name : str
        In the CSV: ``psnr_rgb``; of a second protocol ``psnr_y@hat-y``.
    title : str
        For people: ``PSNR-RGB, dB``.
    better : {"high", "low", "zero"}
    digits : int
        After the point, in tables.
    protocol : str
        Empty for scores outside protocols.
    part : bool
        In the CSV alone (`wsisr.evaluation.tasks.Task.part`).
    """

    name: str
    title: str
    better: Better
    digits: int
    protocol: str = ""
    part: bool = False


@dataclass(frozen=True, kw_only=True)
class _Extra(ScoreColumn):
    make: Callable[[Path | None, Any], Metric]
    weights: tuple[str, ...] = ()  # keys of `wsisr.metrics.weights.FILES`


EXTRA: Mapping[str, _Extra] = {
    "ms-ssim": _Extra(
        name="ms_ssim_rgb",
        title="MS-SSIM-RGB",
        better="high",
        digits=4,
        make=lambda folder, device: lambda sr, hr, crop: ms_ssim(sr, hr, crop=crop),
    ),
    "lpips-alex": _Extra(
        name="lpips_alex",
        title="LPIPS (AlexNet)",
        better="low",
        digits=4,
        make=lambda folder, device: Lpips("alex", folder).to(device).score,
        weights=("alexnet", "lpips-alex"),
    ),
    "lpips-vgg": _Extra(
        name="lpips_vgg",
        title="LPIPS (VGG16)",
        better="low",
        digits=4,
        make=lambda folder, device: Lpips("vgg", folder).to(device).score,
        weights=("vgg16", "lpips-vgg"),
    ),
    "dists": _Extra(
        name="dists",
        title="DISTS",
        better="low",
        digits=4,
        make=lambda folder, device: Dists(folder).to(device).score,
        weights=("vgg16", "dists"),
    ),
    "niqe": _Extra(
        name="niqe",
        title="NIQE (official model: photographs)",
        better="low",
        digits=3,
        make=lambda folder, device: lambda sr, hr, crop: niqe(sr, crop),
    ),
    "sharpness": _Extra(
        name="sharpness_error",
        title="sharpness, log2 of SR / HR",
        better="zero",
        digits=3,
        make=lambda folder, device: sharpness_error,
    ),
    "spectrum": _Extra(
        name="spectrum_error",
        title="spectrum error, decades",
        better="low",
        digits=3,
        make=lambda folder, device: spectrum_error,
    ),
    "colour": _Extra(
        name="colour_error",
        title="colour error, Delta E 1976",
        better="low",
        digits=3,
        make=lambda folder, device: colour_error,
    ),
}
"""More scores by name; those of networks need their weights (`wsisr.metrics.weights`)."""


def found_metrics(weights_dir: Path) -> tuple[str, ...]:
    """Names from `EXTRA` whose weights are there: LPIPS and DISTS, where the user has them.

    Raises
    ------
    ConfigError
        No such folder, or nothing usable in it.
    """
    found, missing = [], ""
    if not weights_dir.is_dir():
        raise ConfigError(f"--weights-dir {weights_dir}: no such folder.")
    for name, extra in EXTRA.items():
        try:
            places = [find_weights(key, weights_dir) for key in extra.weights]
        except MetricError as error:
            missing = missing or str(error)
            continue
        if any(place.parent == weights_dir for place in places):
            found.append(name)
    if not found:
        raise ConfigError(
            f"--weights-dir {weights_dir} completes neither LPIPS nor DISTS: {missing}"
        )
    return tuple(found)


class Scorer:
    """All scores of an evaluation, in the order of the CSV's columns.

    Parameters
    ----------
    extra : sequence of str
        Names from `EXTRA`.
    tasks : sequence of Task
        Downstream tasks.
    device : torch device
        Where networks of metrics live.

    Raises
    ------
    ConfigError
        An unknown name.
    MetricError
        A metric lacks its weights.
    """

    def __init__(
        self,
        protocols: Sequence[str],
        extra: Sequence[str] = (),
        tasks: Sequence[Task] = (),
        weights_dir: Path | None = None,
        device: Any = "cpu",
    ) -> None:
        self.protocols: tuple[Protocol, ...] = tuple(get_protocol(name) for name in protocols)
        self.extra: dict[str, Metric] = {}
        self._weights: dict[str, str] = {}
        self.tasks = tuple(tasks)
        columns: list[ScoreColumn] = []
        for place, protocol in enumerate(self.protocols):
            for score in protocol.scores:
                columns.append(_protocol_column(score, protocol.name, place == 0))
        for name in extra:
            if name not in EXTRA:
                raise ConfigError(f"There is no metric {name!r}; {closest(name, EXTRA)}.")
            known = EXTRA[name]
            self.extra[name] = known.make(weights_dir, device)
            self._weights[name] = ",".join(
                f"{(path := find_weights(key, weights_dir)).name}:{file_sha256(path)[:12]}"
                for key in known.weights
            )
            columns.append(known)
        for task in self.tasks:
            better: Better = "high" if task.higher_is_better else "low"
            columns.append(
                ScoreColumn(
                    name=task.name,
                    title=task.title,
                    better="zero" if task.zero_is_best else better,
                    digits=task.digits,
                    part=task.part,
                )
            )
        self.columns = tuple(columns)
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise ConfigError(f"Two scores have one name: {', '.join(names)}.")

    @property
    def headline(self) -> ScoreColumn:
        """What best, median and worst are meant by."""
        return self.columns[0]

    def describe(self, scale: float) -> dict[str, str]:
        """Full name of every column at a scale."""
        named: dict[str, str] = {}
        words = [
            f"{protocol.name}: {text}"
            for protocol in self.protocols
            for text in protocol.describe(scale).values()
        ]
        crop = math.ceil(scale - 1e-9)
        words += [
            f"{name}[{','.join(filter(None, (f'crop={crop}', 'uint8', self._weights[name])))}]"
            for name in self.extra
        ]
        words += [task.detail for task in self.tasks]
        for column, text in zip(self.columns, words, strict=True):
            named[column.name] = text
        return named

    def __call__(
        self, sr: Tensor, hr: Tensor, scale: float, samples: Sequence[Sample]
    ) -> list[dict[str, float]]:
        """Scores of each image of a batch.

        Parameters
        ----------
        sr : Tensor, (N, 3, H, W), floating in [0, 1]
        hr : Tensor, (N, 3, H, W), uint8
        samples : sequence of Sample
            Handed to tasks.
        """
        values = self.against_hr(sr, hr, scale)
        if self.tasks:
            images = to_uint8(sr)
            for task in self.tasks:
                scores = [task.score(im, s) for im, s in zip(images, samples, strict=True)]
                values.append(np.asarray(scores, np.float64))
        return [
            {c.name: float(v[i]) for c, v in zip(self.columns, values, strict=True)}
            for i in range(len(sr))
        ]

    def against_hr(self, sr: Tensor, hr: Tensor, scale: float) -> list[Float64Array]:
        """Scores of a batch without tasks: one array (N,) for each column."""
        values = []
        for protocol in self.protocols:
            values += list(protocol(sr, hr, scale).values())
        crop = math.ceil(scale - 1e-9)
        for metric in self.extra.values():
            values.append(np.atleast_1d(np.asarray(metric(sr, hr, crop), np.float64)))
        return values

    def check(self, hr_px: int, scale: float) -> None:
        """Refuse scores that patches of this size cannot have, before anything is computed.

        Raises
        ------
        ConfigError
            Naming the metric and what it needs.
        """
        side = round(math.floor(hr_px / scale + 1e-9) * scale)
        probe = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        try:
            self.against_hr(probe, probe, scale)
        except MetricError as error:
            raise ConfigError(
                f"Patches of {hr_px} px at scale {scale:g} cannot be scored: {error}"
            ) from None


def to_uint8(sr: Tensor) -> UInt8Array:
    """SR (N, 3, H, W) in [0, 1] as images (N, H, W, 3), halves up as the metrics round."""
    grey = (sr.detach().double().clamp(0.0, 1.0) * 255.0 + 0.5).floor()
    return np.ascontiguousarray(grey.to("cpu").permute(0, 2, 3, 1).numpy().astype(np.uint8))


def _protocol_column(score: Score, protocol: str, first: bool) -> ScoreColumn:
    own = {"rgb": "-RGB", "y": "-Y", "y-rounded": "-Y (rounded)", "each": " (mean of R, G, B)"}
    psnr = score.metric == "psnr"
    name = f"{'PSNR' if psnr else 'SSIM'}{own[score.channel]}" + (", dB" if psnr else "")
    return ScoreColumn(
        name=score.column if first else f"{score.column}@{protocol}",
        title=name if first else f"{name} [{protocol}]",
        better="high",
        digits=3 if psnr else 4,
        protocol=protocol,
    )
