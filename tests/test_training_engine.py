"""The loop: exact resume, independence of threads and caches, equal processes, honest failures."""

import json
import multiprocessing
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from training_samples import make_store, small_request

from wsisr.errors import ConfigError, OutputError
from wsisr.inference import open_run
from wsisr.models import load_model
from wsisr.progress import ProgressEvent
from wsisr.store import open_pairs
from wsisr.training import (
    TrainingError,
    TrainRequest,
    bench,
    engine,
    job,
    resolve_config,
    train,
    validation,
)
from wsisr.training.data import PairDataset
from wsisr.training.plan import plan_data
from wsisr.training.state import read_state

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("engine") / "pairs.zarr")


def weights(folder: Path, name: str = "last") -> dict[str, Tensor]:
    return load_model(folder / name).state_dict()


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor], atol: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=atol, msg=key)


def killed_run(request: TrainRequest, step: int) -> None:
    """In a process of its own: train, and die without warning after a step."""
    torch.set_num_threads(1)

    def report(event: ProgressEvent) -> None:
        if event.stage == "train" and event.done >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    train(request, report)


def test_a_run_killed_and_resumed_equals_an_unbroken_one(store: Path, tmp_path: Path) -> None:
    more = ("train.log_every=1", "train.ema=0.9", "val.every=4")
    whole = small_request(store, tmp_path / "whole", *more)
    train(whole)
    broken = small_request(store, tmp_path / "broken", *more)
    process = multiprocessing.get_context("spawn").Process(target=killed_run, args=(broken, 13))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert open_run(broken.output or Path()).state == "running"
    went_on: list[int] = []

    def note(event: ProgressEvent) -> None:
        if event.done:
            went_on.append(event.done)

    train(replace(broken, resume=True, assignments=("data.workers=2", "data.cache=stream")), note)
    assert went_on[-1] == 20 and min(e for e in went_on if e > 10) == 11
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    a, b = (read_state(tmp_path / name / "checkpoints") for name in ("whole", "broken"))
    assert a is not None and b is not None
    assert_equal(dict(a.tensors), dict(b.tensors))
    rows = [(tmp_path / name / "validation.csv").read_text() for name in ("whole", "broken")]
    assert rows[0] == rows[1]
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("whole", "broken")]
    assert [r.split(",")[:3] for r in logs[0]] == [r.split(",")[:3] for r in logs[1]]
    lines = (tmp_path / "broken" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 21))


@pytest.mark.parametrize(
    "how", [("data.cache=stream", "data.workers=0"), ("data.cache=stream", "data.workers=3")]
)
def test_threads_and_caches_change_nothing(
    store: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    for name, more in (("ram", ("data.cache=ram",)), ("other", how)):
        train(small_request(store, tmp_path / name, *more, steps=8, lr_source="bicubic"))
    assert_equal(weights(tmp_path / "ram"), weights(tmp_path / "other"))


def test_accumulated_batches_are_one_large_batch(store: Path, tmp_path: Path) -> None:
    train(small_request(store, tmp_path / "one", "data.batch=8", steps=5))
    train(small_request(store, tmp_path / "two", "data.batch=4", "train.accumulate=2", steps=5))
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"), atol=1e-6)


def rank_run(request: TrainRequest, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train(request)
    # A group that is kept has threads, which abort a process that ends.
    assert not [p for p in Path("/proc/self/task").glob("*/comm") if "gloo" in p.read_text()]


def test_two_processes_equal_one_of_twice_the_batch(store: Path, tmp_path: Path) -> None:
    more = ("val.count=3", "val.every=6", "optim.clip_norm=0.05")
    train(small_request(store, tmp_path / "one", "data.batch=8", *more, steps=12))
    pair = small_request(store, tmp_path / "two", "data.batch=4", *more, steps=12)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank_run, args=(pair, rank, port)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"), atol=1e-5)
    rows = [
        [[float(v) for v in line.split(",")] for line in text.splitlines()[1:]]
        for text in ((tmp_path / n / "validation.csv").read_text() for n in ("one", "two"))
    ]
    assert len(rows[0]) == len(rows[1]) == 3
    torch.testing.assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), rtol=0, atol=1e-2)


