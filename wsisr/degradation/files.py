"""Degrade image files, with the parameters written beside the result."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsisr import __version__
from wsisr.degradation.apply import degrade
from wsisr.degradation.spec import Degradation, parse_degradation
from wsisr.errors import DegradationError, SlideError
from wsisr.slides.opening import read_whole
from wsisr.slides.protocol import SlideInfo

_LOSSY = (".jpg", ".jpeg", ".webp")


def degrade_image(
    source: Path,
    target: Path,
    spec: "str | Path | Degradation",
    scale: float,
    *,
    seed: int = 0,
    overwrite: bool = False,
    white: float | None = None,
    rgb: bool = False,
) -> Path:
    """Degrade one image file (PNG, TIFF, JPEG in; a lossless format out).

    Parameters
    ----------
    source, target : Path
    spec : str, Path or Degradation
    scale : float
    seed : int
    overwrite : bool
    white : float, optional
        Sample value that is white, for samples of more than 8 bits.
    rgb : bool
        Write RGB for a grey image too.

    Returns
    -------
    Path
        The JSON file with the whole degradation, scale, seed and version, beside `target`.

    Raises
    ------
    DegradationError
        No readable RGB image, a lossy or existing target.
    """
    degradation = parse_degradation(spec)
    if target.suffix.lower() in _LOSSY:
        raise DegradationError(
            f"{target}: a lossy file would degrade a second time, untold; write .png or .tif."
        )
    record = target.with_name(target.name + ".json")
    if not overwrite and (target.exists() or record.exists()):
        raise DegradationError(f"{target} exists already; add --overwrite or choose another -o.")
    image, info = _read(source, white)
    lr = degrade(image, degradation, scale, seed=seed).permute(1, 2, 0).numpy()
    if info.grey and not rgb:
        # Not their mean, which would halve the noise of a degradation that draws three planes.
        lr = lr[:, :, 0]
    try:
        Image.fromarray(np.ascontiguousarray(lr)).save(target)
    except (OSError, ValueError) as error:
        raise DegradationError(f"{target} cannot be written: {error}.") from None
    content = {
        "source": source.name,
        "read": [*info.quirks, *([info.verdict.line()] if info.verdict is not None else [])],
        "degradation": degradation.record(),
        "scale": scale,
        "seed": seed,
        "created_with": f"wsisr {__version__}",
    }
    record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return record


def read_rgb(path: Path, white: float | None = None) -> torch.Tensor:
    """An image file as uint8 RGB (3, H, W), through the checked door of slides.

    Raises
    ------
    DegradationError
        If it is missing, damaged, too large, or has deep samples and no `white` is given.
    """
    return _read(path, white)[0]


def _read(path: Path, white: float | None) -> tuple[torch.Tensor, SlideInfo]:
    if not path.exists():
        raise DegradationError(f"{path}: no such image.")
    try:
        pixels, info = read_whole(path, white)
    except SlideError as error:
        raise DegradationError(str(error)) from None
    return torch.as_tensor(pixels).permute(2, 0, 1).contiguous(), info
