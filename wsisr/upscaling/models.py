"""Which model: a run, a saved model, or bicubic; and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsisr import __version__
from wsisr.errors import ConfigError, MagnificationError, ModelError
from wsisr.magnification import nominal_magnification, parse_magnification
from wsisr.store.files import file_sha256
from wsisr.training.runs import BEST, LAST, RUN_NAME, Run, open_run
from wsisr.upscaling.engines import BicubicEngine, Engine, TorchEngine

BICUBIC = "bicubic"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to run.

    Attributes
    ----------
    engine : Engine
    name, preset : str
    scale : int or None
        Of a fixed-scale model.
    scale_range : (float, float)
        Scales it was trained or designed for.
    weights_sha256 : str
        Empty for bicubic.
    lr_origin, degradation : str
        What it was trained on; empty where that is not recorded.
    hr_magnification : float or None
        Nominal magnification that it was trained to give, where recorded.
    device, precision : str
    pooling : str
        Over what a network pools that does so over its input; empty for others.
    """

    engine: Engine
    name: str
    preset: str = ""
    scale: int | None = None
    scale_range: tuple[float, float] = (1.0, 64.0)
    weights_sha256: str = ""
    lr_origin: str = ""
    degradation: str = ""
    hr_magnification: float | None = None
    device: str = "cpu"
    precision: str = "float32"
    pooling: str = ""

    @property
    def is_network(self) -> bool:
        return bool(self.weights_sha256)

    def provenance(self) -> dict[str, str]:
        """For the metadata of the output."""
        facts = {"model": self.name, "preset": self.preset, "weights_sha256": self.weights_sha256}
        facts["pooling"] = self.pooling
        if self.is_network:
            facts["trained_on_lr"] = self.lr_origin or "not recorded"
            facts["trained_on_degradation"] = self.degradation or "not recorded"
            facts["precision"] = self.precision
        return {key: value for key, value in facts.items() if value}