def test_steps_that_are_not_finite_are_skipped_and_counted(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsisr.training import recipes

    seen: list[int] = []
    before: list[Tensor] = []
    right = recipes.PixelRecipe.step

    def wrong(self, model, batch, backward):  # type: ignore[no-untyped-def]
        seen.append(batch.draws.step)
        if batch.draws.step == 3:
            before.append(next(model.parameters()).detach().clone())
            return right(self, model, batch, lambda loss: backward(loss * float("nan")))
        if batch.draws.step == 4:
            assert torch.equal(before[0], next(model.parameters()))
        return right(self, model, batch, backward)

    monkeypatch.setattr(recipes.PixelRecipe, "step", wrong)
    train(small_request(store, tmp_path / "run", "train.log_every=1", steps=6))
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    place = log[0].split(",").index("skipped")
    assert [line.split(",")[place] for line in log[1:]] == ["0", "0", "0", "1", "1", "1"]
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())


def test_many_bad_steps_in_a_row_end_the_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsisr.training import recipes

    right = recipes.PixelRecipe.step
    monkeypatch.setattr(
        recipes.PixelRecipe,
        "step",
        lambda self, model, batch, backward: right(
            self, model, batch, lambda loss: backward(loss * float("inf"))
        ),
    )
    with pytest.raises(TrainingError, match=r"not finite for .* lower optim\.lr"):
        train(small_request(store, tmp_path / "run", "train.max_skipped=4"))


def test_exhausted_memory_names_the_settings_to_lower(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsisr.training import recipes

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(recipes.PixelRecipe, "step", full)
    with pytest.raises(TrainingError, match=r"lower data\.batch .* train\.checkpointing=true"):
        train(small_request(store, tmp_path / "run"))


def test_an_interrupt_keeps_the_step_and_resumes(store: Path, tmp_path: Path) -> None:
    def interrupt(event: ProgressEvent) -> None:
        if event.done == 7:
            signal.raise_signal(signal.SIGINT)

    request = small_request(store, tmp_path / "run", "train.log_every=1")
    outcome, folder = train(request, interrupt)
    assert outcome.state == "interrupted" and outcome.step == 7
    run = open_run(folder)
    assert (run.state, run.step) == ("interrupted", 7)
    again, _ = train(replace(request, resume=True, assignments=()))
    assert again.state == "finished" and again.step == 20
    train(small_request(store, tmp_path / "whole", "train.log_every=1"))
    assert_equal(weights(tmp_path / "whole"), weights(folder))


def test_a_broken_state_falls_back_to_the_one_before(store: Path, tmp_path: Path) -> None:
    request = small_request(store, tmp_path / "run", "train.keep_last=2", steps=12)
    train(request)
    kept = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    assert [path.stem for path in kept] == ["step-00000010", "step-00000012"]
    content = bytearray(kept[1].read_bytes())
    content[-3] ^= 1
    kept[1].write_bytes(content)
    said: list[str] = []
    outcome, _ = train(
        replace(request, resume=True, assignments=()), lambda event: said.append(event.message)
    )
    assert outcome.step == 12
    assert any("step-00000012.safetensors is broken" in text for text in said)
    for path in sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors")):
        path.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="No whole state is left"):
        train(replace(request, resume=True, assignments=()))


def test_the_run_folder_is_complete_and_self_describing(store: Path, tmp_path: Path) -> None:
    outcome, folder = train(small_request(store, tmp_path / "run", "val.every=10"))
    run = open_run(folder)
    assert run.state == "finished" and run.step == run.steps == 20
    assert (run.model, run.scale, run.kind, run.preset) == ("srcnn", 4, "fixed", "tiny")
    assert run.lr_origin == "stored-level" and run.degradation is None
    assert run.patients == {f"patient {name}" for name in "abcd"}
    assert run.groups == {f"glass {name}" for name in "abcd"}
    assert run.document["origins"] == {"40x": "stored-level", "10x": "stored-level"}
    assert run.document["best"]["psnr"] == outcome.best["psnr"]  # type: ignore[index]
    for name in ("config.yaml", "environment.json", "log.csv", "log.jsonl", "card.md"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "curves.png").is_file()
    assert sorted(p.name for p in (folder / "samples").iterdir()) == [
        f"step-{step:08d}.png" for step in (0, 10, 20)
    ]
    header = (folder / "validation.csv").read_text().splitlines()[0]
    assert header.startswith("step,psnr_rgb,psnr_y,ssim_rgb,bicubic_psnr_rgb,bicubic_psnr_y")
    assert (
        (folder / "log.csv")
        .read_text()
        .startswith("step,loss,lr,samples_per_s,data_wait_ms,step_ms,grad_norm,memory_mib,skipped")
    )
    extra = json.loads((run.weights / "config.json").read_text())["extra"]
    assert extra["lr_origin"] == "stored-level" and extra["diagnostic_use"] is False
    assert extra["store"]["digest"] == run.store["digest"] and extra["run"] == "run"
    card = (folder / "card.md").read_text()
    assert "Not for diagnosis" in card and "stored-level" in card
    hub = (folder / "best/README.md").read_text()
    front = yaml.safe_load(hub.split("---")[1])
    assert front["library_name"] == "wsisr" and front["license"] == "other"
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"]["split"] == "validation"
    assert {metric["type"] for metric in result["metrics"]} == {"psnr", "ssim"}
    assert str(folder.parent) not in hub + (folder / "run.json").read_text()
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".partial")]


