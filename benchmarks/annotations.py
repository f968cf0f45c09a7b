"""Do published point lists fall where published polygons say?

Run by hand: `python benchmarks/annotations.py DATA`. DATA holds NCRF's lists
`coords/ncrf_{tumor,normal}_valid.txt` and polygons `annotations/camelyon16_ncrf_json/valid/*.json`
of CAMELYON16. For every slide with polygons a slide with tissue around its points is generated
(the real pixels are not needed for this) and scanned with the points as candidates; the class
that each place gets is compared with its list. Also printed: the share of lesion area inside
the tissue mask (tissue is generated around the points only, not all over the lesions).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from wsisr.building import BuildRequest, prepare
from wsisr.building.scan import scan_slide
from wsisr.checkup.bench import machine
from wsisr.selection import load_points, tissue_of
from wsisr.selection.annotations import load_annotations
from wsisr.selection.compare import annotation_recall
from wsisr.slides import open_slide
from wsisr.testing import spec_around, write_slide
from wsisr.testing.spec import outline

FIELD_PX = 64


def check(name: str, polygons: Path, lists: dict[str, np.ndarray], folder: Path) -> tuple[int, int]:
    """Scan one slide; returns points compared and points in another class than their list's."""
    rings = json.loads(polygons.read_text())
    spec = spec_around(
        np.concatenate(list(lists.values())),
        reach_px=250,
        tumour=tuple(outline(r["vertices"]) for r in rings["positive"]),
        exclusions=tuple(outline(r["vertices"]) for r in rings["negative"]),
    )
    source = folder / name
    source.mkdir()
    write_slide(source / f"{name}.tif", spec)
    (source / polygons.name).write_bytes(polygons.read_bytes())
    rows = [f"{name},{x},{y}" for points in lists.values() for x, y in points]
    (source / "points.csv").write_text("\n".join(rows) + "\n")
    manifest = folder / f"{name}.yaml"
    body = {
        "name": "points",
        "hr": "40x",
        "lr": ["10x"],
        "size": FIELD_PX,
        "tissue": {"min_fraction": 0.0},
        "sampling": {"kind": "points", "points": "points.csv", "max_overlap": 1.0},
        "labels": {"classes": ["normal", "tumor"], "background": "normal", "min_fraction": 0.5},
        "registration": {"method": "none"},
    }
    manifest.write_text(yaml.safe_dump(body))
    prepared = prepare(
        BuildRequest(source=source, output=folder / "x.zarr", manifest=manifest, overrides={})
    )
    record = scan_slide(prepared.tasks[0], prepared.manifest, folder / "scan", source)
    found = dict(
        zip(
            zip(record.candidates.x, record.candidates.y, strict=True),
            record.candidates.label,
            strict=True,
        )
    )
    compared = wrong = 0
    for label, points in lists.items():
        for x, y in points:
            origin = tuple(int(np.ceil((v - FIELD_PX / 2) / 4 - 0.5) * 4) for v in (x, y))
            if origin in found:
                compared += 1
                if found[origin] != ["normal", "tumor"].index(label):
                    wrong += 1
                    print(f"  {name} ({x:.0f}, {y:.0f}): listed {label}, found otherwise")
    with open_slide(source / f"{name}.tif") as slide:
        tissue = tissue_of(slide)
        recall = annotation_recall(tissue.mask, tissue.factor, load_annotations(polygons))
    total = sum(map(len, lists.values()))
    print(
        f"{name}: {compared} of {total} points, {wrong} in another class; lesion in mask {recall}"
    )
    return compared, wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--slides", nargs="*", help="only these")
    options = parser.parse_args()
    print(time.strftime("%Y-%m-%d"), machine())
    points = {
        label: load_points(options.data / f"coords/ncrf_{label}_valid.txt")
        for label in ("tumor", "normal")
    }
    compared = wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(
            (options.data / "annotations/camelyon16_ncrf_json/valid").glob("*.json")
        ):
            name = path.stem
            if options.slides and name not in options.slides:
                continue
            lists = {label: table[name] for label, table in points.items() if name in table}
            if lists:
                more, bad = check(name, path, lists, Path(folder))
                compared, wrong = compared + more, wrong + bad
    print(f"{compared - wrong} of {compared} points ({(compared - wrong) / compared:.2%}) agree.")


if __name__ == "__main__":
    main()
