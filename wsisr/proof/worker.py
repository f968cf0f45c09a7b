"""The process that checks run in: lines of JSON in, lines of JSON out. It may die."""

import json
import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from wsisr.errors import WsisrError
from wsisr.host import is_out_of_memory
from wsisr.plugins import load_plugins
from wsisr.proof.bench import Bench, CheckError
from wsisr.proof.checks import do
from wsisr.proof.plan import ProofCheck

BROKEN = ("device-side assert", "illegal memory access", "unspecified launch failure")
"""After such an error a GPU gives no other answer to the same process."""


def answer(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Do a check, whatever comes of it."""
    try:
        return {"state": "pass", "facts": do(check, bench)}
    except CheckError as error:
        return {"state": "fail", "fault": error.kind, "said": str(error)}
    except Exception as error:
        fault = "memory" if is_out_of_memory(error) else type(error).__name__
        if isinstance(error, WsisrError):
            said = str(error)
        else:
            said = f"{type(error).__name__}: {error} ({_where(error)})"
        said = said.replace(str(bench.work), "WORK")
        return {"state": "fail", "fault": fault, "said": said[:2000]}


def _where(error: BaseException) -> str:
    """The last line of this package that an error came through."""
    place, trace = "", error.__traceback__
    while trace is not None:
        parts = Path(trace.tb_frame.f_code.co_filename).parts
        if "wsisr" in parts and "proof" not in parts:
            at = len(parts) - 1 - parts[::-1].index("wsisr")
            place = f"{'/'.join(parts[at:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place or "outside of wsisr"


def main() -> None:
    """Serve until the input ends."""
    # What libraries print must not come between the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    given = json.loads(sys.argv[1])
    if given.get("threads"):
        torch.set_num_threads(given["threads"])
    load_plugins(given.get("plugins") or ())
    bench = Bench(
        work=Path(given["work"]), device=torch.device(given["device"]), preset=given["preset"]
    )
    asked: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while True:
        found = answer(ProofCheck.of(json.loads(asked.get())), bench)
        out.write(json.dumps(found) + "\n")
        out.flush()
        if any(words in found.get("said", "") for words in BROKEN):
            return


def _listen(asked: "SimpleQueue[str]") -> None:
    """Hand on what is asked; whoever asks is gone when the input ends, and so is this process."""
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
