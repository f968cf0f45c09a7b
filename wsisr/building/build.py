"""`build-pairs`: a whole build, or one share of it beside others (the phases' work: `phases`).

The same command goes on after an interruption. Shares (`--part`, `--slide`) and phases by name
(`--phase`) are for schedulers: each can be run anywhere, again, and says by its exit code whether
there is more to do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from wsisr.building import phases
from wsisr.building.layout import SlideTask, find_task
from wsisr.building.plan import BuildPlan
from wsisr.building.state import (
    Prepared,
    attach_store,
    check_rules,
    create_store,
    failed_slides,
    load_plan,
    resume_store,
    root_attributes,
    valid_scan,
)
from wsisr.building.summary import BuildSummary
from wsisr.errors import BuildError, StoreLockedError
from wsisr.locks import STILL_S, RecordLock
from wsisr.progress import Reporter, silent
from wsisr.runners import Runner, part_of
from wsisr.store import BuildLock, StoreWriter

WAITING = 75
"""Exit code (EX_TEMPFAIL): this share can go on when others have done theirs; run it again."""


@dataclass(frozen=True, kw_only=True)
class ShareSummary:
    """What one share of a build, or one phase, came to.

    Attributes
    ----------
    sentence : str
        What was done, and what comes next.
    failed : tuple of str
        Slides of this share that failed.
    waiting : bool
        Whether something of it waits for other shares.
    """

    sentence: str
    failed: tuple[str, ...] = ()
    waiting: bool = False

    @property
    def exit_code(self) -> int:
        """0 complete, 1 complete with failed slides, 75 waiting for others."""
        return WAITING if self.waiting else 1 if self.failed else 0

    def text(self) -> str:
        """For the terminal."""
        if not self.failed:
            return self.sentence
        count = len(self.failed)
        more = f"{self.failed[0]}{', ...' if count > 1 else ''}"
        return f"{self.sentence} {count} slide{'s' * (count > 1)} failed ({more})."


def build_pairs(
    prepared: Prepared, report: Reporter = silent, runner: Runner | None = None
) -> BuildSummary | ShareSummary:
    """Run a build, the asked share or phase of one, or go on with it.

    Parameters
    ----------
    report : callable
        Receives progress events.
    runner : Runner, optional
        Where tasks run; by default a process pool of ``request.workers``.

    Returns
    -------
    BuildSummary or ShareSummary
        The former of a build that is closed.

    Raises
    ------
    BuildError, StoreError
        If the build cannot start, is of another manifest, or the disk is full. Slides that were
        committed stay.
    """
    with prepared.runner(runner) as chosen:
        if prepared.request.shared:
            return _build_share(prepared, chosen, report)
        return _build_whole(prepared, chosen, report)


def _build_whole(prepared: Prepared, runner: Runner, report: Reporter) -> BuildSummary:
    with BuildLock(prepared.paths.root) as lock:
        writer = resume_store(prepared)
        if writer is not None:
            phases.refuse_replaced(prepared, prepared.tasks, writer, runner)
        done = writer.committed() if writer else set()
        phases.scan(prepared, prepared.tasks, done, runner, report)
        if writer is None:
            if not any(valid_scan(prepared, task) for task in prepared.tasks):
                return phases.nothing_done(prepared)
            writer = create_store(prepared)
        plan = phases.make_plan(prepared, writer, report)
        phases.extract(prepared, prepared.tasks, plan, writer, runner, report)
        lock.check()
        return phases.finish(prepared, writer, report)


def _build_share(
    prepared: Prepared, runner: Runner, report: Reporter
) -> BuildSummary | ShareSummary:
    """One phase, or of one share all that can be done now.

    No share cleans the staging area, where others may be at work. Planning and finishing need the
    store for themselves.
    """
    request = prepared.request
    if request.overwrite:
        raise BuildError(
            "--overwrite replaces a whole store, and shares of one build would replace each "
            "other's work: remove the store first, or write to another place with -o."
        )
    whole = request.phase in ("plan", "finish")
    if whole and (request.part or request.slides):
        raise BuildError(
            f"--phase {request.phase} is done once for all slides; leave out --part and --slide."
        )
    name, mine = _share(prepared)
    try:
        with BuildLock(prepared.paths.root, share="" if whole else name):
            if request.phase == "plan":
                return _plan(prepared, runner, report)
            if request.phase == "finish":
                return _finish(prepared, report)
            return _scan_and_extract(prepared, mine, runner, report)
    except StoreLockedError as error:
        return ShareSummary(sentence=str(error), waiting=True)


def _share(prepared: Prepared) -> tuple[str, Sequence[SlideTask]]:
    """The name of this run's share, and its slides."""
    request, tasks = prepared.request, prepared.tasks
    if request.slides and request.part:
        raise BuildError("--slide and --part each name a share; give one of them.")
    if request.slides:
        chosen = {find_task(name, tasks, "--slide").slide_id for name in request.slides}
        digest = blake2b("\n".join(sorted(chosen)).encode(), digest_size=8).hexdigest()
        return f"slides-{digest}", [task for task in tasks if task.slide_id in chosen]
    index, parts = request.part or (1, 1)
    mine = [task for task in tasks if part_of(task.slide_id, parts) == index]
    return f"{index}-of-{parts}", mine


