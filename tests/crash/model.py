"""A store against a model of it: builds, appended and replaced slides, `keep`, exports, kills.

``python model.py FOLDER EXAMPLES STEPS [SEED]``: hypothesis draws what is done in which order and
where a process is killed (as zarr-python tests its stores). Every act runs in a fork of its own,
so that this process has no threads. After a kill the next act finds what the store's own recovery
makes of it: each slide as it was or as it was to be, whole, and nothing else.
"""

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from steps import in_child, kill_at
from store_samples import columns, patches, root_attributes, write_slide

from wsisr.errors import StoreError
from wsisr.store import BuildLock, StoreWriter, export_store, open_pairs, verify_store
from wsisr.store.keep import keep_pairs

Slides = dict[str, int]
"""Seed of each slide; its content follows from that."""
NAMES = st.sampled_from(("a", "b", "c", "d"))
SEEDS = st.integers(0, 3)
STEPS = st.integers(1, 160)
RULES = st.sampled_from((0.0, 0.3, 0.6, 1.0))


def count_of(content: int) -> int:
    """Patches of a slide."""
    return 2 + content


def table_of(content: int) -> dict[str, Any]:
    """Columns of a slide, before any rule."""
    return {name: columns(count_of(content))[name] for name in ("x", "y", "kept", "spread")}


def kept_by(content: int, limit: float) -> list[bool]:
    """What ``spread<=limit`` keeps of a slide."""
    return [bool(value <= np.float32(limit)) for value in table_of(content)["spread"]]


def build(path: Path, wanted: Slides, finish: bool = True) -> None:
    """What `build-pairs` does: goes on with the store, replaces slides whose files changed."""
    with BuildLock(path):
        make = StoreWriter.resume if path.exists() else StoreWriter.create
        writer = make(path, root_attributes(sorted(wanted)))
        for slide, content in wanted.items():
            if slide in writer.committed():
                said = open_pairs(path).slides[slide].attributes["fingerprint"]
                if said == str(content):
                    continue
                writer.remove(slide)
            more = {"fingerprint": str(content)}
            data = patches(content, count_of(content))
            write_slide(writer, slide, data, table=table_of(content), attributes=more)
            if not finish:
                return
        store = open_pairs(path)
        rows = [
            (index, row)
            for index, slide in enumerate(store.attributes["slides"])
            if slide in store.slides
            for row in np.flatnonzero(store.slides[slide].column("kept"))
        ]
        writer.commit_splits({"train": np.array(rows, np.int32).reshape(-1, 2)})
        writer.clean()


def replace_store(path: Path, wanted: Slides) -> None:
    """A build with ``--overwrite``."""
    with BuildLock(path):
        StoreWriter.create(path, root_attributes(sorted(wanted)), overwrite=True)
    build(path, wanted)


def observe(path: Path, seen: Path) -> None:
    """Recover as every writer does, look at everything, and write down what stands."""
    with BuildLock(path):
        writer = StoreWriter(path, "raw")
        writer.recover()
        writer.clean()
    found: dict[str, Any] = {"slides": {}, "kept": {}, "whole": False, "keep": ""}
    if path.exists():
        store = open_pairs(path)
        found["whole"] = bool(store.split_names())
        found["keep"] = dict(store.attributes.get("keep", {})).get("state", "")
        for slide in sorted(writer.committed()):
            view = store.slides[slide]
            content = int(view.attributes["fingerprint"])
            for name, pixels in patches(content, count_of(content)).items():
                assert np.array_equal(view.reader(name).read(range(len(view))), pixels), slide
            found["slides"][slide] = content
            found["kept"][slide] = [bool(value) for value in view.column("kept")]
        if found["whole"] and found["keep"] != "applying":
            report = verify_store(path, duplicates=False)
            assert report.ok, str(report)
    seen.write_text(json.dumps(found))


def export(path: Path, folder: Path, pairs: int) -> None:
    """All kept pairs leave, and no others."""
    assert sum(export_store(path, "png", folder).values()) == pairs
    assert len(list(folder.glob("*/40x/*.png"))) == pairs


def refused(path: Path, out: Path) -> None:
    """Nothing is made of a store that is not finished."""
    for act in (lambda: keep_pairs(path, "spread<1"), lambda: export_store(path, "png", out)):
        try:
            act()
        except StoreError as error:
            assert "not finished" in str(error)
        else:
            raise AssertionError("a store that is not finished was used")
    assert not out.exists()


