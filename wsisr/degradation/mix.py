"""One of several degradations, drawn for each sample: for networks that must bear them all."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_serializer, field_validator
from torch import Tensor

from wsisr.degradation.stage import Context, Stage, register_degradation, run_stages
from wsisr.resize import to_grey

SEPARATOR = "|"


@register_degradation
class Mix(Stage):
    """One of several degradations a sample, with equal odds: written ``bicubic | area``.

    A degradation that is named twice has twice the odds. Each option's draws are its own.
    """

    samples: ClassVar[bool] = True
    always_random: ClassVar[bool] = True
    kind: Literal["mix"] = "mix"
    options: tuple[Any, ...] = Field(min_length=2, description="the degradations to draw from")

    @field_validator("options", mode="before")
    @classmethod
    def _parsed(cls, options: Any) -> Any:
        from wsisr.degradation.spec import parse_degradation

        if not isinstance(options, Sequence) or isinstance(options, str):
            raise ValueError(f"give the degradations as a list or joined by {SEPARATOR!r}")
        parsed = tuple(parse_degradation(option) for option in options)
        if any(stage.kind == "mix" for option in parsed for stage in option.stages):
            raise ValueError("a mix within a mix; name all its degradations in one")
        return parsed

    @field_serializer("options")
    def _records(self, options: tuple[Any, ...]) -> list[dict[str, Any]]:
        return [option.record() for option in options]

    def apply(self, x: Tensor, context: Context) -> Tensor:
        draws = context.draws
        chosen = (draws.uniform("option") * len(self.options)).long()
        made = x.new_empty((*x.shape[:2], *context.size))
        for number, option in enumerate(self.options):
            rows = torch.nonzero(chosen == number)[:, 0]
            if len(rows):
                own = replace(draws, slots=draws.slots[rows], ready={}).within(str(number))
                small = run_stages(option.stages, x[rows], replace(context, draws=own))
                made[rows] = to_grey(small).to(made.dtype)
        return made
