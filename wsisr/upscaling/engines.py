"""One call for every kind of model: windows of the plane in, their parts of the output back.

torch is imported only when a network is loaded, so that bicubic upscaling starts at once.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsisr.errors import ModelError
from wsisr.geometry import Box
from wsisr.host import available_bytes, is_out_of_memory
from wsisr.upscaling import bicubic
from wsisr.upscaling.bicubic import Float32Array, UInt8Array
from wsisr.upscaling.tiling import Frame, Window, plan_frame

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wsisr.models.wrapper import ArbitraryScaleModel, SRModel

PROBE_PX = 32
"""Side of the window that tells how much memory a network takes on a CPU, plane px."""
PEAK_MARGIN = 1.25
"""Memory set aside over the measured peak, for what the allocator loses between blocks."""
POOL_REACH_PX = 16
"""Context beyond half a pooling window, plane px: what lies nearer to a cut is slightly wrong, and
so would be means over it."""
CORE_TO_HALO = 4
"""Side of a core over the halo where the training size does not matter."""
WINDOW_PX = 8
"""Arbitrary-scale models pad to their encoder's window inside; all of those are 8 px."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a model asks of the tiling; the fields are those of `wsisr.models.ModelInfo`."""

    halo_px: int
    halo_exact: bool
    tile_px: int
    multiple_px: int


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

    def bytes_per_px(self, scale: float, side_px: int) -> float:
        """Working memory per plane px of a square window at a scale, as probed or estimated."""
        ...


class BicubicEngine:
    """Bicubic interpolation: exact for any tiling."""

    needs = Needs(halo_px=bicubic.HALO_PX, halo_exact=True, tile_px=256, multiple_px=1)

    def render(
        self, frame: Frame, windows: Sequence[Window], lr: Sequence[UInt8Array]
    ) -> list[Float32Array]:
        return [
            bicubic.enlarge(pixels, window.lr, frame, window.reach)
            for window, pixels in zip(windows, lr, strict=True)
        ]

    def free_bytes(self) -> int:
        return available_bytes()

    def bytes_per_px(self, scale: float, side_px: int) -> float:
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
    pool_px : int, optional
        Pool over windows of this side, LR px, in place of the whole tile
        (`wsisr.models.local_pool`); nothing to networks that do not pool.

    Attributes
    ----------
    needs : Needs
    pools : bool
        Whether the network pools over its input by design.
    """

    def __init__(
        self,
        model: "SRModel",
        device: "torch.device",
        bfloat16: bool = False,
        pool_px: int | None = None,
    ) -> None:
        import torch

        from wsisr.models.local_pool import only_pools_globally, set_local_pooling

        self._torch = torch
        self._model = model
        self._device = device
        self._bfloat16 = bfloat16
        if model.info.channels_last and self._on_gpu:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        info = model.info
        multiple = info.multiple_of_px
        if info.kind == "arbitrary":
            multiple = int(np.lcm(multiple, WINDOW_PX))
        self.pools = set_local_pooling(model, pool_px) > 0
        halo, tile = info.halo_px, info.tile_px
        if pool_px is not None and only_pools_globally(model):
            # Nothing sees the whole tile any more: the halo has to hold half a pooling window, and
            # the core, no longer bound to the training size, is large for it.
            halo = max(halo, -(-pool_px // 2) + POOL_REACH_PX)
            tile = max(tile, CORE_TO_HALO * halo)
        self.needs = Needs(
            halo_px=halo, halo_exact=info.halo_exact, tile_px=tile, multiple_px=multiple
        )

    def render(
        self, frame: Frame, windows: Sequence[Window], lr: Sequence[UInt8Array]
    ) -> list[Float32Array]:
        torch = self._torch
        batch = torch.from_numpy(np.stack(lr)).to(self._device)
        x = batch.permute(0, 3, 1, 2).float().div_(255)
        if self._model.info.channels_last and self._on_gpu:
            x = x.contiguous(memory_format=torch.channels_last)
        autocast: Any = (
            torch.autocast(self._device.type, dtype=torch.bfloat16)
            if self._bfloat16
            else nullcontext()
        )
        with torch.inference_mode(), autocast, self._exact_float32():
            if self._model.info.kind == "fixed":
                out = self._fixed(windows, x)
            else:
                out = self._arbitrary(frame, windows, x)
            out = out.float()
            # Before it is clamped, which would make infinity white.
            if not bool(torch.isfinite(out).all()):
                raise ModelError(
                    f"{self._model.info.name} gave values that are no numbers; run with "
                    "--precision float32, and check the weights."
                )
            grey = out.clamp_(0, 1).mul_(255).permute(0, 2, 3, 1)
            return list(grey.contiguous().cpu().numpy())

    @contextmanager
    def _exact_float32(self) -> Iterator[None]:
        """Float32 means float32: convolutions on a GPU would take TF32, a thousandth off."""
        switch: Any = self._torch.backends.cudnn
        before = switch.allow_tf32
        switch.allow_tf32 = before and self._bfloat16
        try:
            yield
        finally:
            switch.allow_tf32 = before

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
        if self._on_gpu:
            free, _ = self._torch.cuda.mem_get_info(self._device)
            held = self._torch.cuda.memory_reserved(self._device)
            used = self._torch.cuda.memory_allocated(self._device)
            return int(free + held - used)
        return available_bytes()

    def bytes_per_px(self, scale: float, side_px: int) -> float:
        """One window is run: itself on a GPU, for its peak; a small one on a CPU, where six times
        the widest layer is taken. Infinite where not even that fits.
        """
        try:
            return self._peak(scale, side_px) if self._on_gpu else self._widest(scale)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release_device_memory(error)
            return inf

    @property
    def _on_gpu(self) -> bool:
        return self._device.type == "cuda"

    def _peak(self, scale: float, side_px: int) -> float:
        cuda = self._torch.cuda
        before = cuda.memory_allocated(self._device)
        cuda.reset_peak_memory_stats(self._device)
        self._probe(scale, side_px)
        peak = cuda.max_memory_allocated(self._device) - before
        return max(1024.0, PEAK_MARGIN * peak / side_px**2)

    def _widest(self, scale: float) -> float:
        torch = self._torch
        sizes: list[int] = []

        def note(module: Any, given: Any, out: Any) -> None:
            tensors = [t for t in (*_flat(given), *_flat(out)) if isinstance(t, torch.Tensor)]
            sizes.append(sum(t.numel() * t.element_size() for t in tensors))

        leaves = [m for m in self._model.modules() if not list(m.children())]
        hooks = [leaf.register_forward_hook(note) for leaf in leaves]
        try:
            self._probe(scale, PROBE_PX)
        finally:
            for hook in hooks:
                hook.remove()
        return max(1024.0, 6.0 * max(sizes, default=0) / PROBE_PX**2)

    def _probe(self, scale: float, side_px: int) -> None:
        box = Box(x=0, y=0, width=side_px, height=side_px)
        frame = plan_frame(side_px, side_px, scale)
        window = Window(core=frame.region, reach=frame.region, lr=box)
        self.render(frame, [window], [np.full((side_px, side_px, 3), 128, np.uint8)])


def release_device_memory(error: BaseException) -> None:
    """Let go of what a failed run holds on a GPU."""
    # The traceback keeps the run's tensors alive.
    error.__traceback__ = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
