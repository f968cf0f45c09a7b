"""Rules are parsed and never executed; `keep` rewrites `kept` and the splits and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import columns, make_store, patches, root_attributes, tree_bytes, write_slide

from wsisr.errors import StoreError
from wsisr.store import StoreWriter, keep_pairs, open_pairs, verify_store
from wsisr.store import keep as store_keep
from wsisr.store.column_rules import parse_rule

COLUMNS = {
    "spread": np.array([0.1, 0.2, 0.3, np.nan]),
    "ncc_band": np.array([0.9, 0.8, 0.95, 0.99]),
    "residual_x": np.array([-0.4, 0.1, 0.2, 0.0]),
    "verdict": np.array([1, 0, 1, 1], np.int8),
    "hr_resampled": np.array([True, False, False, True]),
}


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        ("spread<0.25 and ncc_band>0.85", [0]),
        ("spread<0.25 or ncc_band > .97", [0, 1, 3]),
        ("not spread < 0.25", [2, 3]),
        ("0.15 < spread <= 0.3", [1, 2]),
        ("abs(residual_x) < 0.15", [1, 3]),
        ("-residual_x > 0.3", [0]),
        ("verdict == accept", [0, 2, 3]),
        ("verdict != accept", [1]),
        ("hr_resampled and verdict == 1", [0, 3]),
        ("not hr_resampled", [1, 2]),
        ("hr_resampled", [0, 3]),
        ("spread + 2 * residual_x / 4 > 0.2", [1, 2]),
        ("1 < 2", [0, 1, 2, 3]),
        ("spread / 0 > 1e9", [0, 1, 2]),
    ],
)
def test_rules_mean_what_they_say(rule: str, rows: list[int]) -> None:
    kept = parse_rule(rule, list(COLUMNS)).apply(COLUMNS, 4)
    assert kept.dtype == bool
    assert np.flatnonzero(kept).tolist() == rows


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("sprad<0.25", "did you mean 'spread'"),
        ("spread<0.25 &&", "is no rule"),
        ("", "is no rule"),
        ("spread", "compares nothing"),
        ("spread + 1", "compares nothing"),
        ("spread + 1 and verdict == 1", "compares nothing"),
        ("spread and verdict == 1", "compares nothing"),
        ("(spread<1) + 1 > 0", "a comparison, not a number"),
        ("__import__('os').system('true')", "not allowed"),
        ("().__class__", "not allowed"),
        ("spread.real < 1", "not allowed"),
        ("[1][0] < 2", "not allowed"),
        ("spread < 'a'", "not allowed"),
        ("spread ** 2 < 1", "not allowed"),
        ("spread < 1 if True else 2", "not allowed"),
        ("abs(spread, 1) < 2", "not allowed"),
        ("open(spread) < 2", "not allowed"),
        ("(x := 1) < 2", "not allowed"),
        ("True", "not allowed"),
        ("spread is 1", "not allowed"),
        ("(" * 400 + "1" + ")" * 400, "rule"),
        ("1<2 and " * 200 + "1<2", "longer than"),
    ],
)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_everything_else_is_refused(rule: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        parse_rule(rule, list(COLUMNS))


@given(st.text(alphabet="spread<>=!().,+-*/ 0159andotrvcibl_[]{}:'\"\\x", max_size=40))
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_no_text_does_anything_but_a_verdict_or_a_clear_error(text: str) -> None:
    try:
        kept = parse_rule(text, list(COLUMNS)).apply(COLUMNS, 4)
    except StoreError:
        return
    assert kept.shape == (4,)


def build(path: Path) -> None:
    writer = StoreWriter.create(path, root_attributes(["a", "b"]))
    write_slide(writer, "a", patches(0, 6), attributes={"funnel": {"kept": 6}})
    write_slide(writer, "b", patches(1, 3), attributes={"split": "test"})
    writer.commit_splits(
        {
            "train": np.array([(0, row) for row in range(6)]),
            "test": np.array([(1, row) for row in range(3)]),
        }
    )
    writer.clean()


def test_keep_changes_kept_and_splits_alone_and_can_be_undone(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    build(path)
    before = tree_bytes(path)
    result = keep_pairs(path, "spread  < 0.45 and\nncc_band>0.55")
    assert (result.before, result.kept, result.stored) == (9, 4, 9)
    assert result.splits == {"train": 3, "val": 0, "test": 1}
    after = tree_bytes(path)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert {name.split("/")[0] for name in changed if "kept" not in name} == {"zarr.json", "splits"}
    assert {name for name in changed if "kept" in name} == {
        "slides/a/patches/kept/c/0",
        "slides/b/patches/kept/c/0",
    }
    store = open_pairs(path)
    assert store.split("train").tolist() == [[0, 0], [0, 1], [0, 2]]
    assert store.table().rows == 4
    assert store.attributes["keep"]["rule"] == "spread < 0.45 and ncc_band>0.55"
    report = verify_store(path)
    assert report.ok, str(report)
    assert not (tmp_path / "a.zarr.partial").exists()
    keep_pairs(path, "spread >= 0")
    assert open_pairs(path).table().rows == 9
    assert verify_store(path).ok


def test_an_interrupted_keep_is_seen_and_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    build(path)
    real = store_keep._write_kept

    def stop(store: Any, slide: str, kept: Any) -> None:
        if slide == "b":
            raise KeyboardInterrupt
        real(store, slide, kept)

    with monkeypatch.context() as patch:
        patch.setattr(store_keep, "_write_kept", stop)
        with pytest.raises(KeyboardInterrupt):
            keep_pairs(path, "spread<0.5")
    report = verify_store(path)
    assert not report.ok
    assert "run it again with 'spread<0.5'" in str(report)
    keep_pairs(path, "spread<0.5")
    assert verify_store(path).ok


def test_splits_by_patch_stay_by_patch(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    manifest = {"split": {"kind": "paper-random"}}
    writer = StoreWriter.create(path, root_attributes(["a"], manifest=manifest))
    table = columns(4) | {"split": np.array([0, 2, 0, 2])}
    write_slide(writer, "a", patches(0, 4), table=table, attributes={"split": None})
    writer.commit_splits({"train": np.array([(0, 0), (0, 2)]), "test": np.array([(0, 1), (0, 3)])})
    assert keep_pairs(path, "spread < 0.5").splits == {"train": 1, "val": 0, "test": 1}
    assert verify_store(path).ok


def test_columns_that_not_every_slide_has_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    make_store(path, {"a": 2})
    with pytest.raises(StoreError, match="did you mean 'ncc_band'"):
        keep_pairs(path, "ncc_bnd > 0.5")
    with pytest.raises(StoreError, match="no column 'sharpness'"):
        keep_pairs(path, "sharpness > 0.5")


def test_a_slide_without_pairs_needs_no_certificates(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    writer = StoreWriter.create(path, root_attributes(["a", "b"]))
    write_slide(writer, "a", patches(0, 4), table=columns(4))
    bare = {name: columns(0)[name] for name in ("x", "y", "kept")}
    write_slide(writer, "b", patches(1, 0), table=bare)
    writer.commit_splits({"train": np.array([(0, row) for row in range(4)])})
    before = open_pairs(path).content_digest()
    assert keep_pairs(path, "spread < 0.5").stored == 4
    assert open_pairs(path).content_digest() == before
    assert verify_store(path).ok


def test_a_column_that_the_store_lacks_is_refused_with_why_and_what_there_is(
    tmp_path: Path,
) -> None:
    manifest = {"registration": {"method": "none"}}
    writer = StoreWriter.create(tmp_path / "a.zarr", root_attributes(["a"], manifest=manifest))
    bare = {name: columns(4)[name] for name in ("x", "y", "tissue", "kept")}
    write_slide(writer, "a", patches(0, 4), table=bare)
    writer.commit_splits({"train": np.array([(0, row) for row in range(4)])})
    before = tree_bytes(tmp_path / "a.zarr")
    with pytest.raises(StoreError) as made:
        keep_pairs(tmp_path / "a.zarr", "spread < 0.5 and tissue > 0.1")
    assert "no column 'spread'" in str(made.value)
    assert "registration 'none', which leaves no such number" in str(made.value)
    assert str(made.value).endswith("There are tissue, x, y.")
    assert tree_bytes(tmp_path / "a.zarr") == before

    writer = StoreWriter.create(tmp_path / "b.zarr", root_attributes(["a", "b"]))
    write_slide(writer, "a", patches(0, 4), table=columns(4))
    write_slide(writer, "b", patches(1, 4), table=bare)
    writer.commit_splits({"train": np.array([(i, row) for i in range(2) for row in range(4)])})
    with pytest.raises(StoreError, match=r"'spread': 1 of 2 slides lack it \(first: \['b'\]\)"):
        keep_pairs(tmp_path / "b.zarr", "spread < 0.5")
