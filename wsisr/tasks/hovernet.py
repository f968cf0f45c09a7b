"""HoVer-Net with weights of the user's own, as its authors' programs save them.

S. Graham et al., Medical Image Analysis 58, 2019, doi:10.1016/j.media.2019.101563: a residual
encoder and a decoder for each of nucleus or not, horizontal and vertical place within the nucleus,
and (where trained) its type. No weights come with this program.

Names of layers are the authors', so that a file is filled in by name or refused. ``original`` sees
270 px and answers for the middle 80, ``fast`` sees 256 and answers for 164; which one a file is
follows from its kernels.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.arrays import AnyArray, Float32Array, Int32Array, UInt8Array
from wsisr.errors import ModelError
from wsisr.models.foreign.containers import behind, find_parts, read_tensors
from wsisr.tasks.kinds import Answer, without_small

SUFFIXES = (".tar", ".pth", ".pt", ".safetensors")
_ANCHOR = "decoder.np.u3.conva.weight"
_LEAST_PX = 10
_EDGE = 0.4
_SOBEL = 21


class _Padded(nn.Module):
    """Zeros around, as TensorFlow's ``same``: an odd one at the bottom and right."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        over = x.shape[2] % self.stride
        pad = max(self.kernel - (over or self.stride), 0)
        return F.pad(x, (pad // 2, pad - pad // 2) * 2)


class _ResidualUnits(nn.Module):
    def __init__(self, before: int, widths: tuple[int, int], count: int, stride: int) -> None:
        super().__init__()
        inner, after = widths
        self.units = nn.ModuleList()
        for at in range(count):
            unit = nn.Sequential()
            if at:
                _add(unit, "preact", bn=after)
            _add(unit, "conv1", conv=(after if at else before, inner, 1), bn=inner)
            step = 1 if at else stride
            unit.add_module("conv2_pad", _Padded(3, step))
            _add(unit, "conv2", conv=(inner, inner, 3), bn=inner, stride=step)
            _add(unit, "conv3", conv=(inner, after, 1))
            self.units.append(unit)
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False)
        self.blk_bna = _bna(after)

    def forward(self, x: Tensor) -> Tensor:
        side = self.shortcut(x)
        for unit in self.units:
            x = side = unit(x) + side
        out: Tensor = self.blk_bna(x)
        return out


class _Dense(nn.Module):
    def __init__(self, before: int, kernel: int, count: int) -> None:
        super().__init__()
        self.units = nn.ModuleList()
        for at in range(count):
            unit = nn.Sequential()
            _add(unit, "preact", bn=before + 32 * at)
            _add(unit, "conv1", conv=(before + 32 * at, 128, 1), bn=128)
            _add(unit, "conv2", conv=(128, 32, kernel), groups=4)
            self.units.append(unit)
        self.blk_bna = _bna(before + 32 * count)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            new = unit(x)
            x = torch.cat((_middle(x, new.shape[-1]), new), 1)
        out: Tensor = self.blk_bna(x)
        return out


class HoVerNet(nn.Module):
    """``model(images)``: (N, 3, s, s) in 0 to 255 -> maps by name, (N, C, t, t).

    Parameters
    ----------
    types : int
        Channels of the types, background among them; 0 where it names none.
    """

    def __init__(self, *, fast: bool, types: int) -> None:
        super().__init__()
        self.fast, self.types = fast, types
        self.seen_px, self.told_px = (256, 164) if fast else (270, 80)
        kernel = 3 if fast else 5
        padded = {"pad": _Padded(7, 1)} if fast else {}
        self.conv0 = _named(
            **padded, conv=nn.Conv2d(3, 64, 7, bias=False), bn=nn.BatchNorm2d(64), relu=nn.ReLU()
        )
        self.d0 = _ResidualUnits(64, (64, 256), 3, 1)
        self.d1 = _ResidualUnits(256, (128, 512), 4, 2)
        self.d2 = _ResidualUnits(512, (256, 1024), 6, 2)
        self.d3 = _ResidualUnits(1024, (512, 2048), 3, 2)
        self.conv_bot = nn.Conv2d(2048, 1024, 1, bias=False)
        told = {"np": 2, "hv": 2} | ({"tp": types} if types else {})
        self.decoder = nn.ModuleDict({name: _decoder(n, kernel) for name, n in told.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The three maps of the middle."""
        first = self.d0(self.conv0(images / 255.0))
        second = self.d1(first)
        third = self.d2(second)
        last = self.conv_bot(self.d3(third))
        sides = (92, 164) if self.fast else (60, 80)
        kept = (third, _middle(second, sides[0]), _middle(first, sides[1]))
        made = {}
        for name, branch in self.decoder.items():
            x = last
            for part, fine in zip(("u3", "u2", "u1"), kept, strict=True):
                x = branch.get_submodule(part)(
                    F.interpolate(x, scale_factor=2, mode="nearest") + fine
                )
            made[name] = branch.get_submodule("u0")(x)
        return made


def _add(
    unit: nn.Sequential,
    name: str,
    *,
    conv: tuple[int, int, int] | None = None,
    bn: int = 0,
    stride: int = 1,
    groups: int = 1,
) -> None:
    if conv is not None:
        unit.add_module(name, nn.Conv2d(*conv, stride=stride, groups=groups, bias=False))
    if bn:
        unit.add_module(f"{name}_bn", nn.BatchNorm2d(bn))
        unit.add_module(f"{name}_relu", nn.ReLU())


def _named(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def _bna(channels: int, **more: nn.Module) -> nn.Sequential:
    return _named(bn=nn.BatchNorm2d(channels), relu=nn.ReLU(), **more)


def _decoder(channels: int, kernel: int) -> nn.Sequential:
    parts = {}
    for name, before, inner, count in (("u3", 1024, 256, 8), ("u2", 512, 128, 4)):
        parts[name] = _named(
            conva=nn.Conv2d(before, inner, kernel, bias=False),
            dense=_Dense(inner, kernel, count),
            convf=nn.Conv2d(2 * inner, 2 * inner, 1, bias=False),
        )
    last = nn.Conv2d(256, 64, kernel, bias=False)
    return _named(
        **parts,
        u1=_named(conva_pad=_Padded(kernel, 1), conva=last),
        u0=_bna(64, conv=nn.Conv2d(64, channels, 1)),
    )


def _middle(x: Tensor, side: int) -> Tensor:
    start = (x.shape[-1] - side) // 2
    return x[..., start : start + side, start : start + side]


def read_hovernet(path: Path) -> HoVerNet:
    """The network of a file; nothing in it is run.

    Raises
    ------
    ModelError
        It is no HoVer-Net of the authors' layers, or cannot be read as plain tensors.
    """
    return filled(read_tensors(path), path)


def filled(content: Mapping[str, Tensor], path: Path) -> HoVerNet:
    """`read_hovernet` of tensors by their dotted names, ``preact/bn`` or ``preact_bn``."""
    tensors = {
        name.replace("conv0./.", "conv0.conv.").replace("/", "_"): tensor
        for name, tensor in content.items()
    }
    parts = find_parts(tensors, _ANCHOR)
    if len(parts) != 1:
        raise ModelError(
            f"{path}: holds {len(parts) or 'no'} HoVer-Net with the layers of its authors' PyTorch "
            f"program (no {_ANCHOR}); weights of other programs serve through a function of your "
            "own (--plugin, docs/downstream.md)"
        )
    own = behind(tensors, parts[0])
    kernel = int(own[_ANCHOR].shape[-1])
    if kernel not in (3, 5):
        raise ModelError(
            f"{path}: kernels of {kernel} px; HoVer-Net's are 5 (original) or 3 (fast)"
        )
    types = own.get("decoder.tp.u0.conv.weight")
    model = HoVerNet(fast=kernel == 3, types=0 if types is None else len(types))
    constant = {name for name in own if name.startswith("upsample2x.")}
    counters = {n for n in model.state_dict() if n.endswith("num_batches_tracked")}
    for name, there in model.state_dict().items():
        if name in own and own[name].shape != there.shape:
            raise ModelError(
                f"{path}: {name} is {tuple(own[name].shape)}, HoVer-Net's is {tuple(there.shape)}"
            )
    taken = {name: tensor for name, tensor in own.items() if name not in constant}
    found = model.load_state_dict(taken, strict=False)
    missing = [name for name in found.missing_keys if name not in counters]
    if missing or found.unexpected_keys:
        odd = [*missing, *found.unexpected_keys]
        raise ModelError(f"{path}: no HoVer-Net that this program knows: {len(odd)} layers do not "
                         f"fit, the first is {odd[0]}")  # fmt: skip
    return model.eval()


@torch.no_grad()
def find_nuclei(
    model: HoVerNet, image: UInt8Array, names: Sequence[str], device: torch.device
) -> Answer:
    """Nuclei of an image (H, W, 3), with their types.

    Parameters
    ----------
    image : ndarray, shape (H, W, 3), uint8
    names : sequence of str
        Of the types, from 1; empty where they are not asked for.
    """
    seen, told = model.seen_px, model.told_px
    height, width = image.shape[:2]
    rows, columns = -(-height // told), -(-width // told)
    before = (seen - told) // 2
    after = [n * told - side + seen - told - before
             for n, side in zip((rows, columns), (height, width), strict=True)]  # fmt: skip
    padded = np.pad(image, ((before, after[0]), (before, after[1]), (0, 0)), mode="symmetric")
    maps = np.empty((4, rows * told, columns * told), np.float32)
    for y in range(0, rows * told, told):
        for x in range(0, columns * told, told):
            window = np.ascontiguousarray(padded[y : y + seen, x : x + seen])
            pixels = torch.from_numpy(window).to(device).permute(2, 0, 1)[None].float()
            made: dict[str, Any] = model(pixels)
            part = maps[:, y : y + told, x : x + told]
            part[0] = made["np"].softmax(1)[0, 1].cpu().numpy()
            part[1:3] = made["hv"][0].cpu().numpy()
            part[3] = made["tp"][0].argmax(0).cpu().numpy() if "tp" in made else 0
    labels = part_nuclei(maps[0, :height, :width], maps[1:3, :height, :width])
    if not names:
        return Answer(labels=labels)
    kinds = maps[3, :height, :width].astype(np.int64)
    counts = np.bincount(labels.ravel() * model.types + kinds.ravel(),
                         minlength=(int(labels.max()) + 1) * model.types)  # fmt: skip
    # Background is no type of a nucleus, unless nothing else is said of it.
    most = counts.reshape(-1, model.types)[:, 1:].argmax(1) + 1
    empty = counts.reshape(-1, model.types)[:, 1:].sum(1) == 0
    return Answer(
        labels=labels,
        types={k: names[most[k] - 1] for k in range(1, len(most)) if not empty[k]},
    )


def part_nuclei(inside: Float32Array, place: Float32Array) -> Int32Array:
    """Nuclei from the probability of one and the places within, by the authors' watershed.

    Parameters
    ----------
    inside : ndarray, shape (h, w)
        Probability.
    place : ndarray, shape (2, h, w)
        Horizontal and vertical place; both jump at a border between two nuclei.
    """
    import cv2
    from scipy import ndimage
    from skimage.segmentation import watershed

    areas, _ = ndimage.label(inside >= 0.5)
    mask = without_small(areas, _LEAST_PX) > 0
    borders = []
    for values, axes in zip(place, ((1, 0), (0, 1)), strict=True):
        slope = cv2.Sobel(_unit(values), cv2.CV_64F, *axes, ksize=_SOBEL)
        borders.append(1.0 - _unit(slope))
    edge = np.maximum(np.maximum(*borders) - ~mask, 0.0)
    depth = -cv2.GaussianBlur((1.0 - edge) * mask, (3, 3), 0)
    cores = ndimage.binary_fill_holes(mask & (edge < _EDGE)).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    markers, _ = ndimage.label(cv2.morphologyEx(cores, cv2.MORPH_OPEN, disc))
    found = watershed(depth, without_small(markers, _LEAST_PX), mask=mask)  # type: ignore[no-untyped-call]
    return np.asarray(found, np.int32)


def _unit(values: AnyArray) -> AnyArray:
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / ((high - low) or 1.0), np.float32)
