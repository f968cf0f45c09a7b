"""What the networks that ship are worth, on images that they have not seen. Run by hand.

    python weights/score.py DATA WORK he-x4 he-any

`DATA` as for `train.py`; networks by name, or folders. Four sets: the patients of BreaKHis that
nobody trained on, as they are and reduced by two; MoNuSeg, GlaS and DSB 2018, which are for testing
alone. Four kinds of LR at x2, x3 and x4; and the stored levels of a slide, CMU-1-Small-Region's,
which a box made and JPEG compressed. `WORK/scores.json` has every network's difference to bicubic
by patient, with intervals from ten patients on, and how many blobs of haematoxylin vanish and
appear, and how many more than by bicubic; `WORK/scores.md` is the table of the cards.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from train import reduced

from wsisr import open_pairs
from wsisr.degradation import degrade
from wsisr.inference import load, plan_tiles, super_resolve
from wsisr.metrics.nuclei import nuclei_change
from wsisr.metrics.statistics import bootstrap, bootstrap_of

HERE = Path(__file__).parent
ORIGINS = {
    "bicubic": "bicubic",
    "area": "area",
    "area, JPEG 80": "area+jpeg:quality=80",
    "optics": "optics:na=0.35,defocus_um=0.5",
}
SCALES = (2, 3, 4)
HEADLINE = "psnr_rgb"
SPECTRUM = "spectrum"
LEAST_PATIENTS = 10


@dataclass(frozen=True, kw_only=True)
class Test:
    """A set to test on: name, pattern of its images, side of a patch, factor, um/px of HR.

    Of a slide (`levels`) LR is its stored levels.
    """

    name: str
    pattern: str
    size: int
    factor: int = 1
    um_per_px: float = 0.25
    levels: bool = False

    @property
    def hr(self) -> str:
        """The array of HR."""
        return "20x" if self.levels else "40x"


TESTS = (
    Test(name="breakhis", pattern="sets/breakhis/*.png", size=448),
    Test(name="breakhis-by2", pattern="sets/breakhis/*.png", size=224, factor=2, um_per_px=0.5),
    Test(name="monuseg", pattern="sets/monuseg/images/*.tif", size=448),
    Test(name="glas", pattern="sets/glas/*[0-9].bmp", size=416, um_per_px=0.62),
    Test(name="dsb2018", pattern="sets/dsb2018_test_he/*.png", size=336),
    Test(
        name="cmu-levels",
        pattern="slides/derived_cmu_generic_3level.tif",
        size=256,
        um_per_px=0.5,
        levels=True,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """A network minus bicubic, on one set, kind of LR and scale.

    Attributes
    ----------
    gain_db, low_db, high_db : float
        Mean over patients of the PSNR in RGB minus bicubic's; interval (NaN below ten patients).
    worst_db : float
        The least difference of an image.
    ssim_gain, ssim_low, ssim_high : float
        Likewise of the SSIM in RGB.
    bicubic_db, spectrum, spectrum_bicubic : float
        Means over patients; the spectrum's error (`wsisr.metrics.spectrum_error`).
    """

    network: str
    test: str
    origin: str
    scale: int
    patients: int
    images: int
    bicubic_db: float
    gain_db: float
    low_db: float
    high_db: float
    worst_db: float
    ssim_gain: float
    ssim_low: float
    ssim_high: float
    spectrum: float
    spectrum_bicubic: float


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """Blobs of haematoxylin of HR that are lost, and that were not there, of all images.

    Attributes
    ----------
    patients, hr : int
        Blobs of HR.
    vanished, appeared, vanished_bicubic, appeared_bicubic : int
    vanished_more, appeared_more : (float, float)
        95 % interval over patients of the network's minus bicubic's, a hundred blobs of HR; NaN
        below ten patients.
    """

    network: str
    test: str
    scale: int
    patients: int
    hr: int
    vanished: int
    appeared: int
    vanished_bicubic: int
    appeared_bicubic: int
    vanished_more: tuple[float, float]
    appeared_more: tuple[float, float]


def test_store(data: Path, work: Path, test: Test) -> Path:
    """The store of a set, every image in the split `test`."""
    store = work / f"{test.name}.zarr"
    if store.exists():
        return store
    if test.levels:
        (slide,) = data.glob(test.pattern)
        table = work / f"{test.name}.csv"
        table.write_text(f"slide,split\n{slide.name},test\n")
        wsisr("build-pairs", slide, "--hr", test.hr, "--lr", "10x,5x", "--size", test.size, "--set",
              "native=prefer", "--set", "sampling.max_per_slide=16", "--mpp-override", table, "-o",
              store, "--workers", 1)  # fmt: skip
        return store
    with (data / "sets" / "SPLIT.tsv").open(newline="") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file, delimiter="\t")}
    folder = work / f"{test.name}-images"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [("slide", "patient", "split")]
    for path in sorted(data.glob(test.pattern)):
        row = rows[path.name]
        if row["set"] == "breakhis" and row["split"] != "val":
            continue
        with Image.open(path) as opened:
            rgb = np.asarray(opened.convert("RGB"))
        small = reduced(rgb, test.factor)
        if min(small.shape[1:]) < test.size:
            continue
        name = f"{path.stem}.png"
        Image.fromarray(small.permute(1, 2, 0).numpy()).save(folder / name)
        known = path.stem if "unknown" in row["patient"] else row["patient"]
        lines.append((name, known, "test"))
    table = work / f"{test.name}.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    manifest = yaml.safe_load((HERE / "manifest.yaml").read_text())
    manifest |= {"name": f"he-test-{test.name}", "size": test.size}
    manifest["sampling"] |= {"max_per_slide": 1}
    written = work / f"{test.name}.yaml"
    written.write_text(yaml.safe_dump(manifest))
    wsisr("build-pairs", folder, "--manifest", written, "--mpp-override", table, "-o", store,
          "--workers", 1)  # fmt: skip
    return store


def wsisr(*words: object) -> None:
    """Run a command."""
    text = [str(word) for word in words]
    print("wsisr", *text, flush=True)
    if subprocess.run([sys.executable, "-m", "wsisr_cli", *text]).returncode:
        raise SystemExit(f"failed: wsisr {' '.join(text)}")


def scores(
    store: Path, work: Path, test: Test, networks: list[str], origins: dict[str, str]
) -> list[Score]:
    """Every network on every kind of LR and scale of a set."""
    found = []
    scales = (2, 4) if test.levels else SCALES
    for origin, degradation in ({"stored level": "native"} if test.levels else origins).items():
        folder = work / f"eval-{test.name}-{origin.replace(' ', '').replace(',', '-')}"
        models = [word for network in networks for word in ("--model", network)]
        wsisr("eval", "--data", store, "--scales", ",".join(map(str, scales)), *models,
              "--lr-source", degradation, "--metrics", SPECTRUM, "--no-cost", "--figures", 1,
              "--overwrite", "-o", folder)  # fmt: skip
        with (folder / "images.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        psnr, ssim, spectrum = (
            next(column for column in rows[0] if column.startswith(name))
            for name in (HEADLINE, "ssim_rgb", SPECTRUM)
        )
        by: dict[tuple[str, float], dict[tuple[str, str], dict[str, str]]] = defaultdict(dict)
        for row in rows:
            by[row["run"], float(row["scale"])][row["slide"], row["row"]] = row
        for (run, scale), own in by.items():
            base = by["bicubic", scale]
            if run == "bicubic" or not all(row[psnr] for row in own.values()):
                continue

            def by_patient(
                name: str, own: dict = own, base: dict = base, minus: bool = True
            ) -> np.ndarray:
                values = defaultdict(list)
                for key, row in own.items():
                    less = float(base[key][name]) if minus else 0.0
                    values[row["patient"]].append(float(row[name]) - less)
                return np.array([np.mean(part) for part in values.values()])

            gains, structure = by_patient(psnr), by_patient(ssim)
            enough = len(gains) >= LEAST_PATIENTS
            ends = [bootstrap(v) if enough else (np.nan, np.nan) for v in (gains, structure)]
            (low, high), (ssim_low, ssim_high) = ends
            each = [float(row[psnr]) - float(base[key][psnr]) for key, row in own.items()]
            plain = {"minus": False}
            found.append(
                Score(
                    network=run, test=test.name, origin=origin, scale=int(scale),
                    patients=len(gains), images=len(own),
                    bicubic_db=float(by_patient(psnr, base, **plain).mean()),
                    gain_db=float(gains.mean()), low_db=low, high_db=high, worst_db=min(each),
                    ssim_gain=float(structure.mean()), ssim_low=ssim_low, ssim_high=ssim_high,
                    spectrum=float(by_patient(spectrum, **plain).mean()),
                    spectrum_bicubic=float(by_patient(spectrum, base, **plain).mean()),
                )
            )  # fmt: skip
    return found


def nuclei(store: Path, test: Test, networks: list[str]) -> list[Nuclei]:
    """Blobs that come and go, beside bicubic's, at x2 and x4."""
    pairs = open_pairs(store)
    rows = pairs.split("test")
    images = pairs.read(rows, test.hr)
    slides = list(pairs.slides.values())
    patients = [slides[slide].attributes["patient"] for slide, _ in rows]
    engines = {name: load(name, device="cpu") for name in [*networks, "bicubic"]}
    found = []
    for scale in (2, 4):
        side = images.shape[1] // scale * scale
        at = {name: e for name, e in engines.items() if e.trained.serves(scale)}
        counts: dict[str, list[tuple[int, int, int]]] = {name: [] for name in at}
        for image in images[:, :side, :side]:
            lr = degrade(torch.from_numpy(image.copy()).permute(2, 0, 1), "bicubic", scale)
            for name, engine in at.items():
                plan = plan_tiles(engine.needs, scale, None, None)
                made = super_resolve(engine, lr.permute(1, 2, 0).numpy(), scale, plan)
                sr = np.clip(np.rint(made), 0, 255).astype(np.uint8)
                change = nuclei_change(sr=sr, hr=image, um_per_px=test.um_per_px)
                gone, new = len(change.vanished_um), len(change.appeared_um)
                counts[name].append((change.hr, gone, new))
        base = np.array(counts.pop("bicubic"))
        for name, each in counts.items():
            own = np.array(each)
            _, lost, invented = map(int, base.sum(0))
            hr, vanished, appeared = map(int, own.sum(0))
            more = [
                bootstrap_of(
                    lambda at, more=(own - base)[:, kind], hr=own[:, 0]: (
                        100 * float(more[at].sum() / hr[at].sum())
                    ),
                    patients,
                )[:2]
                for kind in (1, 2)
            ]
            found.append(
                Nuclei(network=engines[name].trained.name, test=test.name, scale=scale,
                       patients=len(set(patients)), hr=hr, vanished=vanished, appeared=appeared,
                       vanished_bicubic=lost, appeared_bicubic=invented, vanished_more=more[0],
                       appeared_more=more[1])
            )  # fmt: skip
    return found


