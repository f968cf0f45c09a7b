"""Layouts of EDSR, RCAN, RDN and RRDBNet.

Facts (names, shapes, constants) of these public repositories: sanghyun-son/EDSR-PyTorch,
yulunzhang/RCAN, yjn870/RDN-pytorch, XPixelGroup/BasicSR, xinntao/ESRGAN, xinntao/Real-ESRGAN.
"""

import re
from functools import partial
from typing import Any

import torch

from wsisr.errors import ModelError
from wsisr.models.foreign.edits import (
    State,
    count,
    drop,
    fold_range,
    rename,
    rgb_width,
    shape,
    shuffle_scale,
)
from wsisr.models.foreign.layouts import Found, StateDictLayout
from wsisr.models.layers.blocks import DIV2K_MEAN

_BIG_EDSR = 256
_RES_SCALE = "the scale of EDSR's residuals is not in the file: {} as released for {} channels"
_MEAN = "the mean is not in the file: that of DIV2K, as in the released options"


def _edsr_settings(state: State) -> tuple[dict[str, Any], list[str]]:
    width = rgb_width(state, "head.0")
    res_scale = 0.1 if width == _BIG_EDSR else 1.0
    settings = {
        "width": width,
        "blocks": count(state, r"body\.(\d+)\.body\."),
        "res_scale": res_scale,
    }
    return settings, [_RES_SCALE.format(res_scale, width)]


def _rcan_settings(state: State) -> tuple[dict[str, Any], list[str]]:
    width = rgb_width(state, "head.0")
    hidden = shape(state, "body.0.body.0.body.3.conv_du.0.weight", 4)[0]
    settings = {
        "width": width,
        "groups": count(state, r"body\.(\d+)\.body\."),
        "blocks": count(state, r"body\.0\.body\.(\d+)\.body\."),
        "reduction": width // hidden,
    }
    return settings, []


_SETTINGS = {"edsr": _edsr_settings, "rcan": _rcan_settings}
"""What shapes say of a network whose names are those of EDSR-PyTorch, and what they do not."""


def _mean_shifted(model: str, state: State) -> Found:
    """A network between two layers that shift by a mean, which tell its range."""
    bias = -state["sub_mean.bias"].double()
    # The mean of RGB in [0, 1] is below 1, so the span is 1 or 255, whichever leaves it there.
    span = 255.0 if float(bias.max()) > 1 else 1.0
    eye = state["sub_mean.weight"].double().flatten(1) - torch.eye(len(bias)).double()
    back = state.get("add_mean.bias", -state["sub_mean.bias"]).double()
    if float(eye.abs().max()) > 1e-6 or float((back - bias).abs().max()) > 1e-3:
        raise ModelError("its sub_mean and add_mean are no shift by one mean of RGB")
    state, gone = drop(state, r"sub_mean\.", r"add_mean\.")
    settings, notes = _SETTINGS[model](state)
    if span != 1:
        state = fold_range(state, span, "head.0", "tail.1")
        notes.append(f"trained on 0..{span:g}: folded into its first and last convolution")
    return Found(
        model=model,
        scale=shuffle_scale(state, "tail.0.", settings["width"]),
        settings=settings | {"rgb_mean": tuple(round(float(b) / span, 6) for b in bias)},
        tensors=state,
        dropped=gone,
        notes=tuple(notes),
    )


def _basicsr(model: str, state: State, blocks: int, *rules: tuple[str, str]) -> Found:
    """A network of BasicSR: its body renamed by rules, its head and tail as all of them."""
    state = rename(
        state,
        *rules,
        (r"^conv_first\.", "head.0."),
        (r"^conv_after_body\.", f"body.{blocks}."),
        (r"^upsample\.", "tail.0."),
        (r"^conv_last\.", "tail.1."),
    )
    settings, notes = _SETTINGS[model](state)
    return Found(
        model=model,
        scale=shuffle_scale(state, "tail.0.", settings["width"]),
        settings=settings | {"rgb_mean": DIV2K_MEAN},
        tensors=state,
        notes=(*notes, _MEAN),
        spans=(255, 1),
        first="head.0",
        last="tail.1",
    )


