"""From a file of weights that another program wrote to a model.

Every tensor is accounted for: taken, dropped as a constant, or left alone because it is no part of
the network; and every tensor of the network is in the file. What the file does not say is said.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.errors import ModelError, damage_is_clear
from wsisr.models.community import PREFIX, load_community
from wsisr.models.describe import read_changes
from wsisr.models.foreign.containers import (
    Part,
    behind,
    choose_part,
    find_parts,
    outermost,
    read_safetensors,
    read_tensors,
)
from wsisr.models.foreign.edits import fold_range
from wsisr.models.foreign.layouts import Found, Recognised, recognise
from wsisr.models.registry import build_from_settings, model_spec, resolve_settings
from wsisr.models.settings import override
from wsisr.models.weights import check_digest, load_exactly, model_from, specification_in
from wsisr.models.wrapper import SRModel

PRESET = "imported"
"""What stands for the preset of a model whose settings its file has said."""
SURE = 5.0
"""The right range of values has to be so many times better, else the user is asked."""
SIDE_PX = 24


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A model out of a foreign file, and how it got there.

    Attributes
    ----------
    model : SRModel
        In eval mode.
    layout : str
        Whose names the file has.
    part : str
        Of the file, as a dotted path; empty for a bare state dict.
    taken, dropped : int
        Tensors that became weights; constants that the network makes itself.
    notes : tuple of str
        What was preferred, assumed and left alone.
    """

    model: SRModel
    layout: str
    part: str = ""
    taken: int
    dropped: int = 0
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What a user should read about it."""
        info = self.model.info
        reach = f"x{info.scale}" if info.scale else "any scale"
        gone = f", {self.dropped} constants dropped" if self.dropped else ""
        return [
            f"{self.layout}: {info.name} {reach}, {self.model.parameter_count:,} parameters, "
            f"{self.taken} tensors taken{gone}",
            *self.notes,
        ]


@dataclass(frozen=True, kw_only=True)
class WeightsAnswers:
    """What a user says of a file of weights, where it does not say it itself.

    Attributes
    ----------
    model : str, optional
        The network; needed where the file's names are those of no known program. Where they are, it
        is checked.
    scale : int, optional
        Likewise.
    preset : str
        Of a network that is given by name.
    changes : sequence of str
        ``key=value`` settings: of such a network, or of what a layout assumed.
    part : str, optional
        Which of several networks of the file, by its dotted path.
    span : {1, 255}, optional
        Largest value that the network was trained on, where the file does not say it.
    """

    model: str | None = None
    scale: int | None = None
    preset: str = "recommended"
    changes: Sequence[str] = ()
    part: str | None = None
    span: int | None = None


def import_weights(path: Path | str, said: WeightsAnswers = WeightsAnswers()) -> Imported:
    """Build a model from a file of weights; most need no answers.

    Raises
    ------
    ModelError
        One sentence: what is wrong with the file, or what has to be said about it.
    """
    path = Path(path)
    done = _from_header(path)
    if done is not None:
        _check_said(path, done.model, said.model, said.scale)
        return done
    tensors = read_tensors(path)
    known = recognise(tensors, str(path), said.part)
    if known is not None and said.model in (None, known.found.model):
        return _from_layout(path, known, said)
    if said.model is not None:
        if known is not None:
            raise ModelError(
                f"{path} is a file of {known.layout.title}, which is {known.found.model} and not "
                f"{said.model}; leave --model out"
            )
        return _from_name(path, tensors, said.model, said)
    network = load_community(path)
    _check_said(path, network, None, said.scale)
    return Imported(
        model=network,
        layout=f"{network.info.name.removeprefix(PREFIX)} (spandrel)",
        taken=len(network.state_dict()),
        notes=("read by spandrel, which decides what its tensors mean",),
    )


def _check_said(path: Path, found: SRModel, name: str | None, scale: int | None) -> None:
    """Refuse a name and a scale that a file which says its own contradicts."""
    if name not in (None, found.info.name) or scale not in (None, found.info.scale):
        reach = f"x{found.info.scale}" if found.info.scale else "any scale"
        raise ModelError(f"{path} is {found.info.name}, {reach}; leave --model and --scale out")


def _from_layout(path: Path, known: Recognised, said: WeightsAnswers) -> Imported:
    found, scale = known.found, said.scale
    spec = model_spec(found.model)
    if scale is not None and spec.kind == "arbitrary":
        raise ModelError(f"{path}: {spec.name} takes any scale; leave --scale out")
    if scale is not None and scale != found.scale:
        raise ModelError(f"{path} enlarges by {found.scale}, not by {scale}; leave --scale out")
    settings = override(spec.presets[found.preset](found.scale), found.settings, spec.name)
    settings = override(settings, read_changes(spec.name, said.changes), spec.name)
    with torch.random.fork_rng(devices=[]):
        network = build_from_settings(spec, settings, found.scale, PRESET)
    load_exactly(network, ours(found.tensors), f"{path} ({known.layout.title})")
    notes = [*known.part.notes, *found.notes]
    if found.spans:
        chosen, note = decide_span(path, network, found, said.span, must=True)
        load_exactly(network, ours(folded(found, chosen)), str(path))
        notes.append(note)
    elif said.span is not None:
        raise ModelError(f"{path} says its range itself; leave --range out")
    return Imported(
        model=network.eval(),
        layout=known.layout.title,
        part=known.part.name,
        taken=len(found.tensors),
        dropped=len(found.dropped),
        notes=tuple(notes),
    )


def _from_name(
    path: Path, tensors: Mapping[str, Tensor], name: str, said: WeightsAnswers
) -> Imported:
    changes = read_changes(name, said.changes)
    settings = resolve_settings(name, said.scale, said.preset, changes)
    with torch.random.fork_rng(devices=[]):
        network = build_from_settings(model_spec(name), settings, said.scale, said.preset)
    chosen = own_part(network, tensors, str(path), said.part)
    load_exactly(network, ours(chosen.tensors), str(path))
    return Imported(
        model=network.eval(),
        layout=f"{name}'s own names",
        part=chosen.name,
        taken=len(chosen.tensors),
        notes=chosen.notes,
    )


def _from_header(path: Path) -> Imported | None:
    """A weights file of ours that stands alone: its header says what it is."""
    text = specification_in(path)
    if text is None:
        return None
    tensors = read_safetensors(path)
    with damage_is_clear(path, ModelError, "copy it again"):
        config = json.loads(text)
        network = model_from(config, tensors, path)
        check_digest(config, tensors, path)
    load_exactly(network, tensors, str(path))
    return Imported(model=network.eval(), layout="a saved model of wsisr", taken=len(tensors))


def own_part(
    model: SRModel, tensors: Mapping[str, Tensor], source: str, wanted: str | None = None
) -> Part:
    """The part of a file that has a network's own names, the most of them where none has all.

    Raises
    ------
    ModelError
        None has any; or several could be meant.
    """
    own = set(model.net.state_dict())
    prefixes = {prefix for name in own for prefix in find_parts(tensors, name)}
    if not prefixes:
        raise ModelError(
            f"{source}: no tensor fits {model.info.name}; it holds {', '.join(list(tensors)[:3])}"
        )
    shared = {prefix: len(own & set(behind(tensors, prefix))) for prefix in outermost(prefixes)}
    most = max(shared.values())
    return choose_part(tensors, [p for p, n in shared.items() if n == most], source, wanted)


def ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of a network's tensors as our models have them."""
    return {f"net.{key}": value for key, value in tensors.items()}


