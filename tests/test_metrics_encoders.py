"""Encoders of the user's, for FID and KID: what is run, what is refused, what they are fed with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsisr.metrics import MetricError
from wsisr.metrics.distribution import extract
from wsisr.metrics.encoders import open_encoder, parse_input

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Pooled(nn.Module):
    """Means of the channels, twice."""

    def forward(self, x: Tensor) -> Tensor:
        means = x.float().mean((2, 3), keepdim=True)
        return torch.cat((means, 2 * means), 1)


class Flagged(nn.Module):
    """Like the published Inception: class scores unless features are asked for."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        if return_features:
            return x.float().mean((2, 3))
        return x.float().sum((1, 2, 3))[:, None]


def _images(count: int = 4, side: int = 20) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, side, side), np.uint8))


def test_a_torchscript_encoder_gives_features_of_what_it_is_fed_with(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.jit.trace(Pooled(), torch.zeros(1, 3, 8, 8)).save(str(path))
    images = _images()
    means = images.double().mean((2, 3)) / 255
    encoder = open_encoder(path, parse_input("same,unit"))
    assert encoder.name == "encoder.pt (TorchScript)" and len(encoder.sha256) == 64
    features = extract([images[:3], images[3:]], encoder)
    assert features.shape == (4, 6) and np.allclose(features[:, :3], means, atol=1e-6)
    grey = extract([images], open_encoder(path, parse_input("same,uint8")))
    assert np.allclose(grey[:, :3], 255 * means, atol=1e-3)
    half = extract([images], open_encoder(path, parse_input("16,half")))
    assert np.allclose(half[:, :3], (means - 0.5) / 0.5, atol=0.05)
    imagenet = extract([images], open_encoder(path, parse_input("same,imagenet")))
    assert np.allclose(imagenet[:, 0], (means[:, 0] - 0.485) / 0.229, atol=1e-5)
    assert str(parse_input("224,imagenet")).startswith("resized to 224 px (bicubic, antialiased)")


def test_an_encoder_that_can_is_asked_for_features(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.script(Flagged()).save(str(path))
    assert open_encoder(path, parse_input("same,uint8"))(_images()).shape == (4, 3)


def test_an_onnx_encoder_gives_the_same(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    h = onnx.helper
    value = h.make_tensor_value_info
    graph = h.make_graph(
        [h.make_node("GlobalAveragePool", ["x"], ["y"])],
        "means",
        [value("x", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 3, 1, 1])],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "encoder.onnx"
    onnx.save(model, path)
    features = open_encoder(path, parse_input("same,unit"))(_images())
    assert np.allclose(features, _images().double().mean((2, 3)) / 255, atol=1e-6)


def test_pickles_and_other_files_are_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    same = parse_input("same,unit")
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    torch.save({"model": Evil()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "text.onnx").write_text("no graph")
    for name, words in (
        ("evil.pt", "pickled model or weights.*torch.jit.trace"),
        ("old.pt", "neither a TorchScript nor an ONNX"),
        ("none.pt", "no such file"),
        ("text.onnx", "onnxruntime"),
    ):
        with pytest.raises(MetricError, match=words):
            open_encoder(tmp_path / name, same)
    assert not (tmp_path / "ran").exists()


def test_maps_instead_of_features_and_wrong_inputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.pt"
    torch.jit.trace(nn.Identity(), torch.zeros(1, 3, 8, 8)).save(str(path))
    with pytest.raises(MetricError, match=r"\(4, 3, 20, 20\).*pooling"):
        open_encoder(path, parse_input("same,unit"))(_images())
    torch.jit.trace(nn.Linear(8, 2), torch.zeros(1, 3, 8, 8)).save(str(path))
    with pytest.raises(MetricError, match=r"failed on images of \(4, 3, 20, 20\)"):
        open_encoder(path, parse_input("same,unit"))(_images())
    for text in ("", "224", "2,unit", "same,rgb", "x,unit"):
        with pytest.raises(MetricError, match="give the side of the encoder's input"):
            parse_input(text)
