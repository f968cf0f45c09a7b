"""Validation on fixed samples, beside bicubic, and the pictures of some of them.

The samples are central crops of patches spread evenly over the validation rows; they and their
random degradations are the same in every run with the same store, so that curves compare. Several
processes share the samples out and their rows are gathered: nothing counts twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsisr.degradation import degrade, hr_size, lr_size
from wsisr.errors import ConfigError, OutputError
from wsisr.inference.engine import BicubicEngine, Capacity, Engine
from wsisr.inference.images import super_resolve
from wsisr.inference.network import Network
from wsisr.inference.tiles import WHOLE, Tiling, plan_tiles
from wsisr.metrics.images import MetricError
from wsisr.metrics.pixel import capped
from wsisr.metrics.protocols import get_protocol
from wsisr.models.wrapper import SRModel
from wsisr.training.batches import inner, unit
from wsisr.training.config import TrainConfig
from wsisr.training.data import PairDataset
from wsisr.training.parallel import Processes
from wsisr.training.plan import DataPlan

PROTOCOL = "wsisr"
MARGIN_LR_PX = 8
DEFAULT_SCALE = 4.0


@dataclass(frozen=True, kw_only=True)
class ValidationSample:
    """One LR-HR pair that never changes: uint8 (3, h, w) and (3, H, W)."""

    number: int
    scale: float
    lr: Tensor
    hr: Tensor


def validation_scales(
    config: TrainConfig, scale_range: tuple[float, float], largest: float
) -> tuple[float, ...]:
    """Scales to validate at, the one that chooses the best model first.

    Parameters
    ----------
    scale_range : (float, float)
        Of training.
    largest : float
        At which a patch still gives a sample.
    """
    if config.model.scale is not None:
        return (float(config.model.scale),)
    if config.val.scales is not None:
        return config.val.scales
    end = min(scale_range[1], largest)
    return tuple(dict.fromkeys((min(DEFAULT_SCALE, end), end)))


def build_samples(
    plan: DataPlan, data: PairDataset, config: TrainConfig, scales: Sequence[float]
) -> dict[float, list[ValidationSample]]:
    """Read and degrade the samples once; `data` holds the validation rows.

    Constant fields (bare glass), which any interpolation restores exactly, are left out.

    Raises
    ------
    ConfigError
        Samples are too small for the metrics, or all of them are constant.
    """
    count = min(config.val.count, len(data))
    chosen = np.unique(np.linspace(0, len(data) - 1, count).round().astype(np.int64))
    made: dict[float, list[ValidationSample]] = {}
    for scale in scales:
        _check_size(plan, config, scale)
        pairs = [
            _stored(plan, data, int(row), config.val.crop_lr_px)
            if plan.lr is not None
            else _simulated(plan, data, int(row), config.val.crop_lr_px, scale)
            for row in chosen
        ]
        made[scale] = [
            ValidationSample(number=number, scale=scale, lr=lr, hr=hr)
            for number, (lr, hr) in enumerate(pairs)
            if not bool((hr == hr[:, :1, :1]).all())
        ]
        if not made[scale]:
            raise ConfigError(
                f"all {len(pairs)} validation samples at x{scale:g} are constant fields (bare "
                "glass), which tell nothing of a model; raise val.count, or keep patches with "
                "tissue (wsisr keep)"
            )
    return made


def _check_size(plan: DataPlan, config: TrainConfig, scale: float) -> None:
    """Refuse samples that the metrics have no use for, before any is read."""
    side = hr_size(min(config.val.crop_lr_px, lr_size(plan.hr_px, scale)), scale)
    blank = torch.zeros(1, 3, side, side)
    try:
        get_protocol(PROTOCOL)(blank, blank, scale)
    except MetricError as error:
        raise ConfigError(
            f"validation samples of {side} HR px at x{scale:g} are too small ({error}) Raise "
            "val.crop_lr_px, or validate at smaller scales (val.scales)"
        ) from None


def _stored(plan: DataPlan, data: PairDataset, row: int, crop_px: int) -> tuple[Tensor, Tensor]:
    assert plan.lr is not None and plan.scale is not None
    whole = plan.hr_px // plan.scale
    side = min(crop_px, whole)
    at = (whole - side) // 2
    lr = _read(data, plan.lr, row, at, side)
    return lr, _read(data, plan.hr, row, at * plan.scale, side * plan.scale)


def _simulated(
    plan: DataPlan, data: PairDataset, row: int, crop_px: int, scale: float
) -> tuple[Tensor, Tensor]:
    assert plan.simulation is not None
    largest = lr_size(plan.hr_px, scale)
    side = min(crop_px, largest)
    # Whole-pixel margins exist at whole scales only.
    margin = min(MARGIN_LR_PX, (largest - side) // 2) if scale == int(scale) else 0
    region = side + 2 * margin
    region_hr = hr_size(region, scale)
    hr = _read(data, plan.hr, row, (plan.hr_px - region_hr) // 2, region_hr)
    lr = degrade(hr, plan.simulation, scale, slots=[row], size=(region, region))
    return inner(lr, margin), inner(hr, margin * int(scale))


def _read(data: PairDataset, array: str, row: int, at: int, side: int) -> Tensor:
    crop = data.read(array, np.array([row]), at, at, side)[0]
    return torch.from_numpy(crop).permute(2, 0, 1).contiguous()


Enlarge = Callable[[Sequence[ValidationSample]], Tensor]
"""SR of samples of one size, (N, 3, H, W), float64 in [0, 1]."""


@contextmanager
def validation_network(model: SRModel, config: TrainConfig) -> Iterator[Enlarge]:
    """A model in training, run as evaluation and upscaling will run it; given back as it was."""
    device = next(model.parameters()).device
    # A window that covers the sample pools as the whole does: then nothing has to be switched.
    pool_px = config.data.crop_lr_px
    model.eval()
    network = Network(model, device, pool_px=pool_px if config.val.crop_lr_px > pool_px else None)
    capacities: dict[float, Capacity] = {}

    def enlarge(samples: Sequence[ValidationSample]) -> Tensor:
        scale = samples[0].scale
        plan = plan_tiles(network.needs, scale)
        if scale not in capacities:
            side = max(samples[0].lr.shape[-2:])
            capacities[scale] = network.capacity(plan, scale, side)
        return _enlarged(network, plan, samples, capacities[scale])

    try:
        yield enlarge
    finally:
        network.close()


def enlarge_bicubic(samples: Sequence[ValidationSample]) -> Tensor:
    """The enlarged LR of samples, as `Enlarge`."""
    return _enlarged(BicubicEngine(), WHOLE, samples, Capacity())


def _enlarged(
    engine: Engine, plan: Tiling, samples: Sequence[ValidationSample], capacity: Capacity
) -> Tensor:
    lr = np.stack([sample.lr.permute(1, 2, 0).numpy() for sample in samples])
    grey = super_resolve(engine, lr, samples[0].scale, plan, capacity=capacity)
    return torch.from_numpy(grey).double().permute(0, 3, 1, 2) / 255.0


def validate(
    model: SRModel,
    samples: dict[float, list[ValidationSample]],
    config: TrainConfig,
    *,
    device: torch.device,
    processes: Processes,
) -> list[dict[str, float]]:
    """One row of means for each scale, ours and bicubic's, over the same images.

    As in evaluation: PSNR counts up to `wsisr.metrics.pixel.PSNR_CAP_DB`, and a model with any
    output that is not finite has no mean (NaN).
    """
    protocol = get_protocol(PROTOCOL)
    batch = config.data.batch
    rows = []
    with validation_network(model, config) as enlarge:
        for scale, all_of in samples.items():
            mine = all_of[processes.rank :: processes.count]
            scored: list[tuple[int, dict[str, float]]] = []
            for start in range(0, len(mine), batch):
                part = mine[start : start + batch]
                hr = unit(torch.stack([sample.hr for sample in part]).to(device))
                plain = protocol(enlarge_bicubic(part).to(device), hr, scale)
                try:
                    ours = protocol(enlarge(part).to(device), hr, scale)
                except OutputError:
                    ours = {name: np.full(len(part), np.nan) for name in plain}
                for at, sample in enumerate(part):
                    row = {name: float(values[at]) for name, values in ours.items()}
                    row |= {f"bicubic_{name}": float(values[at]) for name, values in plain.items()}
                    scored.append((sample.number, row))
            found = dict(sorted(processes.gather(scored)))
            rows.append({**_means(list(found.values())), "scale": scale})
    return rows


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        name: float(np.mean([capped(name.removeprefix("bicubic_"), row[name]) for row in rows]))
        for name in (rows[0] if rows else ())
    }