def folded(found: Found, span: int) -> dict[str, Tensor]:
    """Tensors of a network that was trained on 0..span, for [0, 1]."""
    if span == 1:
        return found.tensors
    return fold_range(found.tensors, float(span), found.first, found.last)


def decide_span(
    path: Path, model: SRModel, found: Found, given: int | None, *, must: bool
) -> tuple[int, str]:
    """The range of a network's values, and how it is known; the model's weights are overwritten.

    Raises
    ------
    ModelError
        Nothing tells it, and it must be known.
    """
    if given is not None:
        if given not in found.spans:
            raise ModelError(f"--range {given}: give {' or '.join(map(str, found.spans))}")
        return given, f"values in 0..{given}, as given"
    states = {span: ours(folded(found, span)) for span in found.spans}
    shown = likely_span(model, states)
    if shown is not None:
        return shown, f"values in 0..{shown}: so it gives a ramp of colours back"
    if found.sure:
        return found.spans[0], f"values in 0..{found.spans[0]}, as the released options say"
    if must:
        raise ModelError(
            f"{path} does not say whether it was trained on values to 1 or to 255, and its output "
            "does not show it; give --range 1 or --range 255"
        )
    return 1, "values in 0..1 are assumed"


def likely_span(model: SRModel, states: Mapping[int, Mapping[str, Tensor]]) -> int | None:
    """The range under which a network gives a ramp of colours back; None: it does not show.

    EDSR, RCAN and RDN were released for RGB in 0..255. A trained network gives a smooth picture
    back as it is, only larger; on values 255 times too small or too large it does not, since its
    biases stay. So the network itself tells, if it has been trained.

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
    (least, span), (next_one, _), *_ = sorted(errors)
    return span if least * SURE <= next_one and least < 0.1 else None
