"""Ids follow from a slide's own path, differ for different paths, and are safe on every disk."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsisr.building.layout import recognise
from wsisr.building.manifest import load_manifest
from wsisr.building.plan import decide_splits
from wsisr.slides import find_slides
from wsisr.slides.ids import draw_keys, short_forms, slide_id
from wsisr.store.layout import check_slide_id

PARTS = st.text(st.sampled_from("aAbB_.- é0~") | st.characters(codec="utf-8"), min_size=1)
PATHS = st.lists(PARTS.filter(lambda p: "/" not in p and p not in (".", "..")), min_size=1).map(
    "/".join
)


@given(PATHS, PATHS)
def test_other_paths_have_other_ids_even_where_case_is_ignored(one: str, two: str) -> None:
    for path in (one, two):
        name = check_slide_id(slide_id(path))
        assert name.isascii() and len(name) <= 160
        assert not name.endswith((".", " "))
        assert all(c.isalnum() or c in "._-~" for c in name)
    assert (slide_id(one).lower() == slide_id(two).lower()) == (one == two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("a.tif", "a.svs"),
        ("a.tif", "A.tif"),
        ("a.tif", "a"),
        ("a.png.tif", "a.png"),
        ("a/b.tif", "a__b.tif"),
        ("a_/b.tif", "a/_b.tif"),
        ("é.tif", "e\u0301.tif"),
        ("ä.tif", "ö.tif"),
        ("x" * 220 + "1.tif", "x" * 220 + "2.tif"),
        ("con.tif", "_con.tif"),
    ],
)
def test_paths_that_look_alike(one: str, two: str) -> None:
    assert slide_id(one).lower() != slide_id(two).lower()
    assert not slide_id(one).lower().startswith(("con.", "aux."))


def test_plain_paths_are_their_own_ids_with_short_forms() -> None:
    assert slide_id("training/tumor/tumor_001.tif") == "training__tumor__tumor_001"
    assert slide_id("a.svs.tif") == "a.svs.tif" and slide_id("a.tiff") == "a.tiff"
    assert {"tumor_001", "tumor_001.tif"} <= set(short_forms("training__tumor__tumor_001"))
    assert {"tumor_001", "tumor_001.svs"} <= set(short_forms("tumor__tumor_001.svs"))
    assert "TCGA-AA-0001" in short_forms(slide_id("d/TCGA-AA-0001.svs"))
    assert slide_id("s", "1.2.3") != slide_id("s", "1.2.4") != slide_id("s")


def test_draws_hang_on_the_path_below_what_all_share() -> None:
    assert draw_keys(["p/a/x", "p/b/y"], ["1", "2"]) == ["a__x", "b__y"]
    assert draw_keys(["x", "X", "y"], ["x.tif", "X~", "y.tif"]) == ["x.tif", "X~", "y"]
    assert draw_keys([], []) == []


# What the first stores drew: of each layout the splits, and what ranks and places hang on.
CAMELYON16 = {
    False: ("db936f9d2e434917", "3836645f3597f91c", "b66bde1163da3f80"),
    True: ("08be290b0c7a4bb3", "17e6ea87fbeb620a", "66c09ccec68c8d2c"),
}


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("parent", ["", "study/camelyon16"])
def test_no_draw_of_camelyon16_has_moved(tmp_path: Path, official: bool, parent: str) -> None:
    folders = {"normal": "training/normal", "tumor": "training/tumor", "test": "testing/images"}
    for kind, count in (("normal", 160), ("tumor", 111), ("test", 129)):
        folder = tmp_path / parent / (folders[kind] if official else "")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            (folder / f"{kind}_{number:03d}.tif").touch()
    tasks = recognise(tmp_path, find_slides(tmp_path)).tasks
    found = []
    for name in ("pathimgsr", "default"):
        splits, _ = decide_splits(tasks, load_manifest(name), {})
        found.append(digest({t.source.path.stem: splits[t.slide_id] for t in tasks}))
    found.append(digest({t.source.path.stem: t.draw_key for t in tasks}))
    assert tuple(found) == CAMELYON16[official]


def digest(values: dict[str, str]) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
