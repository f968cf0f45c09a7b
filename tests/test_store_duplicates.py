"""The same tissue is recognised whatever happened to its file, and different tissue is not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from store_samples import root_attributes, slide_attributes

from wsisr.arrays import UInt8Array
from wsisr.store import ArraySpec, StoreWriter, open_pairs, verify_store
from wsisr.store.duplicates import SameTissue, find_same_tissue
from wsisr.store.features import common_resolution, describe_slide, mirrored, sample_rows
from wsisr.store.verify import tissue_in_two_splits

SIZE = 256


def tissue(seed: int, side: int = 1100) -> UInt8Array:
    """Pink stroma with purple nuclei of various sizes and shapes; 0.5 um/px."""
    rng = np.random.default_rng(seed)
    base = np.zeros((side, side), np.float32)
    for sigma, weight in ((40.0, 1.0), (12.0, 0.7), (4.0, 0.5)):
        layer = cv2.GaussianBlur(
            rng.standard_normal((side, side)).astype(np.float32), (0, 0), sigma
        )
        base += weight * layer / layer.std()
    image = np.empty((side, side, 3), np.float32)
    image[:] = np.array([225, 170, 200]) + 10 * base[..., None]
    for _ in range(side * side // 900):
        x, y = rng.integers(0, side, 2).tolist()
        axes = rng.integers(4, 12, 2).tolist()
        shade = float(rng.uniform(0.6, 1.2))
        colour = (110 * shade, 70 * shade, 140 * shade)
        cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return cv2.GaussianBlur(np.clip(image, 0, 255), (0, 0), 1.0).astype(np.uint8)


def jpeg(image: UInt8Array, quality: int) -> UInt8Array:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def store_of(path: Path, images: dict[str, tuple[UInt8Array, int]], split: dict[str, str]) -> None:
    """Cut every image on a grid that starts at the given offset."""
    writer = StoreWriter.create(path, root_attributes(list(images)))
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "test": []}
    for index, name in enumerate(sorted(images)):
        image, start = images[name]
        corners = [
            (x, y)
            for y in range(start, image.shape[0] - SIZE + 1, SIZE)
            for x in range(start, image.shape[1] - SIZE + 1, SIZE)
        ]
        hr = np.stack([image[y : y + SIZE, x : x + SIZE] for x, y in corners])
        lr = np.stack([cv2.resize(patch, (64, 64), interpolation=cv2.INTER_AREA) for patch in hr])
        table = {
            "x": np.array([x for x, _ in corners]),
            "y": np.array([y for _, y in corners]),
            "kept": np.ones(len(corners), bool),
        }
        attributes = slide_attributes(name, mpp={"value": 0.5}, split=split.get(name, "train"))
        specs = [
            ArraySpec(name="40x", size_px=SIZE),
            ArraySpec(name="10x", size_px=64, factor=4, origin="simulated:area", native=False),
        ]
        with writer.slide(name, specs) as slide:
            slide.append({"40x": hr, "10x": lr})
            slide.finish(table, np.ones((4, 4), np.uint8), attributes)
        rows[split.get(name, "train")] += [(index, row) for row in range(len(corners))]
    writer.commit_splits({name: np.array(value) for name, value in rows.items()})


def find(path: Path) -> list[SameTissue]:
    store = open_pairs(path)
    features = {
        name: describe_slide(store, name, sample_rows(np.arange(len(view))), 1.0)
        for name, view in store.slides.items()
    }
    return find_same_tissue(features, {name: name for name in features})


def test_a_recompressed_shifted_turned_or_mirrored_copy_is_found(tmp_path: Path) -> None:
    one = tissue(0, 900)
    images = {
        "a": (one, 0),
        "jpeg": (jpeg(one, 30), 77),
        "turned": (np.ascontiguousarray(np.rot90(jpeg(one, 60))), 31),
        "mirror": (np.ascontiguousarray((one[:, ::-1] * 0.8).astype(np.uint8)), 51),
        "other": (tissue(1, 900), 0),
        "blank": (np.full((600, 600, 3), 240, np.uint8), 0),
    }
    store_of(tmp_path / "a.zarr", images, {})
    pairs = find(tmp_path / "a.zarr")
    same = ["a", "jpeg", "mirror", "turned"]
    expected = {(m, n) for m in same for n in same if m < n}
    assert {(pair.first, pair.second) for pair in pairs} == expected
    for pair in pairs:
        assert pair.ncc > 0.9
        assert pair.mirrored == ("mirror" in (pair.first, pair.second))


def test_a_small_part_of_a_slide_is_found(tmp_path: Path) -> None:
    one = tissue(3)
    part = jpeg(one[400:930, 300:830], 50)
    store_of(tmp_path / "a.zarr", {"a": (one, 0), "part": (part, 5), "z": (tissue(4), 0)}, {})
    pairs = find(tmp_path / "a.zarr")
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "part")]


def test_verify_refuses_the_same_tissue_in_two_splits_and_warns_within_one(tmp_path: Path) -> None:
    one = tissue(5, 800)
    images = {"a": (one, 0), "b": (jpeg(one, 50), 33), "c": (tissue(6, 800), 0)}
    store_of(tmp_path / "leak.zarr", images, {"b": "test"})
    report = verify_store(tmp_path / "leak.zarr")
    assert [f.check for f in report.findings if f.severity == "error"] == ["duplicates"]
    assert "a and b show the same tissue" in str(report)
    store = open_pairs(tmp_path / "leak.zarr")
    splits = {name: store.split(name) for name in store.split_names()}
    (said,) = tissue_in_two_splits(store, splits)
    assert said.startswith("a and b show the same tissue") and said.endswith("in train and test")
    store_of(tmp_path / "within.zarr", images, {"c": "test"})
    report = verify_store(tmp_path / "within.zarr")
    assert report.ok
    assert "Give them one patient or group" in str(report)
    store = open_pairs(tmp_path / "within.zarr")
    splits = {name: store.split(name) for name in store.split_names()}
    assert tissue_in_two_splits(store, splits) == []


def test_the_same_tissue_in_two_stores_is_found(tmp_path: Path) -> None:
    one = tissue(7, 800)
    store_of(tmp_path / "a.zarr", {"a": (one, 0)}, {})
    store_of(tmp_path / "b.zarr", {"b": (jpeg(one, 50), 33)}, {"b": "test"})
    report = verify_store(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert not report.ok
    assert "A is a.zarr, B is b.zarr" in str(report)
    assert verify_store(tmp_path / "a.zarr").ok


def test_slides_of_one_patient_are_not_compared(tmp_path: Path) -> None:
    one = tissue(8, 600)
    store_of(tmp_path / "a.zarr", {"a": (one, 0), "b": (one, 40)}, {})
    store = open_pairs(tmp_path / "a.zarr")
    features = {name: describe_slide(store, name, np.arange(2), 1.0) for name in store.slides}
    assert find_same_tissue(features, {"a": "P", "b": "P"}) == []
    assert len(find_same_tissue(features, {"a": "P", "b": "Q"})) == 1


def test_a_descriptor_of_the_mirror_image_is_a_permutation() -> None:
    image = cv2.cvtColor(tissue(9, 200), cv2.COLOR_RGB2GRAY)
    finder = cv2.SIFT_create()  # type: ignore[attr-defined]
    points, ours = finder.detectAndCompute(image, None)
    flipped = [
        cv2.KeyPoint(199 - p.pt[0], p.pt[1], p.size, (180 - p.angle) % 360, p.response, p.octave)
        for p in points
    ]
    _, theirs = finder.compute(np.ascontiguousarray(image[:, ::-1]), flipped)
    distance = np.abs(mirrored(ours.astype(np.uint8)).astype(int) - theirs.astype(int))
    unturned = np.abs(ours.astype(int) - theirs.astype(int))
    assert np.median(distance.mean(axis=1)) < 3
    assert np.median(distance.mean(axis=1)) < 0.2 * np.median(unturned.mean(axis=1))


def test_samples_grow_with_the_root_of_a_slide() -> None:
    assert sample_rows(np.arange(0)).tolist() == []
    assert sample_rows(np.arange(50)).tolist() == list(range(50))
    large = sample_rows(np.arange(10_000))
    assert len(large) == 300
    assert len(np.unique(large)) == 300
    assert (large[0], large[-1]) == (0, 9999)


@pytest.mark.parametrize(
    ("fields", "expected"), [([256.0, 512.0], 2.0), ([64.0], 0.5), ([3.0], 0.25), ([1024.0], 4.0)]
)
def test_slides_are_compared_at_a_resolution_that_leaves_enough_pixels(
    fields: list[float], expected: float
) -> None:
    assert common_resolution(fields) == expected


def test_three_files_of_one_real_glass_are_recognised(tmp_path: Path, shared_data: Path) -> None:
    import tifffile

    def level0(name: str) -> UInt8Array:
        return np.asarray(tifffile.imread(shared_data / "slides" / name, series=0, level=0))

    images = {
        "svs": (level0("CMU-1-Small-Region.svs")[:1100], 0),
        "tiff": (level0("derived_cmu_generic_3level.tif")[400:1500], 37),
        "kidney": (level0("kidney-48-5_ihc_flat.tif")[..., :3], 0),
    }
    store_of(tmp_path / "a.zarr", images, {})
    assert [(pair.first, pair.second) for pair in find(tmp_path / "a.zarr")] == [("svs", "tiff")]
