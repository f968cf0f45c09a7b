"""Slides are staged, committed by one rename, the same bytes every time, and survive anything."""

import errno
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from store_samples import (
    columns,
    make_store,
    patches,
    root_attributes,
    slide_attributes,
    specs,
    tree_bytes,
    write_slide,
)

from wsisr.errors import DiskFullError, StoreError, StoreLockedError
from wsisr.store import (
    ArraySpec,
    StoreWriter,
    keep_pairs,
    local_files,
    open_pairs,
    verify_store,
)
from wsisr.store import presets as store_presets
from wsisr.store import shards as store_shards
from wsisr.store.digests import patch_digests


def test_zarr_python_reads_everything_that_is_written(tmp_path: Path) -> None:
    data = patches(0, 7)
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["one"]))
    mask = np.arange(120, dtype=np.uint8).reshape(12, 10)
    digest = write_slide(writer, "one", data, tissue=mask)
    writer.commit_splits({"train": np.array([[0, 3], [0, 1]])})
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.attrs["wsisr"]["format"] == "wsisr-pairs"
    slide = group["slides/one"]
    assert slide.attrs["wsisr"]["state"] == "complete"
    assert slide.attrs["wsisr"]["digest"] == digest
    for name, images in data.items():
        assert np.array_equal(slide[name][:], images)
    for name, values in columns(7).items():
        assert np.array_equal(slide[f"patches/{name}"][:], values), name
    assert slide["patches/x"].dtype == np.int64
    assert slide["patches/x"].attrs["wsisr"]["unit"] == "level-0 px"
    assert np.array_equal(slide["tissue"][:], mask)
    assert group["splits/train"][:].tolist() == [[0, 1], [0, 3]]
    assert group["splits/test"].shape == (0, 2)


