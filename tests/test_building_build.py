"""A build from slides to a verified store: truth, restarts, workers, parts, faults."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from wsisr import open_pairs
from wsisr.building import (
    BuildRequest,
    BuildSummary,
    build_pairs,
    prepare,
    state,
)
from wsisr.building import extract as extraction
from wsisr.building.state import RULES
from wsisr.drawing.overlays import PATCH, REFUSED
from wsisr.errors import BuildError, DiskFullError, StoreError
from wsisr.runners import ProcessRunner, Runner, SerialRunner
from wsisr.slides import open_slide
from wsisr.store import verify_store
from wsisr.testing import SlideSpec, write_slide
from wsisr.testing.camelyon import load_truths

Digest = Callable[[Path], str]

SMALL: dict[str, Any] = {
    "size": 256,
    "registration.region_px": 282,
    "quotas": {"train": {"normal": 40, "tumor": 20}, "test": {"normal": 12, "tumor": 8}},
}
"""PathImgSR with small patches, so that small slides give dozens."""
FEW: dict[str, Any] = {"hr": "20x", "lr": "10x", "size": 128}
"""For slides of a thousand pixels."""


def build(
    source: Path,
    output: Path,
    overrides: dict[str, Any] | None = None,
    runner: Runner | None = None,
    **more: Any,
) -> BuildSummary:
    request = BuildRequest(
        source=source, output=output, overrides=SMALL if overrides is None else overrides, **more
    )
    summary = build_pairs(prepare(request), runner=runner or SerialRunner())
    assert isinstance(summary, BuildSummary)
    return summary


def small_slide(path: Path, seed: int) -> None:
    spec = SlideSpec(seed=seed, layout="generic", width_px=1024, height_px=1024, um_per_px=0.5)
    write_slide(path, spec)


@pytest.fixture(scope="module")
def small_slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides of a few patches, for tests that build several times or start processes."""
    folder = tmp_path_factory.mktemp("small")
    for seed in range(3, 6):
        small_slide(folder / f"case_{seed}.tif", seed)
    return folder


