"""Every family and baseline takes steps with its own recipe, and its loss falls."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_samples import make_store, small_request

from wsisr.errors import ConfigError, ModelError
from wsisr.inference import open_run
from wsisr.models import SRModel, create_model, list_models, load_model, model_spec
from wsisr.training import train
from wsisr.training.config import ModelSection, RecipeSection, TrainConfig
from wsisr.training.logs import read_rows
from wsisr.training.recipes import PixelSettings, Recipe, build_recipe

torch.set_num_threads(1)
PSNR_TRAINED = [name for name in list_models() if name not in ("bicubic", "masrgan")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("recipes") / "pairs.zarr", factors=(2, 4), count=2)


@pytest.fixture(scope="module")
def one_patch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every step sees the same crop."""
    folder = tmp_path_factory.mktemp("one")
    splits = {"a": "train", "b": "val"}
    return make_store(folder / "pairs.zarr", splits=splits, factors=(2, 4), count=1, hr_px=32)


@pytest.mark.parametrize("name", PSNR_TRAINED)
def test_every_model_trains_and_its_loss_falls(one_patch: Path, tmp_path: Path, name: str) -> None:
    more = ["data.batch=1", "data.flips=false", "train.log_every=1", "val.pictures=0"]
    more += ["optim.lr=1e-3", "optim.warmup_steps=0"]
    if model_spec(name).kind == "arbitrary":
        # One that starts at bicubic has little to gain: all pixels, so that no draw hides it.
        sampled = 64 if name != "compact-any" else 1024
        more += [f"data.sample_px={sampled}", "data.scale_range=4,4"]
    if name == "srmfenet":  # it normalises over the batch
        more += ["data.batch=2"]
    if name == "mihatp":
        more += ["recipe.feature_levels=[]"]
    if name == "srcnn":
        # It starts at bicubic, which larger steps overshoot at first.
        more += ["optim.lr=1e-4"]
    request = small_request(one_patch, tmp_path / "run", *more, model=name, steps=5)
    outcome, folder = train(request)
    losses = [row["loss"] for row in read_rows(folder / "log.csv")]
    assert outcome.state == "finished" and losses[-1] < losses[0]
    run = open_run(folder)
    kind = model_spec(name).kind
    assert run.lr_origin == ("simulated:bicubic" if kind == "arbitrary" else "stored-level")
    saved = load_model(run.weights)
    assert saved.info.name == name and saved.parameter_count == run.document["parameters"]


def test_mihatp_trains_both_branches_and_saves_one(store: Path, tmp_path: Path) -> None:
    request = small_request(
        store, tmp_path / "run", "recipe.feature_levels=[]", "train.log_every=1",
        model="mihatp", steps=2,
    )  # fmt: skip
    _, folder = train(request)
    row = read_rows(folder / "log.csv")[-1]
    assert {"base", "con", "contrastive"} <= row.keys() and row["con"] > 0
    assert row["loss"] == pytest.approx(row["base"] + row["con"] + 0.01 * row["contrastive"], 1e-4)
    assert open_run(folder).document["features"] is None
    names = (folder / "best" / "model.safetensors").read_bytes()
    assert b"branch" not in names and b"con." not in names


