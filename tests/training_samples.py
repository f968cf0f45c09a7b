"""Small pair stores that a network can learn from, for the tests of `wsisr.training`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from wsisr.arrays import UInt8Array
from wsisr.degradation import degrade
from wsisr.store import ArraySpec, StoreWriter
from wsisr.training import TrainRequest

HR_PX = 64
SPLITS = {"a": "train", "b": "train", "c": "train", "d": "val", "e": "test"}
SMALL = ("model.width1=8", "model.width2=4", "model.kernel1=5", "model.kernel2=1")
"""Settings of a SRCNN that takes a few ms a step."""
QUICK = (
    "data.crop_lr_px=8",
    "data.batch=4",
    "train.save_every=5",
    "train.log_every=5",
    "val.every=1000",
    "val.count=2",
    "val.crop_lr_px=12",
    "val.pictures=1",
)


def textures(seed: int, count: int, side: int) -> UInt8Array:
    """Stained-looking patches with edges at all scales, (n, side, side, 3)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, side, side))
    nuclei = gaussian_filter(noise, (0, 3, 3))
    nuclei /= nuclei.std()
    fibres = gaussian_filter(rng.standard_normal((count, side, side)), (0, 0.6, 4))
    fibres /= fibres.std()
    tint = np.array([225.0, 170.0, 205.0]) + 12 * fibres[..., None]
    image = np.where((nuclei > 0.7)[..., None], np.array([110.0, 70.0, 140.0]), tint)
    image = gaussian_filter(image, (0, 0.7, 0.7, 0))
    return np.clip(image, 0, 255).round().astype(np.uint8)


def make_store(
    path: Path,
    *,
    factors: Sequence[int] = (4,),
    origin: str | Callable[[str], str] = "stored-level",
    splits: dict[str, str] | None = None,
    count: int = 6,
    hr_px: int = HR_PX,
    columns: dict[str, Any] | None = None,
    manifest: dict[str, Any] | None = None,
    commit: bool = True,
) -> Path:
    """A finished store of one patient a slide; LR made by bicubic and called `origin`."""
    splits = SPLITS if splits is None else splits
    names = ["40x", *(f"{40 / factor:g}x" for factor in factors)]
    root = {
        "created_with": {"wsisr": "0.1.0"},
        "manifest": {"name": "test", **(manifest or {})},
        "manifest_sha256": "0" * 64,
        "magnifications": names,
        "slides": sorted(splits),
    }
    writer = StoreWriter.create(path, root)
    rows: dict[str, list[tuple[int, int]]] = {}
    for index, slide in enumerate(sorted(splits)):
        called = origin if isinstance(origin, str) else origin(slide)
        hr = textures(index, count, hr_px)
        tensor = torch.from_numpy(hr).permute(0, 3, 1, 2)
        data = {"40x": hr}
        specs = [ArraySpec(name="40x", size_px=hr_px, um_per_px=0.25)]
        for factor, name in zip(factors, names[1:], strict=True):
            lr = degrade(tensor, "bicubic", factor).permute(0, 2, 3, 1).contiguous().numpy()
            data[name] = lr
            specs.append(
                ArraySpec(
                    name=name,
                    size_px=hr_px // factor,
                    factor=factor,
                    origin=called,
                    native=called in ("rescan", "stored-level"),
                )
            )
        with writer.slide(slide, specs) as group:
            group.append(data)
            table = {
                "x": np.arange(count) * hr_px,
                "y": np.zeros(count, np.int64),
                "kept": np.ones(count, bool),
                "residual_x": np.full(count, 0.01, np.float32),
                "residual_y": np.full(count, -0.02, np.float32),
                "verdict": np.ones(count, np.int8),
            }
            attributes = {
                "source": f"{slide}.svs",
                "fingerprint": slide,
                "mpp": {"value": 0.25},
                "patient": f"patient {slide}",
                "group": f"glass {slide}",
                "split": splits[slide],
            }
            group.finish(table | (columns or {}), np.ones((4, 4), np.uint8), attributes)
        rows.setdefault(splits[slide], []).extend((index, row) for row in range(count))
    if commit:
        writer.commit_splits({name: np.array(pairs, np.int32) for name, pairs in rows.items()})
    writer.clean()
    return path


def small_request(store: Path, output: Path, *more: str, **changes: Any) -> TrainRequest:
    """A run of a small SRCNN: 20 steps of a few ms."""
    options: dict[str, Any] = {"device": "cpu", "model": "srcnn", "preset": "tiny", "steps": 20}
    return TrainRequest(
        data=store,
        output=output,
        assignments=(*(SMALL if changes.get("model", "srcnn") == "srcnn" else ()), *QUICK, *more),
        **{**options, **changes},
    )
