"""Community weights of other architectures, through the optional package `spandrel`.

spandrel recognises dozens of super-resolution architectures from a weights file. It is no
dependency (it needs torchvision); install it beside wsisr to use this function.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from wsisr.errors import ModelError
from wsisr.models.info import ModelInfo, Traits
from wsisr.models.wrapper import FixedScaleModel


class _Bare(nn.Module):
    """The network inside a spandrel descriptor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, lr: Tensor) -> Tensor:
        # Some of these networks scale their input in place.
        out: Tensor = self.model(lr.clone())
        return out


def load_community(path: Path | str, device: torch.device | str = "cpu") -> FixedScaleModel:
    """Load a fixed-scale RGB network that spandrel knows, in eval mode.

    It keeps the contract of fixed-scale models, pads inside, and can be evaluated and applied.
    It cannot be saved with `save_model`: its architecture is not ours.

    Raises
    ------
    ModelError
        If spandrel is missing, does not know the file, or the network is not RGB to RGB.
    """
    try:
        from spandrel import ModelLoader
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision that was built for another torch.
        raise ModelError(
            f"community weights need the package spandrel and a torchvision that fits torch "
            f"{torch.__version__} ({error}); install them with: pip install spandrel"
        ) from error
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file")
    try:
        found = ModelLoader(device="cpu").load_from_file(path)
    # spandrel raises its own error type for unknown files, and whatever the file provokes.
    except Exception as error:
        raise ModelError(f"{path}: spandrel cannot load this file ({error})") from error
    inputs, outputs = int(found.input_channels), int(found.output_channels)
    if (inputs, outputs) != (3, 3):
        raise ModelError(f"{path}: a network from {inputs} to {outputs} channels; RGB is needed")
    needs = found.size_requirements
    multiple = max(1, int(needs.multiple_of or 1), int(needs.minimum or 1))
    dtypes = ("float32", "bfloat16") if found.supports_bfloat16 else ("float32",)
    scale = int(found.scale)
    # Nothing is known of its reach: the halo is that of our own transformers.
    traits = Traits(
        multiple_of_px=multiple, halo_px=32, tile_px=192, global_context=True, dtypes=dtypes
    )
    model = FixedScaleModel(_Bare(found.model), traits, scale)
    model.settings = None
    model.info = ModelInfo(
        name=f"community:{found.architecture.name}",
        family="community",
        preset="community",
        kind="fixed",
        scale=scale,
        scale_range=(float(scale), float(scale)),
        multiple_of_px=multiple,
        halo_px=traits.halo_px,
        tile_px=traits.tile_px,
        global_context=True,
        dtypes=dtypes,
        citation=f"weights file {path.name}, architecture as recognised by spandrel",
    )
    return model.to(device).eval()
