"""What is checked, most telling first: pure, before anything runs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsisr.models import list_models
from wsisr.training.stepping import MISCOMPILED

Kind = Literal[
    "draws", "train", "agree", "speed", "resume", "evaluate", "upscale", "memory", "cards",
    "rehearse", "target",
]  # fmt: skip
FAMILIES = ("mihatp", "iste", "cwtnet", "masrnet", "masrgan")
"""Networks of the four papers; every recipe is among theirs and the baselines'."""
_AFTER: tuple[Kind, ...] = ("resume", "evaluate", "upscale")
SMALL = "srcnn"
"""The network of checks that are about no network."""
SCOUT = "masrnet"
"""A light network of a paper: every form is tried on it before any is on the others."""
SLOWEST = "mihatp"
"""Compiled it takes longer than all the other families."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a network is trained.

    Attributes
    ----------
    precision : {"fp32", "bf16", "fp16"}
    cache : {"device", "stream"}
        Where patches wait.
    """

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compiled: bool = False
    checkpointed: bool = False
    cache: Literal["device", "stream"] = "device"

    def __str__(self) -> str:
        more = ("compiled" * self.compiled, "checkpointed" * self.checkpointed)
        return " ".join(
            filter(None, (self.precision, *more, "streamed" * (self.cache != "device")))
        )

    @property
    def departures(self) -> int:
        """In how much it is not the plain form; the precision apart."""
        return self.compiled + self.checkpointed + (self.cache != "device")


@dataclass(frozen=True, kw_only=True)
class ProofCheck:
    """One thing to find out of a network, or of a target by its name."""

    kind: Kind
    model: str
    form: Form = Form()

    @property
    def key(self) -> str:
        return f"{self.kind} {self.model} {self.form}"

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "ProofCheck":
        return cls(**{**document, "form": Form(**document["form"])})


def plan_checks(
    models: Sequence[str] = (), *, gpu: bool, bfloat16: bool = True, cards: int = 1
) -> tuple[ProofCheck, ...]:
    """All checks in the order in which they tell most.

    First every network in the form that it is trained in by default, families before baselines,
    and their agreement with the CPU; then memory, shared training and every form on one light
    network, so that what a device cannot do at all is known in the first minutes; then the chain
    behind training, other precisions, and one departure from the plain form at a time, compiled
    ones, which take minutes, after the others and MiHATP's last; all combinations come at the end.

    Parameters
    ----------
    models : sequence of str
        Networks; all by default.
    gpu : bool
        Whether float16 is trained in, which needs a GPU.
    bfloat16 : bool
        Whether the device computes in it.
    cards : int
        Devices that a run can be shared out to.
    """
    known = [name for name in list_models() if name != "bicubic"]
    ordered = [*FAMILIES, *(name for name in known if name not in FAMILIES)]
    names = [name for name in ordered if not models or name in models]
    trained = [p for p in ("bf16", "fp32", "fp16") if (p != "bf16" or bfloat16)]
    if not gpu:
        trained = ["fp32", *(["bf16"] if bfloat16 else [])]
    base = Form(precision=trained[0])  # type: ignore[arg-type]
    halves = (Form(precision="bf16"),) if bfloat16 else ()
    precisions = (Form(), *halves, Form(precision="fp16"))
    ranked: list[tuple[int, ProofCheck]] = [(0, ProofCheck(kind="draws", model=SMALL))]
    for name in names:
        lead = name in FAMILIES
        ranked.append((1, ProofCheck(kind="train", model=name, form=base)))
        ranked += [
            (2 if form.precision == "fp32" else 4, ProofCheck(kind="agree", model=name, form=form))
            for form in precisions
        ]
        ranked.append((3 if lead else 6, ProofCheck(kind="speed", model=name, form=base)))
        ranked += [(3 if lead else 6, ProofCheck(kind=k, model=name, form=base)) for k in _AFTER]
        ranked.append((8, ProofCheck(kind="rehearse", model=name)))
        for form in _forms(trained):
            if form == base or (form.compiled and not gpu and name in MISCOMPILED):
                continue
            departures = form.departures + (form.precision != base.precision)
            rank = (4 if lead else 6) + departures + 10 * (departures > 1)
            if departures == 1 and name == SCOUT:
                rank = 3
            elif form.compiled:
                rank += 4 + (name == SLOWEST)
            ranked.append((rank, ProofCheck(kind="train", model=name, form=form)))
    ranked.append((3, ProofCheck(kind="memory", model=SMALL, form=base)))
    if cards > 1:
        ranked.append((3, ProofCheck(kind="cards", model=SMALL)))

    def order(pair: tuple[int, ProofCheck]) -> tuple[int, bool]:
        # Of one rank, what is about the device or the scout comes first.
        return pair[0], pair[0] == 3 and pair[1].model not in (SMALL, SCOUT)

    return tuple(check for _, check in sorted(ranked, key=order))


def _forms(precisions: Sequence[str]) -> list[Form]:
    return [
        Form(precision=p, compiled=c, checkpointed=k, cache=cache)  # type: ignore[arg-type]
        for p in precisions
        for c in (False, True)
        for k in (False, True)
        for cache in ("device", "stream")
    ]
