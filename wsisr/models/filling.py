"""Filling a given model from a file of weights: all of it, or as far as it fits."""

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from wsisr.errors import ModelError
from wsisr.models.foreign.containers import read_tensors
from wsisr.models.foreign.layouts import Found, recognise
from wsisr.models.importing import decide_span, folded, ours, own_part
from wsisr.models.weights import WEIGHTS_NAME, check_finite, load_exactly, specification_in
from wsisr.models.wrapper import SRModel

_NAMED = 6
_UNSHAPED = ("rgb_mean", "res_scale")
"""Settings that no shape shows, and that change what weights mean."""


def load_foreign(model: SRModel, path: Path | str) -> tuple[str, ...]:
    """Fill a model with another program's weights; every tensor must find its place.

    Returns
    -------
    tuple of str
        What was preferred, assumed and left alone.

    Raises
    ------
    ModelError
        Naming tensors that are missing, left over or of another shape.
    """
    tensors, found, notes = _for_model(model, Path(path))
    if found is not None and found.spans:
        load_exactly(model, tensors, str(path))
        span, note = decide_span(Path(path), model, found, None, must=False)
        tensors = ours(folded(found, span))
        notes.append(note)
    load_exactly(model, tensors, str(path))
    return tuple(notes)


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What `start_from` did.

    Attributes
    ----------
    copied, resampled, fresh : tuple of str
        Tensors of the model: taken over, position tables resampled, as they were.
    left_over : tuple of str
        Tensors of the file that found no place.
    notes : tuple of str
        What was preferred, assumed and left alone in the file.
    """

    copied: tuple[str, ...]
    resampled: tuple[str, ...]
    fresh: tuple[str, ...]
    left_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def sentence(self) -> str:
        """All of it for a log."""
        text = f"{len(self.copied)} tensors taken over"
        if self.resampled:
            text += f", {len(self.resampled)} position tables resampled"
        if self.fresh:
            text += f", {len(self.fresh)} start anew"
        if self.left_over:
            names = ", ".join(key.removeprefix("net.") for key in self.left_over[:_NAMED])
            more = ", ..." if len(self.left_over) > _NAMED else ""
            text += f", {len(self.left_over)} of the file found no place ({names}{more})"
        return "; ".join((text, *self.notes))


def start_from(model: SRModel, path: Path | str) -> StartReport:
    """Start a model from another scale's or preset's weights, as far as they fit.

    The upsampler of another scale stays fresh; position tables of another size
    (``rpe_table``) are resampled bilinearly.

    Raises
    ------
    ModelError
        If nothing fits.
    """
    path = Path(path)
    source = path / WEIGHTS_NAME if path.is_dir() else path
    state, found, notes = _for_model(model, source)
    if found is not None and found.spans:
        span = found.spans[0] if found.sure else 1
        state = ours(folded(found, span))
        notes.append(f"values in 0..{span} are assumed")
    own = model.state_dict()
    merged: dict[str, Tensor] = {}
    resampled = []
    for key, value in state.items():
        if key in own and own[key].shape == value.shape:
            merged[key] = value
        elif key in own and key.endswith("rpe_table"):
            table = F.interpolate(
                value[None].float(), own[key].shape[-2:], mode="bilinear", align_corners=True
            )
            merged[key] = table[0].to(own[key].dtype)
            resampled.append(key)
    if not merged:
        raise ModelError(f"{path}: no tensor fits {model.info.name}; is it another architecture?")
    check_finite(merged, str(path))
    model.load_state_dict({**own, **merged})
    return StartReport(
        copied=tuple(sorted(set(merged) - set(resampled))),
        resampled=tuple(sorted(resampled)),
        fresh=tuple(sorted(set(own) - set(merged))),
        left_over=tuple(sorted(set(state) - set(merged))),
        notes=tuple(notes),
    )


def _differing(model: SRModel, found: Found) -> list[str]:
    """Settings of the model that are not those that the weights were trained with."""
    pairs = {
        key: (found.settings.get(key), getattr(model.settings, key, None)) for key in _UNSHAPED
    }
    return [
        f"{key} is {theirs} in the file and {own} in the model"
        for key, (theirs, own) in pairs.items()
        if theirs is not None and theirs != own
    ]


def _for_model(model: SRModel, path: Path) -> tuple[dict[str, Tensor], Found | None, list[str]]:
    """The tensors of a file by the model's names, as far as they are its network's; and notes."""
    tensors = read_tensors(path)
    # What wsisr saved has the names that a layout of others may have, too, but nothing to fold.
    known = None if specification_in(path) else recognise(tensors, str(path))
    if known is not None and known.found.model == model.info.name:
        notes = [*known.part.notes, *known.found.notes, *_differing(model, known.found)]
        return ours(known.found.tensors), known.found, notes
    part = own_part(model, tensors, str(path))
    return ours(part.tensors), None, list(part.notes)
