"""`--dry-run`: a table that fits a terminal, and what would work, with numbers that hold."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tifffile
from layout_samples import section, slide

from wsisr.building import BuildRequest, build_pairs, describe_plan, prepare
from wsisr.building.dryrun import WIDTH, PlanText
from wsisr.building.sources import levels, places
from wsisr.progress import ProgressEvent
from wsisr.runners import SerialRunner
from wsisr.slides.verdicts import FOLDER_VARIABLE

LONG = "a-slide-whose-name-is-longer-than-half-of-the-terminal-that-shows-it-001"


def plan(source: Path, **overrides: Any) -> PlanText:
    given = {"size": 128, "tissue.min_fraction": 0.3} | overrides
    request = BuildRequest(
        source=source, output=source.parent / "p.zarr", manifest="default", overrides=given
    )
    return describe_plan(prepare(request), runner=SerialRunner())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One slide of 40x, two of 20x, one of no magnification, one that is broken."""
    root = tmp_path_factory.mktemp("dry") / "study"
    slide(root / f"{LONG}.tif", 1)
    per_cm = {"twenty_1": 20_000, "twenty_2": 20_000, "odd": 700}
    for seed, (name, pixels) in enumerate(per_cm.items(), start=2):
        tifffile.imwrite(
            root / f"{name}.tif",
            section(seed),
            tile=(128, 128),
            photometric="rgb",
            metadata=None,
            resolution=(pixels, pixels),
            resolutionunit="CENTIMETER",
        )
    (root / "broken.svs").write_bytes(b"no slide")
    return root


def test_the_plan_fits_a_terminal_and_ends_in_what_would_work(folder: Path) -> None:
    found = plan(folder, hr="40x", lr="10x")
    lines = found.text.splitlines()
    assert found.exit_code == 1
    assert max(map(len, lines)) <= WIDTH
    head, row = next(pair for pair in pairwise(lines) if "um/px" in pair[0])
    assert head.split() == ["slide", "um/px", "set", "split", "places", "usable", "pairs", "MB"]
    name, mpp, number, _, places, usable, pairs, _ = row.split()
    assert name.startswith("a-slide-whose") and name.endswith("-001") and ".." in name
    assert (mpp, number) == ("0.2500", "1") and int(places) >= int(usable) == int(pairs) > 0
    assert "  10x 32 px made from level 0 / 4" in lines
    assert sum(": FAILS:" in line for line in lines) == 4
    # What is proposed is what a dry run of the same settings finds on just these slides.
    said = re.fullmatch(
        r"2 slides are 20x: --hr 20x --lr 5x gives (\d+) pairs from them\.", lines[-1]
    )
    assert said
    only = folder.parent / "only"
    only.mkdir()
    for name in ("twenty_1.tif", "twenty_2.tif"):
        (only / name).symlink_to(folder / name)
    assert f"\n{said[1]} pairs from 2 slides" in plan(only, hr="20x", lr="5x").text
    assert not list(folder.parent.glob("p.*"))


def test_nothing_is_proposed_that_gives_no_pair(folder: Path) -> None:
    found = plan(folder, hr="40x", lr="10x", **{"tissue.min_fraction": 1.0, "size": 512})
    assert found.exit_code == 2
    assert "slides are 20x" not in found.text
    assert f"{LONG} gives none:" in " ".join(found.text.split())


def test_the_build_takes_the_scans_of_a_dry_run_and_scans_what_has_changed(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tree_digest: Callable[[Path], str],
) -> None:
    source = tmp_path / "study"
    for seed, name in enumerate(("a", "b")):
        slide(source / f"{name}.tif", 20 + seed)
    looked: list[str] = []
    survey = places.survey_glass

    def counted(slide: Any, task: Any, *more: Any) -> Any:
        looked.append(task.slide_id)
        return survey(slide, task, *more)

    monkeypatch.setattr(levels, "survey_glass", counted)

    def build(name: str, **overrides: Any) -> list[str]:
        given = {"size": 128, "tissue.min_fraction": 0.3, "lr": "10x"} | overrides
        request = BuildRequest(
            source=source, output=tmp_path / name, manifest="default", overrides=given
        )
        said: list[ProgressEvent] = []
        build_pairs(prepare(request), said.append, SerialRunner())
        return [event.message for event in said if "dry run" in event.message]

    assert plan(source, lr="10x").text.count("the build takes these scans.") == 1
    assert plan(source, lr="10x").exit_code == 0 and looked == ["a", "b"], "a second one takes them"
    assert build("other.zarr", size=64) == [] and looked == ["a", "b", "a", "b"]
    looked.clear()
    (source / "b.tif").unlink()
    slide(source / "b.tif", 30)
    assert build("p.zarr") == ["1 of 2 slides were scanned by a dry run: not again if unchanged."]
    assert looked == ["b"]
    assert build("again.zarr") == [] and looked == ["b", "a", "b"], "a scan is taken once"
    assert tree_digest(tmp_path / "p.zarr") == tree_digest(tmp_path / "again.zarr")
    (tmp_path / "closed").write_text("no folder")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "closed"))
    words = " ".join(plan(source, lr="10x").text.split())
    assert "the build scans again, for these scans could not be kept." in words
