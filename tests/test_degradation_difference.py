"""A scanner's profile knows its origin and how sure it is; two of them are compared."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from wsisr_cli.degrade import app

from wsisr.degradation.difference import compare_scanners
from wsisr.degradation.fitting import fit_degradation
from wsisr.degradation.scanner_pairs import FitSettings, RealPair
from wsisr.degradation.uncertainty import centroid_errors, jackknife, mean_gain
from wsisr.errors import DegradationError
from wsisr.testing.degradations import make_scanner, scan

QUICK = FitSettings(half_px=10, crop_px=48, evaluations=60, free_taps=False, jpeg=None)


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same scanner twice, from other pairs, and one that is softer and of other colour."""
    folder = tmp_path_factory.mktemp("profiles")
    truth = make_scanner(0, clean=True, scale=2)
    soft = replace(truth, optics=replace(truth.optics, sigma_px=truth.optics.sigma_px + 1.0))
    made = {}
    for name, scanner, seed in (("a", truth, 3), ("b", truth, 40), ("c", soft, 3)):
        pairs = scan(scanner, 12, seed=seed, lr_px=80)
        if name == "c":
            pairs = [
                replace(p, lr=np.clip(p.lr.astype(int) - 12, 0, 255).astype("u1")) for p in pairs
            ]
        made[name] = folder / f"{name}.json"
        fit_degradation(pairs, QUICK, name=name, origin="rescan").write(made[name])
    return made


def test_a_profile_tells_origin_uncertainty_and_held_out_gain(profiles) -> None:
    report = json.loads(profiles["a"].read_text())["report"]
    assert report["origin"] == "rescan"
    assert report["scale"] == 2
    assert report["held_out_pairs"] == 4
    assert 0 < report["uncertainty"]["width_px"] < 0.2
    assert report["gain_db"] == pytest.approx(
        report["psnr_db"]["fitted"] - report["psnr_db"]["bicubic"], abs=0.01
    )
    assert report["gain_error_db"] > 0


def test_one_scanner_is_not_called_two_and_two_are_told_apart(profiles) -> None:
    same = compare_scanners(profiles["a"], profiles["b"])
    assert not any(row.differs for row in same.rows), same.verdict
    assert "no proof" in same.verdict
    other = compare_scanners(profiles["a"], profiles["c"])
    apart = {row.name for row in other.rows if row.differs}
    assert "width of the kernel, um" in apart
    assert "green of glass, grey levels" in apart
    result = CliRunner().invoke(app, ["compare", str(profiles["a"]), str(profiles["c"])])
    assert result.exit_code == 0
    assert "The scanners differ: width of the kernel" in result.output


def test_planted_scatter_comes_back_as_standard_errors() -> None:
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(40, 3, 40, 40, generator=generator)
    real = torch.nn.functional.avg_pool2d(real, 5, 1, 2) * 100 + 128
    shift = torch.randn(40, generator=generator) * 0.1
    gradient = (real.roll(-1, -1) - real.roll(1, -1)) / 2
    expected = real + shift[:, None, None, None] * gradient
    errors = centroid_errors(expected, real, 4)
    assert errors["centroid_x_px"] == pytest.approx(4 * 0.1 / np.sqrt(40), rel=0.4)
    assert errors["centroid_y_px"] < 0.1 * errors["centroid_x_px"]
    assert np.isnan(centroid_errors(expected[:3], real[:3], 4)["centroid_x_px"])
    values = torch.randn(50, generator=generator)
    found = jackknife(50, lambda kept: {"mean": float(values[kept].mean())})
    assert found["mean"] == pytest.approx(float(values.std()) / np.sqrt(50), rel=0.8)
    assert mean_gain(np.array([3.0, 5.0]), np.array([1.0, 1.0]))[0] == 3.0


def test_what_is_no_profile_is_refused(profiles, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"name": "x", "stages": [{"kind": "bicubic"}]}))
    early = json.loads(profiles["a"].read_text())
    del early["report"]["uncertainty"]
    older = tmp_path / "older.json"
    older.write_text(json.dumps(early))
    for path in (other, older):
        with pytest.raises(DegradationError, match="no fitted scanner with its report"):
            compare_scanners(path, path)


def test_two_scanners_at_one_resolution_can_be_fitted() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(6):
        coarse = torch.as_tensor(rng.normal(0, 60, (1, 3, 80, 80)))
        hr = torch.nn.functional.avg_pool2d(coarse, 3, 1, 1) + 150
        lr = torch.nn.functional.avg_pool2d(hr, 3, 1, 1) - 10
        both = [x[0].permute(1, 2, 0).clamp(0, 255).round().byte().numpy() for x in (lr, hr)]
        pairs.append(RealPair(lr=both[0], hr=both[1], grid_px=(0, 0)))
    profile = fit_degradation(pairs, QUICK, origin="cross-scanner")
    assert profile.report.scale == 1
    assert profile.report.gain_db > 3