@pytest.fixture(scope="module")
def small_reference(small_slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("small-reference") / "pairs.zarr"
    build(small_slides, store, FEW, manifest="default")
    return store


@pytest.fixture(scope="module")
def reference(
    small_camelyon: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, BuildSummary]:
    store = tmp_path_factory.mktemp("reference") / "pairs.zarr"
    return store, build(small_camelyon, store)


def test_every_planted_shift_is_found_to_the_pixel(
    reference: tuple[Path, BuildSummary], small_camelyon: Path
) -> None:
    store = open_pairs(reference[0])
    truths = load_truths(small_camelyon)
    assert len(store.slides) == 6
    for slide_id in store.slides:
        table = store.table(slide_id)
        shift = next(v.shift for v in truths[slide_id].levels if v.factor == 4)
        assert table.rows > 0
        assert set(table["offset_x"].tolist()) == {13 + int(shift.x_px)}
        assert set(table["offset_y"].tolist()) == {13 + int(shift.y_px)}
        assert np.abs(table["residual_x"]).max() < 0.1


def test_pixels_are_the_files_own(
    reference: tuple[Path, BuildSummary], small_camelyon: Path
) -> None:
    store = open_pairs(reference[0])
    for slide_id in list(store.slides)[:3]:
        table = store.table(slide_id)
        with open_slide(small_camelyon / f"{slide_id}.tif") as slide:
            for row in range(min(4, table.rows)):
                x = int(table["x"][row] - 13 + table["offset_x"][row])
                y = int(table["y"][row] - 13 + table["offset_y"][row])
                stored = int(table["row"][row])
                hr = store.patch(slide_id, stored, "40x")
                lr = store.patch(slide_id, stored, "10x")
                assert np.array_equal(hr, slide.read_level(0, x, y, 256, 256))
                lx, ly = int(table["x"][row]) // 4, int(table["y"][row]) // 4
                assert np.array_equal(lr, slide.read_level(2, lx, ly, 64, 64))


def test_kept_patches_are_what_the_truth_allows(
    reference: tuple[Path, BuildSummary], small_camelyon: Path
) -> None:
    store = open_pairs(reference[0])
    truths = load_truths(small_camelyon)
    for slide_id in store.slides:
        table = store.table(slide_id)
        boxes = np.stack([table["x"] - 13, table["y"] - 13], axis=1)
        boxes = np.concatenate([boxes, np.full_like(boxes, 282)], axis=1)
        tumour = truths[slide_id].tumour_fraction(boxes)
        named = np.array(table.names("label"))
        assert (tumour[named == "tumor"] > 0.8).all()
        assert (tumour[named == "normal"] < 0.2).all()
        # Fat is tissue to the mask. It is drawn at 8 um/px: border pixels may fall either way.
        filled = truths[slide_id].tissue_mask(4 * 0.243, fill_holes=True)
        for x, y, width, height in (boxes // 4).tolist():
            assert filled[y : y + height, x : x + width].mean() > 0.75


def test_official_splits_quotas_and_summary(reference: tuple[Path, BuildSummary]) -> None:
    path, summary = reference
    store = open_pairs(path)
    assert {s: v.attributes["split"] for s, v in store.slides.items() if s[:4] == "test"} == {
        "test_001": "test",
        "test_002": "test",
    }
    assert summary.exit_code == 0
    test = store.split("test")
    labels = [store.slides[store.attributes["slides"][i]].column("label")[r] for i, r in test]
    assert labels.count(0) <= 12
    assert labels.count(1) <= 8
    text = (summary.report / "summary.md").read_text()
    assert "CAMELYON16 in the flat layout" in text
    assert "tumor_001" in text
    assert (summary.report / "failures.csv").read_text().count("\n") == 1


def test_a_fresh_store_verifies(reference: tuple[Path, BuildSummary]) -> None:
    report = verify_store(reference[0])
    assert report.ok, [finding.text for finding in report.findings]


def test_nothing_but_the_store_and_the_report_is_left(
    reference: tuple[Path, BuildSummary],
) -> None:
    assert sorted(p.name for p in reference[0].parent.iterdir()) == ["pairs.report", "pairs.zarr"]


class Shuffled(SerialRunner):
    """Slides in another order, as a scheduler might have them."""

    def __call__(self, function: Any, tasks: Any) -> Any:
        order = list(tasks)
        random.Random(3).shuffle(order)
        return super().__call__(function, order)


def test_order_does_not_change_a_byte(
    reference: tuple[Path, BuildSummary],
    small_camelyon: Path,
    tmp_path: Path,
    tree_digest: Digest,
) -> None:
    build(small_camelyon, tmp_path / "pairs.zarr", runner=Shuffled())
    assert tree_digest(tmp_path / "pairs.zarr") == tree_digest(reference[0])
    assert tree_digest(tmp_path / "pairs.report") == tree_digest(reference[1].report)


def test_workers_do_not_change_a_byte(
    small_reference: Path, small_slides: Path, tmp_path: Path, tree_digest: Digest
) -> None:
    store = tmp_path / "pairs.zarr"
    build(small_slides, store, FEW, ProcessRunner(workers=2), manifest="default")
    assert tree_digest(store) == tree_digest(small_reference)
    report = small_reference.with_name("pairs.report")
    assert tree_digest(tmp_path / "pairs.report") == tree_digest(report)


def run_cli(source: Path, store: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "wsisr_cli", "build-pairs", str(source), "-o", str(store)]
    command += ["--hr", "20x", "--lr", "10x", "--size", "128", "--manifest", "default"]
    return subprocess.Popen(
        [*command, "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_kill_9_at_any_moment_and_a_rerun_give_the_same_bytes(
    small_reference: Path, small_slides: Path, tmp_path: Path, tree_digest: Digest
) -> None:
    store = tmp_path / "killed.zarr"
    # Between scans, and between slides; tests/crash has all the moments between.
    for seen in ("killed.zarr.partial/scan/*.json", "killed.zarr/slides/*/zarr.json"):
        process = run_cli(small_slides, store)
        while process.poll() is None and not list(tmp_path.glob(seen)):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run_cli(small_slides, store).wait() == 0
    assert tree_digest(store) == tree_digest(small_reference)
    assert len(open_pairs(store).slides) == 3
    assert not store.with_name("killed.zarr.partial").exists()


def test_ctrl_c_leaves_a_store_that_goes_on(small_slides: Path, tmp_path: Path) -> None:
    store = tmp_path / "pairs.zarr"
    process = run_cli(small_slides, store)
    while process.poll() is None and not list(tmp_path.glob("pairs.zarr.partial/scan/*.json")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130
    assert b"run the same command again" in told
    assert b"Traceback" not in told
    assert run_cli(small_slides, store).wait() == 0
    assert verify_store(store).ok


def test_a_full_disk_is_one_clear_error_and_the_store_goes_on(
    small_reference: Path,
    small_slides: Path,
    tmp_path: Path,
    tree_digest: Digest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = {"left": 3}
    real = extraction._extract_batch

    def filling(*arguments: Any) -> None:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise DiskFullError("the disk is full; make room and run the same command again")
        real(*arguments)

    monkeypatch.setattr(extraction, "_extract_batch", filling)
    with pytest.raises(DiskFullError, match="same command again"):
        build(small_slides, tmp_path / "pairs.zarr", FEW, manifest="default")
    assert len(open_pairs(tmp_path / "pairs.zarr").slides) == 2
    monkeypatch.undo()
    build(small_slides, tmp_path / "pairs.zarr", FEW, manifest="default")
    assert tree_digest(tmp_path / "pairs.zarr") == tree_digest(small_reference)


def test_bad_slides_are_rows_and_the_rest_is_built(small_camelyon: Path, tmp_path: Path) -> None:
    source = tmp_path / "study"
    source.mkdir()
    for name in ("normal_001", "tumor_001", "test_001"):
        shutil.copy(small_camelyon / f"{name}.tif", source)
    (source / "normal_002.tif").write_bytes(b"not a slide at all")
    whole = (small_camelyon / "normal_002.tif").read_bytes()
    (source / "normal_003.tif").write_bytes(whole[: len(whole) // 3])
    (source / "tumor_001.xml").write_text("<ASAP_Annotations><broken")
    summary = build(source, tmp_path / "pairs.zarr")
    assert summary.exit_code == 1
    found = {failure.slide_id: failure.error for failure in summary.failures}
    assert set(found) == {"normal_002", "normal_003", "tumor_001"}
    assert all(
        "Traceback" not in text and text.strip().endswith((".", ")")) for text in found.values()
    )
    assert sorted(open_pairs(tmp_path / "pairs.zarr").slides) == ["normal_001", "test_001"]
    shutil.copy(small_camelyon / "normal_002.tif", source)
    again = build(source, tmp_path / "pairs.zarr")
    assert {failure.slide_id for failure in again.failures} == {"normal_003", "tumor_001"}
    assert verify_store(tmp_path / "pairs.zarr").ok


def test_new_slides_append_and_old_ones_do_not_move(small_slides: Path, tmp_path: Path) -> None:
    source = tmp_path / "study"
    source.mkdir()
    overrides = {**FEW, "split.exact": True}
    for path in small_slides.iterdir():
        shutil.copy(path, source)
    small_slide(source / "case_6.tif", 6)
    build(source, tmp_path / "pairs.zarr", overrides)
    before = {
        slide_id: (view.attributes["split"], view.attributes["digest"])
        for slide_id, view in open_pairs(tmp_path / "pairs.zarr").slides.items()
    }
    for seed in (7, 8):
        small_slide(source / f"added_{seed}.tif", seed)
    build(source, tmp_path / "pairs.zarr", overrides)
    after = {
        slide_id: (view.attributes["split"], view.attributes["digest"])
        for slide_id, view in open_pairs(tmp_path / "pairs.zarr").slides.items()
    }
    assert len(after) == 6
    assert {slide_id: after[slide_id] for slide_id in before} == before
    assert verify_store(tmp_path / "pairs.zarr").ok


def test_another_manifest_is_refused_and_overwrite_replaces(
    small_slides: Path, tmp_path: Path
) -> None:
    store = tmp_path / "pairs.zarr"
    overrides, others = FEW, {**FEW, "size": 64}
    build(small_slides, store, overrides, manifest="default")
    with pytest.raises(StoreError, match="another manifest"):
        build(small_slides, store, others, manifest="default")
    with pytest.raises(BuildError, match="--codec raw"):
        build(small_slides, store, overrides, manifest="default", codec="small")
    build(small_slides, store, others, manifest="default", overwrite=True)
    assert open_pairs(store).reader("case_3", "20x").shape[1] == 64


def test_no_usable_slide_makes_no_store(tmp_path: Path) -> None:
    source = tmp_path / "study"
    source.mkdir()
    (source / "a.svs").write_bytes(b"nothing")
    summary = build(source, tmp_path / "pairs.zarr", {})
    assert summary.exit_code == 2
    assert not (tmp_path / "pairs.zarr").exists()
    assert not (tmp_path / "pairs.zarr.partial").exists()
    with pytest.raises(BuildError, match="no such file"):
        prepare(BuildRequest(source=tmp_path / "nowhere", overrides={}))


def test_a_changed_file_is_scanned_again(small_camelyon: Path, tmp_path: Path) -> None:
    """A slide that is replaced between its scan and its extraction is not cut by old places."""
    source = tmp_path / "study"
    source.mkdir()
    shutil.copy(small_camelyon / "normal_001.tif", source / "a.tif")
    overrides = {"size": 256, "lr": "10x"}
    prepared = prepare(
        BuildRequest(source=source, output=tmp_path / "p.zarr", overrides=overrides, part=(1, 1))
    )
    from wsisr.building.phases import scan

    scan(prepared, prepared.tasks, set(), SerialRunner(), lambda event: None)
    first = json.loads((prepared.scans / "a.json").read_text())["identity"]
    shutil.copy(small_camelyon / "normal_002.tif", source / "a.tif")
    build(source, tmp_path / "p.zarr", overrides)
    store = open_pairs(tmp_path / "p.zarr")
    with open_slide(source / "a.tif") as slide:
        assert store.slides["a"].attributes["fingerprint"] == slide.info.fingerprint
    assert first


def test_a_replaced_file_and_a_store_of_older_rules_are_refused_by_name(
    small_camelyon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = tmp_path / "study", tmp_path / "p.zarr"
    source.mkdir()
    for name in ("normal_001", "tumor_001"):
        shutil.copy(small_camelyon / f"{name}.tif", source)
    overrides = {"size": 512, "lr": "10x", "registration.method": "none"}
    build(source, store, overrides, manifest="default")
    build(source, store, overrides, manifest="default")
    assert open_pairs(store).attributes["rules"] == RULES
    assert open_pairs(store).table("tumor_001").rows == open_pairs(store).table(1).rows > 0
    whole = (source / "tumor_001.tif").read_bytes()
    shutil.copy(small_camelyon / "tumor_002.tif", source / "tumor_001.tif")
    with pytest.raises(BuildError, match=r"1 file\(s\).*are not those.*: tumor_001\.tif\. Put"):
        build(source, store, overrides, manifest="default")
    (source / "tumor_001.tif").write_bytes(whole)
    monkeypatch.setattr(state, "RULES", RULES + 1)
    with pytest.raises(BuildError, match=rf"built by rules {RULES} .*--overwrite"):
        build(source, store, overrides, manifest="default")
    assert verify_store(store).ok


def test_slides_that_give_nothing_are_named_with_the_rule_and_its_numbers(tmp_path: Path) -> None:
    source = tmp_path / "study"
    source.mkdir()
    rng = np.random.default_rng(1)
    glass = np.full((512, 512, 3), 243, np.uint8)
    piece = glass.copy()
    piece[100:500, 100:500] = np.clip(rng.normal((150, 90, 160), 40, (400, 400, 3)), 0, 255)
    given: dict[str, Any] = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    given |= {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    for name, pixels in (("blank", glass), ("piece", piece)):
        tifffile.imwrite(source / f"{name}.tif", pixels, **given)
    summary = build(source, tmp_path / "p.zarr", {"size": 256, "lr": "10x"}, manifest="default")
    assert summary.exit_code == 2
    assert {f.slide_id: f.kind for f in summary.failures} == {
        "blank": "Nothing",
        "piece": "Nothing",
    }
    errors = {failure.slide_id: failure.error for failure in summary.failures}
    assert errors["blank"] == "no tissue was found."
    assert "has 0.0" in errors["piece"] and "the least is 0.02 mm2" in errors["piece"]
    assert summary.text().splitlines()[-1].startswith("No pairs. blank.tif: no tissue")
    assert (summary.report / "failures.csv").read_text().count("Nothing") == 2


def test_a_fault_of_the_last_check_is_said_and_costs_no_pair(
    small_slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[str]:
        raise MemoryError

    monkeypatch.setattr("wsisr.store.verify.tissue_in_two_splits", broken)
    summary = build(small_slides, tmp_path / "p.zarr", FEW, manifest="default")
    assert sum(summary.pairs.values()) > 0 and summary.exit_code < 2
    (said,) = [text for text in summary.warnings if "could not be checked" in text]
    assert "(MemoryError); run wsisr verify" in said


def test_pictures_of_slides_show_what_the_calibration_refuses_and_draw_no_chart(
    tmp_path: Path,
) -> None:
    (tmp_path / "slides").mkdir()
    small_slide(tmp_path / "slides/case.tif", 3)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from wsisr.building import BuildRequest, build_pairs, extract, prepare\n"
        "from wsisr.runners import SerialRunner\n"
        "real = extract._level_columns\n"
        "def refusing(record, index):\n"
        "    columns = real(record, index)\n"
        "    columns['verdict'][0] = 0\n"
        "    return columns\n"
        "extract._level_columns = refusing\n"
        f"request = BuildRequest(source=Path('slides'), output=Path('pairs.zarr'), "
        f"overrides={FEW}, manifest='default')\n"
        "build_pairs(prepare(request), runner=SerialRunner())\n"
        "print(sorted({'matplotlib', 'jinja2', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    table = open_pairs(tmp_path / "pairs.zarr").table(kept=False)
    assert table["kept"].tolist() == [False] + [True] * (table.rows - 1)
    with Image.open(tmp_path / "pairs.report/slides/case.png") as picture:
        pixels = np.asarray(picture)
    per_px = pixels.shape[1] / 1024
    places = [
        (round(x * per_px), round(y * per_px)) for x, y in zip(table["x"], table["y"], strict=True)
    ]
    assert (pixels[places[0][1], places[0][0]] == REFUSED).all()
    assert (pixels[places[-1][1], places[-1][0]] == PATCH).all()
