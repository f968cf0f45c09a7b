"""Names, presets, settings and exact parameter counts."""

import dataclasses

import pytest
import torch

from wsisr.errors import ModelError
from wsisr.models import NOT_BUILT, create_model, list_models, model_spec
from wsisr.models.registry import PRESETS, ModelSpec, register
from wsisr.models.settings import from_text

torch.set_num_threads(1)

COUNTS = [
    ("liif", "paper", None, 11_949_927),
    ("lte", "paper", None, 12_096_871),
    ("iste", "official", None, 12_743_594),
    ("iste", "paper", None, 12_739_434),
    ("lit", "paper", None, 16_931_695),
    ("itsrn", "paper", None, 12_248_358),
    ("swinir", "paper", 2, 11_752_487),
    ("swinir", "paper", 3, 11_937_127),
    ("swinir", "paper", 4, 11_900_199),
    ("swinir", "paper", 8, 12_047_911),
    ("rcan", "paper", 2, 15_444_643),
    ("rcan", "paper", 3, 15_629_283),
    ("rcan", "paper", 4, 15_592_355),
    ("rcan", "paper", 8, 15_740_067),
    ("hat", "paper", 2, 20_624_795),
    ("hat", "paper", 3, 20_809_435),
    ("hat", "paper", 4, 20_772_507),
    ("hat", "paper", 6, 20_957_147),
    ("hat", "paper", 8, 20_920_219),
    ("mihatp", "paper", 2, 33_381_971),
    ("mihatp", "paper", 3, 29_101_459),
    ("mihatp", "paper", 4, 27_530_067),
    ("mihatp", "paper", 8, 26_035_891),
    ("masrnet", "paper", 2, 15_480_931),
    ("masrnet", "paper", 3, 15_517_795),
    ("masrnet", "paper", 4, 15_546_531),
    ("masrnet", "paper", 8, 15_612_131),
    ("masrnet", "recommended", 4, 15_710_755),
    ("cwtnet", "recommended", 2, 5_036_393),
    ("cwtnet", "recommended", 4, 6_220_281),
    ("cwtnet", "recommended", 8, 7_404_169),
    ("cwtnet", "paper", 4, 7_256_457),
    ("cwtnet", "paper", 8, 11_548_873),
    ("esrgan", "paper", 4, 16_697_987),
    ("dcanet", "paper", 4, 15_592_355),
    ("li2021", "paper", 4, 7_388_122),
    # The released 3,158,424 less the 4,522 of layers that it never calls.
    ("swdnet", "paper", 2, 3_158_424 - 4_522),
]


def count(name: str, scale: int | None, preset: str, **settings: object) -> int:
    with torch.device("meta"):
        return create_model(name, scale=scale, preset=preset, **settings).parameter_count


@pytest.mark.parametrize(("name", "preset", "scale", "wanted"), COUNTS)
def test_parameter_counts(name: str, preset: str, scale: int | None, wanted: int) -> None:
    assert count(name, scale, preset) == wanted


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"attention_groups": 1}, 15_853_131),
        ({"attention_groups": 8}, 15_496_131),
        ({"attention_groups": 16}, 15_472_131),
        ({"reduction": 1}, 15_863_331),
        ({"reduction": 16}, 15_467_331),
        ({"spatial_kernel_px": 1}, 15_444_131),
        ({"spatial_kernel_px": 7}, 16_058_531),
        ({"attention": "none"}, 15_312_131),
        ({"attention": "channel"}, 15_430_531),
        ({"attention": "spatial"}, 15_428_131),
        ({"tail_conv": False, "long_conv": False}, 15_140_323),
    ],
)
def test_masrnet_variants(settings: dict[str, object], wanted: int) -> None:
    assert count("masrnet", 4, "paper", **settings) == wanted


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"window_px": 8}, 20_571_771),
        ({"window_px": 12}, 20_654_715),
        ({"width": 144, "compress": 24, "squeeze": 24}, 9_621_183),
        ({"groups": 12}, 40_846_575),
    ],
)
def test_hat_variants(settings: dict[str, object], wanted: int) -> None:
    assert count("hat", 4, "paper", **settings) == wanted


def test_encoders_of_the_arbitrary_scale_models() -> None:
    decoder = 346_883
    assert count("liif", None, "paper", encoder="rdn") == 21_973_952 + decoder
    # The released EDSR encoder counts 24 frozen values of its mean shift.
    assert count("liif", None, "paper", encoder="edsr") == 1_220_440 - 24 + decoder


