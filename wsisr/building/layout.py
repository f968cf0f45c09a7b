"""What a folder of slides says about each slide: patient, class, split, site, annotation.

`recognise` reads names, a reference CSV and the first bytes of annotation files, `find_patients`
the PatientID of DICOM files; neither reads pixels. The user's table has the last word.
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsisr.errors import ManifestError
from wsisr.selection.annotation_files import (
    ANNOTATION_SUFFIXES,
    Matches,
    Named,
    annotation_format,
    match_annotations,
)
from wsisr.selection.patients import (
    Patient,
    PatientRule,
    PatientSource,
    find_patient,
    own_patient,
    stated_patient,
)
from wsisr.selection.pseudonyms import Pseudonyms
from wsisr.slides import LeftOut, SlideSource
from wsisr.slides.dicom_files import patient_id
from wsisr.slides.discovery import folders_of
from wsisr.slides.ids import short_forms, without_suffix
from wsisr.tables import read_table
from wsisr.words import counted, nearest

if TYPE_CHECKING:
    from wsisr.building.staging import SlideStage

OVERRIDE_COLUMNS = ("slide", "mpp", "patient", "group", "label", "split")

_CAMELYON16 = re.compile(r"(normal|tumor|test)_(\d{3})", re.IGNORECASE)
UNUSED = "an annotation that fits no slide by its name and folder; it labels nothing"
SIDECAR = "called like a slide, but no annotation (ASAP or ImageScope XML, QuPath, NCRF, Sectra)"


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
    group : str
        Which glass; scans of one glass share a group and never straddle splits.
    site : str
        Hospital, scanner or centre; empty where unknown.
    label : str
        Class of the whole slide; empty where unknown.
    split : str
        Official or user-given split; empty: drawn from the manifest's seed.
    part : str
        Which of several published parts of its split, e.g. A or B of GlaS' test images.
    split_is_override : bool
        Whether the user gave it (and not the data set's layout).
    annotation_fault : str
        Why it cannot be said which annotation is the slide's; empty where all is clear.
    mpp : float or None
        The user's override in um/px.
    overridden : tuple of str
        Columns of the user's table that have a value for it.
    detail : Detail or None
        What its kind of source adds: the second scan of the glass, the images of a stack.
    private : bool
        Whether the names of its files may not be written (`wsisr.building.privacy`).
    stage : SlideStage or None
        Where it is copied before it is opened (`wsisr.building.staging`).
    """

    source: SlideSource
    patient: Patient
    group: str
    site: str = ""
    label: str = ""
    split: str = ""
    part: str = ""
    split_is_override: bool = False
    annotation: Path | None = None
    annotation_fault: str = ""
    mpp: float | None = None
    overridden: tuple[str, ...] = ()
    detail: Detail | None = None
    private: bool = False
    stage: "SlideStage | None" = None

    @property
    def slide_id(self) -> str:
        return self.source.slide_id

    @property
    def draw_key(self) -> str:
        """What its random draws hang on, whatever its id (`wsisr.slides.ids.draw_keys`)."""
        return self.source.draw_key or self.slide_id

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
    annotations, beside = _annotations(source, slides)
    named = [slide for slide in slides if _CAMELYON16.fullmatch(_stem(slide))]
    camelyon = len(named) >= max(1, len(slides) // 2)
    official = (root / "training").is_dir() and camelyon
    reference = _reference(root) if camelyon else {}
    tasks = []
    for slide in sorted(slides, key=lambda item: item.slide_id):
        drawn = annotations.found.get(slide.relative)
        task = SlideTask(
            source=slide,
            patient=own_patient(slide.slide_id, draw=slide.draw_key),
            group=slide.slide_id,
            annotation=None if drawn is None else root / drawn,
            annotation_fault=annotations.faults.get(slide.relative, ""),
        )
        match = _CAMELYON16.fullmatch(_stem(slide)) if camelyon else None
        tasks.append(_camelyon_task(task, match, reference) if match else task)
    found = sum(task.annotation is not None for task in tasks)
    name, manifest = "folder", "default"
    sentence = f"{counted(len(tasks), 'slide')} in a plain folder, {found} with annotations"
    if camelyon:
        count = Counter(_stem(slide).lower().partition("_")[0] for slide in named)
        kind = "official" if official else "flat"
        name, manifest = f"camelyon16-{kind}", "pathimgsr"
        sentence = (
            f"CAMELYON16 in the {kind} layout: {count['normal']} normal, {count['tumor']} tumour "
            f"and {count['test']} test slides"
        )
    return Layout(
        name=name, sentence=sentence, manifest=manifest, tasks=tuple(tasks), left_out=beside
    )


def _camelyon_task(task: SlideTask, match: re.Match[str], reference: dict[str, str]) -> SlideTask:
    kind, number = match.group(1).lower(), int(match.group(2))
    # The challenge has one slide per patient, called alike in whatever folder it lies.
    patient = own_patient(match.group(0).lower(), "CAMELYON16", task.draw_key)
    task = replace(task, patient=patient)
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


def _stem(slide: SlideSource) -> str:
    return slide.path.name if slide.path.is_dir() else slide.path.stem


def _annotations(
    source: Path, slides: Sequence[SlideSource]
) -> tuple[Matches, tuple[LeftOut, ...]]:
    """Which annotation is whose, and the files that are nobody's or none."""
    if not source.is_dir():
        root = source.parent
        folders = {root: sorted(root.iterdir())}
    else:
        folders, root = folders_of(source), source
    files = {
        path.relative_to(root).as_posix(): annotation_format(path) is not None
        for children in folders.values()
        for path in children
        if path.name.lower().endswith(ANNOTATION_SUFFIXES)
        and not path.name.startswith(".")
        and path.is_file()
    }
    named = [Named(relative=slide.relative, names=_names(slide)) for slide in slides]
    matches = match_annotations(named, [file for file, known in files.items() if known])
    others = match_annotations(named, [file for file, known in files.items() if not known])
    unused = [(file, UNUSED) for file in matches.unused] if source.is_dir() else []
    sidecars = [
        (file, SIDECAR) for file, known in files.items() if not known and file not in others.unused
    ]
    left_out = (
        LeftOut(relative=file, kind="annotation", reason=reason)
        for file, reason in sorted((*unused, *sidecars))
    )
    return matches, tuple(left_out)


def _names(slide: SlideSource) -> tuple[str, ...]:
    """What an annotation of the slide may be called."""
    name = slide.relative.rpartition("/")[2]
    own = (name, name.rpartition(".")[0] or name, without_suffix(name))
    first = slide.files[0] if slide.files else slide.path
    # QuPath names a DICOM series by its first file.
    return (*own, first.name, first.stem) if slide.kind == "dicom" else own


def find_patients(
    tasks: Sequence[SlideTask], rule: PatientRule | None, pseudonyms: Pseudonyms
) -> tuple[SlideTask, ...]:
    """Tasks with the patient that DICOM, the layout, a barcode or the user's rule names."""
    return tuple(
        replace(
            task,
            patient=find_patient(
                task.source.relative,
                own=task.patient,
                dicom_id=patient_id(task.source.files[0]) if task.source.kind == "dicom" else "",
                rule=rule,
                pseudonyms=pseudonyms,
            ),
        )
        for task in tasks
    )


def _reference(root: Path) -> dict[str, str]:
    """Test slide -> class from the challenge's reference CSV (no header; name, class, ...)."""
    for path in sorted(root.rglob("reference.csv")):
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if len(row) >= 2]
        return {row[0].strip().lower().removesuffix(".tif"): row[1].strip().lower() for row in rows}
    return {}


