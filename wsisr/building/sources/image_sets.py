"""Which files of a folder are ready-made images: their class, split, patient and labels.

Pure once the files are listed, like `wsisr.building.layout`. An image is one slide of one level;
with `images.stack` the images of one folder or HDF5 file are the rows of one slide.
"""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from wsisr.building.layout import Layout, SlideTask
from wsisr.building.manifest import Manifest
from wsisr.errors import BuildError
from wsisr.selection.image_labels import UNION_FOLDER
from wsisr.selection.patients import own_patient
from wsisr.slides import SlideSource, find_slides
from wsisr.slides.ids import SILENT_SUFFIX, sanitise_id, slide_id
from wsisr.slides.stack import ImageStack, open_hdf5
from wsisr.tables import read_table
from wsisr.words import counted

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "testa", "testb"), "test"),
}
"""Names of folders (and beginnings of PCam's file names) that stand for official splits."""

_GLAS = re.compile(r"(train|test(?P<part>[AB]))_\d+", re.IGNORECASE)
_PCAM = re.compile(r"(.*?)(train|valid|test)_x", re.IGNORECASE)
_BREAKHIS = re.compile(
    r"SOB_(?P<class>[BM])_[A-Z]+-(?P<year>\d+)-(?P<slide>\d+)(?P<part>[A-Z]*)-(?P<mag>\d+)-\d+"
)

_BREAKHIS_CLASSES = {"B": "benign", "M": "malignant"}
_PCAM_SLIDE = re.compile(r"camelyon16_(?:train_)?((?:normal|tumor|test)_\d{3})")
_PUBLISHED = ("pcam", "glas", "consep", "breakhis", "monuseg")
"""Published sets; the first that a folder looks like."""
_LABEL_FOLDERS = ("labels", "overlay", "masks", "annotations", UNION_FOLDER)


def published_layout(source: Path) -> str | None:
    """The manifest of the published image set that a folder holds, or None."""
    if not source.is_dir():
        return None
    found = set()
    # One walk: a shared disk lists a large tree slowly.
    for folder, folders, files in os.walk(source):
        inside = os.path.basename(folder).lower()
        for name in (*folders, *files):
            stem, suffix = os.path.splitext(name)
            if suffix == ".h5" and _PCAM.fullmatch(stem):
                found.add("pcam")
            elif name.endswith("_anno.bmp"):
                found.add("glas")
            elif suffix == ".mat" and inside == "labels":
                found.add("consep")
            elif suffix == ".png" and _BREAKHIS.fullmatch(stem):
                found.add("breakhis")
            elif name == "Tissue Images":
                found.add("monuseg")
    if (source / UNION_FOLDER).is_dir():
        found.add("monuseg")
    return next((name for name in _PUBLISHED if name in found), None)


def list_images(source: Path, manifest: Manifest) -> Layout:
    """The images of a folder as tasks.

    Raises
    ------
    BuildError
        If the folder holds no image of the layout that the manifest names.
    """
    rule = manifest.images
    assert rule is not None
    if rule.layout == "pcam" and (files := sorted(source.rglob("*_x.h5"))):
        tasks = _pcam_files(source, files, manifest)
    else:
        images = [slide for slide in find_slides(source) if _is_image(slide)]
        kinds = {"glas": _glas, "consep": _consep, "monuseg": _monuseg, "breakhis": _breakhis}
        find = kinds.get(rule.layout, _folder)
        tasks = find(source, images, manifest)
        if rule.stack:
            tasks = _stacked(source, tasks)
    if not tasks:
        raise BuildError(f"{source}: no images in the layout {rule.layout!r} here.")
    stacks = [task.detail for task in tasks if isinstance(task.detail, ImageStack)]
    count = sum(map(len, stacks)) if stacks else len(tasks)
    groups = f" in {counted(len(tasks), 'stack')}" if stacks else ""
    return Layout(
        name=f"images-{rule.layout}",
        sentence=f"{counted(count, 'image')}{groups} ({rule.layout})",
        manifest=manifest.name,
        tasks=tuple(sorted(tasks, key=lambda task: task.slide_id)),
    )


def _is_image(slide: SlideSource) -> bool:
    """Not a mask or an overlay, as data sets keep them beside the images."""
    folders = {part.lower() for part in PurePosixPath(slide.relative).parts}
    called = slide.path.stem.lower().endswith(("_anno", "_mask", "_overlay"))
    return not (called or folders & set(_LABEL_FOLDERS))


