"""What 10,000 slides and 10 million pairs cost beyond their pixels.

    python benchmarks/scale.py WORK [--slides 1000 3000 10000] [--pairs 1000]

Slides are names (placeholders of no content), scans and committed slides are generated: their
metadata, columns and candidates are of real size and form, written by the package's own writers;
patches are 8 px wide. Each stage runs in a process of its own, by the functions that the commands
run, and prints CPU seconds, peak memory and the exponent of growth (1 is linear). The search for
one tissue in two splits is left out: it reads pixels, a bounded sample of them.
"""

import argparse
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsisr import __version__, open_pairs
from wsisr.building import BuildRequest, phases, prepare, scan_records
from wsisr.building import finish as finishing
from wsisr.building.scan import scan_identity, scan_slide
from wsisr.building.scan_records import RankedCandidates, ScanRecord
from wsisr.building.state import Prepared, attach_store, create_store, load_plan
from wsisr.reporting.writing import write_report
from wsisr.store import ArraySpec, verify_store
from wsisr.testing.camelyon import write_camelyon16_like

SIDE_PX = 8


def prepared(work: Path) -> Prepared:
    """The build at hand."""
    overrides = {"hr": "40x", "lr": "10x", "size": 256, "registration.method": "none"}
    request = BuildRequest(
        source=work / "source",
        output=work / "pairs.zarr",
        manifest="default",
        overrides=overrides,
        patient_key=work / "key",
    )
    return prepare(request)


def make_source(work: Path, slides: int) -> None:
    """Names of slides of patients with three each."""
    (work / "source").mkdir(parents=True)
    for n in range(slides):
        (work / "source" / f"P{n // 3:06d}-{n % 3}.svs").write_bytes(b"II*\0")


def template(work: Path) -> ScanRecord:
    """The scan of a small generated slide."""
    source = work.parent / "one"
    if not source.is_dir():
        write_camelyon16_like(source, normals=1, tumours=0, tests=0, side_px=2560, seed=1)
    one = prepare(
        replace(prepared(work).request, source=source / "normal_001.tif", output=work / "one.zarr")
    )
    return scan_slide(one.tasks[0], one.manifest, work / "one-scan", source)


