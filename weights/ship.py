"""From a run of `train.py` and the table of `score.py` to a folder of `wsisr/weights`. By hand.

    python weights/ship.py WORK/he-x4 SCORES/scores.json DATA

The fingerprints of the original images go with the model, so that an evaluation on one of them is
refused.
"""

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import score
import train
import yaml
from jinja2 import Environment, StrictUndefined

from wsisr.inference import open_run
from wsisr.inference.loading import load_trained
from wsisr.inference.trained import CARD_NAME, SHIPPED, TrainedModel
from wsisr.models import save_model
from wsisr.models.weights import NOT_FOR_DIAGNOSIS, front_matter
from wsisr.slides.fingerprint import fingerprint

SERVES: dict[str, dict[str, Any]] = {
    "he-x2": {"input_um_per_px": [0.4, 2.2]},
    "he-x4": {"input_um_per_px": [0.8, 4.4]},
    "he-any": {"input_um_per_px": [0.4, 4.4]},
}
CARD = train.HERE / "card.md.j2"
COMMON = {"output_um_per_px": 0.2, "stain": "haematoxylin and eosin"}


def card(run: TrainedModel, parameters: int, found: dict[str, Any], minutes: int) -> str:
    """The card of a network as Markdown (`card.md.j2`)."""
    scores = [score.Score(**row) for row in found["scores"]]
    blobs = [score.Nuclei(**row) for row in found["nuclei"]]
    low, high = SERVES[run.name]["input_um_per_px"]
    text = Environment(undefined=StrictUndefined).from_string(CARD.read_text()).render(
        name=run.name, warning=NOT_FOR_DIAGNOSIS, run=run, parameters=parameters, low=low,
        high=high, finest=COMMON["output_um_per_px"], stain=COMMON["stain"], minutes=minutes,
        options=[part.strip() for part in str(run.degradation).split("|")],
        tables=score.table(scores, blobs, run.name),
    )  # fmt: skip
    return front_matter(run.model, {"license": "apache-2.0"}) + text + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=SHIPPED)
    options = parser.parse_args()
    run = open_run(options.run)
    model = load_trained(run)
    settings = yaml.safe_load((train.HERE / f"{run.name}.yaml").read_text())
    if run.document["config"]["data"]["lr_source"] != " ".join(
        settings["data"]["lr_source"].split()
    ):
        raise SystemExit(f"{run.name} was not trained by weights/{run.name}.yaml")
    originals = sorted({source.file for source in train.sources(options.data, set())})
    files = {fingerprint((path,)) for path in originals} | set(run.files or ())
    keys = ("lr_origin", "degradation", "seed", "step", "steps", "scale_range", "store", "arrays")
    extra = {key: run.document[key] for key in keys} | {
        "run": run.name,
        "diagnostic_use": False,
        "patients": sorted(run.patients or ()),
        "files": sorted(files),
        "config": {"data": {"crop_lr_px": run.crop_px}},
        "serves": SERVES[run.name] | COMMON,
    }
    folder = save_model(model, options.output / run.name, extra)
    found = json.loads(options.scores.read_text())
    with (options.run / "log.csv").open(newline="") as file:
        each_ms = [float(row["step_ms"]) for row in csv.DictReader(file)]
    minutes = round(run.step * sum(each_ms) / len(each_ms) / 60_000)
    (folder / CARD_NAME).write_text(card(run, model.parameter_count, found, minutes))
    print(folder)


if __name__ == "__main__":
    main()
