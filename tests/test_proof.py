"""Proof on a device, run on the CPU: plan, checks, planted faults, a report that goes on."""

import io
import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from wsisr import host
from wsisr.errors import ConfigError
from wsisr.models import list_models
from wsisr.models.layers.blocks import ResidualBlock
from wsisr.models.srcnn import Srcnn
from wsisr.proof import checks, run, worker
from wsisr.proof.bench import Bench
from wsisr.proof.plan import FAMILIES, Form, ProofCheck, plan_checks
from wsisr.proof.table import report_text
from wsisr.proof.targets import TARGETS
from wsisr.proof.worker import answer
from wsisr.training import recipes

torch.set_num_threads(1)
NETWORKS = [name for name in list_models() if name != "bicubic"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(work=tmp_path_factory.mktemp("proof"), device=torch.device("cpu"), preset="tiny")


def test_a_plan_has_every_network_in_every_form_and_tells_most_first() -> None:
    planned = plan_checks(gpu=True, cards=2)
    assert len({check.key for check in planned}) == len(planned)
    trained = [check for check in planned if check.kind == "train"]
    # Three precisions, eager and compiled, checkpointed or not, resident or streamed.
    assert {check.model for check in trained} == set(NETWORKS)
    assert sum(check.model == "mihatp" for check in trained) == 3 * 2 * 2 * 2
    first = [check.model for check in planned if check.kind == "train"][: len(NETWORKS)]
    assert tuple(first[:5]) == FAMILIES and set(first) == set(NETWORKS)
    assert all(check.form == Form(precision="bf16") for check in trained[: len(NETWORKS)])
    assert {check.kind for check in planned[:120]} >= {"agree", "resume", "evaluate", "upscale"}
    assert planned[-1].form.departures == 3
    assert [c for c in planned if c.kind == "cards"]
    assert ProofCheck.of(json.loads(json.dumps(planned[-1].document()))) == planned[-1]


def test_without_a_gpu_nothing_is_trained_in_float16() -> None:
    # What is known to corrupt memory is not tried, and only where it is.
    wrong = [plan_checks(["li2021"], gpu=gpu) for gpu in (False, True)]
    assert [any(c.form.compiled for c in planned) for planned in wrong] == [False, True]
    planned = plan_checks(["srcnn"], gpu=False)
    assert {c.form.precision for c in planned if c.kind == "train"} == {"fp32", "bf16"}
    assert {c.form.precision for c in planned if c.kind == "agree"} == {"fp32", "bf16", "fp16"}
    assert not any(c.kind == "cards" for c in planned)
    older = plan_checks(["srcnn"], gpu=True, bfloat16=False)
    assert {c.form.precision for c in older} == {"fp32", "fp16"}


@pytest.mark.parametrize("kind", ["draws", "train", "agree", "evaluate", "upscale", "memory"])
def test_a_sound_network_passes(bench: Bench, kind: Any) -> None:
    row = answer(ProofCheck(kind=kind, model="srcnn"), bench)
    assert row["state"] == "pass", row
    assert row["facts"]


def test_speed_is_measured_beside_the_plain_form(bench: Bench) -> None:
    facts = answer(ProofCheck(kind="speed", model="masrnet"), bench)["facts"]
    assert facts["samples_per_s"] > 0 and facts["plain_samples_per_s"] > 0
    assert facts["busy"] > 0 and facts["memory_mib"] > 0


def planted_nan(self: Srcnn, lr: torch.Tensor, right: Any = Srcnn.forward) -> torch.Tensor:
    out: torch.Tensor = right(self, lr)
    return out * float("nan") if torch.is_autocast_enabled("cpu") else out


def test_a_nan_in_bfloat16_is_found_and_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Srcnn, "forward", planted_nan)
    check = ProofCheck(kind="train", model="srcnn", form=Form(precision="bf16"))
    row = answer(check, bench)
    assert (row["state"], row["fault"]) == ("fail", "not finite")
    report = {"identity": {"device": "cpu"}, "rows": {check.key: {**check.document(), **row}}}
    said = report_text(report)
    assert "**not finite**, first in train srcnn bf16" in said
    assert "What to try: train with train.precision=fp32" in said


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (lambda loss, lr: loss.item(), "wait"),
        (lambda loss, lr: bool(lr.max() > 0.5), "wait"),
        (lambda loss, lr: lr.nonzero(), "wait"),
        (lambda loss, lr: lr[lr > 0.5], "wait"),
        (lambda loss, lr: lr.numpy(), "stray"),
        (lambda loss, lr: lr.flatten(1) @ torch.ones(lr[0].numel(), 2), "stray"),
        (lambda loss, lr: lr + torch.randn_like(lr), "draw"),
        (lambda loss, lr: random.random(), "draw"),
        (lambda loss, lr: lr.double().mean(), "double"),
    ],
)
def test_what_a_gpu_refuses_or_waits_for_is_found_and_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, plant: Any, fault: str
) -> None:
    right = recipes.PixelRecipe.step

    def step(self: Any, model: Any, batch: Any, backward: Any) -> Any:
        terms = right(self, model, batch, backward)
        plant(terms["loss"], batch.lr)
        return terms

    monkeypatch.setattr(recipes.PixelRecipe, "step", step)
    row = answer(ProofCheck(kind="rehearse", model="srcnn"), bench)
    assert (row["state"], row["fault"]) == ("fail", fault)
    assert "test_proof.py" in row["said"] or "wsisr/" in row["said"] or "random" in row["said"]
    check = ProofCheck(kind="rehearse", model="srcnn")
    said = report_text(
        {"identity": {"device": "cpu"}, "rows": {check.key: {**check.document(), **row}}}
    )
    assert f"**{fault}**, first in rehearse srcnn fp32: " in said and "report the line" in said


