"""Names of degradations: from text or file to checked parameters, and back.

Grammar::

    spec      = one { "|" one }
    one       = part { "+" part } | path of a JSON file
    part      = name [ ":" item { "," item } ]
    item      = preset | key "=" value
    value     = number | low ".." high | number ";" number ";" number | word

``"bicubic"``, ``"realesrgan2:mild"``, ``"optics:na=0.3,defocus_um=0..2+sensor+jpeg:quality=80"``.
Parts are sorted into physical order (stain, lateral colour, sampling, light, tone, noise, seams,
JPEG); where none of them samples, bicubic does. Of several degradations, ``"bicubic | area"``,
each sample draws one (`mix`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    SerializeAsAny,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from torch import Tensor

from wsisr.degradation.stage import STAGES, Context, Stage, register_degradation, run_stages
from wsisr.errors import DegradationError
from wsisr.files import read_document, replace_file
from wsisr.plugins import check_recorded
from wsisr.resize import to_grey
from wsisr.words import closest

# Every degradation that is built in, in the order in which lists name them.
from wsisr.degradation.samplers import Bicubic  # isort: skip
from wsisr.degradation import realesrgan, modifiers, fitted  # isort: skip # noqa: F401

SEPARATOR = "|"
REFUSED = {
    "cv2-cubic": "it aliases (no antialiasing) and moves bicubic baselines by +1.1 to -1.4 dB; "
    "use bicubic",
    "none": "an LR image needs a sampling step; use bicubic or area",
}

UNNAMED = {
    "fitted": "A fitted degradation is named by its file, e.g. scanner.json.",
    "mix": "A mix is named by its degradations, e.g. 'bicubic | area'.",
}


@register_degradation
class Mix(Stage):
    """One of several degradations a sample, with equal odds: written ``bicubic | area``.

    A degradation that is named twice has twice the odds. Each option's draws are its own.
    """

    samples: ClassVar[bool] = True
    always_random: ClassVar[bool] = True
    kind: Literal["mix"] = "mix"
    options: tuple[Any, ...] = Field(min_length=2, description="the degradations to draw from")

    @field_validator("options", mode="before")
    @classmethod
    def _parsed(cls, options: Any) -> Any:
        if not isinstance(options, Sequence) or isinstance(options, str):
            raise ValueError(f"give the degradations as a list or joined by {SEPARATOR!r}")
        parsed = tuple(parse_degradation(option) for option in options)
        if any(stage.kind == "mix" for option in parsed for stage in option.stages):
            raise ValueError("a mix within a mix; name all its degradations in one")
        return parsed

    @field_serializer("options")
    def _records(self, options: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [option.record() for option in options]

    def apply(self, x: Tensor, context: Context) -> Tensor:
        draws = context.draws
        chosen = (draws.uniform("option") * len(self.options)).long()
        made = x.new_empty((*x.shape[:2], *context.size))
        for number, option in enumerate(self.options):
            rows = torch.nonzero(chosen == number)[:, 0]
            if len(rows):
                own = replace(draws, slots=draws.slots[rows], ready={}).within(str(number))
                small = run_stages(option.stages, x[rows], replace(context, draws=own))
                made[rows] = to_grey(small).to(made.dtype)
        return made


class Degradation(BaseModel):
    """A checked degradation: stages in physical order, exactly one of which samples.

    Attributes
    ----------
    name : str
        What a person asked for, e.g. ``"realesrgan2:mild"``; part of the LR's origin
        ``simulated:<name>``.
    stages : tuple of Stage
        Every parameter resolved, each stage with its version.
    format : int
        Version of this record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    stages: tuple[SerializeAsAny[InstanceOf[Stage]], ...]
    format: int = Field(default=1, ge=1, le=1)
    report: dict[str, Any] | None = Field(
        default=None, description="how a fitted one was found; not part of its identity"
    )

    @model_validator(mode="after")
    def _check_order(self) -> "Degradation":
        ranks = [stage.rank for stage in self.stages]
        if sum(stage.samples for stage in self.stages) != 1:
            raise ValueError("exactly one stage must reduce HR to LR")
        if ranks != sorted(ranks) or len({stage.kind for stage in self.stages}) < len(ranks):
            raise ValueError("stages must be in physical order, each at most once")
        return self

    @property
    def random(self) -> bool:
        """Whether two samples of one image may differ."""
        return any(stage.random for stage in self.stages)

    @property
    def plugins(self) -> list[dict[str, str]]:
        """Where the stages come from that are not built in."""
        found = (STAGES.record(stage.kind) for stage in self.stages)
        return [record for record in found if record is not None]

    @property
    def digest(self) -> str:
        """SHA-256 of the stages (16 hex digits): equal digests degrade alike.

        The source of a stage that is not built in counts as well.
        """
        parts: list[Any] = [stage.model_dump(mode="json") for stage in self.stages]
        parts += [record["sha256"] for record in self.plugins]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        """Name, digest and all parameters as plain JSON values, for metadata."""
        whole = {"digest": self.digest, **self.model_dump(mode="json", exclude={"report"})}
        return whole | ({"plugins": self.plugins} if self.plugins else {})

    def write(self, path: Path) -> None:
        """Write as a JSON file that works wherever a degradation's name does."""
        text = self.model_dump_json(indent=2, exclude_none=True)
        if self.plugins:
            text = json.dumps({**json.loads(text), "plugins": self.plugins}, indent=2)
        replace_file(path, f"{text}\n".encode())


