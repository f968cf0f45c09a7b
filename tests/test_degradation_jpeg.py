"""JPEG without a codec equals libjpeg (Pillow) bit for bit."""

import io

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from wsisr.degradation.jpeg import dct_matrix, jpeg, quality_tables
from wsisr.errors import DegradationError

_MODES = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def _pillow(image: np.ndarray, quality: int, subsampling: str) -> tuple[np.ndarray, list]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=_MODES[subsampling])
    with Image.open(buffer) as decoded:
        tables = [decoded.quantization[i] for i in (0, 1)]
        return np.asarray(decoded.convert("RGB")), tables


def _ours(image: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    planes = torch.as_tensor(image.copy()).permute(2, 0, 1)[None]
    return jpeg(planes, quality, subsampling)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("subsampling", _MODES)
@pytest.mark.parametrize("quality", [1, 30, 75, 92, 100])
def test_equals_libjpeg(quality: int, subsampling: str) -> None:
    photo = skimage.data.immunohistochemistry()
    rng = np.random.default_rng(quality)
    for height, width in ((96, 80), (61, 53), (24, 17), (2, 5), (5, 4), (1, 1)):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for image in (np.ascontiguousarray(photo[90 : 90 + height, 40 : 40 + width]), noise):
            wanted, _ = _pillow(image, quality, subsampling)
            assert np.array_equal(_ours(image, quality, subsampling), wanted)


def test_quality_tables_equal_libjpeg() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for quality in range(1, 101):
        _, tables = _pillow(image, quality, "4:4:4")
        ours = quality_tables(quality)[0].reshape(2, 64).int().tolist()
        assert ours == [list(tables[0]), list(tables[1])]


def test_each_image_has_its_own_quality() -> None:
    image = torch.as_tensor(skimage.data.immunohistochemistry()[:64, :48].copy()).permute(2, 0, 1)
    both = jpeg(torch.stack((image, image)), torch.tensor([40, 90]))
    assert torch.equal(both[0], jpeg(image[None], 40)[0])
    assert torch.equal(both[1], jpeg(image[None], 90)[0])
    given = jpeg(image[None], tables=quality_tables(40))
    assert torch.equal(given[0], both[0])


def test_dct_matrix_is_nearly_orthogonal() -> None:
    matrix = dct_matrix() / 8192.0
    assert np.abs(matrix @ matrix.T - 8.0 * np.eye(8)).max() < 2e-3


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jpeg(x.float(), 80),
        lambda x: jpeg(x, 0),
        lambda x: jpeg(x, 101),
        lambda x: jpeg(x),
        lambda x: jpeg(x, 80, "4:1:1"),
        lambda x: jpeg(x[:, :1], 80),
        lambda x: jpeg(x, 80, tables=quality_tables(80)),
    ],
)
def test_wrong_arguments_are_refused(call) -> None:
    with pytest.raises(DegradationError):
        call(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