def test_a_tensor_changed_in_place_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Srcnn.forward

    def forward(self: Srcnn, lr: torch.Tensor) -> torch.Tensor:
        return right(self, lr).sigmoid().mul_(2.0)

    monkeypatch.setattr(Srcnn, "forward", forward)
    row = answer(ProofCheck(kind="rehearse", model="srcnn"), bench)
    assert row["state"] == "fail" and "inplace operation" in row["said"]


def test_a_layer_that_is_another_when_it_is_computed_again_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ResidualBlock.forward

    def forward(self: ResidualBlock, x: torch.Tensor) -> torch.Tensor:
        # As a layer does that changes a tensor of its own in place.
        self.planted = getattr(self, "planted", 0) + 1
        return right(self, x * (1.0 + self.planted % 2))

    monkeypatch.setattr(ResidualBlock, "forward", forward)
    check = ProofCheck(kind="train", model="edsr", form=Form(checkpointed=True))
    row = answer(check, bench)
    assert (row["state"], row["fault"]) == ("fail", "another form"), row
    assert "grad_norm" in row["said"]


def test_an_output_that_is_off_disagrees(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Srcnn.forward

    def off(self: Srcnn, lr: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = right(self, lr)
        return out if out.dtype == torch.float64 else out + 1e-3

    monkeypatch.setattr(Srcnn, "forward", off)
    row = answer(ProofCheck(kind="agree", model="srcnn"), bench)
    assert (row["state"], row["fault"]) == ("fail", "disagrees")


PASSED = {"state": "pass", "facts": {"words": 1}}


CPU = run.ProofRequest(device="cpu")


class Scripted:
    """A worker that answers as it is told: a row, or how its process ended."""

    longest_s = run.LONGEST_S["cpu"]

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def ask(self, check: ProofCheck, limit_s: float, end: float) -> Any:
        self.asked.append(check.key)
        found = self.answers.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Nothing to end."""


def test_a_report_is_whole_after_a_break_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_checks(["srcnn"], gpu=False)[:3]
    path = tmp_path / "gpu.json"
    first = Scripted(PASSED, KeyboardInterrupt())
    monkeypatch.setattr(run, "_Worker", lambda *_: first)
    with pytest.raises(KeyboardInterrupt):
        run.prove(path, CPU, checks=planned)
    assert list(run.read_report(path)["rows"]) == [planned[0].key]
    second = Scripted(PASSED, None)
    monkeypatch.setattr(run, "_Worker", lambda *_: second)
    run.prove(path, CPU, checks=planned)
    assert second.asked == [planned[1].key, planned[2].key]
    assert list(run.read_report(path)["rows"]) == [check.key for check in planned[:2]]
    with pytest.raises(ConfigError, match="was begun with preset tiny, not preset recommended"):
        run.prove(path, replace(CPU, preset="recommended"), checks=planned)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="does not describe a report of wsisr doctor --gpu"):
        run.prove(path, CPU, checks=planned)


def test_what_the_time_stopped_is_tried_last_and_fails_only_with_time_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_checks(["srcnn"], gpu=False)[:2]
    path, clock = tmp_path / "gpu.json", [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: clock[0])

    class Slow(Scripted):
        def ask(self, check: ProofCheck, limit_s: float, end: float) -> Any:
            found = super().ask(check, limit_s, end)
            clock[0] += limit_s if found is None else 40.0
            return found

    def call(*answers: Any) -> tuple[Slow, Any]:
        worker = Slow(*answers)
        monkeypatch.setattr(run, "_Worker", lambda *_: worker)
        return worker, run.prove(path, replace(CPU, minutes=1.0), checks=planned)

    worker, report = call(None)
    assert worker.asked == [planned[0].key] and report["stopped"] == [planned[0].key]
    assert "tried last next: draws srcnn fp32" in report_text(report)
    # Only a third of the time is left for it now: it is not held against it.
    worker, report = call(PASSED, None)
    assert worker.asked == [planned[1].key, planned[0].key]
    assert list(report["rows"]) == [planned[1].key] and report["stopped"]
    _, report = call(None)
    assert report["rows"][planned[0].key]["fault"] == "time" and not report["stopped"]


def test_what_a_killed_run_left_is_removed_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".gpu.json.work" / "runs"
    left.mkdir(parents=True)
    monkeypatch.setattr(run, "_Worker", lambda *_: Scripted(PASSED))
    told: list[str] = []
    run.prove(
        tmp_path / "gpu.json",
        CPU,
        checks=plan_checks(["srcnn"], gpu=False)[:1],
        note=told.append,
    )
    assert told == [f"{left.parent}: an earlier run was killed and left this; removed."]
    assert [p.name for p in tmp_path.iterdir() if p.name != ".gpu.json.lock"] == ["gpu.json"]


def test_a_worker_ends_with_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    monkeypatch.setattr(worker.sys, "stdin", io.StringIO("{}\n"))
    asked: SimpleQueue[str] = SimpleQueue()
    worker._listen(asked)
    assert asked.get() == "{}\n" and ended == [0]


def test_what_was_not_compiled_has_not_passed_as_compiled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = ProofCheck(kind="train", model="srcnn", form=Form(compiled=True))
    right = torch.nn.Module.compile
    # Graphs are found and run as they are: no C++ is made.
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, mode, dynamic: right(self, backend="eager")
    )
    row = answer(check, bench)
    assert row["state"] == "pass" and row["facts"]["graphs"] >= 1, row
    assert row["facts"]["graph_breaks"] == 0 and row["facts"]["loss_from_plain"] < 1e-4
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode, dynamic: None)
    assert answer(check, bench)["fault"] == "not compiled"


def test_targets_are_judged_at_their_size_alone(bench: Bench) -> None:
    row = answer(ProofCheck(kind="target", model="iste-fusion"), bench)
    assert row["state"] == "pass" and "reached" not in row["facts"], row
    assert row["facts"]["largest_difference"] < 1e-5 and row["facts"]["plain_mib"] > 0
    reached = TARGETS["iste-fusion"].reached
    fast = {"mib": 2000.0, "largest_difference": 1e-6, "times_plain": 1.2}
    assert reached(fast) and not reached(fast | {"mib": 2200.0})
    assert not reached(fast | {"times_plain": 0.9})
    flat = {"half_mib": 900.0, "mib": 950.0, "host_mib": 2000, "busy": 0.95}
    assert TARGETS["upscale"].reached(flat) and not TARGETS["upscale"].reached(flat | {"busy": 0.8})


def test_a_worker_that_dies_or_hangs_is_a_fault_and_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, sys, time\n"
        "for line in sys.stdin:\n"
        "    kind = json.loads(line)['kind']\n"
        "    if kind == 'memory': print('planted words', file=sys.stderr); os._exit(7)\n"
        "    if kind == 'speed': time.sleep(60)\n"
        "    if kind == 'resume' and not os.path.exists('killed'):\n"
        "        open('killed', 'w').close(); os.kill(os.getpid(), 9)\n"
        "    print(json.dumps({'state': 'pass', 'facts': {}}), flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    right = run.subprocess.Popen

    def popen(command: list[str], **more: Any) -> Any:
        return right([command[0], str(script)], **more)

    monkeypatch.setattr(run.subprocess, "Popen", popen)
    process = run._Worker(tmp_path, torch.device("cpu"), "tiny", 600.0)
    try:
        crashed = process.ask(ProofCheck(kind="memory", model="srcnn"), 30, 1e12)
        assert crashed is not None and crashed["fault"] == "crash"
        assert "exit 7" in crashed["said"] and "planted words" in crashed["said"]
        hung = process.ask(ProofCheck(kind="speed", model="srcnn"), 0.3, 1e12)
        assert hung is not None and hung["fault"] == "time"
        assert process.ask(ProofCheck(kind="speed", model="srcnn"), 0.1, 0.0) is None
        resumed = process.ask(ProofCheck(kind="resume", model="srcnn"), 30, 1e12)
        assert resumed == {"state": "pass", "facts": {}}
    finally:
        process.close()


def test_a_killed_run_goes_on_to_the_same_losses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(number: int, kind: int) -> None:
        assert (number, kind) == (os.getpid(), signal.SIGKILL)
        raise Killed

    monkeypatch.setattr(host.os, "kill", kill)
    check = ProofCheck(kind="resume", model="srcnn")
    with pytest.raises(Killed):
        checks.do(check, bench)
    row = answer(check, bench)
    assert row["state"] == "pass" and row["facts"]["bit_equal"], row


def test_a_report_in_words_counts_and_names_each_kind_of_fault_once() -> None:
    def row(kind: Any, model: str, fault: str | None = None, **facts: Any) -> dict[str, Any]:
        state = (
            {"state": "fail", "fault": fault, "said": f"{model} fell"}
            if fault
            else {"state": "pass", "facts": facts}
        )
        return {**ProofCheck(kind=kind, model=model).document(), **state}

    rows = [
        row("train", "iste", data_wait_ms=1.5),
        row("speed", "iste", samples_per_s=3.0, memory_mib=10.0, busy=0.5, times_plain=2.0,
            plain_memory_mib=30.0),
        row("train", "hat", "crash"),
        row("train", "rcan", "crash"),
        row("target", "texture-128", ms=3.0),
    ]  # fmt: skip
    said = report_text(
        {
            "identity": {"device": "cpu", "torch": "2"},
            "rows": dict(enumerate(rows)),
            "planned": ["a"] * 9,
        }
    )
    assert "5 of 9 checks done, 2 failed." in said
    assert "| iste | fp32 | 3 | 2.00 | 10 | 30 | 1.50 | 50 % |" in said
    assert "**crash** (and 1 more), first in train hat fp32: hat fell" in said
    assert said.count("What to try") == 1
    assert "128 x 128 LR: <= 0.2x the memory, exact | not its size | ms 3.0 |" in said