def test_output_that_is_not_finite_is_never_the_best(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clamped to white it would have scores; as NaN it would never be beaten, came it first."""
    real, calls = validation.Network.render, iter([True, False, True, True])
    diverged = [False]

    def render(network: Any, *args: Any) -> Any:
        if diverged[0]:
            raise OutputError("inf")
        return real(network, *args)

    def validate(*args: Any, **kwargs: Any) -> Any:
        diverged[0] = next(calls)
        return validation.validate(*args, **kwargs)

    monkeypatch.setattr(validation.Network, "render", render)
    monkeypatch.setattr(job, "validate", validate)
    folder, events = tmp_path / "run", []
    request = small_request(store, folder, "val.every=5", steps=15)
    train(request, lambda event: events.append(event.message))
    lines = (folder / "validation.csv").read_text().splitlines()[1:]
    scores = [line.split(",")[1] for line in lines]
    assert [bool(s) and s != "nan" for s in scores] == [False, True, False, False]
    document = json.loads((folder / "run.json").read_text())
    assert document["best"]["step"] == 5 and (folder / "best").is_dir()
    assert sum("output with inf or NaN" in text for text in events) == 2  # not of the check before


def test_validation_leaves_constant_fields_out_and_caps_identical_images(
    store: Path, tmp_path: Path
) -> None:
    assert validation._means([{"psnr_rgb": float("inf")}, {"psnr_rgb": 20.0}]) == {
        "psnr_rgb": pytest.approx(60.0)
    }
    setting = small_request(store, tmp_path / "run")
    config = resolve_config("srcnn", preset="tiny", assignments=setting.assignments).config
    pairs = open_pairs(store)
    plan = plan_data(pairs, scale=4, lr_source="bicubic")
    data = PairDataset(pairs, arrays=["40x"], rows=plan.val)
    assert len(validation.build_samples(plan, data, config, [4.0])[4.0]) == 2

    class Glass:
        def __len__(self) -> int:
            return 2

        def read(self, array: str, rows: Any, y: int, x: int, side: int) -> Any:
            crops = data.read(array, rows, y, x, side)
            return crops if rows[0] else np.full_like(crops, 243)

    (sample,) = validation.build_samples(plan, Glass(), config, [4.0])[4.0]  # type: ignore[arg-type]
    assert sample.number == 1
    Glass.__len__ = lambda self: 1  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="all 1 validation samples at x4 are constant"):
        validation.build_samples(plan, Glass(), config, [4.0])  # type: ignore[arg-type]


def test_a_dry_run_writes_nothing(store: Path, tmp_path: Path) -> None:
    outcome, folder = train(small_request(store, tmp_path / "run"), dry_run=True)
    assert outcome.step == 2 and outcome.validation and not folder.exists()


def test_a_synthetic_measurement_counts_all_steps_after_the_warm_up(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    counted: list[int] = []
    right = engine._Interval.close

    def close(window: engine._Interval) -> dict[str, float]:
        counted.append(window.steps)
        return right(window)

    monkeypatch.setattr(engine._Interval, "close", close)
    outcome = bench.run_synthetic(small_request(store, tmp_path / "run"), lambda _: None, 5)
    assert counted == [5, 5] and outcome.speed["samples_per_s"] > 0


def test_another_store_or_setting_is_not_resumed(store: Path, tmp_path: Path) -> None:
    request = small_request(store, tmp_path / "run", steps=2)
    train(request)
    with pytest.raises(ConfigError, match="go on with it by --resume"):
        train(request)
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.00\d, not 0\.1"):
        train(replace(request, resume=True, assignments=("optim.lr=0.1",)))
    with pytest.raises(ConfigError, match="is a run of srcnn, not of edsr"):
        train(replace(request, resume=True, model="edsr", assignments=()))
    other = make_store(tmp_path / "other.zarr", count=5)
    with pytest.raises(ConfigError, match="another store"):
        train(replace(request, resume=True, data=other, assignments=()))