def _folder(source: Path, images: Sequence[SlideSource], manifest: Manifest) -> list[SlideTask]:
    """Class, split and site from the names of the folders above an image.

    A folder called like a class (or like its number) is a class, ``train``, ``val``, ``test`` are
    splits; the first other one is the site.
    """
    tasks = []
    for image in images:
        parts = PurePosixPath(image.relative).parts[:-1]
        split = next((SPLIT_FOLDERS[p.lower()] for p in parts if p.lower() in SPLIT_FOLDERS), "")
        label = next((name for p in parts if (name := _class_of(p, manifest))), "")
        others = [p for p in parts if p.lower() not in SPLIT_FOLDERS and not _class_of(p, manifest)]
        tasks.append(_by_itself(image, site=others[0] if others else "", label=label, split=split))
    return tasks


def _class_of(folder: str, manifest: Manifest) -> str:
    classes = manifest.labels.classes
    if folder.isdigit() and int(folder) < len(classes):
        return classes[int(folder)]
    return next((name for name in classes if name.lower() == folder.lower()), "")


def _glas(source: Path, images: Sequence[SlideSource], manifest: Manifest) -> list[SlideTask]:
    """``train_1.bmp`` with ``train_1_anno.bmp``; patient and grade from ``Grade.csv``."""
    grades = _grades(source)
    tasks = []
    for image in images:
        match = _GLAS.fullmatch(image.path.stem)
        if match is None:
            continue
        patient, grade = grades.get(image.path.stem.lower(), ("", ""))
        mask = image.path.with_name(f"{image.path.stem}_anno{image.path.suffix}")
        task = _by_itself(
            image,
            label=grade,
            split="train" if match.group(1).lower() == "train" else "test",
            part=(match["part"] or "").upper(),
            annotation=mask if mask.is_file() else None,
        )
        known = own_patient(f"patient-{patient}", "GlaS") if patient else task.patient
        tasks.append(replace(task, patient=known))
    return tasks


def _grades(source: Path) -> dict[str, tuple[str, str]]:
    """Image -> (patient, grade) from the contest's table, whose headings carry spaces."""
    for path in sorted(source.rglob("Grade.csv")):
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if len(row) >= 3]
        heads = [cell.lower() for cell in rows[0]] if rows else []
        if "name" not in heads or "grade (glas)" not in heads:
            raise BuildError(f"{path}: needs the columns name, patient ID and grade (GlaS).")
        name, grade = heads.index("name"), heads.index("grade (glas)")
        patient = heads.index("patient id") if "patient id" in heads else None
        return {
            row[name].lower(): ("" if patient is None else row[patient], row[grade].lower())
            for row in rows[1:]
        }
    return {}


def _by_itself(image: SlideSource, **facts: Any) -> SlideTask:
    """An image that is its own patient and group: nobody says whose it is."""
    return SlideTask(
        source=image,
        patient=own_patient(image.slide_id, draw=image.draw_key),
        group=image.slide_id,
        **facts,
    )


def _consep(source: Path, images: Sequence[SlideSource], manifest: Manifest) -> list[SlideTask]:
    """``Train/Images/train_1.png`` with ``Train/Labels/train_1.mat``."""
    tasks = []
    for image in images:
        if image.path.parent.name.lower() != "images":
            continue
        labels = image.path.parent.parent / "Labels" / f"{image.path.stem}.mat"
        split = SPLIT_FOLDERS.get(image.path.stem.partition("_")[0].lower(), "")
        tasks.append(
            _by_itself(image, split=split, annotation=labels if labels.is_file() else None)
        )
    return tasks


def _monuseg(source: Path, images: Sequence[SlideSource], manifest: Manifest) -> list[SlideTask]:
    """Images with Aperio XML of their name anywhere, or with a mask of all nuclei at once.

    The training part has the folders ``Tissue Images`` and ``Annotations``, the test part both in
    one. Patients follow from TCGA's barcodes.
    """
    outlines = {path.stem: path for path in sorted(source.rglob("*.xml"))}
    unions = {path.stem: path for path in sorted(source.rglob(f"{UNION_FOLDER}/*.png"))}
    tasks = []
    for image in images:
        folders = " ".join(PurePosixPath(image.relative).parts[:-1]).lower()
        split = next((name for name in ("test", "train") if name in folders), "")
        tasks.append(
            _by_itself(
                image,
                split=split,
                annotation=outlines.get(image.path.stem) or unions.get(image.path.stem),
            )
        )
    return tasks


