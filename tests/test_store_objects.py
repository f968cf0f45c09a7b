"""Stores in buckets: the same numbers as on a disk, never half a slide, never a secret."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import make_store, patches, root_attributes, tree_bytes, write_slide

from wsisr.errors import CorruptStoreError, StoreError
from wsisr.store import StoreWriter, keep_pairs, object_files, open_pairs, verify_store
from wsisr.store.object_files import LISTING, MARK, ObjectFiles
from wsisr.store.places import Place, place_of
from wsisr.store.upload import upload_into, upload_store

obstore = pytest.importorskip("obstore", reason="needs obstore (the extra s3)")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    make_store(path, {"a": 10, "b": 3})
    return path


def bucket() -> ObjectFiles:
    return ObjectFiles("memory://bucket/a.zarr", obstore.store.MemoryStore())


def content(files: ObjectFiles) -> dict[str, bytes]:
    return {key: bytes(obstore.get(files.store, key).bytes()) for key in files.sizes("")}


@pytest.fixture
def there(local: Path) -> ObjectFiles:
    files = bucket()
    upload_into(local, files)
    files.forget()
    return files


def asked(files: ObjectFiles, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests from now on."""
    verbs: list[str] = []
    ask = files._ask

    def noted(key: Any, verb: str, *words: Any, **options: Any) -> Any:
        verbs.append(verb)
        return ask(key, verb, *words, **options)

    monkeypatch.setattr(files, "_ask", noted)
    return verbs


def test_a_store_in_a_bucket_is_the_one_on_the_disk(local: Path, there: ObjectFiles) -> None:
    one, two = open_pairs(local), open_pairs(Place(there), threads=3, check=True)
    rows = np.array([(s, r) for s, n in ((0, 10), (1, 3)) for r in range(n)])[::-1]
    for array in one.arrays:
        assert np.array_equal(one.read(rows, array), two.read(rows, array))
        crops = {"y": rows[:, 1] % 3, "x": 1, "h": 5, "w": 4}
        assert np.array_equal(one.read(rows, array, **crops), two.read(rows, array, **crops))
    assert one.split_names() == two.split_names()
    assert all(np.array_equal(one.split(n), two.split(n)) for n in one.split_names())
    ours, theirs = one.table(), two.table()
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[c], theirs[c], equal_nan=c != "digest") for c in ours)
    assert np.array_equal(one.slides["a"].tissue(), two.slides["a"].tissue())
    assert one.content_digest() == two.content_digest()
    assert verify_store(Place(there), local, duplicates=False).findings
    assert verify_store(Place(there)).ok
    written = {k: v for k, v in content(there).items() if k != LISTING}
    assert written == tree_bytes(local)


def test_damage_in_a_bucket_is_found(there: ObjectFiles) -> None:
    shard = bytearray(there.get("slides/a/40x/c/0/0/0/0"))
    shard[100] ^= 1
    there.put("slides/a/40x/c/0/0/0/0", [bytes(shard)])
    there.put("slides/a/more", [b"x"])
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        open_pairs(Place(there)).read([(0, r) for r in range(10)], "40x")
    found = verify_store(Place(there)).text()
    assert "checksum" in found and "not part of the store: more" in found
    there.delete(["slides/a/40x/c/0/0/0/0"])
    with pytest.raises(CorruptStoreError, match="is missing"):
        open_pairs(Place(there)).patch("a", 0, "40x")


