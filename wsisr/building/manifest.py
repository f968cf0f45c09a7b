"""Manifests: what a data set is, strictly typed, with every reading of its paper stated.

A manifest is YAML that this module parses into frozen values. An unknown key is an error with
a suggestion, because a typo that is ignored is a data set that nobody meant. The resolved
manifest (after command-line overrides) is stored with the pairs; its hash is the identity of
a build.
"""

import hashlib
import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from wsisr.building.manifest_parts import (
    Expected,
    Filters,
    ImagesRule,
    Labels,
    Paper,
    Quota,
    Registration,
    RescanRule,
    Sampling,
    SplitName,
    Splits,
    Strict,
    TissueRule,
)
from wsisr.errors import ManifestError
from wsisr.magnification import magnification_name, parse_magnification
from wsisr.words import closest, unknown_key


class Manifest(Strict):
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
    native: Literal["prefer", "evidence", "require", "never"] = "prefer"
    """Whether an LR that the file does not store may be made (`prefer`), must not (`require`),
    or is always made (`never`); `evidence` also makes one whose stored level was decimated or is
    worse than a reduction, slide by slide."""
    unchecked: Literal["refuse", "accept"] = "refuse"
    """What becomes of a slide whose pixels no second reader has confirmed (MRXS, BIF, VMS)."""
    focal_plane: int | None = Field(None, ge=1)
    """Which of several focal planes is read, counted from 1; None: the middle one."""
    white: float | None = Field(None, gt=0.0)
    """Sample value that is white, of images of more than 8 bits; without it they are refused."""
    icc: Literal["keep", "srgb"] = "keep"
    reduction: Literal["bicubic", "nearest", "bicubic-repeated"] = "bicubic"
    """How an LR is made that the file does not store: antialiased bicubic from the level's own
    pixels around the patch; every n-th pixel; or bicubic by 2 over and over on the patch."""
    degradation: str = Field("bicubic", pattern=r"^[a-z0-9][A-Za-z0-9_:.,=+-]*$")
    """What training and evaluation simulate LR with where the user does not say."""
    seed: int = Field(0, ge=0, lt=2**63)
    patient_from: str | None = None
    """Where file names say the patient: `folder` (the slide's own), or a regular expression of
    which a group in the slide's path is the patient."""
    tissue: TissueRule = TissueRule()
    sampling: Sampling = Sampling()
    labels: Labels = Labels()
    filters: Filters = Filters()
    registration: Registration = Registration()
    rescan: RescanRule | None = None
    """Build pairs from two scans of each glass instead of the levels of one file."""
    images: ImagesRule | None = None
    """Read ready-made images instead of slides."""
    quotas: dict[SplitName, Quota] = Field(default_factory=dict)
    split: Splits = Splits()
    expect: Expected | None = None
    """What `wsisr manifests check FILE --store` compares a build with."""

    @field_validator("hr")
    @classmethod
    def _hr(cls, value: str) -> str:
        return magnification_name(parse_magnification(value))

    @field_validator("lr", mode="before")
    @classmethod
    def _lr(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = value.split(",")
        if isinstance(value, Iterable):
            names = {parse_magnification(str(item)) for item in value}
            return tuple(magnification_name(m) for m in sorted(names, reverse=True))
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        for name in self.lr:
            ratio = self.scale_of(name)
            if ratio < 1.0 or (ratio == 1.0 and self.rescan is None):
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
        for name in self.labels.synonyms:
            if name not in self.labels.classes:
                raise ValueError(f"labels.synonyms names {name!r}, which is no class")
        for split, quota in self.quotas.items():
            for name in quota.counts:
                if name not in (*self.labels.classes, "any"):
                    raise ValueError(f"quotas.{split} names {name!r}, which is no class")
        drawn = self.sampling.kind in ("random", "texture", "nuclei")
        if drawn and self.sampling.per_slide is None:
            raise ValueError(f"{self.sampling.kind} sampling needs sampling.per_slide")
        if self.sampling.kind == "points" and self.sampling.points is None:
            raise ValueError("point sampling needs sampling.points")
        if self.sampling.snap_tiles and (self.sampling.kind != "grid" or self.images is not None):
            raise ValueError("sampling.snap_tiles is for the grid on slides, which have tiles")
        for name in self.lr:
            halvings = np.log2(self.scale_of(name))
            if self.reduction == "bicubic-repeated" and halvings % 1:
                raise ValueError(f"lr {name}: halving {self.hr} over and over does not lead there")
        if self.reduction != "bicubic" and (self.registration.per_pair or self.rescan is not None):
            raise ValueError(f"reduction {self.reduction} is for LR that nobody registers")
        self._consistent_images()
        self._consistent_counts()
        return self

    def _consistent_images(self) -> None:
        if self.tissue.method == "none" and self.images is None and self.rescan is None:
            raise ValueError("tissue method none is for ready-made images: add images")
        if self.images is None:
            return
        if self.rescan is not None or self.registration.per_pair or self.mpp is not None:
            raise ValueError("images have one level: no rescan, per-pair registration or mpp")
        if self.images.stack and (self.tissue.method != "none" or self.sampling.kind != "grid"):
            raise ValueError("a stack of images needs tissue method none and sampling kind grid")
        if self.tissue.method == "none" and self.sampling.kind not in ("grid", "cover", "random"):
            raise ValueError(f"without tissue there is no {self.sampling.kind} sampling")

    def _consistent_counts(self) -> None:
        if self.split.official and self.split.kind != "paper-random":
            raise ValueError("split.official belongs to split.kind paper-random")
        if self.expect is None or not self.quotas:
            return
        for split, wanted in self.expect.pairs.items():
            quota = self.quotas.get(split)
            if quota is not None and sum(quota.counts.values()) != wanted:
                raise ValueError(
                    f"expect.pairs.{split} is {wanted} and quotas.{split} add up to "
                    f"{sum(quota.counts.values())}"
                )

    def scale_of(self, lr: str) -> float:
        """HR px per LR px of a magnification; 13.33x is a third of 40x."""
        ratio = parse_magnification(self.hr) / parse_magnification(lr)
        return float(round(ratio)) if abs(ratio - round(ratio)) < 1e-3 * ratio else ratio

    @property
    def lr_arrays(self) -> tuple[str, ...]:
        """Names of the LR arrays; a second scan at HR's own magnification has its own."""
        return tuple(f"{name}-second" if name == self.hr else name for name in self.lr)

    @property
    def margin_px(self) -> int:
        """HR pixels that are read around a patch for registration."""
        if not self.registration.per_pair or self.rescan is not None:
            return 0
        region = self.registration.region_px
        return 13 if region is None else (region - self.size) // 2

    def scaled(self, factor: float) -> "Manifest":
        """The same data set in small (or large): all counts times `factor`, none below 1.

        Quotas, expectations, draws and caps per slide and per patient; sizes, rules and shares
        stay. For trials and tests of sets of thousands.
        """
        if factor == 1.0:
            return self
        if not 0.0 < factor < float("inf"):
            raise ManifestError(f"Counts cannot be scaled by {factor}; use e.g. 0.01.")
        body = self.to_dict()
        groups = [*body["quotas"].values(), *(body["expect"] or {}).values()]
        for group in groups:
            group.update({k: scaled_count(n, factor) for k, n in group.items()})
        for split in set(body["quotas"]) & set((body["expect"] or {}).get("pairs", {})):
            body["expect"]["pairs"][split] = sum(body["quotas"][split].values())
        for key in ("per_slide", "max_per_slide", "max_per_patient"):
            if body["sampling"][key] is not None:
                body["sampling"][key] = scaled_count(body["sampling"][key], factor)
        return parse_manifest(body, self.name)

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def sha256(self) -> str:
        """Identity of the data set: prose and expectations do not count, and settings that came
        later count only where they are used, so that older stores can be gone on with."""
        prose = {"description", "readings", "paper", "expect"}
        body = self.model_dump(mode="json", exclude=prose)
        for place, default in _LATER_SETTINGS.items():
            group, _, key = place.rpartition(".")
            owner = body[group] if group else body
            if owner[key] == default:
                del owner[key]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


_LATER_SETTINGS: dict[str, Any] = {
    "reduction": "bicubic",
    "degradation": "bicubic",
    "images": None,
    "unchecked": "refuse",
    "focal_plane": None,
    "white": None,
    "patient_from": None,
    "labels.synonyms": {},
    "tissue.clam": None,
    "sampling.snap_tiles": False,
    "sampling.unlisted": "none",
    "split.official": False,
    "split.test_sets": None,
}
"""Settings that the first stores did not know, with the value that means what those did."""


def scaled_count(count: int, factor: float) -> int:
    """A count of a manifest at another scale; 0 stays 0, nothing else becomes 0."""
    return max(1, round(count * factor)) if count else 0


def manifest_schema() -> dict[str, Any]:
    """JSON schema of a manifest file, draft 2020-12 (shipped as ``schema.json`` beside them)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Manifest.model_json_schema(mode="validation"),
        "title": "wsisr manifest",
    }


def manifest_folder() -> Path:
    """Where the built-in manifests are: in the package, else at the repository root."""
    inside = Path(str(files("wsisr"))) / "manifests"
    return inside if inside.is_dir() else Path(str(files("wsisr"))).parent / "manifests"


def manifest_names() -> list[str]:
    """Names of the built-in manifests, sorted."""
    return sorted(path.stem for path in manifest_folder().glob("*.yaml"))


def load_manifest(name_or_file: str | Path, overrides: dict[str, Any] | None = None) -> Manifest:
    """Read a manifest by name or file and apply overrides (dotted keys allowed).

    A built-in name always means the built-in manifest, whatever lies in the working folder; files
    are named with their suffix or with a folder (``./mine.yaml``).

    Raises
    ------
    ManifestError
        Unknown name, broken YAML, unknown key (with a suggestion) or a value out of range.
    """
    path = Path(name_or_file)
    if str(name_or_file) in manifest_names():
        path = manifest_folder() / f"{name_or_file}.yaml"
    elif path.suffix not in (".yaml", ".yml") and not path.exists():
        raise ManifestError(
            f"There is no manifest {str(name_or_file)!r}; "
            f"{closest(str(name_or_file), manifest_names())} Or give the path of a .yaml file."
        )
    elif path.is_dir():
        raise ManifestError(
            f"{path} is a folder; a manifest is a .yaml file, or one of the names "
            f"{', '.join(manifest_names())}."
        )
    elif not path.is_file():
        raise ManifestError(f"{path}: no such manifest file.")
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(body, dict):
        raise ManifestError(f"{path}: a manifest is a YAML mapping with at least a name.")
    if path.parent != manifest_folder() and body.get("name") in manifest_names():
        _refuse_namesake(body, path)
    for key, value in (overrides or {}).items():
        if key.partition(".")[0] == "quotas":
            # Other numbers than the paper's are asked for.
            body.pop("expect", None)
        _set(body, key.split("."), value)
    return parse_manifest(body, str(path))


def assigned(texts: Iterable[str]) -> dict[str, Any]:
    """Keys and values of ``key=value`` texts, as YAML reads the values: ``tissue.method=clam``.

    Raises
    ------
    ManifestError
        A text without a key or a sign, or a key given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, sign, value = (part.strip() for part in text.partition("="))
        if not key or not sign:
            raise ManifestError(f"--set {text}: write key=value, e.g. tissue.min_fraction=0.7.")
        if key in found:
            raise ManifestError(f"--set {key} is given twice.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[key] = value  # a regular expression, say
    return found


def parse_manifest(body: dict[str, Any], where: str = "manifest") -> Manifest:
    """Validate a manifest's content; `where` names it in errors."""
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ManifestError(f"{where}: " + "; ".join(lines)) from None


def _refuse_namesake(body: dict[str, Any], path: Path) -> None:
    """A file that calls itself like a built-in manifest must say the same."""
    if parse_manifest(body, str(path)).sha256() != load_manifest(body["name"]).sha256():
        raise ManifestError(
            f"{path} names itself {body['name']!r}, which is built in and says other things: its "
            "stores and tables would pass for that data set. Give it another name."
        )


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
    return unknown_key(item["loc"], Manifest)
