"""`--record`: a store again, byte for byte, from its record and the slides.

Nothing is decided anew: no tissue, no candidates, no registration of patches. Places and crops come
from the record; every patch is compared with its digest, every slide with that of its group.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.building.extract import tile_plan
from wsisr.building.finish import finish_store
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest, parse_manifest
from wsisr.building.phases import run_phase
from wsisr.building.scan_records import RULES, Reading
from wsisr.building.sources import (
    ReadPair,
    Source,
    fingerprints,
    recorded_fingerprints,
    source_kind,
)
from wsisr.building.state import BuildRequest, Prepared, failed_slides
from wsisr.building.store_record import (
    Record,
    load_record,
    reading_of,
    save_record,
    unpack_column,
    unpack_mask,
)
from wsisr.building.summary import BuildSummary
from wsisr.errors import BuildError, damage_is_clear
from wsisr.host import package_versions
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.runners import Runner, Task
from wsisr.selection.pseudonyms import pseudonyms_of
from wsisr.slides.streams import NotKept
from wsisr.store import ArraySpec, BuildLock, StoreWriter
from wsisr.store.attributes import WRITTEN_ATTRIBUTES, digest_algorithm
from wsisr.store.digests import PatchDigests, patch_digests
from wsisr.store.schema import DIGEST, WRITTEN_COLUMNS
from wsisr.store.tile_array import TilePlan
from wsisr.store.writer import read_store_attributes

STREAM_COLOURS = 2
"""The first rules by which colours follow from a file's stream, and not from its tags."""
CHUNK_BYTES = 128 << 20
"""Pixels of one slide that are held while their rows are put in the recorded order."""
_SET_BY_STORE = ("format", "format_version", "codec", "digest")


def _prepare(request: BuildRequest, record: Record) -> Prepared:
    """List the slides of a source as the record's manifest understands them."""
    fixed = [
        name
        for name, given in (
            ("--manifest", request.manifest),
            ("--set and the options of the manifest", request.overrides),
            ("--mpp-override", request.mpp_override),
            ("--part", request.part),
            ("--slide", request.slides),
            ("--phase", request.phase),
            ("--scale-counts", request.scale_counts != 1.0),
        )
        if given
    ]
    codec = record.root["codec"]
    if request.codec not in (None, codec):
        fixed.append(f"--codec other than {codec}")
    if fixed:
        raise BuildError(f"{record.path}: the record fixes everything; leave out {fixed[0]}.")
    if record.lacking:
        raise BuildError(
            f"{record.path}: does not cover {len(record.lacking)} slide(s) of its store (first: "
            f"{record.lacking[0]}), which were built before it; build the store anew with "
            "--overwrite for a whole record."
        )
    if not request.source.exists():
        raise BuildError(f"{request.source}: no such file or folder.")
    manifest = parse_manifest(record.root["manifest"], str(record.path))
    kind = source_kind(manifest)
    layout = kind.list(request.source, manifest)
    tasks = kind.join(layout.tasks, manifest, request.source)
    if (record.root.get("pseudonyms") or {}).get("ids"):
        # Slides are told by their content then, so that no key is needed but for what is left out.
        layout = replace(layout, left_out=())
        tasks = tuple(replace(task, private=True) for task in tasks)
    return Prepared(
        request=request,
        layout=layout,
        manifest=manifest,
        tasks=tasks,
        pseudonyms=pseudonyms_of(request.patient_key),
    )


