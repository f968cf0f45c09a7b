"""Configuration and presets: strict, complete, and frank about implausible numbers."""

from itertools import pairwise
from pathlib import Path

import pytest

from wsisr.errors import ConfigError, ModelError
from wsisr.models import list_models, model_spec
from wsisr.training import resolve_config
from wsisr.training.config import (
    OptimSection,
    TrainConfig,
    differences,
    parse_config,
    read_assignments,
    read_config,
)
from wsisr.training.presets import preset_file

EVERY = [
    (name, preset)
    for name in list_models()
    if name != "bicubic"
    for preset in model_spec(name).presets
]


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_every_preset_of_every_model_is_valid(name: str, preset: str) -> None:
    resolved = resolve_config(name, preset=preset)
    config = resolved.config
    assert config.model.name == name and config.model.preset == preset
    kind = model_spec(name).kind
    assert (config.recipe.kind == "implicit") == (kind == "arbitrary")
    assert parse_config(config.to_dict()) == config
    if preset == "tiny":
        assert config.train.steps <= 2000 and config.data.crop_lr_px <= 24


def test_recipes_of_the_families() -> None:
    kinds = {
        name: resolve_config(name, preset="recommended").config.recipe.kind
        for name in ("mihatp", "iste", "cwtnet", "masrnet", "masrgan", "edsr", "liif")
    }
    assert kinds == {
        "mihatp": "contrastive",
        "iste": "implicit",
        "cwtnet": "wavelet",
        "masrnet": "l1",
        "masrgan": "adversarial",
        "edsr": "l1",
        "liif": "implicit",
    }


def test_paper_presets_hold_the_papers_numbers() -> None:
    mihatp = {s: resolve_config("mihatp", preset="paper", scale=s).config for s in (2, 4, 8)}
    assert [mihatp[s].data.crop_lr_px for s in (2, 4, 8)] == [96, 48, 24]
    optim = mihatp[4].optim
    assert [optim.rate_at(s, 10**6) for s in (0, 49_999, 50_000, 100_000)] == pytest.approx(
        [1e-4, 1e-4, 1e-5, 1e-6]
    )
    iste = resolve_config("iste", preset="official").config
    assert (iste.data.batch, iste.data.sample_px, iste.data.scale_draw) == (4, 2304, "sample")
    assert iste.data.lr_source == "iste"
    masr = resolve_config("masrnet", preset="paper").config
    assert masr.optim.rate_at(20_000, masr.train.steps) == pytest.approx(1e-4 / 2**10)


def test_implausible_numbers_of_papers_are_warned_of() -> None:
    for name, part in (("masrnet", "every 2000 steps"), ("iste", "1000 epochs")):
        warnings = resolve_config(name, preset="paper").warnings
        assert any(part in line for line in warnings)
    assert any("not restated" in w for w in resolve_config("edsr", preset="paper").warnings)
    assert not resolve_config("masrnet", preset="recommended").warnings


def test_every_preset_file_belongs_to_a_model() -> None:
    folder = Path(str(Path(__file__).parents[1] / "wsisr/training/presets"))
    names = {path.stem for path in folder.glob("*.yaml")}
    assert names - {"default"} <= set(list_models())
    assert preset_file("no-such-model") == {}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("optim.lrr=1", "optim.lrr'; did you mean 'lr'"),
        ("optm.lr=1", "did you mean 'optim'"),
        ("optim.lr", "write section.key=value"),
        ("optim.lr=fast", "optim.lr: .* valid number"),
        ("optim.lr=-1", "greater than 0"),
        ("data.batch=0", "greater than or equal to 1"),
        ("data.cache=disk", "'auto', 'device', 'ram' or 'stream'"),
        ("model.widht=3", "no setting 'widht'; did you mean 'width'"),
        ("model.scale=3", "use the option --scale"),
        ("recipe.weigth=1", "no setting 'weigth'; did you mean 'weight'"),
        ("recipe.kind=wavelet", "CWT-Net's alone"),
        ("recipe.kind=implicit", "does not fit mihatp"),
        ("data.scale_range=4,2", "low, high"),
        ("data.scale_range=4", "data.scale_range: wants a list; 4, .* of a single value"),
        ("optim.betas=0.9,2", "less than 1"),
        ("optim.lr=inf", "finite number"),
        ("train.seed=9999999999999999999", "less than 9223372036854775808"),
        ("train.compile=fast", "'off', 'default' or 'reduce-overhead'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(assignment: str, said: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=said) as caught:
        resolve_config("mihatp", assignments=[assignment])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "mihapt"}, "did you mean 'mihatp'"),
        ({"model": "bicubic"}, "nothing to train"),
        ({"model": "mihatp", "preset": "official"}, "has no preset 'official'"),
        ({"model": "mihatp", "preset": "papr"}, "did you mean 'paper'"),
        ({"model": "mihatp", "scale": 5}, "scale 5: .* products of 2 and 3 only"),
        ({"model": "iste", "scale": 4}, "leave --scale out"),
        ({"model": "swdnet", "scale": 4}, "x2 alone"),
    ],
)
def test_a_wrong_request_is_one_sentence(options: dict[str, object], said: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=said):
        resolve_config(**options)  # type: ignore[arg-type]


