"""Small pair stores for the tests of `wsisr.store`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.store import ArraySpec, StoreWriter


def root_attributes(slides: Sequence[str], **more: Any) -> dict[str, Any]:
    """What a build says of its store."""
    return {
        "created_with": {"wsisr": "0.1.0"},
        "manifest": {"name": "test"},
        "manifest_sha256": "0" * 64,
        "magnifications": ["40x", "10x"],
        "slides": list(slides),
        **more,
    }


def slide_attributes(slide_id: str, **more: Any) -> dict[str, Any]:
    """What a build says of a slide."""
    return {
        "source": f"{slide_id}.svs",
        "fingerprint": f"fingerprint of {slide_id}",
        "mpp": {"value": 0.25, "source": "vendor tag", "quality": "stated"},
        "patient": f"patient of {slide_id}",
        "patient_source": "table",
        "split": "train",
        "labels": ["normal", "tumour"],
        "reasons": ["flat"],
        **more,
    }


def specs(size_px: int = 32, factor: int = 4) -> list[ArraySpec]:
    """Two arrays, 40x and 10x."""
    return [
        ArraySpec(name="40x", size_px=size_px, um_per_px=0.25),
        ArraySpec(name="10x", size_px=size_px // factor, factor=factor, um_per_px=0.25 * factor),
    ]


def patches(seed: int, count: int, size_px: int = 32, factor: int = 4) -> dict[str, UInt8Array]:
    """Noise patches; the first one is all black, as chunks equal to the fill value must stay."""
    rng = np.random.default_rng(seed)
    data = {
        "40x": rng.integers(0, 256, (count, size_px, size_px, 3), np.uint8),
        "10x": rng.integers(0, 256, (count, size_px // factor, size_px // factor, 3), np.uint8),
    }
    for array in data.values():
        array[:1] = 0
    return data


def columns(count: int, field_px: int = 32) -> dict[str, AnyArray]:
    """The required columns and some others; patches lie in rows of eight."""
    places = np.arange(count)
    return {
        "x": places % 8 * field_px,
        "y": places // 8 * field_px,
        "label": places % 2,
        "tissue": np.full(count, 0.75, np.float32),
        "spread": np.linspace(0, 1, count, dtype=np.float32),
        "ncc_band": np.linspace(1, 0.5, count, dtype=np.float32),
        "verdict": np.ones(count, np.int8),
        "reason": np.full(count, -1),
        "kept": np.ones(count, bool),
    }


def write_slide(
    writer: StoreWriter,
    slide_id: str,
    data: Mapping[str, UInt8Array],
    *,
    tissue: UInt8Array | None = None,
    attributes: Mapping[str, Any] | None = None,
    table: Mapping[str, AnyArray] | None = None,
    batch: int = 5,
) -> str:
    """Write and commit one slide in batches; returns its digest."""
    count, size_px = data["40x"].shape[:2]
    factor = size_px // data["10x"].shape[1]
    with writer.slide(slide_id, specs(size_px, factor)) as slide:
        for start in range(0, count, batch):
            slide.append({name: array[start : start + batch] for name, array in data.items()})
        return slide.finish(
            columns(count, size_px) if table is None else table,
            np.ones((12, 10), np.uint8) if tissue is None else tissue,
            slide_attributes(slide_id, **(attributes or {})),
        )


def make_store(path: Path, counts: Mapping[str, int], *, codec: str = "raw") -> StoreWriter:
    """A complete store with the given patches per slide, all of them in train."""
    writer = StoreWriter.create(path, root_attributes(list(counts)), codec=codec)
    rows = []
    for index, slide_id in enumerate(sorted(counts)):
        write_slide(writer, slide_id, patches(index, counts[slide_id]))
        rows += [(index, row) for row in range(counts[slide_id])]
    writer.commit_splits({"train": np.array(rows, np.int32).reshape(-1, 2)})
    writer.clean()
    return writer


def tree_bytes(root: Path) -> dict[str, bytes]:
    """Content of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
