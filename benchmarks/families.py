"""Every network on one store, on equal terms: train, then evaluate on glass that none has seen.

    python benchmarks/families.py STORE OUT [--models mihatp iste ...] [--preset tiny]
                                  [--lr-source bicubic] [--scale 4] [--set train.steps=600 ...]

Runs `wsisr train` for each network and `wsisr eval` over all of them, with the same data, origin
and seed, and prints wall seconds of training beside the table that the evaluation wrote. MASRGAN
starts from the MASRNet run. `OUT` keeps runs/ and eval/; finished runs are not trained again.
`families_store.py` makes a store for it.
"""

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from wsisr import __version__
from wsisr.device import choose_device, describe
from wsisr.drawing import ChartSeries, chart
from wsisr.inference.trained import find_runs
from wsisr.models import list_models, model_spec
from wsisr.training.logs import read_rows

WITHOUT = ("bicubic", "masrgan", "srgan", "esrgan", "swdnet")
"""Nothing to train; trained adversarially from another run; defined for x2 alone."""


def wsisr(*words: str) -> None:
    """One command of the tool, its output shown."""
    print("$ wsisr", *words, flush=True)
    subprocess.run([sys.executable, "-m", "wsisr_cli", *words], check=True)


def train(name: str, options: argparse.Namespace, *more: str) -> float:
    """Train one network; returns wall seconds."""
    fixed = model_spec(name).kind == "fixed"
    folder = options.out / "runs" / (f"{name}-x{options.scale}" if fixed else name)
    words = ["train", "--model", name, "--data", str(options.store), "-o", str(folder)]
    words += ["--preset", options.preset, "--lr-source", options.lr_source]
    words += ["--scale", str(options.scale)] if fixed else []
    for change in options.changes:
        words += ["--set", change]
    start = time.perf_counter()
    wsisr(*words, *more)
    return time.perf_counter() - start


def evaluate(options: argparse.Namespace) -> None:
    """All runs of the folder in one table."""
    found = find_runs(options.out / "runs")
    runs = [word for run in found for word in ("--model", str(run.folder))]
    wsisr(
        "eval",
        *("--data", str(options.store), "--scales", str(options.scale)),
        *("--lr-source", options.lr_source, "-o", str(options.out / "eval")),
        *("--metrics", "sharpness,spectrum,colour"),
        *runs,
    )
    print((options.out / "eval" / "tables.md").read_text())


CURVES = {"mihatp": "base", "iste": "loss", "cwtnet": "pixel", "masrnet": "loss", "swinir": "loss"}
"""Networks in the picture of curves, and the column of their log that is the mean L1 of the SR."""


def draw_curves(out: Path) -> None:
    """Training curves of the families as ``curves.png``."""
    lines = []
    for run in find_runs(out / "runs"):
        if run.model in CURVES:
            rows = read_rows(run.folder / "log.csv")
            loss = [row[CURVES[run.model]] for row in rows]
            # Means over a tenth of the run: a row is of a few small crops.
            wide = max(1, len(loss) // 10)
            means = [sum(loss[i : i + wide]) / wide for i in range(len(loss) - wide + 1)]
            lines.append(ChartSeries(run.model, [row["step"] for row in rows[wide - 1 :]], means))
    drawn = chart(
        lines, title="Training, tiny presets", x_label="step", y_label="L1 of crops, 0 to 1"
    )
    drawn.save(out / "curves.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--lr-source", default="bicubic")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--train-only", action="store_true", help="leave the evaluation out")
    options = parser.parse_args()
    print(f"wsisr {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {describe(choose_device())}")
    names = options.models or [n for n in list_models() if n not in WITHOUT] + ["masrgan"]
    done = {run.model for run in find_runs(options.out / "runs") if run.state == "finished"}
    seconds = {}
    for name in names:
        if name not in done:
            start = options.out / "runs" / f"masrnet-x{options.scale}"
            more = ("--init-from", str(start)) if name == "masrgan" else ()
            seconds[name] = train(name, options, *more)
    draw_curves(options.out)
    if not options.train_only:
        evaluate(options)
    for name, spent in seconds.items():
        print(f"{name:10} trained in {spent:6.0f} s")


if __name__ == "__main__":
    main()
