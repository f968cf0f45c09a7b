"""MiHATP: HAT with a deformable global branch, trained with a contrastive second branch.

Xu, Qin, Li, Bu, Zhao. MiHATP: a multi-hybrid attention super-resolution network for
pathological image based on transformation pool contrastive learning. MICCAI 2024.

There is no public code. `paper` is the literal reading, `recommended` deviates as follows.

| what | `paper` | `recommended` | why |
|---|---|---|---|
| block's output (eq. 4) | adds LN(X) once more | does not (`residual="hat"`) | features grow by |
| | | | one sd a block, and late groups get little gradient |
| position table | side 192 / s px | 48 px at every scale | the count then hardly varies with s |

Readings in both: six groups of six blocks (the text's "six M-HAT" per branch); HAT's sizes
(180 channels, window 16, overlap 0.5, compress 3, squeeze 30) because the paper gives none;
window 12 at x8, since 16 does not divide the paper's own 24 px input; deformable attention
with strided keys (about 12 x 12 of them, stride 8 / 4 / 4 / 2 / 2 at x2 / 3 / 4 / 6 / 8),
three groups, symmetric reference points: at stride 1 one x2 sample keeps 145 GiB.

Where the text contradicts itself: "six M-HAB" could also be one block a group (7.98 M parameters
at x4 in place of 27.5 M; `blocks_per_group=1`); equation 7 has one negative where equation 2
draws K_p (their mean is taken), equation 9 sums over the training set (here: the batch). Table 3
has no row 5, one column for both pools, and percentages that are points; the curves over
temperature, beta and weight are printed as a picture alone. LR of 5x beside HR of 40x is used
without a word on registration.

The network here is the *base branch*. The contrastive branch, the similarity, the pools'
use and the ablation switches of the paper's table 3 are `wsisr.models.contrastive` (training
only); `deformable=False` is the table's "without M-HAB".
"""

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from wsisr.models.hat import HatSettings, HybridNetwork, build_groups, check_hat_shape
from wsisr.models.info import Traits
from wsisr.models.layers.blocks import STAIN_MEAN
from wsisr.models.layers.deformable import DeformableAttention
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import require
from wsisr.models.wrapper import FixedScaleModel

PAPER_HR_PX = 192
"""Side of the paper's HR patches; its LR patches have this over the scale."""


@dataclass(frozen=True, kw_only=True)
class MihatpSettings(HatSettings):
    """HAT's settings and the deformable branch's.

    Attributes
    ----------
    residual : {"paper", "hat"}
        Whether a block's output has LN(X) added (equation 4, literally).
    deformable : bool
        Whether blocks have the deformable branch at all (ablation).
    beta : float
        Weight of the deformable branch.
    offset_groups : int
        Groups of channels that share one offset network.
    key_stride_px, offset_kernel_px : int
        Stride and kernel of the offset network, LR px.
    table_px : int
        LR side that the position table is made for.
    reference_points : {"v1", "dat++"}
        Symmetric grid, or the one of the DAT++ code (for parity).
    """

    residual: Literal["paper", "hat"] = "paper"
    deformable: bool = True
    beta: float = 0.01
    offset_groups: int = 3
    key_stride_px: int = 4
    offset_kernel_px: int = 7
    table_px: int = 48
    reference_points: Literal["v1", "dat++"] = "v1"

    def __post_init__(self) -> None:
        check_hat_shape(self, "mihatp")
        require(
            self.heads % self.offset_groups == 0,
            f"mihatp: heads {self.heads} is not a multiple of offset_groups {self.offset_groups}",
        )
        require(
            self.window_px % self.key_stride_px == 0,
            f"mihatp: window_px {self.window_px} is not a multiple of "
            f"key_stride_px {self.key_stride_px}",
        )
        require(self.offset_kernel_px % 2 == 1, "mihatp: offset_kernel_px must be odd")
        require(self.table_px >= 2, "mihatp: table_px must be at least 2")


def _third_branch(s: MihatpSettings) -> nn.Module | None:
    if not s.deformable:
        return None
    return DeformableAttention(
        width=s.width,
        heads=s.heads,
        groups=s.offset_groups,
        stride_px=s.key_stride_px,
        kernel_px=s.offset_kernel_px,
        table_px=s.table_px,
        reference_points=s.reference_points,
    )


def _build(settings: MihatpSettings, scale: int) -> FixedScaleModel:
    s = settings
    blocks = build_groups(s, lambda: _third_branch(s), s.beta, s.residual == "paper")
    traits = Traits(
        multiple_of_px=s.window_px,
        halo_px=32,
        tile_px=max(s.window_px, PAPER_HR_PX // scale // s.window_px * s.window_px),
        global_context=True,
    )
    return FixedScaleModel(HybridNetwork(s, blocks, scale), traits, scale)


def _paper(scale: int) -> MihatpSettings:
    stride, kernel = (8, 9) if scale <= 2 else (4, 7) if scale <= 4 else (2, 5)
    return MihatpSettings(
        window_px=16 if scale < 8 else 12,
        key_stride_px=stride,
        offset_kernel_px=kernel,
        table_px=max(12, PAPER_HR_PX // scale),
    )


def _recommended(scale: int) -> MihatpSettings:
    return replace(_paper(scale), residual="hat", table_px=48)


def _tiny(scale: int) -> MihatpSettings:
    return MihatpSettings(
        residual="hat",
        width=48,
        groups=2,
        depth=2,
        heads=3,
        window_px=8,
        squeeze=12,
        head_width=32,
        rgb_mean=STAIN_MEAN,
        key_stride_px=4,
        offset_kernel_px=5,
        table_px=16,
        image_skip=True,
    )


SPEC = register(
    ModelSpec(
        name="mihatp",
        family="mihatp",
        summary="HAT with a deformable global branch and contrastive training",
        citation="Xu et al., MiHATP: a multi-hybrid attention SR network, MICCAI 2024",
        settings=MihatpSettings,
        presets={"paper": _paper, "recommended": _recommended, "tiny": _tiny},
        build=_build,
    )
)
