"""The run folder while it grows: logs, pictures, saved models, states, record."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from wsisr.arrays import UInt8Array
from wsisr.degradation import Degradation
from wsisr.drawing.sheets import SheetImage, sheet
from wsisr.errors import OutputError
from wsisr.files import recover_swap, remove_tree, replace_file, save_picture, swap_in, sync_tree
from wsisr.inference.trained import BEST, LAST
from wsisr.metrics.pixel import psnr
from wsisr.models import save_model
from wsisr.models.wrapper import SRModel
from wsisr.training.batches import unit
from wsisr.training.config import TrainConfig
from wsisr.training.curves import write_curves
from wsisr.training.logs import LOG_COLUMNS, VALIDATION_COLUMNS, RowLog, read_rows
from wsisr.training.model_card import hub_card, write_card
from wsisr.training.run_record import RunRecord
from wsisr.training.state import write_state
from wsisr.training.trackers import Trackers
from wsisr.training.validation import Enlarge, ValidationSample, enlarge_bicubic, validation_network

CHECKPOINTS = "checkpoints"
SAMPLES = "samples"
CONFIG_NAME = "config.yaml"
PROFILE_NAME = "degradation.json"
"""A run's own copy of the profile that its LR is simulated by."""
PROBE_NAME = ".probe"
TILE_PX = 192
ERROR_GAIN = 4.0
"""Errors are drawn this many times as large, on mid grey."""
BEGUN = ("tensorboard", CONFIG_NAME, PROFILE_NAME)
"""What a run folder holds before it has its record."""