def table(found: list[Score], blobs: list[Nuclei], network: str) -> str:
    """The two tables of a network's card."""
    lines = [
        "| set (patients) | LR | scale | bicubic, dB | gain | 95 % interval | worst image "
        "| SSIM, gain | 95 % interval | spectrum error (bicubic) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in (s for s in found if s.network == network):
        lines.append(
            f"| {s.test} ({s.patients}) | {s.origin} | x{s.scale} | {s.bicubic_db:.2f} | "
            f"{s.gain_db:+.2f} | {_interval((s.low_db, s.high_db))} | {s.worst_db:+.2f} | "
            f"{s.ssim_gain:+.4f} | {_interval((s.ssim_low, s.ssim_high), 4)} | "
            f"{s.spectrum:.2f} ({s.spectrum_bicubic:.2f}) |"
        )
    lines += [
        "",
        "| set (patients) | scale | blobs in HR | vanished (bicubic) | more than bicubic, % "
        "| appeared (bicubic) | more than bicubic, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for n in (n for n in blobs if n.network == network):
        lines.append(
            f"| {n.test} ({n.patients}) | x{n.scale} | {n.hr} | "
            f"{n.vanished} ({n.vanished_bicubic}) | {_interval(n.vanished_more)} | "
            f"{n.appeared} ({n.appeared_bicubic}) | {_interval(n.appeared_more)} |"
        )
    return "\n".join(lines)


def _interval(ends: tuple[float, float], digits: int = 2) -> str:
    low, high = ends
    return "-" if np.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--test", choices=[test.name for test in TESTS], action="append")
    parser.add_argument("--origin", choices=[*ORIGINS], action="append")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    origins = {name: ORIGINS[name] for name in options.origin or ORIGINS}
    for test in TESTS:
        if options.test and test.name not in options.test:
            continue
        store = test_store(options.data, options.work, test)
        found = scores(store, options.work, test, options.networks, origins)
        note(options.work, found, nuclei(store, test, options.networks))
    print((options.work / "scores.md").read_text())


def note(work: Path, found: list[Score], blobs: list[Nuclei]) -> None:
    """Put the rows of a set in the place of older ones of the same networks."""
    path = work / "scores.json"
    before = json.loads(path.read_text()) if path.exists() else {"scores": [], "nuclei": []}
    done = {(score.network, score.test) for score in found}
    kept = {
        kind: [row for row in rows if (row["network"], row["test"]) not in done]
        for kind, rows in before.items()
    }
    found = [*(Score(**row) for row in kept["scores"]), *found]
    blobs = [*(Nuclei(**row) for row in kept["nuclei"]), *blobs]
    names = sorted({score.network for score in found})
    text = "\n\n".join(f"## {name}\n\n{table(found, blobs, name)}" for name in names)
    (work / "scores.md").write_text(text + "\n")
    document = {"scores": [asdict(s) for s in found], "nuclei": [asdict(n) for n in blobs]}
    path.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