def load(
    model: str, *, device: str = "auto", precision: str = "auto", pool: str = "local"
) -> LoadedModel:
    """Load a model by the folder of its run or of its weights, or bicubic by name.

    Parameters
    ----------
    model : str
    device : str
        ``"auto"`` takes a GPU where there is one.
    precision : {"auto", "float32", "bfloat16"}
        ``"auto"``: bfloat16 on a GPU where the model supports it, else float32.
    pool : {"local", "tile"}
        Over what a network pools that does so over its input: over the size of its training crops
        around each pixel (its recommended tile where that size is not recorded), so that tiles
        give what the whole would; or over the tile that it is given.

    Raises
    ------
    ConfigError
        A wrong device, precision or way of pooling.
    ModelError
        No such model.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ConfigError(f"--precision {precision!r}: give auto, float32 or bfloat16.")
    if pool not in ("local", "tile"):
        raise ConfigError(f"--pool {pool!r}: give local or tile.")
    if model == BICUBIC:
        return LoadedModel(engine=BicubicEngine(), name=BICUBIC)
    folder = Path(model)
    if not folder.exists():
        raise ModelError(
            f"{model}: there is no such run or model folder; give the folder of a training run "
            "(runs/...), a saved model, or bicubic."
        )
    scale_range: tuple[float, float] | None = None
    hr_magnification: float | None = None
    crop_px: int | None = None
    run = _run_of(folder)
    if run is not None:
        folder = run.weights if folder == run.folder else folder
        scale_range, hr_magnification = run.scale_range, _trained_to(run)
        crop_px = _training_px(run)
    from wsisr.models.device import choose_device
    from wsisr.models.weights import WEIGHTS_NAME, load_model_and_config

    place = choose_device(device)
    network, config = load_model_and_config(folder, place)
    folder = folder if folder.is_dir() else folder.parent
    info = network.info
    if info.takes_reference and info.kind != "fixed":
        raise ModelError(f"{info.name} needs a reference; it cannot be run on a slide alone.")
    half = precision == "bfloat16" or (
        precision == "auto" and place.type == "cuda" and "bfloat16" in info.dtypes
    )
    if half and "bfloat16" not in info.dtypes:
        raise ConfigError(f"--precision bfloat16: {info.name} supports {', '.join(info.dtypes)}.")
    extra: Mapping[str, Any] = config.get("extra") or {}
    recorded = extra.get("scale_range")
    if scale_range is None and isinstance(recorded, (list, tuple)) and len(recorded) == 2:
        scale_range = (float(recorded[0]), float(recorded[1]))
    pool_px = (crop_px or info.tile_px) if pool == "local" else None
    engine = TorchEngine(network, place, half, pool_px)
    return LoadedModel(
        engine=engine,
        name=info.name,
        preset=info.preset,
        scale=info.scale,
        scale_range=scale_range or info.scale_range,
        weights_sha256=file_sha256(folder / WEIGHTS_NAME),
        lr_origin=str(extra.get("lr_origin") or ""),
        degradation=str(extra.get("degradation") or ""),
        hr_magnification=hr_magnification,
        device=str(place),
        precision="bfloat16" if half else "float32",
        pooling=_pooling(pool_px, recorded=crop_px is not None) if engine.pools else "",
    )


def settle_scale(model: LoadedModel, scale: float | None) -> float:
    """The scale to use.

    Raises
    ------
    ConfigError
        If the model has another one, or needs one and none is given.
    """
    if model.scale is not None:
        if scale is not None and scale != model.scale:
            raise ConfigError(
                f"{model.name} was trained for x{model.scale} and cannot do x{scale:g}; leave "
                "--scale out, or take an arbitrary-scale model (`wsisr models list`)."
            )
        return float(model.scale)
    if scale is None:
        raise ConfigError(f"{model.name} works at any scale: give one with --scale, e.g. 4.")
    return scale


def doubts(model: LoadedModel, scale: float, origin: str, output_um_per_px: float | None) -> str:
    """One sentence on how the input differs from what the model was trained on; else empty."""
    if not model.is_network:
        return ""
    found = []
    low, high = model.scale_range
    if not low - 1e-9 <= scale <= high + 1e-9:
        found.append(f"for scales {low:g} to {high:g}, not {scale:g}")
    if model.lr_origin and model.lr_origin != origin and model.lr_origin != "rescan":
        found.append(f"on LR that was {model.lr_origin}, while this input is {origin}")
    given = nominal_magnification(output_um_per_px) if output_um_per_px else None
    if model.hr_magnification and given and given != model.hr_magnification:
        found.append(f"to give {model.hr_magnification:g}x, while this gives {given}x")
    if not found:
        return ""
    return f"{model.name} was trained {'; '.join(found)}: details may be invented or missed."


def _run_of(folder: Path) -> Run | None:
    """The run that a folder is, or whose best or last model it is."""
    for place in (folder, folder.parent):
        if (place / RUN_NAME).is_file() and (place == folder or folder.name in (BEST, LAST)):
            return open_run(place)
    return None


def _training_px(run: Run) -> int | None:
    """Side of the crops that a run was trained on, LR px."""
    data = (run.document.get("config") or {}).get("data") or {}
    side = data.get("crop_lr_px")
    return side if isinstance(side, int) and side > 0 else None


def _pooling(pool_px: int | None, *, recorded: bool) -> str:
    if pool_px is None:
        return "over each tile"
    size = "its training crops" if recorded else "its recommended tile"
    return f"local, {pool_px} px (the size of {size})"


def _trained_to(run: Run) -> float | None:
    arrays = run.document.get("arrays")
    name = arrays.get("hr") if isinstance(arrays, dict) else None
    try:
        return parse_magnification(str(name))
    except MagnificationError:
        return None


def software() -> str:
    """This program with its version."""
    return f"wsisr {__version__}"
