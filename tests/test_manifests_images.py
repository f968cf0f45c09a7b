"""Every manifest of ready-made images, built on generated folders in the published layouts."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from wsisr import open_pairs
from wsisr.arrays import Int16Array, UInt8Array
from wsisr.building import BuildRequest, BuildSummary, build_pairs, prepare, rebuild_from
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import load_manifest
from wsisr.building.plan import decide_splits
from wsisr.building.sources.image_sets import published_layout
from wsisr.degradation import degrade
from wsisr.errors import AnnotationError, BuildError
from wsisr.evaluation import EvalSettings
from wsisr.evaluation.plan import describe as describe_evaluation
from wsisr.evaluation.plan import prepare as prepare_evaluation
from wsisr.runners import SerialRunner
from wsisr.selection.image_labels import instance_map, read_labels
from wsisr.selection.patients import own_patient
from wsisr.slides import SlideSource
from wsisr.store import PairStore, verify_store
from wsisr.testing import image_sets

GLAS = {"train": 5, "testA": 2, "testB": 1}


@pytest.fixture(scope="session")
def sets(made_once: Callable[..., Path]) -> Path:
    """Small folders that look like the published ones."""

    def make(folder: Path) -> None:
        image_sets.write_glas_like(folder / "glas", GLAS, width_px=194, height_px=130)
        image_sets.write_consep_like(folder / "consep", 5, 3, side_px=96)
        image_sets.write_pcam_folders(folder / "pcam", {"train": 8, "valid": 4, "test": 4})
        image_sets.write_cores(folder / "tma", 5, side_px=640)
        names = [f"{organ}/{organ}{n}.png" for organ in ("liver", "lung") for n in range(6)]
        image_sets.write_images(folder / "ftms", names, width_px=64, height_px=64)
        names = [f"{split}/{n}.jpg" for split in ("train", "test") for n in range(3)]
        image_sets.write_images(folder / "images", names, width_px=130, height_px=70)

    return made_once("image-sets", make)


def build(source: Path, output: Path, manifest: str | None, **more: Any) -> BuildSummary:
    request = BuildRequest(
        source=source, output=output, manifest=manifest, **({"overrides": {}} | more)
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert summary is not None
    return summary


def build_store(source: Path, folder: Path, manifest: str | None, **more: Any) -> PairStore:
    summary = build(source, folder / "pairs.zarr", manifest, **more)
    assert summary.exit_code == 0
    return open_pairs(folder / "pairs.zarr")


def pairs(store: PairStore) -> dict[str, int]:
    return {split: len(store.split(split)) for split in ("train", "val", "test")}


def degraded(hr: UInt8Array, name: str, scale: int) -> Int16Array:
    lr = degrade(torch.from_numpy(hr).permute(2, 0, 1), name, scale)
    return lr.permute(1, 2, 0).numpy().astype(np.int16)


def images(name: str, count: int, split: str = "") -> list[SlideTask]:
    """Tasks as a folder of so many images would give."""
    tasks = []
    for number in range(count):
        path = Path(f"{name}_{number}.png")
        source = SlideSource(
            path=path, slide_id=path.stem, files=(path,), kind="image", relative=path.name
        )
        tasks.append(
            SlideTask(source=source, patient=own_patient(path.stem), group=path.stem, split=split)
        )
    return tasks


@pytest.mark.parametrize(
    ("manifest", "tasks", "wanted"),
    [
        ("tma", images("core", 573), {"train": 460, "val": 57, "test": 56}),
        ("ftms", images("image", 1200), {"train": 900, "val": 100, "test": 200}),
        (
            "glas",
            images("train", 85, "train") + images("testA", 60, "test") + images("b", 20, "test"),
            {"train+val": 85, "test": 80},
        ),
        (
            "consep",
            images("train", 27, "train") + images("test", 14, "test"),
            {"train+val": 27, "test": 14},
        ),
    ],
)
def test_the_papers_numbers_come_out_of_folders_of_the_papers_size(
    manifest: str, tasks: list[SlideTask], wanted: dict[str, int]
) -> None:
    splits, _ = decide_splits(tasks, load_manifest(manifest), {})
    have = Counter(splits.values())
    have["train+val"] = have["train"] + have["val"]
    assert {name: have[name] for name in wanted} == wanted
    assert have["val"] > 0


def test_pcam_expects_what_is_published() -> None:
    manifest = load_manifest("pcam")
    assert manifest.expect is not None
    assert manifest.expect.pairs == {"train": 262_144, "val": 32_768, "test": 32_768}
    assert sum(manifest.expect.pairs.values()) == 327_680
    assert (manifest.size, manifest.hr, manifest.lr) == (96, "10x", ("5x",))


def test_glas_covers_each_image_and_is_stamped_for_its_patients(sets: Path, tmp_path: Path) -> None:
    assert published_layout(sets / "glas") == "glas"
    store = build_store(sets / "glas", tmp_path, None, overrides={"size": 104})
    assert pairs(store) == {"train": 16, "val": 4, "test": 12}
    view = store.slides["train_1"]
    # 194 x 130 px by 104-px patches whose places are multiples of 4: two by two.
    assert sorted(zip(view.column("x"), view.column("y"), strict=True)) == [
        (0, 0), (0, 24), (88, 0), (88, 24),
    ]  # fmt: skip
    assert view.attributes["labels"] == ["benign", "malignant"]
    assert set(view.column("label")) == {0}
    assert set(store.slides["train_2"].column("label")) == {1}
    assert view.attributes["patient"] == "patient-1"
    assert view.attributes["mpp"] is not None
    assert view.attributes["mpp"]["source"] == "manifest"
    assert view.attributes["mpp"]["value"] == pytest.approx(0.62)
    annotation = dict(view.attributes)["annotation"]
    assert isinstance(annotation, dict)
    assert annotation["instances"] == 2
    assert instance_map(sets / "glas" / annotation["file"]).shape == (130, 194)
    assert [view.spec(name).origin for name in ("10x", "5x")] == ["reduced", "reduced"]
    report = verify_store(store.path)
    assert report.ok, [finding.text for finding in report.findings]
    leaky = dict(store.attributes)["leaky"]
    assert leaky == {"test_pairs": 12, "overlapping": 0, "same_patient": 12}
    parts = {name: dict(v.attributes).get("part") for name, v in store.slides.items()}
    assert {name: part for name, part in parts.items() if part} == {
        name: name[4] for name in parts if name.startswith("test")
    }
    assert set(parts.values()) == {None, "A", "B"}
    settings = EvalSettings(data=store.path, scales=(2.0,), runs=tmp_path, cost=False, figures=0)
    found = describe_evaluation(prepare_evaluation(settings))["samples"]["parts"]
    assert {part: {s[:5] for s, _ in places} for part, places in found.items()} == {
        "A": {"testA"}, "B": {"testB"},
    }  # fmt: skip
    assert sum(map(len, found.values())) == 12


def test_glas_by_patient_shares_none(sets: Path, tmp_path: Path) -> None:
    store = build_store(sets / "glas", tmp_path, "glas-patients", overrides={"size": 104})
    sides: dict[str, set[str]] = {}
    for view in store.slides.values():
        sides.setdefault(view.attributes["patient"], set()).add(str(view.attributes["split"]))
    assert len(sides) == 4
    assert all(len(splits) == 1 for splits in sides.values())
    assert "leaky" not in store.attributes


def test_consep_keeps_its_split_and_names_the_most_frequent_nuclei(
    sets: Path, tmp_path: Path
) -> None:
    store = build_store(sets / "consep", tmp_path, None, overrides={"size": 96})
    assert pairs(store) == {"train": 4, "val": 1, "test": 3}
    assert store.attributes["magnifications"] == ["40x", "20x", "10x", "5x"]
    names = store.slides["Train__Images__train_1"].attributes["labels"]
    found = [
        names[store.slides[f"Train__Images__train_{n}"].column("label")[0]] for n in range(1, 6)
    ]
    # Types 1 to 5: one each, and epithelial and spindle cells are merged.
    assert found == ["miscellaneous", "inflammatory", "epithelial", "epithelial", "spindle"]
    assert store.slides["Train__Images__train_1"].attributes["mpp"] is None
    assert store.slides["Train__Images__train_1"].spec("40x").um_per_px is None
    assert not any("Overlay" in slide for slide in store.slides)


def test_pcam_folders_are_stacks_whose_lr_sees_its_own_patch_alone(
    sets: Path, tmp_path: Path, tree_digest: Callable[[Path], str]
) -> None:
    store = build_store(sets / "pcam", tmp_path, "pcam")
    assert pairs(store) == {"train": 8, "val": 4, "test": 4}
    assert len(store.slides) == 6
    view = store.slides["train__1"]
    assert view.column("label").tolist() == [1] * 4
    assert view.attributes["split"] == "train"
    assert dict(view.attributes)["images"] == 4
    spec = view.spec("5x")
    assert (spec.size_px, spec.native, spec.origin) == (48, False, "reduced")
    for row in range(4):
        hr = store.patch("train__1", row, "10x")
        lr = store.patch("train__1", row, "5x")
        assert np.abs(degraded(hr, "bicubic", 2) - lr).max() <= 1
    again = BuildRequest(source=sets / "pcam", output=tmp_path / "again.zarr", overrides={})
    rebuild_from(again, tmp_path / "pairs.report" / "record.json.gz", runner=SerialRunner())
    assert tree_digest(tmp_path / "again.zarr") == tree_digest(tmp_path / "pairs.zarr")
    assert verify_store(store.path).ok


def test_a_stack_refuses_an_image_of_another_size(sets: Path, tmp_path: Path) -> None:
    shutil.copytree(sets / "pcam", tmp_path / "pcam")
    image_sets.write_images(tmp_path / "pcam", ["test/1/odd.png"], width_px=97, height_px=96)
    summary = build(tmp_path / "pcam", tmp_path / "pairs.zarr", "pcam")
    (failure,) = summary.failures
    assert failure.slide_id == "test__1"
    assert "odd.png: is (96, 97, 3)" in failure.error


def test_published_hdf5_files_are_read_with_labels_and_source_slides(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    counts = {"train": 6, "valid": 4, "test": 4}
    image_sets.write_pcam_hdf5(tmp_path / "pcam", counts)
    assert published_layout(tmp_path / "pcam") == "pcam"
    store = build_store(tmp_path / "pcam", tmp_path, None)
    assert pairs(store) == {"train": 6, "val": 4, "test": 4}
    view = store.slides["train__camelyon16_train_1"]
    assert view.attributes["patient"] == "camelyon16_train_1"
    assert set(view.column("label")) == {1}
    assert len(view) == 3


def test_cores_of_a_microarray_have_the_declared_resolution(sets: Path, tmp_path: Path) -> None:
    store = build_store(sets / "tma", tmp_path, "tma", overrides={"size": 256})
    splits = Counter(view.attributes["split"] for view in store.slides.values())
    assert splits == {"train": 3, "val": 1, "test": 1}
    view = store.slides["core_001"]
    assert len(view) == 9
    assert view.spec("20x").um_per_px == pytest.approx(0.504)
    assert (view.spec("10x").size_px, view.spec("5x").size_px) == (128, 64)


def test_ftms_halves_over_and_over_and_divides_each_folder_alike(
    sets: Path, tmp_path: Path
) -> None:
    store = build_store(sets / "ftms", tmp_path, "ftms", overrides={"size": 64}, scale_counts=0.01)
    assert pairs(store) == {"train": 9, "val": 1, "test": 2}
    sites = Counter(
        view.attributes["site"]
        for view in store.slides.values()
        if view.attributes["split"] == "test"
    )
    assert sites == {"liver": 1, "lung": 1}
    slide = next(iter(store.slides))
    hr = store.patch(slide, 0, "40x")
    for name, scale in (("20x", 2), ("10x", 4), ("5x", 8)):
        lr = store.patch(slide, 0, name)
        assert np.abs(degraded(hr, "ftms", scale) - lr).max() <= 1
        assert store.slides[slide].spec(name).extra["steps"] == int(np.log2(scale))


def test_monuseg_is_read_with_outlines_or_the_union_of_nuclei(tmp_path: Path) -> None:
    nuclei = image_sets.write_monuseg_like(tmp_path / "monuseg", 4, side_px=96, unions=1)
    assert published_layout(tmp_path / "monuseg") == "monuseg"
    store = build_store(tmp_path / "monuseg", tmp_path, None, overrides={"size": 96})
    views = dict(zip(nuclei, store.slides.values(), strict=True))
    for name, view in views.items():
        assert view.attributes["patient"] == name[:12]
        annotation: Any = dict(view.attributes)["annotation"]
        found = read_labels(tmp_path / "monuseg" / annotation["file"], (96, 96))
        outlined = name != list(nuclei)[-1]
        assert found.instances == outlined
        assert annotation["instances"] == (len(nuclei[name]) if outlined else None)
        for label, (x, y, radius) in enumerate(nuclei[name], start=1):
            assert found.map[int(y), int(x)] == (label if outlined else 1)
            if outlined:  # the outline's own pixels belong to it
                area = int((found.map == label).sum())
                assert np.pi * radius**2 < area < np.pi * (radius + 1.2) ** 2
    outlines, union = (
        tmp_path / "monuseg" / dict(view.attributes)["annotation"]["file"]  # type: ignore[index]
        for view in (views["TCGA-AA-0001-01Z-00-DX1"], views["TCGA-AA-0004-01Z-00-DX1"])
    )
    with pytest.raises(AnnotationError, match="without their image's size"):
        instance_map(outlines)
    with pytest.raises(AnnotationError, match="in which none is one"):
        instance_map(union)
    with pytest.raises(AnnotationError, match="96 x 96 px do not belong to an image of 90 x 96"):
        read_labels(union, (96, 90))


def test_overlapping_outlines_give_the_shared_pixels_to_the_later(tmp_path: Path) -> None:
    squares = (((2, 2), (10, 2), (10, 10), (2, 10)), ((6, 6), (14, 6), (14, 14), (6, 14)))
    regions = "".join(
        "<Region><Vertices>"
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
        + "</Vertices></Region>"
        for corners in squares
    )
    path = tmp_path / "a.xml"
    path.write_text(
        f"<Annotations><Annotation><Regions>{regions}</Regions></Annotation></Annotations>"
    )
    found = instance_map(path, (12, 12))  # the second one crosses the border
    assert found[8, 8] == 2 and found[5, 5] == 1 and found[11, 11] == 2 and found[0, 0] == 0
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><Annotations>&a;</Annotations>')
    with pytest.raises(AnnotationError, match="refused"):
        instance_map(path, (12, 12))


def test_breakhis_says_class_patient_and_magnification_in_its_names(tmp_path: Path) -> None:
    names = [
        "SOB_M_MC-14-19979-200-001", "SOB_M_MC-14-19979C-400-015", "SOB_B_TA-14-16184CD-40-015",
        "SOB_B_F-14-9133-400-007",
    ]  # fmt: skip
    image_sets.write_images(
        tmp_path / "set", [f"{name}.png" for name in names], width_px=70, height_px=46
    )
    assert published_layout(tmp_path / "set") == "breakhis"
    store = build_store(tmp_path / "set", tmp_path, None, overrides={"size": 32})
    found = [
        (view.attributes["patient"], view.attributes["group"], view.attributes["site"],
         set(store.table(slide, columns=["label"]).names("label")))
        for slide, view in sorted(store.slides.items())
    ]  # fmt: skip
    assert found == [
        ("14-9133", "14-9133", "400X", {"benign"}),
        ("14-16184", "14-16184CD", "40X", {"benign"}),
        ("14-19979", "14-19979", "200X", {"malignant"}),
        ("14-19979", "14-19979C", "400X", {"malignant"}),
    ]
    assert len({v.attributes["split"] for s, v in store.slides.items() if "19979" in s}) == 1


def test_grades_with_line_ends_of_an_old_mac_are_read(sets: Path, tmp_path: Path) -> None:
    shutil.copytree(sets / "glas", tmp_path / "glas")
    table = tmp_path / "glas" / "Grade.csv"
    table.write_bytes(table.read_bytes().strip().replace(b"\n", b"\r"))
    store = build_store(tmp_path / "glas", tmp_path, "glas-patients", overrides={"size": 104})
    patients = {view.attributes["patient"] for view in store.slides.values()}
    assert patients == {f"patient-{n}" for n in range(1, 5)}


def test_plain_images_keep_the_split_of_their_folders(sets: Path, tmp_path: Path) -> None:
    store = build_store(sets / "images", tmp_path, "images", overrides={"size": 64})
    assert {s: v.attributes["split"] == "test" for s, v in store.slides.items()} == {
        f"{split}__{n}.jpg": split == "test" for split in ("train", "test") for n in range(3)
    }
    # Two patches of 64 px fit 130 x 70 px.
    assert sum(pairs(store).values()) == 12


def test_an_image_smaller_than_a_patch_is_named(sets: Path, tmp_path: Path) -> None:
    summary = build(sets / "images", tmp_path / "pairs.zarr", "images")
    assert summary.exit_code == 2
    assert "130 x 70 px, smaller than one patch of 256 px" in summary.failures[0].error


def test_a_folder_without_images_of_the_layout_says_so(sets: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no images in the layout 'glas'"):
        build(sets / "images", tmp_path / "pairs.zarr", "glas")


def test_images_of_16_bit_are_built_by_the_white_that_is_stated(sets: Path, tmp_path: Path) -> None:
    """Mixed with others, as cameras were changed; without it each deep one is refused."""
    source = tmp_path / "s"
    shutil.copytree(sets / "images", source)
    for path in sorted((source / "train").iterdir())[1:]:
        deep = np.asarray(Image.open(path), np.uint16) * 16
        path.with_suffix(".png").write_bytes(imagecodecs.png_encode(deep))
        path.unlink()
    overrides = {"size": 64, "lr": ["20x"]}
    told = build(source, tmp_path / "none.zarr", "images", overrides=overrides)
    failures = (tmp_path / "none.report" / "failures.csv").read_text()
    assert told.exit_code and failures.count("--white N") == 2
    plain = build_store(sets / "images", tmp_path / "a", "images", overrides=overrides)
    store = build_store(source, tmp_path / "b", "images", overrides=overrides | {"white": 4080})
    for one, other in zip(plain.slides, store.slides, strict=True):  # the same but for suffixes
        np.testing.assert_array_equal(plain.patch(one, 1, "40x"), store.patch(other, 1, "40x"))
    whites = [slide.attributes.get("white") for slide in store.slides.values()]
    assert sorted(whites, key=str) == [4080.0, 4080.0, *[None] * 4]
