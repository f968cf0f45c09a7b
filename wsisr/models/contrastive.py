"""MiHATP's contrastive training: second branch, pools, loss (its equations 1 to 9).

For training only: nothing here is saved with a model or exported.

The loss pulls the super-resolved image towards what a second branch makes of the transformed
input (transformed back), and pushes it from degraded versions of HR, in image space and at each
level of a feature network. Positives and negatives are detached unless
`backprop_positive`; the branches can then be back-propagated one after the other, in half the
memory and with the same gradients (`contrastive_step`).

Readings: eq. 7 is averaged over the K_p draws; means over the batch where eq. 9 sums over the
training set; the denominator holds one positive and all negatives. PCL-SR's released code lets
no gradient of this term reach the network; ours does, and a test holds it.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.degradation.draws import Draws
from wsisr.degradation.pools import draw_symmetries, negatives
from wsisr.device import full_precision, wide
from wsisr.errors import ModelError
from wsisr.models.registry import build_from_settings, model_spec
from wsisr.models.settings import require
from wsisr.models.wrapper import SRModel

Similarity = Literal["flat", "centred", "per_pixel"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """How MiHATP is trained.

    Attributes
    ----------
    con : {"separate", "shared", "ema"}
        Weights of the contrastive branch: its own (paper), the base branch's, or their
        exponential moving average.
    ema_decay : float
        Of `con="ema"`, for each step.
    weight : float
        Lambda, the weight of the contrastive term.
    temperature : float
        Tau.
    positives, negatives : int
        K_p and K_n (silent in the paper).
    lr_negative : bool
        Add the enlarged LR as one more negative.
    sim : {"flat", "centred", "per_pixel"}
        Cosine of whole maps (literal; nearly inert on histology), of maps minus their mean, or
        mean over pixels of the cosine across channels.
    backprop_positive : bool
        Let the contrastive term's gradient into the second branch.
    image_space : bool
        Level 0 of the loss; False: the paper's "without IS".
    irreversible : bool
        False: negative similarities are set to 1 ("without ITP").
    reversible : bool
        False: positive similarities are set to 1 ("without RTP").
    """

    con: Literal["separate", "shared", "ema"] = "separate"
    ema_decay: float = 0.999
    weight: float = 0.01
    temperature: float = 0.05
    positives: int = 1
    negatives: int = 4
    lr_negative: bool = True
    sim: Similarity = "flat"
    backprop_positive: bool = False
    image_space: bool = True
    irreversible: bool = True
    reversible: bool = True

    def __post_init__(self) -> None:
        require(self.temperature > 0, "contrastive: temperature must be positive")
        require(1 <= self.positives <= 7, "contrastive: positives must be from 1 to 7")
        require(
            self.negatives + self.lr_negative >= 1, "contrastive: at least one negative is needed"
        )
        require(0 <= self.ema_decay < 1, "contrastive: ema_decay must be in [0, 1)")
        require(
            not (self.backprop_positive and self.con == "ema"),
            "contrastive: backprop_positive has no meaning with con='ema'",
        )


class ContrastiveBranch(nn.Module):
    """F_con: the second network, or a view of the first."""

    def __init__(self, base: SRModel, settings: ContrastiveSettings) -> None:
        super().__init__()
        self.settings = settings
        self.own: SRModel | None = None
        if settings.con == "separate":
            self.own = build_from_settings(
                model_spec(base.info.name), base.settings, base.info.scale, base.info.preset
            )
        elif settings.con == "ema":
            self.own = deepcopy(base).requires_grad_(False)

    @property
    def trained(self) -> bool:
        """Whether the branch has its own L1 loss."""
        return self.settings.con != "ema"

    def network(self, base: SRModel) -> SRModel:
        """The network that makes positives."""
        return base if self.own is None else self.own

    @torch.no_grad()
    def follow(self, base: SRModel) -> None:
        """After each optimiser step: move the moving average (nothing for other branches)."""
        if self.settings.con == "ema" and self.own is not None:
            for ours, theirs in zip(self.own.parameters(), base.parameters(), strict=True):
                ours.lerp_(theirs, 1 - self.settings.ema_decay)


def similarities(anchor: Tensor, others: Tensor, kind: Similarity) -> Tensor:
    """Sim(r, x) of eq. 9: (N, C, h, w), (K, N, C, h, w) -> (K, N), in at least float32."""
    a, b = wide(anchor).flatten(2), wide(others).flatten(3)
    if kind == "per_pixel":
        return F.cosine_similarity(a[None], b, dim=2).mean(dim=-1)
    a, b = a.flatten(1), b.flatten(2)
    if kind == "centred":
        a = a - a.mean(dim=-1, keepdim=True)
        b = b - b.mean(dim=-1, keepdim=True)
    return F.cosine_similarity(a[None], b, dim=-1)


def level_loss(positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Eq. 9 for one level from similarities (K_p, N) and (K_n, N), as a cross-entropy.

    ``-log(exp(p / tau) / (exp(p / tau) + sum exp(n / tau)))`` by log-sum-exp: similarities over
    temperatures reach 20, whose exponential overflows half precision.
    """
    against = (negative / temperature).logsumexp(dim=0)
    wanted = positive / temperature
    return (torch.logaddexp(wanted, against[None].expand_as(wanted)) - wanted).mean()


