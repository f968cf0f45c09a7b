"""Small edits of state dicts, and what their shapes say."""

import re
from collections.abc import Mapping

from torch import Tensor

from wsisr.errors import ModelError

State = dict[str, Tensor]


def rename(state: Mapping[str, Tensor], *rules: tuple[str, str]) -> State:
    """Names rewritten by (pattern, replacement), each rule on the result of the one before."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def drop(state: State, *patterns: str) -> tuple[State, tuple[str, ...]]:
    """Without the entries whose name a pattern matches from its start; and their names."""
    gone = tuple(k for k in state if any(re.match(p, k) for p in patterns))
    return {k: v for k, v in state.items() if k not in gone}, gone


def fold_range(state: State, span: float, first: str, last: str) -> State:
    """Weights of a network for RGB in [0, span] made equivalent for [0, 1].

    f(x) = F(span x) / span holds exactly with the first convolution's weights multiplied, the last
    one's weights and bias divided.

    Parameters
    ----------
    first, last : str
        Prefixes of the first and the last convolution, e.g. ``"head.0"``.
    """
    factors = {f"{first}.weight": span, f"{last}.weight": 1 / span, f"{last}.bias": 1 / span}
    return {key: value * factors[key] if key in factors else value for key, value in state.items()}


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Highest number that the pattern's group takes among the names, plus one; 0: none matches.

    >>> count({"body.0.conv": 0, "body.1.conv": 0}, r"body\\.(\\d+)\\.conv")
    2
    """
    found = [int(m.group(1)) for key in state if (m := re.match(pattern, key))]
    return max(found, default=-1) + 1


def shape(state: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    """Shape of a tensor that has to be there with so many axes.

    Raises
    ------
    ModelError
        It is missing or has another number of axes.
    """
    if name not in state or state[name].ndim != axes:
        found = "is missing" if name not in state else f"has shape {tuple(state[name].shape)}"
        raise ModelError(f"tensor {name} {found}")
    return tuple(state[name].shape)


def rgb_width(state: Mapping[str, Tensor], first: str) -> int:
    """Width of a network whose first convolution takes RGB; `ModelError` if it does not."""
    width, inputs = shape(state, f"{first}.weight", 4)[:2]
    if inputs != 3:
        raise ModelError(f"it takes {inputs} channels; networks from RGB to RGB are needed")
    return width


def shuffle_scale(state: Mapping[str, Tensor], prefix: str, left: int) -> int:
    """Magnification of the convolutions ``prefix0``, ``prefix2``, ... before pixel shuffles.

    Parameters
    ----------
    left : int
        Channels that the last step leaves.
    """
    names = [
        f"{prefix}{i}.weight" for i in range(0, count(state, f"{re.escape(prefix)}(\\d+)."), 2)
    ]
    scale = 1
    for i, name in enumerate(names):
        rows = shape(state, name, 4)[0]
        out = shape(state, names[i + 1], 4)[1] if i + 1 < len(names) else left
        factor = next((f for f in (2, 3) if rows == f * f * out), None)
        if factor is None:
            raise ModelError(
                f"tensor {name} of {rows} rows is no step of x2 or x3 to {out} channels"
            )
        scale *= factor
    if scale == 1:
        raise ModelError("it has no upsampler; networks that enlarge are needed")
    return scale