def test_raw_stores_open_in_zarr_python_where_wsisr_is_not(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 3})
    script = f"""
        import sys

        class Nowhere:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("wsisr", "imagecodecs", "xxhash"):
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Nowhere())
        import zarr

        group = zarr.open_group({str(tmp_path / "a.zarr")!r}, mode="r")
        print(int(group["slides/a/40x"][:].sum()), group["splits/train"][:].tolist())
        try:
            import wsisr
        except ModuleNotFoundError:
            print("alone")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    assert found[0] == f"{int(patches(0, 3)['40x'].sum())} [[0, 0], [0, 1], [0, 2]]"
    assert found[1] == "alone"


def test_bytes_do_not_depend_on_batches_order_or_time(tmp_path: Path) -> None:
    counts = {"a": 9, "b": 4}
    make_store(tmp_path / "one.zarr", counts)
    writer = StoreWriter.create(tmp_path / "two.zarr", root_attributes(["b", "a"]))
    write_slide(writer, "b", patches(1, 4), batch=1)
    write_slide(writer, "a", patches(0, 9), batch=9)
    rows = np.array([(0, r) for r in range(9)] + [(1, r) for r in range(4)])
    writer.commit_splits({"train": rows[::-1]})
    writer.clean()
    assert tree_bytes(tmp_path / "one.zarr") == tree_bytes(tmp_path / "two.zarr")
    assert not (tmp_path / "two.zarr.partial").exists()


@pytest.mark.parametrize("codec", ["raw", "small", "zstd"])
def test_digests_of_patches_are_those_of_the_pixels(tmp_path: Path, codec: str) -> None:
    reference = make_store(tmp_path / "raw.zarr", {"a": 6})
    make_store(tmp_path / f"{codec}2.zarr", {"a": 6}, codec=codec)
    one = open_pairs(reference.paths.root).slides["a"].column("digest")
    two = open_pairs(tmp_path / f"{codec}2.zarr").slides["a"].column("digest")
    assert np.array_equal(one, two)
    assert len(np.unique(one)) == 6


def test_a_store_of_version_1_keeps_its_digests_and_is_gone_on_with(tmp_path: Path) -> None:
    data = {"a": patches(0, 3), "b": patches(1, 2)}
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]), version=1)
    write_slide(writer, "a", data["a"])
    again = StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["a", "b"]))
    write_slide(again, "b", data["b"])
    again.commit_splits({"train": np.array([(0, r) for r in range(3)] + [(1, 0), (1, 1)])})
    store = open_pairs(tmp_path / "a.zarr")
    assert store.attributes["format_version"] == 1
    assert "patch_digest" not in store.attributes
    for slide_id, arrays in data.items():
        expected = [
            blake2b(b"".join(array[row].tobytes() for array in arrays.values()), digest_size=8)
            for row in range(len(arrays["40x"]))
        ]
        found = store.slides[slide_id].column("digest")
        assert [int(value).to_bytes(8, "little") for value in found] == [
            digest.digest() for digest in expected
        ]
    column = json.loads((tmp_path / "a.zarr/slides/b/patches/digest/zarr.json").read_text())
    assert column["attributes"]["wsisr"]["meaning"].startswith("BLAKE2b-64 of")
    assert verify_store(tmp_path / "a.zarr").ok


def test_digests_by_two_algorithms_are_never_compared(tmp_path: Path) -> None:
    blocks = list(patches(0, 3).values())
    new, old = patch_digests(blocks), patch_digests(blocks, "blake2b-64")
    assert not new.differ(patch_digests(blocks)).any()
    with pytest.raises(StoreError, match="cannot be compared"):
        new.differ(old)
    with pytest.raises(StoreError, match="upgrade"):
        patch_digests(blocks, "sha3-64")
    make_store(tmp_path / "a.zarr", {"a": 2})
    root = open_pairs(tmp_path / "a.zarr").attributes
    assert (root["format_version"], root["patch_digest"]) == (2, "xxh3-64")


@pytest.mark.parametrize("size_px", [32, 40])
@pytest.mark.parametrize("codec", ["raw", "small"])
def test_bytes_do_not_depend_on_threads(tmp_path: Path, codec: str, size_px: int) -> None:
    monkey = pytest.MonkeyPatch()
    monkey.setattr(store_shards, "_AHEAD", 2)
    if size_px == 40:  # patches of several chunks, which are held until their shard is whole
        preset = store_presets.PRESETS[codec]
        monkey.setitem(store_presets.PRESETS, codec, replace(preset, max_tile_px=16))
    for threads in (1, 3):
        path = tmp_path / f"{threads}.zarr"
        writer = StoreWriter.create(path, root_attributes(["a"]), codec=codec, threads=threads)
        with writer.slide("a", specs(size_px, 4)) as slide:
            changing = {name: array[:1].copy() for name, array in patches(0, 1, size_px).items()}
            for row in range(9):
                for name, array in patches(row, 2, size_px).items():
                    changing[name][:] = array[1:]
                slide.append(changing)
            slide.finish(columns(9, size_px), np.ones((2, 2), np.uint8), slide_attributes("a"))
    monkey.undo()
    assert tree_bytes(tmp_path / "1.zarr") == tree_bytes(tmp_path / "3.zarr")
    kept = open_pairs(tmp_path / "3.zarr").slides["a"].reader("40x").read(range(9))
    assert np.array_equal(
        kept, np.concatenate([patches(r, 2, size_px)["40x"][1:] for r in range(9)])
    )


def test_many_shards_need_no_more_memory_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_shards, "MIN_SHARD_BYTES", 4 * 32 * 32 * 3)
    data = patches(0, 11)
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    with writer.slide("a", specs()) as slide:
        slide.append({name: array[:3] for name, array in data.items()})
        slide.append({name: array[3:] for name, array in data.items()})
        assert slide.patches == 11
        slide.finish(columns(11), np.ones((2, 2), np.uint8), slide_attributes("a"))
    writer.commit_splits({"train": np.array([(0, row) for row in range(11)])})
    shards = sorted(p.name for p in (tmp_path / "a.zarr/slides/a/10x/c").iterdir())
    assert shards == ["0", "1", "2"]
    store = open_pairs(tmp_path / "a.zarr")
    assert np.array_equal(store.read([(0, row) for row in range(11)], "40x"), data["40x"])
    assert verify_store(tmp_path / "a.zarr").ok


def test_a_slide_without_patches_is_a_slide(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 0, "b": 2})
    store = open_pairs(tmp_path / "a.zarr")
    assert len(store.slides["a"]) == 0
    assert store.table("a").rows == 0
    assert zarr.open_group(tmp_path / "a.zarr", mode="r")["slides/a/40x"].shape == (0, 32, 32, 3)
    assert verify_store(tmp_path / "a.zarr").ok


def test_nothing_is_seen_before_finish_and_nothing_stays_after_abort(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    slide = writer.slide("a", specs())
    slide.append(patches(0, 3))
    assert writer.committed() == set()
    assert not open_pairs(tmp_path / "a.zarr").slides
    slide.abort()
    assert not any((tmp_path / "a.zarr.partial/slides").iterdir())
    with pytest.raises(StoreError, match="finished or aborted"):
        slide.append(patches(0, 1))


def test_an_error_inside_the_block_aborts_the_slide(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    with pytest.raises(RuntimeError), writer.slide("a", specs()) as slide:
        slide.append(patches(0, 3))
        raise RuntimeError("the slide broke off")
    assert writer.committed() == set()
    assert not (tmp_path / "a.zarr.partial/slides/a").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"40x": np.zeros((1, 32, 32, 3), np.uint8)}, "got arrays 40x"),
        (
            {"40x": np.zeros((1, 32, 32, 3), np.uint8), "10x": np.zeros((2, 8, 8, 3), np.uint8)},
            "10x: patches are",
        ),
        (
            {"40x": np.zeros((1, 32, 32, 3), np.float32), "10x": np.zeros((1, 8, 8, 3), np.uint8)},
            "float32",
        ),
    ],
)
def test_patches_that_do_not_fit_are_refused(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    with writer.slide("a", specs()) as slide, pytest.raises(StoreError, match=message):
        slide.append(wrong)


def test_arrays_of_different_fields_are_refused(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    with pytest.raises(StoreError, match="fields of view"):
        writer.slide(
            "a",
            [
                ArraySpec(name="40x", size_px=32),
                ArraySpec(name="10x", size_px=9, factor=4.0),
            ],
        )


def test_an_existing_store_is_neither_replaced_nor_a_stranger_deleted(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 2})
    before = tree_bytes(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="--overwrite"):
        StoreWriter.create(tmp_path / "a.zarr", root_attributes(["b"]))
    assert tree_bytes(tmp_path / "a.zarr") == before
    StoreWriter.create(tmp_path / "a.zarr", root_attributes(["b"]), overwrite=True)
    assert open_pairs(tmp_path / "a.zarr").attributes["slides"] == ["b"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match="no pair store"):
        StoreWriter.create(tmp_path / "thesis", root_attributes(["b"]), overwrite=True)
    assert (tmp_path / "thesis/chapter.tex").read_text() == "years of work"


def test_resume_keeps_slides_appends_new_ones_and_refuses_another_manifest(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"b": 2})
    (tmp_path / "a.zarr.partial/slides/dead").mkdir(parents=True)
    again = StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["b"]))
    assert again.committed() == {"b"}
    assert not (tmp_path / "a.zarr.partial/slides").exists()
    assert len(open_pairs(tmp_path / "a.zarr").split("train")) == 2
    # A new slide changes the numbers that splits use: they go until they are written anew.
    more = StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["a", "b"]))
    with pytest.raises(StoreError, match="not finished"):
        open_pairs(tmp_path / "a.zarr").split("train")
    write_slide(more, "a", patches(9, 1))
    more.commit_splits({"train": np.array([[0, 0], [1, 0], [1, 1]])})
    assert verify_store(tmp_path / "a.zarr").ok
    with pytest.raises(StoreError, match="another manifest"):
        StoreWriter.resume(
            tmp_path / "a.zarr", root_attributes(["a", "b"], manifest_sha256="1" * 64)
        )


def test_an_interrupted_overwrite_goes_back_or_is_finished(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", {"a": 2})
    before = tree_bytes(tmp_path / "a.zarr")
    aside = tmp_path / "a.zarr.partial/replaced-root"
    aside.parent.mkdir()
    # Killed after the old was moved aside: it comes back.
    os.rename(tmp_path / "a.zarr", aside)
    StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["a"]))
    assert tree_bytes(tmp_path / "a.zarr") == before
    # Killed after the new was put in place: what is left of the old is deleted.
    (aside / "slides").mkdir(parents=True)
    writer = StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["a"]))
    assert tree_bytes(tmp_path / "a.zarr") == before
    writer.clean()
    assert not aside.parent.exists()


def test_a_committed_slide_can_be_replaced_and_removed(tmp_path: Path) -> None:
    writer = make_store(tmp_path / "a.zarr", {"a": 2, "b": 2})
    write_slide(writer, "a", patches(50, 3))
    assert len(open_pairs(tmp_path / "a.zarr").slides["a"]) == 3
    writer.remove("a")
    writer.clean()
    assert writer.committed() == {"b"}
    assert not (tmp_path / "a.zarr.partial").exists()


def test_without_a_slide_a_store_is_not_finished_until_its_splits_are_written_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.zarr"
    writer = make_store(path, {"a": 3, "b": 2})
    keep_pairs(path, "spread<=1")
    writer.remove("a")
    assert not open_pairs(path).split_names()
    write_slide(writer, "a", patches(50, 2))
    writer.commit_splits({"train": np.array([[0, 0], [0, 1], [1, 0], [1, 1]])})
    writer.clean()
    report = verify_store(path)
    assert report.ok, str(report)
    assert open_pairs(path).attributes["keep"]["kept"] == {"b": 2}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error_and_a_resumable_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a", "b"]))
    write_slide(writer, "a", patches(0, 3))

    def full(fd: int, buffers: Any) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(local_files, "write_parts", full)
        with pytest.raises(DiskFullError, match="run the same command again") as caught:
            write_slide(writer, "b", patches(1, 3))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301
    again = StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["a", "b"]))
    assert again.committed() == {"a"}
    write_slide(again, "b", patches(1, 3))
    again.commit_splits({"train": np.array([(s, r) for s in (0, 1) for r in range(3)])})
    assert verify_store(tmp_path / "a.zarr").ok


def _work(job: tuple[Path, str, int]) -> str:
    path, slide_id, seed = job
    return write_slide(StoreWriter.attach(path), slide_id, patches(seed, 5))


def test_spawned_workers_write_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    rows = np.array([(s, r) for s in range(3) for r in range(5)])
    for name, workers in (("one.zarr", 0), ("two.zarr", 2)):
        writer = StoreWriter.create(tmp_path / name, root_attributes(ids))
        jobs = [(tmp_path / name, slide, seed) for seed, slide in enumerate(ids)]
        if workers:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                pool.map(_work, jobs, chunksize=1)
        else:
            for job in jobs:
                _work(job)
        writer.commit_splits({"train": rows})
        writer.clean()
    assert tree_bytes(tmp_path / "one.zarr") == tree_bytes(tmp_path / "two.zarr")


ORPHAN = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import numpy as np
    from store_samples import columns, patches, slide_attributes, specs
    from wsisr.store import StoreWriter
    slide = StoreWriter.attach(Path(sys.argv[1])).slide("a", specs())
    data = patches(0, 6)
    slide.append({name: array[:3] for name, array in data.items()})
    print("staged", flush=True)
    sys.stdin.readline()
    slide.append({name: array[3:] for name, array in data.items()})
    slide.finish(columns(6), np.ones((12, 10), np.uint8), slide_attributes("a"))
    """
)


