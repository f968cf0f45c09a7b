"""Names to networks: the table of architectures and the one way to build them."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wsisr.errors import ModelError
from wsisr.models.info import ModelInfo
from wsisr.models.layers.blocks import upsample_factors
from wsisr.models.settings import override
from wsisr.models.wrapper import SRModel
from wsisr.plugins import Registry
from wsisr.words import closest

PRESETS = ("paper", "official", "recommended", "tiny")
MAX_SCALE = 32


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One architecture: how it is described and how it is built.

    Attributes
    ----------
    name, summary, citation : str
        `summary` is one line for lists; `citation` names authors, title, venue, year.
    family : str
        Of networks that belong together; ``baseline``: what papers compare with.
    kind : {"fixed", "arbitrary"}
        Whether one network serves one scale or all.
    settings : type
        The frozen dataclass of its settings.
    presets : mapping of str to callable
        ``preset(scale) -> settings``; `scale` is None for arbitrary-scale architectures.
    build : callable
        ``build(settings, scale) -> SRModel``; `scale` likewise.
    scales : tuple of int or None
        The only scales a fixed-scale architecture is defined for; None: any product of 2 and 3.
    smallest : int
        Least scale; 1: it also restores without enlarging.
    """

    name: str
    family: str = "baseline"
    kind: Literal["fixed", "arbitrary"] = "fixed"
    summary: str
    citation: str
    settings: type
    presets: Mapping[str, Callable[[Any], Any]]
    build: Callable[[Any, Any], SRModel]
    scales: tuple[int, ...] | None = None
    smallest: int = 2


MODELS: Registry[ModelSpec] = Registry("model", "wsisr.models", ModelError)
"""Every architecture by its name."""

NOT_BUILT = {
    "ignn": "MASRGAN's table 1; graph search over scales, public code not restated here",
    "spsr": "MASRGAN's table 1; two branches and two discriminators, public code not restated here",
    "qegan": "MASRGAN's table 1; no public source was found",
    "wa-srgan": "MASRGAN's table 1; public notebooks of that name were not checked against it",
    "shisrcnet": "MiHATP's table 1; its super-resolving half is built: srmfenet",
    "ldm": "MiHATP's table 1; diffusion, which needs another kind of training and sampling",
    "idm": "MiHATP's table 1; diffusion, which needs another kind of training and sampling",
    "resshift": "MiHATP's table 1; diffusion, which needs another kind of training and sampling",
}
"""Networks of the papers' tables that are not built: name -> where it stands, and why not."""


def register(spec: ModelSpec) -> ModelSpec:
    """Add an architecture; a name may be taken once."""
    for preset in spec.presets:
        if preset not in PRESETS:
            raise ModelError(f"{spec.name}: unknown preset {preset!r}; {closest(preset, PRESETS)}")
    MODELS.add(spec.name, spec)
    return spec


def list_models() -> tuple[str, ...]:
    """Names of all architectures that are built in or loaded, sorted."""
    return tuple(sorted(MODELS))


def model_spec(name: str) -> ModelSpec:
    """The registry entry of a name, of an installed package too.

    Raises
    ------
    ModelError
        If the name is unknown; the message has the closest one.
    """
    if name.lower() in NOT_BUILT and MODELS.find(name) is None:
        raise ModelError(
            f"{name!r} is not built ({NOT_BUILT[name.lower()]}); built: {', '.join(list_models())}"
        )
    return MODELS.get(name)


def resolve_settings(name: str, scale: int | None, preset: str, changes: Mapping[str, Any]) -> Any:
    """Settings of a preset at a scale with some fields changed; checks all of them."""
    spec = model_spec(name)
    check_scale(spec, scale)
    if preset not in spec.presets:
        raise ModelError(f"{name} has no preset {preset!r}; {closest(preset, spec.presets)}")
    return override(spec.presets[preset](scale), changes, name)


def check_scale(spec: ModelSpec, scale: int | None) -> None:
    """Raise `ModelError` unless the scale fits the kind of model."""
    if spec.kind == "arbitrary":
        if scale is not None:
            raise ModelError(
                f"{spec.name} takes its scale at each call: model(lr, scale={scale}); "
                "build it without scale="
            )
        return
    if scale is None:
        raise ModelError(f"{spec.name} is built for one scale: give scale=2, 3, 4, 6 or 8")
    least = spec.smallest
    if isinstance(scale, bool) or int(scale) != scale or not least <= scale <= MAX_SCALE:
        raise ModelError(
            f"{spec.name}: scale={scale}; give a whole number from {least} to {MAX_SCALE}"
        )
    if spec.scales is not None and scale not in spec.scales:
        defined = ", ".join(f"x{s}" for s in spec.scales)
        raise ModelError(f"{spec.name} is defined for {defined} alone; x{scale} was asked for")
    if scale > 1:
        upsample_factors(int(scale))


def create_model(
    name: str, *, scale: int | None = None, preset: str = "recommended", **settings: Any
) -> SRModel:
    """Build a network with fresh weights.

    Parameters
    ----------
    name : str
        One of `list_models`.
    scale : int, optional
        Magnification of a fixed-scale model (a product of 2s and 3s); leave it out for
        arbitrary-scale models.
    preset : {"recommended", "paper", "official", "tiny"}
        Where the settings come from. Not every model has every preset.
    **settings
        Single settings to change; every one is a field of the model's settings dataclass.

    Returns
    -------
    SRModel
        With ``.info`` (`ModelInfo`) and ``.settings``. Weights come from torch's global
        random generator: seed it first for a reproducible start.

    Raises
    ------
    ModelError
        Unknown name, preset or setting (with a suggestion), or a value out of range.
    """
    spec = model_spec(name)
    resolved = resolve_settings(name, scale, preset, settings)
    return build_from_settings(spec, resolved, None if scale is None else int(scale), preset)


def build_from_settings(spec: ModelSpec, settings: Any, scale: int | None, preset: str) -> SRModel:
    """Build a network from complete settings (as a checkpoint stores them)."""
    check_scale(spec, scale)
    model = spec.build(settings, scale)
    model.settings = settings
    covered = model.traits.scale_range or (float(scale or 1), float(scale or 4))
    model.info = ModelInfo(
        name=spec.name,
        family=spec.family,
        preset=preset,
        kind=spec.kind,
        scale=scale,
        citation=spec.citation,
        **vars(model.traits) | {"scale_range": covered},
    )
    return model


def settings_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain values for config.json."""
    return dataclasses.asdict(settings)
