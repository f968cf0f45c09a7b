"""Slides that are copied to a fast disk first, from a folder or a bucket, make the same store."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layout_samples import dicom_slide
from test_building_build import small_slide

from wsisr.building import BuildRequest, build_pairs, describe_plan, prepare
from wsisr.building.staging import LOCK, PREFIX, opened_source, own_folder, sweep
from wsisr.errors import BuildError, StoreError
from wsisr.runners import SerialRunner
from wsisr.store import object_files
from wsisr.store.object_files import ObjectFiles

Digest = Callable[[Path], str]

OVERRIDES: dict[str, Any] = {"size": 64, "hr": "20x", "lr": "10x", "registration.method": "none"}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF slide, a DICOM series of two files, and a slide that is none."""
    folder = tmp_path_factory.mktemp("staged") / "slides"
    folder.mkdir()
    small_slide(folder / "a.tif", 3)
    dicom_slide(folder / "glass", 11, "P1", "1.3.6.1.4.1.5962.99.1.77.1")
    (folder / "broken.svs").write_bytes(b"II*\0 and nothing else")
    return folder


def build(source: Path | str, output: Path, **more: Any) -> int:
    request = BuildRequest(
        source=Path(source), output=output, manifest="default", overrides=OVERRIDES, **more
    )
    with opened_source(request) as here:
        return build_pairs(prepare(here), runner=SerialRunner()).exit_code


@pytest.fixture(scope="module")
def whole(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "pairs.zarr"
    assert build(slides, store) == 1
    return store


def failures(store: Path) -> str:
    return store.with_name("pairs.report").joinpath("failures.csv").read_text(encoding="utf-8")


@pytest.fixture
def bucket(slides: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of the slides."""
    stores = pytest.importorskip("obstore.store", reason="needs obstore (the extra s3)")

    def opened(url: str) -> Any:
        path = Path(slides.parent, url.partition("://bucket/")[2])
        return stores.LocalStore(path) if path.is_dir() else stores.MemoryStore()

    monkeypatch.setattr(object_files, "open_bucket", opened)
    return "s3://bucket/slides"


def test_a_staged_build_is_the_same_and_leaves_nothing(
    slides: Path, whole: Path, tmp_path: Path, tree_digest: Digest
) -> None:
    stage, store = tmp_path / "fast", tmp_path / "pairs.zarr"
    assert build(slides, store, stage=stage) == 1
    assert tree_digest(store) == tree_digest(whole)
    assert failures(store) == failures(whole) and "broken.svs" in failures(whole)
    assert not list(stage.iterdir())


def test_slides_of_a_bucket_make_the_store_of_the_folder(
    bucket: str, whole: Path, tmp_path: Path, tree_digest: Digest
) -> None:
    stage, store = tmp_path / "fast", tmp_path / "pairs.zarr"
    assert build(bucket, store, stage=stage) == 1
    assert tree_digest(store) == tree_digest(whole)
    assert failures(store) == failures(whole)
    assert not list(stage.iterdir())
    # Again: what is there is not fetched once more, but for the slide that failed.
    fetched: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        fetch = ObjectFiles.fetch
        patch.setattr(
            ObjectFiles,
            "fetch",
            lambda self, key, path: (fetched.append(key), fetch(self, key, path)),
        )
        assert build(bucket, store, stage=stage) == 1
    assert fetched == ["broken.svs"] and tree_digest(store) == tree_digest(whole)


def test_one_slide_of_a_bucket_and_its_dry_run(bucket: str, tmp_path: Path) -> None:
    for url in (f"{bucket}/a.tif", f"{bucket}/glass/a.dcm"):
        request = BuildRequest(
            source=Path(url), manifest="default", overrides=OVERRIDES, output=tmp_path / "p.zarr"
        )
        with opened_source(request) as here:
            plan = describe_plan(prepare(here), runner=SerialRunner())
        assert plan.exit_code == 0 and "from 1 slide (0 fail)" in plan.text, plan.text
    with pytest.raises(BuildError, match="nothing lies there"):
        build(f"{bucket}/b.tif", tmp_path / "p.zarr")


def test_a_slide_that_was_cut_off_on_its_way_is_a_row(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: ObjectFiles, key: str, path: Path) -> None:
        path.write_bytes(b"II*\0")

    monkeypatch.setattr(ObjectFiles, "fetch", cut)
    assert build(bucket, tmp_path / "pairs.zarr", stage=tmp_path / "fast") == 2
    told = failures(tmp_path / "pairs.zarr")
    assert "4 bytes came of" in told and "s3://bucket/slides/a.tif" in told
    assert not list((tmp_path / "fast").iterdir())


def test_names_that_leave_the_folder_are_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ObjectFiles.objects
    monkeypatch.setattr(
        ObjectFiles,
        "objects",
        lambda self, key: {f"x/../../{k}": v for k, v in objects(self, key).items()},
    )
    with pytest.raises(BuildError, match="is no name of a file"):
        build(bucket, tmp_path / "pairs.zarr", stage=tmp_path / "fast")


def test_what_a_killed_run_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / LOCK).touch()
    (dead / "slide.svs").write_bytes(b"x")
    (tmp_path / "thesis").mkdir()
    child = os.fork()
    if child == 0:  # killed with a folder of its own
        with own_folder(tmp_path):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 2
    with own_folder(tmp_path) as mine:
        sweep(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / "thesis"])
        with (mine / LOCK).open() as held, pytest.raises(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_place_that_cannot_be_staged_in_is_refused(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="name another folder with --stage"):
        build(slides, tmp_path / "p.zarr", stage=tmp_path / "file" / "below")
    with pytest.raises(StoreError, match="do not belong into an address"):
        build("s3://key:word@bucket/slides", tmp_path / "p.zarr")
