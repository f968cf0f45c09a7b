"""Feature extractors from a file of the user's, for FID and KID: TorchScript or ONNX.

What runs: a TorchScript file is a program, and using it runs that program with the rights of the
user. Its interpreter knows tensors and no Python: unlike a pickled model it cannot import or call
what it likes, but it may compute without end and read or write files. An ONNX file is a graph of
known operators. Neither is ever searched for: the path is given, or there is no extractor. Pickled
models and state dicts are refused, because loading those would run any Python they hold.
"""

import importlib.util
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.files import file_sha256
from wsisr.metrics.images import MetricError
from wsisr.metrics.perceptual import IMAGENET_MEAN, IMAGENET_SD

SCALINGS = {
    "imagenet": "ImageNet's mean and deviation",
    "half": "mean and deviation 0.5",
    "unit": "[0, 1]",
    "uint8": "uint8 0..255",
}
DEFAULT_INPUT = "224,imagenet"


@dataclass(frozen=True, kw_only=True)
class EncoderInput:
    """What a network of features is fed with.

    Attributes
    ----------
    side_px : int or None
        Images are resized to this side; None as they are.
    scaling : str
        One of `SCALINGS`.
    """

    side_px: int | None
    scaling: str

    def __str__(self) -> str:
        size = (
            f"resized to {self.side_px} px (bicubic, antialiased)" if self.side_px else "as it is"
        )
        return f"{size}, {SCALINGS[self.scaling]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), uint8 -> the network's input."""
        if self.side_px is None and self.scaling == "uint8":
            return images
        x = images.float()
        if self.side_px is not None:
            size = (self.side_px, self.side_px)
            x = F.interpolate(x, size, mode="bicubic", antialias=True).clamp_(0.0, 255.0)
        if self.scaling == "uint8":
            return x.round_().to(torch.uint8)
        x = x / 255.0
        if self.scaling == "unit":
            return x
        mean, sd = ((0.5,) * 3, (0.5,) * 3)
        if self.scaling == "imagenet":
            mean, sd = IMAGENET_MEAN, IMAGENET_SD
        shift, scale = (torch.tensor(v, device=x.device)[:, None, None] for v in (mean, sd))
        return (x - shift) / scale


def parse_input(text: str) -> EncoderInput:
    """``"224,imagenet"``, ``"same,uint8"`` -> `EncoderInput`.

    Raises
    ------
    MetricError
        Neither a side in px nor ``same``, or no known scaling.
    """
    side, _, scaling = (part.strip() for part in text.partition(","))
    if (side != "same" and not (side.isdigit() and 8 <= int(side) <= 4096)) or (
        scaling not in SCALINGS
    ):
        raise MetricError(
            f"{text!r}: give the side of the encoder's input in px (8 to 4096), or same, and its "
            f"scaling ({', '.join(SCALINGS)}), e.g. {DEFAULT_INPUT}."
        )
    return EncoderInput(side_px=None if side == "same" else int(side), scaling=scaling)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A callable from uint8 images (N, 3, H, W) to features (N, d), and what to call it.

    Attributes
    ----------
    name : str
        File name and kind.
    sha256 : str
        Of the file.
    run : callable
        Input -> features.
    """

    name: str
    sha256: str
    input: EncoderInput
    run: Callable[[Tensor], Any]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        found = self.run(self.input(images))
        if isinstance(found, Tensor) and found.ndim > 2 and found[0].numel() == found.shape[1]:
            found = found.flatten(1)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise MetricError(
                f"{self.name}: features (N, d) are expected of {len(images)} images, not {shape}; "
                "export the encoder with its pooling."
            )
        return found


def open_encoder(path: Path, given: EncoderInput, device: Any = "cpu") -> Encoder:
    """An encoder from a TorchScript or ONNX file; see the module for what that executes.

    Raises
    ------
    MetricError
        No such file, neither of the two kinds, or onnxruntime is missing.
    """
    if not path.is_file():
        raise MetricError(f"{path}: no such file; features need the path of an encoder.")
    kind, run = (
        ("ONNX", _onnx(path))
        if path.suffix.lower() == ".onnx"
        else ("TorchScript", _torchscript(path, device))
    )
    return Encoder(name=f"{path.name} ({kind})", sha256=file_sha256(path), input=given, run=run)


def _torchscript(path: Path, device: Any) -> Callable[[Tensor], Any]:
    if not zipfile.is_zipfile(path):
        raise MetricError(f"{path} is neither a TorchScript nor an ONNX file.")
    with zipfile.ZipFile(path) as archive:
        inner = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" not in inner or not any(name.startswith("code/") for name in inner):
        raise MetricError(
            f"{path} is no TorchScript program but a pickled model or weights, which are not "
            "loaded: save the encoder with torch.jit.trace(model, example).save(FILE), or as ONNX."
        )
    try:
        with warnings.catch_warnings():
            # Deprecated for writing new ones; encoders are published so.
            warnings.simplefilter("ignore", DeprecationWarning)
            load: Any = torch.jit.load
            module = load(str(path), map_location=device).eval()
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        raise MetricError(f"{path}: this TorchScript program cannot be loaded ({first}).") from None
    arguments = {argument.name for argument in module.forward.schema.arguments}
    # The published Inception of FID (2015) gives its class scores otherwise.
    extra = {"return_features": True} if "return_features" in arguments else {}

    def run(x: Tensor) -> Any:
        try:
            return module(x, **extra)
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1]
            raise MetricError(f"{path} failed on images of {tuple(x.shape)}: {last}") from None

    return run


def _onnx(path: Path) -> Callable[[Tensor], Any]:
    if importlib.util.find_spec("onnxruntime") is None:
        raise MetricError(f"{path}: ONNX encoders need onnxruntime (pip install 'wsisr[onnx]').")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(
            str(path), providers=onnxruntime.get_available_providers()
        )
    except Exception as error:  # its errors have no common base
        first = str(error).strip().splitlines()[0]
        raise MetricError(f"{path}: onnxruntime cannot load it ({first}).") from None
    if len(session.get_inputs()) != 1:
        names = ", ".join(value.name for value in session.get_inputs())
        raise MetricError(f"{path}: an encoder has one input, images; this has {names}.")
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(x: Tensor) -> Any:
        try:
            (found,) = session.run([output], {name: np.ascontiguousarray(x.cpu().numpy())})
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise MetricError(f"{path} failed on images of {tuple(x.shape)}: {first}") from None
        return torch.from_numpy(np.asarray(found))

    return run
