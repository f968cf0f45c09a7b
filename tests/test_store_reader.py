"""`ShardReader` and `open_pairs` give what zarr-python gives, wherever they run."""

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import (
    columns,
    make_store,
    patches,
    root_attributes,
    slide_attributes,
    specs,
    write_slide,
)

from wsisr.errors import CorruptStoreError, StoreError
from wsisr.store import PairStore, ShardReader, StoreWriter, open_pairs
from wsisr.store import presets as store_presets
from wsisr.store import shards as store_shards
from wsisr.store.caches import ShardIndexes
from wsisr.store.local_files import LocalFiles
from wsisr.store.places import Place


@pytest.fixture(scope="module", params=["raw", "small", "zstd"])
def tiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A store whose patches have four padded tiles a side and whose shards hold four patches."""
    path = tmp_path_factory.mktemp("tiled") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_shards, "MIN_SHARD_BYTES", 4 * 32 * 32 * 3)
        preset = store_presets.PRESETS[request.param]
        small = store_presets.CodecPreset(
            name=preset.name, max_tile_px=9, chunk_codecs=preset.chunk_codecs
        )
        patch.setitem(store_presets.PRESETS, request.param, small)
        make_store(path, {"a": 10, "b": 3}, codec=request.param)
    yield path


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_crops_are_those_of_zarr_python(tiled: Path, data: st.DataObject) -> None:
    name, side = data.draw(st.sampled_from([("40x", 32), ("10x", 8)]))
    folder = tiled / "slides/a" / name
    theirs = zarr.open_array(folder, mode="r")
    reader = ShardReader(folder)
    assert reader.direct
    h = data.draw(st.integers(1, side))
    w = data.draw(st.integers(1, side))
    rows = data.draw(st.lists(st.integers(0, 9), max_size=5))
    ys = data.draw(st.lists(st.integers(0, side - h), min_size=len(rows), max_size=len(rows)))
    xs = data.draw(st.lists(st.integers(0, side - w), min_size=len(rows), max_size=len(rows)))
    ours = reader.read(rows, y=ys, x=xs, h=h, w=w)
    assert ours.shape == (len(rows), h, w, 3)
    for image, row, y, x in zip(ours, rows, ys, xs, strict=True):
        assert np.array_equal(image, theirs[row, y : y + h, x : x + w])


def test_batches_mix_slides_in_the_order_asked_for(tiled: Path) -> None:
    store = open_pairs(tiled, threads=2)
    rows = [(1, 2), (0, 9), (1, 0), (0, 0), (1, 2)]
    whole = store.read(rows, "40x")
    truth = [patches(0, 10), patches(1, 3)]
    for image, (slide, row) in zip(whole, rows, strict=True):
        assert np.array_equal(image, truth[slide]["40x"][row])
    crop = store.read(rows, "10x", y=[0, 1, 2, 3, 4], x=1, h=3, w=2)
    for image, (slide, row), y in zip(crop, rows, range(5), strict=True):
        assert np.array_equal(image, truth[slide]["10x"][row, y : y + 3, 1:3])
    target = np.zeros((5, 32, 32, 3), np.uint8)
    assert store.read(rows, "40x", out=target) is target
    assert np.array_equal(target, whole)
    assert np.array_equal(store.patch("b", 2, "40x"), whole[0])
    assert store.read(np.empty((0, 2), np.int32), "40x").shape[0] == 0


def test_foreign_layouts_fall_back_to_zarr_python(tmp_path: Path) -> None:
    data = patches(0, 6)["40x"]
    for name, options in (
        ("plain", {"chunks": (2, 32, 32, 3)}),
        (
            "gzip",
            {
                "chunks": (1, 32, 32, 3),
                "shards": (3, 32, 32, 3),
                "compressors": [zarr.codecs.GzipCodec()],
            },
        ),
        ("start", {"chunks": (1, 16, 32, 3), "shards": (3, 32, 32, 3)}),
    ):
        array = zarr.create_array(
            tmp_path / name,
            shape=data.shape,
            dtype="uint8",
            **options,  # type: ignore[arg-type]
        )
        array[:] = data
        reader = ShardReader(tmp_path / name)
        assert not reader.direct
        assert np.array_equal(reader.read([5, 0, 3]), data[[5, 0, 3]])
        assert np.array_equal(reader.read([4], y=3, x=5, h=7, w=9), data[4:5, 3:10, 5:14])


def test_chunks_that_zarr_python_left_out_are_its_fill_value(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a",
        shape=(6, 8, 8, 3),
        dtype="uint8",
        chunks=(1, 8, 8, 3),
        shards=(2, 8, 8, 3),
        compressors=None,
        fill_value=7,
    )
    array[1] = np.full((8, 8, 3), 9, np.uint8)
    reader = ShardReader(tmp_path / "a")
    assert reader.direct
    assert np.array_equal(reader.read(np.arange(6)), array[:])


def test_zarr_python_finds_the_codec_without_an_import_of_ours(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 3}, codec="small")
    code = (
        "import sys, zarr; image = zarr.open_array(sys.argv[1], mode='r')[2];"
        "sys.stdout.buffer.write(image.tobytes())"
    )
    folder = tmp_path / "a.zarr/slides/a/40x"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, check=True
    )
    assert done.stdout == patches(0, 3)["40x"][2].tobytes()


def test_zarr_python_reads_a_raw_store_where_there_is_no_wsisr(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 3})
    code = (
        "import sys; sys.modules['wsisr'] = None; import zarr;"
        "slide = zarr.open_group(sys.argv[1], mode='r')['slides/a'];"
        "parts = [slide[name][:] for name in ('40x', '10x', 'patches/x', 'patches/digest')];"
        "sys.stdout.buffer.write(b''.join(part.tobytes() for part in parts))"
    )
    store = tmp_path / "a.zarr"
    done = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, check=True)
    view = open_pairs(store).slides["a"]
    columns = [view.column(name).tobytes() for name in ("x", "digest")]
    assert done.stdout == b"".join(
        [*(patches(0, 3)[name].tobytes() for name in ("40x", "10x")), *columns]
    )


def test_a_missing_shard_of_ours_is_an_error_and_not_black(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 3})
    (tmp_path / "a.zarr/slides/a/40x/c/0/0/0/0").unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        open_pairs(tmp_path / "a.zarr").read([(0, 1)], "40x")


@pytest.mark.parametrize("codec", ["raw", "small", "zstd"])
def test_every_flipped_byte_of_a_shard_is_noticed(tmp_path: Path, codec: str) -> None:
    make_store(tmp_path / "a.zarr", {"a": 3}, codec=codec)
    shard = tmp_path / "a.zarr/slides/a/10x/c/0/0/0/0"
    good = bytearray(shard.read_bytes())
    rng = np.random.default_rng(0)
    index = len(good) - 5
    for place in [0, index, len(good) - 1, *rng.integers(0, len(good), 20).tolist()]:
        bad = good.copy()
        bad[place] ^= 1 << int(rng.integers(8))
        shard.write_bytes(bad)
        with pytest.raises(CorruptStoreError):
            ShardReader(tmp_path / "a.zarr/slides/a/10x").read([0, 1, 2])
    shard.write_bytes(good[:-7])
    with pytest.raises(CorruptStoreError):
        ShardReader(tmp_path / "a.zarr/slides/a/10x").read([0])


def test_rows_and_crops_outside_are_refused(tiled: Path) -> None:
    reader = ShardReader(tiled / "slides/a/40x")
    for rows, crop in (
        ([10], {}),
        ([-1], {}),
        ([0], {"y": 30, "h": 3}),
        ([0], {"x": -1, "w": 3}),
        ([0], {"h": 0}),
        ([0.5], {}),
    ):
        with pytest.raises(StoreError):
            reader.read(rows, **crop)  # type: ignore[arg-type]
    store = open_pairs(tiled)
    for bad in ([(2, 0)], [(-1, 0)], [(0, 10)]):
        with pytest.raises(StoreError):
            store.read(bad, "40x")
    with pytest.raises(StoreError, match="no 20x"):
        store.read([(0, 0)], "20x")


def _read(store: "PairStore | ShardReader") -> bytes:
    if isinstance(store, ShardReader):
        return store.read([2, 1]).tobytes()
    return store.read([(0, 2), (0, 1)], "40x").tobytes()


def test_readers_travel_to_spawned_processes_without_descriptors(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 4})
    store = open_pairs(tmp_path / "a.zarr", threads=2)
    reader = store.reader("a", "40x")
    expected = _read(store)
    assert len(pickle.dumps(store)) < 1000
    assert len(pickle.dumps(reader)) < 1000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_read, [store, reader]) == [expected, expected]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_readers_that_were_used_before_a_fork_work_after_it(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 4}, codec="zstd")
    store = open_pairs(tmp_path / "a.zarr", threads=2)
    expected = _read(store)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write_end, b"same" if _read(store) == expected else b"diff")
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == b"same"
    os.waitpid(child, 0)


def test_descriptors_stay_few_while_threads_share_them(tiled: Path) -> None:
    files = LocalFiles(tiled, max_files=1)
    indexes = ShardIndexes(max_indexes=1)
    reader = ShardReader(Place(files, "slides/a/40x"), indexes=indexes)
    truth = patches(0, 10)["40x"]
    rows = np.random.default_rng(0).integers(0, 10, 200)
    with ThreadPoolExecutor(4) as pool:
        for row, image in zip(rows, pool.map(lambda r: reader.read([r])[0], rows), strict=True):
            assert np.array_equal(image, truth[row])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    files.close()
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert before - after <= 4


def test_tables_join_slides_and_hide_what_is_not_kept(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a", "b", "c"]))
    table = columns(4)
    table["kept"] = np.array([True, False, True, True])
    write_slide(writer, "a", patches(0, 4), table=table)
    other = {k: v for k, v in columns(2).items() if k not in ("spread", "verdict", "ncc_band")}
    write_slide(
        writer,
        "c",
        patches(1, 2),
        table=other | {"ncc_10x": np.array([0.5, 0.75])},
        attributes={"labels": ["fat", "normal"]},
    )
    store = open_pairs(tmp_path / "a.zarr")
    assert list(store.slides) == ["a", "c"]
    whole = store.table()
    assert whole.rows == 5
    assert whole.index.tolist() == [[0, 0], [0, 2], [0, 3], [2, 0], [2, 1]]
    assert whole.names("label") == ["normal", "normal", "tumour", "fat", "normal"]
    assert np.isnan(whole["spread"][3:]).all()
    assert np.isnan(whole["ncc_10x"][:3]).all()
    assert whole["verdict"].tolist() == [1, 1, 1, -1, -1]
    assert store.table("a", kept=False).rows == 4
    assert set(store.table(2, columns=["x"])) == {"slide", "row", "x"}
    with pytest.raises(StoreError, match="no such column"):
        store.table(columns=["sprad"])
    with pytest.raises(StoreError, match="failed or is to come"):
        store.table("b")
    assert store.slides["a"].spec("10x").factor == 4
    assert store.slides["a"].tissue().shape == (12, 10)


def test_pandas_is_optional(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 2})
    table = open_pairs(tmp_path / "a.zarr").table()
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(StoreError, match="pip install pandas"):
            table.to_pandas()
    else:
        assert list(table.to_pandas()["x"]) == table["x"].tolist()


def test_what_is_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no zarr\.json"):
        open_pairs(tmp_path)
    zarr.open_group(tmp_path / "g", mode="w")
    with pytest.raises(StoreError, match="no wsisr pair store"):
        open_pairs(tmp_path / "g")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 1})
    meta = tmp_path / "a.zarr/zarr.json"
    meta.write_text(meta.read_text().replace('"format_version": 2', '"format_version": 3'))
    with pytest.raises(StoreError, match="newer wsisr"):
        open_pairs(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="newer wsisr"):
        StoreWriter.attach(tmp_path / "a.zarr")


def test_no_torch_and_no_slide_library_is_needed() -> None:
    code = (
        "import sys, wsisr.store.reader, wsisr.store.writer, wsisr.store.verify;"
        "bad = {'torch', 'openslide', 'tiffslide', 'wsidicom', 'pydicom', 'tifffile', 'zarr'};"
        "sys.exit(bool(bad & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_slide_attributes_are_checked(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    for change, message in (
        ({"patient": None}, "patient"),
        ({"mpp": {"value": -1}}, "mpp"),
        ({"digest": "x"}, "the writer sets"),
        ({"note": object()}, "JSON"),
    ):
        with writer.slide("a", specs()) as slide, pytest.raises(StoreError, match=message):
            slide.append(patches(0, 1))
            slide.finish(columns(1), np.ones((2, 2), np.uint8), {**slide_attributes("a"), **change})
    assert writer.committed() == set()


def test_files_close_with_the_store_and_views_outlive_it(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"one": 3})

    def opened() -> int:
        # Those of this test alone: others in this process may keep a store until it is collected.
        files = psutil.Process().open_files()
        return sum(Path(file.path).is_relative_to(tmp_path) for file in files)

    store = open_pairs(tmp_path / "a.zarr")
    view = store.slides["one"]
    assert store.slides["one"] is view and view.reader("40x") is store.reader("one", "40x")
    store.read(store.split("train"), "40x")
    assert opened() > 0
    gc.disable()  # Circles would wait for it.
    try:
        del store
        assert len(view.reader("40x").read([0])) == 1
        del view
        assert opened() == 0
    finally:
        gc.enable()