@pytest.mark.parametrize(
    ("name", "more"), [("mihatp", ("recipe.feature_levels=[]",)), ("iste", ("data.sample_px=64",))]
)
def test_recomputed_blocks_give_the_same_weights(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    more: tuple[str, ...],
) -> None:
    from wsisr.models.layers import blocks

    calls: list[int] = []
    right = blocks.checkpoint

    def counted(module: nn.Module, *args: Any, **options: Any) -> Any:
        calls.append(id(module))
        return right(module, *args, **options)

    monkeypatch.setattr(blocks, "checkpoint", counted)
    for on in ("false", "true"):
        assert not calls
        request = small_request(
            store, tmp_path / on, *more, "data.batch=1", f"train.checkpointing={on}",
            model=name, steps=1,
        )  # fmt: skip
        train(request)
    a, b = (load_model(tmp_path / on / "last").state_dict() for on in ("false", "true"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert calls


def test_masrgan_starts_from_masrnet_and_moves_both_networks(store: Path, tmp_path: Path) -> None:
    first = small_request(store, tmp_path / "psnr", "data.batch=2", model="masrnet", steps=3)
    train(first)
    second = small_request(
        store, tmp_path / "gan", "data.batch=2", "train.log_every=1",
        model="masrgan", steps=3, init_from=tmp_path / "psnr",
    )  # fmt: skip
    _, folder = train(second)
    row = read_rows(folder / "log.csv")[-1]
    terms = ("pixel", "adversarial", "perceptual", "colour")
    assert row["loss"] == pytest.approx(sum(row[name] for name in terms), 1e-4)
    assert row["discriminator"] > 0
    run = open_run(folder)
    assert "tensors taken over" in run.document["init_from"]
    assert run.document["features"].startswith("vgg19-random")
    a, b = (load_model(tmp_path / n / "last").state_dict() for n in ("psnr", "gan"))
    assert 0 < max(float((a[key] - b[key]).abs().max()) for key in a) < 0.01
    # PSNR, which chooses `best`, falls while an adversarial run learns.
    assert run.weights.name == "last" and open_run(tmp_path / "psnr").weights.name == "best"


def test_weights_of_another_model_are_refused(store: Path, tmp_path: Path) -> None:
    train(small_request(store, tmp_path / "srcnn", steps=1))
    request = small_request(store, tmp_path / "edsr", model="edsr", steps=1)
    for source, said in (
        (tmp_path / "srcnn", "no tensor fits edsr; it holds"),
        (tmp_path / "none", "nothing of that name"),
    ):
        with pytest.raises((ConfigError, ModelError), match=said):
            train(type(request)(**{**vars(request), "init_from": source}))


def test_cwtnet_reads_the_stored_reference(store: Path, tmp_path: Path) -> None:
    request = small_request(store, tmp_path / "run", "data.batch=2", model="cwtnet", steps=1)
    _, folder = train(request)
    run = open_run(folder)
    assert run.document["arrays"] == {"hr": "40x", "lr": "10x", "reference": "20x"}
    assert any("the store's 20x" in note for note in run.document["notes"])


def recipe_of(model: SRModel, kind: str, **settings: Any) -> Recipe:
    section = ModelSection(name=model.info.name, preset="tiny", scale=model.info.scale)
    recipe = RecipeSection(kind=kind, settings=settings)
    return build_recipe(TrainConfig(model=section, recipe=recipe), model)


def test_settings_reach_the_recipe() -> None:
    model = create_model("mihatp", scale=4, preset="tiny", groups=1, depth=1)
    recipe = recipe_of(model, "contrastive", con="shared", feature_levels=[], weight=0.5)
    assert recipe.settings.weight == 0.5 and recipe.features is None  # type: ignore[attr-defined]
    assert not list(recipe.modules["branch"].parameters())
    assert recipe.networks(model) == [model]
    for con in ("separate", "ema"):
        recipe = recipe_of(model, "contrastive", con=con, feature_levels=[])
        assert recipe.networks(model) == [model, recipe.modules["branch"].own]
    with pytest.raises(ConfigError, match="neither image_space nor feature_levels"):
        recipe_of(model, "contrastive", image_space=False, feature_levels=[])


def test_psnr_as_a_loss_is_the_mean_over_samples_of_their_psnr() -> None:
    wanted = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    errors = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    loss = PixelSettings(loss="psnr")(wanted + errors, wanted)
    assert float(loss) == pytest.approx(-(20 + 40) / 2 / 10, abs=3e-3)  # of 20 and 40 dB
    with pytest.raises(ModelError, match="loss"):
        recipe_of(create_model("edsr", scale=2), "l1", loss="l3")
