"""Manifests: what a data set is, strictly typed, with every reading of its paper stated.

A manifest is YAML that this module parses into frozen values. An unknown key is an error with
a suggestion, because a typo that is ignored is a data set that nobody meant. The resolved
manifest (after command-line overrides) is stored with the pairs; its hash is the identity of
a build.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wsisr.errors import ManifestError, WsisrError
from wsisr.magnification import magnification_name, parse_magnification

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(_Strict):
    """The publication that a data set comes from."""

    title: str
    authors: str = ""
    year: int | None = None
    doi: str = ""


class TissueRule(_Strict):
    """Which part of the glass counts."""

    method: Literal["consensus", "clam-like"] = "consensus"
    min_fraction: Fraction = 0.5
    """Smallest share of tissue in the field; a paper's "more than" is `strict`."""
    strict: bool = False
    """Whether the shares of tissue and label must be exceeded, not just reached."""
    um_per_px: float = Field(8.0, gt=0.0, le=64.0)


class Sampling(_Strict):
    """Where candidates lie before any rule has looked at them."""

    kind: Literal["grid", "random", "texture", "nuclei", "points"] = "grid"
    """`texture` and `nuclei` draw places with a probability that follows the tissue overview."""
    stride: float = Field(1.0, gt=0.0)
    """Grid pitch in fields of view: 1 touches, 0.5 overlaps by half."""
    per_slide: int | None = Field(None, ge=1)
    """How many places are drawn on each slide (random, texture, nuclei)."""
    max_overlap: Fraction = 0.0
    """Largest share of a field that a chosen patch may share with another one."""
    points: str | None = None
    """Points: CSV of `slide,x,y` level-0 centres, relative to SOURCE."""
    max_per_slide: int | None = Field(None, ge=1)
    max_per_patient: int | None = Field(None, ge=1)


class Labels(_Strict):
    """Classes of the glass and how pure a patch must be."""

    classes: tuple[str, ...] = ()
    """Names in the order of their numbers, e.g. (normal, tumour); empty: no classes."""
    background: str | None = None
    """The class of tissue that no annotation covers."""
    min_fraction: Fraction = 0.5
    required: bool = False
    """Whether patches without a pure class are dropped."""


class Filters(_Strict):
    """Rules on the pixels themselves."""

    min_texture: float = Field(0.0, ge=0.0)
    rgb_outlier_sd: float | None = Field(None, gt=0.0)
    """Drop patches whose mean colour lies this many standard deviations off the slide's."""


class Registration(_Strict):
    """How LR and HR of one place are brought together (design 4)."""

    method: Literal["none", "levels", "ncc-integer", "subpixel", "affine"] = "levels"
    """`levels`: one measured transform per level of a slide. `ncc-integer` (the paper's),
    `subpixel` and `affine`: every pair is searched for by itself. `none`: the file is believed."""
    region_px: int | None = Field(None, ge=1)
    """Side of the HR search region; None: the patch and 13 px on every side."""

    @property
    def per_pair(self) -> bool:
        """Whether every pair is searched for by itself."""
        return self.method not in ("none", "levels")


class Rescan(_Strict):
    """How two scans of one glass find each other: a table, else file names."""

    lr: str = r"(?P<glass>.+?)[ ._-]*(10x|5x|lr|low|moving)"
    """Whole name of an LR scan without suffix; the group `glass` is what both scans share."""
    hr: str = r"(?P<glass>.+?)[ ._-]*(40x|20x|hr|high|fixed)"
    table: str = "pairs.csv"
    """CSV with the columns lr,hr (file names or ids), relative to SOURCE."""

    @field_validator("lr", "hr")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        if "glass" not in groups:
            raise ValueError(f"{value!r} needs a group (?P<glass>...)")
        return value


