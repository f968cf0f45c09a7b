"""Does it help? References, restoration and evaluation on three public labelled sets, end to end.

    python benchmarks/downstream.py SETS WORK                    # everything, hours of a CPU
    python benchmarks/downstream.py SETS WORK --jobs 2           # two steps side by side
    python benchmarks/downstream.py SETS WORK --print            # the commands alone
    python benchmarks/downstream.py SETS WORK --only nuclei      # of one task
    python benchmarks/downstream.py SETS WORK --trial            # does every step work? no results

`SETS` holds monuseg/, glas/, breakhis/, osteosarcoma/ and `SPLIT.tsv` (set, file, patient, split),
whose division is not used: every labelled patient is tested, each by a reference that was fitted
without him. Models are trained on other sets than they are tested on: those for nuclei and glands
on BreaKHis and osteosarcoma, those for classes (BreaKHis) on osteosarcoma, MoNuSeg and GlaS.

Every step runs with one thread. It may be killed anywhere and run again: finished steps are not
repeated (`WORK/done/`), half ones are gone on with. `WORK/steps.csv` keeps what each cost.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import yaml

TASKS = {"classes": ("breakhis", "breakhis"), "nuclei": ("monuseg", "monuseg"),
         "glands": ("glas", "glas-patients")}  # fmt: skip
"""Task to set and manifest; the cheapest first."""
REFERENCE = {
    "nuclei": ("data.batch=4", "data.crop_lr_px=128"),
    "glands": ("data.batch=2", "data.crop_lr_px=192"),
    "classes": ("data.batch=8", "data.crop_lr_px=224"),
}
"""What differs from the recommended preset: the same learning in a fraction of the time."""
MARGIN = {"nuclei": 0.03, "glands": 0.05, "classes": 0.05}
"""Losses of AJI, F1 and accuracy that are taken not to matter; chosen before any result."""
TRAINED_ON = {"nuclei": "a", "glands": "a", "classes": "b"}
SOURCES = {"a": ("breakhis", "osteosarcoma"), "b": ("osteosarcoma", "monuseg", "glas")}
HALF = ("--set", "train.precision=bf16")
"""References and restoring models alike: 1.4 to 1.8 times as fast where a CPU multiplies bfloat16.
What is compared is drawn and looked at in fp32."""
METRICS = "sharpness,spectrum,colour"
IMAGES = (".png", ".tif", ".bmp", ".jpg", ".jpeg")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
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


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the study.

    Attributes
    ----------
    name : str
    words : tuple of str
        Of `wsisr`.
    after : tuple of str
        Steps that it needs.
    prepare : callable or None
        Makes the files that the command reads.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    prepare: Callable[[], object] | None = None

    @property
    def digest(self) -> str:
        return sha256("\0".join(self.words).encode()).hexdigest()


def step(
    name: str,
    *words: object,
    after: Sequence[str] = (),
    prepare: Callable[[], object] | None = None,
) -> Step:
    return Step(name=name, words=tuple(map(str, words)), after=tuple(after), prepare=prepare)


def test_store(sets: Path, work: Path, task: str) -> Step:
    """The labelled set with every image in the split `test`."""
    name, manifest = TASKS[task]
    table = work / f"{task}.csv"

    def prepare() -> None:
        images = [p for p in sorted((sets / name).rglob("*")) if p.suffix in IMAGES]
        images = [p for p in images if "_anno" not in p.stem and p.parent.name != "binary_masks"]
        lines = [f"{path.name},test" for path in images]
        table.write_text("\n".join(["slide,split", *lines, ""]))

    return step(f"store-{task}", "build-pairs", sets / name, "--manifest", manifest,
                "--mpp-override", table, "-o", work / f"{task}.zarr", "--workers", 1,
                prepare=prepare)  # fmt: skip


def sr_store(sets: Path, work: Path, which: str) -> Step:
    """What the restoring models of one group are trained on; every fifth patient validates."""
    folder = work / f"images-{which}"
    manifest, table = work / f"downstream-sr-{which}.yaml", work / f"patients-{which}.csv"

    def prepare() -> None:
        with (sets / "SPLIT.tsv").open(newline="") as file:
            rows = [r for r in csv.DictReader(file, delimiter="\t") if r["set"] in SOURCES[which]]
        rows = [r for r in rows if Path(r["file"]).suffix in IMAGES and "_anno" not in r["file"]
                and "binary_masks" not in r["file"]]  # fmt: skip
        validating = set(sorted({f"{row['set']} {row['patient']}" for row in rows})[2::5])
        folder.mkdir(exist_ok=True)
        lines = ["slide,patient,split"]
        for row in rows:
            source = sets / row["file"]
            if not (link := folder / source.name).is_symlink():
                link.symlink_to(source.resolve())
            held = f"{row['set']} {row['patient']}" in validating
            lines.append(f"{source.name},{row['patient']},{'val' if held else 'train'}")
        table.write_text("\n".join([*lines, ""]))
        manifest.write_text(yaml.safe_dump(SR_MANIFEST))

    return step(f"store-sr-{which}", "build-pairs", folder, "--manifest", manifest,
                "--mpp-override", table, "-o", work / f"sr-{which}.zarr", "--workers", 1,
                prepare=prepare)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: the whole study, or a trial of every kind of step.

    Attributes
    ----------
    steps, sr_steps : int
        Of a reference and of a restoring model.
    fixed, arbitrary : tuple of str
        Networks of one scale, and of any.
    seeds : mapping of int to tuple of int
        Of the former by scale; those of x4 are the latter's.
    folds : int
    more : tuple of str
        Of `wsisr eval`.
    """

    steps: int
    sr_steps: int
    fixed: tuple[str, ...] = ("edsr", "rcan")
    arbitrary: tuple[str, ...] = ("lte", "liif")
    seeds: Mapping[int, tuple[int, ...]] = field(
        default_factory=lambda: {2: (0,), 4: (0, 1, 2), 8: (0,)}
    )
    folds: int = 5
    more: tuple[str, ...] = ()


