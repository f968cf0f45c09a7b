"""Which trainings a study means: one for each row, seed, and scale of a fixed-scale network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsisr.errors import ConfigError
from wsisr.models import model_spec
from wsisr.studies.definition import Budget, Row, Study
from wsisr.training import TrainRequest


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run of a study.

    Attributes
    ----------
    scale : int or None
        Of a fixed-scale network.
    """

    row: Row
    scale: int | None
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        scale = "" if self.scale is None else f"-x{self.scale}"
        return f"{self.row.id}{scale}-s{self.seed}"


def trainings(study: Study, rows: Sequence[Row], budget: Budget) -> tuple[Training, ...]:
    """Every run of some rows, each after the one that it starts from."""
    found = []
    for row in rows:
        if row.model is None or row.model == "bicubic":
            continue
        if model_spec(row.model).kind == "arbitrary":
            scales: list[int | None] = [None]
        else:
            scales = [scale for scale in row_scales(study, row) if unfit(row, scale) is None]
        found += [
            Training(row=row, scale=scale, seed=seed)
            for scale in scales
            for seed in range(budget.seeds)
        ]
    return tuple(found)


def row_scales(study: Study, row: Row) -> list[int]:
    """Whole scales of a row: those that a fixed-scale network can be built for."""
    return [int(s) for s in row.scales or study.scales if float(s).is_integer()]


def unfit(row: Row, scale: float) -> str | None:
    """Why a row has no cell at a scale that the study has."""
    if row.model is None:
        return row.why_not
    spec = model_spec(row.model)
    if spec.kind == "arbitrary":
        return None
    if not float(scale).is_integer():
        return "one network a scale, whole scales alone"
    if spec.scales is not None and int(scale) not in spec.scales:
        return f"defined for {', '.join(f'x{s}' for s in spec.scales)} alone"
    return None


def share(all_of: Sequence[Training], part: tuple[int, int]) -> tuple[Training, ...]:
    """The part I of N of the trainings; a run stays with the one that it starts from."""
    number, count = part
    if not 1 <= number <= count:
        raise ConfigError(f"part {number}/{count}: give I/N with I from 1 to N")
    roots: dict[tuple[str, int | None, int], int] = {}
    chosen = []
    for training in all_of:
        key = (training.row.init_from or training.row.id, training.scale, training.seed)
        at = roots.setdefault(key, len(roots))
        roots[training.row.id, training.scale, training.seed] = at
        if at % count == number - 1:
            chosen.append(training)
    return tuple(chosen)


def request_of(
    study: Study, training: Training, budget: Budget, data: Path, folder: Path, device: str | None
) -> TrainRequest:
    """What is trained, as `wsisr train` would be asked."""
    row = training.row
    assert row.model is not None
    start = None
    if row.init_from is not None:
        source = next(other for other in study.rows if other.id == row.init_from)
        start = folder / Training(row=source, scale=training.scale, seed=training.seed).name
    return TrainRequest(
        model=row.model,
        data=data,
        scale=training.scale,
        preset=budget.preset,
        lr_source=study.lr_source,
        assignments=row.set,
        output=folder / training.name,
        init_from=start,
        seed=training.seed,
        steps=budget.steps,
        device=device,
    )
