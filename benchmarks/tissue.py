"""Tissue over real pictures: fields without glass, pale stains, fat, colour alarms.

    python benchmarks/tissue.py ../shared/data

Three tables. *Fields*: of every image set, the mean share of the masks, how many fields were called
blank, fluorescence or falsely coloured. *Fading*: every slide and thumbnail with its contrast to
the glass reduced, the IoU of its mask with the mask at full contrast. *Fat*: the share of the fat
of one adipose field that is taken for tissue, alone and within tissue.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.selection.consensus import iou
from wsisr.selection.cues import white_point
from wsisr.selection.overview import read_overview
from wsisr.selection.tissue import segment
from wsisr.slides import open_slide
from wsisr.slides.colour import judge_colours

CONTRASTS = (1.0, 0.5, 0.3, 0.2, 0.15, 0.1)
FIELDS: tuple[tuple[str, str, float], ...] = (
    ("patches/he_1024_40x", "*.png", 0.25),
    ("patches/tcga_crc_512", "*.jpg", 0.5),
    ("patches/nct_crc_224_0.5mpp", "*.tif", 0.5),
    ("patches/histolab_tiles", "*-level0.png", 0.5),
    ("patches/histolab_tiles", "*-level1.png", 2.0),
    ("patches/histolab_tiles", "no-tissue*.png", 0.5),
    ("sets/breakhis", "*-400-*.png", 0.25),
    ("sets/breakhis", "*-200-*.png", 0.5),
    ("sets/breakhis", "*-100-*.png", 1.0),
    ("sets/breakhis", "*-40-*.png", 2.5),
    ("sets/glas", "*[0-9].bmp", 0.62),
    ("sets/monuseg/images", "*", 0.25),
    ("sets/dsb2018_test_he", "*.png", 0.25),
    ("sets/osteosarcoma", "*.jpg", 1.0),
)
"""Folder, pattern, um/px: as stated by the source, or the nominal value of its magnification."""
WHOLE: tuple[tuple[str, float | None], ...] = (
    ("slides/CMU-1-Small-Region.svs", None),
    ("slides/kidney-48-5_ihc_flat.tif", 2.0),
    ("slides_foreign/qupath_ome_os1.ome.tif", None),
    ("patches/histolab_thumbs/tcga-lung-rgb.png", 32.0),
    ("patches/histolab_thumbs/tcga-green-pen.png", 16.0),
    ("patches/lowpower/prostate_2500.jpeg", 8.0),
    ("registration/rat-kidney_5pc/Rat-Kidney_HE.jpg", 8.0),
    ("registration/rat-kidney_5pc/Rat-Kidney_PanCytokeratin.jpg", 8.0),
)
"""Pictures with glass and tissue, with a nominal um/px where the file states none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data
    warnings.simplefilter("ignore")
    print("| fields | images | mean share | blank | fluorescence | pen | colour alarms |")
    print("|---|---|---|---|---|---|---|")
    for folder, pattern, um in FIELDS:
        print(fields_row(sorted((data / folder).glob(pattern)), f"{folder}/{pattern}", um))
    print()
    heads = [f"{100 * c:.0f} %" for c in CONTRASTS[1:]]
    print("| IoU with the mask at full contrast | share | " + " | ".join(heads) + " |")
    print("|---|---|" + "---|" * len(heads))
    for name, um in WHOLE:
        print(fading_row(data / name, um))
    print()
    print("| fat | share taken for tissue |")
    print("|---|---|")
    for name, share in fat_rows(data):
        print(f"| {name} | {share:.2f} |")


def overview_of(path: Path, um: float | None) -> tuple[UInt8Array, float]:
    with open_slide(path, mpp=um) as slide:
        view = read_overview(slide)
    return view.rgb, view.um_per_px


def fields_row(paths: list[Path], name: str, um: float) -> str:
    shares, kinds, pens, alarms = [], [], 0, 0
    for path in paths:
        rgb, at = overview_of(path, um)
        found = segment(rgb, at)
        shares.append(float(found.mask.mean()))
        kinds.append(found.kind)
        pens += bool(found.pen.any())
        with open_slide(path, mpp=um) as slide:
            level = slide.info.levels[0]
            pixels = slide.read_level(0, 0, 0, level.width_px, level.height_px)
        alarms += judge_colours(pixels[::4, ::4].reshape(-1, 3)) is not None
    return (
        f"| {name} | {len(paths)} | {np.mean(shares):.2f} | {kinds.count('blank')} | "
        f"{kinds.count('fluorescence')} | {pens} | {alarms} |"
    )


def faded(rgb: UInt8Array, contrast: float) -> UInt8Array:
    """The picture with its distance to the glass reduced, and the glass's noise kept."""
    white = np.asarray(white_point(rgb, np.ones(rgb.shape[:2], np.bool_)).rgb)
    pale = white + contrast * (rgb - white)
    noise = np.random.default_rng(0).normal(0, 0.7, rgb.shape)
    return np.clip(np.rint(pale + noise), 0, 255).astype(np.uint8)


def fading_row(path: Path, um: float | None) -> str:
    rgb, at = overview_of(path, um)
    full = segment(rgb, at).mask
    cells = []
    for contrast in CONTRASTS[1:]:
        found = segment(faded(rgb, contrast), at)
        cells.append(f"{iou(found.mask, full):.2f}" + ("" if found.mask.any() else " (blank)"))
    return f"| {path.name} | {full.mean():.2f} | " + " | ".join(cells) + " |"


def fat_rows(data: Path) -> Iterator[tuple[str, float]]:
    """NCT-CRC's adipose field alone, and as islands of several sizes in its tumour."""
    folder = data / "patches/nct_crc_224_0.5mpp"
    fat, tumour = (read_rgb(next(folder.glob(f"{kind}-*.tif"))) for kind in ("ADI", "TUM"))
    um = 0.5
    for times in (1, 4, 8):
        picture = mirrored(fat, times)
        yield f"alone, {picture.shape[0] * um / 1000:.1f} mm", segment_at(picture, um).mean()
    for times in (1, 3, 6):
        field = mirrored(tumour, times + 6)
        island = mirrored(fat, times)
        top = 3 * fat.shape[0]
        field[top : top + len(island), top : top + len(island)] = island
        mask = segment_at(field, um)
        step = len(field) / len(mask)
        a, b = round(top / step), round((top + len(island)) / step)
        side = len(island) * um / 1000
        yield f"within tumour, {side:.1f} mm ({side**2:.2f} mm2)", mask[a:b, a:b].mean()


def read_rgb(path: Path) -> UInt8Array:
    with open_slide(path) as slide:
        level = slide.info.levels[0]
        return slide.read_level(0, 0, 0, level.width_px, level.height_px)


def mirrored(tile: UInt8Array, times: int) -> UInt8Array:
    """A larger field of one tile, without seams."""
    rows = [tile if n % 2 == 0 else tile[::-1] for n in range(times)]
    column = np.concatenate(rows)
    columns = [column if n % 2 == 0 else column[:, ::-1] for n in range(times)]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


def segment_at(rgb: UInt8Array, um: float) -> BoolArray:
    side = round(len(rgb) * um / 8.0)
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    mask: BoolArray = segment(small, 8.0).mask
    return mask


if __name__ == "__main__":
    sys.exit(main())
