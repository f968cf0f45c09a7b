"""Layouts of SwinIR and HAT.

Facts of JingyunLiang/SwinIR and XPixelGroup/HAT. Both store tables of indices and masks that follow
from the window and are made anew here.
"""

from math import isqrt
from typing import Any

from wsisr.errors import ModelError
from wsisr.models.foreign.edits import State, count, drop, rename, rgb_width, shape, shuffle_scale
from wsisr.models.foreign.layouts import Found, StateDictLayout
from wsisr.models.layers.blocks import DIV2K_MEAN
from wsisr.models.layers.hybrid import released_roll

TABLES = (r".*relative_position_index", r".*attn_mask$")
"""Constants that follow from the window."""
_BLOCK = "layers.0.residual_group.blocks.0."


def _side(entries: int, name: str) -> int:
    side = isqrt(entries)
    if side * side != entries:
        raise ModelError(f"tensor {name} has {entries} rows, which is no square")
    return side


def _trunk(state: State) -> dict[str, Any]:
    """What SwinIR and HAT share."""
    width = rgb_width(state, "conv_first")
    groups = count(state, r"layers\.(\d+)\.")
    depths = [count(state, rf"layers\.{g}\.residual_group\.blocks\.(\d+)\.") for g in range(groups)]
    if len(set(depths)) != 1:
        raise ModelError(f"its groups have {depths} layers; groups of one depth are known")
    entries, heads = shape(state, _BLOCK + "attn.relative_position_bias_table", 2)
    return {
        "width": width,
        "groups": groups,
        "depth": depths[0],
        "heads": heads,
        "window_px": (_side(entries, "relative_position_bias_table") + 1) // 2,
        "mlp_ratio": shape(state, _BLOCK + "mlp.fc1.weight", 2)[0] / width,
    }


def _mean(state: State) -> tuple[State, dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Without tables and mean; the mean that is meant, and what had to be assumed."""
    tables = any("relative_position_index" in key for key in state)
    mean = tuple(float(m) for m in state["mean"].flatten()) if "mean" in state else DIV2K_MEAN
    notes = () if tables else ("no tables of indices: the mean of DIV2K is assumed",)
    state, gone = drop(state, *TABLES, r"mean$")
    return state, {"rgb_mean": mean}, gone, notes


def _swinir(state: State) -> Found:
    state, mean, gone, notes = _mean(state)
    settings = _trunk(state) | mean
    if "layers.0.conv.0.weight" in state:
        settings["group_conv"] = "3conv"
    if "conv_up1.weight" in state:
        settings["upsampler"] = "nearest"
        settings["head_width"] = shape(state, "conv_up1.weight", 4)[0]
        # The released class has the second step for x4 alone and enlarges by 2 at other scales.
        scale = 4 if "conv_up2.weight" in state else 2
    elif "conv_before_upsample.0.weight" in state:
        settings["head_width"] = shape(state, "conv_before_upsample.0.weight", 4)[0]
        scale = shuffle_scale(state, "upsample.", settings["head_width"])
    elif "upsample.0.weight" in state:
        settings["upsampler"] = "direct"
        rows = shape(state, "upsample.0.weight", 4)[0]
        scale = isqrt(rows // 3)
        if 3 * scale * scale != rows:
            raise ModelError(f"tensor upsample.0.weight of {rows} rows makes no RGB picture")
    else:
        raise ModelError(
            "it has no upsampler: SwinIR for denoising or JPEG artefacts, which enlarges nothing"
        )
    return Found(
        model="swinir", scale=scale, settings=settings, tensors=state, dropped=gone, notes=notes
    )


def _hat(state: State) -> Found:
    state, mean, gone, notes = _mean(state)
    settings = _trunk(state) | mean
    width, window = settings["width"], settings["window_px"]
    table = "residual_group.overlap_attn.relative_position_bias_table"
    extended = _side(shape(state, f"layers.0.{table}", 2)[0], table) + 1 - window
    hidden = shape(state, _BLOCK + "conv_block.cab.0.weight", 4)[0]
    gate = shape(state, _BLOCK + "conv_block.cab.3.attention.1.weight", 4)[0]
    settings |= {
        "overlap": (extended - window) / window,
        "compress": max(1, width // hidden),
        "squeeze": max(1, width // gate),
        "head_width": shape(state, "conv_before_upsample.0.weight", 4)[0],
    }
    state = rename(
        state,
        (r"\.cab\.3\.attention\.1\.", ".cab.3.conv_du.0."),
        (r"\.cab\.3\.attention\.3\.", ".cab.3.conv_du.2."),
    )
    roll = released_roll(window, extended)
    tensors = {k: v.roll(roll, dims=0) if k.endswith(table) else v for k, v in state.items()}
    return Found(
        model="hat",
        scale=shuffle_scale(state, "upsample.", settings["head_width"]),
        settings=settings,
        tensors=tensors,
        dropped=gone,
        notes=(*notes, "the weight of its convolutions is not in the file: 0.01 as released"),
    )


LAYOUTS = (
    StateDictLayout(
        title="SwinIR",
        anchor="conv_first.weight",
        needs=(_BLOCK + "attn.qkv.weight", "conv_after_body."),
        lacks=("layers.0.residual_group.overlap_attn.", "imnet.", _BLOCK + "conv_block."),
        read=_swinir,
    ),
    StateDictLayout(
        title="HAT",
        anchor="conv_first.weight",
        needs=(
            "layers.0.residual_group.overlap_attn.qkv.weight",
            _BLOCK + "conv_block.cab.3.attention.1.weight",
            "conv_before_upsample.0.weight",
            "upsample.0.weight",
        ),
        read=_hat,
    ),
)