class RunFiles(ABC):
    """Writes what any run leaves; made by the main process alone.

    Parameters
    ----------
    from_step : int
        Where the run starts or goes on; rows beyond it are cut from the logs.
    """

    columns: ClassVar[tuple[str, ...]]
    """Of ``validation.csv``."""

    def __init__(
        self, folder: Path, config: TrainConfig, record: RunRecord, from_step: int
    ) -> None:
        # First, because it can fail: a folder without a run would be in the next one's way.
        self.trackers = Trackers(folder, from_step, config)
        self.folder = folder
        self.config = config
        self.record = record
        for name in (BEST, LAST):
            recover_swap(folder / name, self._aside(name))
            remove_tree(self._staged(name))
        self.log = RowLog(folder / "log.csv", LOG_COLUMNS, from_step, lines=True)
        self.rows = RowLog(folder / "validation.csv", self.columns, from_step, lines=False)
        # Before the record, which says that there is a run to go on with.
        replace_file(folder / CONFIG_NAME, config.to_yaml().encode())
        self.begin()
        record.update(state="running", step=from_step)
        text = json.dumps(record.document["environment"], indent=2) + "\n"
        replace_file(folder / "environment.json", text.encode())

    def training(self, row: dict[str, Any]) -> None:
        """A row of the log."""
        self.log.write({name: row[name] for name in LOG_COLUMNS} | row)
        self.trackers.write("train", row)

    def validation(self, step: int, rows: list[dict[str, float]], model: SRModel) -> None:
        """Rows of a validation, and its picture."""
        for row in rows:
            self.rows.write({"step": step, **{k: row[k] for k in self.columns[1:]}})
            self.trackers.write(self.group(row), {**row, "step": step})
        self.show(step, model)
        if 0 < step < self.config.train.steps:
            self.summarise()

    def model(self, name: str, model: SRModel, step: int, score: float | None) -> None:
        """A saved model, put into place as a whole."""
        staged = self._staged(name)
        self.save(model, staged, step, score)
        sync_tree(staged)
        swap_in(staged, self.folder / name, self._aside(name))

    def state(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """A trainer state."""
        keep = self.config.train.keep_last
        write_state(self.folder / CHECKPOINTS, tensors, scalars, keep)

    def close(self, **values: Any) -> None:
        """The last word of the run: record, curves, card."""
        self.record.update(**values)
        self.summarise()
        self.trackers.close()

    def begin(self) -> None:  # noqa: B027 - most have nothing more
        """Write what else a run needs before its record says that it is there."""

    @abstractmethod
    def group(self, row: dict[str, float]) -> str:
        """What trackers call a row of validation."""

    @abstractmethod
    def save(self, model: SRModel, folder: Path, step: int, score: float | None) -> None:
        """Write a model into a new folder; `score` is that of its validation, where known."""

    def show(self, step: int, model: SRModel) -> None:  # noqa: B027 - most draw nothing
        """Draw what a validation saw."""

    def summarise(self) -> None:  # noqa: B027 - most have no card
        """Write curves and card."""

    def _staged(self, name: str) -> Path:
        return self.folder / f".{name}.new"

    def _aside(self, name: str) -> Path:
        return self.folder / f".{name}.old"


class Outputs(RunFiles):
    """What the training of a super-resolution model leaves.

    Parameters
    ----------
    folder, config, record, from_step
        As `RunFiles`.
    samples : dict of float to list of ValidationSample
        Of validation; the first few of the first scale are drawn.
    profile : Degradation, optional
        What the run's LR is simulated by, where a file holds it.
    """

    columns = VALIDATION_COLUMNS

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        record: RunRecord,
        samples: dict[float, list[ValidationSample]],
        from_step: int,
        profile: Degradation | None = None,
    ) -> None:
        self.scale = next(iter(samples))
        self.drawn = samples[self.scale][: config.val.pictures]
        self.profile = profile
        super().__init__(folder, config, record, from_step)

    def begin(self) -> None:
        if self.profile is not None:
            self.profile.write(self.folder / PROFILE_NAME)

    def group(self, row: dict[str, float]) -> str:
        return f"val-x{row['scale']:g}"

    def save(self, model: SRModel, folder: Path, step: int, score: float | None) -> None:
        save_model(model, folder, self.record.model_extra(step, score))
        card = hub_card(self.record.document, read_rows(self.folder / "validation.csv"))
        (folder / "README.md").write_text(card, encoding="utf-8")

    def show(self, step: int, model: SRModel) -> None:
        images = []
        # What gave no numbers has no picture.
        with validation_network(model, self.config) as enlarge, suppress(OutputError):
            images = [self._shown(sample, enlarge) for sample in self.drawn]
        if images:
            path = self.folder / SAMPLES / f"step-{step:08d}.png"
            save_picture(path, sample_sheet(images, self.scale))

    def summarise(self) -> None:
        write_curves(self.folder, self.record.document["model"])
        write_card(self.folder, self.record.document)

    def _shown(
        self, sample: ValidationSample, enlarge: Enlarge
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sr, bicubic = (of([sample])[0].float() for of in (enlarge, enlarge_bicubic))
        return unit(sample.lr), bicubic, sr, unit(sample.hr)


def sample_sheet(
    images: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], scale: float
) -> UInt8Array:
    """A row for each sample: LR, bicubic, SR, HR and the error.

    Parameters
    ----------
    images : sequence of (lr, bicubic, sr, hr)
        Floats in [0, 1], (3, h, w) and three times (3, H, W), on the CPU.
    """
    rows = []
    for lr, bicubic, sr, hr in images:
        named = {
            f"LR x{scale:g}": lr,
            f"bicubic {float(psnr(bicubic, hr)):.2f} dB": bicubic,
            f"SR {float(psnr(sr, hr)):.2f} dB": sr,
            "HR": hr,
            f"SR - HR, {ERROR_GAIN:g} times": (sr - hr) * ERROR_GAIN * 0.5 + 0.5,
        }
        rows.append([SheetImage(image=_pixels(image), text=text) for text, image in named.items()])
    side = max(TILE_PX, int(images[0][3].shape[-1]))
    # Words grow with the pixels: a page reduces the sheet.
    return sheet(rows, side_px=side, text_px=max(13, side // 14))


def _pixels(image: Tensor) -> UInt8Array:
    array = image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(array)
