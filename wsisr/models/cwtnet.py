"""CWT-Net: super-resolution guided by wavelets of the next finer level.

Jia, Chen, Song, Liu, Jia. CWT-Net: super-resolution of histopathology images using a
cross-scale wavelet-based transformer. arXiv 2409.07092, 2024.

There is no public code. `recommended` and `paper` share these readings:

| point | reading |
|---|---|
| reference I' | twice the LR size, at every scale ("one level above the input") |
| wavelet | Haar HH of each RGB channel (eq. 4); `wt_bands="all"` takes four bands |
| transformer | 3x3 patches, hard and soft attention, equation 9 alone (equation 2 would add Q |
| | once more in each of 12 blocks) |
| K and V | K = f_hwt, V = f_hwt enlarged and reduced, as the text says; `kv="ttsr"` swaps them |
| residual groups | two blocks of EDSR's kind in the SR branch |
| mean | restored after upsampling (the text restores it on 64 channels, which cannot be) |
| wavelet reconstruction (WR) | RCAN-like, LR to a pseudo I' of twice its size, then the same |
| | transform; trained jointly: supervised by DWT(I') and feeding the branch in half the steps |

Rows of the paper's ablations: `branches="sr"` (II.1) is the SR branch alone, its loss alone;
`wt_input="image"` (II.2) gives the WT branch the reference itself, its head a convolution of
stride 2 and its target the reference reduced by 2, so that sizes and parameters stay; `wr=False`
(II.2, II.3) has no reconstruction: without a reference, LR enlarged by 2 takes its place. The
paper's x2 table prints the full model above the SR branch alone, but the SR branch alone above
all rows without WR; a rerun that finds so is right.

Its other tables: table III's "I'_GT" (39.333) would be I_GT (44.035) at x2 by the text, so it is
read as testing by WR; its "I_GT enlarged and reduced", taken in that order, stays within 51 dB of
I_GT and cannot lose 5 dB: reduced first, then enlarged (``eval --reference oracle-updown``). IV.4
keeps the unsupervised WT branch (38.895) where II.1 has none (39.161). Twelve blocks stand at
39.278 in table V (500 "batches") and at 39.333 elsewhere (1000); its time has no unit. Equation
13 divides the L1 by N^2 H W: read as the mean. The domain of the metrics (RGB or Y, border) is
not stated.

Depth grows with the scale: `depth_rule="log2"` (`recommended`: 2 / 3 / 4 blocks and 4 / 6 / 8 WR
blocks at x2 / x4 / x8) or `linear` (`paper`: literally one block for each unit of scale).

**Leak.** At x2 the paper's quantitative runs feed the HR image itself as reference. Here
``model(lr)`` uses WR and nothing that comes from HR; a reference must be given explicitly, and
results made with one are not super-resolution of the LR image. It is refused at scales that
are no power of two, where no scanner level has twice the LR size.
"""

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.errors import ModelError
from wsisr.models.info import Traits
from wsisr.models.layers.blocks import (
    Chain,
    ResidualBlock,
    ResidualChannelAttentionBlock,
    RgbMean,
    conv3,
    pixel_shuffle_steps,
    run,
)
from wsisr.models.layers.resample import apply_matrices, blur_matrices, enlarge
from wsisr.models.layers.retrieval import transfer_texture
from wsisr.models.layers.wavelet import haar, haar_diagonal
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, later, require
from wsisr.models.wrapper import SRModel, check_batch

MLCAMSR_MEAN = (0.7204, 0.4298, 0.6379)
"""Mean RGB of the paper's training set."""


