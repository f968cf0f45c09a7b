"""At which scale, and what is said when the model does not fit the input."""

import pytest

from wsisr.errors import ConfigError
from wsisr.inference.trained import BICUBIC, TrainedModel
from wsisr.upscaling.job import doubts, settle_scale


def test_a_fixed_scale_is_kept_to_and_an_arbitrary_one_is_asked_for() -> None:
    fixed = TrainedModel(name="f", model="srcnn", preset="tiny", scale=2, scale_range=(2.0, 2.0))
    assert settle_scale(fixed, None) == settle_scale(fixed, 2.0) == 2.0
    with pytest.raises(ConfigError, match="trained for x2 and cannot do x4"):
        settle_scale(fixed, 4.0)
    with pytest.raises(ConfigError, match="give one with --scale"):
        settle_scale(BICUBIC, None)


def test_doubts_are_one_sentence_and_only_where_there_are_any() -> None:
    model = TrainedModel(
        name="iste",
        model="iste",
        preset="tiny",
        scale=None,
        scale_range=(1.0, 4.0),
        document={"lr_origin": "stored-level", "arrays": {"hr": "40x"}},
    )
    assert doubts(model, 4.0, "stored-level", 0.243) == ""
    found = doubts(model, 8.0, "reduced", 0.5)
    assert found.count(".") == 1 and found.endswith("missed.")
    for word in (
        "for scales 1 to 4, not 8",
        "on LR that was stored-level, while this input is reduced",
        "to give 40x, while this gives 20x",
    ):
        assert word in found
    assert doubts(BICUBIC, 32.0, "reduced", 9.0) == ""
