"""Degradations on stores and files: arrays in, pairs out, and the command line."""

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner
from wsisr_cli.degrade import app

from wsisr.degradation import degrade, stores
from wsisr.degradation.apply import Simulation
from wsisr.degradation.comparison import compare_with_native, noise_level
from wsisr.degradation.files import degrade_image
from wsisr.degradation.scanner_pairs import FitSettings
from wsisr.degradation.stores import (
    PairSelection,
    SimulatedArray,
    degrade_store,
    fit_store,
    registered_pairs,
)
from wsisr.errors import DegradationError, DiskFullError, LockedError, StoreError
from wsisr.locks import held
from wsisr.store import ArraySpec, StoreWriter, open_pairs, verify_store
from wsisr.testing.degradations import make_scanner, scan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of one scanner: HR 384 px at 40x, rescanned LR 96 px at 10x."""
    path = tmp_path_factory.mktemp("store") / "pairs.zarr"
    writer = StoreWriter.create(
        path,
        {
            "created_with": {"wsisr": "0"},
            "manifest": {"name": "test"},
            "manifest_sha256": "0" * 64,
            "magnifications": ["40x", "10x"],
            "slides": ["a", "b"],
        },
    )
    truth = make_scanner(1)
    specs = [
        ArraySpec(name="40x", size_px=384, um_per_px=0.25),
        ArraySpec(name="10x", size_px=96, factor=4.0, origin="rescan", um_per_px=1.0),
    ]
    for seed, slide in enumerate(("a", "b")):
        pairs = scan(truth, 3, seed=seed, lr_px=96)
        with writer.slide(slide, specs) as out:
            out.append(
                {"40x": np.stack([p.hr for p in pairs]), "10x": np.stack([p.lr for p in pairs])}
            )
            out.finish(
                {
                    "x": np.arange(3),
                    "y": np.arange(3),
                    "residual_x_10x": np.array([p.residual_px[0] for p in pairs]),
                    "residual_y_10x": np.array([p.residual_px[1] for p in pairs]),
                    "kept": np.array([True, slide == "a", True]),
                },
                np.ones((2, 2), np.uint8),
                {
                    "source": slide,
                    "fingerprint": slide,
                    "mpp": {"value": 0.25},
                    "patient": slide,
                    "split": "train" if slide == "a" else "test",
                },
            )
    writer.commit_splits(
        {"train": np.array([[0, 0], [0, 1], [0, 2]]), "test": np.array([[1, 0], [1, 2]])}
    )
    writer.clean()
    return path


def test_registered_pairs_come_from_one_split_with_their_residuals(store: Path) -> None:
    opened = open_pairs(store)
    pairs = list(registered_pairs(opened))
    assert len(pairs) == 3 and pairs[0].scale == 4 and pairs[0].grid_px is None
    truth = scan(make_scanner(1), 3, seed=0, lr_px=96)
    assert pairs[2].residual_px == pytest.approx(truth[2].residual_px, abs=1e-6)
    assert np.array_equal(pairs[2].lr, truth[2].lr)
    assert len(list(registered_pairs(opened, PairSelection(limit=2)))) == 2
    assert len(list(registered_pairs(opened, PairSelection(split="test")))) == 2
    with pytest.raises(DegradationError, match="no array"):
        list(registered_pairs(opened, PairSelection(lr="5x")))


def test_a_simulated_array_joins_a_copy_of_the_store(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "more.zarr"
    spec = "optics:na=0.25..0.4+sensor+jpeg"
    name = degrade_store(store, target, SimulatedArray.of(spec, 4, seed=7, name="10x-sim"))
    made, source = open_pairs(target), open_pairs(store)
    assert verify_store(target).ok
    view = made.slides["b"]
    assert view.arrays == ("40x", "10x", "10x-sim")
    array = view.spec(name)
    assert array.origin == f"simulated:{spec}" and not array.native and array.factor == 4.0
    assert array.extra["seed"] == 7 and array.extra["scale"] == 4.0
    hr = torch.as_tensor(made.patch("b", 2, "40x")).permute(2, 0, 1)
    again = degrade(hr, array.extra["degradation"], 4, seed=7, slots=[(1 << 32) + 2])
    assert np.array_equal(made.patch("b", 2, name), again.permute(1, 2, 0).numpy())
    for old in ("40x", "10x"):
        assert np.array_equal(made.patch("a", 1, old), source.patch("a", 1, old))
    assert np.array_equal(made.split("train"), source.split("train"))
    assert np.array_equal(made.table()["residual_x_10x"], source.table()["residual_x_10x"])
    with pytest.raises(DegradationError, match="made by software"):
        list(registered_pairs(made, PairSelection(lr=name)))


def test_stores_refuse_what_does_not_fit(store: Path, tmp_path: Path) -> None:
    with pytest.raises(DegradationError, match="do not divide"):
        degrade_store(store, tmp_path / "x.zarr", SimulatedArray.of("bicubic", 5.1))
    with pytest.raises(DegradationError, match="already has"):
        degrade_store(store, tmp_path / "y.zarr", SimulatedArray.of("bicubic", 4, name="10x"))


def test_a_store_made_since_the_first_look_is_not_replaced(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real = tmp_path / "x.zarr", stores.BuildLock

    def late(path: Path, **more: Any) -> Any:
        shutil.copytree(store, path)
        return real(path, **more)

    monkeypatch.setattr(stores, "BuildLock", late)
    with pytest.raises(StoreError, match="exists already; add --overwrite"):
        degrade_store(store, target, SimulatedArray.of("bicubic", 4, name="5x"))
    assert "5x" not in open_pairs(target).arrays
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_a_scanner_is_fitted_from_a_store(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "scanner.json"
    quick = FitSettings(half_px=7, crop_px=32, evaluations=20, free_taps=False)
    profile = fit_store(store, output, settings=quick)
    assert profile.report.gain_db > 3.0
    assert output.is_file() and (tmp_path / "scanner.kernel.png").is_file()
    assert json.loads(output.read_text())["report"]["pairs"] == 2


def test_comparison_ranks_the_true_simulation_first() -> None:
    truth = make_scanner(1)
    optics = truth.optics
    true = (
        f"optics:na={optics.na},defocus_um={optics.defocus_um},sigma_px={optics.sigma_px}"
        f"+jpeg:quality={truth.quality}"
    )
    result = compare_with_native(scan(truth, 3, seed=2, lr_px=64), ["bicubic", "iste", true])
    names = [row.name for row in result.rows]
    assert names == ["native", "bicubic", "iste", true]
    toned = [row.toned_psnr_db for row in result.rows]
    assert toned[3] > toned[2] > toned[1]
    assert result.rows[0].mtf_quarter == 1.0 and result.rows[1].mtf_quarter > 1.2
    assert result.markdown().count("\n") == 5


def test_comparison_draws_a_picture(tmp_path: Path) -> None:
    result = compare_with_native(scan(make_scanner(0), 1, seed=2, lr_px=32), ["area"])
    result.write_picture(tmp_path / "grid.png", magnify=2)
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (2 * (64 + 8), 64 + 8)
    with pytest.raises(DegradationError, match="no pairs"):
        compare_with_native([], ["area"])
    small = scan(make_scanner(0), 1, seed=2, lr_px=18)
    with pytest.raises(DegradationError, match="18 x 18 px are too small to be compared; 19 px"):
        compare_with_native(small, ["area"])


def test_noise_level_measures_white_noise() -> None:
    noise = np.random.default_rng(0).normal(150, 3, (2, 3, 128, 128))
    grey = torch.as_tensor(np.clip(np.rint(noise), 0, 255).astype(np.uint8))
    weights = np.array((65.481, 128.553, 24.966)) / 255
    assert noise_level(grey) == pytest.approx(3 * np.sqrt((weights**2).sum()), rel=0.15)


def test_image_files_carry_their_parameters(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    source, target = tmp_path / "hr.png", tmp_path / "lr.png"
    Image.fromarray(image).save(source)
    record = degrade_image(source, target, Simulation.of("iste", 3.3, seed=3))
    content = json.loads(record.read_text())
    assert content["scale"] == 3.3 and content["degradation"]["stages"][0]["kind"] == "iste"
    wanted = degrade(torch.as_tensor(image).permute(2, 0, 1), content["degradation"], 3.3, seed=3)
    assert torch.equal(torch.as_tensor(np.asarray(Image.open(target))).permute(2, 0, 1), wanted)
    with pytest.raises(DegradationError, match="exists already"):
        degrade_image(source, target, Simulation.of("iste", 2))
    with pytest.raises(DegradationError, match="lossy"):
        degrade_image(source, tmp_path / "lr.jpg", Simulation.of("iste", 2))
    with pytest.raises(DegradationError, match="no such image"):
        degrade_image(tmp_path / "none.png", tmp_path / "b.png", Simulation.of("iste", 2))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DegradationError, match="no image that can be read"):
        degrade_image(tmp_path / "text.png", tmp_path / "b.png", Simulation.of("iste", 2))


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    source, target = tmp_path / "clear.png", tmp_path / "lr.png"
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(source)
    degrade_image(source, target, Simulation.of("area", 2))
    assert (np.asarray(Image.open(target)) == 255).all()


def test_command_line(store: Path, tmp_path: Path) -> None:
    run = CliRunner()
    listed = run.invoke(app, ["list"])
    assert listed.exit_code == 0 and "realesrgan2:mild" in listed.output
    shown = run.invoke(app, ["show", "optics:na=0.3+jpeg", "--json"])
    assert json.loads(shown.output)["stages"][1]["kind"] == "jpeg"
    target = str(tmp_path / "cli.zarr")
    made = run.invoke(app, ["apply", str(store), "--kind", "area", "--scale", "2", "-o", target])
    assert made.exit_code == 0 and open_pairs(target).arrays == ("40x", "10x", "x2-area")
    compared = run.invoke(app, ["compare", str(store), "--kinds", "bicubic area", "--pairs", "1"])
    assert compared.exit_code == 0 and "| bicubic |" in compared.output


def test_a_degraded_picture_is_written_alone_whole_and_with_its_resolution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", dpi=(101_600, 101_600))
    out = tmp_path / "lr.png"
    (tmp_path / "lr.png.json").write_text("{}")  # as a kill between record and picture leaves it
    with held(tmp_path / "lr.png.partial.lock", out, "degrade apply"), pytest.raises(LockedError):
        degrade_image(tmp_path / "a.png", out, Simulation.of("area", 2))
    record = json.loads(
        degrade_image(tmp_path / "a.png", out, Simulation.of("area", 2)).read_text()
    )
    assert record["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    with Image.open(out) as image:
        assert image.info["dpi"] == pytest.approx((50_800, 50_800), rel=1e-4)
    with pytest.raises(DegradationError, match="exists already"):
        degrade_image(tmp_path / "a.png", out, Simulation.of("area", 2))
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == out.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    before = out.read_bytes(), out.with_name("lr.png.json").read_bytes()
    with pytest.raises(DiskFullError, match="make room"):
        degrade_image(tmp_path / "a.png", out, Simulation.of("bicubic", 2), overwrite=True)
    assert (out.read_bytes(), out.with_name("lr.png.json").read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "lr.png", "lr.png.json"]
