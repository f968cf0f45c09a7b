"""Two scans of one glass become registered pairs whose LR is real."""

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from wsisr import open_pairs
from wsisr.building import BuildRequest, build_pairs, prepare, rebuild_from
from wsisr.building.sources import rescan
from wsisr.building.sources.rescan import Rescan
from wsisr.building.sources.scan_pairs import HrScan
from wsisr.building.state import Prepared
from wsisr.building.store_record import Record, load_record, reading_of, unpack_column
from wsisr.errors import ManifestError
from wsisr.registration import register_pair
from wsisr.runners import SerialRunner
from wsisr.store import verify_store
from wsisr.testing import SlideSpec, write_slide
from wsisr.testing.rescan import RescanSpec, write_rescan

OVERRIDES = {"size": 256}


@pytest.fixture(scope="module")
def study(made_once: Callable[..., Path]) -> Path:
    """One glass scanned twice, and an LR scan whose HR scan is missing."""

    def make(folder: Path) -> None:
        folder.mkdir()
        truth = write_slide(
            folder / "case1_40x.tif", SlideSpec(seed=4, width_px=3072, height_px=3072)
        )
        write_rescan(folder / "case1_10x.tif", truth, RescanSpec(rotation_deg=0.4))
        write_rescan(folder / "case2_10x.tif", truth, RescanSpec(rotation_deg=0.4))

    return made_once("rescans", make)


def test_pairs_of_two_scans_are_accepted_aligned_and_called_rescan(
    study: Path, tmp_path: Path, tree_digest: Callable[[Path], str]
) -> None:
    request = BuildRequest(
        source=study, output=tmp_path / "p.zarr", manifest="rescan", overrides=OVERRIDES
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert summary is not None
    assert [failure.slide_id for failure in summary.failures] == ["case2_10x"]
    assert "no HR scan of this glass" in summary.failures[0].error
    store = open_pairs(tmp_path / "p.zarr")
    view = store.slides["case1_10x"]
    assert [view.spec(name).origin for name in view.arrays] == ["rescan", "rescan"]
    table = store.table("case1_10x", kept=False)
    assert table.rows >= 20
    assert table["kept"].mean() >= 0.95
    assert table["hr_resampled"].any()
    kept = np.flatnonzero(table["kept"])[:12]
    for row in table["row"][kept].tolist():
        hr = store.patch("case1_10x", row, "40x").astype(np.float32).mean(axis=2)
        lr = store.patch("case1_10x", row, "10x").astype(np.float32).mean(axis=2)
        small = cv2.resize(hr, lr.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.ravel(), lr.ravel())[0, 1] > 0.95
    assert view.attributes["group"] == "case1"
    assert verify_store(tmp_path / "p.zarr").ok
    again = BuildRequest(source=study, output=tmp_path / "again.zarr", overrides={})
    rebuild_from(again, tmp_path / "p.report" / "record.json.gz", runner=SerialRunner())
    assert tree_digest(tmp_path / "again.zarr") == tree_digest(tmp_path / "p.zarr")
    _check_first_rules(prepare(request), load_record(tmp_path / "p.report/record.json.gz"))


def _check_first_rules(prepared: Prepared, record: Record) -> None:
    """A pair that the first stores recorded is measured as they did: with the whole scale, and
    in the colours as they are."""
    entry = record.slides["case1_10x"]
    reading = reading_of(entry)
    scans = dict(reading.scans or {}, scale=4)
    for key in ("stated_scale", "errors", "focus", "match_colours"):
        del scans[key]
    columns = {name: unpack_column(packed) for name, packed in entry["columns"].items()}
    sides = []

    def watched(*arguments: Any, **more: Any) -> Any:
        sides.append((more["side_px"], more["match_colours"]))
        return register_pair(*arguments, **more)

    with (
        pytest.MonkeyPatch.context() as patch,
        closing(Rescan.open(prepared.tasks[0], prepared.manifest)) as source,
    ):
        patch.setattr(rescan, "register_pair", watched)
        for form in (reading, replace(reading, scans=scans)):
            (pair,) = source.read_recorded(form, columns, np.array([3]))
            assert pair.index == 3 and pair.arrays["40x"].shape == (256, 256, 3)
    assert sides == [(None, True), (4, False)]


def test_a_table_names_the_pairs(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("case1_40x.tif", "case1_10x.tif"):
        (folder / name).symlink_to(study / name)
    (folder / "pairs.csv").write_text("lr,hr\ncase1_10x.tif,case1_40x.tif\n")
    request = BuildRequest(source=folder, manifest="rescan", overrides=OVERRIDES)
    (task,) = prepare(request).tasks
    assert isinstance(task.detail, HrScan)
    assert task.detail.source.path.name == "case1_40x.tif"
    (tmp_path / "table.csv").write_text(
        "slide,mpp,label,split\ncase1_40x.tif,0.25,tumor,\ncase1_10x.tif,,,val\n"
    )
    (told,) = prepare(replace(request, mpp_override=tmp_path / "table.csv")).tasks
    assert told.overridden == ("mpp", "split"), "of the HR scan's row only what is used"
    assert task.overridden == ()
    (folder / "pairs.csv").write_text("lr,hr\ncase1_10x.tif,case1_4x.tif\n")
    with pytest.raises(ManifestError, match=r"line 2.*did you mean 'case1_40x"):
        prepare(request)


def test_two_scans_for_one_place_are_refused(study: Path, tmp_path: Path) -> None:
    for name in ("a_10x.tif", "a-10x.tif", "a_40x.tif"):
        shutil.copy(study / "case1_10x.tif", tmp_path / name)
    with pytest.raises(ManifestError, match="two LR scans"):
        prepare(BuildRequest(source=tmp_path, manifest="rescan", overrides=OVERRIDES))
