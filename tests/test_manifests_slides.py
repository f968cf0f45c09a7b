"""Every manifest of slides, built in small: counts, sizes, scales, labels, origins and splits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner
from wsisr_cli.manifests import app

from wsisr import open_pairs
from wsisr.building import BuildRequest, BuildSummary, build_pairs, prepare
from wsisr.building.manifest import load_manifest, manifest_names
from wsisr.building.sources import levels, places
from wsisr.checkup.counts import count_store
from wsisr.runners import SerialRunner
from wsisr.slides import ReaderVerdict
from wsisr.store import PairStore, verify_store
from wsisr.testing import SlideSpec, write_slide
from wsisr.testing.camelyon import write_camelyon16_like

BUILT_ELSEWHERE = {
    "rescan": "test_building_rescan.py",
    **dict.fromkeys(
        ("scorpion", "plism", "multiscanner-scc", "mitos-atypia-14"), "test_manifests_scanners.py"
    ),
    **dict.fromkeys(
        ("tma", "ftms", "pcam", "glas", "glas-patients", "consep", "images", "monuseg", "breakhis"),
        "test_manifests_images.py",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A manifest, the slides that fit it, and how small it is built.

    `paper` are the paper's counts of pairs; `scale` brings them down; `size` is the HR side in
    place of the manifest's; `arrays` are (name, scale, origin) of every LR.
    """

    manifest: str
    source: str
    size: int
    scale: float
    paper: dict[str, int]
    arrays: tuple[tuple[str, int, str], ...]
    paper_size: int
    overrides: dict[str, Any] = field(default_factory=dict)


CAMELYON = (("10x", 4, "stored-level"),)
MLCAMSR = (("20x", 2, "stored-level"), ("10x", 4, "stored-level"))
LUNG = tuple((name, scale, "reduced") for name, scale in (("20x", 2), ("10x", 4), ("5x", 8)))
TCGA = (("20x", 2, "reduced"), ("10x", 4, "stored-level"), ("5x", 8, "reduced"))
CASES = [
    Case(
        manifest="pathimgsr", source="camelyon", size=80, scale=0.002, arrays=CAMELYON,
        paper={"train": 10_000, "test": 2_000}, paper_size=1024,
        overrides={"registration.region_px": 106},
    ),
    Case(
        manifest="pathimgsr-ncrf", source="camelyon", size=96, scale=0.001, arrays=CAMELYON,
        paper={"train": 10_000, "test": 2_000}, paper_size=1024,
        overrides={"registration.region_px": 122},
    ),
    Case(
        manifest="mlcamsr", source="camelyon", size=96, scale=0.02, arrays=MLCAMSR,
        paper={"train": 1_000, "test": 200}, paper_size=1024,
    ),
    Case(
        manifest="mlcamsr-random", source="camelyon", size=96, scale=0.04, arrays=MLCAMSR,
        paper={"train": 1_000, "test": 200}, paper_size=1024,
    ),
    Case(
        manifest="histosr", source="camelyon", size=48, scale=0.001,
        arrays=(("20x", 2, "reduced"),), paper={"train": 30_000, "test": 5_000}, paper_size=192,
        overrides={"sampling.per_slide": 200_000},
    ),
    Case(
        manifest="histosr-nearest", source="camelyon", size=48, scale=0.001,
        arrays=(("20x", 2, "reduced"),), paper={"train": 30_000, "test": 5_000}, paper_size=192,
        overrides={"sampling.per_slide": 200_000},
    ),
    Case(
        manifest="tcga-brca", source="tcga", size=64, scale=0.02, arrays=TCGA,
        paper={"train": 2_000, "test": 500}, paper_size=192,
        overrides={"tissue.clam.min_tissue_mm2": 0.02},
    ),
    Case(
        manifest="tcga-coad", source="tcga", size=64, scale=0.02, arrays=TCGA,
        paper={"train": 2_000, "test": 500}, paper_size=192,
        overrides={"tissue.clam.min_tissue_mm2": 0.02},
    ),
    Case(
        manifest="tcga-lung", source="tcga", size=96, scale=0.1, arrays=LUNG,
        paper={"train": 320, "val": 40, "test": 40}, paper_size=3072,
    ),
    Case(
        manifest="tcga-lung-random", source="tcga", size=96, scale=0.1, arrays=LUNG,
        paper={"train": 320, "val": 40, "test": 40}, paper_size=3072,
    ),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_scans() -> Any:
    """Second readers, evidence and calibration are tested elsewhere, and take most of a scan."""
    patch = pytest.MonkeyPatch()
    agreed = ReaderVerdict(status="agree", reader="direct", regions=1, detail="")
    patch.setattr("wsisr.slides.opening.load_verdict", lambda key: agreed)
    patch.setattr(places, "level_evidence", lambda slide: ())
    patch.setattr(levels, "calibrate_levels", lambda slide, seed, only: ())
    yield
    patch.undo()


@pytest.fixture(scope="session")
def sources(made_once: Callable[..., Path]) -> Path:
    """A CAMELYON16-like folder with NCRF-like lists, and five TCGA-like slides."""

    def make(folder: Path) -> None:
        camelyon = folder / "camelyon"
        write_camelyon16_like(
            camelyon, layout="official", normals=2, tumours=2, tests=2, side_px=1100, seed=5
        )
        (camelyon / "coords").mkdir()
        rng = np.random.default_rng(0)
        for kind in ("Tumor", "Normal"):
            points = [
                f"{kind}_{number:03d},{x},{y}"
                for number in (1, 2)
                for x, y in rng.integers(300, 900, (150, 2))
            ]
            name = f"{kind.lower()}_{'train' if kind == 'Tumor' else 'valid'}.txt"
            (camelyon / "coords" / name).write_text("\n".join(points) + "\n")
        (folder / "tcga").mkdir()
        for number in range(5):
            name = f"TCGA-A{number}-000{number}-01Z-00-DX1.svs"
            spec = SlideSpec(
                seed=90 + number, layout="aperio", width_px=1024, height_px=896, um_per_px=0.2525,
                holes=(),
            )  # fmt: skip
            write_slide(folder / "tcga" / name, spec)

    return made_once("manifest-sources", make)


def build(case: Case, source: Path, output: Path) -> BuildSummary:
    request = BuildRequest(
        source=source / case.source,
        output=output,
        manifest=case.manifest,
        overrides={"size": case.size, **case.overrides},
        scale_counts=case.scale,
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert summary is not None
    return summary


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PairStore]:
    """The store of a manifest, built once."""
    folder = tmp_path_factory.mktemp("manifests")

    def get(name: str) -> PairStore:
        path = folder / f"{name}.zarr"
        if not path.exists():
            build(next(case for case in CASES if case.manifest == name), sources, path)
        return open_pairs(path)

    return get


def test_every_manifest_is_built_by_a_test() -> None:
    here = {case.manifest for case in CASES} | {"default"}
    assert here | set(BUILT_ELSEWHERE) == set(manifest_names())
    for file in BUILT_ELSEWHERE.values():
        assert (Path(__file__).parent / file).is_file()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.manifest)