def apply_overrides(
    tasks: Sequence[SlideTask], table: Path, pseudonyms: Pseudonyms
) -> tuple[SlideTask, ...]:
    """Apply the user's CSV: column `slide` (file name or id, a DICOM series by its folder) and
    any of `mpp`, `patient`, `group`, `label`, `split`; an empty cell keeps what the file says.
    Patients and groups become pseudonyms, barcodes of public archives stay.

    Raises
    ------
    ManifestError
        Unknown column, a row that fits no slide or several, a resolution that is no number,
        an unknown split, or one slide in two rows.
    """
    header, rows = read_table(table, ManifestError)
    unknown = [name for name in header if name not in OVERRIDE_COLUMNS]
    if header and len(unknown) == len(header):
        # Perhaps a row of patients: nothing of it is shown.
        raise ManifestError(
            f"{table}: its first line names none of the columns {', '.join(OVERRIDE_COLUMNS)}; it "
            "must be the header."
        )
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
            name = "its slide" if task.private else task.slide_id
            raise ManifestError(f"{where}: {name} has a row already ({seen[task.slide_id]}).")
        seen[task.slide_id] = line
        result[task.slide_id] = _override(result[task.slide_id], cells, where, pseudonyms)
    return tuple(result[task.slide_id] for task in tasks)


def find_task(name: str, tasks: Sequence[SlideTask], where: str) -> SlideTask:
    """The slide that a table means by a file name, a relative path or an id.

    Raises
    ------
    ManifestError
        If none or several fit; `where` names the line. Of private slides nothing else is named.
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
    if any(task.private for task in tasks):
        found = "several slides fit" if fits else "no slide fits"
        raise ManifestError(f"{where}: {found} the name there; use a file's path in the source.")
    if fits:
        ids = ", ".join(task.slide_id for task in fits)
        raise ManifestError(f"{where}: {name!r} fits several slides; use one of the ids {ids}.")
    names = [n for task in tasks for n in (task.slide_id, task.source.path.name)]
    near = nearest(name, names)
    hint = f"; did you mean {near!r}?" if near else "."
    raise ManifestError(f"{where}: no slide is called {name!r}{hint}")


def _override(
    task: SlideTask, cells: dict[str, str], where: str, pseudonyms: Pseudonyms
) -> SlideTask:
    mpp = task.mpp
    if cells.get("mpp"):
        try:
            mpp = float(cells["mpp"])
        except ValueError:
            # Cells are not shown: in a row that is shifted they hold a patient.
            raise ManifestError(f"{where}: the cell of mpp is no number (um/px).") from None
    split = cells.get("split") or task.split
    if split not in ("", "train", "val", "test"):
        raise ManifestError(f"{where}: the cell of split is not train, val or test.")
    patient, group = task.patient, task.group
    if cells.get("patient"):
        patient = stated_patient(cells["patient"], PatientSource.TABLE, pseudonyms)
    if cells.get("group"):
        group = pseudonyms.of("group", cells["group"])
    return replace(
        task,
        mpp=mpp,
        patient=patient,
        group=group,
        label=cells.get("label") or task.label,
        split=split,
        split_is_override=bool(cells.get("split")),
        overridden=tuple(name for name in OVERRIDE_COLUMNS[1:] if cells.get(name)),
    )