def _breakhis(source: Path, images: Sequence[SlideSource], manifest: Manifest) -> list[SlideTask]:
    """``SOB_M_DC-14-2773-40-003.png``: class, kind, year and slide, magnification, number.

    Letters behind a slide's number tell slides of one patient apart.
    """
    tasks = []
    for image in images:
        match = _BREAKHIS.fullmatch(image.path.stem)
        if match is None:
            continue
        patient = f"{match['year']}-{match['slide']}"
        tasks.append(
            SlideTask(
                source=image,
                patient=own_patient(patient, "BreaKHis"),
                group=f"{patient}{match['part']}",
                site=f"{match['mag']}X",
                label=_BREAKHIS_CLASSES[match["class"]],
            )
        )
    return tasks


def _stacked(source: Path, tasks: Sequence[SlideTask]) -> list[SlideTask]:
    """All images of one folder as one slide."""
    folders: dict[Path, list[SlideTask]] = {}
    for task in tasks:
        folders.setdefault(task.source.path.parent, []).append(task)
    stacked = []
    for folder, members in sorted(folders.items()):
        files = tuple(task.source.path for task in members)
        relative = folder.relative_to(source).as_posix() if folder != source else source.name
        stacked.append(
            _stack_task(
                folder,
                relative,
                ImageStack(files=files, labels=tuple(task.label for task in members)),
                members[0].split,
            )
        )
    return stacked


def _stack_task(
    path: Path, name: str, stack: ImageStack, split: str, patient: str = ""
) -> SlideTask:
    source = SlideSource(
        path=path,
        # Called like one file: folders and files of one name are never slides of one source.
        slide_id=slide_id(f"{name}{SILENT_SUFFIX}"),
        files=stack.files,
        kind="stack",
        relative=name,
        draw_key=sanitise_id(name),
    )
    person = (
        own_patient(_PCAM_SLIDE.sub(r"\1", patient), "PCam", patient)
        if patient
        else own_patient(source.slide_id, draw=source.draw_key)
    )
    glass = patient or source.slide_id
    return SlideTask(source=source, patient=person, group=glass, split=split, detail=stack)


def _pcam_files(source: Path, files: Sequence[Path], manifest: Manifest) -> list[SlideTask]:
    """PCam's HDF5 files; one stack per slide of CAMELYON16 where ``*_meta.csv`` names them."""
    tasks = []
    for path in files:
        match = _PCAM.fullmatch(path.stem)
        if match is None:
            continue
        split = SPLIT_FOLDERS[match.group(2).lower()]
        labels = _pcam_labels(path.with_name(path.name.replace("_x.h5", "_y.h5")), manifest)
        slides = _pcam_slides(path.with_name(path.name.replace("_x.h5", "_meta.csv")))
        with open_hdf5(path) as file:
            count = int(file["x"].shape[0])
        for what, known in (("_y.h5", labels), ("_meta.csv", slides)):
            if known and len(known) != count:
                raise BuildError(f"{path}: {count} patches, but {len(known)} rows in its {what}.")
        groups: dict[str, list[int]] = {}
        for row in range(count):
            groups.setdefault(slides[row] if slides else "", []).append(row)
        for slide, rows in sorted(groups.items()):
            stack = ImageStack(
                files=(path,),
                rows=tuple(rows),
                dataset="x",
                labels=tuple(labels[row] for row in rows) if labels else (),
            )
            name = f"{match.group(2).lower()}/{slide}" if slide else match.group(2).lower()
            tasks.append(_stack_task(path, name, stack, split, patient=slide))
    return tasks


def _pcam_labels(path: Path, manifest: Manifest) -> list[str]:
    if not path.is_file():
        return []
    classes = manifest.labels.classes
    with open_hdf5(path) as file:
        numbers = [int(value) for value in file["y"][:].ravel()]
    return [classes[n] if 0 <= n < len(classes) else "" for n in numbers]


def _pcam_slides(path: Path) -> list[str]:
    if not path.is_file():
        return []
    header, rows = read_table(path, BuildError)
    if "wsi" not in header:
        raise BuildError(f"{path}: needs the column wsi.")
    return [str(row["wsi"]) for row in rows]