def test_one_table_size_for_all_scales_is_recommended() -> None:
    assert count("mihatp", 4, "recommended") == 27_530_067
    # At x2 the offset network's kernel is 9; with 7 only the table's size would tell scales apart.
    assert count("mihatp", 2, "recommended", offset_kernel_px=7) == 27_382_355


def test_every_model_has_recommended_and_tiny_and_states_its_paper() -> None:
    for name in list_models():
        spec = model_spec(name)
        assert {"recommended", "tiny"} <= set(spec.presets) <= set(PRESETS)
        assert spec.citation and spec.summary
        assert dataclasses.is_dataclass(spec.settings)
        scale = None if spec.kind == "arbitrary" else (spec.scales or (4,))[0]
        for make in spec.presets.values():
            assert isinstance(make(scale), spec.settings)


@pytest.mark.parametrize("scale", [2, 3, 4, 6, 8, 9, 12])
def test_presets_exist_at_every_scale(scale: int) -> None:
    for name in list_models():
        spec = model_spec(name)
        if spec.kind == "fixed" and spec.scales is None:
            for make in spec.presets.values():
                make(scale)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"name": "mihatpp", "scale": 4}, "did you mean 'mihatp'"),
        ({"name": "ldm", "scale": 4}, "not built"),
        ({"name": "edsr", "scale": 4, "widht": 3}, "did you mean 'width'"),
        ({"name": "edsr", "scale": 4, "width": 3.5}, "type int"),
        ({"name": "edsr", "scale": 4, "width": True}, "type int"),
        ({"name": "edsr", "scale": 4, "width": 0}, "at least 1"),
        ({"name": "edsr", "scale": 4, "preset": "official"}, "no preset"),
        ({"name": "edsr", "scale": 4, "preset": "papr"}, "did you mean 'paper'"),
        ({"name": "masrnet", "scale": 4, "upsampler": "bilinear"}, "'deconv', 'pixelshuffle'"),
        ({"name": "edsr"}, "give scale="),
        ({"name": "edsr", "scale": 5}, "products of 2 and 3"),
        ({"name": "edsr", "scale": 1}, "from 2"),
        ({"name": "swdnet", "scale": 4}, "x2 alone"),
        ({"name": "iste", "scale": 4}, "at each call"),
        ({"name": "iste", "stf": False, "branches": "texture"}, "ablations"),
    ],
)
def test_mistakes_are_errors_with_a_remedy(call: dict[str, object], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        create_model(**call)  # type: ignore[arg-type]


def test_a_name_is_taken_once() -> None:
    spec = model_spec("edsr")
    with pytest.raises(ModelError, match="is there already"):
        register(spec)
    with pytest.raises(ModelError, match="unknown preset"):
        register(ModelSpec(**{**vars(spec), "name": "edsr-again", "presets": {"smal": spec.build}}))
    assert "edsr-again" not in list_models()


def test_unbuilt_networks_are_named_and_not_listed() -> None:
    assert not set(NOT_BUILT) & set(list_models())
    assert {"shisrcnet", "ignn", "spsr", "qegan", "wa-srgan", "ldm", "idm", "resshift"} <= set(
        NOT_BUILT
    )


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("width", "96", 96),
        ("alpha", "1", 1.0),
        ("deformable", "false", False),
        ("residual", "hat", "hat"),
        ("rgb_mean", "0.8,0.65,0.75", (0.8, 0.65, 0.75)),
    ],
)
def test_settings_are_read_from_text(key: str, text: str, value: object) -> None:
    assert from_text(model_spec("mihatp").settings, key, text, "mihatp") == value


def test_settings_text_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ModelError, match="type int"):
        from_text(model_spec("edsr").settings, "width", "wide", "edsr")
    with pytest.raises(ModelError, match="did you mean"):
        from_text(model_spec("edsr").settings, "widht", "3", "edsr")


def test_inputs_are_checked_in_words() -> None:
    model = create_model("edsr", scale=2, preset="tiny")
    for wrong in (torch.rand(3, 8, 8), torch.rand(1, 1, 8, 8), torch.zeros(1, 3, 4, 4).byte()):
        with pytest.raises(ModelError):
            model(wrong)
    iste = create_model("iste", preset="tiny")
    for call in ({}, {"scale": 2.0, "size": (4, 4)}, {"scale": -1.0}, {"size": (0, 3)}):
        with pytest.raises(ModelError):
            iste(torch.rand(1, 3, 4, 4), **call)  # type: ignore[arg-type]
