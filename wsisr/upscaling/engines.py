"""One call for every kind of model: windows of the plane in, their parts of the output back.

torch is imported only when a network is loaded, so that bicubic upscaling starts at once.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsisr.errors import ConfigError, ModelError
from wsisr.geometry import Box
from wsisr.upscaling import bicubic
from wsisr.upscaling.bicubic import Float32Array, UInt8Array
from wsisr.upscaling.host import available_bytes
from wsisr.upscaling.tiling import Frame, Window, plan_frame

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wsisr.models.wrapper import ArbitraryScaleModel, SRModel

PROBE_PX = 32
"""Side of the window that tells how much memory a network takes, plane px."""
WINDOW_PX = 8
"""Arbitrary-scale models pad to their encoder's window inside; all of those are 8 px."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a model asks of the tiling; the fields are those of `wsisr.models.ModelInfo`."""

    halo_px: int
    halo_exact: bool
    tile_px: int
    multiple_px: int
    global_context: bool


class Engine(Protocol):
    """Renders batches of windows of one shape."""

    @property
    def needs(self) -> Needs: ...

    def render(
        self, frame: Frame, windows: Sequence[Window], lr: Sequence[UInt8Array]
    ) -> list[Float32Array]:
        """The reach of each window, (height, width, 3) float32 in grey levels, 0 to 255.

        `lr` are the windows' plane pixels, (h, w, 3) uint8, all of one shape; so are the reaches.
        """
        ...

    def free_bytes(self) -> int:
        """Memory that is free where it runs."""
        ...

    def bytes_per_px(self, scale: float) -> float:
        """Working memory per plane px of a window at a scale, as probed or estimated."""
        ...


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


class BicubicEngine:
    """Bicubic interpolation: exact for any tiling."""

    needs = Needs(
        halo_px=bicubic.HALO_PX, halo_exact=True, tile_px=256, multiple_px=1, global_context=False
    )

    def render(
        self, frame: Frame, windows: Sequence[Window], lr: Sequence[UInt8Array]
    ) -> list[Float32Array]:
        return [
            bicubic.enlarge(pixels, window.lr, frame, window.reach)
            for window, pixels in zip(windows, lr, strict=True)
        ]

    def free_bytes(self) -> int:
        return available_bytes()

    def bytes_per_px(self, scale: float) -> float:
        return 64.0 * scale**2


