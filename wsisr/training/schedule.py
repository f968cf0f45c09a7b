"""The learning rate as a pure function of the step."""

from math import cos, pi

from wsisr.training.config import OptimSection


def rate_at(optim: OptimSection, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`.

    >>> halved = OptimSection(lr=1.0, schedule="multistep", milestones=(0.5, 0.8))
    >>> [rate_at(halved, step, 10) for step in (0, 4, 5, 8)]
    [1.0, 1.0, 0.5, 0.25]
    """
    rate = optim.lr
    if optim.schedule == "multistep":
        rate *= optim.gamma ** sum(step >= part * steps for part in optim.milestones)
    elif optim.schedule == "every":
        rate *= optim.gamma ** (step // optim.every_steps)
    elif optim.schedule == "cosine":
        share = step / max(1, steps - 1)
        rate *= optim.floor + (1 - optim.floor) * 0.5 * (1 + cos(pi * min(1.0, share)))
    if step < optim.warmup_steps:
        rate *= (step + 1) / optim.warmup_steps
    return rate
