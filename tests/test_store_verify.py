"""`verify` finds every fault and every leak, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import columns, make_store, patches, root_attributes, write_slide

from wsisr.progress import ProgressEvent
from wsisr.store import StoreWriter, verify_store
from wsisr.store.columns import with_crc
from wsisr.store.verify_splits import overlapping


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "a.zarr"
    make_store(path, {"a": 5, "b": 4})
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    shutil.copytree(sound, path)
    return path


def checks(path: Path, **options: Any) -> set[str]:
    report = verify_store(path, **options)
    assert report.ok == (not any(f.severity == "error" for f in report.findings))
    return {f"{f.check} {f.slide}".strip() for f in report.findings if f.severity == "error"}


@pytest.mark.parametrize("codec", ["raw", "small", "zstd"])
def test_a_sound_store_has_no_findings(tmp_path: Path, codec: str) -> None:
    make_store(tmp_path / "a.zarr", {"a": 5, "b": 4}, codec=codec)
    events: list[ProgressEvent] = []
    report = verify_store(tmp_path / "a.zarr", reporter=events.append)
    assert report.ok
    assert not report.findings
    assert (report.slides, report.patches) == (2, 9)
    assert "no fault found" in str(report)
    assert {event.stage for event in events} == {"verify", "duplicates"}


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, sort_keys=True, indent=2) + "\n")


def test_a_flipped_byte_anywhere_is_found(store: Path) -> None:
    rng = np.random.default_rng(1)
    for file in sorted(p for p in store.rglob("*") if p.is_file()):
        good = file.read_bytes()
        bad = bytearray(good)
        bad[int(rng.integers(len(good)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bad)
        if file == store / "zarr.json":
            try:
                ok = verify_store(store, duplicates=False).ok
            except OSError:
                ok = False  # The root itself may not even be readable.
        else:
            ok = verify_store(store, duplicates=False).ok
        file.write_bytes(good)
        assert not ok, file
    assert verify_store(store, duplicates=False).ok


def test_a_missing_file_and_a_strange_one_are_found(store: Path) -> None:
    shard = store / "slides/a/40x/c/0/0/0/0"
    shard.unlink()
    found = checks(store, deep=False, duplicates=False)
    assert found == {"files a", "digest a"}
    assert "checksum a" in checks(store, duplicates=False)
    (store / "slides/b/notes.txt").write_text("hello")
    (store / "notes.txt").write_text("hello")
    found = checks(store, deep=False, duplicates=False)
    assert {"files b", "digest b", "files"} <= found


def test_a_removed_slide_is_a_warning_in_counts_and_an_error_in_splits(store: Path) -> None:
    shutil.rmtree(store / "slides/b")
    report = verify_store(store, duplicates=False)
    assert {(f.severity, f.check) for f in report.findings} == {
        ("warning", "counts"),
        ("error", "splits"),
    }


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("zarr.json", lambda d: d["attributes"]["wsisr"]["manifest"].update(name="other")),
        ("slides/zarr.json", lambda d: d.update(attributes={"a": 1})),
        ("slides/a/zarr.json", lambda d: d["attributes"]["wsisr"].update(patient="me")),
        ("slides/a/zarr.json", lambda d: d.update(note="mine")),
        ("slides/a/10x/zarr.json", lambda d: d["attributes"]["wsisr"].update(native=False)),
        ("slides/a/10x/zarr.json", lambda d: d.update(shape=[4, 8, 8, 3])),
        ("slides/a/patches/x/zarr.json", lambda d: d["attributes"]["wsisr"].update(unit="um")),
        ("slides/a/tissue/zarr.json", lambda d: d.update(shape=[10, 12])),
    ],
)
def test_an_edited_zarr_json_is_found(
    store: Path, file: str, change: Callable[[dict[str, Any]], None]
) -> None:
    edit(store / file, change)
    assert not verify_store(store, deep=False, duplicates=False).ok


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"zarr_format": 3}', "\xff\x00"])
@pytest.mark.parametrize("file", ["slides/a", "slides/a/40x", "slides/a/patches/x", "splits/train"])
def test_a_destroyed_zarr_json_is_a_finding_and_not_a_crash(
    store: Path, file: str, content: str
) -> None:
    (store / file / "zarr.json").write_text(content)
    assert not verify_store(store).ok


def test_exchanged_pixels_with_good_checksums_are_found_by_their_digest(
    store: Path, tmp_path: Path
) -> None:
    other = make_store(tmp_path / "other.zarr", {"z": 5}).paths.root
    write_slide(StoreWriter.attach(other), "z", patches(99, 5))
    name = "40x/c/0/0/0/0"
    shutil.copy(other / "slides/z" / name, store / "slides/a" / name)
    assert checks(store, deep=False, duplicates=False) == set()
    assert checks(store, duplicates=False) == {"digest a"}


def test_changed_kept_pairs_are_found_by_their_splits(store: Path) -> None:
    chunk = store / "slides/a/patches/kept/c/0"
    chunk.write_bytes(with_crc(np.array([1, 1, 0, 1, 1], bool).tobytes()))
    assert checks(store, duplicates=False) == {"splits a"}


def commit(path: Path, splits: dict[str, list[tuple[int, int]]]) -> None:
    StoreWriter.attach(path).commit_splits({k: np.array(v) for k, v in splits.items()})


def build(
    path: Path, slides: dict[str, dict[str, Any]], *, manifest: Any = None, count: int = 3
) -> None:
    """A store whose slides have the given attributes and lie in the splits named there."""
    more = {} if manifest is None else {"manifest": manifest}
    writer = StoreWriter.create(path, root_attributes(list(slides), **more))
    splits: dict[str, list[tuple[int, int]]] = {"train": [], "val": [], "test": []}
    for index, slide in enumerate(sorted(slides)):
        seed = sum(map(ord, slide))
        write_slide(writer, slide, patches(seed, count), attributes=slides[slide])
        splits[slides[slide].get("split", "train")] += [(index, row) for row in range(count)]
    commit(path, splits)


def test_pairs_in_no_split_in_two_and_in_a_wrong_one_are_found(store: Path) -> None:
    every = [(s, r) for s, n in ((0, 5), (1, 4)) for r in range(n)]
    for splits, wrong in (
        ({"train": every[1:]}, {"splits a"}),
        ({"train": every, "test": every[:1]}, {"splits a", "patients", "footprint"}),
        ({"train": every[:5], "test": every[5:]}, {"splits b"}),
        ({"train": [*every, (0, 5)]}, {"splits a"}),
    ):
        commit(store, splits)
        assert checks(store, duplicates=False) == wrong, splits


@pytest.mark.parametrize("what", ["patient", "group", "fingerprint"])
def test_a_leak_between_splits_is_found(tmp_path: Path, what: str) -> None:
    name = "profile 7"  # a name with "file" in it is no file
    build(tmp_path / "a.zarr", {"a": {what: name}, "b": {what: name, "split": "test"}})
    expected = "footprint" if what == "fingerprint" else "patients"
    assert checks(tmp_path / "a.zarr", duplicates=False) == {expected}


def test_one_glass_of_two_patients_is_said_even_within_a_split(tmp_path: Path) -> None:
    build(tmp_path / "a.zarr", {"a": {"fingerprint": "F"}, "b": {"fingerprint": "F"}})
    report = verify_store(tmp_path / "a.zarr", duplicates=False)
    assert report.ok
    assert "the same file belongs to patients" in str(report)


def test_a_declared_leaky_store_is_accepted_with_its_overlap_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    manifest = {"name": "mlcamsr", "split": {"kind": "paper-random"}}
    writer = StoreWriter.create(path, root_attributes(["a"], manifest=manifest))
    table = columns(4) | {"x": np.array([0, 16, 64, 128]), "y": np.zeros(4, np.int64)}
    attributes = {"split": None}
    write_slide(writer, "a", patches(0, 4), table=table, attributes=attributes)
    commit(path, {"train": [(0, 0), (0, 2)], "test": [(0, 1), (0, 3)]})
    report = verify_store(path)
    assert report.ok
    assert "LEAKY as declared" in str(report)
    assert "1 of 2 test patches (50.0 %)" in str(report)


def test_geometry_that_cannot_be_is_found(tmp_path: Path) -> None:
    for change, attributes, text in (
        ({"x": np.array([0, 2, 64])}, {}, "not whole pixels of 10x"),
        ({"x": np.array([-4, 0, 64])}, {}, "outside the slide"),
        ({}, {"levels": [{"width_px": 64, "height_px": 64}]}, "beyond the slide"),
        ({}, {"mpp": {"value": 0.5}}, "um/px"),
        ({"label": np.array([0, 1, 2])}, {}, "2 labels"),
        ({}, {"funnel": {"kept": 2}}, "funnel"),
    ):
        path = tmp_path / "a.zarr"
        writer = StoreWriter.create(path, root_attributes(["a"]), overwrite=True)
        write_slide(writer, "a", patches(0, 3), table=columns(3) | change, attributes=attributes)
        commit(path, {"train": [(0, 0), (0, 1), (0, 2)]})
        report = verify_store(path)
        assert not report.ok
        assert text in str(report)


def test_an_unfinished_store_is_said(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a", "b"]))
    write_slide(writer, "a", patches(0, 3))
    report = verify_store(tmp_path / "a.zarr")
    assert not report.ok
    assert "the build is not finished" in str(report)
    assert "1 planned slides are not in it: b" in str(report)


def test_leaks_between_two_stores_are_found(tmp_path: Path) -> None:
    build(tmp_path / "a.zarr", {"a": {"patient": "P1"}, "c": {"patient": "P3", "split": "test"}})
    build(tmp_path / "b.zarr", {"b": {"patient": "P1", "split": "test"}})
    build(tmp_path / "d.zarr", {"d": {"patient": "P3", "split": "test"}})
    assert checks(tmp_path / "a.zarr", against=tmp_path / "b.zarr") == {"patients"}
    report = verify_store(tmp_path / "a.zarr", tmp_path / "d.zarr")
    assert report.ok
    assert "patient P3" in str(report)


def test_slides_that_are_called_alike_are_no_shared_patients(tmp_path: Path) -> None:
    assumed = {"patient_source": "assumed", "patient_quality": "assumed", "overridden": []}
    case = {"patient": "case0", "group": "case0", "fingerprint": "one", **assumed}
    build(tmp_path / "a.zarr", {"case0": case})
    build(tmp_path / "b.zarr", {"case0": case | {"split": "test", "fingerprint": "another"}})
    report = verify_store(tmp_path / "a.zarr", tmp_path / "b.zarr", duplicates=False)
    assert report.ok and "patient case0" not in str(report) and "group case0" not in str(report)
    assert "1 of 1 slides here and 1 of 1 in b.zarr are assumed: such slides were comp" in str(
        report
    )
    # The same file and the same glass are, whatever they are called.
    build(tmp_path / "c.zarr", {"x": case | {"split": "test", "patient": "x"}})
    report = verify_store(tmp_path / "a.zarr", tmp_path / "c.zarr", duplicates=False)
    assert not report.ok and "the same file: case0 here, x in c.zarr" in str(report)
    stated = {"group": "group-1", "overridden": ["group"]}
    for name, patient in (("d", "d1"), ("e", "e1")):
        split = {"patient": patient, "split": "train" if name == "d" else "test"}
        split["fingerprint"] = name
        build(tmp_path / f"{name}.zarr", {name: case | stated | split})
    report = verify_store(tmp_path / "d.zarr", tmp_path / "e.zarr", duplicates=False)
    assert not report.ok and "group group-1" in str(report)


@settings(max_examples=60, deadline=None)
@given(
    ours=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12),
    theirs=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12),
    field=st.integers(1, 20),
)
def test_overlap_is_shared_area(
    ours: list[tuple[int, int]], theirs: list[tuple[int, int]], field: int
) -> None:
    def boxes(corners: list[tuple[int, int]]) -> np.ndarray:
        places = np.array(corners, np.float64).reshape(-1, 2)
        return np.concatenate([places, places + field], axis=1)

    hit = overlapping(boxes(ours), boxes(theirs))
    expected = [any(abs(x - a) < field and abs(y - b) < field for a, b in theirs) for x, y in ours]
    assert hit.tolist() == expected
