"""Small networks learn: four real patches, past bicubic by a margin, in seconds.

The slower families are in ``benchmarks/models.py overfit``.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wsisr.models import create_model
from wsisr.models.losses import cwt_loss
from wsisr.resize import resize

torch.set_num_threads(1)
FILES = (
    "he_1024_40x/breast_a_example1.png",
    "he_1024_40x/tiatoolbox_target.png",
    "tcga_crc_512/Tile_16896_20480.jpg",
    "tcga_crc_512/Tile_22016_11776.jpg",
)
SIDE_PX, SCALE = 48, 4


def psnr(image: Tensor, hr: Tensor) -> float:
    error = (image.clamp(0, 1) - hr).square().mean(dim=(1, 2, 3))
    return float(-10 * error.log10().mean())


@pytest.fixture(scope="module")
def patches(shared_data: Path) -> Tensor:
    crops = []
    for name in FILES:
        rgb = np.asarray(Image.open(shared_data / "patches" / name).convert("RGB"))
        top, left = ((side - SIDE_PX) // 2 for side in rgb.shape[:2])
        crop = rgb[top : top + SIDE_PX, left : left + SIDE_PX].copy()
        crops.append(torch.from_numpy(crop).permute(2, 0, 1))
    return torch.stack(crops).float() / 255


@pytest.mark.parametrize(
    ("name", "steps", "margin_db"), [("masrnet", 200, 0.5), ("cwtnet", 100, 0.5)]
)
def test_tiny_presets_pass_bicubic_on_four_patches(
    patches: Tensor, name: str, steps: int, margin_db: float
) -> None:
    torch.manual_seed(0)
    hr, side = patches, SIDE_PX // SCALE
    lr, reference = resize(hr, (side, side)), resize(hr, (2 * side, 2 * side))
    model = create_model(name, scale=SCALE, preset="tiny").train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps) + 1e-5
        if name == "cwtnet":
            outputs = model.training_step_outputs(lr, reference, feed_wr=step % 2 == 0)
            loss = cwt_loss(outputs, hr)
        else:
            loss = F.l1_loss(model(lr), hr)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        gained = psnr(model.eval()(lr), hr)
    assert gained > psnr(resize(lr, (SIDE_PX, SIDE_PX)), hr) + margin_db
