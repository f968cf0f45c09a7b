"""Where the numbers of a run go besides its own files: one small interface, TensorBoard behind it.

``train.trackers`` names them; a tracker of one's own is a plug-in like a recipe.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from wsisr.errors import ConfigError
from wsisr.plugins import Registry
from wsisr.training.config import TrainConfig

log = logging.getLogger(__name__)


class Tracker(ABC):
    """Receives every row of a run's logs.

    Parameters
    ----------
    folder : Path
        Of the run.
    from_step : int
        Rows beyond it that an interrupted run has sent will come again.
    config : mapping
        The whole configuration as plain values.
    """

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, folder: Path, from_step: int, config: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step; `group` is ``train``, or ``val-x4`` for each validated scale."""

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """The run has ended, or was interrupted."""


T = TypeVar("T", bound=type[Tracker])
TRACKERS: Registry[type[Tracker]] = Registry("tracker", "wsisr.trackers", ConfigError)
"""Every tracker by its name."""


def register_tracker(tracker: T) -> T:
    """Make a tracker known by its name (a class decorator); a name may be taken once."""
    if not isinstance(getattr(tracker, "name", None), str) or not tracker.name:
        raise ConfigError(f'{tracker.__name__}: give it a name, name = "mine"')
    TRACKERS.add(tracker.name, tracker)
    return tracker


@register_tracker
class TensorBoard(Tracker):
    """TensorBoard files in the run's folder; repeated points are hidden."""

    name = "tensorboard"

    def __init__(self, folder: Path, from_step: int, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "train.tensorboard=true needs tensorboard: pip install 'wsisr[tensorboard]'"
            ) from None
        self.writer: Any = SummaryWriter(  # type: ignore[no-untyped-call]
            str(folder / "tensorboard"), purge_step=from_step + 1 if from_step else None
        )

    def write(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(f"{group}/{key}", value, step)

    def close(self) -> None:
        self.writer.close()


class Trackers:
    """The trackers of a run. One that breaks is named in the log and left; the run goes on."""

    def __init__(self, folder: Path, from_step: int, config: TrainConfig) -> None:
        self._open = [
            TRACKERS.get(name)(folder, from_step, config.to_dict())
            for name in tracker_names(config)
        ]

    def write(self, group: str, row: Mapping[str, Any]) -> None:
        """A row of a log: ``step``, and values of which the numbers are handed on."""
        values = {
            key: value
            for key, value in row.items()
            if key != "step" and isinstance(value, int | float)
        }
        self._each(lambda tracker: tracker.write(group, int(row["step"]), values))

    def close(self) -> None:
        """Close them all."""
        self._each(lambda tracker: tracker.close())

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for tracker in list(self._open):
            try:
                do(tracker)
            except Exception as error:
                self._open.remove(tracker)
                with suppress(Exception):  # what it has got so far may still be kept
                    tracker.close()
                log.warning(
                    "the tracker %s broke and gets no more of this run, which goes on (%s: %s); "
                    "mend it for the next one.",
                    tracker.name, type(error).__name__, error,
                )  # fmt: skip


def tracker_names(config: TrainConfig) -> Iterable[str]:
    """Trackers of a configuration; ``train.tensorboard=true`` is one of them."""
    board = [TensorBoard.name] if config.train.tensorboard else []
    return dict.fromkeys([*board, *config.train.trackers])