@pytest.fixture
def orphan(tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    """A worker in the middle of slide a, whose build is gone."""
    StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path / "a.zarr")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "staged\n"
    yield process
    process.kill()
    process.communicate()


def test_a_worker_that_outlives_its_build_and_the_next_run_do_not_mix(
    tmp_path: Path, orphan: "subprocess.Popen[str]"
) -> None:
    writer = StoreWriter.resume(tmp_path / "a.zarr", root_attributes(["a"]))
    with pytest.raises(StoreLockedError, match="another process is writing slide a"):
        writer.slide("a", specs(), wait_s=0.0)
    orphan.communicate("go on\n")
    assert orphan.returncode == 0
    assert writer.committed() == {"a"}
    orphans = tree_bytes(tmp_path / "a.zarr")
    write_slide(writer, "a", patches(0, 6))
    assert tree_bytes(tmp_path / "a.zarr") == orphans
    writer.clean()
    assert not (tmp_path / "a.zarr.partial").exists()


def test_a_worker_that_outlives_its_store_writes_nothing(
    tmp_path: Path, orphan: "subprocess.Popen[str]"
) -> None:
    root = root_attributes(["a"], manifest_sha256="1" * 64)
    writer = StoreWriter.create(tmp_path / "a.zarr", root, overwrite=True)
    _, errors = orphan.communicate("go on\n")
    assert orphan.returncode != 0
    assert "was replaced" in errors
    assert writer.committed() == set()
    writer.clean()
    assert not (tmp_path / "a.zarr.partial").exists()