Features = Callable[[Tensor], list[Tensor]]


def contrastive_loss(
    sr: Tensor,
    positives: Tensor,
    negatives_: Tensor,
    features: Features | None,
    settings: ContrastiveSettings,
) -> Tensor:
    """Eq. 8: mean over image space and the levels of a feature network.

    Parameters
    ----------
    sr : Tensor
        (N, 3, H, W), the anchor, with gradient.
    positives, negatives_ : Tensor
        (K_p, N, 3, H, W) and (K_n, N, 3, H, W).
    features : callable or None
        RGB -> maps, such as `FeatureNet`; None: image space alone.
    """
    with full_precision(sr):
        images = [wide(sr), wide(positives), wide(negatives_)]
        if not settings.backprop_positive:
            images[1] = images[1].detach()
        images[2] = images[2].detach()
        levels: list[tuple[Tensor, Tensor, Tensor]] = []
        if settings.image_space:
            levels.append((images[0], images[1], images[2]))
        if features is not None:
            anchor = features(images[0])
            others = [_levels_of(features, stack) for stack in images[1:]]
            levels += list(zip(anchor, others[0], others[1], strict=True))
        if not levels:
            raise ModelError(
                "contrastive loss: no level is left; give a feature network or keep image_space"
            )
        losses = []
        for r, p, n in levels:
            positive = similarities(r, p, settings.sim)
            negative = similarities(r, n, settings.sim)
            if not settings.reversible:
                positive = torch.ones_like(positive)
            if not settings.irreversible:
                negative = torch.ones_like(negative)
            losses.append(level_loss(positive, negative, settings.temperature))
        return torch.stack(losses).mean()


def _levels_of(features: Features, stack: Tensor) -> list[Tensor]:
    maps = features(stack.flatten(0, 1))
    return [m.view(*stack.shape[:2], *m.shape[1:]) for m in maps]


def contrastive_step(
    base: SRModel,
    branch: ContrastiveBranch,
    pair: tuple[Tensor, Tensor],
    draws: Draws,
    features: Features | None,
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> dict[str, Tensor]:
    """Forward and backward of eq. 5; gradients are accumulated, the optimiser is the caller's.

    Returns the detached terms: L1 of both branches (``base``; ``con``, 0 where that is untrained)
    and ``contrastive``.

    With detached positives the second branch is finished (and its activations freed) before the
    base branch starts. LR and HR of the `pair` must be centre-aligned (see
    `wsisr.degradation.pools`).
    """
    (lr, hr), settings = pair, branch.settings
    symmetries = draw_symmetries(draws, settings.positives)
    network = branch.network(base)
    joint = settings.backprop_positive
    positives, con_losses = [], []
    for symmetry in symmetries:
        with torch.set_grad_enabled(branch.trained):
            made = network(symmetry.apply(lr))
            con = F.l1_loss(made, symmetry.apply(hr)) / len(symmetries)
        if branch.trained and not joint:
            backward(con)
            con, made = con.detach(), made.detach()
        positives.append(symmetry.invert(made))
        con_losses.append(con)
    con_loss = torch.stack(con_losses).sum()
    worse = negatives(
        hr,
        draws,
        scale=int(base.info.scale or 1),
        count=settings.negatives,
        lr=lr if settings.lr_negative else None,
    )
    sr = base(lr)
    base_loss = F.l1_loss(sr, hr)
    term = contrastive_loss(sr, torch.stack(positives), worse, features, settings)
    total = base_loss + settings.weight * term
    if branch.trained and joint:
        total = total + con_loss
    backward(total)
    counted = con_loss.detach() if branch.trained else torch.zeros_like(con_loss)
    return {"base": base_loss.detach(), "con": counted, "contrastive": term.detach()}
