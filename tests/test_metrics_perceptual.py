"""LPIPS and DISTS on seeded random trunks, and the one place that finds weights."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import save_file

from wsisr.metrics import MetricError
from wsisr.metrics.perceptual import Dists, Lpips, TrunkNet
from wsisr.metrics.weights import ENVIRONMENT, FILES, find_weights, read_weights

PHOTO = skimage.data.immunohistochemistry()[:64, :64]


def _noisy(sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, PHOTO.shape)
    return np.clip(PHOTO + noise, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def _nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.mark.parametrize(
    "metric",
    [Lpips("alex", random=True), Lpips("vgg", random=True), Dists(random=True)],
    ids=lambda m: m.name,
)
def test_distances_are_zero_symmetric_and_grow_with_damage(metric: Lpips | Dists) -> None:
    same, mild, strong = (metric.score(im, PHOTO) for im in (PHOTO, _noisy(8), _noisy(40)))
    assert abs(same) < 1e-6 < mild < strong
    assert metric.score(PHOTO, _noisy(8)) == pytest.approx(mild, rel=1e-4)
    assert metric.name.endswith("random")


def test_gradient_reaches_the_image_and_not_the_trunk() -> None:
    metric = Lpips("alex", random=True)
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    metric(x, torch.rand(1, 3, 64, 64)).sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    assert not any(p.requires_grad for p in metric.parameters())


def test_trunks_have_torchvisions_keys() -> None:
    alex = set(TrunkNet("alex", None).state_dict())
    vgg = set(TrunkNet("vgg", None).state_dict())
    places = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
    for keys, where in ((alex, places["alex"]), (vgg, places["vgg"])):
        assert keys == {f"features.{i}.{part}" for i in where for part in ("weight", "bias")}


def test_missing_weights_are_named_with_their_address() -> None:
    with pytest.raises(MetricError, match=r"alexnet-owt-7be5be79\.pth.*--weights-dir"):
        Lpips("alex")
    with pytest.raises(MetricError, match=r"vgg16-397923af\.pth.*https://"):
        Dists()


def test_weights_are_found_in_their_folder_and_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Lpips("alex", random=True)
    torch.save(random.trunk.state_dict(), tmp_path / FILES["alexnet"].name)
    heads = {f"lin{i}.model.1.weight": h[None, :, None, None] for i, h in enumerate(random.heads)}
    torch.save(heads, tmp_path / FILES["lpips-alex"].name)
    loaded = Lpips("alex", tmp_path)
    assert loaded.name == "lpips_alex"
    assert loaded.score(_noisy(8), PHOTO) == random.score(_noisy(8), PHOTO)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    assert find_weights("alexnet") == tmp_path / FILES["alexnet"].name
    torch.save({"lin0": heads["lin0.model.1.weight"]}, tmp_path / FILES["lpips-alex"].name)
    with pytest.raises(MetricError, match="no LPIPS heads"):
        Lpips("alex")


def test_broken_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"not weights")
    with pytest.raises(MetricError, match=r"w\.pth"):
        read_weights(path)
    torch.save([1, 2], path)
    with pytest.raises(MetricError, match="state dict"):
        read_weights(path)
    save_file({"a": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors")["a"].tolist() == [1.0, 1.0]
    torch.save({"features.0.weight": torch.ones(2)}, path)
    with pytest.raises(MetricError, match="another shape"):
        TrunkNet("alex", path)
