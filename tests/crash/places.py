"""Every command that writes, where nothing can be written: one sentence, exit code 2.

``python places.py FOLDER [KIND ...]``. Kinds of places: a ``file`` where a folder should be, a
``limit`` on the size of files, and, where a name space of mounts can be had (``unshare -rm``), a
``read-only`` and a ``full`` file system, and one that is ``filling``: with room for a tenth, 60 %
and 95 % of what the command writes. With more room the same command must then end with the bytes
that it writes where there is room from the start. Prints a row for each, and ends with 1 if any is
wrong.
"""

import os
import resource
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from steps import in_child, tree

LINES = {
    "build-pairs": "build-pairs s -o m/p.zarr --hr 20x --lr 10x --size 64",
    "keep": "keep m/a.zarr spread<0.5",
    "export": "export a.zarr m/x --to png",
    "export geojson": "export a.zarr m/x --to geojson",
    "demo": "demo m/demo --slides-only",
    "train": "train --model srcnn --preset tiny --data t.zarr -o m/r --steps 2 --device cpu "
    "--set data.crop_lr_px=8 --set data.batch=2 --set val.count=1 --set val.crop_lr_px=12",
    "eval": "eval --model bicubic --scales 4 --data e.zarr -o m/e --limit 1 --no-cost --figures 1",
    "upscale tiff": "upscale l/s.tiff --model bicubic --scale 2 -o m/u.ome.tiff",
    "upscale zarr": "upscale l/s.tiff --model bicubic --scale 2 -o m/u.ome.zarr",
    "upscale dicom": "upscale l/s.tiff --model bicubic --scale 2 -o m/u.dcm",
    "upscale png": "upscale hr.png --mpp 1 --model bicubic --scale 2 -o m/u.png",
    "upscale folder": "upscale s --model bicubic --scale 2 -o m/u",
    "audit": "audit hr.png --lr hr.png --scale 1 -o m/audit",
    "report store": "report a.zarr -o m/report.html",
    "report run": "report runs/r -o m/report.html",
    "report eval": "report e -o m/report.html",
    "tissue mask": "tissue mask s/a.tif -o m/t",
    "tissue compare": "tissue compare t/a-mask.png t/a.geojson --sheet m/sheet.png",
    "register pair": "register pair lr.png hr.png --scale 2 -o m/o.png",
    "register scans": "register scans low/a.tif s/a.tif -o m/r",
    "degrade image": "degrade apply hr.png --kind bicubic --scale 2 -o m/d.png",
    "degrade store": "degrade apply a.zarr --kind bicubic --scale 2 -o m/d.zarr",
    "degrade fit": "degrade fit f.zarr -o m/scanner.json --pairs 3",
    "degrade compare": "degrade compare e.zarr --kinds area --pairs 3 --lr 10x --picture m/c.png",
}
"""What writes into the folder m. What writes nowhere (inspect, verify, ...) is not here."""
AGAIN = {"train": " --resume"}
"""What a command that stopped in the middle says that it goes on with."""
REMOVED = {"demo": "demo"}
"""What it says is to be removed first."""
MOUNTED = ("read-only", "full", "filling")
MODULES = (
    "wsisr_cli.main", "wsisr.building.build", "wsisr.store.keep", "wsisr.training.engine",
    "wsisr.training.start", "wsisr.evaluation", "wsisr.reporting.evaluation_page",
    "wsisr.upscaling.batch", "wsisr.upscaling.compare", "wsisr.upscaling.audit.run",
    "wsisr.reporting.audit_page", "wsisr.degradation.stores",
    "wsisr.selection.mask_files", "wsisr.registration.scans", "wsisr.registration.presentation",
)  # fmt: skip


def prepare(folder: Path) -> None:
    """What the commands read."""
    import cases
    from evaluation_samples import write_run, write_store
    from training_samples import make_store

    from wsisr.testing import SlideSpec, write_slide

    cases.build(folder)
    cases.training_store(folder / "t")
    (folder / "t/a.zarr").rename(folder / "t.zarr")
    write_store(folder / "e.zarr")
    make_store(folder / "f.zarr", splits={"a": "train"}, hr_px=256, count=3)
    write_run(folder / "runs/r")
    cases.pair_of_images(folder)
    cases.slides("a")(folder)
    (folder / "l").mkdir()
    cases.small_slide(folder / "l")
    (folder / "low").mkdir()
    low = SlideSpec(seed=3, layout="generic", width_px=512, height_px=512, um_per_px=1.0)
    write_slide(folder / "low/a.tif", low)
    shutil.rmtree(folder / "t")
    cases.command("tissue mask s/a.tif -o t", cases.nothing).run(folder)
    line = "eval --model bicubic --scales 4 --data e.zarr -o e --limit 1 --no-cost --figures 0"
    cases.command(line, cases.nothing).run(folder)


def mount(kind: str, place: Path, store: Path, size: int = 2 << 20) -> None:
    """Make the folder m what `kind` says, on a disk of some bytes."""
    if kind == "file":
        place.write_text("no folder")
        return
    place.mkdir()
    if kind in MOUNTED:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    shutil.copytree(store, place / "a.zarr")
    if kind == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    elif kind == "full":
        # A few pages stay: folders and locks can be made, files cannot be filled.
        with open(place / "filler", "wb") as file:
            file.write(bytes(room(place) - 8 * 4096))


