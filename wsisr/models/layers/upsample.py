"""From LR features to HR pixels: products of steps of 2 and 3."""

from collections.abc import Callable

from torch import nn

from wsisr.errors import ModelError
from wsisr.models.layers.blocks import conv3


def upsample_factors(scale: int) -> tuple[int, ...]:
    """Split a scale into steps of 2, then 3: 8 -> (2, 2, 2), 6 -> (2, 3).

    Raises
    ------
    ModelError
        If the scale has another prime factor.
    """
    steps: list[int] = []
    rest = scale
    for step in (2, 3):
        while rest % step == 0 and rest > 1:
            steps.append(step)
            rest //= step
    if rest != 1 or not steps:
        raise ModelError(f"scale {scale}: fixed-scale models exist for products of 2 and 3 only")
    return tuple(steps)


def pixel_shuffle_steps(
    width: int,
    scale: int,
    inputs: int | None = None,
    act: Callable[[], nn.Module] | None = None,
) -> list[nn.Module]:
    """Convolution and pixel shuffle for each step; keys 0, 2, 4 ... in a Sequential.

    `inputs` is the width in front of the first step where it is another one; `act` makes what
    follows each step.
    """
    layers: list[nn.Module] = []
    for step in upsample_factors(scale):
        layers += [conv3(inputs or width, step * step * width), nn.PixelShuffle(step)]
        layers += [] if act is None else [act()]
        inputs = width
    return layers


def deconvolution_steps(width: int, scale: int) -> list[nn.Module]:
    """Transposed convolutions whose kernel is divisible by or matched to the stride.

    Steps of 2: kernel 4, padding 1; steps of 3: kernel 5, padding 1. Both give exactly
    `step` times the input side.
    """
    return [
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        if step == 2
        else nn.ConvTranspose2d(width, width, 5, stride=3, padding=1)
        for step in upsample_factors(scale)
    ]
