"""From a run of `train.py` and the table of `score.py` to a folder of `wsisr/weights`. By hand.

    python weights/ship.py WORK/he-x4 SCORES/scores.json DATA
    python weights/ship.py wsisr/weights/he-x4 SCORES/scores.json  # its card alone, written anew

The fingerprints of the original images go with the model, so that an evaluation on one of them is
refused.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import score
import train
import yaml
from jinja2 import Environment, StrictUndefined

from wsisr.inference import open_run
from wsisr.inference.loading import load_trained
from wsisr.inference.trained import CARD_NAME, RUN_NAME, SHIPPED, open_trained
from wsisr.models import save_model
from wsisr.models.weights import NOT_FOR_DIAGNOSIS, front_matter
from wsisr.slides.fingerprint import fingerprint

SERVES: dict[str, dict[str, Any]] = {
    "he-x4": {"input_um_per_px": [0.8, 4.4]},
    # Trained from x1.5 on, scored from x2 on.
    "he-any": {"input_um_per_px": [0.4, 4.4], "least_scale": 2.0},
}
STEPS = {"he-x4": (6000, 1494, 2400), "he-any": (6000, 1211, 2400)}
"""Of the parts of training, each from the weights before; the first of he-any is he-x4's."""
CARD = train.HERE / "card.md.j2"
COMMON = {"output_um_per_px": 0.2, "stain": "haematoxylin and eosin"}


def card(folder: Path, found: dict[str, Any]) -> str:
    """The card of a shipped network as Markdown (`card.md.j2`)."""
    model = open_trained(folder)
    scores = [score.Score(**row) for row in found["scores"]]
    blobs = [score.Nuclei(**row) for row in found["nuclei"]]
    low, high = SERVES[model.name]["input_um_per_px"]
    settings = yaml.safe_load((train.HERE / f"{model.name}.yaml").read_text())
    text = Environment(undefined=StrictUndefined).from_string(CARD.read_text()).render(
        batch=settings["data"]["batch"], steps=STEPS[model.name], low=low, high=high,
        name=model.name, warning=NOT_FOR_DIAGNOSIS, run=model,
        parameters=load_trained(model).parameter_count, finest=COMMON["output_um_per_px"],
        stain=COMMON["stain"], options=[part.strip() for part in str(model.degradation).split("|")],
        tables=score.table(scores, blobs, model.name),
    )  # fmt: skip
    return front_matter(model.model, {"license": "apache-2.0"}) + text + "\n"


def ship(path: Path, data: Path, output: Path) -> Path:
    """Put the weights of a run, and what has to be known of it, into a folder of `output`."""
    run = open_run(path)
    settings = yaml.safe_load((train.HERE / f"{run.name}.yaml").read_text())
    if run.document["config"]["data"]["lr_source"] != " ".join(
        settings["data"]["lr_source"].split()
    ):
        raise SystemExit(f"{run.name} was not trained by weights/{run.name}.yaml")
    originals = sorted({source.file for source in train.sources(data, set())})
    files = {fingerprint((file,)) for file in originals} | set(run.files or ())
    keys = ("lr_origin", "degradation", "seed", "step", "steps", "scale_range", "store", "arrays",
            "init_from")  # fmt: skip
    extra = {key: run.document[key] for key in keys} | {
        "run": run.name,
        "diagnostic_use": False,
        "patients": sorted(run.patients or ()),
        "files": sorted(files),
        "config": {"data": {"crop_lr_px": run.crop_px}},
        "serves": SERVES[run.name] | COMMON,
    }
    return save_model(load_trained(run), output / run.name, extra)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="of train.py, or a folder that was shipped")
    parser.add_argument("scores", type=Path)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    folder = options.run
    if (folder / RUN_NAME).exists():
        if options.data is None:
            raise SystemExit("DATA, where the original images are, goes with a run")
        folder = ship(folder, options.data, options.output)
    found = json.loads(options.scores.read_text())
    (folder / CARD_NAME).write_text(card(folder, found))
    print(folder)


if __name__ == "__main__":
    main()