def test_a_writer_that_was_taken_for_dead_drops_its_slide(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"]))
    silent = writer.slide("a", specs())
    silent.append(patches(0, 2))
    writer.paths.slide_lock("a").unlink()
    write_slide(writer, "a", patches(1, 6))
    before = tree_bytes(tmp_path / "a.zarr")
    silent.append(patches(0, 4))
    with silent, pytest.raises(OSError):
        silent.finish(columns(6), np.ones((12, 10), np.uint8), slide_attributes("a"))
    assert tree_bytes(tmp_path / "a.zarr") == before
    writer.clean()
    assert not (tmp_path / "a.zarr.partial").exists()


BUILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import numpy as np
    from store_samples import patches, root_attributes, write_slide
    from wsisr.store import StoreWriter
    path = Path(sys.argv[1])
    ids = [f"s{n}" for n in range(6)]
    print("ready", flush=True)
    if (path / "zarr.json").exists() or (path.parent / (path.name + ".partial")).exists():
        try:
            writer = StoreWriter.resume(path, root_attributes(ids))
        except OSError:
            writer = StoreWriter.create(path, root_attributes(ids))
    else:
        writer = StoreWriter.create(path, root_attributes(ids))
    for seed, slide in enumerate(ids):
        if slide not in writer.committed():
            write_slide(writer, slide, patches(seed, 40, 64))
    writer.commit_splits({"train": np.array([(s, r) for s in range(6) for r in range(40)])})
    writer.clean()
    """
)


def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    folder = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": folder}

    def start(path: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(script), str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    began = time.monotonic()
    assert start(tmp_path / "whole.zarr").wait() == 0
    length = time.monotonic() - began
    draws = random.Random(7)
    for _ in range(3):
        process = start(tmp_path / "killed.zarr")
        time.sleep(draws.uniform(0, 0.4 * length))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed.zarr").wait() == 0
    assert tree_bytes(tmp_path / "killed.zarr") == tree_bytes(tmp_path / "whole.zarr")
    assert not (tmp_path / "killed.zarr.partial").exists()
    assert verify_store(tmp_path / "killed.zarr", duplicates=False).ok
