"""One place that finds the pretrained weights of perceptual metrics; nothing is downloaded."""

import importlib.util
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsisr.metrics.images import MetricError

ENVIRONMENT = "WSISR_WEIGHTS_DIR"


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file that a metric needs.

    Attributes
    ----------
    name : str
        File name, looked for in the weights folder.
    url : str
        Where it is published.
    package : (str, str) or None
        An installed package that ships it, and the path inside.
    """

    name: str
    url: str
    package: tuple[str, str] | None = None


_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/"
FILES: dict[str, WeightsFile] = {
    "alexnet": WeightsFile(
        name="alexnet-owt-7be5be79.pth", url=_TORCHVISION + "alexnet-owt-7be5be79.pth"
    ),
    "vgg16": WeightsFile(name="vgg16-397923af.pth", url=_TORCHVISION + "vgg16-397923af.pth"),
    "lpips-alex": WeightsFile(
        name="lpips-alex.pth", url=_LPIPS + "alex.pth", package=("lpips", "weights/v0.1/alex.pth")
    ),
    "lpips-vgg": WeightsFile(
        name="lpips-vgg.pth", url=_LPIPS + "vgg.pth", package=("lpips", "weights/v0.1/vgg.pth")
    ),
    "dists": WeightsFile(
        name="dists.pt",
        url="https://github.com/dingkeyan93/DISTS/raw/master/DISTS_pytorch/weights.pt",
        package=("DISTS_pytorch", "weights.pt"),
    ),
}


def find_weights(key: str, weights_dir: Path | None = None) -> Path:
    """Path of a weights file.

    Looked for in `weights_dir` (or else in the folder that ``WSISR_WEIGHTS_DIR`` names), then in
    torch's hub cache, then in an installed package that ships it.

    Raises
    ------
    MetricError
        It is nowhere; the message names the file, its address and where to put it.
    """
    file = FILES[key]
    folder = weights_dir or (Path(os.environ[ENVIRONMENT]) if ENVIRONMENT in os.environ else None)
    places = [] if folder is None else [folder / file.name]
    places.append(Path(torch.hub.get_dir()) / "checkpoints" / file.name)
    if file.package is not None:
        spec = importlib.util.find_spec(file.package[0])
        if spec is not None and spec.origin is not None:
            places.append(Path(spec.origin).parent / file.package[1])
    for place in places:
        if place.is_file():
            return place
    shipped = f" or install the package {file.package[0]}" if file.package is not None else ""
    raise MetricError(
        f"{file.name} is needed and was not found. Download {file.url}, put it as {file.name} "
        f"into a folder and give that as --weights-dir or {ENVIRONMENT}{shipped}."
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a state dict (safetensors, or torch's format read with ``weights_only``)."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, SafetensorError, EOFError) as error:
        raise MetricError(f"{path}: no readable weights ({error}).") from None
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise MetricError(f"{path}: no readable weights ({error}).") from None
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise MetricError(f"{path}: a state dict of tensors is expected.")
    return content
