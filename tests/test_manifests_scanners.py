"""Public sets of several scanners: the published layouts become pairs of the right kind."""

from pathlib import Path

import pytest
import tifffile
from PIL import Image

from wsisr import open_pairs
from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.runners import SerialRunner
from wsisr.store import verify_store
from wsisr.testing.two_scans import ScanPair, ScanSpec, make_scans

LAYOUTS = {
    "multiscanner-scc": [
        ("a/scc_01_cs2.tif", "a/scc_01_nz210.tif", "scc_01"),
        ("scc_02_cs2.tif", "scc_02_nz210.tif", "scc_02"),
    ],
    "mitos-atypia-14": [
        (
            "mitos_atypia_2014_training_aperio/A03/frames/x40/A03_00Aa.tiff",
            "mitos_atypia_2014_training_hamamatsu/H03/frames/x40/H03_00Aa.tiff",
            "03",
        ),
        (
            "testing_aperio/A06/A06/frames/x40/A06_11Bc.tiff",
            "testing_hamamatsu/H06/H06/frames/x40/H06_11Bc.tiff",
            "06",
        ),
    ],
    "scorpion": [
        (f"set/slide_{n}/sample_3/P1000.jpg", f"set/slide_{n}/sample_3/GT450.jpg", f"slide_{n}")
        for n in (1, 2)
    ],
    "plism": [
        (
            f"{stain}_AT2_to_GMH_S60.tif/00000066__e1af__tile_16_104_129.png",
            f"{stain}_GT450_to_GMH_S60.tif/00000066__e1af__tile_16_104_129.png",
            "gmh_s60",
        )
        for stain in ("GIV", "GIVH")
    ],
}


@pytest.fixture(scope="module")
def scans() -> ScanPair:
    return make_scans(ScanSpec(ratio=1.0, side_px=400, rotation_deg=0.4, seed=3))


def write(path: Path, scan: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = scan.image  # type: ignore[attr-defined]
    if path.suffix.startswith(".tif"):
        density = (1e4 / 0.25, 1e4 / 0.25)
        tifffile.imwrite(path, image, photometric="rgb", resolution=density, resolutionunit=3)
    else:
        Image.fromarray(image).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_layouts_are_paired_and_patients_kept_together(
    name: str, scans: ScanPair, tmp_path: Path
) -> None:
    for first, second, _ in LAYOUTS[name]:
        write(tmp_path / first, scans.moving)
        write(tmp_path / second, scans.fixed)
    write(tmp_path / "other_scanner" / "scc_01_p1000.tif", scans.moving)
    tasks = prepare(BuildRequest(source=tmp_path, manifest=name, overrides={})).tasks
    assert len(tasks) == len(LAYOUTS[name])
    for task, (first, second, _) in zip(tasks, sorted(LAYOUTS[name]), strict=True):
        assert task.source.path == tmp_path / first
        assert [path for path in task.files if path != task.source.path] == [tmp_path / second]
    patients = {task.patient for task in tasks}
    assert len(patients) == len({patient for *_, patient in LAYOUTS[name]})


def build(name: str, folder: Path, **overrides: object):
    request = BuildRequest(
        source=folder, output=folder / "p.zarr", manifest=name, overrides=overrides
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert summary is not None
    assert not summary.failures
    assert verify_store(folder / "p.zarr").ok
    return open_pairs(folder / "p.zarr")


def test_a_second_40x_scan_gives_reduced_lr_under_its_own_origin(
    scans: ScanPair, tmp_path: Path
) -> None:
    write(tmp_path / "scc_01_cs2.tif", scans.moving)
    write(tmp_path / "scc_01_nz210.tif", scans.fixed)
    store = build("multiscanner-scc", tmp_path, size=128, tissue={"method": "none"})
    (view,) = store.slides.values()
    assert [view.spec(name).origin for name in view.arrays] == ["rescan", "rescan-reduced"]
    assert view.spec("10x").factor == 4
    assert store.table(kept=True).rows >= 2
    assert view.attributes["hr_scan"]["reduction"] == pytest.approx(1.0, abs=2e-3)


def test_two_scanners_at_one_resolution_give_pairs_of_their_own_kind(
    scans: ScanPair, tmp_path: Path
) -> None:
    write(tmp_path / "slide_1/sample_1/P1000.jpg", scans.moving)
    write(tmp_path / "slide_1/sample_1/GT450.jpg", scans.fixed)
    store = build("scorpion", tmp_path, size=128)
    (view,) = store.slides.values()
    assert view.arrays == ("40x", "40x-second") or list(view.arrays) == ["40x", "40x-second"]
    assert view.spec("40x-second").origin == "cross-scanner"
    assert view.spec("40x-second").factor == view.spec("40x").factor
    assert store.table(kept=True).rows >= 2
