"""Degrade image files, with the parameters written beside the result."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from wsisr import __version__
from wsisr.degradation.apply import Simulation
from wsisr.errors import DegradationError, SlideError, refuse_remote_output
from wsisr.files import disk_full_is_clear, staged_files
from wsisr.locks import held
from wsisr.slides.icc import profile_of
from wsisr.slides.opening import read_whole
from wsisr.slides.protocol import SlideInfo

_LOSSY = (".jpg", ".jpeg", ".webp")
_NOTHING_KEPT = "The picture was not written; make room, or write to another disk with -o."


def degrade_image(
    source: Path,
    target: Path,
    simulation: Simulation,
    *,
    overwrite: bool = False,
    white: float | None = None,
    rgb: bool = False,
) -> Path:
    """Degrade one image file (PNG, TIFF, JPEG in; a lossless format out).

    Parameters
    ----------
    white : float, optional
        Sample value that is white, for samples of more than 8 bits.
    rgb : bool
        Write RGB for a grey image too.

    Returns
    -------
    Path
        The JSON file with the whole degradation, scale, seed, version and the SHA-256 of the
        picture, beside `target`.

    Raises
    ------
    DegradationError
        No readable RGB image, a lossy or existing target.
    LockedError
        While another run writes `target`.
    """
    refuse_remote_output(target)
    if target.suffix.lower() in _LOSSY:
        raise DegradationError(
            f"{target}: a lossy file would degrade a second time, untold; write .png or .tif."
        )
    if not target.parent.is_dir():
        raise DegradationError(f"{target}: its folder does not exist; make it first.")
    record = target.with_name(target.name + ".json")
    lock = target.with_name(target.name + ".partial.lock")
    with disk_full_is_clear(target, _NOTHING_KEPT), held(lock, target, "degrade apply"):
        # A record alone is what a kill left between the two.
        if not overwrite and target.exists():
            raise DegradationError(
                f"{target} exists already; add --overwrite or choose another -o."
            )
        data, content = _degraded(source, target, simulation, white, rgb)
        with staged_files(target.parent, target.name, last=target.name) as staged:
            (staged / record.name).write_bytes(content)
            (staged / target.name).write_bytes(data)
    return record


def _degraded(
    source: Path, target: Path, simulation: Simulation, white: float | None, rgb: bool
) -> tuple[bytes, bytes]:
    """The LR picture's file and its record's."""
    image, info = _read(source, white)
    lr = simulation.apply(image).permute(1, 2, 0).numpy()
    grey = info.grey and not rgb
    if grey:
        # Not their mean, which would halve the noise of a degradation that draws three planes.
        lr = lr[:, :, 0]
    options: dict[str, Any] = {}
    icc = profile_of(_profile(source, info), grey=grey)
    if icc is not None:
        options["icc_profile"] = icc
    if info.mpp is not None:
        um = (info.mpp.x * simulation.scale, info.mpp.y * simulation.scale)
        options["dpi"] = (25_400 / um[0], 25_400 / um[1])
    data = io.BytesIO()
    try:
        kind = Image.registered_extensions()[target.suffix.lower()]
        Image.fromarray(np.ascontiguousarray(lr)).save(data, kind, **options)
    except (KeyError, OSError, ValueError) as error:
        raise DegradationError(
            f"{target} cannot be written: {error}; write .png or .tif."
        ) from None
    content = {
        "source": source.name,
        "read": [*info.quirks, *([info.verdict.line()] if info.verdict is not None else [])],
        **simulation.document(),
        "created_with": f"wsisr {__version__}",
        "sha256": hashlib.sha256(data.getvalue()).hexdigest(),
    }
    return data.getvalue(), (json.dumps(content, indent=2) + "\n").encode()


def _read(path: Path, white: float | None) -> tuple[torch.Tensor, SlideInfo]:
    """An image file as uint8 RGB (3, H, W), through the checked door of slides."""
    if not path.exists():
        raise DegradationError(f"{path}: no such image.")
    try:
        pixels, info = read_whole(path, white)
    except SlideError as error:
        raise DegradationError(str(error)) from None
    return torch.as_tensor(pixels).permute(2, 0, 1).contiguous(), info


def _profile(path: Path, info: SlideInfo) -> bytes | None:
    if info.icc_sha256 is None:
        return None
    with Image.open(path) as image:
        icc = image.info.get("icc_profile")
    return icc if icc and hashlib.sha256(icc).hexdigest() == info.icc_sha256 else None
