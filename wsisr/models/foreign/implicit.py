"""Layouts of LIIF, LTE, LTE+, LMI, ITSRN and ISTE.

Facts of yinboc/liif, jaewon-lee-b/lte, pf0607/COZ, codyshen0000/ITSRN and dmhdmhdmh/ISTE. All of
them work on RGB in [-1, 1], which their configurations say and their files do not; our networks do
so inside. Their EDSR encoder keeps the mean shift that it never calls; their SwinIR encoder keeps
tables.
"""

from collections.abc import Callable
from typing import Any

import torch

from wsisr.errors import ModelError
from wsisr.models.foreign.edits import State, count, drop, rename, shape
from wsisr.models.foreign.layouts import Found, StateDictLayout
from wsisr.models.foreign.transformers import TABLES

_UNUSED = (r"encoder\.sub_mean\.", r"encoder\.add_mean\.", r"encoder\.mean$", *TABLES)
_SIZES = {
    ("edsr", 64, 16): "full",
    ("edsr", 32, 4): "tiny",
    ("rdn", 64, 16): "full",
    ("rdn", 32, 2): "tiny",
    ("swinir", 180, 6): "full",
    ("swinir", 32, 2): "tiny",
}
"""(encoder, width, blocks or groups) -> what `build_encoder` calls it; SwinIR has any groups."""


def _encoder(state: State) -> dict[str, Any]:
    kinds = {
        "edsr": ("encoder.head.0.weight", r"encoder\.body\.(\d+)\.body\."),
        "rdn": ("encoder.SFENet1.weight", r"encoder\.RDBs\.(\d+)\."),
        "swinir": ("encoder.conv_first.weight", r"encoder\.layers\.(\d+)\."),
    }
    for kind, (first, blocks) in kinds.items():
        if first in state:
            width, number = shape(state, first, 4)[0], count(state, blocks)
            sizes = {w: (n, size) for (k, w, n), size in _SIZES.items() if k == kind}
            usual, size = sizes.get(width, (0, ""))
            if not usual or (number != usual and kind != "swinir"):
                raise ModelError(
                    f"its {kind} encoder has {width} channels and {number} blocks; known are "
                    + ", ".join(f"{w} and {n}" for w, (n, _) in sizes.items())
                )
            groups = {} if number == usual else {"encoder_groups": number}
            return {"encoder": kind, "encoder_size": size, **groups}
    raise ModelError("its encoder is none of EDSR, RDN and SwinIR")


def _reader(
    model: str,
    hidden: str | None,
    *rules: tuple[str, str],
    preset: str = "paper",
    dead: str = r"(?!)",
) -> Callable[[State], Found]:
    """Rename, drop what is never called, and take the width (if any) from one tensor's rows."""

    def read(state: State) -> Found:
        state, gone = drop(state, *_UNUSED, dead)
        state = rename(state, *rules)
        settings = _encoder(state)
        if hidden is not None:
            if hidden not in state:
                raise ModelError(f"tensor {hidden} is missing")
            settings["hidden"] = state[hidden].shape[0]
        return Found(model=model, settings=settings, tensors=state, dropped=gone, preset=preset)

    return read


_lte = _reader("lte", "coef.weight")


def _lte_fast(state: State) -> Found:
    """LTE+: the decoder as 1x1 convolutions; frequencies in halves, which LTE has in pairs."""
    state = rename(state, (r"^layers\.", "imnet.layers."))
    for key, value in state.items():
        if key.startswith("imnet.layers.") and value.ndim == 4:
            state[key] = value.flatten(1)
    for key in ("freq.weight", "freq.bias"):
        rows = state[key].shape[0]
        order = torch.arange(rows).view(2, rows // 2).T.flatten()
        state[key] = state[key][order]
    return _lte(state)


LAYOUTS = (
    StateDictLayout(
        title="LIIF",
        anchor="imnet.layers.0.weight",
        needs=("encoder.",),
        lacks=("coef.", "Weight.", "weight.", "pix_attn.", "metanet.", "imnet.out."),
        read=_reader("liif", "imnet.layers.0.weight"),
    ),
    StateDictLayout(
        title="LTE",
        anchor="coef.weight",
        needs=("encoder.", "freq.weight", "phase.weight", "imnet.layers.0.weight"),
        read=_lte,
    ),
    StateDictLayout(
        title="LTE+",
        anchor="coef.weight",
        needs=("encoder.", "freq.weight", "freq.bias", "phase.weight", "layers.0.weight"),
        lacks=("imnet.",),
        read=_lte_fast,
    ),
    StateDictLayout(
        title="LMI",
        anchor="imnet.out.weight",
        needs=("encoder.", "metanet.layers.0.weight"),
        read=_reader("lmi", None),
    ),
    StateDictLayout(
        title="ITSRN",
        anchor="imnet.layers.0.weight",
        needs=("encoder.", "Weight.layers.0.weight", "Score.layers.0.weight"),
        read=_reader(
            "itsrn", "imnet.layers.0.weight", (r"^Weight\.", "weight."), (r"^Score\.", "score.")
        ),
    ),
    StateDictLayout(
        title="ISTE",
        anchor="pix_attn.qk_linear.weight",
        needs=("encoder.", "liifconv.weight", "fusionlinear.weight", "freq1.weight"),
        read=_reader(
            "iste",
            "lfi_conv.weight",
            (r"^pix_attn\.", "lfi."),
            (r"^liifconv\.", "lfi_conv."),
            (r"^coef\.", "amplitude."),
            (r"^freq1\.", "freq_row."),
            (r"^freq2\.", "freq_col."),
            (r"^imnet_texture\.", "ltd."),
            (r"^imnet_rgb\.", "lpd."),
            (r"^fusionlinear\.", "fusion."),
            preset="official",
            dead=r"imnet_texture_auxiliary\.|imnet_query\.|pix_attn\.depth_conv\.",
        ),
    ),
)
