"""Names, types and checks of what a store contains, and its summary."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import columns, patches, root_attributes, write_slide

from wsisr.errors import StoreError
from wsisr.store import ArraySpec, StoreWriter, describe_store, summarise_store
from wsisr.store.attributes import read_root_attributes
from wsisr.store.attributes import root_attributes as complete
from wsisr.store.layout import check_array_name, check_slide_id
from wsisr.store.schema import COLUMNS, check_columns, find_column, layer_column

BASE: dict[str, Any] = {"x": [0, 1], "y": [0, 1], "kept": [True, False]}


def test_columns_get_their_stored_types() -> None:
    checked = check_columns({**BASE, "label": [0, -1], "tissue": [1, 0]}, ["40x"], 2)
    assert {name: str(values.dtype) for name, values in checked.items()} == {
        "x": "int64",
        "y": "int64",
        "kept": "bool",
        "label": "int8",
        "tissue": "float32",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": [1, 2]}, "unknown column 'colour'"),
        ({"digest": [1, 2]}, "unknown column 'digest'"),
        ({"x": [1, 2, 3]}, r"x has shape \(3,\)"),
        ({"x": [0.5, 1.0]}, "x is float64"),
        ({"kept": [1, 0]}, "kept is int64"),
        ({"label": [0, 300]}, "do not fit int8"),
        ({"tissue": [0.5, 1e300]}, "do not fit float32"),
        ({"ncc_20x": [0.0, 1.0]}, "unknown column"),
        ({"x_10x": [0, 1]}, "unknown column"),
    ],
)
def test_wrong_columns_are_refused_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        check_columns(BASE | change, ["40x", "10x"], 2)


def test_what_is_not_known_fits() -> None:
    found = check_columns(BASE | {"tissue": [np.nan, np.inf]}, ["40x"], 2)
    assert np.array_equal(found["tissue"], [np.nan, np.inf], equal_nan=True)


def test_missing_columns_are_named() -> None:
    with pytest.raises(StoreError, match="missing y, kept"):
        check_columns({"x": [0]}, ["40x"], 1)


def test_certificates_may_come_once_per_layer() -> None:
    for array, name in (("10x", "ncc_10x"), ("2.5x", "ncc_2p5x"), ("10x-sim", "ncc_10x_sim")):
        assert layer_column("ncc", array) == name
        assert name.isidentifier()
        assert find_column(name, ["40x", array]) is COLUMNS["ncc"]


@given(name=st.text(min_size=0, max_size=8))
def test_slide_ids_are_safe_names_of_groups(name: str) -> None:
    try:
        check_slide_id(name)
    except StoreError:
        return
    assert Path("a", name).parts == ("a", name)
    assert not name.startswith((".", "__"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "__x", ".hidden", "a\n", "x" * 201])
def test_dangerous_slide_ids_are_refused(name: str) -> None:
    with pytest.raises(StoreError):
        check_slide_id(name)


@pytest.mark.parametrize("name", ["patches", "tissue", "c", "zarr.json", "", "a/b", "../x"])
def test_array_names_do_not_collide(name: str) -> None:
    with pytest.raises(StoreError):
        check_array_name(name)


def test_array_specs_round_trip_and_check_their_origin() -> None:
    spec = ArraySpec(
        name="10x",
        size_px=64,
        factor=4.0,
        native=False,
        origin="simulated:bicubic",
        level=0,
        reduction=4.0,
        um_per_px=1.0,
        extra={"kernel": "box"},
    )
    assert ArraySpec.from_attributes(spec.attributes() | {"later": 1}) == spec
    with pytest.raises(StoreError, match="is no origin"):
        ArraySpec(name="10x", size_px=64, origin="magic")
    with pytest.raises(StoreError, match="lack 'level'"):
        ArraySpec.from_attributes({k: v for k, v in spec.attributes().items() if k != "level"})


def test_root_attributes_are_complete_sorted_and_versioned() -> None:
    root = complete(root_attributes(["b", "a"]), "raw")
    assert root["slides"] == ["a", "b"]
    assert read_root_attributes(root, "here") == root
    with pytest.raises(StoreError, match="manifest_sha256"):
        complete({k: v for k, v in root.items() if k != "manifest_sha256"}, "raw")
    with pytest.raises(StoreError, match="unique"):
        complete(root_attributes(["a", "a"]), "raw")
    with pytest.raises(StoreError, match="newer wsisr"):
        read_root_attributes({**root, "format_version": 3}, "here")


def test_a_summary_counts_and_describes(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    writer = StoreWriter.create(path, root_attributes(["a", "b", "c"]))
    table = columns(5) | {
        "residual_x": np.array([0.0, 0.03, 0.3, 0.1, 3.0]),
        "residual_y": np.array([0.0, 0.04, 0.4, 0.0, 0.0]),
        "kept": np.array([True, True, True, True, False]),
        "reason": np.array([-1, -1, -1, -1, 0]),
    }
    write_slide(
        writer, "a", patches(0, 5), table=table, attributes={"funnel": {"tissue": 9, "kept": 4}}
    )
    assert "the build is not finished" in describe_store(path)
    write_slide(writer, "b", patches(1, 2), attributes={"funnel": {"tissue": 3, "kept": 2}})
    writer.commit_splits(
        {"train": np.array([(s, r) for s, n in ((0, 4), (1, 2)) for r in range(n)])}
    )
    summary = summarise_store(path)
    assert (summary.planned, summary.slides, summary.patients) == (3, 2, 2)
    assert (summary.stored, summary.kept) == (7, 6)
    assert summary.splits == {"train": 6, "val": 0, "test": 0}
    assert summary.labels == {"normal": 3, "tumour": 3}
    assert summary.funnel == {"tissue": 12, "kept": 6}
    assert summary.reasons == {"flat": 1}
    assert summary.residuals is not None
    assert sum(summary.residuals) == 4
    text = describe_store(path)
    assert "6 pairs from 2 slides of 2 patients" in text
    assert "1 of 3 planned slides are not in it" in text
    assert "40x: 32 px, 0.25 um/px; stored-level (2)" in text