def make_scans(work: Path, slides: int, pairs: int) -> None:
    """A scan of every slide, each with so many candidates."""
    base, build = template(work), prepared(work)
    mask = scan_records.load_mask(work / "one-scan", base.slide_id)
    places = np.arange(pairs)
    for n, task in enumerate(build.tasks):
        rng = np.random.default_rng(n)
        candidates = RankedCandidates(
            x=tuple((places % 100 * 256).tolist()),
            y=tuple((places // 100 * 256).tolist()),
            label=(-1,) * pairs,
            label_fraction=(0.0,) * pairs,
            tissue=tuple(rng.random(pairs).round(4).tolist()),
            texture=tuple(rng.random(pairs).round(4).tolist()),
        )
        record = replace(
            base,
            slide_id=task.slide_id,
            draw_key=task.draw_key,
            identity=scan_identity(task, build.manifest),
            candidates=candidates,
        )
        scan_records.save_scan(build.scans, record, mask)


def make_slides(work: Path, slides: int, pairs: int) -> None:
    """Commit every slide with small patches and whole columns."""
    build = prepared(work)
    plan = load_plan(build, ())
    assert plan is not None
    writer, base = attach_store(build), scan_records.load_scan(build.scans, build.tasks[0].slide_id)
    assert base is not None
    specs = [
        ArraySpec(name="40x", size_px=SIDE_PX, um_per_px=0.25),
        ArraySpec(name="10x", size_px=SIDE_PX // 4, factor=4, um_per_px=1.0),
    ]
    places = np.arange(pairs)
    data = {s.name: np.zeros((pairs, s.size_px, s.size_px, 3), np.uint8) for s in specs}
    columns = {
        "x": places % 100 * SIDE_PX,
        "y": places // 100 * SIDE_PX,
        "label": np.full(pairs, -1),
        "reason": np.full(pairs, -1),
        "verdict": np.ones(pairs, np.int8),
        "kept": np.ones(pairs, bool),
    } | {n: np.ones(pairs, np.float32) for n in ("tissue", "texture", "spread", "ncc_band")}
    for task in build.tasks:
        attributes = {
            "source": task.source.relative,
            "fingerprint": f"generated {task.slide_id}",
            "mpp": {"value": 0.25, "source": "vendor tag", "quality": "stated"},
            "patient": task.patient.name,
            "patient_source": "table",
            "group": task.group,
            "split": plan.shares[task.slide_id].split,
            "labels": [],
            "reasons": [],
            "levels": [],
            "tissue": base.tissue,
            "funnel": {"candidates": pairs, "kept": pairs},
            "notes": list(base.notes),
        }
        with writer.slide(task.slide_id, specs) as slide:
            for name in data:
                data[name][:, 0, 0, 0] = places % 251
            slide.append(data)
            slide.finish(columns, np.ones((64, 64), np.uint8), attributes)


def plan_stage(work: Path, slides: int, pairs: int) -> None:
    build = prepared(work)
    phases.make_plan(build, create_store(build), lambda event: None)


def one_slide_stage(work: Path, slides: int, pairs: int) -> None:
    """What the job of one slide of an array does besides its slide."""
    build = prepared(work)
    load_plan(build, build.tasks[:1])
    attach_store(build).committed()


def finish_stage(work: Path, slides: int, pairs: int) -> None:
    vars(finishing)["tissue_in_two_splits"] = lambda *given: []
    build = prepared(work)
    finishing.finish_store(build, (), attach_store(build))


def table_stage(work: Path, slides: int, pairs: int) -> None:
    store = open_pairs(work / "pairs.zarr")
    assert store.table(columns=["x", "kept"]).rows == slides * pairs


def verify_stage(work: Path, slides: int, pairs: int) -> None:
    found = verify_store(work / "pairs.zarr", deep=False, duplicates=False)
    print([f.text for f in found.findings][:3], file=sys.stderr)


STAGES: dict[str, tuple[str, Callable[[Path, int, int], object]]] = {
    "list": ("folder, ids, patients", lambda work, slides, pairs: prepared(work)),
    "plan": ("splits and shares from the scans", plan_stage),
    "one": ("one job's own planning", one_slide_stage),
    "finish": ("splits, summary, tables", finish_stage),
    "table": ("open the store, two columns of all", table_stage),
    "verify": ("names, sizes, metadata, columns", verify_stage),
    "report": ("the page", lambda work, slides, pairs: write_report(work / "pairs.zarr", None)),
}
MAKERS: dict[str, Callable[[Path, int, int], None]] = {"plan": make_scans, "finish": make_slides}
"""What is generated before a stage."""


def run_stage(name: str, work: Path, slides: int, pairs: int) -> None:
    """In a process of its own: prints what it took."""
    before = time.process_time()
    STAGES[name][1](work, slides, pairs)
    children = os.times()
    seconds = time.process_time() - before + children.children_user + children.children_system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--slides", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        maker = MAKERS.get(given.stage.removeprefix("make-"))
        if given.stage.startswith("make-") and maker:
            maker(given.work, given.slides[0], given.pairs)
        else:
            run_stage(given.stage, given.work, given.slides[0], given.pairs)
        return
    took: dict[str, list[dict[str, Any]]] = {name: [] for name in STAGES}

    def child(stage: str, work: Path, slides: int) -> str:
        words = [sys.executable, __file__, str(work), "--slides", str(slides)]
        words += ["--pairs", str(given.pairs), "--stage", stage]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout

    for slides in given.slides:
        work = given.work / str(slides)
        shutil.rmtree(work, ignore_errors=True)
        make_source(work, slides)
        for name in STAGES:
            if name in MAKERS:
                child(f"make-{name}", work, slides)
            took[name].append(json.loads(child(name, work, slides)))
            print(slides, name, took[name][-1], flush=True)
        shutil.rmtree(work)
    print(f"wsisr {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
    sizes = " | ".join(f"{n:,} slides" for n in given.slides)
    print(f"| stage | {sizes} | exponent |\n|---{'|---' * (len(given.slides) + 1)}|")
    for name, rows in took.items():
        cells = " | ".join(f"{r['seconds']:.1f} s, {r['peak_mb']:.0f} MB" for r in rows)
        growth = math.nan
        if len(rows) > 1:
            growth = math.log(rows[-1]["seconds"] / rows[0]["seconds"])
            growth /= math.log(given.slides[-1] / given.slides[0])
        print(f"| {STAGES[name][0]} | {cells} | {growth:.2f} |")


if __name__ == "__main__":
    main()
