"""FID, KID, LPIPS and DISTS of an evaluation: with what the user brings, and never ranked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_samples import settings, write_run, write_store
from torch import Tensor, nn

from wsisr.errors import ConfigError
from wsisr.evaluation import evaluate
from wsisr.evaluation.columns import read_pair
from wsisr.evaluation.distances import Distance, distance_tables, read_distances
from wsisr.evaluation.plan import prepare
from wsisr.evaluation.tables import latex, markdown, overview
from wsisr.metrics.distribution import kid
from wsisr.metrics.perceptual import TrunkNet
from wsisr.metrics.weights import FILES
from wsisr.resize import resize

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Moments(nn.Module):
    """Means and deviations of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean((2, 3)), x.std((2, 3))), 1)


@pytest.fixture(scope="module")
def made(made_once: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        write_store(folder / "pairs.zarr")
        write_run(folder / "runs/srcnn-x4")
        torch.jit.trace(Moments(), torch.zeros(1, 3, 8, 8)).save(str(folder / "encoder.pt"))

    return made_once("evaluation-distances", make)


def _wanted(made: Path, tmp_path: Path, **changes: object) -> object:
    known = {"lr_source": "native", "output": tmp_path / "eval", "features_input": "same,unit"}
    return settings(made, **{**known, **changes})


def test_kid_is_a_table_of_its_own_and_fid_waits_for_2048_images(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _wanted(made, tmp_path, features=made / "encoder.pt")
    results = evaluate(wanted)
    rows = read_distances(results.document)
    assert [(row.run, row.images, row.subset_size, row.fid) for row in rows] == [
        ("bicubic", 6, 3, None),
        ("srcnn-x4", 6, 3, None),
    ]
    plan = prepare(wanted)
    lr, hr = read_pair(plan.store, plan.columns[0], plan.samples, 0)
    sr = resize(lr.float() / 255, (96, 96)).clamp(0, 1).mul(255).round() / 255
    features = [Moments()(x.float()).double().numpy() for x in (sr, hr / 255)]
    expected = kid(features[0], features[1], subset_size=3)
    assert rows[0].kid == pytest.approx(expected.mean, rel=1e-3, abs=1e-7)
    for text in (markdown(results), latex(results), overview(results)):
        assert "encoder.pt (TorchScript)" in text and "input as it is, [0, 1]" in text
    table = markdown(results).partition("## FID and KID")[2].partition("\n## ")[0]
    assert "KID alone is printed" in table and "**" not in table and "<u>" not in table
    # Again without the encoder: what is known of the same images stays; with it nothing is redone.
    assert read_distances(evaluate(replace(wanted, features=None)).document) == rows
    monkeypatch.setattr("wsisr.evaluation.distances.extract", None)
    assert read_distances(evaluate(wanted).document) == rows


def test_fid_is_printed_from_2048_images_on() -> None:
    row = Distance(
        run="net", origin="rescan", scale=4.0, images=2048, kid=0.0123, deviation=0.001,
        subset_size=1000, fid=7.5, encoder="e.onnx (ONNX)", encoder_sha256="0" * 64,
        variant="as it is", key="k",
    )  # fmt: skip
    (table,) = distance_tables({"distances": [row.__dict__]})
    cells = ("rescan", "x4", "net", "2,048", "1,000", "12.300 ± 1.000", "7.500")
    assert table.rows == (cells,) and not any("KID alone" in note for note in table.notes)


def test_an_encoder_that_cannot_serve_is_refused_before_anything_is_scored(
    made: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no program")
    for changes, words in (
        ({"features": tmp_path / "bad.pt"}, "neither a TorchScript nor an ONNX"),
        ({"features": tmp_path / "none.pt"}, "no such file"),
        ({"features": made / "encoder.pt", "limit": 3}, "need 4 images"),
    ):
        with pytest.raises(ConfigError, match=words):
            evaluate(_wanted(made, tmp_path, **changes))
    with pytest.raises(ConfigError, match="give the side of the encoder's input"):
        _wanted(made, tmp_path, features_input="224")
    assert not (tmp_path / "eval/images.csv").exists()


def test_lpips_is_a_column_where_its_weights_are(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    with pytest.raises(ConfigError, match="no such folder"):
        prepare(_wanted(made, tmp_path, weights_dir=folder))
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"completes neither LPIPS nor DISTS.*alexnet"):
        prepare(_wanted(made, tmp_path, weights_dir=folder))
    torch.save(TrunkNet("alex", None).state_dict(), folder / FILES["alexnet"].name)
    heads = {
        f"lin{i}.model.1.weight": torch.full((1, c, 1, 1), 1.0 / c)
        for i, c in enumerate((64, 192, 384, 256, 256))
    }
    torch.save(heads, folder / FILES["lpips-alex"].name)
    plan = prepare(_wanted(made, tmp_path, weights_dir=folder))
    assert plan.settings.metrics == ("lpips-alex",)
    named = plan.scorer.describe(4.0)["lpips_alex"]
    assert named.startswith("lpips-alex[crop=4,uint8,alexnet-owt-7be5be79.pth:")
    lr, hr = read_pair(plan.store, plan.columns[0], plan.samples[:2], 0)
    (score, _) = plan.scorer(hr.double() / 255, hr, 4.0, [])
    assert score["lpips_alex"] == 0.0
    (other, _) = plan.scorer(resize(lr.double() / 255, (96, 96)).clamp(0, 1), hr, 4.0, [])
    assert other["lpips_alex"] > 0.0 and np.isfinite(other["lpips_alex"])
    with pytest.raises(ConfigError, match="needs 31 px a side"):
        plan.scorer.check(32, 2.0)