def _basicsr_edsr(state: State) -> Found:
    return _basicsr(
        "edsr",
        state,
        count(state, r"body\.(\d+)\.conv1\."),
        (r"^body\.(\d+)\.conv1\.", r"body.\1.body.0."),
        (r"^body\.(\d+)\.conv2\.", r"body.\1.body.2."),
    )


def _basicsr_rcan(state: State) -> Found:
    blocks = count(state, r"body\.0\.residual_group\.(\d+)\.")
    return _basicsr(
        "rcan",
        state,
        count(state, r"body\.(\d+)\.conv\."),
        (r"\.residual_group\.(\d+)\.rcab\.3\.attention\.1\.", r".body.\1.body.3.conv_du.0."),
        (r"\.residual_group\.(\d+)\.rcab\.3\.attention\.3\.", r".body.\1.body.3.conv_du.2."),
        (r"\.residual_group\.(\d+)\.rcab\.", r".body.\1.body."),
        (r"^body\.(\d+)\.conv\.", rf"body.\1.body.{blocks}."),
    )


def _rdn(state: State) -> Found:
    width = rgb_width(state, "SFENet1")
    steps_and_last = count(state, r"UPNet\.(\d+)\.weight")
    last = f"UPNet.{steps_and_last - 1}"
    up_width = shape(state, f"{last}.weight", 4)[1]
    steps, _ = drop(state, re.escape(last))
    return Found(
        model="rdn",
        scale=shuffle_scale(steps, "UPNet.", up_width),
        settings={
            "width": width,
            "blocks": count(state, r"RDBs\.(\d+)\."),
            "layers": count(state, r"RDBs\.0\.convs\.(\d+)\."),
            "growth": shape(state, "RDBs.0.convs.0.conv.0.weight", 4)[0],
            "up_width": 0 if up_width == width else up_width,
        },
        tensors=state,
        spans=(255, 1),
        sure=False,
        first="SFENet1",
        last=last,
    )


def _yjn_rdn(state: State) -> Found:
    state = rename(
        state,
        (r"^sfe(\d)\.", r"SFENet\1."),
        (r"^rdbs\.(\d+)\.layers\.(\d+)\.conv\.", r"RDBs.\1.convs.\2.conv.0."),
        (r"^rdbs\.(\d+)\.lff\.", r"RDBs.\1.LFF."),
        (r"^gff\.", "GFF."),
        (r"^upscale\.", "UPNet."),
    )
    steps = count(state, r"UPNet\.(\d+)\.weight")
    state = rename(state, (r"^output\.", f"UPNet.{steps + 1}."))
    found = _rdn(state)
    return Found(model="rdn", scale=found.scale, settings=found.settings, tensors=found.tensors)


def _rrdb(state: State) -> Found:
    width, inputs = shape(state, "conv_first.weight", 4)[:2]
    ups = count(state, r"conv_up(\d+)\.weight") - 1
    fold = {3: 1, 12: 2, 48: 4}.get(inputs)
    if fold is None or shape(state, "conv_last.weight", 4)[0] != 3:
        raise ModelError(f"it takes {inputs} channels; networks from RGB to RGB are needed")
    if ups < 1 or 2**ups % fold:
        raise ModelError(f"it has {ups} steps of x2 behind an unshuffling by {fold}")
    if fold > 1 and ups != 2:
        raise ModelError(f"it has {ups} steps of x2 behind its unshuffling; two are known")
    return Found(
        model="esrgan",
        scale=2**ups // fold,
        settings={
            "width": width,
            "growth": shape(state, "body.0.rdb1.conv1.weight", 4)[0],
            "blocks": count(state, r"body\.(\d+)\."),
            "unshuffle": fold > 1,
        },
        tensors=state,
    )


