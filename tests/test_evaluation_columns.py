"""Which pairs stand in which column, and how their LR comes about."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from evaluation_samples import settings, write_store

from wsisr.errors import ConfigError
from wsisr.evaluation.columns import (
    chunks,
    plan_columns,
    read_pair,
    read_samples,
    same_origin,
    without_constant,
)
from wsisr.evaluation.plan import prepare
from wsisr.evaluation.settings import EvalSettings, parse_scales, spread
from wsisr.store import PairStore, open_pairs


@pytest.fixture(scope="module")
def folder(made_once: Callable[..., Path]) -> Path:
    return made_once(
        "evaluation-columns",
        lambda path: write_store(path / "pairs.zarr", reduced_on=("d",)),
    )


@pytest.fixture
def store(folder: Path) -> PairStore:
    return open_pairs(folder / "pairs.zarr")


def _plan(store: PairStore, folder: Path, **changes: object) -> list[tuple[str, float, int]]:
    wanted = settings(folder, **changes)
    columns, _ = plan_columns(store, read_samples(store, "test"), wanted)
    return [(c.origin, c.scale, len(c.samples)) for c in columns]


def test_simulated_at_every_scale_and_native_where_the_store_has_it(store, folder) -> None:
    assert _plan(store, folder, scales=(2.0, 2.4, 4.0)) == [
        ("simulated:bicubic", 2.0, 6),
        ("simulated:bicubic", 2.4, 6),
        ("simulated:bicubic", 4.0, 6),
        ("stored-level", 2.0, 3),  # on slide d the level is made, not native
        ("stored-level", 4.0, 6),
    ]
    _, notes = plan_columns(store, read_samples(store, "test"), settings(folder, scales=(2.0,)))
    assert notes == (
        "stored-level x2: 3 of 6 patches have it; 1 of 2 slides are left out, whose LR is of "
        "another origin or missing.",
    )


def test_a_source_can_be_named(store, folder) -> None:
    assert _plan(store, folder, scales=(4.0, 2.0), lr_source="native") == [
        ("stored-level", 4.0, 6),
        ("stored-level", 2.0, 3),
    ]
    assert _plan(store, folder, scales=(2.0,), lr_source="20x") == [
        ("reduced", 2.0, 3),
        ("stored-level", 2.0, 3),
    ]
    assert _plan(store, folder, scales=(3.0,), lr_source="iste") == [("simulated:iste", 3.0, 6)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("native", "no native LR.*20x .x2, stored-level., 10x"),
        ("20x", "none of the scales"),
        ("bicubik", "no array.*no degradation.*bicubic"),
    ],
)
def test_a_source_that_gives_nothing_is_named(store, folder, source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _plan(store, folder, scales=(3.0,), lr_source=source)


def test_the_manifest_names_the_degradation(tmp_path: Path) -> None:
    path = write_store(tmp_path / "pairs.zarr", manifest={"degradation": "area"}, per_slide=1)
    assert _plan(open_pairs(path), tmp_path)[0][0] == "simulated:area"


def test_hr_is_cut_before_it_is_degraded(store, folder) -> None:
    wanted = settings(folder, scales=(3.3,))
    columns, _ = plan_columns(store, read_samples(store, "test"), wanted)
    lr, hr = read_pair(store, columns[0], columns[0].samples[:1], 0)
    assert lr.shape[-1] == 29 and hr.shape[-1] == 96  # floor(96 / 3.3) = 29, round(95.7) = 96
    assert lr.dtype == hr.dtype == torch.uint8


def test_draws_belong_to_the_patch(store, folder) -> None:
    wanted = settings(folder, lr_source="realesrgan2:mild")
    columns, _ = plan_columns(store, read_samples(store, "test"), wanted)
    samples = columns[0].samples
    together, _ = read_pair(store, columns[0], samples[:3], seed=1)
    alone, _ = read_pair(store, columns[0], samples[2:3], seed=1)
    other, _ = read_pair(store, columns[0], samples[2:3], seed=2)
    assert torch.equal(together[2], alone[0]) and not torch.equal(alone, other)


def test_batches_are_of_one_slide(store, folder) -> None:
    columns, _ = plan_columns(store, read_samples(store, "test"), settings(folder))
    sizes = [[s.slide for s in batch] for batch in chunks(columns[0], 2 * 96 * 96)]
    assert sizes == [["c", "c"], ["c"], ["d", "d"], ["d"]]


def test_samples_know_their_patient_and_label(store) -> None:
    first = read_samples(store, "test")[1]
    assert (first.slide, first.patient, first.group) == ("c", "patient-c", "glass-c")
    assert (first.label, first.hr_px) == ("tumour", 96)
    assert [(s.slide, s.row) for s in read_samples(store, "test", 3)] == [
        ("c", 0),
        ("c", 2),
        ("d", 2),
    ]


def test_constant_fields_are_left_out_before_any_model_runs(tmp_path: Path) -> None:
    write_store(tmp_path / "pairs.zarr", glass=(1,))
    store = open_pairs(tmp_path / "pairs.zarr")
    samples = read_samples(store, "test")
    kept, empty = without_constant(store, samples)
    assert [s.row for s in kept] == [0, 2, 0, 2] and [s.row for s in empty] == [1, 1]
    plan = prepare(settings(tmp_path))
    assert plan.samples == kept and all(c.samples == kept for c in plan.columns)
    assert any("2 of 6 patches are left out for every model" in note for note in plan.notes)
    write_store(tmp_path / "glass.zarr", glass=range(3))
    with pytest.raises(ConfigError, match="all 6 patches of the test split are constant"):
        prepare(settings(tmp_path, data=tmp_path / "glass.zarr"))


def test_origins_are_compared_by_what_they_do() -> None:
    assert same_origin("stored-level", "stored-level")
    assert same_origin("simulated:gaussian", "simulated:gaussian")
    assert not same_origin("simulated:bicubic", "simulated:area")
    assert not same_origin("simulated:bicubic", "rescan")
    assert not same_origin("simulated:no-such-thing", "simulated:bicubic")


def test_spread_and_scales() -> None:
    assert list(spread(5, None)) == [0, 1, 2, 3, 4]
    assert spread(9, 3) == [0, 4, 8] and spread(9, 1) == [4]
    assert parse_scales("2, 3,4.2") == (2.0, 3.0, 4.2)
    with pytest.raises(ConfigError, match="give numbers"):
        parse_scales("2,x4")


@pytest.mark.parametrize(
    "wrong",
    [
        {"scales": ()},
        {"scales": (0.5,)},
        {"scales": (2.0, 2.0)},
        {"limit": 0},
        {"precision": "fp8"},
        {"tile": "4"},
        {"protocols": ()},
        {"protocols": ("wsiser",)},
        {"reference": "hr"},
        {"figures": -1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        EvalSettings(**{"scales": (2.0,), **wrong})  # type: ignore[arg-type]
