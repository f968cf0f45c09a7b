"""Stores that others made or that time has damaged: a sentence with the file, never more."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_samples import make_store

from wsisr.errors import CorruptStoreError, StoreError
from wsisr.store import export_store, open_pairs, verify_store


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    make_store(folder / "a.zarr", {"s0": 3, "s1": 2})
    return folder / "a.zarr"


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "a.zarr"))


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def slide_attributes_of(document: Any) -> Any:
    return document["attributes"]["wsisr"]


@pytest.mark.parametrize(
    "name", ["../../outside", "/tmp/outside", "..", "patches", "a/b", "", 7, None, ["x"]]
)
def test_a_hostile_array_name_opens_nothing_and_writes_nowhere(
    store: Path, tmp_path: Path, name: Any
) -> None:
    rewrite(store / "slides/s0/zarr.json", lambda d: slide_attributes_of(d)["arrays"].append(name))
    with pytest.raises(StoreError, match="s0"):
        export_store(store, "png", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) in (["a.zarr"], ["a.zarr", "out.partial"])
    rewrite(store / "zarr.json", lambda d: slide_attributes_of(d)["magnifications"].append(name))
    with pytest.raises(StoreError):
        open_pairs(store)


@pytest.mark.parametrize("name", ["../s0", "", 5, None])
def test_a_hostile_slide_id_is_refused(store: Path, name: Any) -> None:
    rewrite(store / "zarr.json", lambda d: slide_attributes_of(d)["slides"].append(name))
    with pytest.raises(StoreError, match=r"zarr\.json|slide id"):
        open_pairs(store)


def test_check_compares_every_slide_with_its_digest(store: Path) -> None:
    assert list(open_pairs(store, check=True).slides) == ["s0", "s1"]
    rewrite(
        store / "slides/s1/zarr.json",
        lambda d: slide_attributes_of(d).update(patient="somebody else"),
    )
    open_pairs(store)
    with pytest.raises(CorruptStoreError, match="s1 is not as it was written"):
        open_pairs(store, check=True)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("s0/40x/zarr.json", '"bytes"', '"bxtes"'),
        ("s0/40x/zarr.json", '"array"', '"arraz"'),
        ("s0/40x/zarr.json", '"shape"', '"shapf"'),
        ("s0/10x/zarr.json", '"chunk_grid"', '"chunk_grie"'),
        ("s0/10x/zarr.json", '"size_px"', '"size_py"'),
        ("s0/zarr.json", '"arrays"', '"arrayt"'),
        ("s0/zarr.json", '"patches"', '"patchet"'),
        ("s0/patches/x/zarr.json", '"int64"', '"int65"'),
        ("s0/tissue/zarr.json", '"shape"', '"shapf"'),
    ],
)
def test_verify_names_a_broken_slide_and_goes_on(
    store: Path, tmp_path: Path, file: str, old: str, new: str
) -> None:
    path = store / "slides" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    kept = store / "slides/s1/patches/kept/c/0"
    kept.write_bytes(bytes(len(kept.read_bytes())))
    found = [f for f in verify_store(store).findings if f.severity == "error"]
    assert {f.slide for f in found if f.slide} == {"s0", "s1"}
    with pytest.raises(StoreError, match=r"s0|s1"):
        export_store(store, "png", tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "[" * 20_000, '{"zarr_format": 3}'])
@pytest.mark.parametrize("file", ["zarr.json", "slides/s0/zarr.json", "slides/s0/40x/zarr.json"])
def test_metadata_of_any_kind_is_a_sentence(store: Path, file: str, text: str) -> None:
    (store / file).write_text(text)
    with pytest.raises(StoreError, match=r"a\.zarr"):
        open_pairs(store).patch("s0", 0, "40x")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("slides", ["s0", "s9"], "has no slide 's9'"),
        ("magnifications", ["40x", "9x"], "an array '10x' that the store does not name"),
    ],
)
def test_a_root_that_names_other_slides_or_arrays_is_one_sentence(
    store: Path, tmp_path: Path, key: str, value: list[str], words: str
) -> None:
    rewrite(store / "zarr.json", lambda d: slide_attributes_of(d).update({key: value}))
    with pytest.raises(StoreError, match=words):
        export_store(store, "png", tmp_path / "out")
    assert not verify_store(store).ok