def _esrgan(state: State) -> Found:
    return _rrdb(
        rename(
            state,
            (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
            (r"^trunk_conv\.", "conv_body."),
            (r"^upconv(\d+)\.", r"conv_up\1."),
            (r"^HRconv\.", "conv_hr."),
        )
    )


def _first_esrgan(state: State) -> Found:
    """The first release: everything is ``model.N``, in the order in which it runs."""
    blocks = count(state, r"model\.1\.sub\.(\d+)\.RDB1\.")
    outer = sorted(int(m.group(1)) for k in state if (m := re.match(r"model\.(\d+)\.weight$", k)))
    if len(outer) < 4:
        raise ModelError(f"it has {len(outer)} convolutions around its blocks; four are the least")
    first, *ups, high, last = outer
    rules = [
        (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d)\.0\.", r"body.\1.rdb\2.\3."),
        (rf"^model\.1\.sub\.{blocks}\.", "conv_body."),
        (rf"^model\.{first}\.", "conv_first."),
        (rf"^model\.{high}\.", "conv_hr."),
        (rf"^model\.{last}\.", "conv_last."),
        *((rf"^model\.{n}\.", f"conv_up{i}.") for i, n in enumerate(ups, 1)),
    ]
    return _rrdb(rename(state, *rules))


LAYOUTS = (
    StateDictLayout(
        title="EDSR of EDSR-PyTorch",
        anchor="head.0.weight",
        needs=("sub_mean.weight", "sub_mean.bias", "body.0.body.0.weight", "tail.0.0.weight"),
        read=partial(_mean_shifted, "edsr"),
    ),
    StateDictLayout(
        title="RCAN of its repository and EDSR-PyTorch",
        anchor="head.0.weight",
        needs=("sub_mean.weight", "sub_mean.bias", "body.0.body.0.body.3.conv_du.0.weight"),
        read=partial(_mean_shifted, "rcan"),
    ),
    StateDictLayout(
        title="EDSR of BasicSR",
        anchor="conv_first.weight",
        needs=("body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"),
        read=_basicsr_edsr,
    ),
    StateDictLayout(
        title="RCAN of BasicSR",
        anchor="conv_first.weight",
        needs=("body.0.residual_group.0.rcab.0.weight", "upsample.0.weight"),
        read=_basicsr_rcan,
    ),
    StateDictLayout(
        title="RDN of EDSR-PyTorch",
        anchor="SFENet1.weight",
        needs=("RDBs.0.convs.0.conv.0.weight", "UPNet.0.weight"),
        read=_rdn,
    ),
    StateDictLayout(
        title="RDN of RDN-pytorch",
        anchor="sfe1.weight",
        needs=("rdbs.0.layers.0.conv.weight", "upscale.0.weight", "output.weight"),
        read=_yjn_rdn,
    ),
    StateDictLayout(
        title="RRDBNet of BasicSR and Real-ESRGAN",
        anchor="conv_first.weight",
        needs=("body.0.rdb1.conv1.weight", "conv_up1.weight"),
        lacks=("body.0.rdb1.conv1x1.weight",),
        read=_rrdb,
    ),
    StateDictLayout(
        title="RRDBNet of the ESRGAN repository",
        anchor="conv_first.weight",
        needs=("RRDB_trunk.0.RDB1.conv1.weight", "upconv1.weight"),
        lacks=("RRDB_trunk.0.RDB1.conv1x1.weight",),
        read=_esrgan,
    ),
    StateDictLayout(
        title="RRDBNet of ESRGAN's first release",
        anchor="model.0.weight",
        needs=("model.1.sub.0.RDB1.conv1.0.weight",),
        lacks=("model.1.sub.0.RDB1.conv1x1.weight",),
        read=_first_esrgan,
    ),
)
