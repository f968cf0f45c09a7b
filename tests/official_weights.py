"""State dicts in the layouts of official repositories, with outputs of their own code.

``official_layouts/*.json`` hold, for each network: its origin (repository, commit, class, sizes),
the name, shape and type of every tensor of the state dict that the official class writes, and the
output of the official ``forward`` for one input, in double precision. The values of weights and
input follow from their names by the rule below, so that the files stay small. Constants that the
official class sets itself (mean shifts, tables of indices) are given or, where nothing depends on
them, zero.
"""

import base64
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "official_layouts"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def values(name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Numbers that follow from a tensor's name (NumPy's legacy generator never changes).

    Matrices and kernels: normal, SD gain over the root of what is summed; weights of norms: about
    1; other vectors: normal, SD 0.1; tables of positions: normal, SD 0.3.
    """
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if "relative_position_bias_table" in name:
        return 0.3 * draw
    if len(shape) > 1:
        return gain * draw / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * draw if name.endswith("weight") else 0.1 * draw


def picture(height: int, width: int) -> np.ndarray:
    """The input, (1, 3, height, width) in [0, 1]."""
    return np.random.RandomState(7).uniform(size=(1, 3, height, width))


@dataclass(frozen=True)
class Official:
    """One fixture; see the module."""

    name: str
    origin: str
    state: dict[str, Tensor]
    lr: Tensor
    scale: int
    output: Tensor
    document: dict[str, Any]


def official(name: str) -> Official:
    """Read a fixture and make its weights."""
    document = json.loads((FOLDER / f"{name}.json").read_text())
    state = {}
    for key, (shape, kind) in document["tensors"].items():
        if key in document["constants"]:
            array = np.array(document["constants"][key]).reshape(shape)
        elif kind != "float":
            array = np.zeros(shape, dtype=np.int64)
        elif key.endswith("attn_mask"):
            array = np.zeros(shape)
        else:
            array = values(key, tuple(shape), document["gain"])
        state[key] = torch.from_numpy(np.asarray(array))
    height, width = document["lr"]
    scale = document["scale"]
    flat = np.frombuffer(base64.b64decode(document["output"]), dtype="<f4")
    return Official(
        name=name,
        origin=document["origin"],
        state=state,
        lr=torch.from_numpy(picture(height, width)),
        scale=scale,
        output=torch.from_numpy(flat.reshape(1, 3, height * scale, width * scale).copy()),
        document=document,
    )