def rebuild_from(
    request: BuildRequest, path: Any, report: Reporter = silent, runner: Runner | None = None
) -> BuildSummary:
    """Rebuild a store from the record at `path`, or go on with it.

    Parameters
    ----------
    report : callable
        Receives progress events.

    Raises
    ------
    BuildError
        If settings are given that the record fixes, a slide of the record is missing or has
        changed (named; nothing is written then), or the place holds another store.
    """
    record = load_record(path)
    prepared = _prepare(request, record)
    with damage_is_clear(record.path, BuildError, "copy it again"):
        tasks = match_slides(prepared, record)
    for text in _other_versions(record):
        report(ProgressEvent(stage="rebuild", message=f"Warning: {text}"))
    with BuildLock(prepared.paths.root):
        writer = _store(prepared, record)
        done = writer.committed()
        jobs: list[Task] = [
            (
                task.slide_id,
                (
                    task,
                    prepared.manifest,
                    record.slides[task.slide_id],
                    prepared.paths.root,
                    int(record.root.get("rules", 1)),
                    digest_algorithm(record.root),
                ),
            )
            for task in tasks
            if task.slide_id not in done
        ]
        matched = replace(prepared, tasks=tasks)
        with matched.runner(runner) as chosen:
            run_phase(matched, "rebuild", jobs, chosen(rebuild_slide, jobs), report)
        failures = tuple(failed_slides(matched).values())
        summary = finish_store(matched, failures, writer, report)
        if not failures:
            save_record(prepared.paths.record, record.root, record.slides)
        writer.clean()
        return summary


def match_slides(prepared: Prepared, record: Record) -> tuple[SlideTask, ...]:
    """The task of every slide of the record, by its id or, where it was renamed, its content.

    Raises
    ------
    BuildError
        Naming every slide that is missing or has changed.
    """
    listed = {str(s) for s in record.root["slides"]}
    # Records of older rules name slides in another way: then the file's path says which it is.
    count = Counter(task.source.relative for task in prepared.tasks)
    paths = {
        task.source.relative: task for task in prepared.tasks if count[task.source.relative] == 1
    }
    here = {
        s: paths[e["attributes"]["source"]]
        for s, e in record.slides.items()
        if e["attributes"]["source"] in paths
    }
    here |= {task.slide_id: task for task in prepared.tasks if task.slide_id in listed}
    spare = [task for task in prepared.tasks if task not in here.values()]
    found, missing, changed = [], [], []
    renamed: dict[tuple[str, ...], SlideTask] | None = None
    for slide_id, entry in sorted(record.slides.items()):
        wanted = recorded_fingerprints(entry["attributes"])
        task = here.get(slide_id)
        if task is None:
            if renamed is None:
                renamed = {fingerprints(t, prepared.manifest): t for t in spare}
            task = renamed.get(wanted)
            if task is None:
                missing.append(entry["attributes"]["source"])
                continue
        elif fingerprints(task, prepared.manifest) != wanted:
            changed.append(entry["attributes"]["source"])
            continue
        relative = slide_id if task.private else task.source.relative
        own = replace(task.source, slide_id=slide_id, relative=relative)
        found.append(replace(task, source=own))
    if missing or changed:
        parts = [
            f"{len(names)} slide(s) {what}: {', '.join(names[:5])}" + (" ..." if names[5:] else "")
            for names, what in ((missing, "are missing"), (changed, "have changed"))
            if names
        ]
        raise BuildError(
            f"{prepared.request.source} does not hold what {record.path.name} was made from: "
            f"{'; '.join(parts)}. Put the original files there; nothing was written."
        )
    return tuple(found)


def _other_versions(record: Record) -> list[str]:
    then, now = record.root["created_with"], package_versions()
    names = [
        f"{name} {then[name]} (here {now.get(name)})"
        for name in then
        if then[name] != now.get(name)
    ]
    if not names:
        return []
    return [f"the record was made with {', '.join(names)}; every pixel is checked all the same."]


