"""Samples and batches: pure draws, exact geometry, the same bytes from every source."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from training_samples import make_store

from wsisr.degradation import degrade, hr_size, parse_degradation, resize
from wsisr.degradation.draws import Draws
from wsisr.errors import ConfigError
from wsisr.store import open_pairs
from wsisr.training import PairDataset
from wsisr.training.batches import Batch, BatchRule, make_batch, pixel_range, symmetric, unit
from wsisr.training.config import DataSection
from wsisr.training.data import MemorySource, Role, StreamSource, default_workers, open_source
from wsisr.training.sampling import CropRule, StepPlan, permutation, plan_step, sample_index

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "pairs.zarr", factors=(2, 4))


def crop_rule(**changes: object) -> CropRule:
    values = {
        "patches": 18,
        "hr_px": 64,
        "crop_lr_px": 8,
        "margin_lr_px": 2,
        "scale": 4,
        "scale_range": (4.0, 4.0),
        "per_sample": False,
        "native": False,
        **changes,
    }
    return CropRule(**values)  # type: ignore[arg-type]


def batch_rule(crops: CropRule, **changes: object) -> BatchRule:
    degradation = None if crops.native else parse_degradation("bicubic")
    values = {
        "crops": crops,
        "degradation": degradation,
        "flips": False,
        "sample_px": None,
        "reference": False,
        "seed": 3,
        **changes,
    }
    return BatchRule(**values)  # type: ignore[arg-type]


def planned(rule: CropRule, step: int = 5, slots: int = 6, seed: int = 3) -> StepPlan:
    return plan_step(rule, seed=seed, step=step, slots=np.arange(slots), per_step=slots)


def made(store: Path, rule: BatchRule, plan: StepPlan, roles: list[Role]) -> Batch:
    source = MemorySource(PairDataset(store), roles, CPU)
    return make_batch(source.fetch(0, plan), plan, rule, CPU)


HR = Role(name="hr", array="40x", corner=1, size=0)


def test_every_patch_comes_once_an_epoch() -> None:
    slots = np.arange(4)
    taken = np.concatenate([sample_index(1, step, slots, 4, 10) for step in range(5)])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert list(taken[:10]) != list(taken[10:])
    assert list(permutation(1, 0, 50)) != list(permutation(2, 0, 50))


def test_draws_belong_to_slots_not_to_batches() -> None:
    rule = crop_rule()
    whole = planned(rule, slots=6)
    part = plan_step(rule, seed=3, step=5, slots=np.arange(3, 6), per_step=6)
    for name in ("index", "y", "x"):
        assert np.array_equal(getattr(whole, name)[3:], getattr(part, name))
    other = planned(rule, step=6)
    assert not np.array_equal(whole.y, other.y)
    assert not np.array_equal(whole.y, planned(rule, seed=4).y)


def test_corners_reach_every_place_and_no_further() -> None:
    rule = crop_rule(margin_lr_px=0, crop_lr_px=14)
    corners = np.concatenate([planned(rule, step=s, slots=8).y for s in range(60)])
    assert corners.min() == 0 and corners.max() == 64 - 56
    native = crop_rule(native=True, margin_lr_px=0)
    corners = np.concatenate([planned(native, step=s, slots=8).x for s in range(60)])
    assert corners.min() == 0 and corners.max() == 16 - 8


def test_scales_are_one_for_a_step_or_one_for_a_sample() -> None:
    free = {"scale": None, "scale_range": (1.0, 4.0)}
    batch = planned(crop_rule(**free))
    assert len(set(batch.scales)) == 1 and 1 <= batch.scales[0] <= 4
    assert (
        batch.scales[0]
        == plan_step(crop_rule(**free), seed=3, step=5, slots=np.arange(6, 12), per_step=12).scales[
            0
        ]
    )
    each = planned(crop_rule(**free, per_sample=True))
    assert len(set(each.scales)) == 6 and each.read_px == 48
    assert batch.read_px == hr_size(12, batch.scales[0])


def test_a_margin_makes_crops_equal_to_the_degraded_whole(store: Path) -> None:
    rule = crop_rule(margin_lr_px=3)
    plan = planned(rule)
    plan = StepPlan(**{**vars(plan), "y": plan.y // 4 * 4, "x": plan.x // 4 * 4})
    batch = made(store, batch_rule(rule), plan, [HR])
    data = PairDataset(store)
    for at, index in enumerate(plan.index.tolist()):
        whole = data[index]["40x"]
        lr = degrade(whole, "bicubic", 4)
        y, x = int(plan.y[at]) + 12, int(plan.x[at]) + 12
        assert batch.hr is not None
        assert torch.equal(batch.hr[at], unit(whole[:, y : y + 32, x : x + 32]))
        wanted = unit(lr[:, y // 4 : y // 4 + 8, x // 4 : x // 4 + 8])
        torch.testing.assert_close(batch.lr[at], wanted, rtol=0, atol=1e-6)


def test_native_crops_lie_where_they_should(store: Path) -> None:
    rule = crop_rule(native=True, margin_lr_px=0)
    roles = [
        Role(name="hr", array="40x", corner=4, size=32),
        Role(name="lr", array="10x", corner=1, size=8),
        Role(name="reference", array="20x", corner=2, size=16),
    ]
    plan = planned(rule)
    batch = made(store, batch_rule(rule, reference=True), plan, roles)
    data = PairDataset(store)
    assert batch.hr is not None and batch.reference is not None
    for at, index in enumerate(plan.index.tolist()):
        y, x = int(plan.y[at]), int(plan.x[at])
        patch = data[index]
        for got, array, factor in (
            (batch.lr, "10x", 1),
            (batch.reference, "20x", 2),
            (batch.hr, "40x", 4),
        ):
            side = 8 * factor
            part = patch[array][:, y * factor :, x * factor :][:, :side, :side]
            assert torch.equal(got[at], unit(part))


def test_symmetries_move_pairs_together_and_are_all_drawn() -> None:
    draws = Draws(seed=0, step=0, slots=torch.arange(64))
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4).expand(64, 1, 4, 4)
    moved = symmetric(ramp, draws)
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 8
    small, large = (
        resize(moved, (2, 2), kernel="area"),
        symmetric(resize(ramp, (2, 2), kernel="area"), draws),
    )
    torch.testing.assert_close(small, large)
    assert symmetric(ramp, draws, on=False) is ramp


@pytest.mark.parametrize("per_sample", [False, True])
def test_sampled_pixels_are_where_their_coordinates_say(store: Path, per_sample: bool) -> None:
    rule = crop_rule(scale=None, scale_range=(1.0, 4.0), per_sample=per_sample)
    plan = planned(rule)
    batch = made(store, batch_rule(rule, sample_px=40, flips=False), plan, [HR])
    assert batch.coord is not None and batch.target is not None and batch.cell is not None
    assert batch.lr.shape == (6, 3, 8, 8) and batch.coord.shape == (6, 40, 2)
    assert batch.coord.abs().max() < 1
    data = PairDataset(store)
    for at, index in enumerate(plan.index.tolist()):
        side = hr_size(12, plan.scales[at])
        assert float(batch.cell[at, 0, 0]) == pytest.approx(2 * 12 / side / 8)
        rows_columns = ((batch.coord[at].double() + 1) / 2 * 8 + 2) * side / 12 - 0.5
        place = rows_columns.round()
        torch.testing.assert_close(rows_columns, place, rtol=0, atol=1e-4)
        assert len({tuple(p) for p in place.tolist()}) == 40
        patch = unit(data[index]["40x"])
        y, x = int(plan.y[at]), int(plan.x[at])
        for q, (row, column) in enumerate(place.long().tolist()):
            assert torch.equal(batch.target[at, q], patch[:, y + row, x + column])


def test_scale_one_still_gives_the_pixels_asked_for(store: Path) -> None:
    rule = crop_rule(scale=None, scale_range=(1.0, 1.0))
    batch = made(store, batch_rule(rule, sample_px=100), planned(rule), [HR])
    assert batch.coord is not None and batch.coord.shape == (6, 100, 2)


def test_pixel_range_is_that_of_the_centres() -> None:
    for region, margin, side in ((24, 4, 96), (24, 4, 58), (12, 2, 12), (56, 4, 101), (8, 0, 33)):
        centres = (np.arange(side) + 0.5) * region / side
        inside = np.flatnonzero((centres >= margin) & (centres < region - margin))
        assert pixel_range(region, margin, side) == (inside[0], inside[-1] + 1)


def test_all_sources_give_the_same_bytes(store: Path) -> None:
    rule = crop_rule()
    plans = [planned(rule, step=step) for step in range(7)]
    sources = [
        MemorySource(PairDataset(store), [HR], CPU),
        *(StreamSource(PairDataset(store), [HR], workers, pin=False) for workers in (0, 1, 3)),
    ]
    for source in sources:
        source.start(plans.__getitem__, 2, 7)
    for number in range(2, 7):
        first, *others = (source.fetch(number, plans[number])["hr"] for source in sources)
        assert first.dtype == torch.uint8
        assert all(torch.equal(first, other) for other in others)
    for source in sources:
        source.close()


def test_the_source_follows_the_size(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsisr.training import data as module

    section = DataSection(workers=2)
    near = open_source(PairDataset(store), [HR], section, device=CPU)
    assert "18 patches in memory" in near.description
    needed = 18 * 3 * 64**2
    monkeypatch.setattr(module, "available_bytes", lambda: 3 * needed)
    for sharers, place in ((1, "in memory"), (2, "streamed")):
        shared = open_source(PairDataset(store), [HR], section, sharers=sharers, device=CPU)
        assert place in shared.description
        shared.close()
    monkeypatch.setattr(module, "available_bytes", lambda: 1000)
    far = open_source(PairDataset(store), [HR], section, device=CPU)
    assert far.description == "18 patches streamed from the store by 2 threads"
    far.close()
    assert 1 <= default_workers(4) <= default_workers() <= 8


def test_the_dataset_survives_pickling_and_spawned_workers(store: Path) -> None:
    data = PairDataset(store, arrays=["10x"])
    again = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own object
    assert torch.equal(data[4]["10x"], again[4]["10x"]) and len(again) == 18
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        data, batch_size=9, num_workers=1, multiprocessing_context="spawn"
    )
    rows = torch.cat([batch["10x"] for batch in loader])
    assert torch.equal(rows[7], data[7]["10x"]) and rows.shape == (18, 3, 16, 16)


def test_a_missing_array_is_said(store: Path) -> None:
    with pytest.raises(ConfigError, match="no array 5x; it has 40x, 20x, 10x"):
        PairDataset(open_pairs(store), arrays=["5x"])


def test_gathering_on_a_device_equals_slicing() -> None:
    from wsisr.training.data import _gathered, _sliced

    stack = torch.randint(0, 256, (5, 20, 20, 3), dtype=torch.uint8)
    index, y, x = np.array([4, 0, 2]), np.array([0, 7, 12]), np.array([3, 12, 5])
    assert torch.equal(_gathered(stack, index, y, x, 8), _sliced(stack, index, y, x, 8))
