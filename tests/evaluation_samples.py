"""A small store and small runs for the tests of `wsisr.evaluation`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsisr.arrays import UInt8Array
from wsisr.degradation import degrade
from wsisr.evaluation.entries import record
from wsisr.evaluation.results import ImageRow
from wsisr.evaluation.settings import EvalSettings
from wsisr.inference.trained import FORMAT, TrainedModel
from wsisr.models import create_model, save_model
from wsisr.store import ArraySpec, StoreWriter, open_pairs

HR_PX = 96
SLIDES = ("a", "b", "c", "d")
JPEG = {
    "codec": "jpeg",
    "photometric": "ycbcr",
    "quality": 80,
    "subsampling": "4:2:0",
    "tables_sha256": "unknown",
}


def texture(seed: int, count: int, size_px: int = HR_PX) -> UInt8Array:
    """Smooth coloured noise with edges, (n, s, s, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size_px, :size_px]
    images = []
    for _ in range(count):
        waves = sum(
            rng.uniform(8, 30) * np.sin((x * np.cos(a) + y * np.sin(a)) * f + rng.uniform(0, 6))
            for a, f in zip(rng.uniform(0, 3.1, 8), rng.uniform(0.05, 0.9, 8), strict=True)
        )
        colour = rng.uniform(0.5, 1.0, 3)
        images.append(np.clip(140 + waves[..., None] * colour, 0, 255))
    return np.stack(images).astype(np.uint8)


def write_store(
    path: Path,
    *,
    per_slide: int = 3,
    test: Sequence[str] = ("c", "d"),
    hr_seed: int = 0,
    lr_of: Path | None = None,
    manifest: dict[str, Any] | None = None,
    reduced_on: Sequence[str] = (),
    glass: Sequence[int] = (),
) -> Path:
    """Four slides of four patients; HR 96 px, native LR at x4 (10x) and x2 (20x).

    `lr_of` takes the LR arrays from another store, whatever HR is; rows of `glass` are constant.
    """
    writer = StoreWriter.create(
        path,
        {
            "created_with": {"wsisr": "0.1.0"},
            "manifest": {"name": "samples", **(manifest or {})},
            "manifest_sha256": "0" * 64,
            "magnifications": ["40x", "20x", "10x"],
            "slides": list(SLIDES),
        },
        codec="raw",
    )
    other = None if lr_of is None else open_pairs(lr_of)
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "val": [], "test": []}
    for index, slide in enumerate(SLIDES):
        hr = texture(hr_seed * 100 + index, per_slide)
        hr[list(glass)] = (243, 240, 245)
        planes = torch.from_numpy(hr).permute(0, 3, 1, 2)
        data = {"40x": hr}
        specs = [ArraySpec(name="40x", size_px=HR_PX, um_per_px=0.25, level=0)]
        for name, scale in (("20x", 2), ("10x", 4)):
            made = degrade(planes, "area", float(scale)).permute(0, 2, 3, 1).numpy()
            stored = None if other is None else other.slides[slide].reader(name)
            lr = made if stored is None else stored.read(range(per_slide))
            data[name] = np.ascontiguousarray(lr)
            origin = "reduced" if slide in reduced_on and name == "20x" else "stored-level"
            specs.append(
                ArraySpec(
                    name=name,
                    size_px=HR_PX // scale,
                    factor=scale,
                    origin=origin,
                    native=origin != "reduced",
                    um_per_px=0.25 * scale,
                )
            )
        split = "test" if slide in test else "train"
        rows[split] += [(index, row) for row in range(per_slide)]
        places = np.arange(per_slide)
        with writer.slide(slide, specs) as out:
            out.append(data)
            out.finish(
                {
                    "x": places * HR_PX,
                    "y": places * 0 + 5,
                    "label": places % 2,
                    "residual_x_10x": np.full(per_slide, 0.1, np.float32) * (places - 1),
                    "residual_y_10x": np.zeros(per_slide, np.float32),
                    "kept": np.ones(per_slide, bool),
                },
                np.ones((4, 4), np.uint8),
                {
                    "source": f"{slide}.svs",
                    "fingerprint": slide,
                    "mpp": {"value": 0.25, "source": "tag", "quality": "stated"},
                    "patient": f"patient-{slide}",
                    "group": f"glass-{slide}",
                    "split": split,
                    "labels": ["normal", "tumour"],
                    "levels": [{"index": 0, "compression": JPEG}],
                },
            )
    writer.commit_splits({k: np.array(v, np.int32).reshape(-1, 2) for k, v in rows.items()})
    writer.clean()
    return path


