"""What a reference finds, drawn: HR, bicubic and every model of the same field, side by side."""

from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.drawing.overlays import FOUND, TRUTH, outlined
from wsisr.drawing.sheets import SheetImage, sheet
from wsisr.evaluation.columns import Sample, ScaleColumn, read_pair
from wsisr.evaluation.entries import HR_ITSELF
from wsisr.evaluation.examples import FOLDER, choose_examples, detail_window, slug
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.judges import Judge
from wsisr.evaluation.plan import Plan
from wsisr.evaluation.scoring import to_uint8
from wsisr.evaluation.summary import Results
from wsisr.files import save_picture
from wsisr.inference.trained import TrainedModel
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.tasks.kinds import Maps
from wsisr.tasks.scores import SCORES

VIEW_PX = 288


def draw_findings(
    plan: Plan, results: Results, folder: Path, report: Reporter = silent
) -> list[dict[str, Any]]:
    """Write a sheet for each reference of objects and each column; returns file and words.

    Rows are the images in which the reference does best, middling and worst on HR; each shows the
    window with HR's strongest edges, of what was found in the whole patch.
    """
    made: list[dict[str, Any]] = []
    engines = Engines(plan, report)
    shown = {group.members[0] for group in results.groups}
    for judge in plan.judges:
        if not isinstance(judge.reference.kind, Maps):
            continue
        score = SCORES[judge.reference.kind.name][0]
        name = judge.column(score.name)
        for column in plan.columns:
            key = (column.origin, column.scale)
            rows = [
                row for row in (*results.hr_rows, *results.rows) if (row.origin, row.scale) == key
            ]
            values = {(row.run, row.slide, row.row): row.scores[name] for row in rows}
            on_hr = {(row.slide, row.row): row.scores[name] for row in rows
                     if row.run == HR_ITSELF.name}  # fmt: skip
            places = choose_examples({"HR": on_hr}, score.better, plan.settings.figures)
            samples = {(s.slide, s.row): s for s in column.samples}
            entries = [e for e in plan.entries if e.name in shown and e.serves(column.scale)]
            tiles: list[list[SheetImage | None]] = []
            for place in places:
                # Bicubic and every model, in the order of the tables.
                images = _images(plan, engines, column, samples[place], entries)
                notes = {run: values.get((run, *place), float("nan")) for run in images}
                tiles.append(_row(judge, samples[place], images, notes, score.digits))
            if not tiles:
                continue
            file = f"{judge.name}-{slug(column.origin)}-{column.label}.png"
            save_picture(folder / FOLDER / file, sheet(tiles), optimize=True)
            made.append(
                {
                    "file": f"{FOLDER}/{file}",
                    "words": f"{judge.name}, LR {column.origin} {column.label}: "
                    f"{score.title.partition(': ')[2]} of each image",
                }
            )
            report(ProgressEvent(stage="figures", message=f"{file} is drawn"))
    return made


def _images(
    plan: Plan, engines: Engines, column: ScaleColumn, sample: Sample, entries: list[TrainedModel]
) -> dict[str, UInt8Array]:
    lr, hr = read_pair(plan.store, column, [sample], plan.settings.seed, plan.device)
    found = {HR_ITSELF.name: to_uint8(hr.double() / 255.0)[0]}
    for entry in entries:
        found[entry.name] = to_uint8(engines.predict(entry, column, lr, samples=[sample]))[0]
    return found


def _row(
    judge: Judge,
    sample: Sample,
    images: dict[str, UInt8Array],
    notes: dict[str, float],
    digits: int,
) -> list[SheetImage | None]:
    hr = images[HR_ITSELF.name]
    side = min(VIEW_PX, *hr.shape[:2])
    y, x = detail_window(hr, side)
    window = (slice(y, y + side), slice(x, x + side))
    truth = judge.labels(hr, sample)
    tiles: list[SheetImage | None] = []
    if truth is not None:
        tiles.append(
            SheetImage(image=outlined(hr[window], truth.map[window], TRUTH), text="HR, labelled\n ")
        )
    for run, image in images.items():
        labels = judge.answer(image, sample).labels
        assert labels is not None
        value = notes[run]
        text = f"{run}\n{'' if np.isnan(value) else f'{value:.{digits}f}'} "
        tiles.append(SheetImage(image=outlined(image[window], labels[window], FOUND), text=text))
    return tiles
