"""The chain of a run, checked: it trains, resumes, is evaluated, enlarges, is shared out."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from wsisr.device import forget_most, release_memory
from wsisr.files import remove_tree
from wsisr.host import die_at_once
from wsisr.inference import load
from wsisr.models import load_model, model_spec
from wsisr.models.layers.attention import DropPath
from wsisr.models.wrapper import SRModel
from wsisr.progress import ProgressEvent
from wsisr.proof import measures
from wsisr.proof.bench import SAVED_AT, STEPS, Bench, CheckError
from wsisr.proof.plan import ProofCheck
from wsisr.proof.scene import make_image
from wsisr.proof.targets import measure
from wsisr.training import train
from wsisr.training.logs import read_rows

RESUME_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
"""Largest relative difference of a loss after a kill, where kernels do not repeat bit for bit."""
GRADIENT = measures.GRADIENT_TOLERANCE
CARDS_TOLERANCE = 1e-3
"""Largest relative L2 difference of the weights after a few steps: sums are in another order."""


def do(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Do a check; what it measured. CheckError: it has failed; any other error is a failure too."""
    torch.compiler.reset()
    counters.clear()
    release_memory()
    forget_most(bench.device)
    return _CHECKS[check.kind](check, bench)


def _train(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Losses are numbers, move and are the plain form's; no step is skipped; validation works."""
    folder = bench.folder(check)
    remove_tree(folder)
    outcome, _ = train(bench.request(check, folder))
    rows = read_rows(folder / "log.csv")
    losses = [row["loss"] for row in rows]
    if not all(isfinite(loss) for loss in losses):
        raise CheckError("not finite", f"losses {losses} in {check.form}")
    # float16 finds its loss scale by skipping.
    skipped = int(rows[-1]["skipped"])
    if skipped > (2 if check.form.precision == "fp16" else 0):
        raise CheckError("not finite", f"{skipped} of {STEPS} steps had gradients without numbers")
    if losses[0] == losses[-1]:
        raise CheckError("does not learn", f"the loss stayed {losses[0]:.6g}")
    if not outcome.validation or not all(isfinite(r["psnr_rgb"]) for r in outcome.validation):
        raise CheckError("not finite", "validation gave values that are no numbers")
    names = ("samples_per_s", "data_wait_ms", "step_ms", "memory_mib")
    last = {name: round(rows[-1][name], 3) for name in names}
    compiled = _compiled() if check.form.compiled else {}
    apart = _beside_plain(check, bench, rows[0])
    return {"losses": losses, "skipped": skipped, **last, **compiled, **apart}


def _compiled() -> dict[str, int]:
    """Graphs that were compiled since the check began, and where Python came between them."""
    graphs = int(counters["stats"]["unique_graphs"])
    if not graphs:
        raise CheckError("not compiled", "nothing was compiled, the network ran as it is")
    return {"graphs": graphs, "graph_breaks": sum(counters["graph_break"].values())}


def _beside_plain(check: ProofCheck, bench: Bench, first: dict[str, float]) -> dict[str, float]:
    """How far the first step's loss and gradient are from those of the plain form."""
    form = check.form
    if not form.departures or (form.compiled and _drops(bench.model(check))):
        # Compiled, what is dropped at random is drawn in another way.
        return {}
    plain = read_rows(bench.plain(check) / "log.csv")[0]
    apart = {}
    for name, limits in (("loss", measures.OUTPUT_TOLERANCE), ("grad_norm", GRADIENT)):
        far = abs(first[name] - plain[name]) / max(abs(plain[name]), 1e-12)
        if not far <= limits[form.precision]:
            raise CheckError(
                "another form",
                f"the first step's {name} is {first[name]:.6g} in {form}, {plain[name]:.6g} plain",
            )
        apart[f"{name}_from_plain"] = far
    return apart


def _drops(model: SRModel) -> bool:
    return any(isinstance(m, DropPath) and m.probability for m in model.modules())


def _resume(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """A run that is killed goes on to the losses of an unbroken one; this process dies halfway."""
    whole = [row["loss"] for row in read_rows(bench.run(check) / "log.csv")]
    folder = bench.work / "broken" / check.model
    request = bench.request(check, folder)
    if not folder.exists():

        def die(event: ProgressEvent) -> None:
            if event.stage == "train" and event.done > SAVED_AT:
                die_at_once()

        train(request, die)
        raise CheckError("resume", "the run was to be killed and ended")
    train(replace(request, resume=True))
    losses = [row["loss"] for row in read_rows(folder / "log.csv")]
    if len(losses) != len(whole):
        raise CheckError("resume", f"{len(losses)} logged steps in place of {len(whole)}")
    far = max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(losses, whole, strict=True))
    if not far <= RESUME_TOLERANCE[check.form.precision]:
        raise CheckError("resume", f"losses after a kill differ by {far:.2g} of themselves")
    weights = [_weights(path) for path in (folder, bench.run(check))]
    return {
        "bit_equal": losses == whole and torch.equal(*weights),
        "losses_apart": far,
        "weights_apart": measures.apart(*weights),
    }


def _evaluate(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """The run's model is scored on test patches."""
    from wsisr.evaluation.pipeline import evaluate
    from wsisr.evaluation.settings import EvalSettings

    folder = bench.run(check)
    scale = float(model_spec(check.model).scales[0] if model_spec(check.model).scales else 4)  # type: ignore[index]
    results = evaluate(
        EvalSettings(
            scales=(scale,),
            data=bench.store,
            models=(str(folder),),
            output=bench.work / "eval" / check.model,
            lr_source="simulated",
            limit=2,
            device=str(bench.device),
            overwrite=True,
            figures=0,
            cost=False,
        )
    )
    if results.failed:
        raise CheckError("evaluate", f"left out: {results.failed}")
    return {"images": len(results.rows)}


def _upscale(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """The run's model enlarges a picture, to a file that opens."""
    from PIL import Image

    from wsisr.upscaling import UpscaleOptions, upscale_slide

    side = 48 if bench.small else 256
    source = make_image(bench.work / "image.png", side)
    target = bench.work / "sr" / f"{check.model}.png"
    target.parent.mkdir(exist_ok=True)
    engine = load(bench.run(check), device=str(bench.device))
    scale = getattr(getattr(engine, "model", None), "scale", None) or 4
    options = UpscaleOptions(scale=scale, overwrite=True, mask=False)
    upscale_slide(source, target, engine, options)
    with Image.open(target) as image:
        image.load()
        if image.size != (round(side * scale),) * 2:
            raise CheckError("upscale", f"{image.size} px in place of {side * scale}")
    return {"output_px": round(side * scale), "precision": engine.precision}


def _cards(check: ProofCheck, bench: Bench) -> dict[str, Any]:
    """Two processes equal one with twice the batch."""
    folders = [bench.work / "cards" / name for name in ("one", "two")]
    more = ("train.max_skipped=1",)
    one = bench.request(check, folders[0], "data.batch=4", *more)
    train(one)
    two = bench.request(check, folders[1], "data.batch=2", *more)
    scale = () if two.scale is None else ("--scale", str(two.scale))
    words = (
        *("train", "--model", two.model, *scale, "--preset", two.preset),
        *("--data", str(two.data), "--output", str(two.output), "--steps", str(two.steps)),
        *("--device", bench.device.type, *(f"--set={text}" for text in two.assignments)),
    )
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "wsisr")
    done = subprocess.run(
        [sys.executable, *launch, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise CheckError("cards", f"torchrun ended with {done.returncode}: {done.stderr[-600:]}")
    far = measures.apart(_weights(folders[1]), _weights(folders[0]))
    if not far <= CARDS_TOLERANCE:
        raise CheckError("cards", f"weights of two processes are {far:.2g} from one's")
    return {"weights_apart": far}


def _weights(folder: Path) -> Tensor:
    """All weights of a run's last model, float64."""
    state = load_model(folder / "last").state_dict()
    return torch.cat([value.double().flatten() for value in state.values()])


_CHECKS: dict[str, Callable[[ProofCheck, Bench], dict[str, Any]]] = {
    "draws": measures.draws,
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "upscale": _upscale,
    "agree": measures.agree,
    "speed": measures.speed,
    "memory": measures.memory,
    "cards": _cards,
    "rehearse": measures.rehearse,
    "target": lambda check, bench: measure(check.model, bench),
}
