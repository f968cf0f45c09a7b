"""Keeps the checks going: a worker that may die, a clock, a report that is always whole."""

import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import torch

from wsisr import __version__
from wsisr.device import accelerated, choose_device, facts, gpu_count, has_bfloat16, on_gpu
from wsisr.errors import ConfigError
from wsisr.files import read_document, remove_tree, replace_file
from wsisr.host import KILLED
from wsisr.locks import held
from wsisr.plugins import given
from wsisr.proof.plan import ProofCheck, plan_checks

FORMAT = "wsisr-proof"
FORMAT_VERSION = 1
LONGEST_S = {"gpu": 600.0, "cpu": 3600.0}
"""After which a check has failed by its time; a CPU may be shared, and compiles C++."""
Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ProofRequest:
    """What is to be proved, and in which time.

    Attributes
    ----------
    minutes : float
        Of one call. What is running when they are over is stopped and tried last in the next one;
        where it has half of that and is stopped again, it has failed.
    device : str, optional
        ``auto`` by default.
    models : sequence of str
        Networks; all by default.
    preset : str, optional
        Of the networks; ``recommended`` on a GPU, ``tiny`` without one.
    """

    minutes: float = 10.0
    device: str | None = None
    models: Sequence[str] = ()
    preset: str | None = None


def prove(
    output: Path,
    request: ProofRequest = ProofRequest(),
    *,
    checks: Sequence[ProofCheck] | None = None,
    tell: Callable[[ProofCheck, Document], None] = lambda check, row: None,
    note: Callable[[str], None] = lambda said: None,
) -> Document:
    """Do as many checks as the time allows, and go on with a report that is there.

    Parameters
    ----------
    output : Path
        The report, JSON; rewritten as a whole after every check.
    checks : sequence of ProofCheck, optional
        In place of `wsisr.proof.plan.plan_checks`.
    tell : callable
        Called with each check and its row.
    note : callable
        Called with what else is to be said.

    Raises
    ------
    ConfigError
        The report belongs to another machine, version or choice; or it is no report.
    """
    place = choose_device(request.device)
    preset = request.preset or ("recommended" if accelerated(place) else "tiny")
    cards = gpu_count() if on_gpu(place) else 2 * (place.type == "cpu")
    if checks is None:
        able = has_bfloat16(place) or not on_gpu(place)
        checks = plan_checks(request.models, gpu=on_gpu(place), bfloat16=able, cards=cards)
    with held(output.with_name(f".{output.name}.lock"), output, "proof", " ".join(sys.argv)):
        report = _opened(output, _identity(place, preset))
        report |= {"planned": [check.key for check in checks], "minutes": request.minutes}
        # Beside the report, so that the next run finds what a killed one left; the lock is held.
        work = output.with_name(f".{output.name}.work")
        if work.exists():
            note(f"{work}: an earlier run was killed and left this; removed.")
            remove_tree(work)
        work.mkdir(parents=True)
        worker = _Worker(work, place, preset, LONGEST_S["gpu" if accelerated(place) else "cpu"])
        try:
            _check_all(output, report, worker, checks, request.minutes, tell)
        finally:
            worker.close()
            report["correction"] = _correction(report["rows"].values())
            _write(output, report)
            remove_tree(work)
        return report


def _check_all(
    output: Path,
    report: Document,
    worker: "_Worker",
    checks: Sequence[ProofCheck],
    minutes: float,
    tell: Callable[[ProofCheck, Document], None],
) -> None:
    """The checks that the report lacks, those that were stopped before last, while time is left."""
    stopped: list[str] = report.setdefault("stopped", [])
    end = time.monotonic() + 60.0 * minutes
    for check in sorted(checks, key=lambda check: check.key in stopped):
        if check.key in report["rows"]:
            continue
        if time.monotonic() >= end:
            break
        began = time.monotonic()
        row = worker.ask(check, min(worker.longest_s, end - began), end)
        seconds = round(time.monotonic() - began, 2)
        if row is None:
            again = check.key in stopped
            if not again:
                stopped.append(check.key)
            if not again or seconds < 30.0 * minutes:
                break
            row = {"state": "fail", "fault": "time"}
            row["said"] = f"not done in {seconds:.0f} s, the second time that it was tried"
        if check.key in stopped:
            stopped.remove(check.key)
        row = {**check.document(), **row, "seconds": seconds}
        report["rows"][check.key] = row
        report["date"] = _now()
        _write(output, report)
        tell(check, row)


