"""What a model costs: parameters, arithmetic and activation memory, without running it.

Everything is traced on shape-only tensors, so that paper-size networks take seconds and no
memory. Multiply-accumulates are those of convolutions and matrix products.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wsisr.device import SHAPES
from wsisr.errors import ModelError
from wsisr.models.registry import create_model, model_spec
from wsisr.shapes import Remembered


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """Cost of one model for one input.

    Attributes
    ----------
    parameters : int
        Exact number of scalars.
    lr_px : int
        Side of the square LR input, batch 1.
    scale : float
        Magnification that was traced.
    gmac : float
        10^9 multiply-accumulates of one forward pass.
    saved_mib : float
        MiB of float32 activations that one training sample keeps for its backward pass, parameters
        excluded. An upper bound: fused attention, bfloat16 and recomputation keep less.
    """

    parameters: int
    lr_px: int
    scale: float
    gmac: float
    saved_mib: float

    @property
    def parameters_2_20(self) -> float:
        """Parameters in units of 2^20, as ISTE's tables print "M"."""
        return self.parameters / 2**20


def model_cost(
    name: str,
    *,
    scale: float | None = None,
    preset: str = "recommended",
    lr_px: int = 48,
    **settings: Any,
) -> ModelCost:
    """Trace a model at a square LR size.

    Parameters
    ----------
    name, preset, **settings
        As for `create_model`.
    scale : float, optional
        Magnification; 4 if left out (2 where a network exists for x2 alone).
    """
    if lr_px < 1:
        raise ModelError(f"lr_px={lr_px}: give at least one pixel")
    spec = model_spec(name)
    if scale is None:
        scale = 4 if spec.scales is None else spec.scales[0]
    fixed = spec.kind == "fixed"
    with torch.device(SHAPES):
        model = create_model(
            name,
            scale=_whole(scale) if fixed else None,
            preset=preset,
            **settings,
        ).train()
        lr = torch.rand(model.info.smallest_batch, 3, lr_px, lr_px)
    extra = {} if fixed else {"scale": float(scale)}
    with _Flops() as counter:
        kept = _saved_bytes(model, lr, extra)
    return ModelCost(
        parameters=model.parameter_count,
        lr_px=lr_px,
        scale=float(scale),
        gmac=counter.flops / 2e9 / len(lr),
        saved_mib=kept / 2**20 / len(lr),
    )


class _Flops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the floating-point operations of products and convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.work_out = Remembered()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self.work_out(func, args, kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return out


def _whole(scale: float) -> int:
    if scale != int(scale):
        raise ModelError(f"scale={scale}: this model is built for whole scales")
    return int(scale)


def _saved_bytes(model: nn.Module, lr: Tensor, extra: dict[str, float]) -> int:
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    # The tensors are kept so that no storage address is used twice.
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            seen[key] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(lr, **extra)
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
