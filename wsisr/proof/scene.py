"""What a proof trains on: a small store of stained-looking patches, and an image to enlarge."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from wsisr.arrays import UInt8Array
from wsisr.degradation import degrade
from wsisr.store import ArraySpec, StoreWriter

SPLITS = {"a": "train", "b": "train", "c": "val", "d": "test"}
PATCHES = 4
FACTOR = 4


def patches(seed: int, count: int, side_px: int) -> UInt8Array:
    """Nuclei on fibres, (count, side, side, 3)."""
    rng = np.random.default_rng(seed)
    nuclei = gaussian_filter(rng.standard_normal((count, side_px, side_px)), (0, 3, 3))
    fibres = gaussian_filter(rng.standard_normal((count, side_px, side_px)), (0, 0.6, 4))
    tint = np.array([225.0, 170.0, 205.0]) + 12 * (fibres / fibres.std())[..., None]
    image = np.where((nuclei > 0.7 * nuclei.std())[..., None], (110.0, 70.0, 140.0), tint)
    return np.clip(gaussian_filter(image, (0, 0.7, 0.7, 0)), 0, 255).round().astype(np.uint8)


def make_store(path: Path, hr_px: int) -> Path:
    """A finished store: a patient a slide, HR and its reduction by 4; itself where it is there."""
    if (path / "zarr.json").is_file():
        return path
    root = {
        "created_with": {},
        "manifest": {"name": "proof"},
        "manifest_sha256": "0" * 64,
        "magnifications": ["40x", "10x"],
        "slides": sorted(SPLITS),
    }
    specs = [
        ArraySpec(name="40x", size_px=hr_px, um_per_px=0.25),
        ArraySpec(
            name="10x", size_px=hr_px // FACTOR, factor=FACTOR, origin="stored-level", native=True
        ),
    ]
    writer = StoreWriter.create(path, root)
    rows: dict[str, list[tuple[int, int]]] = {}
    for index, slide in enumerate(sorted(SPLITS)):
        hr = patches(index, PATCHES, hr_px)
        lr = degrade(torch.from_numpy(hr).permute(0, 3, 1, 2), "bicubic", FACTOR)
        with writer.slide(slide, specs) as group:
            group.append({"40x": hr, "10x": lr.permute(0, 2, 3, 1).contiguous().numpy()})
            table = {
                "x": np.arange(PATCHES) * hr_px,
                "y": np.zeros(PATCHES, np.int64),
                "kept": np.ones(PATCHES, bool),
                "residual_x": np.zeros(PATCHES, np.float32),
                "residual_y": np.zeros(PATCHES, np.float32),
                "verdict": np.ones(PATCHES, np.int8),
            }
            attributes = {
                "source": f"{slide}.svs",
                "fingerprint": slide,
                "mpp": {"value": 0.25},
                "patient": f"patient {slide}",
                "group": f"glass {slide}",
                "split": SPLITS[slide],
            }
            group.finish(table, np.ones((4, 4), np.uint8), attributes)
        rows.setdefault(SPLITS[slide], []).extend((index, row) for row in range(PATCHES))
    writer.commit_splits({name: np.array(pairs, np.int32) for name, pairs in rows.items()})
    writer.clean()
    return path


def make_image(path: Path, side_px: int) -> Path:
    """A picture to enlarge."""
    if not path.is_file():
        Image.fromarray(patches(9, 1, side_px)[0]).save(path)
    return path
