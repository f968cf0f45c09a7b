"""What a degradation is made of: one class for each stage, with its parameters and what it does.

A quantity that may vary from sample to sample is an `Amount`: one number, or ``[low, high]``
for a uniform draw. Lengths say their unit: ``px`` is a pixel of the image that the stage sees
(HR before sampling, LR after it).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from inspect import getdoc, isabstract
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from wsisr.degradation.draws import Draws
from wsisr.errors import DegradationError
from wsisr.plugins import Registry

Amount = float | tuple[float, float]
Triple = tuple[float, float, float]
SAMPLING_RANK = 30


def within(low: float, high: float) -> Callable[[Amount], Amount]:
    """A pydantic check that an amount lies in a range."""

    def check(value: Amount) -> Amount:
        ends = value if isinstance(value, tuple) else (value, value)
        if not low <= ends[0] <= ends[1] <= high:
            raise ValueError(f"must lie in {low:g}..{high:g}, a range as low..high")
        return value

    return check


def amount_field(low: float, high: float, text: str, default: Amount) -> Any:
    """A field whose description ends in its range."""
    return Field(default=default, description=f"{text} ({low:g}..{high:g})")


Sigma = Annotated[Amount, AfterValidator(within(0.0, 50.0))]
Quality = Annotated[Amount, AfterValidator(within(1.0, 100.0))]
Fraction = Annotated[Amount, AfterValidator(within(0.0, 1.0))]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage must know beside its own parameters.

    Attributes
    ----------
    size : (int, int)
        LR height and width in px.
    scale : float
        Nominal reduction factor (formulas such as (s - 1) / 2 use it, not the ratio of sizes).
    draws : Draws
        Random numbers of this stage: the only ones that it may use.
    """

    size: tuple[int, int]
    scale: float
    draws: Draws

    def amount(self, value: Amount, name: str) -> Tensor:
        """A parameter as a float32 tensor of shape (1,), or (B,) where it is a range."""
        if isinstance(value, tuple):
            return self.draws.uniform(name, value[0], value[1])
        return torch.full((1,), value, dtype=torch.float32, device=self.draws.slots.device)


def highest(value: Amount) -> float:
    """Upper end of an amount."""
    return value[1] if isinstance(value, tuple) else value


class Stage(BaseModel):
    """One step of a degradation: its parameters are its fields, `apply` is what it does.

    Class attributes
    ----------------
    rank
        Place in the physical order; compositions are sorted by it. Below 30 a stage sees HR,
        above it LR; 30 is the stage that samples.
    samples
        Whether the stage reduces HR to LR; a degradation has exactly one that does.
    presets
        Named sets of parameters, e.g. ``realesrgan2:mild``.
    always_random
        Whether numbers are drawn whatever the parameters are.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, allow_inf_nan=False, ser_json_inf_nan="null"
    )

    rank: ClassVar[int] = SAMPLING_RANK
    samples: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    always_random: ClassVar[bool] = False

    kind: str = ""
    version: Literal[1] = 1

    def apply(self, x: Tensor, context: Context) -> Tensor:
        """Degrade a batch.

        Parameters
        ----------
        x : Tensor, float32, shape (B, 3, H, W)
            Grey levels, nominally 0..255.

        Returns
        -------
        Tensor, float32
            (B, 3, *context.size) where the stage samples, else the shape of `x`.
        """
        raise NotImplementedError

    @property
    def random(self) -> bool:
        """Whether two samples of one image may differ: always, or where any amount is a range.

        A stage that draws on other conditions overrides it; one that draws and denies it is
        refused.
        """
        drawn = any(isinstance(value, tuple) and len(value) == 2 for _, value in self)
        return self.always_random or drawn


S = TypeVar("S", bound=type[Stage])
STAGES: Registry[type[Stage]] = Registry("degradation", "wsisr.degradations", DegradationError)
"""Every stage by its kind."""


def register_degradation(stage: S) -> S:
    """Make a stage known by its kind (a class decorator); a kind may be taken once.

    Raises
    ------
    DegradationError
        The class does not say what a stage has to say, or its kind is taken.
    """
    given: type[Stage] = stage
    name, kind = given.__name__, given.model_fields["kind"].default
    if not isinstance(kind, str) or not kind or set(kind) & set(":+,=/ \\") or ".json" in kind:
        raise DegradationError(
            f'{name}: its kind is {kind!r}; write kind: Literal["mine"] = "mine", without any of '
            ":+,=/ and blanks"
        )
    if stage.apply is Stage.apply or isabstract(stage):
        raise DegradationError(f"{name}: it has no apply(self, x, context), so it does nothing")
    if stage.samples != (stage.rank == SAMPLING_RANK):
        raise DegradationError(
            f"{name}: samples is {stage.samples} and rank {stage.rank}; rank {SAMPLING_RANK} is "
            "that of stages that sample, and of no others (below it: on HR; above: on LR)"
        )
    if not (getdoc(stage) or "").strip() or getdoc(stage) == getdoc(Stage):
        raise DegradationError(f"{name}: its docstring is what `wsisr degrade list` prints; add it")
    STAGES.add(kind, stage)
    return stage


def run_stages(stages: Iterable[Stage], x: Tensor, context: Context) -> Tensor:
    """Send a batch (B, 3, H, W) of float32 grey levels through stages in physical order, each with
    random numbers of its own; one of them samples: (B, 3, *context.size).

    Raises
    ------
    DegradationError
        A stage draws though it denies it, or gives anything but an image of its size.
    """
    for stage in stages:
        here = context.draws.within(stage.kind)
        if not stage.random:
            here = here.refused(f"{stage.kind} draws random numbers, and its `random` denies it")
        made = stage.apply(x, replace(context, draws=here))
        _check(stage, made, (*x.shape[:2], *(context.size if stage.samples else x.shape[2:])))
        x = made
    return x


def _check(stage: Stage, made: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless a stage keeps its word; its values only where it is not built in (it waits)."""
    if tuple(made.shape) != shape or not made.is_floating_point():
        raise DegradationError(
            f"{stage.kind}: apply gave {made.dtype} of shape {tuple(made.shape)}; it has to give "
            f"floats of shape {shape}."
        )
    if STAGES.origin(stage.kind) is not None and not made.isfinite().all():
        raise DegradationError(f"{stage.kind}: apply gave values that are no numbers.")
