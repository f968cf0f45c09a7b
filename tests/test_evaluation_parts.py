"""Entries, leaks, tasks, published numbers, ceilings and costs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_samples import JPEG, entry, settings, write_run, write_store
from torch import nn

from wsisr.degradation.jpeg import jpeg
from wsisr.errors import ConfigError, ModelError
from wsisr.evaluation.ceilings import _tables_sha256, alignment_ceiling, jpeg_ceiling
from wsisr.evaluation.columns import Sample, plan_columns, read_samples
from wsisr.evaluation.cost import measure, read_costs, write_costs
from wsisr.evaluation.entries import find_entries, refuse_twins
from wsisr.evaluation.leaks import find_leaks, stamps, unknown
from wsisr.evaluation.published import published, published_lines, published_notes
from wsisr.evaluation.scoring import Scorer
from wsisr.evaluation.tasks import Task, against_label, dice, of_image
from wsisr.metrics import psnr
from wsisr.models import create_model
from wsisr.models.cost import model_cost
from wsisr.models.info import ModelInfo
from wsisr.registration.ceiling import luma_power, psnr_ceiling
from wsisr.store import PairStore, open_pairs
from wsisr.store.verify_splits import SlideIdentity


@pytest.fixture(scope="module")
def store(made_once: Callable[..., Path]) -> PairStore:
    folder = made_once("evaluation-parts", lambda path: write_store(path / "pairs.zarr"))
    return open_pairs(folder / "pairs.zarr")


SAMPLE = Sample(
    slide="c", slide_index=2, row=0, patient="patient-c", group="glass-c", label="tumour", hr_px=96
)


def test_runs_are_found_named_or_left_out_with_a_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "runs/b")
    write_run(tmp_path / "runs/a", seed=1)
    (tmp_path / "runs/c").mkdir()
    record = json.loads((tmp_path / "runs/a/run.json").read_text())
    (tmp_path / "runs/c/run.json").write_text(json.dumps(record))
    (tmp_path / "runs/d").mkdir()
    (tmp_path / "runs/d/run.json").write_text('{"format": "wsisr-run", "format_ver')
    entries, failures = find_entries((), tmp_path / "runs")
    assert [e.name for e in entries] == ["bicubic", "a", "b"]
    assert [f.name for f in failures] == ["c", "d"]
    assert "saved no model yet" in failures[0].reason
    assert "run.json cannot be read" in failures[1].reason
    assert entries[1].recipe == entries[2].recipe  # they differ in their seed alone
    named, _ = find_entries(("b", "bicubic", str(tmp_path / "runs/a")), tmp_path / "runs")
    assert [e.name for e in named] == ["bicubic", "b", "a"]
    saved, _ = find_entries((str(tmp_path / "runs/a/best"),), tmp_path / "runs")
    assert (saved[1].name, saved[1].patients) == ("a/best", frozenset({"patient-a"}))
    (tmp_path / "runs/a/best").rename(tmp_path / "alone")
    saved, _ = find_entries((str(tmp_path / "alone"),), tmp_path / "runs")
    assert saved[1].patients is None and unknown(saved) == ("alone",)
    with pytest.raises(ConfigError, match="named 'b'"):
        find_entries(("b", str(tmp_path / "runs/b")), tmp_path / "runs")
    with pytest.raises(ConfigError, match="Two references are named 'b'"):
        refuse_twins(["a", "b", "b"], "references")
    with pytest.raises(ModelError, match="no such run or model folder"):
        find_entries(("edsr",), tmp_path / "runs")


def identity(slide: str = "c", **more: Any) -> SlideIdentity:
    known = {"patient": "patient-c", "group": "glass-c", "fingerprint": "file-c"}
    return SlideIdentity(slide=slide, splits=("test",), **(known | more))


def test_leaks_are_patients_and_glasses_of_the_test() -> None:
    clean = entry("clean")
    person = entry("person", patients=frozenset({"patient-c"}))
    glass = entry("glass", groups=frozenset({"glass-c"}))
    blind = entry("blind", patients=None, groups=None)
    leaks = find_leaks([clean, person, glass, blind], [identity()], "test", "store")
    assert [str(leak) for leak in leaks] == [
        "person was trained on patients patient-c",
        "glass was trained on groups glass-c",
    ]
    own = entry("own", patients=frozenset({"patient-c"}), trained_store="store")
    assert find_leaks([own], [identity()], "val", "store") == ()
    assert len(find_leaks([own], [identity()], "test", "store")) == 1
    assert stamps(leaks=(), declared=False, split="val")[0].startswith("VALIDATION")
    assert stamps(leaks=(), declared=False, split="test") == ()


def test_unknown_patients_are_nobody() -> None:
    seen = entry("net", patients=frozenset({""}), groups=frozenset({""}))
    assert find_leaks([seen], [identity(patient="", group="")], "test", "store") == ()


def test_slides_that_are_called_alike_in_two_stores_leak_by_their_file_alone() -> None:
    case = identity("case0", patient="case0", patient_known=False, group="case0", group_known=False)
    shared = {"patients": ["case0"], "assumed": ["case0"], "groups": []}
    for files, leaks in ((["another"], 0), (["another", "file-c"], 1)):
        run = entry("net")
        run.document.update(shared, files=files)
        assert len(find_leaks([run], [case], "test", "store")) == leaks
    stated = entry("net")
    stated.document.update(shared, assumed=[], files=[])
    assert not find_leaks([stated], [case], "test", "store")
    assert find_leaks([stated], [identity(patient="case0")], "test", "store")


def test_tasks_turn_images_into_numbers() -> None:
    image = np.full((8, 8, 3), 7, np.uint8)
    accuracy = against_label("accuracy", lambda im: "tumour" if im.mean() < 10 else "normal")
    assert accuracy.score(image, SAMPLE) == 1.0
    nameless = Sample(**{**SAMPLE.__dict__, "label": ""})
    assert np.isnan(accuracy.score(image, nameless))
    assert of_image("mean", lambda im: im.mean(), digits=1).score(image, SAMPLE) == 7.0
    assert dice(np.eye(4), np.eye(4)) == 1.0 and dice(np.eye(4), 1 - np.eye(4)) == 0.0
    assert dice(np.zeros((2, 2)), np.zeros((2, 2))) == 1.0
    with pytest.raises(ConfigError):
        dice(np.zeros((2, 2)), np.zeros((3, 2)))
    with pytest.raises(ConfigError, match="lower case"):
        Task(name="Dice!", score=lambda im, s: 0.0)
    with pytest.raises(ConfigError, match="one name"):
        Scorer(("wsisr",), tasks=[of_image("psnr_y", lambda im: 0.0)])


def test_published_numbers_are_those_of_the_papers() -> None:
    found = {(r.paper, r.dataset, r.method, r.scale): (r.psnr_db, r.ssim) for r in published()}
    assert found["MiHATP 2024", "TCGA-COAD", "MiHATP", 4.0] == (26.5634, 0.7834)
    assert found["CWT-Net 2024", "MLCamSR", "Bicubic", 2.0] == (35.247, 0.9427)
    assert found["ISTE 2025", "HistoSR", "ISTE", 5.1] == (23.56, 0.6962)
    assert found["ISTE 2023", "TCGA-lung", "ISTE", 2.0] == (38.28, 0.9748)
    assert found["MASRGAN 2023", "PathImgSR", "MASRGAN", 4.0] == (25.33, 0.6730)
    assert len(found) == len(published()) == 515
    main = [row for row in published() if not row.ablation]
    assert len(main) == 408 and all(15 < r.psnr_db < 50 and 0.2 < r.ssim < 1 for r in main)
    assert found["CWT-Net 2024", "MLCamSR", "CWT-Net: WT loss alone", 2.0] == (9.947, 0.0658)
    assert dict(published_lines({"masrnet"}, [4.0])) == {
        "MASRNet: MASRGAN 2023, PathImgSR": {4.0: (29.52, 0.8066)}
    }
    assert "non-integer" in published_notes({"iste"}, [2.4])[0]
    assert "wavelet branch" in published_notes({"cwtnet"}, [2.0])[0]
    assert published_notes({"iste"}, [2.0]) == ()


def test_the_jpeg_ceiling_is_another_pass_at_the_same_quality(store: PairStore) -> None:
    samples = read_samples(store, "test")
    scorer = Scorer(("wsisr",))
    found = jpeg_ceiling(store, samples, scorer, 4.0)
    assert "Q80 4:2:0, libjpeg's tables nearest to its own" in found.words
    by_slide = []
    for slide in (2, 3):
        values = []
        for row in range(3):
            x, y = (4 - row * 96) % 16, (4 - 5) % 16  # half a block off the file's grid
            hr = torch.from_numpy(store.patch(slide, row, "40x")[y : y + 80, x : x + 80])
            hr = hr.permute(2, 0, 1)[None]
            values.append(float(psnr(jpeg(hr, 80), hr, crop=4)[0]))
        by_slide.append(np.mean(values))
    assert found.scores["psnr_rgb"] == pytest.approx(np.mean(by_slide), abs=1e-9)


def test_a_tables_hash_tells_libjpeg_s_own(monkeypatch: pytest.MonkeyPatch, store) -> None:
    # Of a Philips TIFF whose tables are libjpeg's at quality 70.
    own = "d0c62396d503b2e3dcb603de1c080a7bdeb73e95a3075d711cf1d64674537e43"
    assert _tables_sha256(70) == own
    monkeypatch.setitem(JPEG, "quality", 80)
    assert _tables_sha256(80) != own


def test_what_is_not_known_of_the_compression_is_said(tmp_path: Path) -> None:
    import evaluation_samples

    scorer = Scorer(("wsisr",))
    for number, (how, words) in enumerate(
        [
            (None, "not recorded"),
            ({"codec": "jpeg2000"}, "HR is jpeg2000: there is no JPEG limit"),
            ({**JPEG, "photometric": "rgb"}, "cannot be repeated"),
        ]
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evaluation_samples, "JPEG", how)
            path = write_store(tmp_path / f"{number}.zarr", per_slide=1)
        known = open_pairs(path)
        found = jpeg_ceiling(known, read_samples(known, "test"), scorer, 4.0)
        assert found.scores == {} and words in found.words


def test_the_alignment_ceiling_takes_the_residuals_of_the_tested_pairs(store, tmp_path) -> None:
    samples = read_samples(store, "test")
    columns, _ = plan_columns(store, samples, settings(tmp_path, scales=(2.0, 4.0)))
    found = {(c.origin, c.scale): alignment_ceiling(store, c) for c in columns}
    assert found["simulated:bicubic", 4.0] is None
    assert found["stored-level", 2.0] is None  # no residuals were measured for 20x
    power = luma_power(np.stack([store.patch(s.slide_index, s.row, "40x") for s in samples]))
    residuals = np.array([[-0.1, 0], [0, 0], [0.1, 0]] * 2)
    assert found["stored-level", 4.0] == psnr_ceiling(power, residuals.astype(np.float32))


def test_costs_agree_with_the_shape_only_trace(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("edsr", preset="tiny", scale=4)
    row = measure("net", model, 4.0, 24, 0, "cpu")
    traced = model_cost("edsr", preset="tiny", scale=4, lr_px=24)
    assert row.parameters == traced.parameters and row.gmac == pytest.approx(traced.gmac)
    assert row.parameters_2_20 == pytest.approx(traced.parameters / 2**20)
    implicit = create_model("liif", preset="tiny")
    small = measure("liif", implicit, 2.0, 24, 8, "cpu")
    large = measure("liif", implicit, 2.0, 24, 48, "cpu")
    assert small.peak_mib < large.peak_mib and small.gmac == pytest.approx(large.gmac, rel=1e-3)
    assert implicit.chunk_px == 65_536  # as it was
    write_costs([row, small], tmp_path / "cost.csv")
    again = read_costs(tmp_path / "cost.csv")
    assert again[1].query_px == 8 and again[0].gmac == pytest.approx(row.gmac, rel=1e-5)
    (tmp_path / "cost.csv").write_text("run\nx\n")
    with pytest.raises(ConfigError, match="made again"):
        read_costs(tmp_path / "cost.csv")


@pytest.mark.parametrize("name", ["hat", "mihatp", "swinir"])
def test_attention_counts_on_a_cpu_too(name: str) -> None:
    torch.manual_seed(0)
    row = measure(name, create_model(name, preset="tiny", scale=4), 4.0, 16, 0, "cpu")
    assert row.gmac == pytest.approx(model_cost(name, preset="tiny", scale=4, lr_px=16).gmac)


class _Known(nn.Module):
    """Keeps its input's double, and one more, alive at one time."""

    info = ModelInfo(
        name="known", family="test", preset="tiny", kind="fixed", scale=1, scale_range=(1.0, 1.0),
        halo_px=0, tile_px=64, citation="",
    )  # fmt: skip
    parameter_count = 0

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        first = lr * 2
        second = first + 1
        del first
        return second * 3


def test_peak_memory_counts_what_lives_together() -> None:
    row = measure("known", _Known(), 1.0, 64, 0, "cpu")  # type: ignore[arg-type]
    assert row.peak_mib == pytest.approx(2 * 3 * 64 * 64 * 4 / 2**20)
