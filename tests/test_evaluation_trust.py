"""A run calibrated by patient, the mask of an output that it made, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_samples import write_run
from training_samples import make_store
from typer.testing import CliRunner
from upscaling_samples import slide_file
from wsisr_cli.main import app

from wsisr.errors import ConfigError
from wsisr.evaluation.trust import TrustRequest, calibrate
from wsisr.inference.engine import WindowBatch
from wsisr.inference.loading import load_network
from wsisr.inference.tiles import plan_frame, plan_tiles, window_rows
from wsisr.inference.trained import open_run
from wsisr.inference.trust import doubt_of, read_calibration
from wsisr.models import load_model, save_model
from wsisr.store import open_pairs
from wsisr.upscaling import UpscaleOptions, upscale_slide
from wsisr.upscaling.audit import AuditRequest, audit
from wsisr.upscaling.audit.findings import read_maps

PATIENTS = "abcdefghij"
LOOSE = 0.6
"""Optical density: the networks here have not been trained."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten validation patients, one training patient, and a run on them."""
    folder = tmp_path_factory.mktemp("trust")
    splits = dict.fromkeys(PATIENTS, "val") | {"k": "train"}
    store = make_store(folder / "pairs.zarr", factors=(2,), splits=splits, count=1, hr_px=128)
    write_run(
        folder / "run",
        "srcnn",
        scale=2,
        origin="simulated:bicubic",
        patients=[f"patient {name}" for name in splits],
        store_digest=open_pairs(store).content_digest(),
    )
    shake(folder / "run")
    return folder


def shake(run: Path, by: float = 0.03) -> None:
    """Weights at random, as they start, are nearly bicubic and have no doubt."""
    net, draws = load_model(run / "best"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in net.parameters():
            value += by * torch.randn(value.shape, generator=draws)
    save_model(net, run / "best", extra={"run": run.name})


def request(work: Path, **changes: object) -> TrustRequest:
    known = {"run": work / "run", "data": work / "pairs.zarr", "bound_od": LOOSE, "device": "cpu"}
    return TrustRequest(**(known | changes))  # type: ignore[arg-type]


def test_the_spread_is_the_deviation_of_the_eight_answers(work: Path) -> None:
    trained = open_run(work / "run")
    lr = np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)
    spread = load_network(trained, device="cpu", symmetries="spread")
    plain = load_network(trained, device="cpu")
    answers = []
    for turn in range(8):
        turned = np.rot90(lr, turn % 4)
        turned = turned[:, ::-1] if turn >= 4 else turned
        turned = np.ascontiguousarray(turned)
        frame = plan_frame(turned.shape[1], turned.shape[0], 2.0)
        (row,) = window_rows(frame, frame.region, plan_tiles(plain.needs, 2.0))
        with torch.inference_mode():
            batch = WindowBatch(frame=frame, windows=row, lr=[turned])
            made = plain.run(batch)[0].permute(1, 2, 0).numpy()
        made = made[:, ::-1] if turn >= 4 else made
        answers.append(np.rot90(made, -(turn % 4)))
    wanted = np.clip(np.std(answers, axis=0) * 255, 0, 255).mean(axis=2)
    assert wanted.max() > 1
    np.testing.assert_allclose(doubt_of(spread, lr, 2.0), wanted, atol=0.01)


def test_a_calibration_says_what_it_promises_and_belongs_to_its_weights(work: Path) -> None:
    result = calibrate(request(work, alpha=0.2))
    found = read_calibration(work / "run")
    assert found == result.calibration and result.path.name == "trust.json"
    assert (found.patients, found.places) == (10, 10 * 2 * 2)
    assert found.smallest_alpha == pytest.approx(1 / 11) and found.lr_origin == "simulated:bicubic"
    assert found.um_per_px == pytest.approx(0.5)
    # The bound of conformal risk control, for these patients themselves.
    assert (10 * found.loss + 1) / 11 <= 0.2 + 1e-9
    assert found.left_out_loss is not None and found.left_out_loss <= 0.2
    text = result.text()
    assert "at most 0.2" in text and "10 patients" in text and "unit: the patient" in text
    assert "Each patient left out" in text and found.data_digest[:16] in text
    written = (work / "run/trust.json").read_text()
    assert "patient a" not in written and str(work) not in written