class StoreModel(RuleBasedStateMachine):
    """The store, and what should be in it."""

    base: Path

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir(parents=True)
        self.path = self.base / "a.zarr"
        self.slides: Slides = {}
        self.kept: dict[str, list[bool]] = {}
        self.whole = False
        self.keep = ""

    def act(self, act: Callable[[], None], step: int) -> bool:
        """Do something in a process that is killed at a step (0: not); whether it ended."""
        status = in_child(lambda: (kill_at(step), act()))
        assert status in ((0, -signal.SIGKILL) if step else (0,)), f"ended with {status}"
        return status == 0

    def look(self) -> dict[str, Any]:
        seen = self.base / "seen.json"
        assert in_child(lambda: observe(self.path, seen)) == 0
        found: dict[str, Any] = json.loads(seen.read_text())
        return found

    def reach(self, slides: Slides, kept: dict[str, list[bool]], ended: bool, keep: str) -> None:
        """Compare with what should be there; after a kill, with what was or should be."""
        found = self.look()
        if ended:
            assert found["slides"] == slides and found["kept"] == kept
            assert found["keep"] == keep
        for slide, content in found["slides"].items():
            assert content in (self.slides.get(slide), slides.get(slide)), f"{slide}: {content}"
            old = self.kept.get(slide) if self.slides.get(slide) == content else None
            assert found["kept"][slide] in (old, kept.get(slide)), f"{slide}: {found['kept']}"
        # Only what was to be replaced or is replaced may be away.
        for slide, content in self.slides.items():
            assert slide in found["slides"] or slides.get(slide) != content, f"{slide} is lost"
        self.slides, self.kept = found["slides"], found["kept"]
        self.whole, self.keep = found["whole"], found["keep"]

    def after_build(self, wanted: Slides) -> dict[str, list[bool]]:
        fresh = {s: [True] * count_of(c) for s, c in wanted.items() if self.slides.get(s) != c}
        return {**{s: k for s, k in self.kept.items() if s in wanted}, **fresh}

    @rule(more=st.dictionaries(NAMES, SEEDS, max_size=2), step=st.just(0) | STEPS)
    def build_append_or_resume(self, more: Slides, step: int) -> None:
        wanted = {**self.slides, **more}
        ended = self.act(lambda: build(self.path, wanted), step)
        self.reach(wanted, self.after_build(wanted), ended, self.keep)

    @precondition(lambda self: self.slides)
    @rule(name=NAMES, content=SEEDS)
    def build_that_is_interrupted(self, name: str, content: int) -> None:
        wanted = {**self.slides, name: content}
        self.act(lambda: build(self.path, wanted, finish=False), 0)
        self.reach(wanted, self.after_build(wanted), False, self.keep)

    @rule(wanted=st.dictionaries(NAMES, SEEDS, min_size=1, max_size=2), step=st.just(0) | STEPS)
    def overwrite(self, wanted: Slides, step: int) -> None:
        ended = self.act(lambda: replace_store(self.path, wanted), step)
        before, self.slides = self.slides, {}
        if not ended and self.look()["slides"] == before:
            self.slides = before
        kept = {slide: [True] * count_of(content) for slide, content in wanted.items()}
        self.reach(wanted, kept, ended, "")

    @precondition(lambda self: self.whole and self.slides)
    @rule(limit=RULES, step=st.just(0) | STEPS)
    def keep_by_another_rule(self, limit: float, step: int) -> None:
        ended = self.act(lambda: keep_pairs(self.path, f"spread<={limit}") and None, step)
        kept = {slide: kept_by(content, limit) for slide, content in self.slides.items()}
        self.reach(self.slides, kept, ended, "complete")

    @precondition(lambda self: self.slides and not self.whole)
    @rule()
    def nothing_is_made_of_an_unfinished_store(self) -> None:
        shutil.rmtree(self.base / "out", ignore_errors=True)
        assert in_child(lambda: refused(self.path, self.base / "out")) == 0

    @precondition(lambda self: self.whole and self.keep != "applying")
    @rule()
    def export_what_is_kept(self) -> None:
        out = self.base / "out"
        shutil.rmtree(out, ignore_errors=True)
        pairs = sum(map(sum, self.kept.values()))
        assert in_child(lambda: export(self.path, out, pairs)) == 0

    @invariant()
    def nothing_lies_beside_it(self) -> None:
        names = {path.name for path in self.base.iterdir()}
        assert names <= {"a.zarr", "a.zarr.partial", "seen.json", "out"}
        if self.whole:
            assert "a.zarr.partial" not in names


def main() -> None:
    """Run it."""
    folder, examples, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    StoreModel.base = folder / "model"
    chosen = settings(
        max_examples=examples,
        stateful_step_count=length,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    run_machine(seed(int((*sys.argv[4:], 1)[0]))(StoreModel), settings=chosen)
    print(examples)


if __name__ == "__main__":
    main()
