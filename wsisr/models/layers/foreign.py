"""Small edits of foreign state dicts."""

from torch import Tensor


def drop_prefixes(state: dict[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """Without the entries whose key starts with one of the prefixes."""
    return {k: v for k, v in state.items() if not k.startswith(prefixes)}


def to_unit_range(
    state: dict[str, Tensor], mean: tuple[float, float, float], first: str, last: str
) -> dict[str, Tensor]:
    """Weights of a network for RGB in [0, 255] made equivalent for [0, 1].

    EDSR and RCAN were released so; their mean shift tells the range (``sub_mean.bias`` is minus
    the range times the mean). f(x) = F(255 x) / 255 holds exactly with the first convolution's
    weights multiplied, the last one's weights and bias divided. Mean shift layers are dropped.

    Parameters
    ----------
    first, last : str
        Prefixes of the first and the last convolution, e.g. ``"head.0"``.
    """
    shift = state.get("sub_mean.bias")
    state = drop_prefixes(state, "sub_mean.", "add_mean.")
    if shift is None:
        return state
    span = float(-shift.double().sum() / sum(mean))
    scaled = dict(state)
    scaled[f"{first}.weight"] = state[f"{first}.weight"] * span
    for part in ("weight", "bias"):
        scaled[f"{last}.{part}"] = state[f"{last}.{part}"] / span
    return scaled


def drop_suffixes(state: dict[str, Tensor], *suffixes: str) -> dict[str, Tensor]:
    """Without the entries whose key ends with one of the suffixes."""
    return {k: v for k, v in state.items() if not k.endswith(suffixes)}
