"""Builds on a Dask scheduler of this machine, with workers that die."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsisr.building import BuildRequest, BuildSummary, build_pairs, prepare
from wsisr.errors import BuildError
from wsisr.runners import SerialRunner

distributed = pytest.importorskip("distributed", reason="pip install 'wsisr[dask]'")

QUICK: dict[str, Any] = {"size": 256, "lr": "10x", "registration.method": "none"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        resources={"slides": 1},
        host="127.0.0.1",
        dashboard_address=None,
    ) as made:
        yield made


def build(source: Path, store: Path, runner: Any) -> BuildSummary:
    request = BuildRequest(source=source, output=store, overrides=QUICK, manifest="default")
    summary = build_pairs(prepare(request), runner=runner)
    assert isinstance(summary, BuildSummary)
    return summary


def test_a_worker_killed_in_mid_extract_changes_no_byte(
    cluster: Any, small_camelyon: Path, tmp_path: Path, tree_digest: Callable[[Path], str]
) -> None:
    from wsisr.dask_runner import DaskRunner

    killed: list[int] = []

    def kill() -> None:
        staged = tmp_path / "dask" / "pairs.zarr.partial" / "slides"
        while not (staged.is_dir() and any(staged.iterdir())):
            time.sleep(0.01)
        workers = [worker.pid for worker in cluster.workers.values()]
        os.kill(workers[0], signal.SIGKILL)
        killed.append(workers[0])

    source = tmp_path / "slides"
    source.mkdir()
    for name in ("normal_001", "test_001", "tumor_001"):
        (source / f"{name}.tif").symlink_to(small_camelyon / f"{name}.tif")
    build(source, tmp_path / "serial" / "pairs.zarr", SerialRunner())
    thread = threading.Thread(target=kill)
    thread.start()
    with DaskRunner(cluster.scheduler_address, (source, tmp_path)) as runner:
        assert "2 worker(s)" in runner.about() and "plain tcp" in runner.about()
        summary = build(source, tmp_path / "dask" / "pairs.zarr", runner)
    thread.join()
    assert killed and not summary.failures
    assert tree_digest(tmp_path / "dask") == tree_digest(tmp_path / "serial")


def double(value: int) -> int:
    time.sleep(0.2)
    return 2 * value


def die_or_double(value: int) -> int:
    if value < 0:
        os._exit(1)
    return double(value)


def test_only_the_task_that_kills_its_worker_is_blamed(cluster: Any) -> None:
    from wsisr.dask_runner import DaskRunner

    tasks = [(name, (value,)) for name, value in zip("abcd", (1, 2, -1, 4), strict=True)]
    with DaskRunner(cluster.scheduler_address) as runner:
        outcomes = {outcome.key: outcome for outcome in runner(die_or_double, tasks)}
    assert {key: outcome.value for key, outcome in outcomes.items()} == {
        "a": 2,
        "b": 4,
        "c": None,
        "d": 8,
    }
    assert outcomes["c"].kind == "WorkerDied"


def test_what_does_not_fit_is_one_sentence(cluster: Any, tmp_path: Path) -> None:
    from wsisr.dask_runner import DaskRunner

    with (
        DaskRunner(cluster.scheduler_address, (tmp_path / "elsewhere",)) as runner,
        pytest.raises(BuildError, match=r"does not see .*elsewhere"),
    ):
        list(runner(double, [("a", (1,))]))
    with pytest.raises(BuildError, match="write local or local:N"):
        DaskRunner("local:none").__enter__()
