"""What a build knows between its phases: the request, the store, scans and failures on disk."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsisr.building.layout import Layout, SlideTask, apply_overrides
from wsisr.building.manifest import Manifest, load_manifest
from wsisr.building.records import ScanRecord, load_scan
from wsisr.building.runners import Outcome
from wsisr.building.scan import scan_identity
from wsisr.building.sources import source_kind
from wsisr.building.sources.image_sets import published_layout
from wsisr.building.sources.levels import list_slides
from wsisr.building.summary import Failure
from wsisr.errors import BuildError
from wsisr.host import package_versions
from wsisr.store import StoreWriter
from wsisr.store.files import replace_file
from wsisr.store.layout import StorePaths
from wsisr.store.writer import read_store_attributes

RULES = 2
"""Version of what decides about slides besides the manifest: ids, patients, labels, tissue, colour
and the choice of LR. Written into the store's root; 1 where a store says nothing (ids without
suffix, LR always from a stored level, colours by tags)."""


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
    overwrite : bool
        Replace an existing store.
    mpp_override : Path or None
        The user's table (`wsisr.building.layout.apply_overrides`).
    codec : str or None
        ``"raw"``, ``"small"`` or ``"zstd"``; None: the store's own, raw for a new one.
    scale_counts : float
        All counts of the manifest times this: a trial of a large data set (`Manifest.scaled`).
    """

    source: Path
    output: Path = Path("pairs.zarr")
    manifest: str | Path | None = None
    overrides: dict[str, Any]
    workers: int = 1
    part: tuple[int, int] | None = None
    overwrite: bool = False
    mpp_override: Path | None = None
    codec: str | None = None
    scale_counts: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request after the source was listed and the manifest resolved: no slide opened yet."""

    request: BuildRequest
    layout: Layout
    manifest: Manifest
    tasks: tuple[SlideTask, ...]
    paths: StorePaths

    @property
    def scans(self) -> Path:
        return self.paths.partial / "scan"

    @property
    def errors(self) -> Path:
        return self.paths.partial / "errors"


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
    tasks = layout.tasks
    if request.mpp_override is not None:
        tasks = apply_overrides(tasks, request.mpp_override)
    tasks = kind.join(tasks, manifest, request.source)
    return Prepared(
        request=request,
        layout=layout,
        manifest=manifest,
        tasks=tasks,
        paths=StorePaths(request.output),
    )


def record_failure(prepared: Prepared, stage: str, task: SlideTask, outcome: Outcome) -> None:
    """Write down that a slide failed, for later phases, restarts and the report."""
    failure = Failure(
        slide_id=task.slide_id,
        path=task.source.relative,
        stage=stage,
        kind=outcome.kind,
        error=outcome.error,
        trace=outcome.trace,
    )
    prepared.errors.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(failure), sort_keys=True, indent=1)
    replace_file(prepared.errors / f"{task.slide_id}.json", text.encode())


def failed_slides(prepared: Prepared) -> dict[str, Failure]:
    """Failures of this build so far by slide id."""
    found = {}
    for task in prepared.tasks:
        path = prepared.errors / f"{task.slide_id}.json"
        if path.is_file():
            found[task.slide_id] = Failure(**json.loads(path.read_text(encoding="utf-8")))
    return found


def valid_scan(prepared: Prepared, task: SlideTask) -> ScanRecord | None:
    """The scan of a slide, if it is of this manifest and this override of the resolution."""
    record = load_scan(prepared.scans, task.slide_id)
    if record is None or record.identity != scan_identity(task, prepared.manifest):
        return None
    return record


def resume_store(prepared: Prepared) -> StoreWriter | None:
    """The store to go on with; None where there is none yet, or it is to be replaced."""
    if prepared.request.overwrite:
        shutil.rmtree(prepared.scans, ignore_errors=True)
        shutil.rmtree(prepared.errors, ignore_errors=True)
        return None
    if not prepared.paths.meta.is_file():
        return None
    check_rules(prepared.paths.root)
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


def create_store(prepared: Prepared) -> StoreWriter:
    """A new, empty store; with ``--overwrite`` in the place of an old one."""
    request = prepared.request
    return StoreWriter.create(
        prepared.paths.root,
        root_attributes(prepared),
        codec=request.codec or "raw",
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
    writer = StoreWriter.attach(prepared.paths.root)
    _check_codec(prepared, writer)
    return writer


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
    return {
        "rules": RULES,
        "created_with": package_versions(),
        "manifest": manifest.to_dict(),
        "manifest_sha256": manifest.sha256(),
        "magnifications": [manifest.hr, *manifest.lr_arrays],
        "slides": [task.slide_id for task in prepared.tasks],
    }