def test_too_few_patients_and_others_that_promise_nothing_are_refused(
    work: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"takes 19.*--alpha 0\.091"):
        calibrate(request(work, alpha=0.05))
    with pytest.raises(ConfigError, match="never on train"):
        calibrate(request(work, split="train"))
    with pytest.raises(ConfigError, match="no doubt of its own"):
        calibrate(request(work, run=Path("bicubic")))
    with pytest.raises(ConfigError, match="No place can be trusted"):
        calibrate(request(work, alpha=0.1, bound_od=1e-6))
    with pytest.raises(ConfigError, match="give --data"):
        calibrate(request(work, data=None))
    other = make_store(
        tmp_path / "other.zarr", factors=(2,), splits=dict.fromkeys("abcdefghil", "val"), count=1
    )
    with pytest.raises(ConfigError, match="9 of 10 patients were seen"):
        calibrate(request(work, data=other))
    with pytest.raises(ConfigError, match="x2"):
        calibrate(request(work, scale=4.0))
    with pytest.raises(ConfigError, match="is not calibrated"):
        read_calibration(tmp_path)


def test_the_mask_is_a_channel_pieces_and_a_sentence(work: Path, tmp_path: Path) -> None:
    calibrate(request(work, alpha=0.2))
    source, out = slide_file(tmp_path / "s.tiff", 200, 160), tmp_path / "o.ome.tiff"
    run = load_network(open_run(work / "run"), device="cpu")
    upscale_slide(source, out, run, UpscaleOptions(compression="deflate", threads=1, mask=False))
    asked = AuditRequest(
        output=out, lr=source, trust=work / "run", degradation="bicubic", device="cpu"
    )
    result = audit(asked)
    maps = read_maps(result.folder)
    threshold = read_calibration(work / "run").threshold
    judged = ~np.isnan(maps["trusted"])
    assert judged.any()
    np.testing.assert_array_equal(maps["trusted"][judged] == 1, maps["doubt"][judged] <= threshold)
    text = result.text()
    assert "Trusted: " in text and "The promise: expected share" in text
    document = json.loads((result.folder / "audit.json").read_text())
    assert document["trust"]["alpha"] == 0.2
    features = json.loads((result.folder / "suspect.geojson").read_text())["features"]
    names = {f["properties"]["classification"]["name"] for f in features}
    assert ("Not trusted" in names) == bool((maps["trusted"] == 0).any())

    # Another input, other weights, other resolution: nothing is promised.
    for changes, words in (
        ({"degradation": "area"}, "looks like area, not bicubic"),
        ({"mpp": 1.0}, r"1 um/px, not 0\.5"),
    ):
        with pytest.raises(ConfigError, match=words):
            audit(AuditRequest(**{**vars(asked), **changes}))
    other = tmp_path / "other"
    shutil.copytree(work / "run", other)
    write_run(other, "srcnn", scale=2, seed=5, origin="simulated:bicubic")
    with pytest.raises(ConfigError, match="weights have changed"):
        audit(AuditRequest(**{**vars(asked), "trust": other}))
    plain = tmp_path / "plain.ome.tiff"
    upscale_slide(source, plain, load_bicubic(), UpscaleOptions(scale=2.0, threads=1))
    with pytest.raises(ConfigError, match="does not say by which"):
        audit(AuditRequest(**{**vars(asked), "output": plain}))


def load_bicubic() -> object:
    from wsisr.inference import load

    return load("bicubic")


def test_the_command_calibrates_a_run_and_asks_for_the_input_of_an_output(work: Path) -> None:
    line = ["audit", str(work / "run"), "--data", str(work / "pairs.zarr"), "--alpha", "0.2"]
    done = CliRunner().invoke(app, [*line, "--bound", str(LOOSE), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert "Promise: expected share of places" in done.output and "trust.json" in done.output
    done = CliRunner().invoke(app, ["audit", str(work / "pairs.zarr")])
    assert isinstance(done.exception, ConfigError) and "say --lr" in str(done.exception)
