"""Bicubic over real scales on real tissue: no jumps, because LR and HR cover the same field."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import CubicSpline

from wsisr.degradation import crop_to_scale, degrade
from wsisr.inference import super_resolve
from wsisr.inference.engine import BicubicEngine
from wsisr.inference.tiles import WHOLE
from wsisr.metrics import get_protocol

SCALES = (1.5, 2.0, 2.4, 3.0, 3.3, 4.0, 4.2, 5.1, 6.0, 8.0)


@pytest.mark.parametrize(
    "name",
    [
        "he_1024_40x/breast_a_example1.png",
        "he_1024_40x/tiatoolbox_target.png",
        "tcga_crc_512/Tile_16896_20480.jpg",
    ],
)
def test_bicubic_is_smooth_over_the_scale(shared_data: Path, name: str) -> None:
    with Image.open(shared_data / "patches" / name) as opened:
        pixels = np.asarray(opened.convert("RGB"))[:512, :512]
    hr = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    protocol = get_protocol("cwtnet")
    found = []
    for scale in SCALES:
        target = crop_to_scale(hr, scale)
        lr = degrade(hr, "bicubic", scale).permute(0, 2, 3, 1).numpy()
        sr = super_resolve(BicubicEngine(), lr, scale, WHOLE) / 255.0
        found.append(protocol.scores[0](sr, target, scale)[0])
    x, y = np.log(SCALES), np.array(found)
    assert (np.diff(y) < 0).all()
    for at in range(1, len(SCALES) - 1):
        others = [i for i in range(len(SCALES)) if i != at]
        assert y[at] == pytest.approx(CubicSpline(x[others], y[others])(x[at]), abs=0.15)