@dataclass(frozen=True, kw_only=True)
class CwtnetSettings:
    """Shape, readings and training mode.

    Attributes
    ----------
    width : int
        Channels everywhere.
    blocks : int
        Cross-scale blocks (CWTB).
    sr_depth : int
        Residual blocks of the SR branch in each.
    depth_rule : {"log2", "linear"}
        How the WT branch and WR deepen with the scale.
    wt_bands : {"hh", "all"}
        Diagonal band alone, or all four.
    kv : {"text", "ttsr"}
        Which of the two feature maps is key and which value.
    wr_training : {"joint", "test_only", "always"}
        WR trained beside the reference path; not at all (the paper's warning case); or always
        feeding the branch.
    wr_reduction : int
        Channel reduction of WR's gates.
    wr_init : {"kaiming", "normal"}
        Start of WR's convolutions; `normal` is the paper's N(0, 1), which explodes.
    rgb_mean : tuple of float
        Subtracted before and added after.
    branches : {"both", "sr"}
        Both, or the SR branch alone: no WT branch, no transformer, no WR.
    wt_input : {"wavelet", "image"}
        What the WT branch sees of the reference.
    wr : bool
        Whether WR exists; without it LR is enlarged by bicubic interpolation.
    """

    width: int = 64
    blocks: int = 12
    sr_depth: int = 2
    depth_rule: Literal["log2", "linear"] = "log2"
    wt_bands: Literal["hh", "all"] = "hh"
    kv: Literal["text", "ttsr"] = "text"
    wr_training: Literal["joint", "test_only", "always"] = "joint"
    wr_reduction: int = 8
    wr_init: Literal["kaiming", "normal"] = "kaiming"
    rgb_mean: tuple[float, float, float] = MLCAMSR_MEAN
    branches: Literal["both", "sr"] = later("both")
    wt_input: Literal["wavelet", "image"] = later("wavelet")
    wr: bool = later(True)

    def __post_init__(self) -> None:
        at_least_one(self, "cwtnet", "width", "blocks", "sr_depth", "wr_reduction")
        require(
            self.wt_input == "wavelet" or self.wt_bands == "hh",
            "cwtnet: wt_input='image' has no bands; leave wt_bands at 'hh'",
        )


class CwtOutputs(NamedTuple):
    """What the losses of CWT-Net compare.

    Attributes
    ----------
    sr : Tensor
        (N, 3, s h, s w), against HR.
    wt : Tensor or None
        (N, bands, h, w), the WT branch's output, against `target`.
    wr : Tensor or None
        (N, bands, h, w), transform of WR's pseudo reference, against `target`; None where WR is
        not trained.
    target : Tensor or None
        Transform of the reference (mean removed); None where there is no WT branch.
    """

    sr: Tensor
    wt: Tensor | None
    wr: Tensor | None
    target: Tensor | None


def wt_depth(scale: int, rule: Literal["log2", "linear"]) -> int:
    """Residual blocks of the WT branch in each CWTB; WR has twice as many.

    >>> [wt_depth(s, "log2") for s in (2, 3, 4, 6, 8)], [wt_depth(s, "linear") for s in (2, 4, 8)]
    ([2, 3, 3, 4, 4], [2, 4, 8])
    """
    return scale if rule == "linear" else 1 + ceil(log2(scale))


class WaveletReconstruction(nn.Module):
    """LR to a pseudo reference of twice its size (WR)."""

    def __init__(self, s: CwtnetSettings, depth: int) -> None:
        super().__init__()
        self.head = conv3(3, s.width)
        self.body = Chain(
            *(ResidualChannelAttentionBlock(s.width, s.wr_reduction) for _ in range(depth))
        )
        self.tail = nn.Sequential(*pixel_shuffle_steps(s.width, 2), conv3(s.width, 3))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if s.wr_init == "normal":
                    nn.init.normal_(module.weight)
                else:
                    nn.init.kaiming_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.head(rgb)
        return self.tail(x + self.body(x))


