"""Which stored levels serve as native LR, what is made instead, and what a build says of it."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, write_pyramid

from wsisr import open_pairs
from wsisr.building import BuildRequest, build_pairs, prepare
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest, load_manifest
from wsisr.building.sources.levels import Levels
from wsisr.errors import MagnificationError, SlideError
from wsisr.runners import SerialRunner
from wsisr.slides import find_slides, level_evidence, second_readers
from wsisr.testing import SlideSpec, write_slide
from wsisr.testing.levels import LevelShift


def task_of(path: Path) -> SlideTask:
    (source,) = find_slides(path)
    return SlideTask(source=source, patient=source.slide_id, group=source.slide_id)


def manifest(**settings: object) -> Manifest:
    return load_manifest("default", {"lr": "10x", "size": 256, **settings})


@pytest.fixture(scope="module")
def decimated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = picture(1536, 1280)
    path = tmp_path_factory.mktemp("native") / "decimated.tif"
    levels = [image, np.ascontiguousarray(image[::2, ::2]), np.ascontiguousarray(image[::4, ::4])]
    return write_pyramid(path, levels, compression="deflate", um_per_px=0.25)


@pytest.fixture(scope="module")
def displaced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide whose 1/4 level lies further off than the search looks."""
    folder = tmp_path_factory.mktemp("displaced")
    spec = SlideSpec(
        seed=3,
        layout="generic",
        width_px=2048,
        height_px=1536,
        factors=(1, 4),
        shifts=(LevelShift(factor=4, x_px=60.0, y_px=44.0),),
    )
    write_slide(folder / "a.tif", spec)
    return folder


@pytest.mark.parametrize(("native", "read"), [("prefer", True), ("evidence", False)])
def test_a_decimated_level_is_kept_with_its_flag_or_made_anew(decimated, native, read) -> None:
    opened = Levels.open(task_of(decimated), manifest(native=native))
    try:
        evidence = level_evidence(opened.slides[0])
        assert all(item.warning for item in evidence)
        reading, _ = opened._calibrated(opened.geometry(), evidence)
        layer = reading.geometry.layers[1]
        assert layer.native is read
        assert "left out without antialiasing" in reading.flags["10x"]
        assert opened.attributes(reading, decimated.parent) == {"lr_flags": reading.flags}
        (_, lr) = opened.arrays(reading)
        assert lr.origin == ("stored-level" if read else "reduced")
    finally:
        opened.close()


def test_a_sound_level_has_no_flag(tmp_path: Path) -> None:
    image = picture(1536, 1280)
    levels = [image, box_level(image, 4)]
    path = write_pyramid(tmp_path / "a.tif", levels, compression="deflate", um_per_px=0.25)
    opened = Levels.open(task_of(path), manifest(native="evidence"))
    try:
        reading, _ = opened._calibrated(opened.geometry(), level_evidence(opened.slides[0]))
        assert reading.geometry.layers[1].native and reading.flags == {}
    finally:
        opened.close()


def test_a_textured_level_that_lies_nowhere_is_no_native_lr(displaced, tmp_path) -> None:
    request = BuildRequest(
        source=displaced,
        output=tmp_path / "p.zarr",
        overrides={"lr": "10x", "size": 256},
        workers=1,
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert summary is not None and sum(summary.pairs.values())
    (line,) = [text for text in summary.warnings if text.startswith("10x of 1 slide(s)")]
    assert "was made from the finer level in place of the stored one" in line
    assert "place not measured" in line and line in summary.text()
    assert line in (summary.report / "summary.md").read_text()
    store = open_pairs(tmp_path / "p.zarr")
    (view,) = store.slides.values()
    assert view.spec("10x").origin == "reduced" and not view.spec("10x").native
    assert "place not measured" in dict(view.attributes)["lr_flags"]["10x"]
    row = np.array([[0, 0]], np.int32)
    hr, lr = (store.read(row, name)[0].astype(float) for name in ("40x", "10x"))
    means = hr.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(means - lr).mean() < 3.0


def test_where_made_levels_are_forbidden_such_a_slide_is_refused(displaced) -> None:
    opened = Levels.open(task_of(displaced / "a.tif"), manifest(native="require"))
    try:
        with pytest.raises(MagnificationError, match="not known to show the same place"):
            opened._calibrated(opened.geometry(), ())
    finally:
        opened.close()


def test_a_slide_that_nobody_confirms_gives_no_pairs_unless_asked_for(
    decimated, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("WSISR_CACHE", str(tmp_path))
    monkeypatch.setitem(second_readers.SECOND_READERS, "direct", ())
    with pytest.raises(SlideError, match=r"UNCHECKED.*--unchecked accept"):
        Levels.open_checked(task_of(decimated), manifest())
    opened = Levels.open_checked(task_of(decimated), manifest(unchecked="accept"))
    opened.close()
    assert opened.notes[0].startswith("UNCHECKED: read by direct alone")