def read_report(path: Path) -> Document:
    """A report that `prove` wrote; ConfigError where it is none."""
    report = read_document(path, "a report of wsisr doctor --gpu", FORMAT, FORMAT_VERSION)
    if not all(isinstance(report.get(part), dict) for part in ("rows", "identity")):
        raise ConfigError(f"{path} is damaged; name another file with -o")
    return report


def _opened(path: Path, identity: Document) -> Document:
    fresh = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": identity, "rows": {}}
    if not path.exists():
        _write(path, fresh | {"date": _now()})
        return fresh
    report = read_report(path)
    other = [name for name in identity if report["identity"].get(name) != identity[name]]
    if other:
        was, now = (
            ", ".join(f"{name} {found.get(name)}" for name in other)
            for found in (report["identity"], identity)
        )
        raise ConfigError(f"{path} was begun with {was}, not {now}; name another file with -o")
    return report


def _identity(device: torch.device, preset: str) -> Document:
    """What must be the same for a report to go on."""
    return {
        "wsisr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "cards": gpu_count() if on_gpu(device) else 1,
        "preset": preset,
        **facts(device),
    }


def _correction(rows: Iterable[Document]) -> dict[str, float] | None:
    """Measured over estimated cost of a step: the medians over networks."""
    found = [r["facts"] for r in rows if "time_over_estimate" in r.get("facts", {})]
    if not found:
        return None
    return {
        name: statistics.median(facts[f"{name}_over_estimate"] for facts in found)
        for name in ("time", "memory")
    }


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def _write(path: Path, report: Document) -> None:
    replace_file(path, (json.dumps(report, indent=1) + "\n").encode())


class _Worker:
    """The process that does the checks, started again when it is gone."""

    def __init__(self, work: Path, device: torch.device, preset: str, longest_s: float) -> None:
        self.longest_s = longest_s
        self.given = {
            "work": str(work), "device": str(device), "preset": preset,
            "threads": torch.get_num_threads() if device.type == "cpu" else None,
            "plugins": given(),
        }  # fmt: skip
        self.log = work / "worker.log"
        self.process: subprocess.Popen[str] | None = None

    def ask(self, check: ProofCheck, limit_s: float, end: float) -> Document | None:
        """The answer to a check; None if the whole time was over before it came."""
        line, status = self._answer(check, limit_s)
        if not line and status == KILLED and check.kind == "resume":
            # It killed itself, as it should: another one goes on with what it left.
            line, status = self._answer(check, min(self.longest_s, end - time.monotonic()))
        if line:
            return dict(json.loads(line))
        if status is None:
            if time.monotonic() >= end:
                return None
            return {"state": "fail", "fault": "time", "said": f"not done in {limit_s:.0f} s"}
        last = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        how = f"signal {-status}" if status < 0 else f"exit {status}"
        return {"state": "fail", "fault": "crash", "said": f"{how}: {' / '.join(last)}"[:2000]}

    def _answer(self, check: ProofCheck, limit_s: float) -> tuple[str, int | None]:
        """A line, or none and how the process ended (None: it was stopped at the limit)."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        found: list[str] = []
        try:
            process.stdin.write(json.dumps(check.document()) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return "", process.wait()
        reader = threading.Thread(target=_read_line, args=(process.stdout, found), daemon=True)
        reader.start()
        reader.join(max(0.0, limit_s))
        if reader.is_alive():
            self.close()
            reader.join()
            return "", None
        return (found[0], None) if found[0] else ("", process.wait())

    def _running(self) -> "subprocess.Popen[str]":
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "wsisr.proof.worker", json.dumps(self.given)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
        return self.process

    def close(self) -> None:
        """End the process, at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _read_line(stream: IO[str], found: list[str]) -> None:
    found.append(stream.readline())
