"""What a folder of slides says about each slide: class, official split, site, annotation.

Pure once the slides are listed: `recognise` reads names, a reference CSV and which annotation
files exist, never pixels. The override table of the user has the last word.
"""

import csv
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from wsisr.errors import ManifestError
from wsisr.slides import LeftOut, SlideSource
from wsisr.slides.ids import short_forms

ANNOTATION_SUFFIXES = (".xml", ".geojson", ".json")
OVERRIDE_COLUMNS = ("slide", "mpp", "patient", "group", "label", "split")

_CAMELYON16 = re.compile(r"(normal|tumor|test)_(\d{3})", re.IGNORECASE)
_TCGA = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})", re.IGNORECASE)


class Detail(Protocol):
    """What a kind of source adds to a task; picklable."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files besides those of the slide itself."""

    @property
    def identity(self) -> list[Any]:
        """What the scan depends on besides files."""


@dataclass(frozen=True, kw_only=True)
class SlideTask:
    """One slide of a build: the unit of work, of failure and of commit.

    Attributes
    ----------
    source : SlideSource
    patient, group : str
        Who and which glass; scans of one glass share a group and never straddle splits.
    site : str
        Hospital, scanner or centre; empty where unknown.
    label : str
        Class of the whole slide; empty where unknown.
    split : str
        Official or user-given split; empty: drawn from the manifest's seed.
    split_is_override : bool
        Whether the user gave it (and not the data set's layout).
    annotation : Path or None
    mpp : float or None
        The user's override in um/px.
    detail : Detail or None
        What its kind of source adds: the second scan of the glass, the images of a stack.
    """

    source: SlideSource
    patient: str
    group: str
    site: str = ""
    label: str = ""
    split: str = ""
    split_is_override: bool = False
    annotation: Path | None = None
    mpp: float | None = None
    detail: Detail | None = None

    @property
    def slide_id(self) -> str:
        return self.source.slide_id

    @property
    def draw_key(self) -> str:
        """What its random draws hang on, whatever its id (`wsisr.slides.ids.draw_keys`)."""
        return self.source.draw_key or self.slide_id

    def draw_of(self, who: str) -> str:
        """What the draw of its patient or glass hangs on: of one of its own its draw key."""
        return self.draw_key if who == self.slide_id else who

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that its pixels come from."""
        more = () if self.detail is None else self.detail.files
        return tuple(dict.fromkeys((*self.source.files, *more)))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a source folder was understood.

    Attributes
    ----------
    name : str
        ``"camelyon16-official"``, ``"camelyon16-flat"``, ``"folder"`` or ``"images-..."``.
    sentence : str
        For the person who started the build.
    manifest : str
        The manifest that fits when none is named.
    tasks : tuple of SlideTask
        Sorted by slide id.
    left_out : tuple of LeftOut
        What was seen in the folder and is no slide, with reasons.
    """

    name: str
    sentence: str
    manifest: str
    tasks: tuple[SlideTask, ...]
    left_out: tuple[LeftOut, ...] = ()


def recognise(source: Path, slides: Sequence[SlideSource]) -> Layout:
    """Understand a folder of slides.

    CAMELYON16 is recognised by its file names: `normal_001`, `tumor_001`, `test_001`. In the
    official layout (``training/normal``, ``training/tumor``, ``testing/images``) a test slide's
    class comes from ``testing/reference.csv``; in the flat one a test slide is a tumour slide
    if it has an annotation. Centres follow the challenge's description: training slides
    normal 001-100 and tumor 001-070 are from one hospital, the rest from the other.
    """
    root = source if source.is_dir() else source.parent
    annotations = _annotations(root)
    named = [slide for slide in slides if _CAMELYON16.fullmatch(_stem(slide))]
    camelyon = len(named) >= max(1, len(slides) // 2)
    official = (root / "training").is_dir() and camelyon
    reference = _reference(root) if camelyon else {}
    tasks = []
    for slide in sorted(slides, key=lambda item: item.slide_id):
        stem = _stem(slide)
        task = SlideTask(
            source=slide,
            patient=patient_of(stem, slide.slide_id),
            group=slide.slide_id,
            annotation=annotations.get(stem.lower()),
        )
        match = _CAMELYON16.fullmatch(stem) if camelyon else None
        tasks.append(_camelyon_task(task, match, reference) if match else task)
    if not camelyon:
        found = sum(task.annotation is not None for task in tasks)
        return Layout(
            name="folder",
            sentence=f"{_slides(len(tasks))} in a plain folder, {found} with annotations",
            manifest="default",
            tasks=tuple(tasks),
        )
    count = {
        kind: sum(_stem(s).lower().startswith(kind) for s in named)
        for kind in ("normal", "tumor", "test")
    }
    name = "camelyon16-official" if official else "camelyon16-flat"
    return Layout(
        name=name,
        sentence=(
            f"CAMELYON16 in the {'official' if official else 'flat'} layout: {count['normal']} "
            f"normal, {count['tumor']} tumour and {count['test']} test slides"
        ),
        manifest="pathimgsr",
        tasks=tuple(tasks),
    )


def _camelyon_task(task: SlideTask, match: re.Match[str], reference: dict[str, str]) -> SlideTask:
    kind, number = match.group(1).lower(), int(match.group(2))
    if kind == "test":
        stated = reference.get(match.group(0).lower())
        tumour = stated == "tumor" if stated else task.annotation is not None
        return replace(task, split="test", label="tumor" if tumour else "normal")
    first = number <= (100 if kind == "normal" else 70)
    return replace(
        task,
        split="train",
        label="tumor" if kind == "tumor" else "normal",
        site="RUMC" if first else "UMCU",
    )


def _slides(count: int) -> str:
    return f"{count} slide" + ("" if count == 1 else "s")


def _stem(slide: SlideSource) -> str:
    return slide.path.name if slide.path.is_dir() else slide.path.stem


def patient_of(stem: str, slide_id: str) -> str:
    """TCGA barcodes carry the patient; anywhere else a slide is its own patient."""
    match = _TCGA.match(stem)
    return match.group(1).upper() if match else slide_id


def _annotations(root: Path) -> dict[str, Path]:
    """Annotation files by lower-case stem; the first suffix wins where several exist."""
    found: dict[str, Path] = {}
    for suffix in ANNOTATION_SUFFIXES:
        for path in sorted(root.rglob(f"*{suffix}")):
            if not any(part.endswith((".zarr", ".partial", ".report")) for part in path.parts):
                found.setdefault(path.stem.lower(), path)
    return found


def _reference(root: Path) -> dict[str, str]:
    """Test slide -> class from the challenge's reference CSV (no header; name, class, ...)."""
    for path in sorted(root.rglob("reference.csv")):
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if len(row) >= 2]
        return {row[0].strip().lower().removesuffix(".tif"): row[1].strip().lower() for row in rows}
    return {}