def _scan_and_extract(
    prepared: Prepared, mine: Sequence[SlideTask], runner: Runner, report: Reporter
) -> ShareSummary:
    phase = prepared.request.phase
    writer = attach_store(prepared) if prepared.paths.meta.is_file() else None
    committed = writer.committed() if writer else set()
    if writer is not None:
        phases.refuse_replaced(prepared, mine, writer, runner)
    if phase != "extract":
        phases.scan(prepared, mine, committed, runner, report)
    if phase == "scan":
        sentence = f"{len(mine)} slide(s) are scanned; when all are: --phase plan."
        return ShareSummary(sentence=sentence, failed=_failed(prepared, mine))
    plan = load_plan(prepared, mine) if writer else None
    if writer is None or plan is None:
        if unscanned := _unscanned(prepared, committed):
            return ShareSummary(
                sentence=f"{_named(unscanned)} not scanned yet, and what each slide gives is "
                "decided from the scans of all: when they are, run this once more to extract.",
                failed=_failed(prepared, mine),
                waiting=True,
            )
        if not any(valid_scan(prepared, task) for task in prepared.tasks) and not committed:
            return ShareSummary(
                sentence="No slide could be used, so there is nothing to extract.",
                failed=_failed(prepared, mine),
            )
        writer, plan = _plan_once(prepared, report)
    busy = phases.extract(prepared, mine, plan, writer, runner, report)
    done = writer.committed() | set(failed_slides(prepared))
    left = [task.slide_id for task in mine if task.slide_id not in done]
    if busy:
        sentence = f"{_named(busy)} being written by another process; run this once more."
    elif left:
        sentence = f"{_named(left)} not scanned yet (--phase scan, then --phase plan)."
    else:
        sentence = f"{len(mine)} slide(s) are done; when all are: --phase finish."
    return ShareSummary(
        sentence=sentence, failed=_failed(prepared, mine), waiting=bool(busy or left)
    )


def _plan(prepared: Prepared, runner: Runner, report: Reporter) -> BuildSummary | ShareSummary:
    writer = resume_store(prepared)
    if writer is not None:
        phases.refuse_replaced(prepared, prepared.tasks, writer, runner)
    committed = writer.committed() if writer else set()
    if unscanned := _unscanned(prepared, committed):
        sentence = f"{_named(unscanned)} not scanned yet; --phase scan comes first."
        return ShareSummary(sentence=sentence, waiting=True)
    if writer is None:
        if not any(valid_scan(prepared, task) for task in prepared.tasks):
            return phases.nothing_done(prepared)
        writer = create_store(prepared)
    plan = phases.make_plan(prepared, writer, report)
    sentence = f"{len(plan.shares)} slide(s) are planned; next: --phase extract."
    return ShareSummary(sentence=sentence, failed=_failed(prepared, prepared.tasks))


def _finish(prepared: Prepared, report: Reporter) -> BuildSummary | ShareSummary:
    if not prepared.paths.meta.is_file():
        return ShareSummary(
            sentence=f"{prepared.paths.root}: nothing has been extracted yet.", waiting=True
        )
    check_rules(prepared.paths.root)
    writer = StoreWriter.resume(prepared.paths.root, root_attributes(prepared))
    done = writer.committed() | set(failed_slides(prepared))
    if missing := [t.slide_id for t in prepared.tasks if t.slide_id not in done]:
        sentence = f"{_named(missing)} not done yet; run what is left (--phase extract, or --part)."
        return ShareSummary(sentence=sentence, waiting=True)
    return phases.finish(prepared, writer, report)


def _plan_once(prepared: Prepared, report: Reporter) -> tuple[StoreWriter, BuildPlan]:
    """Make store and plan if no other share has: those of a job array get here together."""
    turn = RecordLock(prepared.paths.partial / "creating", abandoned_s=STILL_S)
    turn.acquire(math.inf, watch=True)
    try:
        if not prepared.paths.meta.is_file():
            create_store(prepared)
        writer = attach_store(prepared)
        made = load_plan(prepared, prepared.tasks)
        return writer, made or phases.make_plan(prepared, writer, report)
    finally:
        turn.release()


def _unscanned(prepared: Prepared, committed: set[str]) -> list[str]:
    failed = failed_slides(prepared)
    return [
        task.slide_id
        for task in prepared.tasks
        if task.slide_id not in committed
        and task.slide_id not in failed
        and valid_scan(prepared, task) is None
    ]


def _failed(prepared: Prepared, tasks: Sequence[SlideTask]) -> tuple[str, ...]:
    failed = failed_slides(prepared)
    return tuple(task.slide_id for task in tasks if task.slide_id in failed)


def _named(slides: Sequence[str]) -> str:
    """`3 slides (first: a.svs) are`, for the start of a sentence."""
    if len(slides) == 1:
        return f"Slide {slides[0]} is"
    return f"{len(slides)} slides (first: {slides[0]}) are"
