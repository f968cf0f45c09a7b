"""Does it help? References, restoration and evaluation on three public labelled sets, end to end.

    python benchmarks/downstream.py SETS WORK                    # everything, hours of a CPU
    python benchmarks/downstream.py SETS WORK --print            # the commands alone
    python benchmarks/downstream.py SETS WORK --only nuclei      # of one task

`SETS` holds monuseg/, glas/, breakhis/, osteosarcoma/ and `SPLIT.tsv` (set, file, patient, split),
whose division is not used: every labelled patient is tested, each by a reference that was fitted
without him. Models are trained on other sets than they are tested on: those for nuclei and glands
on BreaKHis and osteosarcoma, those for classes (BreaKHis) on osteosarcoma, MoNuSeg and GlaS. What
is done already is gone on with (--resume), so that the script can be run again.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

TASKS = {"nuclei": ("monuseg", "monuseg"), "glands": ("glas", "glas-patients"),
         "classes": ("breakhis", "breakhis")}  # fmt: skip
"""Task to set and manifest."""
FOLDS = {"nuclei": 7, "glands": 5, "classes": 8}
TRAINED_ON = {"nuclei": "a", "glands": "a", "classes": "b"}
SOURCES = {"a": ("breakhis", "osteosarcoma"), "b": ("osteosarcoma", "monuseg", "glas")}
FIXED, ANY = ("edsr", "rcan"), ("lte", "mihatp")
SEEDS = {2: (0,), 4: (0, 1, 2), 8: (0,)}
IMAGES = (".png", ".tif", ".bmp", ".jpg", ".jpeg")
SR_MANIFEST = {
    "name": "downstream-sr",
    "version": 1,
    "description": "H&E images of public sets in patches of 192 px, at most six an image.",
    "hr": "40x",
    "lr": ["10x"],
    "size": 192,
    "native": "never",
    "tissue": {"method": "none"},
    "sampling": {"kind": "grid", "max_per_slide": 6},
    "images": {"layout": "folder", "magnification": "40x"},
    "split": {"kind": "official", "weights": {"train": 5, "test": 1}},
}


class Runner:
    """Runs `wsisr`, or prints what would be run."""

    def __init__(self, show: bool) -> None:
        self.show = show

    def __call__(self, *words: object) -> None:
        text = list(map(str, words))
        print("wsisr", *text, flush=True)
        if not self.show and subprocess.run([sys.executable, "-m", "wsisr_cli", *text]).returncode:
            raise SystemExit(f"failed: wsisr {' '.join(text)}")


def test_store(run: Runner, sets: Path, work: Path, task: str) -> Path:
    """The labelled set with every image in the split `test`."""
    name, manifest = TASKS[task]
    store = work / f"{task}.zarr"
    if not store.exists():
        table = work / f"{task}.csv"
        images = [p for p in sorted((sets / name).rglob("*")) if p.suffix in IMAGES]
        images = [p for p in images if "_anno" not in p.stem and p.parent.name != "binary_masks"]
        lines = [f"{path.name},test" for path in images]
        table.write_text("\n".join(["slide,split", *lines, ""]))
        run("build-pairs", sets / name, "--manifest", manifest, "--mpp-override", table,
            "-o", store, "--workers", 1)  # fmt: skip
    return store


def sr_store(run: Runner, sets: Path, work: Path, which: str) -> Path:
    """What the restoring models of one group are trained on; every fifth patient validates."""
    store = work / f"sr-{which}.zarr"
    if store.exists():
        return store
    with (sets / "SPLIT.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["set"] in SOURCES[which]]
    rows = [r for r in rows if Path(r["file"]).suffix in IMAGES and "_anno" not in r["file"]
            and "binary_masks" not in r["file"]]  # fmt: skip
    validating = set(sorted({f"{row['set']} {row['patient']}" for row in rows})[2::5])
    with tempfile.TemporaryDirectory() as scratch:
        folder, table = Path(scratch, "images"), Path(scratch, "patients.csv")
        folder.mkdir()
        lines = ["slide,patient,split"]
        for row in rows:
            source = sets / row["file"]
            (folder / source.name).symlink_to(source.resolve())
            held = f"{row['set']} {row['patient']}" in validating
            lines.append(f"{source.name},{row['patient']},{'val' if held else 'train'}")
        table.write_text("\n".join([*lines, ""]))
        manifest = Path(scratch, "downstream-sr.yaml")
        manifest.write_text(yaml.safe_dump(SR_MANIFEST))
        run("build-pairs", folder, "--manifest", manifest, "--mpp-override", table, "-o", store,
            "--workers", 1)  # fmt: skip
    return store


def restore(run: Runner, store: Path, runs: Path, steps: int) -> list[Path]:
    """Two networks of one scale and two of any: x4 with three seeds, x2 and x8 with one."""
    made = []
    for network in (*FIXED, *ANY):
        scales = SEEDS if network in FIXED else {None: SEEDS[4]}
        for scale, seeds in scales.items():
            for seed in seeds:
                at = [] if scale is None else ["--scale", scale]
                folder = runs / f"{network}{'' if scale is None else f'-x{scale}'}-s{seed}"
                reach = [] if scale else ["--set", "data.scale_range=1,8", "--set",
                                          "data.crop_lr_px=20"]  # fmt: skip
                run("train", "--model", network, *at, *reach, "--preset", "tiny", "--data", store,
                    "--lr-source", "bicubic", "--steps", steps, "--seed", seed, "-o", folder,
                    "--resume")  # fmt: skip
                made.append(folder)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=[*TASKS], action="append")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--steps", type=int, default=800, help="of a reference")
    parser.add_argument("--sr-steps", type=int, default=600, help="of a restoring model")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    run, work, sets = Runner(options.show), options.work, options.sets
    for task in options.only or TASKS:
        which = TRAINED_ON[task]
        store = test_store(run, sets, work, task)
        models = restore(run, sr_store(run, sets, work, which), work / f"runs-{which}",
                         options.sr_steps)  # fmt: skip
        known = ("--data", store, "--truth", sets / TASKS[task][0])
        fit = ("train", "--task", task, *known, "--split", "test", "--folds", FOLDS[task],
               "--steps", options.steps, "--resume")  # fmt: skip
        run(*fit, "-o", work / task)
        given = [word for model in models for word in ("--model", model)]
        run("eval", *known, "--task", f"{task}={work / task}", "--lr-source", "bicubic", "--scales",
            "2,4,8", *given, "--metrics", "sharpness,spectrum,colour", "--no-cost", "-o",
            work / f"eval-{task}")  # fmt: skip
        # ISTE's other direction: fitted on bicubic or on SR at x4, and tested on HR and on SR.
        # One page: the same images seen by all three.
        learnt = {"bicubic": "bicubic", "sr": work / f"runs-{which}" / "lte-s0"}
        asked: list[object] = ["--task", f"{task}={work / task}"]
        for name, images in learnt.items():
            folder = work / f"{task}-on-{name}"
            run(*fit, "--images", images, "--scale", 4, "-o", folder)
            asked += ["--task", f"{task}={folder}"]
        run("eval", *known, *asked, "--lr-source", "bicubic", "--scales", 4, "--model",
            learnt["sr"], "--no-cost", "-o", work / f"eval-{task}-2x2")  # fmt: skip


if __name__ == "__main__":
    main()
