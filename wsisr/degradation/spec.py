"""Names of degradations: from text or file to checked parameters, and back.

Grammar::

    spec      = part { "+" part } | path of a JSON file
    part      = name [ ":" item { "," item } ]
    item      = preset | key "=" value
    value     = number | low ".." high | number ";" number ";" number | word

``"bicubic"``, ``"realesrgan2:mild"``, ``"optics:na=0.3,defocus_um=0..2+sensor+jpeg:quality=80"``.
Parts are sorted into physical order (stain, lateral colour, sampling, light, tone, noise, seams,
JPEG); where none of them samples, bicubic does.
"""

import difflib
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsisr.degradation.parameters import STAGES, AnyStage, Bicubic, Stage
from wsisr.errors import DegradationError
from wsisr.files import replace_file

REFUSED = {
    "cv2-cubic": "it aliases (no antialiasing) and moves bicubic baselines by +1.1 to -1.4 dB; "
    "use bicubic",
    "none": "an LR image needs a sampling step; use bicubic or area",
}


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
    stages: tuple[AnyStage, ...]
    format: int = Field(default=1, ge=1, le=1)
    report: dict[str, Any] | None = Field(
        default=None, description="how a fitted one was found; not part of its identity"
    )

    @model_validator(mode="after")
    def _check_order(self) -> "Degradation":
        ranks = [stage.rank for stage in self.stages]
        if sum(stage.samples for stage in self.stages) != 1:
            raise ValueError("exactly one stage must reduce HR to LR")
        if ranks != sorted(ranks) or len(set(ranks)) != len(ranks):
            raise ValueError("stages must be in physical order, each at most once")
        return self

    @property
    def random(self) -> bool:
        """Whether two samples of one image may differ."""
        drawn = {"stain", "chroma", "illumination", "sensor", "stitch", "realesrgan2"}
        for stage in self.stages:
            values = [value for key, value in stage if key not in ("wavelength_nm", "kernel")]
            spread = any(isinstance(v, tuple) and len(v) == 2 for v in values)
            noisy = getattr(stage, "shot", 0.0) > 0 or getattr(stage, "read_variance", 0.0) > 0
            if stage.kind in drawn or spread or noisy:
                return True
        return False

    @property
    def digest(self) -> str:
        """SHA-256 of the stages (16 hex digits): equal digests degrade alike."""
        text = json.dumps([stage.model_dump(mode="json") for stage in self.stages], sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        """Name, digest and all parameters as plain JSON values, for metadata."""
        return {"digest": self.digest, **self.model_dump(mode="json", exclude={"report"})}

    def write(self, path: Path) -> None:
        """Write as a JSON file that works wherever a degradation's name does."""
        replace_file(path, (self.model_dump_json(indent=2, exclude_none=True) + "\n").encode())


def names() -> list[str]:
    """Every built-in name with its presets, e.g. ``realesrgan2:mild``; `fitted` needs a file."""
    listed = []
    for kind, stage in STAGES.items():
        if kind != "fitted":
            listed.append(kind)
            listed += [f"{kind}:{preset}" for preset in stage.presets]
    return listed


def parse_degradation(spec: "str | Path | Mapping[str, Any] | Degradation") -> Degradation:
    """Check a degradation.

    Parameters
    ----------
    spec : str, Path, mapping or Degradation
        A spec string, the path of a JSON file (a text that ends in ``.json``), or a record.

    Raises
    ------
    DegradationError
        Unknown names or parameters (with a suggestion), values out of range, a broken file.
    """
    if isinstance(spec, Degradation):
        return spec
    if isinstance(spec, Mapping):
        return _validate({key: value for key, value in spec.items() if key != "digest"}, "record")
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
    if name == "fitted":
        raise DegradationError("A fitted degradation is named by its file, e.g. scanner.json.")
    stage = STAGES.get(name)
    if stage is None:
        raise DegradationError(f"No degradation {name!r}. {_suggest(name, list(STAGES))}")
    values: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, text = (piece.strip() for piece in item.partition("="))
        if not equals:
            if key not in stage.presets:
                raise DegradationError(
                    f"{name} has no preset {key!r}. {_suggest(key, list(stage.presets))}"
                )
            values = {**stage.presets[key], **values}
        elif key not in stage.model_fields or key in ("kind", "version"):
            known = [field for field in stage.model_fields if field not in ("kind", "version")]
            raise DegradationError(f"{name} has no parameter {key!r}. {_suggest(key, known)}")
        else:
            values[key] = _value(text)
    try:
        return stage(**values)
    except ValidationError as error:
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
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DegradationError(f"{path}: no such degradation file.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DegradationError(f"{path}: no readable JSON ({error}).") from None
    if not isinstance(content, dict) or "stages" not in content:
        raise DegradationError(
            f"{path}: no degradation file; `wsisr degrade fit` and `degrade show` write them."
        )
    return _validate({key: value for key, value in content.items() if key != "digest"}, str(path))


def _validate(content: dict[str, Any], where: str) -> Degradation:
    try:
        return Degradation(**content)
    except (ValidationError, TypeError) as error:
        text = _explain(error) if isinstance(error, ValidationError) else str(error)
        raise DegradationError(f"{where}: {text}.") from None


def _explain(error: ValidationError) -> str:
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


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"There are {', '.join(known)}." if known else "It has none."
