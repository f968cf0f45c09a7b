"""What a model costs: parameters, arithmetic, memory and time, as in ISTE's table of costs.

A square LR image is enlarged; arbitrary-scale models decode it in queries of several sizes, which
is a trade of memory for time and changes nothing else.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from wsisr.device import on_gpu, peak_bytes, synchronise
from wsisr.errors import ConfigError
from wsisr.files import replace_file
from wsisr.inference.loading import load_trained
from wsisr.inference.trained import TrainedModel
from wsisr.models import SRModel, create_model
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.tables import cell_text, csv_table, read_table

COST = "cost.csv"
QUERY_SCALE = 2.0
"""Scale of the rows with several query sizes (ISTE: 96 x 96 LR, 192 x 192 output)."""
SLOW_S = 5.0


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """One line of `cost.csv`.

    Attributes
    ----------
    lr_px, out_px : int
        Sides of input and output; batch 1.
    query_px : int
        Side of the square of output pixels that is decoded at once; 0: all of it, or a model
        without queries.
    parameters_2_20 : float
        In units of 2^20, as ISTE's table prints "M".
    gmac : float
        10^9 multiply-accumulates of convolutions and matrix products.
    peak_mib : float
        Weights and the largest sum of tensors alive at once; on a GPU what its allocator counted.
    time_ms : float
        Median of the runs.
    """

    run: str
    model: str
    scale: float
    lr_px: int
    out_px: int
    query_px: int
    parameters: int
    parameters_2_20: float
    gmac: float
    peak_mib: float
    time_ms: float
    runs: int
    device: str

    @property
    def ms_per_mpx(self) -> float:
        """Time per 10^6 output pixels."""
        return self.time_ms / (self.out_px**2 / 1e6)


def measure_costs(
    entries: Sequence[TrainedModel], scale: float, device: str, report: Reporter = silent
) -> tuple[CostRow, ...]:
    """Costs of all entries on a device.

    Parameters
    ----------
    scale : float
        At which arbitrary-scale models are also measured whole, beside their query sizes at x2.
    device : str
        On a CPU the LR image has 48 px a side, on a GPU 96 px.
    """
    lr_px = 96 if on_gpu(device) else 48
    rows: list[CostRow] = []
    for done, entry in enumerate(entries, start=1):
        if entry.is_network:
            model = load_trained(entry, device)
        else:
            model = create_model(entry.model)
        if entry.kind == "fixed":
            rows.append(measure(entry.name, model, float(entry.scale or 1), lr_px, 0, device))
        else:
            if hasattr(model, "chunk_px"):
                for query in (lr_px // 2, lr_px, 2 * lr_px):
                    rows.append(measure(entry.name, model, QUERY_SCALE, lr_px, query, device))
            rows.append(measure(entry.name, model, scale, lr_px, 0, device))
        report(
            ProgressEvent(
                stage="cost", done=done, total=len(entries), unit="model", item=entry.name
            )
        )
    return tuple(rows)


@torch.no_grad()
def measure(
    name: str, model: SRModel, scale: float, lr_px: int, query_px: int, device: str
) -> CostRow:
    """Cost of one model for one input, in eval mode, float32, batch 1."""
    model = model.to(device).eval()
    lr = torch.rand(1, 3, lr_px, lr_px, generator=torch.Generator().manual_seed(0)).to(device)
    out_px = round(lr_px * scale)
    whole = getattr(model, "chunk_px", None)
    if whole is not None:
        model.chunk_px = query_px**2 if query_px else out_px**2  # type: ignore[assignment]
    try:

        def forward() -> Tensor:
            return model(lr) if model.info.kind == "fixed" else model(lr, size=(out_px, out_px))

        gmac, peak = _traced(forward, model, device)
        times = _times(forward, device)
    finally:
        if whole is not None:
            model.chunk_px = whole  # type: ignore[assignment]
    return CostRow(
        run=name,
        model=model.info.name,
        scale=scale,
        lr_px=lr_px,
        out_px=out_px,
        query_px=query_px,
        parameters=model.parameter_count,
        parameters_2_20=model.parameter_count / 2**20,
        gmac=gmac,
        peak_mib=peak / 2**20,
        time_ms=statistics.median(times) * 1e3,
        runs=len(times),
        device=device,
    )


def _attention_flops(q: Any, k: Any, v: Any, *more: Any, **named: Any) -> int:
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


# The one fused kernel that torch's counter does not know.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops  # type: ignore[misc]
}


def _traced(forward: Any, model: SRModel, device: str) -> tuple[float, int]:
    """GMAC and peak bytes of one pass."""
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    weights = sum(t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers()))
    with counter:
        peak = peak_bytes(device, forward)
    return counter.get_total_flops() / 2e9, peak + weights


def _times(forward: Any, device: str) -> list[float]:
    """Seconds of several passes after one that warms up; fewer where one is slow."""

    def once() -> float:
        start = time.perf_counter()
        forward()
        synchronise(device)
        return time.perf_counter() - start

    first = once()
    if first > SLOW_S:
        return [first]
    return [once() for _ in range(10 if on_gpu(device) else 3)]


def write_costs(rows: Sequence[CostRow], path: Path) -> None:
    """Write cost.csv."""
    names = [field.name for field in fields(CostRow)]
    replace_file(path, csv_table(names, map(asdict, rows), ".6g"))


def read_costs(path: Path) -> tuple[CostRow, ...]:
    """Read cost.csv; nothing where there is none.

    Raises
    ------
    ConfigError
        The file is broken.
    """
    if not path.is_file():
        return ()
    kinds: dict[str, Any] = {field.name: field.type for field in fields(CostRow)}
    try:
        return tuple(
            CostRow(**{name: kind(cell_text(row[name])) for name, kind in kinds.items()})
            for row in read_table(path)[1]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); remove it, it is made again."
        ) from None