TRIAL = Size(
    steps=4, sr_steps=4, fixed=("edsr",), arbitrary=("lte",), seeds={4: (0, 1)},
    folds=2, more=("--limit", "6", "--figures", "1"),
)  # fmt: skip


def restoring(work: Path, which: str, size: Size) -> Iterator[tuple[Step, Path]]:
    """Networks of one scale and of any: x4 with three seeds, x2 and x8 with one."""
    steps = size.sr_steps
    rare = ("--set", f"val.every={steps}", "--set", "val.count=8", "--set", "val.pictures=0")
    reach = ("--set", "data.scale_range=1,8", "--set", "data.crop_lr_px=20", "--set",
             "val.scales=4,")  # fmt: skip
    for network in (*size.fixed, *size.arbitrary):
        scales = size.seeds if network in size.fixed else {None: size.seeds[4]}
        for scale, seeds in scales.items():
            for seed in seeds:
                name = f"{network}{'' if scale is None else f'-x{scale}'}-s{seed}"
                folder = work / f"runs-{which}" / name
                at = reach if scale is None else ("--scale", scale)
                yield step(
                    f"sr-{which}-{name}", "train", "--model", network, *at, *rare, *HALF,
                    "--preset", "tiny", "--data", work / f"sr-{which}.zarr", "--lr-source",
                    "bicubic", "--steps", steps, "--seed", seed, "-o", folder, "--resume",
                    after=[f"store-sr-{which}"],
                ), folder  # fmt: skip