def names() -> list[str]:
    """Every name with its presets, e.g. ``realesrgan2:mild``.

    `fitted` needs a file and `mix` others. Those of plug-ins that are loaded are among them.
    """
    listed = []
    for kind, stage in STAGES.items():
        if kind not in UNNAMED:
            listed.append(kind)
            listed += [f"{kind}:{preset}" for preset in stage.presets]
    return listed


def parse_degradation(spec: "str | Path | Mapping[str, Any] | Degradation") -> Degradation:
    """Check a degradation: a spec, the path of a JSON file (a text that ends in ``.json``), or a
    record.

    Raises
    ------
    DegradationError
        Unknown names or parameters (with a suggestion), values out of range, a broken file.
    """
    if isinstance(spec, Degradation):
        return spec
    if isinstance(spec, Mapping):
        return _validate(spec, "record")
    if isinstance(spec, str) and SEPARATOR in spec:
        name = f" {SEPARATOR} ".join(
            without_folders(part.strip()) for part in spec.split(SEPARATOR)
        )
        mix = _made(Mix, {"options": [part.strip() for part in spec.split(SEPARATOR)]})
        return _validate({"name": name, "stages": [mix]}, repr(spec))
    if isinstance(spec, Path) or (spec.endswith(".json") and "+" not in spec):
        return _from_file(Path(spec))
    stages: list[Stage] = []
    for part in spec.split("+"):
        part = part.strip()
        if part.endswith(".json"):
            stages += _from_file(Path(part)).stages
        else:
            stages.append(_stage(part))
    if not any(stage.samples for stage in stages):
        stages.append(Bicubic())
    stages.sort(key=lambda stage: stage.rank)
    return _validate({"name": without_folders(spec), "stages": stages}, repr(spec))


def without_folders(spec: str) -> str:
    """A spec as it is written down: of a file its name alone, for what is written is passed on.

    >>> without_folders("/data/St Anna/scanner.json+jpeg")
    'scanner.json+jpeg'
    """
    parts = spec.split("+")
    return "+".join(Path(p).name if p.strip().endswith(".json") else p for p in parts)


def _stage(part: str) -> Stage:
    name, _, rest = part.partition(":")
    name = name.strip()
    if name in REFUSED:
        raise DegradationError(f"{name!r} is refused: {REFUSED[name]}.")
    if name in UNNAMED:
        raise DegradationError(UNNAMED[name])
    stage = STAGES.get(name)
    values: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, text = (piece.strip() for piece in item.partition("="))
        if not equals:
            if key not in stage.presets:
                raise DegradationError(
                    f"{name} has no preset {key!r}; {closest(key, stage.presets)}"
                )
            values = {**stage.presets[key], **values}
        elif key not in stage.model_fields or key in ("kind", "version"):
            known = [field for field in stage.model_fields if field not in ("kind", "version")]
            raise DegradationError(f"{name} has no parameter {key!r}; {closest(key, known)}")
        else:
            values[key] = _value(text)
    return _made(stage, values)


def _made(stage: type[Stage], values: Mapping[str, Any]) -> Stage:
    try:
        return stage(**values)
    except ValidationError as error:
        name = stage.model_fields["kind"].default
        raise DegradationError(f"{name}: {_explain(error)}.") from None


def _value(text: str) -> Any:
    if ".." in text:
        low, _, high = text.partition("..")
        return (_value(low), _value(high))
    if ";" in text:
        return tuple(_value(piece) for piece in text.split(";"))
    try:
        return float(text)
    except ValueError:
        return text


def _from_file(path: Path) -> Degradation:
    if not path.exists():
        raise DegradationError(f"{path}: no such degradation file.")
    content = read_document(path, kind=DegradationError)
    if "stages" not in content:
        raise DegradationError(
            f"{path}: no degradation file; `wsisr degrade fit` and `degrade show` write them."
        )
    return _validate(content, str(path))


def _validate(content: Mapping[str, Any], where: str) -> Degradation:
    check_recorded(content.get("plugins"), where)
    values = {key: value for key, value in content.items() if key not in ("digest", "plugins")}
    try:
        if isinstance(values.get("stages"), list | tuple):
            values["stages"] = tuple(_known(stage, where) for stage in values["stages"])
        return Degradation(**values)
    except (ValidationError, TypeError) as error:
        raise DegradationError(f"{where}: {_explain(error)}.") from None


def _known(stage: Any, where: str) -> Any:
    """A stage's values as the class of their kind; anything else as it is."""
    if not isinstance(stage, Mapping):
        return stage
    kind = stage.get("kind")
    found = STAGES.find(kind) if isinstance(kind, str) else None
    if found is None:
        raise DegradationError(f"{where}: stages: {STAGES.unknown(kind)}")
    try:
        return found(**stage)
    except (ValidationError, TypeError) as error:
        whole = isinstance(error, TypeError) or not error.errors()[0]["loc"]
        joint = ": " if whole else "."
        raise DegradationError(f"{where}: stages.{kind}{joint}{_explain(error)}.") from None


def _explain(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    first = error.errors()[0]
    place = ".".join(
        str(p) for p in first["loc"] if p not in ("float", "function-after[check(), ") and p
    )
    message = str(first["msg"]).removeprefix("Value error, ")
    # Unions name their branches in the location; the parameter's own name is enough.
    place = place.split(".function-after")[0].split(".tuple")[0]
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, (int, float, str, tuple)) else ""
    return f"{place}: {message}{shown}" if place else message
