"""What a study is: rows with their settings, scales, data set, protocol and budget."""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsisr.errors import ConfigError
from wsisr.evaluation.settings import scale_label
from wsisr.words import closest

Slug = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Budget(_Part):
    """How much a study may cost."""

    name: Literal["tiny", "paper"]
    preset: Literal["tiny", "paper"] = Field(description="of every network and its training")
    steps: int | None = Field(None, ge=1, description="optimiser steps; null: the preset's")
    seeds: int = Field(1, ge=1, description="trainings of each row, seeds 0, 1, ...")
    limit: int | None = Field(None, ge=1, description="test patches; null: all")

    @property
    def words(self) -> str:
        """What stands in the title of everything that a small budget made."""
        if self.name == "paper":
            return ""
        steps = "the preset's" if self.steps is None else f"{self.steps}"
        return f"TINY BUDGET ({steps} steps a network): that it runs, not what the methods can do"


BUDGETS = {
    "tiny": Budget(name="tiny", preset="tiny", limit=32),
    "paper": Budget(name="paper", preset="paper", seeds=3),
}


class Row(_Part):
    """One line of a table."""

    id: Slug = Field(description="names the folders of its runs")
    label: str = Field(description="as it stands in our table")
    method: str | None = Field(None, description="as in the published numbers; null: none printed")
    model: str | None = Field(None, description="network; null: the row cannot be filled")
    set: tuple[str, ...] = Field((), description="section.key=value, as `wsisr train --set`")
    init_from: Slug | None = Field(None, description="row whose run its training starts from")
    scales: tuple[float, ...] | None = Field(None, description="the only scales of this row")
    why_not: str | None = Field(None, description="why it cannot be filled")

    @model_validator(mode="after")
    def _filled(self) -> "Row":
        if (self.model is None) == (self.why_not is None):
            raise ValueError(f"row {self.id}: give model, or why_not")
        return self


class Study(_Part):
    """A table of a paper, or one of ours."""

    name: Slug
    title: str
    paper: str | None = Field(None, description="as in the published numbers")
    table: str | None = Field(None, description="its number there")
    data: dict[str, str] = Field(description="data set as published -> manifest")
    lr_source: str | None = Field(None, description="degradation, or native; null: auto")
    protocol: str = Field("wsisr", description="scores of `wsisr eval --protocol`")
    scales: tuple[float, ...]
    rows: tuple[Row, ...] = Field(min_length=1)
    readings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> "Study":
        ids = [row.id for row in self.rows]
        if len(set(ids)) < len(ids):
            raise ValueError("a row's id is used twice")
        for row in self.rows:
            if row.init_from is not None and row.init_from not in ids[: ids.index(row.id)]:
                raise ValueError(f"row {row.id}: init_from {row.init_from} is no row before it")
            for scale in row.scales or ():
                if scale not in self.scales:
                    raise ValueError(f"row {row.id}: {scale_label(scale)} is no scale of the study")
        return self

    def chosen(self, ids: Sequence[str]) -> tuple[Row, ...]:
        """Rows by id, with those that they start from; all where none is named.

        Raises
        ------
        ConfigError
            There is no such row.
        """
        by_id = {row.id: row for row in self.rows}
        for name in ids:
            if name not in by_id:
                raise ConfigError(f"{self.name} has no row {name!r}; {closest(name, by_id)}")
        wanted = set(ids or by_id)
        for row in reversed(self.rows):
            if row.id in wanted and row.init_from is not None:
                wanted.add(row.init_from)
        return tuple(row for row in self.rows if row.id in wanted)


@cache
def study_folder() -> Path:
    """Where the built-in studies lie: inside the package, or beside it in a clone."""
    inside = Path(str(files("wsisr"))) / "studies" / "definitions"
    return inside if inside.is_dir() else Path(str(files("wsisr"))).parent / "studies"


def study_names() -> list[str]:
    """Names of the built-in studies, sorted."""
    return sorted(path.stem for path in study_folder().glob("*.yaml"))


def load_study(name_or_file: str | Path) -> Study:
    """A built-in study by its name, or a file of one's own (``./mine.yaml``).

    Raises
    ------
    ConfigError
        Unknown name, or whatever is wrong in the file.
    """
    path = Path(name_or_file)
    if str(name_or_file) in study_names():
        path = study_folder() / f"{name_or_file}.yaml"
    elif path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise ConfigError(
            f"There is no study {str(name_or_file)!r}; {closest(str(name_or_file), study_names())}"
            " (or give the path of a .yaml file)"
        )
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Study.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'study'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(lines)}") from None