def study(sets: Path, work: Path, tasks: Sequence[str], size: Size) -> list[Step]:
    """All steps, in an order in which each comes after what it needs."""
    found: dict[str, Step] = {}

    def add(made: Step) -> str:
        return found.setdefault(made.name, made).name

    steps, scales = size.steps, ",".join(map(str, size.seeds))
    other_direction: list[Step] = []  # last: the main tables do not wait for it
    for task in tasks:
        which = TRAINED_ON[task]
        store = add(test_store(sets, work, task))
        add(sr_store(sets, work, which))
        known = ("--data", work / f"{task}.zarr", "--truth", sets / TASKS[task][0])
        changes = [w for text in REFERENCE[task] for w in ("--set", text)]
        fit = ("train", "--task", task, *known, "--split", "test", "--folds", size.folds,
               "--steps", steps, *changes, *HALF, "--set", f"val.every={steps}",
               "--resume")  # fmt: skip
        on_hr = add(step(f"{task}-on-hr", *fit, "-o", work / task, after=[store]))
        runs = list(restoring(work, which, size))
        trained = [add(made) for made, _ in runs]
        given = [w for _, folder in runs for w in ("--model", folder)]
        whole = ("--whole",) if task == "glands" else ()
        ask = ("eval", *known, *whole, "--lr-source", "bicubic", "--no-cost", "--margin",
               MARGIN[task], *size.more)  # fmt: skip
        add(step(f"eval-{task}", *ask, "--task", f"{task}={work / task}", "--scales", scales,
                 *given, "--metrics", METRICS, "-o", work / f"eval-{task}",
                 after=[on_hr, *trained]))  # fmt: skip
        # ISTE's other direction: fitted on bicubic or on SR at x4, and tested on HR and on SR.
        # One page: the same images seen by all three.
        best = work / f"runs-{which}" / "lte-s0"
        asked: list[object] = ["--task", f"{task}={work / task}"]
        after = [on_hr, f"sr-{which}-lte-s0"]
        for name, images in {"bicubic": "bicubic", "sr": best}.items():
            folder = work / f"{task}-on-{name}"
            needs = [store] if name == "bicubic" else [store, f"sr-{which}-lte-s0"]
            made = step(f"{task}-on-{name}", *fit, "--images", images, "--scale", 4, "-o", folder,
                        after=needs)  # fmt: skip
            other_direction.append(made)
            after.append(made.name)
            asked += ["--task", f"{task}={folder}"]
        other_direction.append(
            step(f"eval-{task}-2x2", *ask, *asked, "--scales", 4, "--model", best, "-o",
                 work / f"eval-{task}-2x2", after=after)
        )  # fmt: skip
    return [*found.values(), *other_direction]


class Runner:
    """Runs steps side by side, each when what it needs is done."""

    def __init__(self, work: Path, jobs: int) -> None:
        self.work, self.jobs = work, jobs
        self.processes: list[subprocess.Popen[bytes]] = []
        self.stopping = False
        for name in ("done", "logs"):
            (work / name).mkdir(parents=True, exist_ok=True)

    def done(self, one: Step) -> bool:
        mark = self.work / "done" / one.name
        return mark.is_file() and mark.read_text() == one.digest

    def run(self, steps: Sequence[Step]) -> None:
        """All steps; a failed one ends the study with what its log says last."""
        waiting = [one for one in steps if not self.done(one)]
        ended = {one.name for one in steps} - {one.name for one in waiting}
        total = len(steps)
        running: dict[Future[float], Step] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    ready = [one for one in waiting if ended.issuperset(one.after)]
                    for one in ready[: self.jobs - len(running)]:
                        waiting.remove(one)
                        running[pool.submit(self._one, one)] = one
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        one = running.pop(future)
                        seconds = future.result()
                        ended.add(one.name)
                        print(f"{len(ended)}/{total} {one.name}: {seconds:.0f} CPU s", flush=True)
            except BaseException:
                self.stopping = True
                for process in self.processes:
                    process.terminate()
                raise

    def _one(self, one: Step) -> float:
        if one.prepare is not None:
            one.prepare()
        if self.stopping:
            return 0.0
        command = [sys.executable, "-m", "wsisr_cli", *one.words]
        log, started = self.work / "logs" / f"{one.name}.log", time.monotonic()
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env=os.environ | ONE_THREAD
            )
            self.processes.append(process)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = usage.ru_utime + usage.ru_stime
        with (self.work / "steps.csv").open("a") as file:
            wall = time.monotonic() - started
            file.write(f"{one.name},{process.returncode},{seconds:.1f},{wall:.1f}\n")
        if process.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise SystemExit("\n".join([f"{one.name} failed ({log}):", *last]))
        (self.work / "done" / one.name).write_text(one.digest)
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=[*TASKS], action="append")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--jobs", type=int, default=1, help="steps side by side, a thread each")
    parser.add_argument("--steps", type=int, default=800, help="of a reference")
    parser.add_argument("--sr-steps", type=int, default=1500, help="of a restoring model")
    parser.add_argument("--trial", action="store_true", help="a handful of steps, four images")
    options = parser.parse_args()
    size = TRIAL if options.trial else Size(steps=options.steps, sr_steps=options.sr_steps)
    sets, work = options.sets.absolute(), options.work.absolute()
    # Ended by a signal, the steps that run are ended too; each goes on from what it has saved.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    steps = study(sets, work, options.only or [*TASKS], size)
    if options.show:
        for one in steps:
            print("wsisr", *one.words)
        return
    Runner(work, options.jobs).run(steps)


if __name__ == "__main__":
    main()
