"""A build in shares and phases, as schedulers run it: the same bytes, and exit codes that say what
is left to do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from wsisr import open_pairs
from wsisr.building import BuildRequest, Prepared, ShareSummary, build_pairs, prepare
from wsisr.building.build import WAITING
from wsisr.errors import WsisrError
from wsisr.runners import SerialRunner
from wsisr.store.layout import StorePaths
from wsisr.store.lock import SlideLock

Digest = Callable[[Path], str]

QUICK: dict[str, Any] = {"size": 256, "lr": "10x", "registration.method": "none"}
NAMES = ("normal_001", "test_001", "tumor_001")


@pytest.fixture(scope="module")
def slides(small_camelyon: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for name in NAMES:
        (folder / f"{name}.tif").symlink_to(small_camelyon / f"{name}.tif")
    return folder


def shares(source: Path, store: Path, *changes: dict[str, Any]) -> list[Prepared]:
    """One run for each of the changes."""
    fixed: dict[str, Any] = {"source": source, "output": store, "overrides": QUICK}
    return [prepare(BuildRequest(**fixed, manifest="default", **change)) for change in changes]


def codes(runs: Sequence[Prepared]) -> list[int]:
    """Exit codes, one after the other."""
    return [build_pairs(prepared, runner=SerialRunner()).exit_code for prepared in runs]


@pytest.fixture(scope="module")
def whole(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "pairs.zarr"
    assert codes(shares(slides, store, {})) == [0]
    return store


def test_parts_make_the_same_bytes(
    whole: Path, slides: Path, tmp_path: Path, tree_digest: Digest
) -> None:
    store = tmp_path / "pairs.zarr"
    # Of four parts the first holds no slide, and the others one each.
    parts = shares(slides, store, *({"part": (index, 4)} for index in (3, 2, 4, 1)))
    (finish,) = shares(slides, store, {"phase": "finish"})
    assert codes([*parts, finish]) == [WAITING, WAITING, 0, 0, WAITING]
    assert codes([*parts, finish]) == [0, 0, 0, 0, 0]
    assert tree_digest(store) == tree_digest(whole)


def test_phases_slide_by_slide_make_the_same_bytes_and_say_what_they_wait_for(
    whole: Path, slides: Path, tmp_path: Path, tree_digest: Digest
) -> None:
    store = tmp_path / "pairs.zarr"
    scans = store.with_name("pairs.zarr.partial") / "scan"
    scan, extract = (
        shares(slides, store, *({"phase": phase, "slides": (f"{n}.tif",)} for n in NAMES))
        for phase in ("scan", "extract")
    )
    plan, finish = shares(slides, store, {"phase": "plan"}, {"phase": "finish"})
    assert codes([extract[0], finish, plan]) == [WAITING] * 3
    assert codes([scan[2], scan[0], plan, scan[1], extract[0]]) == [0, 0, WAITING, 0, 0]
    assert codes([plan, plan, finish]) == [0, 0, WAITING]
    # What a slide gives was written down: no other scan is needed.
    (scans / "normal_001.json").rename(tmp_path / "normal_001.json")
    assert codes([extract[1]]) == [0]
    (tmp_path / "normal_001.json").rename(scans / "normal_001.json")
    assert codes([*extract, finish]) == [0, 0, 0, 0]
    assert tree_digest(store) == tree_digest(whole)
    assert not scans.parent.exists()


def test_a_slide_that_another_process_writes_is_put_back_and_is_no_failure(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "pairs.zarr"
    for name in ("BUSY_WAIT_S", "ORPHAN_WAIT_S"):
        monkeypatch.setattr(f"wsisr.building.phases.{name}", 0.0)
    (part,) = shares(slides, store, {"part": (1, 1)})
    lock = SlideLock(StorePaths(store).slide_lock("tumor_001"))
    assert lock.acquire()
    summary = build_pairs(part, runner=SerialRunner())
    lock.release()
    assert isinstance(summary, ShareSummary) and summary.waiting and not summary.failed
    assert "tumor_001 is being written by another process" in summary.text()
    assert sorted(open_pairs(store).slides) == ["normal_001", "test_001"]
    assert codes([part]) == [0]


def test_a_slide_that_fails_is_told_by_its_share_alone(slides: Path, tmp_path: Path) -> None:
    source, store = tmp_path / "study", tmp_path / "pairs.zarr"
    source.mkdir()
    (source / "a.tif").symlink_to(slides / "normal_001.tif")
    (source / "b.tif").write_bytes((slides / "tumor_001.tif").read_bytes()[:5000])
    scan = shares(source, store, *({"phase": "scan", "slides": (n,)} for n in ("a.tif", "b.tif")))
    rest = shares(source, store, *({"phase": p} for p in ("plan", "extract", "finish")))
    assert codes([*scan, *rest]) == [0, 1, 1, 1, 1]
    assert list(open_pairs(store).slides) == ["a"]
    assert "b.tif" in (tmp_path / "pairs.report" / "failures.csv").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phase": "plan", "part": (1, 2)}, "once for all slides"),
        ({"part": (1, 2), "overwrite": True}, "--overwrite replaces a whole store"),
        ({"slides": ("normal_001.tif",), "part": (1, 2)}, "give one of them"),
        ({"slides": ("tumor_01.tif",)}, "did you mean 'tumor_001.tif'"),
    ],
)
def test_shares_that_make_no_sense_are_refused(
    slides: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    (prepared,) = shares(slides, tmp_path / "p.zarr", change)
    with pytest.raises(WsisrError, match=words):
        build_pairs(prepared, runner=SerialRunner())
