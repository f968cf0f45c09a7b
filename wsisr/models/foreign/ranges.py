"""What values a network was trained on, where its file does not say.

EDSR, RCAN and RDN were released for RGB in 0..255. A trained network of super-resolution gives a
smooth picture back as it is, only larger; on values 255 times too small or too large it does not,
since its biases stay. So the network itself tells, if it has been trained.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.models.wrapper import SRModel

SURE = 5.0
"""The right range has to be so many times better, else the user is asked."""
SIDE_PX = 24


def likely_span(model: SRModel, states: Mapping[int, Mapping[str, Tensor]]) -> int | None:
    """The range under which a network gives a ramp of colours back; None: it does not show.

    Parameters
    ----------
    model : SRModel
        Of a fixed scale; its weights are overwritten.
    states : mapping of int to state dict
        For each range, the weights that are right if it is the range.
    """
    down = torch.linspace(0.2, 0.8, SIDE_PX)[:, None].expand(-1, SIDE_PX)
    rgb = torch.stack((down, down.T, down.flip(0)))
    errors: list[tuple[float, int]] = []
    for span, state in states.items():
        model.load_state_dict(dict(state))
        with torch.no_grad():
            sr = model.eval()(rgb[None])
        lr = F.interpolate(sr, size=(SIDE_PX, SIDE_PX), mode="area")[0]
        # The border is the padding's.
        inner = (lr - rgb)[:, 4:-4, 4:-4]
        errors.append((float(inner.square().mean().sqrt()), span))
    errors.sort()
    return errors[0][1] if _clear([error for error, _ in errors]) else None


def _clear(errors: Sequence[float]) -> bool:
    return errors[0] * SURE <= errors[1] and errors[0] < 0.1
