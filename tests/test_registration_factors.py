"""Which pairs two scans give, and what is said where there are none."""

import pytest

from wsisr.registration.factors import FACTORS, describe_choices, pair_choices


def best(ratio, levels, factor):
    choices = pair_choices(ratio, levels, factor)
    return None if not choices else (choices[0].lr_factor, choices[0].stored)


@pytest.mark.parametrize(
    ("ratio", "levels", "factor", "expected"),
    [
        (4.0, [1], 4, (1, True)),
        (1.0, [1, 2, 4], 4, (4, True)),
        (1.0, [1], 4, (4, False)),
        (1.0, [1, 2], 4, (4, False)),
        (1.524, [1, 2, 4], 3, (2, True)),
        (1.524, [1, 2, 4], 6, (4, True)),
        (1.524, [1], 4, (3, False)),
        (1.0, [1], 1, (1, True)),
        (1.2, [1], 1, (1, True)),
        (3.97, [1], 4, (1, True)),
        (3.95, [1], 4, None),
        (3.9, [1, 2, 4], 4, None),
        (1.3, [1, 2, 4], 2, None),
        (1.3, [1, 2, 4], 6, (5, False)),
        (0.9, [1], 1, None),
    ],
)
def test_stored_levels_come_first_and_hr_is_never_enlarged(ratio, levels, factor, expected):
    assert best(ratio, levels, factor) == expected


def test_no_choice_breaks_the_rules():
    for step in range(95, 841, 7):
        ratio = step / 100
        for factor in FACTORS:
            for choice in pair_choices(ratio, [1, 2, None, 4], factor):
                assert 0.99 <= choice.hr_reduction <= 1.25
                assert choice.lr_factor % choice.level_factor == 0
                assert choice.hr_reduction == pytest.approx(ratio * choice.lr_factor / factor)


def test_a_refusal_names_what_there_is():
    text = describe_choices(1.524, [1, 2, 4])
    assert "x3 (LR: level 1, HR reduced by 1.016)" in text
    assert "x6" in text
    assert "HR would have to be enlarged" in describe_choices(0.5, [None])
