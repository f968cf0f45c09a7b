"""ONNX files of fixed-scale models, believed only after they have been run and compared."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wsisr.errors import ModelError

TOLERANCE = 1e-4
"""Largest difference from torch, in units of the image's range [0, 1]."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(model: nn.Module, path: Path, height_px: int = 64, width_px: int = 64) -> float:
    """Write a fixed-scale model as ONNX at one input size and check the file.

    Parameters
    ----------
    model : nn.Module
        From `create_model` or `load_model`, with a fixed scale.
    path : Path
        The file to write; its weights are inside.
    height_px, width_px : int
        Size of the LR input, shape (1, 3, height, width), float32 in [0, 1].

    Returns
    -------
    float
        Largest difference between the file's output and the model's on a random image.

    Raises
    ------
    ModelError
        If the packages of the extra `onnx` are missing, the model has no fixed scale, the exporter
        cannot express it, or the file computes something else. No file is left then.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ModelError(f"ONNX export needs {', '.join(missing)}: pip install 'wsisr[onnx]'.")
    info = getattr(model, "info", None)
    if info is None or info.kind != "fixed":
        raise ModelError("Only models of one fixed scale are exported; this one takes any scale.")
    import onnxruntime

    model = model.eval().float().cpu()
    sample = torch.rand(1, 3, height_px, width_px, generator=torch.Generator().manual_seed(0))
    staged = path.with_name(f".{path.name}.partial")
    try:
        with torch.no_grad():
            expected = model(sample).numpy()
            program = torch.onnx.export(model, (sample,), dynamo=True, verbose=False)
        if program is None:
            raise ModelError(f"{info.name}: the exporter returned nothing.")
        program.save(str(staged))
        session = onnxruntime.InferenceSession(str(staged))
        (found,) = session.run(None, {session.get_inputs()[0].name: sample.numpy()})
        difference = float(np.abs(found - expected).max())
        if not difference <= TOLERANCE:
            raise ModelError(
                f"{info.name}: the ONNX file differs from the model by {difference:.2g} of the "
                "range, so it is not written; run the model with torch."
            )
        staged.replace(path)
    except torch.onnx.OnnxExporterError as error:
        text = str(error).splitlines()[0]
        raise ModelError(f"{info.name} cannot be exported to ONNX: {text}") from error
    finally:
        staged.unlink(missing_ok=True)
    return difference