def test_ranges_are_fetched_together_and_once(
    there: ObjectFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_pairs(Place(there))
    rows = [(s, r) for s, n in ((0, 10), (1, 3)) for r in range(n)]
    store.reader("a", "40x"), store.reader("b", "40x")
    verbs = asked(there, monkeypatch)
    first = store.read(rows, "40x")
    # A shard each: its index, then all of its chunks.
    assert sorted(verbs) == ["get", "get", "get_ranges", "get_ranges"]
    verbs.clear()
    assert np.array_equal(store.read(rows, "40x"), first) and not verbs


def test_what_is_kept_in_memory_is_bounded(
    there: ObjectFiles, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_files, "CACHE_BYTES", 20_000)
    files = ObjectFiles(there.url, there.store)
    store, rows = open_pairs(Place(files)), [(0, r) for r in range(10)]
    assert np.array_equal(store.read(rows, "40x"), open_pairs(local).read(rows, "40x"))
    kept = sum(len(data) for data in files._cache._values.values())
    assert 0 < kept == files._cache.weight <= 20_000


def test_an_upload_that_is_cut_anywhere_shows_no_half_slide(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bucket()
    upload_into(local, whole)
    expected = content(whole)
    slides = {
        key.split("/")[1] for key in expected if key.startswith("slides/") and key[7:].count("/")
    }
    put, files = ObjectFiles.put, bucket()
    monkeypatch.setattr("wsisr.store.upload.LANES", 1)
    cuts = sent = 0
    while True:
        room = [5]

        def limited(self: ObjectFiles, key: str, parts: Any, room: list[int] = room) -> int:
            room[0] -= 1
            if room[0] < 0:
                raise KeyboardInterrupt
            return put(self, key, parts)

        with monkeypatch.context() as patch:
            # What it can count on grows, so that it ends: a cut slide of this kind of bucket, whose
            # tags are no checksums, begins anew.
            room[0] += 5 * cuts
            patch.setattr(ObjectFiles, "put", limited)
            try:
                sent += upload_into(local, files).sent
                break
            except KeyboardInterrupt:
                cuts += 1
        have = content(files)
        assert "zarr.json" not in have and MARK in have
        for slide in slides:
            if f"slides/{slide}/zarr.json" in have:
                want = {k: v for k, v in expected.items() if k.startswith(f"slides/{slide}/")}
                assert {k: have.get(k) for k in want} == want
        with pytest.raises(StoreError, match=r"no zarr\.json"):
            open_pairs(Place(ObjectFiles(files.url, files.store)))
    assert cuts > 3 and content(files) == expected
    assert 0 < sent < len(expected) - 10


def test_an_upload_again_sends_nothing_and_a_grown_store_adds(
    local: Path, there: ObjectFiles, tmp_path: Path
) -> None:
    before = content(there)
    again = upload_into(local, there)
    assert content(there) == before and again.sent <= 8  # the splits and `kept`, by their tags
    writer = StoreWriter.resume(local, root_attributes(["a", "b", "c"]))
    write_slide(writer, "c", patches(7, 2))
    rows = {"train": [(0, 0), (2, 1)], "test": [(1, 0)]}
    writer.commit_splits({name: np.array(value) for name, value in rows.items()})
    upload_into(local, there)
    assert {k: v for k, v in content(there).items() if k != LISTING} == tree_bytes(local)


def test_kept_pairs_that_were_judged_anew_are_sent(local: Path, there: ObjectFiles) -> None:
    keep_pairs(local, "spread<0.5")
    result = upload_into(local, there)
    assert {k: v for k, v in content(there).items() if k != LISTING} == tree_bytes(local)
    assert (
        result.sent < 12 and open_pairs(Place(there)).table().rows == open_pairs(local).table().rows
    )


def test_what_is_anothers_is_not_replaced(
    local: Path, there: ObjectFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.zarr"
    make_store(other, {"a": 4})
    before = content(there)
    with pytest.raises(StoreError, match=r"slides that this one does not list; add --overwrite"):
        upload_into(other, there)
    assert content(there) == before
    upload_into(other, there, overwrite=True)
    assert {k: v for k, v in content(there).items() if k != LISTING} == tree_bytes(other)
    # Killed when it had begun to take the other store away.
    delete, gone = ObjectFiles.delete, []

    def cut(self: ObjectFiles, keys: Any) -> None:
        delete(self, keys[:3])
        gone.extend(keys)
        if len(keys) > 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ObjectFiles, "delete", cut)
        upload_into(local, there, overwrite=True)
    assert "zarr.json" in gone and "slides/a/zarr.json" in there.sizes("")
    there.put("slides/left/zarr.json", [b"{}"])
    upload_into(local, there)
    assert {k: v for k, v in content(there).items() if k != LISTING} == tree_bytes(local)
    foreign = bucket()
    foreign.put("thesis.docx", [b"years of work"])
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="not empty and no pair store"):
            upload_into(local, foreign, overwrite=overwrite)
    foreign.put("zarr.json", [b'{"zarr_format": 3, "node_type": "group"}'])
    with pytest.raises(StoreError, match="no pair store, so --overwrite does not delete"):
        upload_into(local, foreign, overwrite=True)
    assert foreign.get("thesis.docx") == b"years of work"


def test_a_web_server_needs_the_list_that_an_upload_leaves(there: ObjectFiles, local: Path) -> None:
    web = ObjectFiles("http://host/a.zarr", there.store)
    assert not web.lists
    ours, theirs = open_pairs(local), open_pairs(Place(web))
    assert ours.table().rows == theirs.table().rows
    assert ours.slides["a"].columns() == theirs.slides["a"].columns()
    there.put(LISTING, [b'{"root": "another", "files": {}}'])
    with pytest.raises(StoreError, match=r"cannot be asked what lies there.*s3://"):
        open_pairs(Place(ObjectFiles("http://host/a.zarr", there.store))).slides["a"].columns()


@pytest.mark.parametrize(
    "url", ["s3://key:topsecret@bucket/a.zarr", "https://host/a.zarr?X-Amz-Signature=topsecret"]
)
def test_no_secret_belongs_into_an_address(url: str) -> None:
    with pytest.raises(StoreError, match="do not belong into an address") as caught:
        open_pairs(Path(url))
    assert "topsecret" not in str(caught.value)


def test_answers_of_servers_are_not_repeated(there: ObjectFiles, monkeypatch: Any) -> None:
    def refused(*given: Any, **more: Any) -> None:
        raise obstore.exceptions.GenericError(
            "status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>"
            "<AWSAccessKeyId>AKIASECRET</AWSAccessKeyId><SignatureProvided>topsecret</Signature>"
        )

    monkeypatch.setattr(obstore, "get", refused)
    with pytest.raises(StoreError, match=r"may not read .*SignatureDoesNotMatch, 403") as caught:
        open_pairs(Place(there))
    assert "SECRET" not in str(caught.value).upper().replace("BUCKET", "")
    assert caught.value.__suppress_context__


def test_without_obstore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, local: Path) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "obstore"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoreError, match=r"pip install 'wsisr\[s3\]'"):
        open_pairs("s3://bucket/a.zarr")
    with pytest.raises(StoreError, match=r"pip install 'wsisr\[s3\]'"):
        upload_store(local, "s3://bucket/a.zarr")
    with pytest.raises(StoreError, match=r"is no bucket; name one as s3://bucket/a\.zarr"):
        upload_store(local, "https://host/a.zarr")
    with pytest.raises(StoreError, match="from a folder or from s3"):
        place_of("ftp://host/a.zarr")