def test_the_papers_numbers_stand_in_the_manifest(case: Case) -> None:
    manifest = load_manifest(case.manifest)
    assert manifest.expect is not None
    assert manifest.expect.pairs == case.paper
    assert manifest.size == case.paper_size
    assert [name for name, _, _ in case.arrays] == list(manifest.lr)
    assert manifest.paper is not None
    assert len(manifest.readings) >= 3


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.manifest)
def test_a_build_holds_what_the_paper_says(
    case: Case, built: Callable[[str], PairStore], sources: Path
) -> None:
    store = built(case.manifest)
    wanted = {split: round(count * case.scale) for split, count in case.paper.items()}
    have = {split: len(store.split(split)) for split in ("train", "val", "test")}
    if "val" not in case.paper:
        assert have["val"] == pytest.approx(wanted["train"] / 10, abs=1)
        have = {"train": have["train"] + have["val"], "test": have["test"]}
    assert have == wanted
    assert store.attributes["magnifications"] == ["40x", *(name for name, _, _ in case.arrays)]
    for slide_id in store.slides:
        view = store.slides[slide_id]
        assert view.spec("40x").size_px == case.size
        for name, scale, origin in case.arrays:
            spec = view.spec(name)
            assert (spec.size_px * scale, spec.origin) == (case.size, origin)
            assert spec.native == (origin == "stored-level")
            assert spec.factor == scale


def test_pathimgsr_pairs_are_of_one_class_each_in_equal_numbers(
    built: Callable[[str], PairStore],
) -> None:
    counts = {item.what: item for item in count_store(built("pathimgsr").path)}
    for split, pairs in (("train", 9), ("val", 1), ("test", 2)):
        for name in ("normal", "tumor"):
            item = counts[f"{split} pairs ({name})"]
            assert item.agrees
            assert item.found == pairs


def test_official_splits_of_camelyon16_are_kept(built: Callable[[str], PairStore]) -> None:
    for name in ("pathimgsr", "mlcamsr", "histosr"):
        for slide_id, view in built(name).slides.items():
            split = view.attributes["split"]
            assert (split == "test") == slide_id.startswith("testing")


