"""One model on a device: windows of a plane in, their parts of the output back.

This is the one way in which a network runs: in validation, evaluation and upscaling alike.
Float32 is never rounded to TF32, values that are no numbers are an error and never pixels, and
where pooling is local, it is so for every window. torch is imported with the first network, so
that bicubic interpolation starts at once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.errors import ModelError, OutputError
from wsisr.host import is_out_of_memory
from wsisr.inference.engine import Capacity, WindowBatch
from wsisr.inference.tiles import Frame, NetworkWindow, Tiling, TilingNeeds, plan_frame
from wsisr.inference.trained import TrainedModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wsisr.models.wrapper import ArbitraryScaleModel, SRModel

Precision = Literal["float32", "bfloat16", "float16"]
Symmetries = Literal["", "mean", "spread"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
PROBE_PX = 32
"""Side of the window that tells how much memory a network takes on a CPU, plane px."""
PEAK_MARGIN = 1.25
"""Memory set aside over the measured peak, for what the allocator loses between blocks."""
SHARE = 0.5
"""Share of the free memory that one batch may take."""
MOST_BYTES = 6 << 30
"""Never more than this for one batch, so that a large card stays usable by others."""
MOST_WINDOWS = 64
POOL_REACH_PX = 16
"""Context beyond half a pooling window, plane px: what lies nearer to a cut is slightly wrong, and
so would be means over it."""
CORE_TO_HALO = 4
"""Side of a core over the halo where the training size does not matter."""
CPU_CHUNK_PX = 1 << 14
"""Output px decoded at once on a CPU: the same values from a quarter of the memory, in a tenth less
time."""
WINDOW_PX = 8
"""Arbitrary-scale models pad to their encoder's window inside; all of those are 8 px."""