def test_a_recipe_of_another_kind_starts_from_its_own_settings() -> None:
    """MiHATP without its contrastive term is one network and plain L1."""
    for model in ("mihatp", "masrgan", "cwtnet", "swdnet"):
        section = resolve_config(model, assignments=["recipe.kind=l1"]).config.recipe
        assert (section.kind, section.settings) == ("l1", {})
    kept = resolve_config("mihatp", assignments=["recipe.kind=contrastive", "recipe.weight=0.5"])
    assert kept.config.recipe.settings["temperature"] == 0.05
    rows = {
        "IV.2": "recipe.ssim_weight=0",
        "IV.3": "recipe.pixel=mse",
        "IV.6": "recipe.branch_weights=0.7,0.3",
        "III.4": "recipe.reference=lr",
    }
    for assignment in rows.values():
        resolve_config("cwtnet", scale=2, assignments=[assignment, "model.wr=false"])


def test_assignments_read_numbers_lists_and_recipe_settings() -> None:
    content = read_assignments(
        ["optim.lr=2e-4", "optim.betas=0.9,0.99", "data.flips=false", "recipe.weight=0.5"]
    )
    assert content["optim"] == {"lr": 2e-4, "betas": [0.9, 0.99]}
    assert content["data"] == {"flips": False}
    assert content["recipe"] == {"settings": {"weight": 0.5}}
    config = resolve_config("mihatp", preset="tiny", assignments=["model.groups=1"]).config
    assert config.model.settings == {"groups": 1}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("off", "off"), ("true", "default"), ("on", "default"), ("reduce-overhead",) * 2],
)
def test_switches_of_yaml_are_modes_of_compiling(given: str, meant: str) -> None:
    resolved = resolve_config("srcnn", assignments=[f"train.compile={given}"])
    assert resolved.config.train.compile == meant


def test_later_changes_win(tmp_path: Path) -> None:
    file = tmp_path / "part.yaml"
    file.write_text("optim: {lr: 0.5}\ntrain: {steps: 7}\n")
    config = resolve_config(
        "edsr", preset="tiny", changes=[read_config(file)], assignments=["optim.lr=0.25"]
    ).config
    assert (config.optim.lr, config.train.steps, config.data.batch) == (0.25, 7, 8)
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_config(tmp_path / "none.yaml")
    file.write_text("optim: [")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        read_config(file)


def test_models_of_one_scale_only_get_it() -> None:
    assert resolve_config("swdnet", preset="tiny").config.model.scale == 2
    assert resolve_config("edsr", preset="tiny").config.model.scale == 4


def test_differences_name_what_changed() -> None:
    a = resolve_config("edsr", preset="tiny").config
    b = resolve_config("edsr", preset="tiny", assignments=["optim.lr=1", "data.workers=3"]).config
    assert differences(a, b, frozenset({"data.workers"})) == ["optim.lr was 0.002, not 1.0"]


def test_schedules() -> None:
    cosine = OptimSection(lr=1.0, schedule="cosine", floor=0.1, warmup_steps=4)
    rates = [cosine.rate_at(step, 101) for step in range(101)]
    assert rates[0] == pytest.approx(0.25) and rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    assert OptimSection(lr=3.0).rate_at(10**9, 10) == 3.0


def test_the_schema_describes_the_fields() -> None:
    schema = TrainConfig.model_json_schema()
    crop = schema["$defs"]["DataSection"]["properties"]["crop_lr_px"]
    assert "LR px" in crop["description"] and schema["additionalProperties"] is False
