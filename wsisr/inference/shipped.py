"""The networks that ship with wsisr: names to folders, and what each is good for.

Each is a saved model with a card (``README.md``); ``config.json`` says in ``extra["serves"]``
which inputs it was made for. Here is what can be decided without opening a slide.
"""

from dataclasses import dataclass
from functools import cache

from wsisr.inference.trained import TrainedModel, open_saved, shipped_folders

AUTO = "auto"
"""What a user writes to have one chosen."""


@dataclass(frozen=True, kw_only=True)
class Serves:
    """What a shipped network was made for.

    Attributes
    ----------
    input_um_per_px : (float, float)
        Finest and coarsest input.
    output_um_per_px : float
        Finest output.
    least_scale : float
        Below it the network was not scored.
    """

    input_um_per_px: tuple[float, float]
    output_um_per_px: float
    stain: str
    least_scale: float = 1.0

    def refusal(self, um_per_px: float, scale: float) -> str:
        """Why an input is outside of it; empty: it is inside."""
        low, high = self.input_um_per_px
        if not low <= um_per_px <= high:
            return f"it was trained for inputs of {low:g} to {high:g} um/px"
        if um_per_px / scale < self.output_um_per_px:
            return f"it was trained for outputs of {self.output_um_per_px:g} um/px and coarser"
        if scale < self.least_scale:
            return f"below x{self.least_scale:g} it was not scored"
        return ""


@cache
def shipped() -> dict[str, TrainedModel]:
    """Every network that ships, by its name."""
    return {name: open_saved(folder) for name, folder in shipped_folders().items()}


def serves(model: TrainedModel) -> Serves:
    """What a shipped network was made for."""
    found = model.document["serves"]
    low, high = found["input_um_per_px"]
    return Serves(
        input_um_per_px=(float(low), float(high)),
        output_um_per_px=float(found["output_um_per_px"]),
        stain=str(found["stain"]),
        least_scale=float(found.get("least_scale", 1.0)),
    )


def choose(um_per_px: float, scale: float | None) -> tuple[TrainedModel | None, float, str]:
    """A shipped network for an input.

    Parameters
    ----------
    um_per_px : float
        Of the input.
    scale : float or None
        Output px per input px that is asked for; None: x4 or x2 by the resolution.

    Returns
    -------
    (TrainedModel or None, float, str)
        The network, the one of a single scale before that of any; the scale; why there is none.
    """
    models = sorted(shipped().values(), key=lambda model: model.scale is None)
    finest = min(serves(model).output_um_per_px for model in models)
    if scale is None:
        # The largest whose output is not too fine.
        scale = next((s for s in (4.0, 2.0) if um_per_px / s >= finest), 2.0)
    reasons = []
    for model in models:
        if not model.serves(scale) or not model.in_range(scale):
            reasons.append(f"{model.name} is of {model.reach}")
            continue
        reason = serves(model).refusal(um_per_px, scale)
        if not reason:
            return model, scale, ""
        reasons.append(f"{model.name}: {reason}")
    return None, scale, "; ".join(reasons)
