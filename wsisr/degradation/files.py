"""Degrade image files, with the parameters written beside the result."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from wsisr import __version__
from wsisr.degradation.apply import degrade
from wsisr.degradation.spec import Degradation, parse_degradation
from wsisr.errors import DegradationError

_MAX_PX = 1 << 28
_LOSSY = (".jpg", ".jpeg", ".webp")


def degrade_image(
    source: Path,
    target: Path,
    spec: "str | Path | Degradation",
    scale: float,
    *,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Degrade one image file (PNG, TIFF, JPEG in; a lossless format out).

    Parameters
    ----------
    source, target : Path
    spec : str, Path or Degradation
    scale : float
    seed : int
    overwrite : bool

    Returns
    -------
    Path
        The JSON file with the whole degradation, scale, seed and version, beside `target`.

    Raises
    ------
    DegradationError
        No readable RGB image, one of more than 2^28 px, a lossy or existing target.
    """
    degradation = parse_degradation(spec)
    if target.suffix.lower() in _LOSSY:
        raise DegradationError(
            f"{target}: a lossy file would degrade a second time, untold; write .png or .tif."
        )
    record = target.with_name(target.name + ".json")
    if not overwrite and (target.exists() or record.exists()):
        raise DegradationError(f"{target} exists already; add --overwrite or choose another -o.")
    lr = degrade(read_rgb(source), degradation, scale, seed=seed)
    try:
        Image.fromarray(np.ascontiguousarray(lr.permute(1, 2, 0).numpy())).save(target)
    except (OSError, ValueError) as error:
        raise DegradationError(f"{target} cannot be written: {error}.") from None
    content = {
        "source": source.name,
        "degradation": degradation.record(),
        "scale": scale,
        "seed": seed,
        "created_with": f"wsisr {__version__}",
    }
    record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return record


def read_rgb(path: Path) -> torch.Tensor:
    """An image file as uint8 RGB (3, H, W); transparency is composited on white."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MAX_PX:
                raise DegradationError(
                    f"{path} has {image.width} x {image.height} px; slides are degraded through a "
                    "store (wsisr build-pairs, then degrade apply)."
                )
            array = np.array(_opaque(image))
    except FileNotFoundError:
        raise DegradationError(f"{path}: no such image.") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DegradationError(f"{path}: no readable image ({error}).") from None
    return torch.as_tensor(array).permute(2, 0, 1).contiguous()


def _opaque(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        flat = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        flat.alpha_composite(layer)
        return flat.convert("RGB")
    return image.convert("RGB")
