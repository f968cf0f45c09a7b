"""Folders of ready-made images as data sets publish them: GlaS, CoNSeP, PCam, plain folders.

Every image is a window of a generated scene, so that it looks like stained tissue and no two are
alike; labels are drawn, with their numbers known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.testing.spec import SlideSpec, make_scene


def tissue_image(seed: int, width_px: int, height_px: int, um_per_px: float = 0.25) -> UInt8Array:
    """A window in the middle of a generated section, shape (height, width, 3)."""
    side = 4 * max(width_px, height_px)
    spec = SlideSpec(seed=seed, width_px=side, height_px=side, um_per_px=um_per_px, holes=())
    x, y = (side - width_px) // 2, (side - height_px) // 2
    return make_scene(spec).render(x, y, width_px, height_px)


def write_image(path: Path, pixels: UInt8Array) -> None:
    """Write an image in the format of its suffix, lossless but for JPEG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_images(
    folder: Path,
    names: Sequence[str],
    *,
    width_px: int = 256,
    height_px: int = 256,
) -> None:
    """Plain images by relative path, e.g. ``train/liver/a.png``."""
    for number, name in enumerate(names):
        write_image(folder / name, tissue_image(1000 + number, width_px, height_px))


def write_cores(folder: Path, count: int, *, side_px: int = 640) -> None:
    """Cores of a tissue microarray: round tissue on white, one PNG each."""
    y, x = np.mgrid[:side_px, :side_px] + 0.5 - side_px / 2
    outside = np.hypot(x, y) > 0.48 * side_px
    for number in range(count):
        pixels = tissue_image(2000 + number, side_px, side_px, 0.504)
        pixels[outside] = 244
        write_image(folder / f"core_{number + 1:03d}.png", pixels)


def write_glas_like(
    folder: Path,
    counts: Mapping[str, int],
    *,
    width_px: int = 775,
    height_px: int = 522,
) -> dict[str, int]:
    """GlaS: ``train_1.bmp``, ``train_1_anno.bmp``, ..., ``Grade.csv`` with spaces in its headings.

    Parameters
    ----------
    counts : mapping of ``"train"``, ``"testA"``, ``"testB"`` to int

    Returns
    -------
    dict of image name to int
        Glands drawn.
    """
    rows = ["name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)"]
    glands: dict[str, int] = {}
    for kind, count in counts.items():
        for number in range(1, count + 1):
            name, serial = f"{kind}_{number}", len(glands)
            pixels = tissue_image(3000 + serial, width_px, height_px, 0.62)
            glands[name] = 2 + serial % 4
            write_image(folder / f"{name}.bmp", pixels)
            write_image(folder / f"{name}_anno.bmp", _discs(width_px, height_px, glands[name]))
            grade = ("benign, healthy", "malignant, poorly differentiated")[serial % 2]
            # Four patients are dealt round, so that they stand in train and test, as in GlaS.
            rows.append(f"{name}, {serial % 4 + 1}, {grade}")
    (folder / "Grade.csv").write_text("\n".join(rows) + "\n")
    return glands


def write_consep_like(
    folder: Path, train: int, test: int, *, side_px: int = 1000
) -> dict[str, int]:
    """CoNSeP: ``Train/Images/train_1.png``, ``Train/Labels/train_1.mat``, overlays beside them.

    Returns
    -------
    dict of image name to int
        The type (1 to 7) that most nuclei of the image have.
    """
    from scipy.io import savemat

    most: dict[str, int] = {}
    for kind, count in (("train", train), ("test", test)):
        root = folder / kind.capitalize()
        for number in range(1, count + 1):
            name = f"{kind}_{number}"
            pixels = tissue_image(4000 + len(most), side_px, side_px)
            write_image(root / "Images" / f"{name}.png", pixels)
            write_image(root / "Overlay" / f"{name}.png", pixels)
            most[name] = 1 + len(most) % 7
            kinds = [most[name]] * 5 + [1 + most[name] % 7]
            instances = _discs(side_px, side_px, len(kinds)).astype(np.int32)
            centres = [np.argwhere(instances == k)[:, ::-1].mean(axis=0) for k in range(1, 7)]
            types = np.concatenate([[0], kinds])[instances]
            (root / "Labels").mkdir(parents=True, exist_ok=True)
            savemat(
                root / "Labels" / f"{name}.mat",
                {
                    "inst_map": instances.astype(np.float64),
                    "type_map": types.astype(np.float64),
                    "inst_type": np.array(kinds, np.float64)[:, None],
                    "inst_centroid": np.array(centres),
                },
            )
    return most