class Network:
    """A network on a device.

    Parameters
    ----------
    model : SRModel
        In eval mode, on `device`.
    pool_px : int, optional
        Pool over windows of this side, LR px, in place of the whole input
        (`wsisr.inference.local_pool`); nothing to networks that do not pool. `close` undoes it.
    trained : TrainedModel, optional
        What the model is on disk.
    symmetries : {"", "mean", "spread"}
        Give the mean over the eight symmetries of each window; or their standard deviation: how
        far the network agrees with itself.
    whole : bool
        A window that is a whole plane goes through the model's own ``forward``, which retrieves
        textures in the paper's scope.
    """

    def __init__(
        self,
        model: "SRModel",
        device: "torch.device",
        *,
        pool_px: int | None = None,
        trained: TrainedModel | None = None,
        symmetries: Symmetries = "",
        whole: bool = False,
    ) -> None:
        import torch

        from wsisr.device import on_gpu
        from wsisr.inference.local_pool import only_pools_globally, set_local_pooling

        self._torch = torch
        self._on_gpu = on_gpu(device)
        self.model = model
        self.place = device
        self.precision: str = "float32"
        self.symmetries = symmetries
        self.whole = whole
        info = model.info
        self.trained = trained or TrainedModel(
            name=info.name,
            model=info.name,
            preset="",
            scale=info.scale,
            scale_range=info.scale_range,
            is_network=False,
        )
        if info.channels_last and self._on_gpu:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        multiple = info.multiple_of_px
        if info.kind == "arbitrary":
            multiple = int(np.lcm(multiple, WINDOW_PX))
        self.pooling = ""
        halo, tile = info.halo_px, info.tile_px
        if set_local_pooling(model, pool_px):
            self.pooling = "over each tile" if pool_px is None else f"local, {pool_px} px"
        if pool_px is not None and only_pools_globally(model):
            # Nothing sees the whole tile any more: the halo has to hold half a pooling window, and
            # the core, no longer bound to the training size, is large for it.
            halo = max(halo, -(-pool_px // 2) + POOL_REACH_PX)
            tile = max(tile, CORE_TO_HALO * halo)
        self.needs = TilingNeeds(
            halo_px=halo, halo_exact=info.halo_exact, tile_px=tile, multiple_px=multiple
        )

    @property
    def device(self) -> str:
        return str(self.place)

    def close(self) -> None:
        """Give the model back as it was: pooling over its whole input."""
        from wsisr.inference.local_pool import set_local_pooling

        set_local_pooling(self.model, None)

    def render(self, batch: WindowBatch) -> list[Float32Array]:
        """See `Engine`; OutputError names where something is no number."""
        torch = self._torch
        with torch.inference_mode():
            out = self.run(batch)
            # Before it is clamped, which would make infinity white.
            finite = torch.isfinite(out).flatten(1).all(1)
            if not bool(finite.all()):
                item = int(finite.logical_not().nonzero()[0])
                raise self._failed(batch, item)
            grey = out.clamp_(0, 1).mul_(255).permute(0, 2, 3, 1)
            return list(grey.contiguous().cpu().numpy())

    def run(self, batch: WindowBatch) -> "Tensor":
        """The same as a tensor (N, 3, height, width) on the device, nominally in [0, 1].

        Nothing in it waits for the device.
        """
        from wsisr.device import autocast, exact_float32

        reference = None if batch.finer is None else self._tensor(batch.finer)
        dtype = getattr(self._torch, self.precision)
        with autocast(self.place, dtype), exact_float32(self.place):
            return self._symmetric(batch, self._tensor(batch.lr), reference)

    def _tensor(self, images: Sequence[UInt8Array]) -> "Tensor":
        from wsisr.device import upload

        torch = self._torch
        batch = upload(np.stack(images), self.place)
        x = batch.permute(0, 3, 1, 2).float().div_(255)
        if self.model.info.channels_last and self._on_gpu:
            return x.contiguous(memory_format=torch.channels_last)
        return x.contiguous()

    def _failed(self, batch: WindowBatch, item: int) -> OutputError:
        reach, frame = batch.windows[item].reach, batch.frame
        place = (
            f"in the window at {reach.x}, {reach.y} of {reach.width} x {reach.height} px "
            f"(of {frame.width_px} x {frame.height_px} output px)"
        )
        return OutputError(
            f"{self.trained.name} gave values that are no numbers {place}; run with "
            "--precision float32, and check the weights.",
            place,
            item,
        )

    def _symmetric(self, batch: WindowBatch, x: "Tensor", reference: "Tensor | None") -> "Tensor":
        """(N, 3, height, width) of the reaches, float32, new."""
        if not self.symmetries:
            return self._part(batch, x, reference, 0).float()

        def turned(turn: int) -> "Tensor":
            beside = None if reference is None else _turn(reference, turn)
            return self._part(batch, _turn(x, turn), beside, turn).float()

        parts = (turned(turn) for turn in range(8))
        if self.symmetries == "mean":
            total: Tensor = sum(parts, start=self._torch.zeros((), device=self.place))
            return total / 8.0
        # Updated one by one (Welford), which loses nothing where all eight nearly agree.
        mean = squares = self._torch.zeros((), device=self.place)
        for count, part in enumerate(parts, 1):
            apart = part - mean
            mean = mean + apart / count
            squares = squares + apart * (part - mean)
        return (squares / 8.0).sqrt()

    def _part(
        self, batch: WindowBatch, x: "Tensor", reference: "Tensor | None", turn: int
    ) -> "Tensor":
        """The reaches, from windows that are turned; they are turned back."""
        scale, frame, windows = self.model.info.scale, batch.frame, batch.windows
        lr = windows[0].lr
        if self.whole and (lr.width, lr.height) == (frame.lr_width_px, frame.lr_height_px):
            size = (frame.height_px, frame.width_px)
            if turn % 2:
                size = (size[1], size[0])
            arbitrary = self.model.info.kind == "arbitrary"
            sr = self.model(x, size=size) if arbitrary else self._fixed(x, reference)
            return self._cut(windows, _turn_back(sr, turn), lambda w: (w.reach.x, w.reach.y))
        if scale is None:
            return _turn_back(self._arbitrary(batch, x, turn), turn)
        sr = _turn_back(self._fixed(x, reference), turn)
        return self._cut(
            windows, sr, lambda w: (w.reach.x - w.lr.x * scale, w.reach.y - w.lr.y * scale)
        )

    def _fixed(self, x: "Tensor", reference: "Tensor | None") -> "Tensor":
        sr: Tensor = self.model(x) if reference is None else self.model(x, reference=reference)
        scale = self.model.info.scale
        assert scale is not None
        if tuple(sr.shape[-2:]) != (x.shape[-2] * scale, x.shape[-1] * scale):
            raise ModelError(
                f"{self.trained.name} gave {tuple(sr.shape[-2:])} px for {tuple(x.shape[-2:])} px "
                f"at x{scale}."
            )
        return sr

    def _cut(self, windows: Sequence[NetworkWindow], sr: "Tensor", corner: Any) -> "Tensor":
        parts = []
        for image, window in zip(sr, windows, strict=True):
            left, top = corner(window)
            parts.append(
                image[:, top : top + window.reach.height, left : left + window.reach.width]
            )
        return self._torch.stack(parts)

    def _arbitrary(self, batch: WindowBatch, x: "Tensor", turn: int) -> "Tensor":
        from wsisr.device import upload

        torch, frame, windows = self._torch, batch.frame, batch.windows
        model: ArbitraryScaleModel = self.model  # type: ignore[assignment]
        net: Any = model.net
        features = net.encode(x)
        axes = [_turned_axes(*_centres(frame, window), turn) for window in windows]
        rows, columns = (
            upload(np.stack([pair[axis] for pair in axes]), self.place) for axis in (0, 1)
        )
        height, width = rows.shape[1], columns.shape[1]
        coord = torch.stack(
            (
                rows[:, :, None].expand(-1, -1, width),
                columns[:, None, :].expand(-1, height, -1),
            ),
            dim=-1,
        ).reshape(len(windows), height * width, 2)
        cells = [_cell(frame, window, model)[:: -1 if turn % 2 else 1] for window in windows]
        cell = upload(np.array(cells, np.float32), self.place)[:, None]
        # Where pixels depend on one another (texture retrieval), a window is one scope.
        most = model.chunk_px if self._on_gpu else min(model.chunk_px, CPU_CHUNK_PX)
        chunk = coord.shape[1] if hasattr(net, "render") else most
        parts = [
            net.decode(features, x, coord[:, i : i + chunk], cell)
            for i in range(0, coord.shape[1], chunk)
        ]
        out: Tensor = torch.cat(parts, dim=1).transpose(1, 2)
        return out.reshape(len(windows), 3, height, width)

    def capacity(self, plan: Tiling, scale: float, side_px: int) -> Capacity:
        """One window is run: itself on a GPU, for its peak; a small one on a CPU, where one window
        runs at a time and six times the widest layer is taken to be its need.
        """
        from wsisr.device import free_bytes

        core = -(-(plan.core_px + plan.blend_px) // max(1, int(scale)))
        side = min(side_px, core + 2 * plan.halo_px)
        if not self._on_gpu and side <= 2 * PROBE_PX:
            return Capacity()
        try:
            need = self._need(scale, side)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release(error)
            return Capacity(largest_px=-(-plan.core_px // 2))
        free = free_bytes(self.place)
        if self._on_gpu:
            budget = min(MOST_BYTES, SHARE * free)
            return Capacity(batch=max(1, min(MOST_WINDOWS, int(budget // need))))
        largest = min(plan.core_px, round(side * scale))
        fits = largest
        while need * (fits / largest) ** 2 > free and fits > 16:
            fits //= 2
        return Capacity(largest_px=None if fits == largest else fits)

    def _need(self, scale: float, side_px: int) -> float:
        """Bytes that a window of a side takes."""
        from wsisr.device import peak_bytes

        if self._on_gpu:
            peak = peak_bytes(self.place, lambda: self._probe(scale, side_px))
            return max(1024.0 * side_px**2, PEAK_MARGIN * peak)
        torch = self._torch
        sizes: list[int] = []

        def note(module: Any, given: Any, out: Any) -> None:
            tensors = [t for t in (*_flat(given), *_flat(out)) if isinstance(t, torch.Tensor)]
            sizes.append(sum(t.numel() * t.element_size() for t in tensors))

        leaves = [m for m in self.model.modules() if not list(m.children())]
        hooks = [leaf.register_forward_hook(note) for leaf in leaves]
        try:
            self._probe(scale, PROBE_PX)
        finally:
            for hook in hooks:
                hook.remove()
        return max(1024.0, 6.0 * max(sizes, default=0) / PROBE_PX**2) * side_px**2

    def _probe(self, scale: float, side_px: int) -> None:
        from wsisr.inference.tiles import WHOLE, window_rows

        frame = plan_frame(side_px, side_px, scale)
        (row,) = window_rows(frame, frame.region, WHOLE)
        grey = np.full((side_px, side_px, 3), 128, np.uint8)
        self.render(WindowBatch(frame=frame, windows=row, lr=[grey]))


def release(error: BaseException) -> None:
    from wsisr.device import release_memory

    release_memory(error)


def _centres(frame: Frame, window: NetworkWindow) -> tuple[Float32Array, Float32Array]:
    """Rows and columns of output px in [-1, 1] of the window, float32 of a float64 computation."""
    reach, lr = window.reach, window.lr

    def axis(first: int, count: int, origin: int, side: int, ratio: float) -> Float32Array:
        place = (np.arange(first, first + count) + 0.5) * ratio - origin
        return (2 * place / side - 1).astype(np.float32)

    down, across = frame.lr_height_px / frame.height_px, frame.lr_width_px / frame.width_px
    return (
        axis(reach.y, reach.height, lr.y, lr.height, down),
        axis(reach.x, reach.width, lr.x, lr.width, across),
    )


def _cell(frame: Frame, window: NetworkWindow, model: "ArbitraryScaleModel") -> tuple[float, float]:
    """Size of an output pixel in the window's units; clipped as in the model's forward."""
    rows, columns = 2 / frame.scale_y / window.lr.height, 2 / frame.scale_x / window.lr.width
    if model.cell_clip:
        rows *= max(frame.scale_y / model.trained_to, 1.0)
        columns *= max(frame.scale_x / model.trained_to, 1.0)
    return rows, columns


def _turn(x: "Tensor", turn: int) -> "Tensor":
    """One of the eight symmetries: quarter turns, then mirrored."""
    x = x.rot90(turn % 4, (-2, -1))
    return x.flip(-1) if turn >= 4 else x


def _turn_back(x: "Tensor", turn: int) -> "Tensor":
    x = x.flip(-1) if turn >= 4 else x
    return x.rot90(-(turn % 4), (-2, -1))


def _turned_axes(
    rows: Float32Array, columns: Float32Array, turn: int
) -> tuple[Float32Array, Float32Array]:
    """Coordinates of the rows and columns of an image once it is turned as by `_turn`."""
    for _ in range(turn % 4):
        rows, columns = -columns[::-1], rows
    if turn >= 4:
        columns = -columns[::-1]
    return rows, columns


def _flat(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
