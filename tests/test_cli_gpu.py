"""`wsisr doctor --gpu` and `--card`: what they take, refuse and answer with."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from training_samples import make_store
from typer.testing import CliRunner, Result
from wsisr_cli.main import app

from wsisr.errors import ConfigError, ModelError
from wsisr.proof import run
from wsisr.proof.plan import ProofCheck

torch.set_num_threads(1)


def wsisr(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


class Worker:
    """Answers as it is told, and then no more."""

    answers: ClassVar[list[dict[str, Any]]] = []
    longest_s = run.LONGEST_S["cpu"]

    def __init__(self, *given: Any) -> None:
        self.left = list(self.answers)

    def ask(self, check: ProofCheck, limit_s: float, end: float) -> dict[str, Any] | None:
        return self.left.pop(0) if self.left else None

    def close(self) -> None:
        """Nothing to end."""


def test_doctor_writes_the_report_tells_the_fault_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_Worker", Worker)
    command = ("doctor", "--gpu", "--device", "cpu", "--model", "srcnn", "-o", tmp_path / "g.json")
    Worker.answers = [{"state": "pass", "facts": {"words": 1}}]
    first = wsisr(*command)
    assert first.exit_code == 0, first.output
    assert "PASS  draws srcnn fp32" in first.stderr and "The same command goes on" in first.stdout
    Worker.answers = [{"state": "fail", "fault": "not finite", "said": "losses [nan]"}]
    second = wsisr(*command)
    assert second.exit_code == 1
    # Training was stopped when the time was over, and comes last now.
    assert "draws" not in second.stderr and "FAIL  agree srcnn fp32" in second.stderr
    assert "**not finite**, first in agree srcnn fp32: losses [nan]" in second.stdout
    assert "What to try: train with train.precision=fp32" in second.stdout
    report = json.loads((tmp_path / "g.json").read_text())
    assert list(report["rows"]) == ["draws srcnn fp32", "agree srcnn fp32"]
    # Nothing of this machine's folders or people.
    assert str(tmp_path) not in (tmp_path / "g.json").read_text()


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("slide.svs",), ConfigError, "--gpu looks at no slide"),
        (("--device", "cuda:99"), ConfigError, "--device cuda:99: t"),
        (("--device", "gpu"), ConfigError, "no such device"),
        (("--model", "mihapt"), ModelError, "did you mean 'mihatp'"),
    ],
)
def test_doctor_refuses_in_a_sentence_and_writes_nothing(
    tmp_path: Path, words: tuple[str, ...], error: type[Exception], said: str
) -> None:
    done = wsisr("doctor", "--gpu", *words, "-o", tmp_path / "gpu.json")
    assert isinstance(done.exception, error) and said in str(done.exception), done.output
    assert not list(tmp_path.iterdir())


def test_doctor_leaves_a_file_that_is_no_report(tmp_path: Path) -> None:
    other = tmp_path / "gpu.json"
    other.write_text("[]", encoding="utf-8")
    done = wsisr("doctor", "--gpu", "--device", "cpu", "-o", other)
    assert isinstance(done.exception, ConfigError) and "is no report" in str(done.exception)
    assert other.read_text() == "[]"


def test_a_network_is_shown_on_a_named_card_and_on_that_of_a_report(tmp_path: Path) -> None:
    report = tmp_path / "gpu.json"
    identity = {"name": "NVIDIA L40S", "memory_gib": 44.5}
    measured = {"identity": identity, "correction": {"time": 1.5, "memory": 1.1}}
    report.write_text(json.dumps(measured), encoding="utf-8")
    cards = ("--card", "h100-80", "--card", report)
    # It normalises over the batch: traced with two samples.
    done = wsisr("models", "show", "srmfenet", "--preset", "tiny", *cards)
    assert done.exit_code == 0, done.output
    assert "| h100-80 * | fp32 |" in done.stdout and "| NVIDIA L40S | bf16 |" in done.stdout
    wrong = wsisr("models", "show", "edsr", "--preset", "tiny", "--card", "h100")
    assert isinstance(wrong.exception, ConfigError) and "h100-80" in str(wrong.exception)


def test_a_dry_run_says_what_the_run_costs_and_asks_for_a_card_that_is_known(
    tmp_path: Path,
) -> None:
    store = make_store(tmp_path / "pairs.zarr")
    command = ("train", "--data", store, "--model", "srcnn", "--preset", "tiny", "--dry-run")
    small = ("--set", "data.batch=2", "--set", "val.count=1", "--device", "cpu")
    done = wsisr(*command, *small, "--card", "t4-16")
    assert done.exit_code == 0, done.output
    assert "nothing was written" in done.stdout and "| t4-16 * | bf16 |" in done.stdout
    # Known before anything is trained.
    wrong = wsisr(*command, *small, "--card", "t5")
    assert isinstance(wrong.exception, ConfigError) and "t4-16" in str(wrong.exception)
    assert "Dry run" not in wrong.stdout