class Quota(_Strict):
    """Patches wanted of each class (or in all, under the name `any`) in one split."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0)]]

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.__pydantic_extra__)


class Splits(_Strict):
    """Who is trained on and who is tested."""

    kind: Literal["patient", "official"] = "patient"
    weights: dict[Literal["train", "val", "test"], Annotated[float, Field(ge=0.0)]] = {
        "train": 5.0,
        "test": 1.0,
    }
    """Relative shares of patients; without `val` a tenth of the training patients validates.
    `official`: for slides that the source does not assign itself."""
    exact: bool = False
    """Exact counts from one seeded order of the patients, instead of one draw per patient."""
    stratify: Literal["site"] | None = None


class Manifest(_Strict):
    """A whole data set: sizes, sampling, rules, registration, quotas and splits."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: int = Field(1, ge=1)
    description: str = ""
    paper: Paper | None = None
    readings: tuple[str, ...] = ()
    """What the paper leaves open, and what is done about it."""
    hr: str = "40x"
    lr: tuple[str, ...] = ("20x", "10x")
    size: int = Field(1024, ge=8, le=16384)
    """Side of an HR patch in HR pixels."""
    mpp: float | None = Field(None, gt=0.0)
    """Physical resolution of HR in um/px instead of the nominal magnification."""
    native: Literal["prefer", "require", "never"] = "prefer"
    """Whether an LR that the file does not store may be made (`prefer`), must not (`require`),
    or is always made (`never`)."""
    icc: Literal["keep", "srgb"] = "keep"
    seed: int = Field(0, ge=0, lt=2**63)
    tissue: TissueRule = TissueRule()
    sampling: Sampling = Sampling()
    labels: Labels = Labels()
    filters: Filters = Filters()
    registration: Registration = Registration()
    rescan: Rescan | None = None
    """Build pairs from two scans of each glass instead of the levels of one file."""
    quotas: dict[Literal["train", "val", "test"], Quota] = {}
    split: Splits = Splits()

    @field_validator("hr")
    @classmethod
    def _hr(cls, value: str) -> str:
        return magnification_name(_magnification(value))

    @field_validator("lr", mode="before")
    @classmethod
    def _lr(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, Iterable):
            names = {_magnification(str(item)) for item in value}
            return tuple(magnification_name(m) for m in sorted(names, reverse=True))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        hr = parse_magnification(self.hr)
        for name in self.lr:
            ratio = hr / parse_magnification(name)
            if ratio <= 1.0:
                raise ValueError(f"lr {name} is not below hr {self.hr}")
            if abs(self.size / ratio - round(self.size / ratio)) > 1e-9:
                raise ValueError(
                    f"size {self.size} at {self.hr} is {self.size / ratio:g} px at {name}: "
                    f"choose a size that {ratio:g} divides"
                )
        region = self.registration.region_px
        if region is not None and (region < self.size or (region - self.size) % 2):
            raise ValueError(f"region_px must be size ({self.size}) plus an even margin")
        if self.rescan is not None and (
            self.registration.method != "affine" or len(self.lr) != 1 or self.mpp is not None
        ):
            raise ValueError("rescan needs registration method affine, one lr and no mpp")
        if self.registration.per_pair and len(self.lr) != 1:
            raise ValueError(
                f"registration {self.registration.method!r} crops HR to match one LR, and lr names "
                f"{len(self.lr)}"
            )
        if self.registration.per_pair and self.mpp is not None:
            raise ValueError("with --mpp LR and HR are both made from level 0: nothing to register")
        if self.labels.background and self.labels.background not in self.labels.classes:
            raise ValueError(f"background {self.labels.background!r} is not among the classes")
        for split, quota in self.quotas.items():
            for name in quota.counts:
                if name not in (*self.labels.classes, "any"):
                    raise ValueError(f"quotas.{split} names {name!r}, which is no class")
        drawn = self.sampling.kind in ("random", "texture", "nuclei")
        if drawn and self.sampling.per_slide is None:
            raise ValueError(f"{self.sampling.kind} sampling needs sampling.per_slide")
        if self.sampling.kind == "points" and self.sampling.points is None:
            raise ValueError("point sampling needs sampling.points")
        return self

    @property
    def margin_px(self) -> int:
        """HR pixels that are read around a patch for registration."""
        if not self.registration.per_pair or self.rescan is not None:
            return 0
        region = self.registration.region_px
        return 13 if region is None else (region - self.size) // 2

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def sha256(self) -> str:
        """Identity of the data set: prose (description, readings, paper) does not count."""
        body = self.model_dump(mode="json", exclude={"description", "readings", "paper"})
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _magnification(text: str) -> float:
    try:
        return parse_magnification(str(text))
    except WsisrError as error:
        raise ValueError(str(error)) from None


def manifest_folder() -> Path:
    """Where the built-in manifests are: in the package, else at the repository root."""
    inside = Path(str(files("wsisr"))) / "manifests"
    return inside if inside.is_dir() else Path(str(files("wsisr"))).parent / "manifests"


def manifest_names() -> list[str]:
    """Names of the built-in manifests, sorted."""
    return sorted(path.stem for path in manifest_folder().glob("*.yaml"))


def load_manifest(name_or_file: str | Path, overrides: dict[str, Any] | None = None) -> Manifest:
    """Read a manifest by name or file and apply overrides (dotted keys allowed).

    Raises
    ------
    ManifestError
        Unknown name, broken YAML, unknown key (with a suggestion) or a value out of range.
    """
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise ManifestError(f"{path}: no such manifest file.")
    else:
        path = manifest_folder() / f"{name_or_file}.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(str(name_or_file), manifest_names(), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ManifestError(
                f"There is no manifest {str(name_or_file)!r}.{hint} Built in are: "
                f"{', '.join(manifest_names())}; or give the path of a .yaml file."
            )
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(body, dict):
        raise ManifestError(f"{path}: a manifest is a YAML mapping with at least a name.")
    for key, value in (overrides or {}).items():
        _set(body, key.split("."), value)
    return parse_manifest(body, str(path))


def parse_manifest(body: dict[str, Any], where: str = "manifest") -> Manifest:
    """Validate a manifest's content; `where` names it in errors."""
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ManifestError(f"{where}: " + "; ".join(lines)) from None


def _set(body: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        child = body.setdefault(key, {})
        if not isinstance(child, dict):
            raise ManifestError(f"{'.'.join(keys)}: {key} is no group of settings.")
        body = child
    body[keys[-1]] = value


def _explain(item: Any) -> str:
    """One pydantic complaint as a sentence, unknown keys with the nearest known one."""
    place = ".".join(str(part) for part in item["loc"]) or "manifest"
    if item["type"] != "extra_forbidden":
        return f"{place}: {item['msg'].removeprefix('Value error, ')}"
    known: Any = Manifest
    for part in item["loc"][:-1]:
        field = known.model_fields.get(part) if hasattr(known, "model_fields") else None
        options = (field.annotation, *get_args(field.annotation)) if field else ()
        known = next((o for o in options if hasattr(o, "model_fields")), None)
    names = list(known.model_fields) if known is not None else []
    near = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
    return f"unknown key {place!r}: {hint}"
