"""From what a trained model is on disk to a network that is ready to run."""

from pathlib import Path
from typing import TYPE_CHECKING

from wsisr.errors import ConfigError, ModelError
from wsisr.inference.engine import BicubicEngine
from wsisr.inference.network import PRECISIONS, Network, Symmetries
from wsisr.inference.opening import open_model
from wsisr.inference.trained import TrainedModel

if TYPE_CHECKING:
    import torch

    from wsisr.models import SRModel


def load_trained(trained: TrainedModel, device: "torch.device | str" = "cpu") -> "SRModel":
    """The network of a trained model, in eval mode; ModelError for weights that are missing, broken
    or of a network that this program does not know."""
    from wsisr.models import import_weights, load_model

    weights = trained.weights
    if weights.is_file():
        return import_weights(weights).model.to(device)
    return load_model(weights, device)


def load_network(
    trained: TrainedModel,
    *,
    device: "torch.device | str" = "auto",
    precision: str = "auto",
    pool: str = "local",
    symmetries: Symmetries = "",
    whole: bool = False,
) -> "Network | BicubicEngine":
    """Load a model onto a device, ready to run.

    Parameters
    ----------
    device : torch.device or str
        ``"auto"`` takes a GPU where there is one.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"``: bfloat16 on a GPU where the model supports it, else float32.
    pool : {"local", "tile"}
        Over what a network pools that does so over its input: over the size of its training crops
        around each pixel (its recommended tile where that size is not recorded), so that tiles
        give what the whole would; or over the tile that it is given.
    symmetries, whole
        See `Network`.

    Raises
    ------
    ConfigError
        A wrong device, precision or way of pooling.
    ModelError
        Weights that are missing, broken or of a network that this program does not know.
    """
    if precision not in ("auto", *PRECISIONS):
        raise ConfigError(f"--precision {precision!r}: give auto, {', '.join(PRECISIONS)}.")
    if pool not in ("local", "tile"):
        raise ConfigError(f"--pool {pool!r}: give local or tile.")
    if not trained.is_network:
        return BicubicEngine()
    import torch

    from wsisr.device import choose_device, keep_freed_memory, on_gpu

    keep_freed_memory()
    place = device if isinstance(device, torch.device) else choose_device(device)
    model = load_trained(trained, place)
    info = model.info
    if info.takes_reference and info.kind != "fixed":
        raise ModelError(f"{info.name} needs a reference; it cannot be run on LR alone.")
    if precision == "auto":
        precision = "bfloat16" if on_gpu(place) and "bfloat16" in info.dtypes else "float32"
    if precision not in info.dtypes:
        raise ConfigError(f"--precision {precision}: {info.name} supports {', '.join(info.dtypes)}")
    pool_px = None
    if pool == "local" and not whole:
        pool_px = trained.crop_px or info.tile_px
    network = Network(
        model,
        place,
        pool_px=pool_px,
        trained=trained,
        symmetries=symmetries,
        whole=whole,
    )
    network.precision = precision
    if network.pooling and pool_px is not None:
        size = "its training crops" if trained.crop_px else "its recommended tile"
        network.pooling += f" (the size of {size})"
    return network


def load(
    model: str | Path, *, device: str = "auto", precision: str = "auto", pool: str = "local"
) -> Network | BicubicEngine:
    """Load a model by the folder of its run or of its weights, by a file of weights of another
    program, or bicubic by name.

    See `wsisr.inference.opening.open_model` and `load_network`.
    """
    return load_network(open_model(model), device=device, precision=precision, pool=pool)