def write_run(
    folder: Path,
    model: str = "srcnn",
    *,
    scale: int | None = 4,
    seed: int = 0,
    origin: str = "stored-level",
    patients: Sequence[str] = ("patient-a",),
    groups: Sequence[str] = ("glass-a",),
    store_digest: str = "",
    **settings: Any,
) -> Path:
    """A run that has been trained for no step at all."""
    torch.manual_seed(seed)
    net = create_model(model, preset="tiny", scale=scale, **settings)
    save_model(net.eval(), folder / "best", extra={"run": folder.name})
    record = {
        "format": "wsisr-run",
        "format_version": 1,
        "created_with": "wsisr",
        "model": model,
        "preset": "tiny",
        "kind": net.info.kind,
        "scale": scale,
        "scale_range": [scale, scale] if scale else [1.0, 4.0],
        "seed": seed,
        "state": "finished",
        "step": 0,
        "steps": 0,
        "lr_origin": origin,
        "degradation": None,
        "store": {"path": "pairs.zarr", "digest": store_digest, "manifest": "samples"},
        "patients": list(patients),
        "groups": list(groups),
        "config": {"seed": seed, "model": {"name": model}},
    }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def settings(folder: Path, **changes: Any) -> EvalSettings:
    """Settings of an evaluation in a folder that holds pairs.zarr and runs/."""
    known: dict[str, Any] = {
        "scales": (4.0,),
        "data": folder / "pairs.zarr",
        "runs": folder / "runs",
        "output": folder / "eval",
        "figures": 0,
        "cost": False,
    }
    return EvalSettings(**{**known, **changes})


def entry(name: str = "net", **changes: Any) -> TrainedModel:
    """A run with weights that nobody reads."""
    known: dict[str, Any] = {
        "scale": 4,
        "scale_range": (4.0, 4.0),
        "seed": 0,
        "trained_origin": "stored-level",
        "patients": frozenset({"patient-a"}),
        "groups": frozenset({"glass-a"}),
        "trained_store": "other",
        "recipe": name,
    }
    know = {**known, **changes}
    return TrainedModel(
        name=name,
        model="srcnn",
        preset="tiny",
        scale=know["scale"],
        scale_range=know["scale_range"],
        folder=Path(name),
        saved=Path(name),
        document={
            "format": FORMAT,
            "model": know["recipe"],
            "seed": know["seed"],
            "lr_origin": know["trained_origin"],
            "patients": know["patients"],
            "groups": know["groups"],
            "store": {"digest": know["trained_store"]},
        },
    )


def record_of(entry: TrainedModel) -> dict[str, Any]:
    """Its entry of results.json."""
    entry = replace(entry)  # bicubic is one object for all
    object.__setattr__(entry, "weights_sha256", "0" * 64)
    return record(entry)


def image_row(run: str, slide: str, row: int, psnr: float, **changes: Any) -> ImageRow:
    """A row with one score."""
    known: dict[str, Any] = {
        "slide": slide,
        "patient": f"patient-{slide}",
        "group": "",
        "row": row,
        "label": "normal",
        "model": run,
        "run": run,
        "seed": 0,
        "scale": 4.0,
        "origin": "stored-level",
        "in_range": True,
        "trained_origin": "stored-level",
        "reference": "none",
        "key": "k",
        "scores": {"psnr_rgb": psnr},
    }
    return ImageRow(**{**known, **changes})


def document(entries: Sequence[TrainedModel], **changes: Any) -> dict[str, Any]:
    """results.json of one column and one score."""
    known: dict[str, Any] = {
        "created_with": {"wsisr": "0.1.0"},
        "environment": {"device": "cpu"},
        "store": {"path": "pairs.zarr", "digest": "d", "manifest": "samples", "hr": "40x"},
        "settings": {
            "split": "test",
            "limit": None,
            "self_ensemble": False,
            "precision": "float32",
            "tile": "auto",
            "seed": 0,
        },
        "lr_source": "auto",
        "samples": {"images": 3, "slides": 3, "patients": 3},
        "entries": [record_of(e) for e in entries],
        "columns": [
            {
                "origin": "stored-level",
                "scale": 4.0,
                "array": "10x",
                "degradation": None,
                "images": 3,
                "scores": {"psnr_rgb": "wsisr: psnr_rgb[crop=4,uint8]"},
            }
        ],
        "scores": [
            {
                "name": "psnr_rgb",
                "title": "PSNR-RGB, dB",
                "better": "high",
                "digits": 3,
                "protocol": "wsisr",
            }
        ],
        "protocols": {"wsisr": "ours"},
        "stamps": [],
        "notes": [],
        "ceilings": None,
    }
    return {**known, **changes}
