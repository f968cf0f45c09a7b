"""LR images of an evaluation through the one way to run a network, a model at a time."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from torch import Tensor

from wsisr.device import keep_freed_memory, release_memory
from wsisr.errors import ModelError, OutputError, WsisrError
from wsisr.evaluation.columns import Sample, ScaleColumn, read_pair
from wsisr.evaluation.entries import HR_ITSELF, ModelFailure
from wsisr.evaluation.plan import Plan
from wsisr.geometry import Box
from wsisr.host import is_out_of_memory
from wsisr.inference.engine import BicubicEngine, Capacity, Engine
from wsisr.inference.images import super_resolve
from wsisr.inference.loading import load_network
from wsisr.inference.network import Network
from wsisr.inference.tiles import WHOLE, Tiling, plan_frame, plan_tiles
from wsisr.inference.trained import TrainedModel
from wsisr.models.community import PREFIX as COMMUNITY
from wsisr.models.registry import MODELS
from wsisr.plugins import OPTION
from wsisr.progress import ProgressEvent, Reporter, silent

PROBE_PX = 32
"""Side of the middle of an image that models are tried on, LR px."""


class Engines:
    """Models on the device, one at a time; how each is tiled; and which of them are broken."""

    def __init__(self, plan: Plan, report: Reporter = silent) -> None:
        keep_freed_memory()
        self._plan = plan
        self._report = report
        self._entry: TrainedModel | None = None
        self._engine: Engine | None = None
        self._capacities: dict[float, Capacity] = {}
        self.broken: set[str] = set()
        self.words: dict[str, str] = {}

    def attempt(self, entry: TrainedModel, column: ScaleColumn) -> float:
        """Run a model on the middle of a column's first image; seconds for one LR pixel.

        Raises
        ------
        ModelError, ConfigError
            It cannot be loaded, or breaks down.
        """
        seed = self._plan.settings.seed
        if entry.name in self._plan.pictures or entry.model == HR_ITSELF.model:
            return 0.0
        lr = read_pair(self._plan.store, column, column.samples[:1], seed, self._plan.device)[0]
        top, left = (max(0, (side - PROBE_PX) // 2) for side in lr.shape[-2:])
        lr = lr[..., top : top + PROBE_PX, left : left + PROBE_PX]
        self._load(entry)
        started = time.monotonic()
        with suppress(OutputError):  # the images that it happens on are named when they are run
            self.predict(entry, column, lr)
        self._capacities.clear()
        return (time.monotonic() - started) / (lr.shape[-1] * lr.shape[-2])

    def predict(
        self,
        entry: TrainedModel,
        column: ScaleColumn,
        lr: Tensor,
        finer: Tensor | None = None,
        region: Box | None = None,
        samples: Sequence[Sample] = (),
    ) -> Tensor:
        """SR of LR images.

        Parameters
        ----------
        lr : Tensor, (N, 3, h, w), uint8
        finer : Tensor, (N, 3, 2h, 2w), uint8, optional
            References, for an oracle.
        region : Box, optional
            Part of the LR px.
        samples : sequence of Sample
            Whose LR it is: pictures that were made elsewhere are found by them.

        Returns
        -------
        Tensor, (N, 3, H, W), float64 in [0, 1]
            Rounded to grey levels, it is what upscaling writes.

        Raises
        ------
        ModelError, ConfigError
            The model cannot be loaded, breaks down, or gives values that are no numbers.
        """
        made = self._plan.pictures.get(entry.name)
        if made is not None:
            self.words[f"{entry.name} {column.label}"] = "made elsewhere"
            return _part(made.read(samples), lr, column.scale, region).to(lr.device)
        engine = self._load(entry)
        plan = self.tiling(engine, column.scale)
        images = _images(lr)
        with _break_downs_are_clear(entry):
            capacity = self._capacities.get(column.scale)
            if capacity is None:
                capacity = engine.capacity(plan, column.scale, max(images.shape[1:3]))
                self._capacities[column.scale] = capacity
            pixels = super_resolve(
                engine,
                images,
                column.scale,
                plan,
                region=region,
                capacity=capacity,
                finer=None if finer is None else _images(finer),
                on_shrink=lambda text: self._say(f"{entry.name}: {text}"),
            )
        small = "; smaller where memory ran out" if capacity.shrunk else ""
        self.words[f"{entry.name} {column.label}"] = f"{plan}{small}"
        return torch.from_numpy(pixels).to(lr.device).double().permute(0, 3, 1, 2) / 255.0

    def tiling(self, engine: Engine, scale: float) -> Tiling:
        """How inputs are cut: as `wsisr upscale` does, unless the settings say otherwise."""
        tile = self._plan.settings.tile
        if tile == "off" or isinstance(engine, BicubicEngine):
            return WHOLE
        return plan_tiles(engine.needs, scale, None if tile == "auto" else int(tile))

    def give_up(
        self, entry: TrainedModel, error: WsisrError, column: ScaleColumn | None = None
    ) -> ModelFailure:
        """Call a model broken from now on."""
        self.broken.add(entry.name)
        self._engine = None
        release_memory(error)
        return ModelFailure.of(error, entry.name, entry.folder, column)

    def forget(self) -> None:
        """Free what is loaded; what is needed again is loaded again."""
        self._engine = None
        release_memory()

    def _load(self, entry: TrainedModel) -> Engine:
        if self._engine is None or self._entry is not entry:
            self._engine = None  # two at once may be one too many
            settings = self._plan.settings
            if MODELS.find(entry.model) is None and not entry.model.startswith(COMMUNITY):
                raise ModelError(
                    f"it is a {entry.model}, a network that is not known here: give {OPTION} "
                    "FILE.py, or install the package that has it"
                )
            with _break_downs_are_clear(entry):
                engine = load_network(
                    entry,
                    device=self._plan.device,
                    precision="float32",
                    symmetries="mean" if settings.self_ensemble else "",
                    whole=settings.tile == "off",
                )
            # A model that does not support the precision asked for runs in float32.
            if isinstance(engine, Network) and settings.precision in engine.model.info.dtypes:
                engine.precision = settings.precision
            self._engine, self._entry, self._capacities = engine, entry, {}
        return self._engine

    def _say(self, message: str) -> None:
        self._report(ProgressEvent(stage="eval", message=message))


def _part(sr: Tensor, lr: Tensor, scale: float, region: Box | None) -> Tensor:
    """The output px of a part of the LR px, as a network would give it."""
    if region is None:
        return sr
    rows, columns = plan_frame(int(lr.shape[-1]), int(lr.shape[-2]), scale, region).region.slices
    return sr[..., rows, columns]


@contextmanager
def _break_downs_are_clear(entry: TrainedModel) -> Iterator[None]:
    """Whatever a network raises, in a sentence: it may be anyone's."""
    try:
        yield
    except WsisrError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        words = f" breaks down ({type(error).__name__}: {first})."
        if is_out_of_memory(error):
            words = ": memory runs out; give a smaller --tile, or run with --device cpu."
        raise ModelError(f"{entry.name}{words}") from error


def _images(batch: Tensor) -> "np.ndarray":
    """uint8 (N, 3, h, w) on any device -> (N, h, w, 3) on the host."""
    return np.ascontiguousarray(batch.permute(0, 2, 3, 1).cpu().numpy())
