"""What a build knows between its phases: the request, the store, scans and failures on disk."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from wsisr.building.layout import Layout, SlideTask, apply_overrides, find_patients
from wsisr.building.manifest import Manifest, load_manifest
from wsisr.building.plan import BuildPlan
from wsisr.building.privacy import Unlogged, clean, hide_left_out, hide_names, names_a_patient
from wsisr.building.scan import scan_identity
from wsisr.building.scan_records import RULES, ScanRecord, load_scan
from wsisr.building.sources import source_kind
from wsisr.building.sources.image_sets import published_layout
from wsisr.building.sources.levels import list_slides
from wsisr.building.staging import stage_of
from wsisr.building.summary import Failure
from wsisr.errors import BuildError
from wsisr.files import replace_file
from wsisr.host import package_versions
from wsisr.runners import Outcome, ProcessRunner, Runner, SerialRunner
from wsisr.selection.patients import PatientRule, describe_patients
from wsisr.selection.pseudonyms import Pseudonyms, pseudonyms_of
from wsisr.store import StoreWriter
from wsisr.store.layout import StorePaths
from wsisr.store.object_files import ObjectFiles
from wsisr.store.writer import read_store_attributes

Phase = Literal["scan", "plan", "extract", "finish"]
PLAN_FORMAT = 1
_PLAN = TypeAdapter(BuildPlan)


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What the user asked for.

    Attributes
    ----------
    source : Path
        A folder of slides, or one slide.
    output : Path
        The store, e.g. ``pairs.zarr``.
    manifest : str or Path or None
        Name or file; None: what the folder's layout suggests.
    overrides : dict
        Dotted manifest keys and their values, from the command line.
    workers : int
        Processes; 0 works in this process.
    part : (int, int) or None
        ``(i, n)``: this run's share of the slides, 1-based.
    slides : tuple of str
        This run's share by name: ids, file names or relative paths.
    phase : {"scan", "plan", "extract", "finish"} or None
        Do this phase alone; None: all that can be done now.
    overwrite : bool
        Replace an existing store.
    mpp_override : Path or None
        The user's table (`wsisr.building.layout.apply_overrides`).
    patient_key : Path or None
        The key of the pseudonyms; None: the user's own.
    private_ids : bool
        Make pseudonyms of slide ids too, and let no name of a file into the store.
    codec : str or None
        ``"raw"``, ``"small"``, ``"zstd"`` or ``"slide"``; None: the store's own, raw for a new one.
    stage : Path or None
        Folder on a fast disk that each slide is copied to before it is opened.
    origin : ObjectFiles or None
        Where slides come from that `source` stands for (`wsisr.building.staging.opened_source`).
    scale_counts : float
        All counts of the manifest times this: a trial of a large data set (`Manifest.scaled`).
    """

    source: Path
    output: Path = Path("pairs.zarr")
    manifest: str | Path | None = None
    overrides: dict[str, Any]
    workers: int = 1
    part: tuple[int, int] | None = None
    slides: tuple[str, ...] = ()
    phase: Phase | None = None
    overwrite: bool = False
    mpp_override: Path | None = None
    patient_key: Path | None = None
    private_ids: bool = False
    codec: str | None = None
    stage: Path | None = None
    origin: ObjectFiles | None = None
    scale_counts: float = 1.0

    @property
    def shared(self) -> bool:
        """Whether this run does a part of a build, beside others that do theirs."""
        return self.part is not None or bool(self.slides) or self.phase is not None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request after the source was listed and the manifest resolved: no slide opened yet."""

    request: BuildRequest
    layout: Layout
    manifest: Manifest
    tasks: tuple[SlideTask, ...]
    pseudonyms: Pseudonyms
    named_patients: int = 0
    """Slides whose readable id holds a value that was made a pseudonym."""

    def about_patients(self) -> list[str]:
        """How patients were found, and what a person should know of it."""
        folders = [str(Path(task.source.relative).parent) for task in self.tasks]
        lines = describe_patients(
            [task.patient for task in self.tasks],
            () if self.request.private_ids else ("" if f == "." else f for f in folders),
        )
        if self.named_patients:
            lines.append(
                f"Warning: {self.named_patients} slide ids hold what names their patient (a "
                "folder, a number in the file's name); --private-ids makes pseudonyms of them too."
            )
        return lines

    @contextmanager
    def runner(self, given: Runner | None) -> Iterator[Runner]:
        """Where tasks run: as given, or in processes of our own that live through all phases;
        without a log where slides are private.

        A build of one slide is this process's own work, in threads: if it dies of it, nothing
        else is lost.
        """
        with ExitStack() as stack:
            workers = max(1, self.request.workers)
            if given is None and len(self.tasks) == 1:
                given = SerialRunner(threads=workers)
            if given is None:
                given = stack.enter_context(ProcessRunner(workers=workers))
            yield Unlogged(given) if any(task.private for task in self.tasks) else given

    @property
    def root(self) -> Path:
        """The source folder."""
        source = self.request.source
        return source if source.is_dir() else source.parent

    @property
    def paths(self) -> StorePaths:
        return StorePaths(self.request.output)

    @property
    def scans(self) -> Path:
        return self.paths.partial / "scan"

    @property
    def errors(self) -> Path:
        return self.paths.partial / "errors"

    @property
    def plan(self) -> Path:
        return self.paths.partial / "plan" / "plan.json"


def prepare(request: BuildRequest) -> Prepared:
    """List the slides, understand the folder, resolve the manifest.

    Raises
    ------
    BuildError
        If the source does not exist or holds no slide.
    ManifestError
        From the manifest or the override table.
    """
    if not request.source.exists():
        raise BuildError(f"{request.source}: no such file or folder.")
    name = request.manifest or published_layout(request.source)
    layout = None if name else list_slides(request.source)
    manifest = load_manifest(name or layout.manifest, request.overrides)  # type: ignore[union-attr]
    manifest = manifest.scaled(request.scale_counts)
    kind = source_kind(manifest)
    layout = layout or kind.list(request.source, manifest)
    rule = None if manifest.patient_from is None else PatientRule(manifest.patient_from)
    pseudonyms = pseudonyms_of(request.patient_key)
    tasks = find_patients(layout.tasks, rule, pseudonyms)
    stage = stage_of(request)
    tasks = tuple(replace(task, private=request.private_ids, stage=stage) for task in tasks)
    if request.mpp_override is not None:
        tasks = apply_overrides(tasks, request.mpp_override, pseudonyms)
    tasks = kind.join(tasks, manifest, request.source)
    named = names_a_patient(tasks)
    if request.private_ids:
        tasks = hide_names(tasks, pseudonyms)
        layout = replace(layout, left_out=hide_left_out(layout.left_out, pseudonyms), tasks=tasks)
        named = 0
    return Prepared(
        request=request,
        layout=layout,
        manifest=manifest,
        tasks=tasks,
        pseudonyms=pseudonyms,
        named_patients=named,
    )


def record_failure(prepared: Prepared, stage: str, task: SlideTask, outcome: Outcome) -> None:
    """Write down that a slide failed, for later phases, restarts and the report."""
    root = prepared.root
    failure = Failure(
        slide_id=task.slide_id,
        path=task.source.relative,
        stage=stage,
        kind=outcome.kind,
        error=clean(outcome.error, task, root),
        trace=clean(outcome.trace, task, root),
    )
    prepared.errors.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(failure), sort_keys=True, indent=1)
    replace_file(prepared.errors / f"{task.slide_id}.json", text.encode())


def failed_slides(prepared: Prepared) -> dict[str, Failure]:
    """Failures of this build so far by slide id."""
    if not prepared.errors.is_dir():
        return {}
    there = {path.name for path in prepared.errors.iterdir()}
    found = {}
    for task in prepared.tasks:
        if (name := f"{task.slide_id}.json") in there:
            text = (prepared.errors / name).read_text(encoding="utf-8")
            found[task.slide_id] = Failure(**json.loads(text))
    return found


def valid_scan(prepared: Prepared, task: SlideTask) -> ScanRecord | None:
    """The scan of a slide, if it is of this manifest and this override of the resolution."""
    record = load_scan(prepared.scans, task.slide_id)
    if record is None or record.identity != scan_identity(task, prepared.manifest):
        return None
    return record


def save_plan(prepared: Prepared, plan: BuildPlan, scans: Mapping[str, ScanRecord]) -> None:
    """Write down who gives what, and of which scans that was decided."""
    known = {slide_id: scan.identity for slide_id, scan in scans.items()}
    text = json.dumps({"format": PLAN_FORMAT, "scans": known, "plan": asdict(plan)})
    replace_file(prepared.plan, text.encode())


def load_plan(prepared: Prepared, tasks: Sequence[SlideTask]) -> BuildPlan | None:
    """The plan that was written down; None where there is none, or it knows other scans of these
    slides than there are now (a slide without a scan needs none)."""
    try:
        found = json.loads(prepared.plan.read_bytes())
        if found["format"] != PLAN_FORMAT:
            return None
        plan, planned = _PLAN.validate_python(found["plan"]), found["scans"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    for task in tasks:
        scan = valid_scan(prepared, task)
        if scan is not None and planned.get(task.slide_id) != scan.identity:
            return None
    return plan


def forget_progress(prepared: Prepared) -> None:
    """Remove what phases told one another: the build is finished, or begun anew."""
    for folder in (prepared.scans, prepared.errors, prepared.plan.parent):
        shutil.rmtree(folder, ignore_errors=True)


def resume_store(prepared: Prepared) -> StoreWriter | None:
    """The store to go on with; None where there is none yet, or it is to be replaced."""
    if prepared.request.overwrite:
        forget_progress(prepared)
        return None
    if not prepared.paths.meta.is_file():
        return None
    check_rules(prepared.paths.root)
    _check_key(prepared)
    writer = StoreWriter.resume(prepared.paths.root, root_attributes(prepared))
    _check_codec(prepared, writer)
    return writer


def check_rules(store: Path) -> None:
    """Refuse to go on with a store of other rules: its slides would not fit those to come."""
    rules = read_store_attributes(store).get("rules", 1)
    if rules != RULES:
        raise BuildError(
            f"{store} was built by rules {rules} (ids, patients, labels, tissue, colour, choice of "
            f"LR) and this wsisr builds by rules {RULES}: it is read, verified, kept and exported "
            "as before, but to build on, replace it with --overwrite or write to another place "
            "with -o."
        )


def store_codec(prepared: Prepared) -> str:
    """The codec that is asked for; without one that of the store that is gone on with."""
    request, paths = prepared.request, prepared.paths
    if request.codec is None and not request.overwrite and paths.meta.is_file():
        return str(read_store_attributes(paths.root)["codec"])
    return request.codec or "raw"


def create_store(prepared: Prepared) -> StoreWriter:
    """A new, empty store; with ``--overwrite`` in the place of an old one."""
    request = prepared.request
    return StoreWriter.create(
        prepared.paths.root,
        root_attributes(prepared),
        codec=store_codec(prepared),
        overwrite=request.overwrite,
    )


def attach_store(prepared: Prepared) -> StoreWriter:
    """The store for one part: checked, and left as it is."""
    check_rules(prepared.paths.root)
    stored = read_store_attributes(prepared.paths.root)
    if stored["manifest_sha256"] != prepared.manifest.sha256():
        raise BuildError(
            f"{prepared.paths.root} was begun with another manifest or other settings; use those, "
            "or write to another place with -o."
        )
    _check_key(prepared)
    writer = StoreWriter.attach(prepared.paths.root)
    _check_codec(prepared, writer)
    return writer


def _check_key(prepared: Prepared) -> None:
    """One store has pseudonyms of one key: with another a patient would be two."""
    stored = read_store_attributes(prepared.paths.root).get("pseudonyms") or {}
    if bool(stored.get("ids")) != prepared.request.private_ids:
        with_or_not = "with" if stored.get("ids") else "without"
        raise BuildError(
            f"{prepared.paths.root} was begun {with_or_not} --private-ids; go on {with_or_not} it, "
            "or write to another place with -o."
        )
    names = prepared.pseudonyms
    if "key" in stored and names.used and stored["key"] != names.check():
        raise BuildError(
            f"{prepared.paths.root} was begun with another key of patient pseudonyms; give that "
            "one with --patient-key FILE, or write to another place with -o."
        )


def _check_codec(prepared: Prepared, writer: StoreWriter) -> None:
    wanted = prepared.request.codec
    if wanted not in (None, writer.codec):
        raise BuildError(
            f"{prepared.paths.root} is written with --codec {writer.codec}; go on with that, or "
            "build another store with -o."
        )


def root_attributes(prepared: Prepared) -> dict[str, Any]:
    """What the root group says of the build (design of the store, docs/store.md)."""
    manifest = prepared.manifest
    names = prepared.pseudonyms
    secret = {"key": names.check(), "ids": prepared.request.private_ids} if names.used else None
    return {
        "rules": RULES,
        **({} if secret is None else {"pseudonyms": secret}),
        "created_with": package_versions(),
        "manifest": manifest.to_dict(),
        "manifest_sha256": manifest.sha256(),
        "magnifications": [manifest.hr, *manifest.lr_arrays],
        "slides": [task.slide_id for task in prepared.tasks],
    }