def write_pcam_folders(folder: Path, counts: Mapping[str, int]) -> None:
    """PCam unpacked: ``train/0/000.png`` and so on, 96 px, classes 0 and 1 in turn."""
    for split, count in counts.items():
        patches, labels = _pcam(count, 5 + len(split))
        for number, (pixels, label) in enumerate(zip(patches, labels.tolist(), strict=True)):
            write_image(folder / split / str(label) / f"{number:03d}.png", pixels)


def write_pcam_hdf5(folder: Path, counts: Mapping[str, int], *, slides: int = 2) -> None:
    """PCam as published: ``camelyonpatch_level_2_split_train_x.h5``, ``_y.h5``, ``_meta.csv``.

    Needs h5py. `slides` source slides per split are dealt round; 0 writes no table.
    """
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        stem = f"camelyonpatch_level_2_split_{split}"
        patches, labels = _pcam(count, 5 + len(split))
        with h5py.File(folder / f"{stem}_x.h5", "w") as file:
            file["x"] = patches
        with h5py.File(folder / f"{stem}_y.h5", "w") as file:
            file["y"] = labels.reshape(-1, 1, 1, 1)
        if slides:
            lines = [f"{n},camelyon16_{split}_{n % slides}" for n in range(count)]
            (folder / f"{stem}_meta.csv").write_text("\n".join([",wsi", *lines]) + "\n")


def _pcam(count: int, seed: int) -> tuple[UInt8Array, UInt8Array]:
    side = 96
    picture = tissue_image(seed, side * count, side, 0.972)
    patches = picture.reshape(side, count, side, 3).transpose(1, 0, 2, 3)
    return np.ascontiguousarray(patches), (np.arange(count) % 2).astype(np.uint8)


def _discs(width_px: int, height_px: int, count: int) -> UInt8Array:
    """A label image with `count` discs in a row, numbered from 1."""
    y, x = np.mgrid[:height_px, :width_px]
    image = np.zeros((height_px, width_px), np.uint8)
    pitch = width_px / count
    for number in range(count):
        near = np.hypot(x - (number + 0.5) * pitch, y - height_px / 2) < 0.3 * pitch
        image[near] = number + 1
    return image


def write_monuseg_like(
    folder: Path, count: int, *, side_px: int = 128, unions: int = 0
) -> dict[str, list[tuple[float, float, float]]]:
    """MoNuSeg: ``Tissue Images/TCGA-AA-0001-01Z-00-DX1.tif`` with Aperio XML in ``Annotations``.

    Nuclei are dark discs, so that a network has something to find. Of the last `unions` images no
    outlines are written, but a mask of all nuclei (grey and alpha).

    Returns
    -------
    dict of image name to list of (x, y, radius)
        The nuclei, in px.
    """
    from PIL import Image

    rng = np.random.default_rng(6)
    nuclei: dict[str, list[tuple[float, float, float]]] = {}
    y, x = np.mgrid[:side_px, :side_px]
    for number in range(count):
        name = f"TCGA-AA-{number + 1:04d}-01Z-00-DX1"
        pixels = tissue_image(6000 + number, side_px, side_px).astype(np.float64)
        pixels = 200 + 0.2 * (pixels - 200)
        inside = np.zeros((side_px, side_px), bool)
        nuclei[name] = []
        for top in range(12, side_px - 8, 24):
            for left in range(12, side_px - 8, 24):
                radius = float(rng.uniform(5, 9))
                nuclei[name].append((float(left), float(top), radius))
                inside |= np.hypot(x - left, y - top) <= radius
        pixels[inside] = 0.3 * pixels[inside] + (40, 15, 70)
        write_image(folder / "Tissue Images" / f"{name}.tif", pixels.clip(0, 255).astype(np.uint8))
        if number >= count - unions:
            mask = np.stack([inside * np.uint8(255), np.full_like(inside, 255, np.uint8)], -1)
            (folder / "binary_masks").mkdir(exist_ok=True)
            Image.fromarray(mask, "LA").save(folder / "binary_masks" / f"{name}.png")
            continue
        turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        regions = []
        for at, (cx, cy, radius) in enumerate(nuclei[name], start=1):
            corners = "".join(
                f'<Vertex X="{cx + radius * np.cos(t):.4f}" Y="{cy + radius * np.sin(t):.4f}"/>'
                for t in turns
            )
            regions.append(f'<Region Id="{at}" Type="0"><Vertices>{corners}</Vertices></Region>')
        text = (
            '<Annotations MicronsPerPixel="0.252000"><Annotation Id="1" Name=""><Regions>'
            f"{''.join(regions)}</Regions></Annotation></Annotations>"
        )
        (folder / "Annotations").mkdir(parents=True, exist_ok=True)
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    return nuclei