def _store(prepared: Prepared, record: Record) -> StoreWriter:
    """The store to fill: a new one, or one of the same record to go on with."""
    given = {key: value for key, value in record.root.items() if key not in _SET_BY_STORE}
    path = prepared.paths.root
    if prepared.paths.meta.is_file() and not prepared.request.overwrite:
        stored = read_store_attributes(path)
        if any(dict(stored).get(key) != value for key, value in given.items()):
            raise BuildError(
                f"{path} is another store than the record's; write to another place with -o, or "
                "replace it with --overwrite."
            )
        return StoreWriter.resume(path, given)
    return StoreWriter.create(
        path,
        given,
        codec=record.root["codec"],
        overwrite=prepared.request.overwrite,
        version=int(record.root["format_version"]),
    )


def rebuild_slide(
    task: SlideTask,
    manifest: Manifest,
    entry: dict[str, Any],
    store: Any,
    rules: int,
    algorithm: str,
) -> int:
    """Rebuild and commit one slide; returns its number of rows.

    Raises
    ------
    BuildError
        If a patch is not what the record says.
    """
    attributes = entry["attributes"]
    specs = [ArraySpec.from_attributes(spec) for spec in entry["arrays"]]
    columns = {name: unpack_column(packed) for name, packed in entry["columns"].items()}
    digests = PatchDigests(algorithm, columns[DIGEST])
    reading = reading_of(entry)
    with closing(source_kind(manifest).open(task, manifest, attributes["backend"])) as source:
        plan = _recorded_tiles(source, task, reading) if attributes.get("tiled") else None
        per_row = sum(3 * spec.size_px**2 for spec in specs)
        # Of kept tiles each patch holds up to four until it is written.
        step = max(1, CHUNK_BYTES // ((2 if plan is None else 6) * per_row))
        total = len(digests.values)
        with StoreWriter.attach(store).slide(task.slide_id, specs, tiles=plan) as writer:
            for start in range(0, total, step):
                rows = np.arange(start, min(start + step, total))
                pairs = {p.index: p for p in source.read_recorded(reading, columns, rows)}
                for row in rows.tolist():
                    pair = pairs.get(row)
                    blocks = _recorded(pair, specs, digests, row)
                    if pair is None or blocks is None:
                        raise BuildError(_other_patch(task.slide_id, row, rules))
                    writer.append(blocks, () if pair.window is None else (pair.window,))
            own = {key: value for key, value in attributes.items() if key not in WRITTEN_ATTRIBUTES}
            given = {name: v for name, v in columns.items() if name not in WRITTEN_COLUMNS}
            digest = writer.finish(given, unpack_mask(entry["tissue"]), own)
    if digest != attributes["digest"]:
        StoreWriter.attach(store).remove(task.slide_id)
        raise BuildError(
            f"{task.slide_id}: its patches are the record's, but not the rest of its group; the "
            "store was written by another version of wsisr."
        )
    return total


def _recorded_tiles(source: Source, task: SlideTask, reading: Reading) -> TilePlan:
    try:
        return tile_plan(source, reading)
    except NotKept as reason:
        raise BuildError(
            f"{task.slide_id}: the record keeps the slide's own tiles, and here {reason}."
        ) from reason


def _recorded(
    pair: ReadPair | None, specs: Sequence[ArraySpec], digests: PatchDigests, row: int
) -> dict[str, UInt8Array] | None:
    """A pair's pixels, shape (1, side, side, 3) each; None if the record names others."""
    if pair is None:
        return None
    blocks = {spec.name: pair.arrays[spec.name][None] for spec in specs}
    wanted = replace(digests, values=digests.values[row : row + 1])
    found = patch_digests(list(blocks.values()), digests.algorithm)
    return None if found.differ(wanted).any() else blocks


def _other_patch(slide_id: str, row: int, rules: int) -> str:
    cause = (
        "the file has changed, or another version of a reading library gives other pixels "
        "(compare created_with in the record with wsisr doctor)"
    )
    if rules < STREAM_COLOURS:
        cause = (
            f"the record is of rules {rules}, and by rules {RULES} colours follow from each "
            "file's stream, so that these pixels may be others today; or " + cause
        )
    return f"{slide_id}: row {row} is not the patch that the record names: {cause}."