def apply_overrides(tasks: Sequence[SlideTask], table: Path) -> tuple[SlideTask, ...]:
    """Apply the user's CSV: column `slide` (file name or id, a DICOM series by its folder) and
    any of `mpp`, `patient`, `group`, `label`, `split`; an empty cell keeps what the file says.

    Raises
    ------
    ManifestError
        Unknown column, a row that fits no slide or several, a resolution that is no number,
        an unknown split, or one slide in two rows.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{table}: cannot be read as a CSV table: {error}") from None
    unknown = [name for name in header if name not in OVERRIDE_COLUMNS]
    if "slide" not in header or unknown:
        what = f"unknown column {unknown[0]!r}" if unknown else "no column 'slide'"
        raise ManifestError(f"{table}: {what}; the columns are {', '.join(OVERRIDE_COLUMNS)}.")
    result = {task.slide_id: task for task in tasks}
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{table}, line {line}"
        if None in row:
            raise ManifestError(f"{where}: more cells than columns.")
        cells = {key: (value or "").strip() for key, value in row.items()}
        task = find_task(cells["slide"], tasks, where)
        if task.slide_id in seen:
            raise ManifestError(
                f"{where}: {task.slide_id} has a row already ({seen[task.slide_id]})."
            )
        seen[task.slide_id] = line
        result[task.slide_id] = _override(result[task.slide_id], cells, where)
    return tuple(result[task.slide_id] for task in tasks)


def find_task(name: str, tasks: Sequence[SlideTask], where: str) -> SlideTask:
    """The slide that a table means by a file name, a relative path or an id.

    Raises
    ------
    ManifestError
        If none or several fit; `where` names the line.
    """
    wanted = name.strip().rstrip("/")
    fits = [
        task
        for task in tasks
        if wanted in (task.slide_id, task.source.path.name, task.source.relative.rstrip("/"))
        or wanted in short_forms(task.slide_id)
        or (wanted == task.source.path.parent.name and task.source.kind == "dicom")
    ]
    if len(fits) == 1:
        return fits[0]
    if fits:
        ids = ", ".join(task.slide_id for task in fits)
        raise ManifestError(f"{where}: {name!r} fits several slides; use one of the ids {ids}.")
    names = [n for task in tasks for n in (task.slide_id, task.source.path.name)]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ManifestError(f"{where}: no slide is called {name!r}.{hint}")


def _override(task: SlideTask, cells: dict[str, str], where: str) -> SlideTask:
    mpp = task.mpp
    if cells.get("mpp"):
        try:
            mpp = float(cells["mpp"])
        except ValueError:
            raise ManifestError(f"{where}: mpp {cells['mpp']!r} is no number (um/px).") from None
    split = cells.get("split") or task.split
    if split not in ("", "train", "val", "test"):
        raise ManifestError(f"{where}: split {split!r} is not train, val or test.")
    return replace(
        task,
        mpp=mpp,
        patient=cells.get("patient") or task.patient,
        group=cells.get("group") or task.group,
        label=cells.get("label") or task.label,
        split=split,
        split_is_override=bool(cells.get("split")),
    )