class CrossScaleBlock(nn.Module):
    """Residual groups of both branches, then texture transfer into the SR branch (CWTB)."""

    def __init__(self, s: CwtnetSettings, depth: int) -> None:
        super().__init__()
        self.swap = s.kv == "ttsr"
        self.sr = nn.Sequential(*(ResidualBlock(s.width) for _ in range(s.sr_depth)))
        self.wt = nn.Sequential(*(ResidualBlock(s.width) for _ in range(depth)))
        self.fusion = conv3(2 * s.width, s.width)

    def forward(self, sr: Tensor, wt: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Both maps in, both out, stacked on a new first axis (one tensor for recomputation)."""
        q, sharp = self.sr(sr), self.wt(wt)
        blurred = apply_matrices(sharp, rows, cols)
        k, v = (blurred, sharp) if self.swap else (sharp, blurred)
        texture, confidence = transfer_texture(q, k, v)
        fused = self.fusion(torch.cat((q, texture), dim=1))
        return torch.stack((q + fused * confidence.to(fused.dtype), sharp))


class CwtNet(nn.Module):
    """Both branches on tensors whose mean is already handled by `Cwt`."""

    checkpointing = False

    def __init__(self, s: CwtnetSettings, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.settings = s
        bands = 12 if s.wt_bands == "all" else 3
        depth = wt_depth(scale, s.depth_rule)
        self.rgb = RgbMean(s.rgb_mean)
        self.sr_head = conv3(3, s.width)
        self.wt_head = nn.Conv2d(bands, s.width, 3, 2 if s.wt_input == "image" else 1, padding=1)
        self.blocks = nn.ModuleList(CrossScaleBlock(s, depth) for _ in range(s.blocks))
        self.sr_tail = nn.Sequential(*pixel_shuffle_steps(s.width, scale), conv3(s.width, 3))
        self.wt_tail = conv3(s.width, bands)
        self.wr = WaveletReconstruction(s, 2 * depth) if s.wr else None

    def finer(self, rgb: Tensor) -> Tensor:
        """An image of twice the LR size from LR alone (mean removed on both)."""
        return enlarge(rgb, 2) if self.wr is None else self.wr(rgb)

    def transform(self, rgb: Tensor) -> Tensor:
        """What the WT branch is to return for an image of twice the LR size (mean removed)."""
        if self.settings.wt_input == "image":
            return F.avg_pool2d(rgb, 2)
        return haar(rgb) if self.settings.wt_bands == "all" else haar_diagonal(rgb)

    def forward(self, lr: Tensor, finer: Tensor) -> tuple[Tensor, Tensor]:
        """LR and an image of twice its size, both without mean -> SR without mean, WT output."""
        seen = finer if self.settings.wt_input == "image" else self.transform(finer)
        shallow = self.sr_head(lr)
        sr, wt = shallow, self.wt_head(seen)
        rows, cols = blur_matrices((lr.shape[-2], lr.shape[-1]), self.scale, lr)
        for block in self.blocks:
            sr, wt = run(block, self.checkpointing, sr, wt, rows, cols).unbind(0)
        return self.sr_tail(shallow + sr), self.wt_tail(wt)


class SrBranch(nn.Module):
    """The SR branch alone, on tensors whose mean is already handled."""

    def __init__(self, s: CwtnetSettings, scale: int) -> None:
        super().__init__()
        self.rgb = RgbMean(s.rgb_mean)
        self.sr_head = conv3(3, s.width)
        self.blocks = Chain(*(ResidualBlock(s.width) for _ in range(s.blocks * s.sr_depth)))
        self.sr_tail = nn.Sequential(*pixel_shuffle_steps(s.width, scale), conv3(s.width, 3))

    def forward(self, lr: Tensor) -> Tensor:
        shallow = self.sr_head(lr)
        return self.sr_tail(shallow + self.blocks(shallow))


class Cwt(SRModel):
    """``model(lr)`` without, ``model(lr, reference=...)`` with a finer image of the field."""

    net: CwtNet | SrBranch

    def __init__(
        self, net: CwtNet | SrBranch, traits: Traits, scale: int, wr_training: str
    ) -> None:
        super().__init__(net, traits)
        self.scale = scale
        self.wr_training = wr_training
        if wr_training == "test_only" and isinstance(net, CwtNet) and net.wr is not None:
            net.wr.requires_grad_(False)

    def forward(self, lr: Tensor, reference: Tensor | None = None) -> Tensor:
        """Super-resolve (N, 3, h, w) in [0, 1] -> (N, 3, s h, s w).

        Parameters
        ----------
        lr : Tensor
            The input.
        reference : Tensor, optional
            (N, 3, 2h, 2w) of the same field at twice the resolution. Without it the wavelets
            are reconstructed from `lr`, and nothing else enters.
        """
        check_batch(lr, "cwtnet")
        net = self.net
        rgb = net.rgb.remove(lr)
        if reference is not None:
            if self.scale & (self.scale - 1):
                raise ModelError(
                    f"cwtnet x{self.scale}: no level has twice the LR size at this scale; "
                    "leave the reference out"
                )
            self._check(lr, reference)
        if isinstance(net, SrBranch):
            if reference is not None:
                raise ModelError("cwtnet with branches='sr' has no use for a reference")
            return net.rgb.restore(net(rgb))
        sr, _ = net(rgb, net.finer(rgb) if reference is None else net.rgb.remove(reference))
        return net.rgb.restore(sr)

    def training_step_outputs(
        self, lr: Tensor, reference: Tensor | None, feed_wr: bool
    ) -> CwtOutputs:
        """All outputs that the losses compare.

        Parameters
        ----------
        lr : Tensor
            (N, 3, h, w).
        reference : Tensor or None
            (N, 3, 2h, 2w): a level of the slide, or HR reduced to that size; None: LR enlarged
            by 2. The SR branch alone needs none.
        feed_wr : bool
            Feed the branch from WR in this step (`joint`: draw it with probability 1/2, so that
            training sees what testing sees). `always` feeds it whatever this says, `test_only`
            never.
        """
        check_batch(lr, "cwtnet")
        net = self.net
        rgb = net.rgb.remove(lr)
        if isinstance(net, SrBranch):
            return CwtOutputs(sr=net.rgb.restore(net(rgb)), wt=None, wr=None, target=None)
        if reference is None:
            finer = enlarge(rgb, 2)
        else:
            self._check(lr, reference)
            finer = net.rgb.remove(reference)
        target = net.transform(finer)
        made = None if net.wr is None or self.wr_training == "test_only" else net.wr(rgb)
        fed = made is not None and (feed_wr or self.wr_training == "always")
        sr, wt = net(rgb, made if fed and made is not None else finer)
        wr = None if made is None else net.transform(made)
        return CwtOutputs(sr=net.rgb.restore(sr), wt=wt, wr=wr, target=target)

    @staticmethod
    def _check(lr: Tensor, reference: Tensor) -> None:
        wanted = (*lr.shape[:2], 2 * lr.shape[-2], 2 * lr.shape[-1])
        if tuple(reference.shape) != wanted:
            raise ModelError(
                f"cwtnet: reference of shape {tuple(reference.shape)}; it must be twice the LR "
                f"size, {wanted}"
            )


def _build(settings: CwtnetSettings, scale: int) -> Cwt:
    if settings.branches == "sr":
        reach = 2 * settings.blocks * settings.sr_depth + 5
        alone = Traits(halo_px=reach, halo_exact=True, tile_px=96, channels_last=True)
        return Cwt(SrBranch(settings, scale), alone, scale, settings.wr_training)
    traits = Traits(halo_px=16, tile_px=64, global_context=True, takes_reference=True)
    return Cwt(CwtNet(settings, scale), traits, scale, settings.wr_training)


SPEC = register(
    ModelSpec(
        name="cwtnet",
        family="cwtnet",
        summary="two branches: super-resolution and wavelets of the next finer level",
        citation="Jia et al., CWT-Net: cross-scale wavelet-based transformer, arXiv 2409.07092",
        settings=CwtnetSettings,
        presets={
            "paper": lambda scale: CwtnetSettings(depth_rule="linear"),
            "recommended": lambda scale: CwtnetSettings(),
            "tiny": lambda scale: CwtnetSettings(width=32, blocks=2, sr_depth=1),
        },
        build=_build,
    )
)