def test_ncrf_places_are_the_lists_points_and_test_slides_get_a_grid(
    built: Callable[[str], PairStore], sources: Path
) -> None:
    store = built("pathimgsr-ncrf")
    points = {
        (name.lower(), int(x), int(y))
        for path in (sources / "camelyon" / "coords").iterdir()
        for name, x, y in (line.split(",") for line in path.read_text().splitlines())
    }
    named = grid = 0
    for slide_id, view in store.slides.items():
        stem = slide_id.rpartition("__")[2]
        own = np.array([(x, y) for name, x, y in points if name == stem]).reshape(-1, 2)
        for x, y in zip(view.column("x"), view.column("y"), strict=True):
            if stem.startswith("test"):
                assert (x % 4, y % 4) == (0, 0)
                grid += 1
            else:
                centre = np.array([x + 48, y + 48])
                # Origins snap to the grid of the coarsest level, 4 px.
                assert np.abs(own - centre).max(axis=1).min() <= 2
                named += 1
    assert min(named, grid) >= 2


def test_a_random_split_is_stamped_with_what_was_measured(
    built: Callable[[str], PairStore],
) -> None:
    store = built("mlcamsr-random")
    leaky = dict(store.attributes)["leaky"]
    assert isinstance(leaky, dict)
    assert leaky["test_pairs"] == 8
    assert leaky["overlapping"] >= 1
    assert leaky["same_patient"] == 8
    assert all(view.attributes["split"] is None for view in store.slides.values())
    text = (store.path.with_name("mlcamsr-random.report") / "summary.md").read_text()
    assert f"LEAKY, as the manifest declares: of 8 test pairs {leaky['overlapping']:,}" in text
    report = verify_store(store.path)
    assert report.ok
    assert any("LEAKY as declared" in finding.text for finding in report.findings)
    assert not any(s.startswith("testing") for s in store.slides if len(store.slides[s]))


def test_the_twin_of_a_random_split_shares_no_patient(built: Callable[[str], PairStore]) -> None:
    leaky, twin = built("tcga-lung-random"), built("tcga-lung")
    assert "leaky" not in twin.attributes
    patients = {
        split: {
            twin.slides[twin.attributes["slides"][i]].attributes["patient"]
            for i in twin.split(split)[:, 0]
        }
        for split in ("train", "val", "test")
    }
    assert {split: len(names) for split, names in patients.items()} == {
        "train": 3, "val": 1, "test": 1,
    }  # fmt: skip
    assert len(set.union(*patients.values())) == 5
    assert dict(leaky.attributes)["leaky"]["same_patient"] > 0  # type: ignore[index]


def test_five_disjoint_test_sets_of_equal_size(built: Callable[[str], PairStore]) -> None:
    store = built("tcga-brca")
    sets = dict(store.attributes)["test_sets"]
    assert isinstance(sets, list)
    assert [len(rows) for rows in sets] == [2] * 5
    flat = sorted(tuple(row) for rows in sets for row in rows)
    assert flat == sorted(tuple(row) for row in store.split("test").tolist())


def test_check_compares_a_store_with_what_the_paper_says(
    built: Callable[[str], PairStore],
) -> None:
    store = str(built("tcga-lung").path)
    result = CliRunner().invoke(app, ["check", "tcga-lung", "--store", store])
    assert result.exit_code == 1
    assert "train slides: 3 expected, 3 in the store\n" in result.output
    assert "train pairs: 320 expected, 32 in the store  DIFFERS" in result.output


def test_a_manifest_may_forbid_made_levels(sources: Path, tmp_path: Path) -> None:
    request = BuildRequest(
        source=sources / "tcga",
        output=tmp_path / "pairs.zarr",
        manifest="tcga-coad",
        overrides={"size": 64, "native": "require"},
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert summary is not None
    assert summary.exit_code == 2
    assert all("does not store 20x" in failure.error for failure in summary.failures)


def test_nearest_and_bicubic_lr_are_what_they_are_called(
    built: Callable[[str], PairStore],
) -> None:
    nearest, bicubic = built("histosr-nearest"), built("histosr")
    slide_id = next(s for s in nearest.slides if len(nearest.slides[s]))
    hr = nearest.patch(slide_id, 0, "40x")
    assert np.array_equal(nearest.patch(slide_id, 0, "20x"), hr[1::2, 1::2])
    assert nearest.slides[slide_id].spec("20x").extra == {"kernel": "nearest", "from": "patch"}
    assert np.array_equal(bicubic.patch(slide_id, 0, "40x"), hr)
    assert bicubic.slides[slide_id].spec("20x").extra["kernel"] == "bicubic-antialias"
    assert not np.array_equal(bicubic.patch(slide_id, 0, "20x"), hr[1::2, 1::2])


def test_the_default_takes_all_that_a_folder_has(sources: Path, tmp_path: Path) -> None:
    request = BuildRequest(
        source=sources / "tcga",
        output=tmp_path / "pairs.zarr",
        manifest="default",
        overrides={"size": 128},
    )
    assert build_pairs(prepare(request), runner=SerialRunner()) is not None
    store = open_pairs(tmp_path / "pairs.zarr")
    assert store.attributes["magnifications"] == ["40x", "20x", "10x"]
    assert sum(len(store.split(s)) for s in ("train", "val", "test")) > 40