class TorchEngine:
    """A network on a device.

    Parameters
    ----------
    model : SRModel
        In eval mode, on `device`.
    device : torch.device
    bfloat16 : bool
        Run under bfloat16 autocast.
    """

    def __init__(self, model: "SRModel", device: "torch.device", bfloat16: bool = False) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._device = device
        self._bfloat16 = bfloat16
        if model.info.channels_last and device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        info = model.info
        multiple = info.multiple_of_px
        if info.kind == "arbitrary":
            multiple = int(np.lcm(multiple, WINDOW_PX))
        self.needs = Needs(
            halo_px=info.halo_px,
            halo_exact=info.halo_exact,
            tile_px=info.tile_px,
            multiple_px=multiple,
            global_context=info.global_context,
        )

    def render(
        self, frame: Frame, windows: Sequence[Window], lr: Sequence[UInt8Array]
    ) -> list[Float32Array]:
        torch = self._torch
        batch = torch.from_numpy(np.stack(lr)).to(self._device, non_blocking=True)
        x = batch.permute(0, 3, 1, 2).float().div_(255)
        if self._model.info.channels_last and self._device.type == "cuda":
            x = x.contiguous(memory_format=torch.channels_last)
        autocast: Any = (
            torch.autocast(self._device.type, dtype=torch.bfloat16)
            if self._bfloat16
            else nullcontext()
        )
        with torch.inference_mode(), autocast:
            if self._model.info.kind == "fixed":
                out = self._fixed(windows, x)
            else:
                out = self._arbitrary(frame, windows, x)
            out = out.float().clamp_(0, 1).mul_(255)
            if not bool(torch.isfinite(out).all()):
                raise ModelError(
                    f"{self._model.info.name} gave values that are no numbers; run with "
                    "--precision float32, and check the weights."
                )
            return list(out.permute(0, 2, 3, 1).contiguous().cpu().numpy())

    def _fixed(self, windows: Sequence[Window], x: "Tensor") -> "Tensor":
        scale = self._model.info.scale
        assert scale is not None
        sr = self._model(x)
        parts = []
        for image, window in zip(sr, windows, strict=True):
            top, left = window.reach.y - window.lr.y * scale, window.reach.x - window.lr.x * scale
            parts.append(
                image[:, top : top + window.reach.height, left : left + window.reach.width]
            )
        return self._torch.stack(parts)

    def _arbitrary(self, frame: Frame, windows: Sequence[Window], x: "Tensor") -> "Tensor":
        torch = self._torch
        model: ArbitraryScaleModel = self._model  # type: ignore[assignment]
        net: Any = model.net
        features = net.encode(x)
        rows, columns = (
            torch.stack([self._coordinates(frame, w, axis) for w in windows]) for axis in (0, 1)
        )
        height, width = windows[0].reach.height, windows[0].reach.width
        coord = torch.stack(
            (
                rows[:, :, None].expand(-1, -1, width),
                columns[:, None, :].expand(-1, height, -1),
            ),
            dim=-1,
        ).reshape(len(windows), height * width, 2)
        cell = torch.stack([self._cell(frame, w, model) for w in windows])[:, None]
        # Where pixels depend on one another (texture retrieval), a window is one scope.
        chunk = coord.shape[1] if hasattr(net, "render") else model.chunk_px
        parts = [
            net.decode(features, x, coord[:, i : i + chunk], cell)
            for i in range(0, coord.shape[1], chunk)
        ]
        out: Tensor = torch.cat(parts, dim=1).transpose(1, 2)
        return out.reshape(len(windows), 3, height, width)

    def _coordinates(self, frame: Frame, window: Window, axis: int) -> "Tensor":
        """Centres of output pixels in [-1, 1] of the window, float32 of a float64 computation."""
        if axis == 0:
            first, count = window.reach.y, window.reach.height
            origin, side = window.lr.y, window.lr.height
            ratio = frame.lr_height_px / frame.height_px
        else:
            first, count = window.reach.x, window.reach.width
            origin, side = window.lr.x, window.lr.width
            ratio = frame.lr_width_px / frame.width_px
        place = (np.arange(first, first + count) + 0.5) * ratio - origin
        values = (2 * place / side - 1).astype(np.float32)
        return self._torch.from_numpy(values).to(self._device)

    def _cell(self, frame: Frame, window: Window, model: "ArbitraryScaleModel") -> "Tensor":
        """Size of an output pixel in the window's units; clipped as in the model's forward."""
        rows = 2 / frame.scale_y / window.lr.height
        columns = 2 / frame.scale_x / window.lr.width
        if model.cell_clip:
            rows *= max(frame.scale_y / model.trained_to, 1.0)
            columns *= max(frame.scale_x / model.trained_to, 1.0)
        return self._torch.tensor([rows, columns], device=self._device)

    def free_bytes(self) -> int:
        if self._device.type == "cuda":
            free, _ = self._torch.cuda.mem_get_info(self._device)
            held = self._torch.cuda.memory_reserved(self._device)
            used = self._torch.cuda.memory_allocated(self._device)
            return int(free + held - used)
        return available_bytes()

    def bytes_per_px(self, scale: float) -> float:
        """One small window is run: its peak on a GPU, six times its widest layer on a CPU."""
        torch = self._torch
        box = Box(x=0, y=0, width=PROBE_PX, height=PROBE_PX)
        frame = plan_frame(PROBE_PX, PROBE_PX, scale)
        sizes: list[int] = []

        def note(module: Any, given: Any, out: Any) -> None:
            tensors = [t for t in (*_flat(given), *_flat(out)) if isinstance(t, torch.Tensor)]
            sizes.append(sum(t.numel() * t.element_size() for t in tensors))

        leaves = [m for m in self._model.modules() if not list(m.children())]
        hooks = [leaf.register_forward_hook(note) for leaf in leaves]
        on_gpu = self._device.type == "cuda"
        try:
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device) if on_gpu else 0
            window = Window(core=frame.region, reach=frame.region, lr=box)
            self.render(frame, [window], [np.full((PROBE_PX, PROBE_PX, 3), 128, np.uint8)])
            peak = torch.cuda.max_memory_allocated(self._device) - before if on_gpu else 0
        finally:
            for hook in hooks:
                hook.remove()
        needed = 1.5 * peak if on_gpu else 6.0 * max(sizes, default=0)
        return max(1024.0, needed / PROBE_PX**2)


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def choose_device(name: str) -> "torch.device":
    """``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ... to a device that is there.

    Raises
    ------
    ConfigError
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"--device {name!r} is no device; give auto, cpu, cuda or cuda:N."
        ) from error
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise ConfigError(f"--device {name}: there is no such GPU here; give auto or cpu.")
    return device