def room(place: Path) -> int:
    """Bytes that are free."""
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize


def remove(kind: str, place: Path) -> None:
    """The folder m, whatever it was."""
    if kind in MOUNTED:
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(place) if place.is_dir() else place.unlink()


def run(line: str, kind: str, folder: Path) -> str:
    """Do it in this process, which is a fork; returns what was said to the user."""
    from wsisr_cli.main import main

    os.chdir(folder)
    told = os.open("told.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    if kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    sys.argv[:] = ["wsisr", *shlex.split(line)]
    try:
        main()
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    return ""


def judge(name: str, kind: str, folder: Path) -> str:
    """What is wrong; empty where it is right."""
    place = folder / "m"
    mount(kind, place, folder / "a.zarr")
    wrong = attempt(name, kind, folder)
    remove(kind, place)
    return wrong


def attempt(name: str, kind: str, folder: Path) -> str:
    """Run it where it cannot end; what is wrong with how it ended, empty where that is right."""
    place = folder / "m"
    before = set(place.rglob("*")) if place.is_dir() else set()
    code = in_child(lambda: run(LINES[name], kind, folder))
    said = (folder / "told.txt").read_text(errors="replace")
    lines = [x for x in said.splitlines() if x.startswith(("wsisr: ", "FAILED "))]
    left = set(place.rglob("*")) - before if place.is_dir() else set()
    # In this place a limited build or training may leave what it can go on with.
    half = [p.name for p in left if p.suffix in (".png", ".json", ".html", ".tiff", ".geojson")]
    half = [n for n in half if not n.startswith(".")] if name.split()[0] not in _GO_ON else []
    print(f"{kind:9} | {name:15} | exit {code} | {(lines or said.splitlines()[-1:] or ['-'])[-1]}")
    sys.stdout.flush()
    if code == 0 and kind in ("limit", "full", "filling"):
        return ""  # What it writes is small enough.
    wrong = [f"exit {code}"] * (code != 2) + ["traceback"] * ("Traceback" in said)
    wrong += ["no sentence"] * (len(lines) != 1) + [f"left {half}"] * bool(half)
    # A sentence around another one says twice what to do.
    wrong += ["nested"] * (said.lower().count("make room") > 1)
    return f"{kind}, {name}: {', '.join(wrong)}\n{said[-1500:]}" if wrong else ""


def fill(name: str, folder: Path) -> str:
    """Fill the disk in the middle of it, then give it room; what is wrong, empty where right."""
    from cases import MEASURED

    place, kind, large = folder / "m", "filling", 1 << 30
    mount(kind, place, folder / "a.zarr", large)
    used = large - room(place)
    if in_child(lambda: run(LINES[name], kind, folder)):
        remove(kind, place)
        said = (folder / "told.txt").read_text()
        print(f"{kind:9} | {name:15} | not tried | {said.strip()}")
        return "" if "needs wsidicomizer" in said else f"filling, {name}, with room:\n{said}"
    growth, whole = large - used - room(place), tree(place, MEASURED)
    remove(kind, place)
    for share in (0.1, 0.6, 0.95):
        mount(kind, place, folder / "a.zarr", int(used + share * growth))
        wrong = attempt(name, kind, folder)
        done = tree(place, MEASURED) == whole
        if not wrong and not done:
            subprocess.run(["mount", "-o", f"remount,size={large}", place], check=True)
            line = LINES[name] + AGAIN.get(name, "")
            if name in REMOVED:
                shutil.rmtree(place / REMOVED[name])
            code = in_child(lambda: run(line, kind, folder))  # noqa: B023
            found = tree(place, MEASURED)
            changed = sorted(k for k in {*found, *whole} if found.get(k, 0) != whole.get(k, 0))
            if code or changed:
                said = (folder / "told.txt").read_text()[-1500:]
                wrong = f"filling, {name}, with room: exit {code}, {changed} differ\n{said}"
        remove(kind, place)
        if wrong:
            return f"{share:.0%}: {wrong}"
    return ""


_GO_ON = frozenset({"build-pairs", "train", "eval", "upscale", "demo", "keep"})


def main() -> None:
    """All commands in all places."""
    folder, kinds = Path(sys.argv[1]).resolve(), sys.argv[2:]
    can_mount = subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0
    kinds = kinds or ["file", "limit", *(MOUNTED if can_mount else ())]
    if set(MOUNTED) & set(kinds) and not os.environ.get("WSISR_UNSHARED"):
        os.environ["WSISR_UNSHARED"] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv[:2], *kinds])
    for name in MODULES:
        import_module(name)
    folder.mkdir(parents=True, exist_ok=True)
    assert in_child(lambda: prepare(folder)) == 0
    wrong = 0
    for kind in kinds:
        for name in LINES:
            text = fill(name, folder) if kind == "filling" else judge(name, kind, folder)
            wrong += bool(text)
            print(text, end="\n" if text else "")
    sys.exit(1 if wrong else None)


if __name__ == "__main__":
    main()
