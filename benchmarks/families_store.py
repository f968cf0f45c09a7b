"""The store of `benchmarks/families.py`: H&E images of three public sets, divided by patient.

    python benchmarks/families_store.py SETS STORE

`SETS` holds the folders breakhis/, osteosarcoma/ and monuseg/images/ and `SPLIT.tsv` (set, file,
patient, split). To train on: fields of BreaKHis that were taken at "40X" and "100X", and
osteosarcoma; at "400X" the microscope's optics leave nothing between the pixels of x4 to restore.
Every fifth of BreaKHis' training patients validates instead. To test on, and for nothing else: the
patients of BreaKHis that SPLIT.tsv calls `val`, and those of MoNuSeg, another scanner and other
organs. The sets state 40x (osteosarcoma: 10x); nothing here depends on it, because LR is made by a
factor of four from whatever HR is.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

MANIFEST = {
    "name": "families",
    "version": 1,
    "description": "H&E images of three public sets in patches of 192 px, at most six an image.",
    "hr": "40x",
    "lr": ["10x"],
    "size": 192,
    "native": "never",
    "tissue": {"method": "none"},
    "sampling": {"kind": "grid", "max_per_slide": 6},
    "images": {"layout": "folder", "magnification": "40x"},
    "split": {"kind": "official", "weights": {"train": 5, "test": 1}},
}


def chosen(sets: Path) -> list[tuple[Path, str, str]]:
    """File, patient and split of every image that is used."""
    with (sets / "SPLIT.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    coarse = ("-40-", "-100-")
    fields = [r for r in rows if r["set"] == "breakhis" and any(m in r["file"] for m in coarse)]
    training = sorted({row["patient"] for row in fields if row["split"] == "train"})
    validating = set(training[2::5])
    found = []
    for row in fields:
        split = "val" if row["patient"] in validating else "train"
        split = split if row["split"] == "train" else "test"
        found.append((sets / row["file"], row["patient"], split))
    for row in rows:
        if row["set"] == "osteosarcoma":
            found.append((sets / row["file"], row["patient"], "train"))
        elif row["set"] == "monuseg" and row["file"].startswith("monuseg/images/"):
            found.append((sets / row["file"], row["patient"], "test"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("store", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        table = Path(scratch, "patients.csv")
        with table.open("w", newline="") as file:
            write = csv.writer(file)
            write.writerow(("slide", "patient", "split"))
            for image, patient, split in chosen(options.sets):
                (folder / image.name).symlink_to(image.resolve())
                write.writerow((image.name, patient, split))
        manifest = Path(scratch, "families.yaml")
        manifest.write_text(yaml.safe_dump(MANIFEST))
        words = ["build-pairs", folder, "--manifest", manifest, "--mpp-override", table]
        command = [sys.executable, "-m", "wsisr_cli", *words, "-o", options.store, "--workers", "1"]
        raise SystemExit(subprocess.run(list(map(str, command)), check=False).returncode)


if __name__ == "__main__":
    main()
